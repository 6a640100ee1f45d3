"""Solve thousands of extreme random states of each feeder; count what becomes of them, OpenDSS's answers beside ours.

Command: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/stress.py benchmarks/stress.json [--states 10000]
    [--opendss-states 500] [--feeders ieee13 ieee123] [--processes 1]

Loads from 0 to 5 times nominal, every load model (each chunk of states draws them anew), PV beside a third of the
loads up to 3 times the feeder's peak load, random switches, capacitors and taps, the source at 0.8 to 1.2 pu.
A state that we call converged must fulfil Kirchhoff's current law at every node to 1e-6 of its largest current (pu of
1 MVA per phase) beyond the rounding of float64 voltages, computed here from the elements' own
matrices; any other must carry a status.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import peers
from dss import DSSException
from rich.console import Console
from rich.table import Table
from scipy import sparse

import gridray
from gridray.feeders.components import Generator
from gridray.physics.admittance import primitive_admittances, source_phasors
from gridray.physics.loads import branch_currents
from gridray.physics.measure import node_voltages
from gridray.physics.state import STATUSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import Load
    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.measure import PowerFlow

FEEDERS = ("ieee13", "ieee34mod2", "ieee37", "ieee123", "ieee8500")
TOLERANCE = 1e-9
"""Of voltages, pu: with 1e-8 the residual of a nearly idle feeder can exceed a millionth of its small currents."""
ALLOWED_RESIDUAL = 1e-6
CHUNK = 250
TAP_STEP = 0.00625
AGREEMENT_PU = 1e-5
NODE_VA = 1e6
ROUNDING = 4.0 * float(np.finfo(np.float64).eps)
"""Share of sum |y| |v| at a node below which its residual is nothing: float64 voltages cannot say more."""


class Kirchhoff(NamedTuple):
    """The elements' terminals, T of them, and what flows into each, pu, by node in the order of the grid's names.

    constant: complex [T, N], current into each terminal from the node voltages; gather: [N, T], terminals of a node.
    into: [T, X], entries of the matrices that a control scales by control**exponent; node: the voltage each reads.
    inner: complex [T], source's current from its inner voltage at source_pu = 1.
    """

    constant: sparse.csr_matrix
    gather: sparse.csr_matrix
    into: sparse.csr_matrix
    value: NDArray[np.complex128]
    node: NDArray[np.int64]
    control: NDArray[np.int64]
    exponent: NDArray[np.int64]
    inner: NDArray[np.complex128]


def kirchhoff(feeder: Feeder, grid: CompiledFeeder) -> Kirchhoff:
    """Collect the matrices of all elements; controls are taps (as 1/tap), then switches, then capacitors."""
    index = {name: i for i, name in enumerate(grid.node_names)}
    names = (*grid.tap_names, *(f"line.{name}" for name in grid.switch_names), *grid.capacitor_names)
    controls = {name: c for c, name in enumerate(names)}
    volts = grid.node_base_v
    terminals: list[int] = []
    fixed, varied = [], []
    for primitive in primitive_admittances(feeder):
        nodes = np.array([index[f"{bus}.{number}"] for bus, number in primitive.nodes])
        rows = len(terminals) + np.arange(len(nodes))
        terminals.extend(nodes)
        scale = np.outer(volts[nodes], volts[nodes]) / NODE_VA
        for exponent, matrix in enumerate(primitive.y_siemens):
            r, c = np.nonzero(matrix)
            entry = (rows[r], nodes[c], (matrix * scale)[r, c])
            if exponent == 0:
                fixed.append(entry)
            elif len(r):
                varied.append((*entry, np.full(len(r), controls[str(primitive.control)]), np.full(len(r), exponent)))
    source = primitive_admittances(feeder)[0]
    at_source = volts[terminals[: len(source.nodes)]]
    inner = np.zeros(len(terminals), dtype=np.complex128)
    inner[: len(source.nodes)] = at_source / NODE_VA * (source.at() @ source_phasors(feeder.source))
    row, column, value = (np.concatenate(part) for part in zip(*fixed, strict=True))
    empty = (
        (np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=np.complex128),) + (np.empty(0, dtype=np.int64),) * 2
    )
    r, c, y, control, exponent = (np.concatenate(part) for part in zip(*(varied or [empty]), strict=True))
    size = (len(terminals), grid.num_nodes)
    return Kirchhoff(
        sparse.csr_matrix((value, (row, column)), shape=size),
        sparse.csr_matrix((np.ones(size[0]), (np.array(terminals), np.arange(size[0]))), shape=size[::-1]),
        sparse.csr_matrix((np.ones(len(r)), (r, np.arange(len(r)))), shape=(size[0], len(r))),
        y, c, control, exponent, inner,
    )  # fmt: skip


def relative_residual(law: Kirchhoff, result: PowerFlow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest residual of Kirchhoff's current law over the largest current at any terminal, [E].

    First with what is rounding taken off at each node (next to a switch of 1e-7 ohm, or with no current at all, it is
    all that there is), then as it is.
    """
    grid, state = result.grid, result.state
    v = node_voltages(grid, state)
    u = np.concatenate((1.0 / state.taps, state.switch_closed, state.capacitor_states))
    scaled = law.value[:, None] * u[law.control] ** law.exponent[:, None] * v[law.node]
    current = law.constant @ v - law.inner[:, None] * state.source_pu + law.into @ scaled
    rounding = ROUNDING * (law.gather @ (abs(law.constant) @ np.abs(v) + law.into @ np.abs(scaled)))
    drawn = _drawn(result)
    at_place = np.zeros(v.shape, dtype=np.complex128)
    np.add.at(at_place, grid.network.branch_from, drawn)
    two = grid.network.branch_to >= 0
    np.add.at(at_place, grid.network.branch_to[two], -drawn[two])
    residual = np.abs(law.gather @ current + at_place[grid.place])
    largest = np.maximum(np.abs(current).max(axis=0), np.abs(drawn).max(axis=0, initial=0.0))
    largest = np.maximum(largest, np.finfo(np.float64).tiny)
    return np.maximum(residual - rounding, 0.0).max(axis=0) / largest, residual.max(axis=0) / largest


def _drawn(result: PowerFlow) -> NDArray[np.complex128]:
    """Return what loads and generators draw, pu; capacitors are among the elements."""
    grid, state = result.grid, result.state
    idle = np.zeros((len(grid.capacitor_names), len(state.converged)))
    p, q = (np.concatenate((items, idle)) / (NODE_VA / 1e3) for items in (state.items_kw, state.items_kvar))
    current: NDArray[np.complex128] = branch_currents(
        grid.network, np.ascontiguousarray(p), np.ascontiguousarray(q), state.v
    )
    return current


def with_random_models(feeder: Feeder, rng: np.random.Generator) -> Feeder:
    """Return the feeder with random load models, 1 to 8."""
    return replace(feeder, loads=tuple(_with_random_model(load, rng) for load in feeder.loads))


def _with_random_model(load: Load, rng: np.random.Generator) -> Load:
    model = int(rng.integers(1, 9))
    shares = tuple(np.round(np.concatenate((rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3)))), 6).tolist())
    return replace(load, model=model, zipv=(*shares, 0.0) if model == 8 else ())


def with_pv(feeder: Feeder, rng: np.random.Generator) -> Feeder:
    """Return the feeder with PV beside a third of its loads, 3 times the peak load in all."""
    chosen = rng.choice(len(feeder.loads), max(1, len(feeder.loads) // 3), replace=False)
    hosts = [feeder.loads[i] for i in chosen]
    scale = 3.0 * sum(load.kw for load in feeder.loads) / sum(load.kw for load in hosts)
    pv = tuple(
        Generator(
            name=f"pv_{host.name}", kind="pv", bus=host.bus, phases=host.phases, kv=host.kv, kw=scale * host.kw,
            kva=1.1 * scale * host.kw, connection=host.connection, neutral=host.neutral,
        )
        for host in hosts
    )  # fmt: skip
    return feeder.with_generators((*feeder.generators, *pv))


def random_inputs(grid: CompiledFeeder, num: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Draw the arguments of `solve` for so many states, from light to absurd."""
    heaviest = rng.uniform(0.0, 5.0, (num, 1))
    is_even = rng.random((num, 1)) < 0.25
    loads = heaviest * np.where(is_even, 1.0, rng.random((num, len(grid.load_names))))
    sun = rng.random((num, 1)) * (rng.random((num, 1)) < 0.5)
    sun = sun * rng.uniform(0.5, 1.0, (num, len(grid.generator_names)))
    flip = (rng.random((num, 1)) < 0.5) & (rng.random((num, len(grid.switch_names))) < 0.25)
    return {
        "load_kw": grid.load_kw * loads,
        "load_kvar": grid.load_kvar * loads,
        "generator_kw": grid.generator_kw * sun,
        "taps": 1.0 + TAP_STEP * rng.integers(-16, 17, (num, len(grid.tap_names))),
        "capacitor_states": rng.integers(0, 2, (num, len(grid.capacitor_names))).astype(np.float64),
        "switch_closed": np.abs(grid.nominal_switch_closed - flip),
        "source_pu": rng.uniform(0.8, 1.2, num),
    }


class StressedOpenDss(peers.OpenDss):
    """OpenDSS with the added PV, set to whole states."""

    def adapt(self, feeder: Feeder, grid: CompiledFeeder) -> None:
        """Add the PV; grid is the one that has it."""
        self.source_pu, self.closed = feeder.source.pu, dict.fromkeys(grid.switch_names, -1.0)
        for g in feeder.generators:
            nodes = ".".join(str(n) for n in (*g.phases, *((g.neutral,) if g.neutral else ())))
            self.text(
                f"new generator.{g.name} bus1={g.bus}.{nodes} phases={1 if _is_one_coil(g) else len(g.phases)} "
                f"conn={g.connection} kv={g.kv} kw={g.kw} kvar=0 model=1 vminpu={g.vmin_pu} vmaxpu={g.vmax_pu}"
            )
        self.grid = grid
        self.text("set maxiterations=100 tolerance=1e-8")
        self.index_again()

    def set_models(self, feeder: Feeder) -> None:
        """Give each load its model."""
        for load in feeder.loads:
            zipv = f" zipv=[{' '.join(map(str, load.zipv))}]" if load.model == 8 else ""
            self.text(f"edit load.{load.name} model={load.model}{zipv}")

    def set_state(self, inputs: dict[str, NDArray[np.float64]], row: int) -> None:
        """Set everything that varies."""
        self.set_loads(inputs["load_kw"][row], inputs["load_kvar"][row])
        for name, kw in zip(self.grid.generator_names, inputs["generator_kw"][row].tolist(), strict=True):
            self.text(f"edit generator.{name} kw={kw!r} kvar=0")
        self.set_taps(inputs["taps"][row])
        for name, state in zip(self.grid.capacitor_names, inputs["capacitor_states"][row], strict=True):
            self.text(f"edit capacitor.{name} states={int(state)}")
        for name, closed in zip(self.grid.switch_names, inputs["switch_closed"][row].tolist(), strict=True):
            if self.closed[name] != closed:
                self.text(f"{'close' if closed else 'open'} line.{name} 1")
                self.text(f"{'close' if closed else 'open'} line.{name} 2")
                self.closed[name] = closed
        self.circuit.Vsources.First  # noqa: B018
        self.circuit.Vsources.pu = self.source_pu * float(inputs["source_pu"][row])

    def answer(self) -> NDArray[np.complex128] | None:
        """Return the voltages, V, or None where OpenDSS says that it did not converge."""
        try:
            self.solve()
        except DSSException:
            return None
        volts = self.voltages()
        return volts if self.circuit.Solution.Converged and np.isfinite(volts).all() else None


def _is_one_coil(item: Generator) -> bool:
    return len(item.phases) == 1 or (item.connection == "delta" and len(item.phases) == 2)


def compare(
    dss: StressedOpenDss, feeder: Feeder, inputs: dict[str, NDArray[np.float64]], result: PowerFlow, num: int
) -> Counter[str]:
    """Count who converges on the first states of a chunk, and how often both find the same voltages."""
    dss.set_models(feeder)
    counts: Counter[str] = Counter()
    for row in range(num):
        dss.set_state(inputs, row)
        volts = dss.answer()
        ours = bool(result.converged[row])
        counts[_verdict(is_ours=ours, is_theirs=volts is not None)] += 1
        if ours and volts is not None:
            alive = result.voltage[row] != 0.0
            difference = np.abs(result.vmag_pu[row] - np.abs(volts) / result.grid.node_base_v)[alive]
            counts["both, same voltages"] += bool(difference.max(initial=0.0) < AGREEMENT_PU)
    return counts


def _verdict(*, is_ours: bool, is_theirs: bool) -> str:
    if is_ours:
        return "both" if is_theirs else "only gridray"
    return "only opendss" if is_theirs else "neither"


def stress(case: str, num_states: int, num_opendss: int, num_processes: int) -> dict[str, Any]:
    """Solve the feeder's random states, the chunks dealt out to processes."""
    chunks = range(-(-num_states // CHUNK))
    hands = [chunks[first::num_processes] for first in range(min(num_processes, len(chunks)))]
    deal = partial(stress_chunks, case, num_states=num_states, num_opendss=num_opendss)
    if len(hands) == 1:
        parts = [deal(hands[0])]
    else:
        with ProcessPoolExecutor(len(hands), get_context("spawn")) as pool:
            parts = list(pool.map(deal, hands))
    counts = sum((part.counts for part in parts), Counter(dict.fromkeys(STATUSES, 0)))
    wrong = sorted((row for part in parts for row in part.wrong), key=lambda row: row["state"])
    seconds = sum(part.seconds for part in parts)
    return {
        "feeder": case,
        "num_states": num_states,
        "num_converged": counts["converged"] + counts["dead island"],
        "statuses": {status: counts[status] for status in STATUSES},
        "num_flagged": counts["beyond loadability"] + counts["not converged"],
        "num_with_nan": counts["with nan"],
        "num_wrongly_converged": len(wrong),
        "wrongly_converged": wrong[:20],
        "num_over_limit_by_rounding_alone": counts["by rounding"],
        "largest_residual_of_converged": max(part.worst for part in parts),
        "seconds": round(seconds, 3),
        "ms_per_state": round(1e3 * seconds / num_states, 4),
        "ms_per_state_of_slowest_chunk": round(1e3 * max(part.slowest for part in parts), 4),
        "opendss": {
            "num_states": num_opendss,
            "tolerance": 1e-8,
            "max_iterations": 100,
            **dict(sum((part.peer for part in parts), Counter())),
        },
    }


class Part(NamedTuple):
    """What became of some chunks: counts of ours and with OpenDSS, wrong states, times in s, the worst residual."""

    counts: Counter[str]
    peer: Counter[str]
    wrong: list[dict[str, Any]]
    seconds: float
    slowest: float
    worst: float


def stress_chunks(case: str, chunks: range, *, num_states: int, num_opendss: int) -> Part:
    """Solve these chunks of states, each drawn from its own stream."""
    plain = peers.feeder_of(case)
    feeder = with_pv(plain, np.random.default_rng(0))
    windings = {control.transformer: control.winding for control in feeder.regulators}
    dss = StressedOpenDss(case, gridray.compile_feeder(plain), windings)
    dss.adapt(feeder, gridray.compile_feeder(feeder))
    counts: Counter[str] = Counter()
    peer: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    seconds, slowest, worst = 0.0, 0.0, 0.0
    for chunk in chunks:
        rng = np.random.default_rng([1, chunk])
        first = chunk * CHUNK
        num = min(CHUNK, num_states - first)
        varied = with_random_models(feeder, rng)
        grid = gridray.compile_feeder(varied)
        inputs = random_inputs(grid, num, rng)
        start = time.perf_counter()
        result = gridray.solve(grid, **inputs, tolerance=TOLERANCE)
        slowest = max(slowest, (time.perf_counter() - start) / num)
        seconds += time.perf_counter() - start
        counts.update(result.status.tolist())
        residual, raw = relative_residual(kirchhoff(varied, grid), result)
        is_by_rounding = result.converged & (raw > ALLOWED_RESIDUAL) & (residual <= ALLOWED_RESIDUAL)
        counts["by rounding"] += int(is_by_rounding.sum())
        counts["with nan"] += int((~np.isfinite(result.state.v)).any(axis=(0, 1)).sum())
        is_wrong = result.converged & ~(residual <= ALLOWED_RESIDUAL)
        wrong += [{"state": first + int(row), "residual": float(residual[row])} for row in np.flatnonzero(is_wrong)]
        worst = max(worst, float(residual[result.converged].max(initial=0.0)))
        share = num_opendss * (first + num) // num_states - num_opendss * first // num_states
        peer += compare(dss, varied, inputs, result, min(share, num))
    return Part(counts, peer, wrong, seconds, slowest, worst)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the counts."""
    table = Table("feeder", "states", *STATUSES, "NaN", "wrong", "residual", "ms/state", "OpenDSS on the same")
    for row in rows:
        peer = row["opendss"]
        theirs = f"{peer.get('both', 0) + peer.get('only opendss', 0)} of {peer['num_states']}; "
        theirs += f"only we {peer.get('only gridray', 0)}, only it {peer.get('only opendss', 0)}; "
        theirs += f"same {peer.get('both, same voltages', 0)} of {peer.get('both', 0)}"
        numbers = (row["num_states"], *row["statuses"].values(), row["num_with_nan"], row["num_wrongly_converged"])
        residual = f"{row['largest_residual_of_converged']:.0e}"
        table.add_row(row["feeder"], *map(str, numbers), residual, f"{row['ms_per_state']:.2f}", theirs)
    Console(width=150).print(table)


def main() -> None:
    """Stress the feeders and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--states", type=int, default=10000)
    parser.add_argument("--opendss-states", type=int, default=500)
    parser.add_argument("--feeders", nargs="+", default=FEEDERS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="60 states of each feeder, 10 with OpenDSS")
    arguments = parser.parse_args()
    num, num_peer = (60, 10) if arguments.quick else (arguments.states, arguments.opendss_states)
    rows = [stress(case, num, min(num_peer, num), arguments.processes) for case in arguments.feeders]
    aside = arguments.out.with_suffix(".tmp")
    aside.write_text(json.dumps({"method": __doc__, "feeders": rows}, indent=1) + "\n", "utf-8")
    aside.rename(arguments.out)
    show(rows)


if __name__ == "__main__":
    main()
