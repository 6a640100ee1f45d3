"""Primitive admittance matrices of a feeder's elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import Capacitor, Line, LineCode, Source, Transformer, Winding
    from gridray.feeders.feeder import Feeder

SQRT3 = 3.0**0.5


class Primitive(NamedTuple):
    """Nodal admittance of one element, S.

    nodes: (bus, phase) of each row; grounded neutrals are eliminated.
    control: regulator's transformer or capacitor whose u scales the matrix, else None.
    The admittance is y_siemens * u**exponent + y_fixed_siemens; u is 1/tap of winding 2, or a capacitor's state.
    """

    name: str
    nodes: tuple[tuple[str, int], ...]
    y_siemens: NDArray[np.complex128]
    control: str | None
    exponent: NDArray[np.int8]
    y_fixed_siemens: NDArray[np.complex128]


def primitive_admittances(feeder: Feeder) -> tuple[Primitive, ...]:
    """Return the admittance of every element, the source's included, open lines left out."""
    codes = {code.name: code for code in feeder.line_codes}
    regulated = {control.transformer for control in feeder.regulators}
    omega = 2.0 * np.pi * feeder.frequency_hz
    return (
        _source(feeder.source),
        *(_line(line, codes[line.line_code], omega) for line in feeder.lines if not line.is_open),
        *(_transformer(t, is_regulated=t.name in regulated) for t in feeder.transformers),
        *(_capacitor(capacitor) for capacitor in feeder.capacitors),
    )


def _constant(name: str, nodes: list[tuple[str, int]], y: NDArray[np.complex128]) -> Primitive:
    return Primitive(name, tuple(nodes), y, None, np.zeros(y.shape, np.int8), np.zeros_like(y))


def _source(source: Source) -> Primitive:
    z1, z0 = complex(source.r1_ohm, source.x1_ohm), complex(source.r0_ohm, source.x0_ohm)
    z = np.full((3, 3), (z0 - z1) / 3.0) + z1 * np.eye(3)
    return _constant("vsource.source", [(source.bus, phase) for phase in (1, 2, 3)], np.linalg.inv(z))


def _line(line: Line, code: LineCode, omega: float) -> Primitive:
    """Pi section: series impedance between the ends, half the charging at each."""
    z = (np.array(code.r_ohm_per_km) + 1j * np.array(code.x_ohm_per_km)) * line.length_km
    series = np.linalg.inv(z)
    shunt = 0.5j * omega * np.array(code.c_nf_per_km) * 1e-9 * line.length_km
    y = np.block([[series + shunt, -series], [-series, series + shunt]])
    nodes = [(bus, phase) for bus in (line.from_bus, line.to_bus) for phase in line.phases]
    return _constant(f"line.{line.name}", nodes, y)


def _transformer(transformer: Transformer, *, is_regulated: bool) -> Primitive:
    """Two-winding transformer from its coils: y_sc [[1, -1], [-1, 1]] on the 1 V base, scaled by turns.

    Short-circuit impedance %R of both windings + j Xhl on winding 1's kVA; the antifloat shunt is an inductive
    susceptance at each coil end (Transformer.pas).
    """
    first, second = transformer.windings
    num_coils = len(first.phases)
    va = first.kva * 1e3 / num_coils
    z = complex(first.r_percent + second.r_percent, transformer.xhl_percent) / 100.0
    volts = np.array([_coil_volts(winding) for winding in transformer.windings])
    y_coils = va / z * np.array([[1.0, -1.0], [-1.0, 1.0]]) / np.outer(volts, volts)
    high, low = sorted(transformer.windings, key=lambda winding: -winding.kv)
    backward = (high.connection, low.connection) == ("delta", "wye")
    nodes = [(w.bus, phase) for w in transformer.windings for phase in w.phases]
    offset = (0, len(first.phases))
    y = np.zeros((len(nodes), len(nodes)), dtype=np.complex128)
    fixed = np.zeros_like(y)
    incidence = [
        _coil_ends(winding, offset[w], len(nodes), backward=backward) for w, winding in enumerate(transformer.windings)
    ]
    exponent = np.zeros(y.shape, np.int8)
    for a in (0, 1):
        for b in (0, 1):
            y += y_coils[a, b] * incidence[a].T @ incidence[b]
        float_y = -1j * transformer.antifloat_ppm * 1e-6 * va / volts[a] ** 2 / 2.0
        fixed += float_y * np.diag(np.abs(incidence[a]).sum(axis=0))
    inside = slice(offset[1], None)
    y[:, : offset[1]] /= first.tap
    y[: offset[1], :] /= first.tap
    if is_regulated:
        exponent[:, inside] += 1
        exponent[inside, :] += 1
    else:
        y[:, inside] /= second.tap
        y[inside, :] /= second.tap
    control = transformer.name if is_regulated else None
    return Primitive(f"transformer.{transformer.name}", tuple(nodes), y, control, exponent, fixed)


def _coil_volts(winding: Winding) -> float:
    is_phase_to_ground = winding.connection == "wye" and len(winding.phases) > 1
    return winding.kv * 1e3 / (SQRT3 if is_phase_to_ground else 1.0)


def _coil_ends(winding: Winding, offset: int, num_nodes: int, *, backward: bool) -> NDArray[np.float64]:
    """Return the incidence [num_coils, num_nodes]: coil voltage = incidence @ node voltage.

    A delta coil runs from its phase to the next one, or backward to the one before where the delta is the high side
    of a wye: either way the high side leads by 30 degrees (ANSI C57.12).
    """
    num_coils = len(winding.phases)
    incidence = np.zeros((num_coils, num_nodes))
    for coil in range(num_coils):
        incidence[coil, offset + coil] = 1.0
        if winding.connection == "delta":
            incidence[coil, offset + (coil + (-1 if backward else 1)) % num_coils] = -1.0
    return incidence


def _capacitor(capacitor: Capacitor) -> Primitive:
    """Shunt bank: rated kvar at rated voltage, on or off by its control."""
    n = len(capacitor.phases)
    b = 1j * capacitor.kvar * 1e3 / n / (capacitor.kv * 1e3 / (SQRT3 if n > 1 else 1.0)) ** 2
    y: NDArray[np.complex128] = b * np.eye(n, dtype=np.complex128)
    if capacitor.connection == "delta":
        # Line to line on every pair of phases: one coil for two phases, three for three.
        num_coils = 1 if n == 2 else n
        coil = 1j * capacitor.kvar / num_coils / capacitor.kv**2 / 1e3
        y = coil * (n * np.eye(n, dtype=np.complex128) - 1.0)
    nodes = tuple((capacitor.bus, phase) for phase in capacitor.phases)
    return Primitive(
        f"capacitor.{capacitor.name}", nodes, y, capacitor.name, np.ones(y.shape, np.int8), np.zeros_like(y)
    )
