"""Measure power flows and environment steps on one core.

Command: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/step_rate.py benchmarks/step_rate.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gridray.envs.registration import make_vector_env
from gridray.feeders.library import feeder_names, load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.physics.powerflow import solve
from gridray.policies.registry import make_policy

NUM_ENVS = 256
REPEATS = 15


def power_flow_us(name: str) -> float:
    """Return the median time of one power flow with random loads and taps, from the nominal state to 1e-8 pu, in us."""
    grid = compile_feeder(load_feeder(name))
    rng = np.random.default_rng(0)
    times = []
    for _ in range(REPEATS + 1):
        load_kw = grid.load_kw * rng.uniform(0.5, 1.1, (NUM_ENVS, len(grid.load_kw)))
        taps = 1.0 + 0.00625 * rng.integers(-4, 12, (NUM_ENVS, len(grid.tap_names)))
        start = time.perf_counter()
        state = solve(grid, load_kw=load_kw, taps=taps)
        times.append((time.perf_counter() - start) / NUM_ENVS * 1e6)
        if not state.converged.all():
            sys.exit(f"{name}: {int((~state.converged).sum())} power flows did not converge")
    return median(times[1:])


def steps_per_second(name: str) -> float:
    """Return environment steps per second under the utility's controls, the policy's time included."""
    envs = make_vector_env("volt_var", {"feeder": name}, NUM_ENVS)
    policy = make_policy("utility_controls", envs.task)
    rng = np.random.default_rng(0)
    observations, _ = envs.reset(seed=0)
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        observations, *_ = envs.step(policy.act(observations, rng))
        rates.append(NUM_ENVS / (time.perf_counter() - start))
    return median(rates)


def main() -> None:
    """Measure all feeders of the library and write the result file."""
    results: dict[str, Any] = {
        name: {"power_flow_us": round(power_flow_us(name), 2), "steps_per_second": round(steps_per_second(name))}
        for name in feeder_names()
    }
    Path(sys.argv[1]).write_text(json.dumps({"num_envs": NUM_ENVS, "feeders": results}, indent=1) + "\n", "utf-8")
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
