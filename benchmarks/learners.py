"""Compare our learners with d3rlpy's and RLlib's: updates per second, and the return that they reach on equal data.

Commands:
    OMP_NUM_THREADS=1 python benchmarks/learners.py speed benchmarks/learners.json
    OMP_NUM_THREADS=1 python benchmarks/learners.py speed benchmarks/learners_mkl.json --mkl
    OMP_NUM_THREADS=1 python benchmarks/learners.py trust benchmarks/learners_trust.json
The last goes on where it stopped when it is started again; --seconds ends it early; --quick makes tiny ones.
Its shares may run side by side, each with a file of its own, such as on 16 cores:
    for i in $(seq 0 15); do
        OMP_NUM_THREADS=1 python benchmarks/learners.py trust part$i.json --share $i/16 &
    done; wait
    OMP_NUM_THREADS=1 python benchmarks/learners.py trust benchmarks/learners_trust.json --merge part*.json
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from learner_peers import D3RLPY, RLLIB, D3rlpy, Ours

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALGORITHMS = ("bc", "awr", "iql", "td3_bc", "rebrac", "cql")
OBSERVATIONS, ACTIONS, ROWS, BATCH = 50, 10, 20_000, 256
ROUNDS = 5
ROUND_S = 0.6
"""Time of each library in each round; what needs longer takes one update."""


def made_up(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return transitions that mean nothing, in episodes of 100."""
    return {
        "obs": rng.normal(size=(ROWS, OBSERVATIONS)),
        "actions": rng.uniform(-1.0, 1.0, (ROWS, ACTIONS)),
        "rewards": rng.normal(size=ROWS),
        "new_obs": rng.normal(size=(ROWS, OBSERVATIONS)),
        "terminateds": np.zeros(ROWS, dtype=np.bool_),
        "truncateds": np.arange(ROWS) % 100 == 99,
        "new_actions": rng.uniform(-1.0, 1.0, (ROWS, ACTIONS)),
        "has_new_actions": np.arange(ROWS) % 100 != 99,
    }


def rate(peer: Ours | D3rlpy, seconds: float) -> float:
    """Return updates per second, sampling included."""
    num_updates, start = 0, time.perf_counter()
    while num_updates == 0 or time.perf_counter() - start < seconds:
        peer.update()
        num_updates += 1
    return num_updates / (time.perf_counter() - start)


def speed(algorithms: list[str], *, quick: bool) -> dict[str, Any]:
    """Measure all libraries in turns, so that whatever else the machine does meets all of them."""
    columns = made_up(np.random.default_rng(0))
    settings: dict[str, Any] = {"hidden_sizes": [256, 256], "learning_rate": 3e-4}
    results = {}
    for name in algorithms:
        own = settings | ({} if name == "bc" else {"discount": 0.99})
        peers: dict[str, Ours | D3rlpy] = {"gridray": Ours(name, columns, own, BATCH, 0)}
        if name in D3RLPY:
            peers["d3rlpy"] = D3rlpy(name, columns, own, BATCH, 0)
        if name in RLLIB:
            peers["rllib"] = Ours(RLLIB[name], columns, own, BATCH, 0)
        for peer in peers.values():
            peer.update()
        rounds = [
            {library: rate(peer, 0.05 if quick else ROUND_S) for library, peer in peers.items()}
            for _ in range(2 if quick else ROUNDS)
        ]
        row: dict[str, Any] = {library: round(median(turn[library] for turn in rounds), 2) for library in peers}
        for library in set(peers) - {"gridray"}:
            row[f"ratio_to_{library}"] = round(median(turn["gridray"] / turn[library] for turn in rounds), 2)
        results[name] = dict(sorted(row.items()))
        sys.stdout.write(f"{name}: {results[name]}\n")
        sys.stdout.flush()
    return {
        "updates_per_second": results,
        "observations": OBSERVATIONS,
        "actions": ACTIONS,
        "batch": BATCH,
        "hidden_sizes": settings["hidden_sizes"],
        "rounds": ROUNDS,
        "has_onednn": bool(torch.backends.mkldnn.enabled),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }


def share_of(text: str) -> tuple[int, int]:
    """Return I and N of "I/N"."""
    index, _, number = text.partition("/")
    if not (index.isdigit() and number.isdigit() and int(index) < int(number)):
        raise argparse.ArgumentTypeError(f"'{text}' is no share: give I/N with I from 0 to N - 1")
    return int(index), int(number)


def main() -> None:
    """Run one mode and write its result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("speed", "trust"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop the trust table after this time")
    parser.add_argument("--share", type=share_of, default=(0, 1), metavar="I/N", help="of the trust table, I from 0")
    parser.add_argument("--merge", nargs="+", type=Path, default=[], help="tables of shares, to be put together")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS, help="of the speed table")
    parser.add_argument("--mkl", action="store_true", help="multiply by PyTorch's BLAS alone, never by oneDNN")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = not options.mkl
    if options.mode == "speed":
        options.out.write_text(json.dumps(speed(options.algorithms, quick=options.quick), indent=1) + "\n", "utf-8")
    else:
        from learner_trust import trust  # noqa: PLC0415  # it records grid data, which speed does not need

        trust(options.out, seconds=options.seconds, quick=options.quick, share=options.share, parts=options.merge)


if __name__ == "__main__":
    main()
