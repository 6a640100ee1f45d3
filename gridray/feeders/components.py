"""Parts of a feeder, in the units of the field; what people write, read and diff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Connection = Literal["wye", "delta"]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Three-phase voltage source behind an impedance, at the head of the feeder.

    kv is line to line; angle_deg is the angle of phase 1; impedances are sequence values in ohm.
    """

    bus: str
    kv: float
    pu: float
    angle_deg: float
    r1_ohm: float
    x1_ohm: float
    r0_ohm: float
    x0_ohm: float


@dataclass(frozen=True, kw_only=True)
class LineCode:
    """Series impedance (ohm/km) and shunt capacitance (nF/km), full symmetric matrices in the line's phase order."""

    name: str
    r_ohm_per_km: Matrix
    x_ohm_per_km: Matrix
    c_nf_per_km: Matrix


@dataclass(frozen=True, kw_only=True)
class Line:
    """Line, cable or switch; `phases` in the order of the line code's matrices."""

    name: str
    from_bus: str
    to_bus: str
    phases: tuple[int, ...]
    line_code: str
    length_km: float
    is_switch: bool = False
    is_open: bool = False


@dataclass(frozen=True, kw_only=True)
class Winding:
    """One transformer winding: kv is line to line for three phases, the coil's own voltage for one phase."""

    bus: str
    phases: tuple[int, ...]
    connection: Connection
    kv: float
    kva: float
    r_percent: float
    tap: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Two-winding transformer, one- or three-phase; a regulator is one with a RegulatorControl."""

    name: str
    windings: tuple[Winding, Winding]
    xhl_percent: float
    antifloat_ppm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RegulatorControl:
    """Line-drop-compensated regulator control on winding 2 of a transformer (volts on the 120 V base)."""

    name: str
    transformer: str
    vreg_v: float
    band_v: float
    pt_ratio: float
    ct_primary_a: float
    r_v: float
    x_v: float
    delay_s: float = 15.0
    max_tap_change: int = 16


@dataclass(frozen=True, kw_only=True)
class Capacitor:
    """Shunt capacitor bank; kv is line to line for two or three phases, line to neutral for one phase."""

    name: str
    bus: str
    phases: tuple[int, ...]
    connection: Connection
    kv: float
    kvar: float
    is_closed: bool = True


@dataclass(frozen=True, kw_only=True)
class Load:
    """Load with OpenDSS's models: 1 constant power, 2 impedance, 4 CVR (exponents 1 and 2), 5 current magnitude.

    kv is line to line for two or three phases, the load's own voltage for one phase. Three-phase loads are
    balanced: kw and kvar are totals. Outside vmin_pu..vmax_pu a load follows OpenDSS's limits.
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


@dataclass(frozen=True, kw_only=True)
class Inverter:
    """PV or battery inverter: balanced over its phases, wye, constant power within its kVA rating."""

    name: str
    kind: Literal["pv", "battery"]
    bus: str
    phases: tuple[int, ...]
    kv: float
    kva: float
    kw: float
    kwh: float = 0.0
