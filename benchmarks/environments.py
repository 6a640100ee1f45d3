"""Measure environment steps on one core: the twin's volt-var, PowerGym's task, and both through RLlib's env runners.

Command: OMP_NUM_THREADS=1 GRIDRAY_REFERENCE_DIR=../shared/reference \
    .venv/bin/python benchmarks/environments.py benchmarks/environments.json --page docs/environments.md
PowerGym's tasks are left out where the reference folder is missing, RLlib's runners where Ray is.
--quick: tiny sizes, to see that it runs. --page PAGE: write the results into a page, between its two marks.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.compat.powergym import IDLE, NUM_LEVELS, PowerGym, PowerGymConfig
from gridray.envs.registration import make_vector_env
from gridray.envs.vector_env import GridVectorEnv
from gridray.tasks import twin as twin_module
from gridray.tasks.twin import SOLVER_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

QUICK = "--quick" in sys.argv
NUM_ENVS = 16 if QUICK else 1024
REPEATS = 2 if QUICK else 9
POWERGYM_STEPS_PER_S = {"13Bus": 2741, "34Bus": 764, "123Bus": 873, "8500Node": 20}
"""Measured with the unmodified original, one thread (gridray's issue "A living twin")."""
POWERGRIDWORLD_STEPS_PER_S = 116
"""Published, per worker, PPO on a 13-bus feeder (Biagioni et al. 2022, arXiv:2111.05969)."""
MARKS = ("<!-- benchmarks/environments.json -->", "<!-- end -->")
"""Around the results in a page."""
TAPS_MOVE_WITHIN = 3
"""Taps anywhere within that many steps of the middle, another place in each step."""


def timed(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the median time of a call, s; the first, which compiles, is left out."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def rate_of(envs: GridVectorEnv, draw: Callable[[], NDArray[Any]], num_steps: int = 8) -> dict[str, float]:
    """Return steps per second, and what a reset costs, of environments under drawn actions."""
    envs.reset(seed=0)
    actions = [draw() for _ in range(num_steps)]

    def play() -> None:
        for action in actions:
            envs.step(action)

    # A day must not end within the measured steps: resets are measured apart.
    repeats = max(min(REPEATS, envs.task.num_steps // num_steps - 1), 1)
    step_us = timed(play, repeats) / num_steps / envs.num_envs * 1e6
    # Twice, so that the days' starts are known, as after the first days of a training run.
    envs.reset(seed=0)
    cold_s = time.perf_counter()
    envs.reset()
    cold_us = (time.perf_counter() - cold_s) / envs.num_envs * 1e6
    reset_us = timed(lambda: envs.reset(seed=0)) / envs.num_envs * 1e6
    return {
        "num_envs": envs.num_envs,
        "steps_per_s": round(1e6 / step_us),
        "step_us": round(step_us, 2),
        "reset_us": round(reset_us, 2),
        "reset_of_new_days_us": round(cold_us, 2),
    }


def volt_var(feeder: str) -> dict[str, Any]:
    """Measure the twin's volt-var task (two power flows a step) and the share of a step that is the solver's."""
    rng = np.random.default_rng(0)
    envs = make_vector_env("volt_var", {"feeder": feeder}, NUM_ENVS)
    found: dict[str, Any] = rate_of(envs, lambda: rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32))
    return found | {"solver_share": round(solver_share(envs), 3)}


def solver_share(envs: GridVectorEnv) -> float:
    """Return the share of steps' time that passes in `solve_state`."""
    inside, solve = 0.0, twin_module.solve_state

    def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        nonlocal inside
        start = time.perf_counter()
        solved = solve(*args, **options)
        inside += time.perf_counter() - start
        return solved

    twin_module.solve_state = counted
    envs.reset(seed=0)
    actions = np.zeros(envs.action_space.shape, np.float32)
    start = time.perf_counter()
    for _ in range(2 if QUICK else 40):
        envs.step(actions)
    total = time.perf_counter() - start
    twin_module.solve_state = solve
    return inside / total


def powergym(system: str, data: Path) -> dict[str, Any]:
    """Measure PowerGym's task, taps and batteries moving in every step."""
    task = PowerGym(PowerGymConfig(system=system, data=str(data)))
    num_envs = (4 if QUICK else 64) if system == "8500Node" else NUM_ENVS
    envs = GridVectorEnv(task, num_envs)
    low = np.array([channel.low for channel in task.action_channels], dtype=np.int64)
    high = np.array([channel.high for channel in task.action_channels], dtype=np.int64)
    is_tap = np.array([channel.name.startswith("regulator.") for channel in task.action_channels])
    is_bank = np.array([channel.name.startswith("capacitor.") for channel in task.action_channels])
    rng = np.random.default_rng(0)

    def draw() -> NDArray[np.int64]:
        near = rng.integers(IDLE - TAPS_MOVE_WITHIN, IDLE + TAPS_MOVE_WITHIN + 1, (num_envs, len(low)))
        levels = np.where(is_tap, near, rng.integers(0, NUM_LEVELS, near.shape))
        return np.clip(np.where(is_bank, 1, levels), low, high)

    found: dict[str, Any] = rate_of(envs, draw, num_steps=4)
    ratio = found["steps_per_s"] / POWERGYM_STEPS_PER_S[system]
    return found | {"powergym_steps_per_s": POWERGYM_STEPS_PER_S[system], "times_powergym": round(ratio, 1)}


def four_in_one() -> dict[str, float]:
    """Compare a step of four environments in one process with four steps of one."""
    found = {}
    for number in (1, 4):
        envs = make_vector_env("volt_var", {"feeder": "ieee13"}, number)
        envs.reset(seed=0)
        actions = np.zeros(envs.action_space.shape, np.float32)
        found[number] = timed(lambda envs=envs, actions=actions: [envs.step(actions) for _ in range(8)]) / 8
    return {
        "one_us": round(found[1] * 1e6, 1),
        "four_us": round(found[4] * 1e6, 1),
        "four_over_four_times_one": round(found[4] / found[1] / 4.0, 3),
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in info.read_text("utf-8").splitlines() if "model name" in line]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def report(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    where = results["machine"]
    lines = [
        f"{NUM_ENVS} environments (8500: 64) on one of {where['cores']} cores, {where['cpu']}, load average "
        f"{where['load_average']} at the start.",
        "",
        "| task | steps/s | solver's share | reset over step | of new days | PowerGym's steps/s | times |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, rows in (("volt_var", results["volt_var"]), ("PowerGym", results["powergym"])):
        for name, row in rows.items():
            resets = [f"{row[key] / row['step_us']:.2f}" for key in ("reset_us", "reset_of_new_days_us")]
            share = row.get("solver_share", "")
            peer = [f"{row['powergym_steps_per_s']:,}", row["times_powergym"]] if "times_powergym" in row else ["", ""]
            cells = (f"{kind} {name}", f"{row['steps_per_s']:,}", share, *resets, *peer)
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    four = results["four_in_one_actor"]["four_over_four_times_one"]
    lines += ["", f"A step of four environments in one process takes {four} of four steps of one."]
    if "rllib" in results:
        lines += [
            "",
            "PPO's sampling, 128 environments in one process, a network of 256 x 256, steps/s; shares: of our runner.",
            "",
            "| environment | default runner | ours | times | environment's share | network's share |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, row in results["rllib"].items():
            cells = (
                name,
                f"{row['default_runner_steps_per_s']:,}",
                f"{row['array_runner_steps_per_s']:,}",
                row["speedup"],
                row["array_runner_env_share"],
                row["array_runner_network_share"],
            )
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        times = results["rllib"]["volt_var_ieee13"]["times_powergridworld"]
        lines += ["", f"PowerGridworld publishes {POWERGRIDWORLD_STEPS_PER_S} per worker: {times} times."]
    return "\n".join(lines)


def write_page(page: Path, results: dict[str, Any]) -> None:
    """Put the report between the page's marks."""
    before, _, rest = page.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{report(results)}\n{MARKS[1]}{after}", "utf-8")


def main() -> None:
    """Measure all and write the result file."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    results: dict[str, Any] = {
        "machine": machine(),
        "tolerance_pu": SOLVER_TOLERANCE,
        "tap_range_steps": TAPS_MOVE_WITHIN,
    }
    feeders = ("ieee13",) if QUICK else ("ieee13", "ieee34", "ieee123")
    results["volt_var"] = {feeder: volt_var(feeder) for feeder in feeders}
    data = Path(os.environ.get("GRIDRAY_REFERENCE_DIR", "../shared/reference")) / "powergym"
    systems = ("13Bus",) if QUICK else tuple(POWERGYM_STEPS_PER_S)
    results["powergym"] = {system: powergym(system, data) for system in systems} if data.is_dir() else {}
    results["four_in_one_actor"] = four_in_one()
    if find_spec("ray"):
        from rllib_sampling import sampling  # noqa: PLC0415  # RLlib takes seconds to import

        results["rllib"] = sampling(quick=QUICK)
        bare = results["rllib"]["volt_var_ieee13"]
        bare["times_powergridworld"] = round(bare["array_runner_steps_per_s"] / POWERGRIDWORLD_STEPS_PER_S, 1)
    results["seconds"] = round(time.perf_counter() - start)
    Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    sys.stdout.write(report(results) + "\n")
    if "--page" in sys.argv:
        write_page(Path(sys.argv[sys.argv.index("--page") + 1]), results)


if __name__ == "__main__":
    main()
