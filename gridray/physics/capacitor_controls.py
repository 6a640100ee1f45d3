"""Capacitor controls as OpenDSS's static control mode runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import FeederError
from gridray.physics.assembly import BASE_VA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import CapacitorControl
    from gridray.feeders.feeder import Feeder
    from gridray.physics.admittance import Node, Primitive
    from gridray.physics.compiled import CompiledFeeder

KINDS = ("kvar", "voltage", "current")
"""What a control may watch; those by power factor and clock are not simulated."""
KVAR_PER_PU = BASE_VA / 1e3


class CapacitorSensing(NamedTuple):
    """What capacitor controls watch and when they act; K controls of at most W conductors at the terminal.

    capacitor: int64 [K], number of the capacitor; kind: int64 [K], index into KINDS.
    node: int64 [K, W], nodes of the terminal; weight: float64 [K, W], 1 for each, 0 for padding.
    conductor: int64 [K, C], nodes of the whole element; y: complex128 [K, W, C], its admittance, pu.
    volts_per_pu: float64 [K], volts behind the PT of 1 pu; amps_per_pu: float64 [K], behind the CT.
    voltage_phase, current_phase: int64 [K], which of the terminal's conductors is read.
    on_setting, off_setting: float64 [K]; vmin_v, vmax_v: float64 [K], override, 0 and infinite if none.
    delay_s, delay_off_s, dead_time_s: float64 [K].
    """

    capacitor: NDArray[np.int64]
    kind: NDArray[np.int64]
    node: NDArray[np.int64]
    weight: NDArray[np.float64]
    conductor: NDArray[np.int64]
    y: NDArray[np.complex128]
    volts_per_pu: NDArray[np.float64]
    amps_per_pu: NDArray[np.float64]
    voltage_phase: NDArray[np.int64]
    current_phase: NDArray[np.int64]
    on_setting: NDArray[np.float64]
    off_setting: NDArray[np.float64]
    vmin_v: NDArray[np.float64]
    vmax_v: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    delay_off_s: NDArray[np.float64]
    dead_time_s: NDArray[np.float64]


def capacitor_sensing(
    feeder: Feeder, primitives: tuple[Primitive, ...], index: dict[Node, int], base_v: NDArray[np.float64]
) -> CapacitorSensing:
    """Return what the feeder's capacitor controls watch.

    Raises:
        FeederError: a control watches something that is not simulated, or an element that is not there.
    """
    controls = feeder.capacitor_controls
    primitive_of = {p.name: p for p in primitives}
    watched = [_terminal(control, primitive_of, feeder) for control in controls]
    width = max((len(rows) for _, rows in watched), default=1)
    size = max((len(p.nodes) for p, _ in watched), default=1)
    num = len(controls)
    node, weight = np.zeros((num, width), dtype=np.int64), np.zeros((num, width))
    conductor, y = np.zeros((num, size), dtype=np.int64), np.zeros((num, width, size), dtype=np.complex128)
    for k, (primitive, rows) in enumerate(watched):
        own = np.array([index[n] for n in primitive.nodes])
        conductor[k, : len(own)] = own
        node[k, : len(rows)] = own[rows]
        weight[k, : len(rows)] = 1.0
        y[k, : len(rows), : len(own)] = primitive.at()[rows] * base_v[own[rows]][:, None] * base_v[own] / BASE_VA
    names = [c.name for c in feeder.capacitors]

    def column(name: str) -> NDArray[np.float64]:
        return np.array([getattr(c, name) for c in controls], dtype=np.float64)

    has_override = np.array([c.voltage_override for c in controls], dtype=np.bool_)
    base = base_v[node[:, 0]] if num else np.zeros(0)
    return CapacitorSensing(
        capacitor=np.array([names.index(c.capacitor) for c in controls], dtype=np.int64),
        kind=np.array([KINDS.index(c.kind) for c in controls], dtype=np.int64),
        node=node,
        weight=weight,
        conductor=conductor,
        y=y,
        volts_per_pu=base / column("pt_ratio"),
        amps_per_pu=BASE_VA / np.maximum(base, 1.0) / column("ct_ratio"),
        voltage_phase=np.array([max(c.pt_phase - 1, 0) for c in controls], dtype=np.int64),
        current_phase=np.array([max(c.ct_phase - 1, 0) for c in controls], dtype=np.int64),
        on_setting=column("on_setting"),
        off_setting=column("off_setting"),
        vmin_v=np.where(has_override, column("vmin_v"), 0.0),
        vmax_v=np.where(has_override, column("vmax_v"), np.inf),
        delay_s=column("delay_s"),
        delay_off_s=column("delay_off_s"),
        dead_time_s=column("dead_time_s"),
    )


def _terminal(
    control: CapacitorControl, primitive_of: dict[str, Primitive], feeder: Feeder
) -> tuple[Primitive, list[int]]:
    """Return the watched element and the rows of its terminal."""
    if control.kind not in KINDS:
        raise FeederError(
            f"Capacitor control '{control.name}' acts by {control.kind}, which is not simulated: use one of {KINDS}."
        )
    primitive = primitive_of.get(control.element)
    if primitive is None:
        raise FeederError(
            f"Capacitor control '{control.name}' watches '{control.element}', which is not in the feeder: name a line, "
            "transformer or capacitor."
        )
    kind, _, name = control.element.partition(".")
    if kind == "line":
        line = next(line for line in feeder.lines if line.name == name)
        bus = (line.from_bus, line.to_bus)[control.terminal - 1]
    elif kind == "transformer":
        bus = next(t for t in feeder.transformers if t.name == name).windings[control.terminal - 1].bus
    else:
        bus = primitive.nodes[0][0]
    return primitive, [row for row, (at, _) in enumerate(primitive.nodes) if at == bus]


def capacitor_changes(
    grid: CompiledFeeder, states: NDArray[np.float64], has_opened: NDArray[np.bool_], v: NDArray[np.complex128]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the change of state wanted (-1, 0, 1) and its delay in s, both [num_capacitors, E].

    An override outside vmin..vmax wins; else a bank closes above its ON setting of kvar or current (below it, of
    voltage) and opens on the other side of OFF. One that has just opened waits its dead time (CapControl.pas).

    Args:
        grid: the feeder.
        states: present states, [num_capacitors, E].
        has_opened: banks that opened since the controls began to settle, [num_capacitors, E].
        v: node voltages, pu, [num_nodes, E].
    """
    sensing = grid.capacitor_sensing
    change, delay = np.zeros_like(states), np.full_like(states, np.inf)
    if not len(sensing.capacitor):
        return change, delay
    terminal = v[sensing.node]
    current = np.einsum("kwc,kce->kwe", sensing.y, v[sensing.conductor])
    kvar = (terminal * current.conj() * sensing.weight[:, :, None]).imag.sum(axis=1) * KVAR_PER_PU
    rows = np.arange(len(sensing.kind))
    volts = np.abs(terminal[rows, sensing.voltage_phase]) * sensing.volts_per_pu[:, None]
    amps = np.abs(current[rows, sensing.current_phase]) * sensing.amps_per_pu[:, None]
    # For all kinds more means: close. Voltage counts the other way round.
    seen = np.choose(sensing.kind[:, None], (kvar, -volts, amps))
    sign = np.where(sensing.kind == KINDS.index("voltage"), -1.0, 1.0)
    is_closed = states[sensing.capacitor] > 0.0
    low, high = volts < sensing.vmin_v[:, None], volts > sensing.vmax_v[:, None]
    closes = ~is_closed & (low | (seen > (sign * sensing.on_setting)[:, None]))
    opens = is_closed & (high | (seen < (sign * sensing.off_setting)[:, None]))
    change[sensing.capacitor] = closes.astype(np.float64) - opens
    wait = sensing.delay_s[:, None] + sensing.dead_time_s[:, None] * has_opened[sensing.capacitor]
    delay[sensing.capacitor] = np.where(closes, wait, np.where(opens, sensing.delay_off_s[:, None], np.inf))
    return change, delay
