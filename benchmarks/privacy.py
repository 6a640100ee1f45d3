"""Measure what privacy costs, what it spends and what it hides.

Commands:
  OMP_NUM_THREADS=1 .venv/bin/python benchmarks/privacy.py cost benchmarks/privacy_cost.json
  OMP_NUM_THREADS=1 .venv/bin/python benchmarks/privacy.py membership benchmarks/privacy_membership.json
  .venv/bin/python benchmarks/privacy.py budgets benchmarks/privacy_budgets.json

--quick runs everything on tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats

from gridray.algorithms.registry import make_learner
from gridray.federated.compression import CompressionConfig, compress, masked_fixed_point
from gridray.federated.identity import public_key
from gridray.federated.privacy.accounting import (
    Budget,
    Mechanism,
    Unit,
    gaussian_noise_multiplier,
    noise_to_clip,
    sampled_noise_multiplier,
)
from gridray.federated.privacy.dp_sgd import DpSgdConfig, PrivateTraining
from gridray.federated.privacy.noise import SecretStream
from gridray.federated.privacy.quantisation import widest
from gridray.federated.privacy.secure_aggregation import WeightedCodec, secure_sum
from gridray.federated.privacy.secure_client import SecureClient
from gridray.federated.privacy.secure_messages import Session, default_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

NUM_VALUES = 220_000
ROWS_PER_DAY = 24


def secure_sum_cost(num_members: int, num_values: int) -> dict[str, float]:
    """Return the times of one secure sum, of which one member drops out before its input, in ms, and its bytes."""
    identities = {f"u{index:03d}": os.urandom(32) for index in range(num_members)}
    session = Session(
        run="benchmark",
        round=0,
        members={name: public_key(secret) for name, secret in identities.items()},
        threshold=default_threshold(num_members),
        num_words=WeightedCodec.num_words(num_values),
    )
    codec = WeightedCodec(widest(1.0, num_members))
    update = np.random.default_rng(0).uniform(-1, 1, num_values)
    start = time.perf_counter()
    words = codec.encode(update, 1.0)
    encode_ms = 1e3 * (time.perf_counter() - start)
    clients = {name: SecureClient(session, name, secret) for name, secret in identities.items()}
    spent: dict[str, list[float]] = {}

    def channel(method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        answers = {}
        for name, given in arguments.items():
            if method == "mask" and name == "u000":
                continue
            begin = time.perf_counter()
            answers[name] = getattr(clients[name], method)(*given, *((words,) if method == "mask" else ()))
            spent.setdefault(method, []).append(1e3 * (time.perf_counter() - begin))
        return answers

    begin = time.perf_counter()
    result = secure_sum(session, channel)
    total_ms = 1e3 * (time.perf_counter() - begin)
    assert len(result.survivors) == num_members - 1  # noqa: S101  # a benchmark of a wrong sum means nothing
    return {
        "members": num_members,
        "values": num_values,
        "mask_ms_per_peer": median(spent["mask"]) / (num_members - 1),
        "client_ms": encode_ms + sum(median(times) for times in spent.values()),
        "coordinator_ms": total_ms - sum(sum(times) for times in spent.values()),
        "upload_bytes_per_value": words.nbytes / num_values,
    }


def step_cost(algorithm: str, repeats: int) -> dict[str, float]:
    """Return ms of a plain step of 256 rows and of a private one of 16 days of 16 rows, networks of 256-256."""
    columns = days(60, seed=0, sizes=(50, 10))
    learner = make_learner(algorithm, observation_size=50, action_size=10, seed=0)
    config = DpSgdConfig(epsilon=8.0, noise_multiplier=1.0)
    private = PrivateTraining(learner, columns, config, SecretStream(os.urandom(32)))
    batch = {name: torch.from_numpy(columns[name][:256]) for name in learner.columns}
    plain_ms = timed(lambda _: learner.update(batch), repeats)
    return {"plain_ms": plain_ms, "private_ms": timed(lambda step: private.step(str(step)), repeats)}


def timed(call: Callable[[int], object], repeats: int) -> float:
    """Return the median time of a call, ms."""
    times = []
    for step in range(repeats):
        begin = time.perf_counter()
        call(step)
        times.append(1e3 * (time.perf_counter() - begin))
    return median(times)


def compression_cost() -> dict[str, dict[str, float]]:
    """Return bytes of an update by kind of compression, in the clear and under masks, and the time to make it."""
    update = np.random.default_rng(0).normal(size=NUM_VALUES)
    found = {}
    for kind in ("none", "top_k", "random_k", "int8"):
        config = CompressionConfig(kind=kind, share=0.1)
        rng = np.random.default_rng(0)
        begin = time.perf_counter()
        message, _ = compress(config, update, None, rng=rng, common_seed=0)
        found[kind] = {"ms": 1e3 * (time.perf_counter() - begin), "bytes": message.num_bytes}
        if kind != "top_k":
            word_bytes = masked_fixed_point(config, limit=1.0, num_clients=10).word_bits // 8
            found[kind]["masked_bytes"] = word_bytes * (config.num_sent(NUM_VALUES) + 2)
    return found


def days(num_days: int, *, seed: int, sizes: tuple[int, int] = (8, 2)) -> dict[str, NDArray[Any]]:
    """Return days of which the actions follow nothing: a policy that knows them has memorised them."""
    rng = np.random.default_rng(seed)
    num_rows = num_days * ROWS_PER_DAY
    return {
        "eps_id": np.repeat([f"day{day:04d}" for day in range(num_days)], ROWS_PER_DAY),
        "obs": rng.normal(size=(num_rows, sizes[0])).astype(np.float32),
        "new_obs": rng.normal(size=(num_rows, sizes[0])).astype(np.float32),
        "actions": rng.uniform(-0.9, 0.9, size=(num_rows, sizes[1])).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "terminateds": np.zeros(num_rows, dtype=np.float32),
    }


def attack_auc(learner: Any, loss: str, parts: tuple[dict[str, NDArray[Any]], ...]) -> float:  # noqa: ANN401
    """Return how well a day's loss tells members from others: area under the curve, 0.5 for a guess."""
    losses = []
    for columns in parts:
        rows = {name: torch.from_numpy(columns[name]).unflatten(0, (-1, ROWS_PER_DAY)) for name in learner.columns}
        with torch.no_grad():
            losses.append(
                [
                    float(
                        learner.networks.losses({name: part[day] for name, part in rows.items()}, learner.next_step)[
                            loss
                        ]
                    )
                    for day in range(len(rows["obs"]))
                ]
            )
    return float(stats.mannwhitneyu(losses[1], losses[0]).statistic) / (len(losses[0]) * len(losses[1]))


def membership(epsilon: float | None, seed: int, num_steps: int) -> dict[str, float]:
    """Train IQL on 60 days, with a day-level budget or plainly; return the attack's success on actor and critics."""
    members, others = days(60, seed=seed), days(200, seed=1000 + seed)
    config = {"hidden_sizes": [128, 128], "learning_rate": 1e-3, "temperature": 0.5}
    learner = make_learner("iql", observation_size=8, action_size=2, config=config, seed=seed)
    if epsilon is None:
        batches = np.random.default_rng(seed).integers(60 * ROWS_PER_DAY, size=(num_steps, 256))
        for rows in batches:
            learner.update({name: members[name][rows] for name in learner.columns})
    else:
        budget = Budget(unit=Unit.DAY, epsilon=epsilon, delta=1e-3)
        noise_multiplier = sampled_noise_multiplier(budget, num_steps, 16 / 60)
        settings = DpSgdConfig(epsilon=epsilon, delta=1e-3, noise_multiplier=noise_multiplier)
        training = PrivateTraining(learner, members, settings, SecretStream(os.urandom(32)))
        for step in range(num_steps):
            training.step(str(step))
    return {loss: attack_auc(learner, loss, (members, others)) for loss in ("actor_loss", "critic_loss")}


def cost(*, quick: bool) -> dict[str, Any]:
    """Measure times and bytes."""
    sizes = [(4, 1000)] if quick else [(10, NUM_VALUES), (50, NUM_VALUES), (10, 1_000_000)]
    return {
        "secure_sum": [secure_sum_cost(*size) for size in sizes],
        "step": {algorithm: step_cost(algorithm, 3 if quick else 100) for algorithm in ("bc", "iql", "td3_bc")},
        "compression": compression_cost(),
    }


def attacks(*, quick: bool) -> dict[str, Any]:
    """Measure the membership attack at several budgets over seeds."""
    seeds, num_steps = (1, 20) if quick else (3, 400)
    found = {}
    for epsilon in (None, 32.0, 8.0, 2.0):
        runs = [membership(epsilon, seed, num_steps) for seed in range(seeds)]
        found["plain" if epsilon is None else f"epsilon {epsilon:g} per day"] = {
            loss: {"mean": mean(run[loss] for run in runs), "max": max(run[loss] for run in runs)} for loss in runs[0]
        }
    return {"seeds": seeds, "steps": num_steps, "auc": found}


def budgets(*, quick: bool) -> dict[str, Any]:
    """Compute what budgets cost per utility and per day."""
    utility = {}
    for num_rounds in (50,) if quick else (50, 100, 200, 1000):
        for epsilon in (8.0, 2.0, 1.0):
            noise = gaussian_noise_multiplier(Budget(unit=Unit.UTILITY, epsilon=epsilon, delta=1e-5), num_rounds)
            ratio = noise_to_clip(noise, num_clients=10, num_values=280_000)
            utility[f"{num_rounds} rounds, epsilon {epsilon:g}"] = {"noise_multiplier": noise, "noise_to_clip": ratio}
    day = {}
    for years in (1,) if quick else (1, 10):
        for num_steps in (2_000, 10_000):
            for noise in (1.0, 2.0, 4.0):
                mechanism = Mechanism(noise_multiplier=noise, sampling_rate=16 / (365 * years))
                spent = mechanism.spent(num_steps, Budget(unit=Unit.DAY, epsilon=1.0, delta=1e-5))
                day[f"{years} years, {num_steps} steps of 16 days, noise {noise:g}"] = spent.epsilon
    return {"per_utility": utility, "per_day": day}


def main() -> None:
    """Run one part and write its result file."""
    parts = {"cost": cost, "membership": attacks, "budgets": budgets}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = json.dumps(parts[given.part](quick=given.quick), indent=1)
    given.out.write_text(results + "\n", encoding="utf-8")
    sys.stdout.write(results + "\n")


if __name__ == "__main__":
    main()
