"""What regulator controls measure: a winding's voltage and current, or a remote bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.admittance import coil_ends, coil_volts
from gridray.physics.assembly import BASE_VA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import RegulatorControl, Transformer
    from gridray.feeders.feeder import Feeder
    from gridray.physics.admittance import Node, Primitive


class Sensing(NamedTuple):
    """What regulator controls measure and how they act; R regulators of at most W conductors, voltages pu.

    node, node_to: int64 [R], nodes between which the voltage is measured (-1: ground).
    conductor: int64 [R, W], nodes of the transformer's terminals.
    y: complex128 [R, 3, W], row of its admittance, coefficients of u**0, u**1, u**2 with u = 1/tap, pu.
    volts_per_pu, volts_per_pu_to: float64 [R], control volts (120 V base) of 1 pu at either node.
    amps_per_pu: float64 [R], primary amperes of 1 pu current over the CT's rating.
    drop: complex128 [R], line-drop compensator R + jX, V at rated CT current.
    vreg_v, band_v: float64 [R], set-point and bandwidth, V.
    v_limit_v: float64 [R], highest voltage, V; infinite if none.
    step_v: float64 [R], control volts of one tap step.
    step_pu, min_tap, max_tap: float64 [R], size of a tap step and range, pu.
    delay_s: float64 [R], delay before acting.
    max_tap_change: int64 [R], most steps in one action.
    """

    node: NDArray[np.int64]
    node_to: NDArray[np.int64]
    conductor: NDArray[np.int64]
    y: NDArray[np.complex128]
    volts_per_pu: NDArray[np.float64]
    volts_per_pu_to: NDArray[np.float64]
    amps_per_pu: NDArray[np.float64]
    drop: NDArray[np.complex128]
    vreg_v: NDArray[np.float64]
    band_v: NDArray[np.float64]
    v_limit_v: NDArray[np.float64]
    step_v: NDArray[np.float64]
    step_pu: NDArray[np.float64]
    min_tap: NDArray[np.float64]
    max_tap: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    max_tap_change: NDArray[np.int64]


def sensing(
    feeder: Feeder, primitives: tuple[Primitive, ...], index: dict[Node, int], base_v: NDArray[np.float64]
) -> Sensing:
    """Return what the feeder's regulators see, in the order of the regulated transformers."""
    by_transformer = {control.transformer: control for control in feeder.regulators}
    regulated = [t for t in feeder.transformers if t.name in by_transformer]
    controls = [by_transformer[t.name] for t in regulated]
    primitive_of = {p.name: p for p in primitives}
    num = len(controls)
    width = max((len(primitive_of[f"transformer.{t.name}"].nodes) for t in regulated), default=1)
    conductor, y = np.zeros((num, width), dtype=np.int64), np.zeros((num, 3, width), dtype=np.complex128)
    node, node_to = np.zeros(num, dtype=np.int64), np.full(num, -1, dtype=np.int64)
    volts, amps, drop = np.zeros((num, 2)), np.zeros(num), np.zeros(num, dtype=np.complex128)
    for r, (transformer, control) in enumerate(zip(regulated, controls, strict=True)):
        primitive = primitive_of[f"transformer.{transformer.name}"]
        ends = _watched(transformer, control)
        node[r] = index[ends[0]]
        if ends[1][1] != 0:
            node_to[r] = index[ends[1]]
        volts[r] = base_v[node[r]] / control.pt_ratio, base_v[node_to[r]] / control.pt_ratio
        if control.bus is None:
            rows = np.array([index[n] for n in primitive.nodes])
            conductor[r, : len(rows)] = rows
            y[r, :, : len(rows)] = primitive.y_siemens[:, primitive.nodes.index(ends[0])]
            y[r, :, : len(rows)] *= base_v[node[r]] * base_v[rows] / BASE_VA
            amps[r] = BASE_VA / base_v[node[r]] / control.ct_primary_a
            drop[r] = complex(control.r_v, control.x_v)
    windings = [t.windings[c.winding - 1] for t, c in zip(regulated, controls, strict=True)]
    step_pu = np.array([(w.max_tap - w.min_tap) / w.num_taps for w in windings])
    coil_v = np.array([coil_volts(w) for w in windings])
    step_v = step_pu * coil_v / np.array([c.pt_ratio for c in controls])
    return Sensing(
        node=node,
        node_to=node_to,
        conductor=conductor,
        y=y,
        volts_per_pu=volts[:, 0],
        volts_per_pu_to=volts[:, 1],
        amps_per_pu=amps,
        drop=drop,
        vreg_v=np.array([c.vreg_v for c in controls]),
        band_v=np.array([c.band_v for c in controls]),
        v_limit_v=np.array([c.v_limit_v or np.inf for c in controls]),
        step_v=step_v,
        step_pu=step_pu,
        min_tap=np.array([w.min_tap for w in windings]),
        max_tap=np.array([w.max_tap for w in windings]),
        delay_s=np.array([c.delay_s for c in controls]),
        max_tap_change=np.array([c.max_tap_change for c in controls], dtype=np.int64),
    )


def _watched(transformer: Transformer, control: RegulatorControl) -> tuple[Node, Node]:
    """Return the nodes between which the control measures."""
    if control.bus is None:
        return coil_ends(transformer, control.winding - 1)[control.pt_phase - 1]
    bus, _, node = control.bus.partition(".")
    return (bus, int(node or control.pt_phase)), (bus, 0)
