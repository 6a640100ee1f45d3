"""Measure the power flow on one thread, paired with OpenDSS and power-grid-model on the same states in the same run.

Command: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/powerflow.py benchmarks/powerflow.json [--quick]

Our time is that of the whole `gridray.solve` call on a batch, each environment from the nominal state (cold), per
environment. OpenDSS's is that of Solution.Solve() alone, from its previous random state (warm), set through the Loads
iterator, which leaves its admittance matrix as it is; its setting, solving and reading together are compared with our
solving and reading together.
power-grid-model solves the three-phase radial grid of `peers.radial_feeder`, load changes only, threading=-1.
Ratios are the peer's time over ours in the same repeat; the peers take turns within each repeat.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import peers
from rich.console import Console
from rich.table import Table

import gridray
from gridray.feeders.synthetic import synthetic_feeder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder

TOLERANCES = (1e-8, 1e-4)
TAP_STEP = 0.00625
FLOATING_NODES = "610."
"""Nodes of IEEE 123's floating delta: their voltage to ground means little."""
FIRST_CALL = """
import time
start = time.perf_counter()
import gridray
imported = time.perf_counter()
import numpy as np
grid = gridray.compile_feeder(gridray.load_feeder("ieee13"))
scale = np.random.default_rng(0).uniform(0.5, 1.1, (256, len(grid.load_kw)))
result = gridray.solve(grid, load_kw=grid.load_kw * scale)
assert result.converged.all()
print(imported - start, time.perf_counter() - imported)
"""
MEMORY = """
import sys
import numpy as np
import gridray, peers
grid = gridray.compile_feeder(peers.feeder_of(sys.argv[1]))
num_envs = int(sys.argv[2])
scale = np.random.default_rng(0).uniform(0.5, 1.1, (num_envs, len(grid.load_kw)))
result = gridray.solve(grid, load_kw=grid.load_kw * scale)
# Of this program alone: getrusage's includes the process that started it.
lines = open("/proc/self/status").read().splitlines()
peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(peak, sum(array.nbytes for array in result.state))
"""


class Plan(NamedTuple):
    """Sizes of a run: cases as (name, environments, states that OpenDSS solves too)."""

    cases: tuple[tuple[str, int, int], ...]
    repeats: int
    radial: tuple[tuple[int, int], ...]
    synthetic_nodes: tuple[int, ...]
    synthetic_envs: int
    threads: tuple[tuple[str, int], ...]
    memory: tuple[str, tuple[int, ...]]


FULL = Plan(
    cases=(("ieee13", 4096, 256), ("ieee34mod2", 2048, 256), ("ieee123", 1024, 128), ("ieee8500", 256, 8)),
    repeats=21,
    radial=((14, 4096), (100, 1024), (1000, 256), (2500, 64)),
    synthetic_nodes=(100, 300, 1000, 3000, 10000, 30000, 100000),
    synthetic_envs=64,
    threads=(("ieee123", 65536), ("ieee8500", 1024)),
    memory=("ieee8500", (64, 256, 1024)),
)
QUICK = Plan((("ieee13", 64, 8),), 3, ((14, 256),), (100, 300), 64, (("ieee13", 256),), ("ieee13", (64, 128)))


class States(NamedTuple):
    """Random states: loads' kW and kvar [E, num_loads] and, where they vary, taps [E, num_taps]."""

    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]
    taps: NDArray[np.float64] | None


def random_states(grid: CompiledFeeder, num_envs: int, rng: np.random.Generator, *, has_taps: bool) -> States:
    """Draw U(0.5, 1.1) for each load and, on demand, taps within 8 steps of the frozen ones and 16 of neutral."""
    scale = rng.uniform(0.5, 1.1, (num_envs, len(grid.load_kw)))
    steps = rng.integers(-8, 9, (num_envs, len(grid.tap_names)))
    taps = np.clip(grid.nominal_taps + TAP_STEP * steps, 0.9, 1.1)
    return States(grid.load_kw * scale, grid.load_kvar * scale, taps if has_taps else None)


def spread(values: list[float]) -> dict[str, float]:
    """Return median, p10 and p90."""
    p10, p50, p90 = np.percentile(values, (10, 50, 90))
    return {"median": round(float(p50), 4), "p10": round(float(p10), 4), "p90": round(float(p90), 4)}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the call's seconds and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def solve_with_opendss(
    dss: peers.OpenDss, states: States, num_states: int
) -> tuple[dict[str, float], NDArray[np.complex128]]:
    """Solve the first states one after another; return mean times in us and iterations, and the voltages, V."""
    solve_s = whole_s = 0.0
    iterations, volts = [], []
    for number in range(num_states):
        start = time.perf_counter()
        dss.set_loads(states.kw[number], states.kvar[number])
        if states.taps is not None:
            dss.set_taps(states.taps[number])
        set_done = time.perf_counter()
        dss.solve()
        solve_s += time.perf_counter() - set_done
        volts.append(dss.voltages())
        whole_s += time.perf_counter() - start
        iterations.append(dss.circuit.Solution.Iterations)
        if not dss.circuit.Solution.Converged:
            sys.exit(f"OpenDSS did not converge on state {number}")
    scale = 1e6 / num_states
    times = {"solve_us": solve_s * scale, "whole_us": whole_s * scale, "iterations": float(np.median(iterations))}
    return times, np.array(volts)


def against_opendss(case: str, num_envs: int, num_states: int, repeats: int) -> list[dict[str, Any]]:
    """Measure one feeder: load changes, load and tap changes, both tolerances."""
    feeder = peers.feeder_of(case)
    grid = gridray.compile_feeder(feeder)
    dss = peers.OpenDss(case, grid, {control.transformer: control.winding for control in feeder.regulators})
    rng = np.random.default_rng(0)
    kinds = [(has_taps, tolerance) for has_taps in (False, True) for tolerance in TOLERANCES]
    samples: dict[tuple[bool, float], list[dict[str, float]]] = {kind: [] for kind in kinds}
    for repeat in range(repeats + 1):
        for has_taps, tolerance in kinds:
            states = random_states(grid, num_envs, rng, has_taps=has_taps)
            sample = _pair(grid, dss, states, num_states, tolerance)
            if repeat:
                samples[has_taps, tolerance].append(sample)
    return [
        {
            "feeder": case,
            "num_nodes": grid.num_nodes,
            "num_envs": num_envs,
            "opendss_states_per_repeat": num_states,
            "changes": "loads and taps" if has_taps else "loads",
            "tolerance": tolerance,
            **_summary(samples[has_taps, tolerance]),
        }
        for has_taps, tolerance in kinds
    ]


def _pair(
    grid: CompiledFeeder, dss: peers.OpenDss, states: States, num_states: int, tolerance: float
) -> dict[str, float]:
    seconds, result = timed(
        lambda: gridray.solve(
            grid, load_kw=states.kw, load_kvar=states.kvar, taps=states.taps, tolerance=tolerance, num_threads=1
        )
    )
    if not result.converged.all():
        sys.exit(f"{grid.name}: {int((~result.converged).sum())} power flows did not converge")
    read_s, ours = timed(lambda: result.voltage)
    dss.set_tolerance(tolerance)
    if states.taps is None:
        dss.set_taps(grid.nominal_taps)
        dss.solve()
    peer, volts = solve_with_opendss(dss, states, num_states)
    is_compared = np.array([not name.startswith(FLOATING_NODES) for name in grid.node_names])
    difference = np.abs(ours[:num_states] - volts) / grid.node_base_v
    ours_us = seconds / len(states.kw) * 1e6
    return {
        "gridray_us": ours_us,
        "gridray_read_us": read_s / len(states.kw) * 1e6,
        "gridray_iterations": float(np.median(result.iterations)),
        "opendss_solve_us": peer["solve_us"],
        "opendss_set_solve_read_us": peer["whole_us"],
        "opendss_iterations": peer["iterations"],
        "ratio_to_solve": peer["solve_us"] / ours_us,
        "ratio_to_set_solve_read": peer["whole_us"] / (ours_us + read_s / len(states.kw) * 1e6),
        "max_difference_pu": float(difference[:, is_compared].max()),
    }


def _summary(samples: list[dict[str, float]]) -> dict[str, Any]:
    columns = {key: [sample[key] for sample in samples] for key in samples[0]}
    largest = float(max(columns.pop("max_difference_pu")))
    return {**{key: spread(column) for key, column in columns.items()}, "max_difference_pu": largest}


def against_power_grid_model(num_buses: int, num_envs: int, repeats: int) -> dict[str, Any]:
    """Measure load changes on the radial grid; the best method is the fastest that agrees with us to 1e-6 pu."""
    grid, model = gridray.compile_feeder(peers.radial_feeder(num_buses)), peers.pgm_model(num_buses)
    rng = np.random.default_rng(0)
    order = _bus_order(grid, num_buses)
    times: dict[str, list[float]] = {name: [] for name in ("gridray", *peers.METHODS)}
    differences = dict.fromkeys(peers.METHODS, 0.0)
    for repeat in range(repeats + 1):
        states = random_states(grid, num_envs, rng, has_taps=False)
        update = peers.pgm_update(num_buses, states.kw, states.kvar)
        seconds = {}
        seconds["gridray"], result = timed(
            lambda s=states: gridray.solve(grid, load_kw=s.kw, load_kvar=s.kvar, tolerance=1e-8)
        )
        ours = result.vmag_pu[:, order].reshape(num_envs, num_buses, 3)
        for method in peers.METHODS:
            seconds[method], theirs = timed(lambda m=method, u=update: peers.pgm_solve(model, u, m, 1e-8))
            differences[method] = max(differences[method], float(np.abs(theirs - ours).max()))
        for name, value in seconds.items() if repeat else ():
            times[name].append(value / num_envs * 1e6)
    exact = [method for method in peers.METHODS if differences[method] < 1e-6]
    if not result.converged.all() or not exact:
        sys.exit(f"radial grid of {num_buses} buses: no agreement with power-grid-model: {differences}")
    best = min(exact, key=lambda method: float(np.median(times[method])))
    ratios = {m: spread([t / o for t, o in zip(times[m], times["gridray"], strict=True)]) for m in peers.METHODS}
    return {
        "num_buses": num_buses,
        "num_envs": num_envs,
        "us_per_environment": {name: spread(column) for name, column in times.items()},
        "gridray_iterations": float(np.median(result.iterations)),
        "ratio": ratios,
        "max_difference_pu": differences,
        "best": best,
        "ratio_to_best": ratios[best],
    }


def _bus_order(grid: CompiledFeeder, num_buses: int) -> list[int]:
    index = {name: i for i, name in enumerate(grid.node_names)}
    return [index[f"b{bus}.{phase}"] for bus in range(num_buses) for phase in (1, 2, 3)]


def two_threads(case: str, num_envs: int, repeats: int) -> dict[str, Any]:
    """Measure how much faster two threads are than one on the same states, loads and taps."""
    grid = gridray.compile_feeder(peers.feeder_of(case))
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(repeats + 1):
        states = random_states(grid, num_envs, rng, has_taps=True)
        one, two = (
            timed(
                lambda n=n, s=states: gridray.solve(grid, load_kw=s.kw, load_kvar=s.kvar, taps=s.taps, num_threads=n)
            )[0]
            for n in (1, 2)
        )
        ratios.append(one / two)
    return {"feeder": case, "num_envs": num_envs, "speedup": spread(ratios[1:])}


def scaling(sizes: tuple[int, ...], num_envs: int, repeats: int) -> dict[str, Any]:
    """Measure cost and memory per environment over synthetic feeders; fit the exponent of the cost."""
    rows = [_cost(synthetic_feeder(size, seed=1), num_envs, repeats) for size in sizes]
    nodes = np.log([row["num_nodes"] for row in rows])
    slope = {
        key: round(float(np.polyfit(nodes, np.log([value(row) for row in rows]), 1)[0]), 4)
        for key, value in {
            "time": lambda row: row["us_per_environment"]["median"],
            "memory": lambda row: row["state_bytes_per_environment"],
        }.items()
    }
    return {"num_envs": num_envs, "log_log_slope": slope, "feeders": rows}


def _cost(feeder: Feeder, num_envs: int, repeats: int) -> dict[str, Any]:
    compile_s, grid = timed(lambda: gridray.compile_feeder(feeder))
    rng = np.random.default_rng(0)
    times = []
    for _ in range(min(repeats, 9) + 1):
        states = random_states(grid, num_envs, rng, has_taps=False)
        seconds, result = timed(lambda s=states: gridray.solve(grid, load_kw=s.kw, load_kvar=s.kvar))
        times.append(seconds / num_envs * 1e6)
    return {
        "num_nodes": grid.num_nodes,
        "compile_s": round(compile_s, 2),
        "us_per_environment": spread(times[1:]),
        "iterations": float(np.median(result.iterations)),
        "num_not_converged": int((~result.converged).sum()),
        "state_bytes_per_environment": sum(array.nbytes for array in result.state) // num_envs,
    }


def fresh_process(code: str, *arguments: str) -> list[float]:
    """Run the code in its own process and return the numbers that it prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603
    return [float(word) for word in done.stdout.split()]


def first_call(repeats: int) -> dict[str, Any]:
    """Measure import, and load, compile and solve of the first IEEE 13 batch, with the kernels' caches warm."""
    runs = [fresh_process(FIRST_CALL) for _ in range(min(repeats, 5) + 1)][1:]
    return {"import_s": spread([run[0] for run in runs]), "load_compile_solve_s": spread([run[1] for run in runs])}


def memory(case: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Measure the peak of resident memory, compilation included, for several numbers of environments."""
    rows = []
    for num_envs in sizes:
        peak, state = fresh_process(MEMORY, case, str(num_envs))
        rows.append({"num_envs": num_envs, "peak_rss_bytes": int(peak), "state_bytes": int(state)})
    growth = (rows[-1]["peak_rss_bytes"] - rows[-2]["peak_rss_bytes"]) / (sizes[-1] - sizes[-2])
    return {"feeder": case, "batches": rows, "growth_bytes_per_environment": int(growth)}


def machine() -> dict[str, Any]:
    """Describe where and with what this was measured."""
    names = ("numpy", "numba", "dss-python", "power-grid-model")
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {name: importlib.metadata.version(name) for name in names}
    load = round(os.getloadavg()[0], 2)
    return {"cpu": cpu, "cores": os.cpu_count(), "load_average": load, "python": platform.python_version(), **versions}


def show(results: dict[str, Any]) -> None:
    """Print the comparison with the peers as a table, the rest as lines."""
    table = Table("feeder", "changes", "tolerance", "gridray us", "peer us", "ratio (p10..p90)", "iterations", "max pu")
    for row in results["opendss"]:
        ratio = row["ratio_to_solve"]
        table.add_row(
            row["feeder"], row["changes"], f"{row['tolerance']:.0e}", f"{row['gridray_us']['median']:.2f}",
            f"{row['opendss_solve_us']['median']:.1f}",
            f"{ratio['median']:.1f} ({ratio['p10']:.1f}..{ratio['p90']:.1f})",
            f"{row['gridray_iterations']['median']:.0f} / {row['opendss_iterations']['median']:.0f}",
            f"{row['max_difference_pu']:.1e}",
        )  # fmt: skip
    for row in results["power_grid_model"]:
        ratio, times = row["ratio_to_best"], row["us_per_environment"]
        table.add_row(
            f"radial {row['num_buses']}", f"loads ({row['best']})", "1e-08", f"{times['gridray']['median']:.2f}",
            f"{times[row['best']]['median']:.1f}",
            f"{ratio['median']:.1f} ({ratio['p10']:.1f}..{ratio['p90']:.1f})",
            f"{row['gridray_iterations']:.0f}", f"{row['max_difference_pu'][row['best']]:.1e}",
        )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    for name in ("two_threads", "scaling", "memory", "first_call"):
        console.print(name, results[name])


def main() -> None:
    """Measure everything and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    results: dict[str, Any] = {
        "method": __doc__,
        "machine": machine(),
        "repeats": plan.repeats,
        "opendss": [row for case in plan.cases for row in against_opendss(*case, plan.repeats)],
        "power_grid_model": [against_power_grid_model(*size, plan.repeats) for size in plan.radial],
        "two_threads": [two_threads(*case, plan.repeats) for case in plan.threads],
        "scaling": scaling(plan.synthetic_nodes, plan.synthetic_envs, plan.repeats),
        "memory": memory(*plan.memory),
        "first_call": first_call(plan.repeats),
    }
    aside = arguments.out.with_suffix(".tmp")
    aside.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    aside.rename(arguments.out)
    show(results)


if __name__ == "__main__":
    main()
