"""Measure recording: transitions per second beside the bare environment, files included, and memory by size.

Both run on one and the same core, to which the process is bound: the environment, and recording's policy, steps, files
and digests. The environment alone has no policy, its actions were drawn before. More cores are more actors, of both.

Command: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/record.py benchmarks/record.json
Options: --quick (tiny sizes, 13 bus only); --sizes 100000 1000000 (transitions of the memory runs); --memory-only
(keeps the file's throughput). Memory to 10^7 transitions, which takes some 5 GB of disk under TMPDIR and some minutes:
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/record.py benchmarks/record.json --memory-only \
        --sizes 100000 1000000 10000000
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gridray.datasets.record import RecordConfig, record
from gridray.envs.registration import make_vector_env

NUM_ENVS = 256
FEEDERS = {"ieee13": 3_000_000, "ieee123": 500_000}
"""Transitions recorded of each: enough that a day's file has hundreds of rows."""
REPEATS, BARE_REPEATS = 3, 3
STEPS_PER_DAY = 96


def bare_steps_per_second(feeder: str, num_steps: int) -> float:
    """Return steps per second of the environment alone, with random actions that were drawn before."""
    envs = make_vector_env("volt_var", {"feeder": feeder}, NUM_ENVS)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (num_steps, NUM_ENVS, len(envs.task.action_channels))).astype(np.float32)
    envs.reset(seed=0)
    gc.collect()
    start = time.perf_counter()
    for action in actions:
        envs.step(action)
    return num_steps * NUM_ENVS / (time.perf_counter() - start)


def settings(feeder: str, num_transitions: int) -> RecordConfig:
    """Return what is recorded: utility controls with noise and random days, a year of days."""
    return RecordConfig(
        task_config={"feeder": feeder},
        noise_std=0.2,
        random_share=0.2,
        num_episodes=max(1, num_transitions // STEPS_PER_DAY),
        num_envs=NUM_ENVS,
        rows_per_shard=NUM_ENVS * STEPS_PER_DAY,
    )


def record_once(feeder: str, num_transitions: int, folder: Path) -> dict[str, Any]:
    """Record, check and open a dataset in this process; rate of all that and peak memory, MB."""
    config = settings(feeder, num_transitions)
    before_mb = peak_mb()
    gc.collect()
    start = time.perf_counter()
    dataset = record(config, folder / f"{feeder}-{num_transitions}", use_ray=False)
    seconds = time.perf_counter() - start
    size = sum(shard.bytes for shard in dataset.card.shards)
    return {
        "transitions": dataset.num_transitions,
        "files": len(dataset.files),
        "megabytes": round(size / 1e6, 1),
        "transitions_per_second": round(dataset.num_transitions / seconds),
        "peak_mb": round(peak_mb()),
        "peak_mb_before": round(before_mb),
    }


def compare(feeder: str, num_transitions: int, num_steps: int) -> dict[str, Any]:
    """Measure the bare environment before and after each recording: what else the machine does shows in both."""
    folder = Path(tempfile.mkdtemp())
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    # Compiled kernels, profiles and imports are paid once.
    bare_steps_per_second(feeder, 2)
    record_once(feeder, 5 * STEPS_PER_DAY, folder / "first")
    repeats = REPEATS if num_steps > 10 else 1
    bare, runs = [], []
    for repeat in range(repeats):
        bare += [bare_steps_per_second(feeder, num_steps) for _ in range(BARE_REPEATS)]
        runs.append(record_once(feeder, num_transitions, folder / str(repeat)))
        shutil.rmtree(folder / str(repeat))
    bare += [bare_steps_per_second(feeder, num_steps) for _ in range(BARE_REPEATS)]
    os.sched_setaffinity(0, cores)
    shutil.rmtree(folder)
    per_second = median(run["transitions_per_second"] for run in runs)
    return runs[-1] | {
        "transitions_per_second": round(per_second),
        "bare_steps_per_second": round(median(bare)),
        "share_of_bare": round(per_second / median(bare), 3),
        "runs": [run["transitions_per_second"] for run in runs],
        "bare_runs": [round(rate) for rate in bare],
    }


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, MB; getrusage's includes its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def memory(num_transitions: int) -> dict[str, Any]:
    """Record in a fresh process and return what it says."""
    folder = Path(tempfile.mkdtemp())
    try:
        command = [sys.executable, __file__, "--one", str(num_transitions), "--folder", str(folder)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # own words
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sizes", nargs="*", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--memory-only", action="store_true")
    parser.add_argument("--one", type=int, help="Only record this many transitions of 13 bus into --folder.")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(record_once("ieee13", options.one, options.folder)) + "\n")
        return
    results: dict[str, Any] = {"num_envs": NUM_ENVS}
    if options.memory_only:
        results |= json.loads(options.out.read_text(encoding="utf-8"))
    else:
        num_steps = 4 if options.quick else 95
        results["throughput"] = {
            feeder: compare(feeder, 960 if options.quick else size, num_steps)
            for feeder, size in FEEDERS.items()
            if feeder == "ieee13" or not options.quick
        }
    results["memory"] = [memory(size) for size in ([960] if options.quick else options.sizes)]
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
