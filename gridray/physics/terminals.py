"""Powers at the terminals of every element of a solved feeder."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.admittance import primitive_admittances, source_phasors
from gridray.physics.compiled import KW_PER_PU
from gridray.physics.loads import branch_currents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.admittance import Primitive
    from gridray.physics.measure import PowerFlow

Conductor = tuple[str, str, "NDArray[np.complex128]"]


class TerminalPowers(NamedTuple):
    """Power that flows from each node into each element, the sources' first, then in the feeder's order.

    element: str [T], "line.650632", as OpenDSS names it; loads, generators, PV and batteries by their kind.
    node: str [T], "632.1"; conductors at one node count together, those at ground are left out.
    power_kva: complex128 [T, E], kW + j kvar; current_a: complex128 [T, E], A.
    """

    element: tuple[str, ...]
    node: tuple[str, ...]
    power_kva: NDArray[np.complex128]
    current_a: NDArray[np.complex128]


def terminal_powers(feeder: Feeder, result: PowerFlow) -> TerminalPowers:
    """Return power and current at the terminals of every element; `result` solves a grid compiled from the feeder."""
    volts = result.voltage.T
    row = {name: n for n, name in enumerate(result.grid.node_names)}
    sums: dict[tuple[str, str], NDArray[np.complex128]] = {}
    for conductors in (_through_primitives(feeder, result, volts, row), _into_items(feeder, result)):
        for element, node, current in conductors:
            key = (element, node)
            sums[key] = sums[key] + current if key in sums else current
    elements, nodes = tuple(element for element, _ in sums), tuple(node for _, node in sums)
    current_a = np.array(list(sums.values()))
    power_kva = volts[[row[name] for name in nodes]] * current_a.conj() / 1e3
    return TerminalPowers(elements, nodes, power_kva, current_a)


def _through_primitives(
    feeder: Feeder, result: PowerFlow, volts: NDArray[np.complex128], row: dict[str, int]
) -> Iterator[Conductor]:
    """Yield I = Y V of every line, transformer, reactor and capacitor, and Y (V - E) of the sources."""
    primitives = primitive_admittances(feeder)
    controls = _controls(result)
    one = np.ones(volts.shape[1])
    behind = [source_phasors(source)[:, None] * result.state.source_pu for source in feeder.sources]
    for number, primitive in enumerate(primitives):
        names = [f"{bus}.{node}" for bus, node in primitive.nodes]
        across = volts[[row[name] for name in names]]
        if number < len(behind):
            across = across - behind[number]
        current = _scaled(primitive, one if primitive.control is None else controls[primitive.name], across)
        yield from ((primitive.name, name, i) for name, i in zip(names, current, strict=True))


def _scaled(primitive: Primitive, u: NDArray[np.float64], across: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return the current into each conductor, A, [n, E], at each environment's own u [E]."""
    constant, linear, square = primitive.y_siemens
    current: NDArray[np.complex128] = constant @ across + (linear @ across) * u + (square @ across) * u**2
    return current


def _controls(result: PowerFlow) -> dict[str, NDArray[np.float64]]:
    """Return u [E] of every controlled element by its name."""
    grid, state = result.grid, result.state
    taps = {f"transformer.{n}": 1.0 / tap for n, tap in zip(grid.tap_names, state.taps, strict=True)}
    switches = {f"line.{n}": closed for n, closed in zip(grid.switch_names, state.switch_closed, strict=True)}
    banks = {f"capacitor.{n}": on for n, on in zip(grid.capacitor_names, state.capacitor_states, strict=True)}
    return taps | switches | banks


def _into_items(feeder: Feeder, result: PowerFlow) -> Iterator[Conductor]:
    """Yield the current of every branch of loads and generators at either end."""
    grid, state, net = result.grid, result.state, result.grid.network
    owners = [f"load.{load.name}" for load in feeder.loads] + [f"{g.kind}.{g.name}" for g in feeder.generators]
    banks = np.zeros((len(grid.capacitor_names), state.v.shape[2]))
    p, q = (np.concatenate((items, banks)) / KW_PER_PU for items in (state.items_kw, state.items_kvar))
    current = branch_currents(net, p, q, state.v)
    node_at = np.argsort(grid.place)
    for m in np.flatnonzero(net.branch_item < len(owners)):
        for end, sign in ((net.branch_from[m], 1.0), (net.branch_to[m], -1.0)):
            if end >= 0:
                node = node_at[end]
                amps = sign * current[m] * KW_PER_PU * 1e3 / grid.node_base_v[node]
                yield owners[net.branch_item[m]], grid.node_names[node], amps
