"""Parts of a feeder, in the units of the field; what people write, read and diff.

Nodes of a bus are numbers: phases 1 to 3, further conductors 4 and up, 0 is ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Connection = Literal["wye", "delta"]
WindingConnection = Literal["wye", "delta", "series"]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Voltage source behind an impedance, at the head of the feeder; the others' voltages follow from it.

    kv is line to line for three phases, line to ground for one; angle_deg is the angle of its first phase, the
    others follow 120 degrees apart; impedances are sequence values in ohm.
    """

    bus: str
    kv: float
    pu: float
    angle_deg: float
    r1_ohm: float
    x1_ohm: float
    r0_ohm: float
    x0_ohm: float
    phases: tuple[int, ...] = (1, 2, 3)
    name: str = "source"


@dataclass(frozen=True, kw_only=True)
class LineCode:
    """Series impedance (ohm/km) and shunt capacitance (nF/km), full symmetric matrices in the line's phase order."""

    name: str
    r_ohm_per_km: Matrix
    x_ohm_per_km: Matrix
    c_nf_per_km: Matrix


@dataclass(frozen=True, kw_only=True)
class Line:
    """Line, cable or switch; `phases` in the order of the line code's matrices, `to_phases` those at the far end.

    is_open takes all of its conductors out. open_ends: single conductors that are open, each as (end, conductor), both
    counted from 1. rating_a: current that each conductor may carry for long, None if not known.
    """

    name: str
    from_bus: str
    to_bus: str
    phases: tuple[int, ...]
    line_code: str
    length_km: float
    to_phases: tuple[int, ...] | None = None
    is_switch: bool = False
    is_open: bool = False
    open_ends: tuple[tuple[int, int], ...] = ()
    rating_a: float | None = None


@dataclass(frozen=True, kw_only=True)
class Winding:
    """One transformer winding: kv is line to line for three phases, the coil's own voltage for one phase.

    A wye winding has one coil from each phase to `neutral` (0: grounded). A delta winding of three phases has a coil
    between each two, one of two phases has one coil. The coils of a series winding (autotransformer) run from its
    phases to those of the next winding, kv being sqrt(3) times the coil's voltage for three phases. The neutral's
    impedance to ground counts when neutral is not 0; None leaves it floating.
    """

    bus: str
    phases: tuple[int, ...]
    connection: WindingConnection
    kv: float
    kva: float
    r_percent: float
    tap: float = 1.0
    neutral: int = 0
    neutral_r_ohm: float | None = None
    neutral_x_ohm: float = 0.0
    min_tap: float = 0.9
    max_tap: float = 1.1
    num_taps: int = 32


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Transformer of two or more windings; a regulator is one with a RegulatorControl.

    Percentages are on winding 1's kva; xht and xlt are read when there are three windings, x_percent when there are
    more: every pair's, 1-2, 1-3 and so on, then 2-3. In a delta-wye unit the high side leads by 30 degrees (ANSI), or
    lags if high_side_lags.
    """

    name: str
    windings: tuple[Winding, ...]
    xhl_percent: float
    xht_percent: float = 0.0
    xlt_percent: float = 0.0
    x_percent: tuple[float, ...] = ()
    no_load_loss_percent: float = 0.0
    magnetizing_percent: float = 0.0
    antifloat_ppm: float = 1.0
    high_side_lags: bool = False


@dataclass(frozen=True, kw_only=True)
class RegulatorControl:
    """Line-drop-compensated regulator control on one winding of a transformer (volts on the 120 V base).

    pt_phase counts the winding's phases from 1. With a `bus` ("680.2") its voltage is watched instead of the
    winding's, without line drop. v_limit_v is the highest voltage allowed at the winding's own terminal, 0 if none.
    """

    name: str
    transformer: str
    vreg_v: float
    band_v: float
    pt_ratio: float
    ct_primary_a: float
    r_v: float
    x_v: float
    delay_s: float = 15.0
    tap_delay_s: float = 2.0
    max_tap_change: int = 16
    winding: int = 2
    pt_phase: int = 1
    bus: str | None = None
    v_limit_v: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Capacitor:
    """Shunt capacitor bank; kv is line to line for two or three phases, the capacitor's own for one phase."""

    name: str
    bus: str
    phases: tuple[int, ...]
    connection: Connection
    kv: float
    kvar: float
    is_closed: bool = True
    neutral: int = 0


@dataclass(frozen=True, kw_only=True)
class CapacitorControl:
    """Control of a capacitor bank by what it sees at a terminal of a branch ("line.l42", terminal 1 or 2).

    The settings are kvar, V, A, power factor or hour of the day, behind the transformer ratios. pt_phase and ct_phase
    count the terminal's phases from 1; 0 means the average. The voltage override (V, behind the PT) wins.
    """

    name: str
    capacitor: str
    kind: Literal["kvar", "voltage", "current", "pf", "time"]
    element: str
    terminal: int
    on_setting: float
    off_setting: float
    pt_ratio: float = 60.0
    ct_ratio: float = 60.0
    pt_phase: int = 1
    ct_phase: int = 1
    voltage_override: bool = False
    vmin_v: float = 115.0
    vmax_v: float = 126.0
    delay_s: float = 15.0
    delay_off_s: float = 15.0
    dead_time_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Reactor:
    """Series reactor between two buses, or shunt reactor to ground or between phases.

    r_ohm and x_ohm are one phase's, in series; parallel_r_ohm lies across. Where phases are coupled or differ, the
    matrices say it instead, rows and columns in the order of the phases. to_bus None: to ground (wye, with to_phases
    None) or between the phases (delta).
    """

    name: str
    bus: str
    phases: tuple[int, ...]
    r_ohm: float
    x_ohm: float
    parallel_r_ohm: float | None = None
    r_matrix_ohm: Matrix = ()
    x_matrix_ohm: Matrix = ()
    connection: Connection = "wye"
    to_bus: str | None = None
    to_phases: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """Load with OpenDSS's models; kv is line to line for two or three phases, the load's own voltage for one phase.

    Models: 1 constant power, 2 impedance, 3 constant P and quadratic Q, 4 CVR (P and Q follow v to the powers
    cvr_watts and cvr_vars), 5 current magnitude, 6 constant P and fixed Q, 7 constant P and fixed-impedance Q,
    8 ZIP with `zipv` (Z, I, P shares of P, then of Q, then the cut-off voltage, pu).
    Three-phase loads are balanced: kw and kvar are totals. A wye load hangs between each phase and `neutral`, a delta
    load of two phases between them. Outside vmin_pu..vmax_pu a load follows OpenDSS's limits; below vlow_pu it is an
    impedance.
    """

    name: str
    bus: str
    phases: tuple[int, ...]
    connection: Connection
    model: int
    kv: float
    kw: float
    kvar: float
    vmin_pu: float = 0.95
    vmax_pu: float = 1.05
    vlow_pu: float = 0.5
    neutral: int = 0
    cvr_watts: float = 1.0
    cvr_vars: float = 2.0
    zipv: tuple[float, ...] = ()
    daily: str | None = None
    yearly: str | None = None


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Generator, PV or battery: balanced over its phases, injecting power at its set-point within its kVA rating.

    kw is its rated power, kvar its reactive power; kwh a battery's energy, dispatch_kw what it gives where nothing
    else is asked of it (below 0: charging, or its losses at rest). Outside vmin_pu..vmax_pu it is the impedance that
    draws the same at the limit (OpenDSS's generator model 1; 2 is constant impedance).
    """

    name: str
    kind: Literal["generator", "pv", "battery"]
    bus: str
    phases: tuple[int, ...]
    kv: float
    kva: float
    kw: float
    kvar: float = 0.0
    kwh: float = 0.0
    dispatch_kw: float = 0.0
    connection: Connection = "wye"
    model: int = 1
    neutral: int = 0
    vmin_pu: float = 0.5
    vmax_pu: float = 1.5
    daily: str | None = None
    yearly: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoadShape:
    """Multipliers of kW (and of kvar, if given) at equal intervals; `is_actual`: kW and kvar themselves."""

    name: str
    interval_h: float
    p_mult: tuple[float, ...]
    q_mult: tuple[float, ...] | None = None
    is_actual: bool = False
