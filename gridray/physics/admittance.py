"""Primitive admittance matrices of a feeder's elements."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gridray.feeders.components import Capacitor, LineCode, Reactor, Source, Transformer, Winding
    from gridray.feeders.feeder import Feeder

SQRT3 = 3.0**0.5
Node = tuple[str, int]


class Primitive(NamedTuple):
    """Nodal admittance of one element, S.

    nodes: (bus, node) of each row; ground is eliminated. A node may come twice.
    y_siemens: complex128 [3, n, n], coefficients of u**0, u**1 and u**2.
    control: the regulated transformer (u is 1/tap), switch or capacitor (u is its state) that scales it, else None.
    """

    name: str
    nodes: tuple[Node, ...]
    y_siemens: NDArray[np.complex128]
    control: str | None = None

    def at(self, u: float = 1.0) -> NDArray[np.complex128]:
        """Return the matrix at u, complex128 [n, n]."""
        matrix: NDArray[np.complex128] = self.y_siemens[0] + u * self.y_siemens[1] + u * u * self.y_siemens[2]
        return matrix


def primitive_admittances(feeder: Feeder) -> tuple[Primitive, ...]:
    """Return the admittance of every element, the sources' first; lines that are open for good are left out."""
    regulated = {control.transformer: control.winding - 1 for control in feeder.regulators}
    return (
        *(_source(source) for source in feeder.sources),
        *_lines(feeder),
        *(_transformer(t, regulated.get(t.name)) for t in feeder.transformers),
        *(_reactor(reactor) for reactor in feeder.reactors),
        *(_capacitor(capacitor) for capacitor in feeder.capacitors),
    )


def source_phasors(source: Source) -> NDArray[np.complex128]:
    """Return the voltages behind the source's impedance, V, complex128 [num_phases]."""
    n = len(source.phases)
    volts = source.pu * source.kv * 1e3 / (SQRT3 if n > 1 else 1.0)
    return np.asarray(volts * np.exp(1j * np.deg2rad(source.angle_deg - 360.0 / n * np.arange(n))))


def _source(source: Source) -> Primitive:
    z1, z0 = complex(source.r1_ohm, source.x1_ohm), complex(source.r0_ohm, source.x0_ohm)
    n = len(source.phases)
    z = np.full((n, n), (z0 - z1) / 3.0) + z1 * np.eye(n)
    return _element(f"vsource.{source.name}", [(source.bus, phase) for phase in source.phases], np.linalg.inv(z))


def _element(name: str, nodes: Sequence[Node], y: NDArray[Any], control: str | None = None) -> Primitive:
    """Eliminate ground; a controlled element is on or off as a whole."""
    if any(node == 0 for _, node in nodes):
        live = [row for row, (_, node) in enumerate(nodes) if node != 0]
        nodes, y = [nodes[row] for row in live], y[np.ix_(live, live)]
    coefficients = np.zeros((3, len(nodes), len(nodes)), dtype=np.complex128)
    coefficients[0 if control is None else 1] = y
    return Primitive(name, tuple(nodes), coefficients, control)


def _lines(feeder: Feeder) -> Iterator[Primitive]:
    """Pi sections: series impedance between the ends, half the charging at each.

    An open conductor is eliminated at its end, where no current flows; the others keep its coupling. A line that is
    open at all conductors of one end alone still charges.
    """
    omega = 2.0 * np.pi * feeder.frequency_hz
    codes = {code.name: _per_km(code, omega) for code in feeder.line_codes}
    for line in feeder.lines:
        if line.is_open and not line.is_switch and not line.open_ends:
            continue
        series, shunt = codes[line.line_code]
        through, n = series / line.length_km, len(series)
        y = np.empty((2 * n, 2 * n), dtype=np.complex128)
        y[:n, :n] = y[n:, n:] = through + shunt * line.length_km
        y[:n, n:] = y[n:, :n] = -through
        if line.open_ends:
            y = _opened(y, [(end - 1) * n + conductor - 1 for end, conductor in line.open_ends])
        far = line.phases if line.to_phases is None else line.to_phases
        nodes = [(line.from_bus, phase) for phase in line.phases] + [(line.to_bus, phase) for phase in far]
        yield _element(f"line.{line.name}", nodes, y, f"line.{line.name}" if line.is_switch else None)


def _opened(y: NDArray[np.complex128], rows: list[int]) -> NDArray[np.complex128]:
    """Eliminate rows that draw no current; what is left of them is zero."""
    kept = [row for row in range(len(y)) if row not in rows]
    result = np.zeros_like(y)
    # Without charging, a conductor that is open at both ends floats: any of its voltages will do.
    coupling = y[np.ix_(kept, rows)] @ np.linalg.pinv(y[np.ix_(rows, rows)]) @ y[np.ix_(rows, kept)]
    result[np.ix_(kept, kept)] = y[np.ix_(kept, kept)] - coupling
    return result


def _per_km(code: LineCode, omega: float) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    z: NDArray[np.complex128] = np.array(code.r_ohm_per_km) + 1j * np.array(code.x_ohm_per_km)
    series: NDArray[Any] = np.linalg.inv(z)
    return series, 0.5j * omega * np.array(code.c_nf_per_km) * 1e-9


def _transformer(transformer: Transformer, regulated: int | None) -> Primitive:
    """Transformer from its coils, [num_windings] of them on each of its cores, all cores alike.

    Short-circuit admittance on a 1 V base from the percentages on winding 1's kVA; magnetising branch across winding
    2's coils; the antifloat shunt is an inductive susceptance at each coil end, and once more at a wye's neutral
    (Transformer.pas).
    """
    windings = transformer.windings
    coils = [coil_ends(transformer, w) for w in range(len(windings))]
    nodes = list(dict.fromkeys(end for winding in coils for coil in winding for end in coil if end[1] != 0))
    row = {node: r for r, node in enumerate(nodes)}
    incidence = _incidence(coils, row)
    num_cores = len(coils[0])
    va = windings[0].kva * 1e3 / num_cores
    volts = np.array([coil_volts(winding) for winding in windings])
    own_x = (transformer.xhl_percent, transformer.xht_percent, transformer.xlt_percent)
    short_circuit = _short_circuit(tuple(w.r_percent for w in windings), transformer.x_percent or own_x)
    y_coils: NDArray[Any] = va * short_circuit / np.outer(volts, volts)
    y_coils[1, 1] += (
        va / volts[1] ** 2 * complex(transformer.no_load_loss_percent, -transformer.magnetizing_percent) / 100
    )
    float_y = -0.5j * transformer.antifloat_ppm * 1e-6 * va / volts**2
    y = np.zeros((3, len(nodes), len(nodes)), dtype=np.complex128)
    for a in range(len(windings)):
        for b in range(len(windings)):
            power = (a == regulated) + (b == regulated)
            ratio = (1.0 if a == regulated else windings[a].tap) * (1.0 if b == regulated else windings[b].tap)
            y[power] += y_coils[a, b] / ratio * incidence[a].T @ incidence[b]
        y[0] += float_y[a] * np.diag(np.abs(incidence[a]).sum(axis=0))
    for number, winding in enumerate(windings):
        if winding.neutral == 0 or winding.connection != "wye":
            continue
        own = row[winding.bus, winding.neutral]
        y[0, own, own] += float_y[number]
        if winding.neutral_r_ohm is not None:
            y[0, own, own] += 1.0 / complex(winding.neutral_r_ohm, winding.neutral_x_ohm)
    control = transformer.name if regulated is not None else None
    return Primitive(f"transformer.{transformer.name}", tuple(nodes), y, control)


def _incidence(coils: list[list[tuple[Node, Node]]], row: dict[Node, int]) -> NDArray[np.float64]:
    """Return [num_windings, num_cores, num_nodes]: a coil's voltage = incidence @ node voltages."""
    incidence = np.zeros((len(coils), len(coils[0]), len(row)))
    for w, winding in enumerate(coils):
        for core, both_ends in enumerate(winding):
            for end, sign in zip(both_ends, (1.0, -1.0), strict=True):
                if end in row:
                    incidence[w, core, row[end]] += sign
    return incidence


@lru_cache(maxsize=1024)
def _short_circuit(r_percent: tuple[float, ...], x_percent: tuple[float, ...]) -> NDArray[np.complex128]:
    """Return the admittance between windings on their common base, pu, [num_windings, num_windings].

    From the impedances between pairs of windings (Dommel, EMTP Theory Book, section 6.2; Transformer.pas).
    """
    r = np.array(r_percent)
    n = len(r)
    first, second = np.triu_indices(n, 1)
    pairs: NDArray[np.complex128] = np.zeros((n, n), dtype=np.complex128)
    pairs[first, second] = r[first] + r[second] + 1j * np.array(x_percent[: len(first)])
    pairs += pairs.T
    z: NDArray[Any] = (pairs[0, 1:, None] + pairs[0, None, 1:] - pairs[1:, 1:]) / 200.0
    to_pairs: NDArray[Any] = np.hstack((-np.ones((n - 1, 1)), np.eye(n - 1)))
    admittance: NDArray[np.complex128] = to_pairs.T @ np.linalg.inv(z) @ to_pairs
    admittance.setflags(write=False)
    return admittance


def coil_volts(winding: Winding) -> float:
    """Return the rated voltage of a winding's coils, V."""
    is_per_phase = winding.connection != "delta" and len(winding.phases) > 1
    return winding.kv * 1e3 / (SQRT3 if is_per_phase else 1.0)


def coil_ends(transformer: Transformer, number: int) -> list[tuple[Node, Node]]:
    """Return the (bus, node) at both ends of each coil of a winding, windings counted from 0.

    A delta coil runs from its phase to the next one, or backward to the one before where the delta is the high side
    of a delta-wye pair, so that the high side leads by 30 degrees (ANSI C57.12), or lags if
    high_side_lags.
    """
    winding = transformer.windings[number]
    phases, bus = winding.phases, winding.bus
    if winding.connection == "series":
        following = transformer.windings[number + 1]
        return [((bus, p), (following.bus, q)) for p, q in zip(phases, following.phases, strict=True)]
    if winding.connection == "wye":
        return [((bus, phase), (bus, winding.neutral)) for phase in phases]
    if len(phases) == 2:
        return [((bus, phases[0]), (bus, phases[1]))]
    first, second = transformer.windings[:2]
    high = first if first.kv >= second.kv else second
    backward = first.connection != second.connection and (high.connection == "delta") != transformer.high_side_lags
    step = -1 if backward else 1
    return [((bus, phase), (bus, phases[(i + step) % len(phases)])) for i, phase in enumerate(phases)]


def _reactor(reactor: Reactor) -> Primitive:
    """Series or shunt reactor: r + jx with a resistance across, alike in every phase, or its matrices."""
    n = len(reactor.phases)
    nodes = [(reactor.bus, phase) for phase in reactor.phases]
    if reactor.r_matrix_ohm:
        z: NDArray[Any] = np.array(reactor.r_matrix_ohm) + 1j * np.array(reactor.x_matrix_ohm)
        y = np.linalg.inv(z)
    else:
        own = 1.0 / complex(reactor.r_ohm, reactor.x_ohm)
        own += 0.0 if reactor.parallel_r_ohm is None else 1.0 / reactor.parallel_r_ohm
        if reactor.to_bus is None and reactor.connection == "delta":
            return _element(f"reactor.{reactor.name}", nodes, own * _between_phases(n))
        y = own * np.eye(n)
    far = reactor.phases if reactor.to_phases is None else reactor.to_phases
    nodes += [(reactor.to_bus or reactor.bus, phase if reactor.to_bus is not None else 0) for phase in far]
    return _element(f"reactor.{reactor.name}", nodes, np.kron([[1, -1], [-1, 1]], y))


def _capacitor(capacitor: Capacitor) -> Primitive:
    """Shunt bank: rated kvar at rated voltage, on or off by its control."""
    n = len(capacitor.phases)
    nodes = [(capacitor.bus, phase) for phase in capacitor.phases]
    if capacitor.connection == "delta":
        num_coils = 1 if n == 2 else n
        y: NDArray[Any] = 1j * capacitor.kvar / num_coils / capacitor.kv**2 / 1e3 * _between_phases(n)
    else:
        b = 1j * capacitor.kvar * 1e3 / n / (capacitor.kv * 1e3 / (SQRT3 if n > 1 else 1.0)) ** 2
        nodes += [(capacitor.bus, capacitor.neutral)] * n
        y = b * np.kron([[1, -1], [-1, 1]], np.eye(n))
    return _element(f"capacitor.{capacitor.name}", nodes, y, capacitor.name)


def _between_phases(n: int) -> NDArray[np.float64]:
    """Return the Laplacian of one coil between two phases, or of one on every pair of three."""
    return n * np.eye(n) - 1.0 if n > 2 else np.array([[1.0, -1.0], [-1.0, 1.0]])
