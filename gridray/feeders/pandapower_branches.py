"""Lines, switches and transformers of a pandapower net."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from gridray.feeders.components import Line, LineCode, Reactor, Transformer, Winding

if TYPE_CHECKING:
    from gridray.feeders.components import Matrix
    from gridray.feeders.pandapower_tables import Element, Net

PHASES = (1, 2, 3)
SWITCH_PU = 1e-8
"""Impedance of a closed bus-bus switch without one of its own, and of the source, on 1 MVA."""
SWITCH_KM = 0.001
ZERO_SEQUENCE_TRAFO = ("vk0_percent", "vkr0_percent", "mag0_percent", "mag0_rx", "si0_hv_partial")


class Branches(NamedTuple):
    """What the branch tables become."""

    line_codes: dict[LineCode, str]
    lines: list[Line]
    transformers: list[Transformer]
    reactors: list[Reactor]


def read_branches(net: Net, kv: dict[str, float]) -> Branches:
    """Return lines, switches and transformers; kv is each bus's line-to-line base."""
    branches = Branches({}, [], [], [])
    open_ends = {
        (switch.text("et"), int(switch.number("element")), switch.bus())
        for switch in net.elements("switch")
        if not switch.flag("closed", default=True) and switch.text("et") in {"l", "t"}
    }
    switched = {int(s.number("element")) for s in net.elements("switch") if s.text("et") == "l"}
    for line in net.elements("line"):
        if _joins(line, ("from_bus", "to_bus"), kv):
            _add_line(line, open_ends, branches, is_switch=line.index in switched)
    for switch in net.elements("switch"):
        _add_switch(switch, kv, branches)
    for trafo in net.in_service("trafo"):
        if not _joins(trafo, ("hv_bus", "lv_bus"), kv):
            continue
        if any(("t", trafo.index, trafo.bus(side)) in open_ends for side in ("hv_bus", "lv_bus")):
            net.notes.append(f"trafo {trafo.index} has an open switch: left out.")
        else:
            _add_transformer(net, trafo, branches)
    return branches


def shunt_reactors(name: str, bus: str, y1_siemens: complex, y0_siemens: complex) -> list[Reactor]:
    """Return reactors to ground of these admittances per phase in positive and zero sequence.

    A delta of (y1 - y0) / 3 a side carries what zero sequence does not see.
    """
    y0 = y0_siemens
    reactors = []
    if y0:
        z = 1.0 / y0
        reactors.append(Reactor(name=f"{name}_y", bus=bus, phases=PHASES, r_ohm=z.real, x_ohm=z.imag))
    if y1_siemens != y0:
        z = 3.0 / (y1_siemens - y0)
        reactors.append(
            Reactor(name=f"{name}_d", bus=bus, phases=PHASES, r_ohm=z.real, x_ohm=z.imag, connection="delta")
        )
    return reactors


def _joins(element: Element, columns: tuple[str, str], kv: dict[str, float]) -> bool:
    """Tell whether both ends are in service; they must differ."""
    first, second = (element.bus(column) for column in columns)
    if first == second:
        element.refuse(f"both ends are at bus {first}", "leave it out")
    return first in kv and second in kv


def _sequence_matrix(positive: float, zero: float) -> Matrix:
    """Return the phase matrix of a balanced element: its own on the diagonal, (zero - positive) / 3 elsewhere."""
    mutual = (zero - positive) / 3.0
    return tuple(tuple(mutual + (positive if i == j else 0.0) for j in range(3)) for i in range(3))


def _code(branches: Branches, r: Matrix, x: Matrix, c: Matrix) -> str:
    code = LineCode(name="", r_ohm_per_km=r, x_ohm_per_km=x, c_nf_per_km=c)
    return branches.line_codes.setdefault(code, f"code{len(branches.line_codes) + 1}")


def _add_line(line: Element, open_ends: set[tuple[str, int, str]], branches: Branches, *, is_switch: bool) -> None:
    """Add a line; an end behind an open switch goes to a bus of its own, so that its charging stays."""
    parallel = line.positive("parallel", 1.0)
    r, x = line.number("r_ohm_per_km") / parallel, line.number("x_ohm_per_km") / parallel
    c = line.number("c_nf_per_km", 0.0) * parallel
    r0 = line.number("r0_ohm_per_km", r * parallel) / parallel
    x0 = line.number("x0_ohm_per_km", x * parallel) / parallel
    c0 = line.number("c0_nf_per_km", c / parallel) * parallel
    code = _code(branches, _sequence_matrix(r, r0), _sequence_matrix(x, x0), _sequence_matrix(c, c0))
    length_km = line.positive("length_km")
    ends = [line.bus("from_bus"), line.bus("to_bus")]
    is_open = [("l", line.index, bus) in open_ends for bus in ends]
    in_service = line.flag("in_service", default=True) and not all(is_open)
    rating_ka = line.number("max_i_ka", 0.0) * line.number("df", 1.0) * parallel
    g = line.number("g_us_per_km", 0.0) * 1e-6 * length_km * parallel / 2.0
    for end, bus in enumerate(ends):
        if is_open[end] and in_service:
            ends[end] = f"{bus}_{line.name}"
            branches.lines.append(_switch(f"{line.name}_end{end + 1}", bus, ends[end], code, is_open=True))
        if g and in_service:
            branches.reactors.extend(shunt_reactors(f"{line.name}_g{end + 1}", ends[end], g, g))
    branches.lines.append(
        Line(
            name=line.name,
            from_bus=ends[0],
            to_bus=ends[1],
            phases=PHASES,
            line_code=code,
            length_km=length_km,
            is_switch=is_switch or not in_service,
            is_open=not in_service,
            rating_a=1e3 * rating_ka or None,
        )
    )


def _switch(name: str, from_bus: str, to_bus: str, code: str, *, is_open: bool) -> Line:
    return Line(
        name=name,
        from_bus=from_bus,
        to_bus=to_bus,
        phases=PHASES,
        line_code=code,
        length_km=SWITCH_KM,
        is_switch=True,
        is_open=is_open,
    )


def _add_switch(switch: Element, kv: dict[str, float], branches: Branches) -> None:
    """Add a bus-bus switch: its own impedance at the R/X of 2 that pandapower takes, else SWITCH_PU."""
    kind = switch.text("et")
    if kind in {"l", "t"}:
        return
    if kind != "b":
        switch.refuse(f"et is '{kind}'", "model what it switches as lines, two-winding trafos or bus-bus switches")
    elif _joins(switch, ("bus", "element"), kv):
        own = switch.number("z_ohm", 0.0)
        r, x = (own * 2.0 / 5.0**0.5, own / 5.0**0.5) if own else (SWITCH_PU * kv[switch.bus()] ** 2, 0.0)
        zero = _sequence_matrix(0.0, 0.0)
        r_per_km, x_per_km = r / SWITCH_KM, x / SWITCH_KM
        code = _code(branches, _sequence_matrix(r_per_km, r_per_km), _sequence_matrix(x_per_km, x_per_km), zero)
        is_open = not switch.flag("closed", default=True)
        branches.lines.append(_switch(switch.name, switch.bus(), switch.bus("element"), code, is_open=is_open))


def _add_transformer(net: Net, trafo: Element, branches: Branches) -> None:
    """Add a two-winding transformer as pandapower's T equivalent: its series branch and shunts at both ends."""
    shift = trafo.number("shift_degree", 0.0) % 360.0
    group = _vector_group(trafo, shift)
    is_delta = shift % 60.0 == 30.0
    hv_tap, lv_tap = _taps(net, trafo)
    kv_hv, kv_lv = trafo.positive("vn_hv_kv") * hv_tap, trafo.positive("vn_lv_kv") * lv_tap
    z_base = kv_lv**2 / trafo.positive("sn_mva") / trafo.positive("parallel", 1.0)
    z1, y_middle = _short_circuit(trafo, "", z_base), _no_load(trafo, kv_lv)
    share = trafo.number("leakage_resistance_ratio_hv", 0.5), trafo.number("leakage_reactance_ratio_hv", 0.5)
    z_hv = complex(z1.real * share[0], z1.imag * share[1])
    series, y_hv, y_lv = _pi(z_hv, z1 - z_hv, y_middle)
    y0_hv, y0_lv, z_neutral = 0j if is_delta else y_hv, y_lv, 0j
    if group:
        y0_hv, y0_lv, z_neutral = _zero_sequence(trafo, group, series, z_base)
    to_hv = (kv_lv / kv_hv) ** 2
    branches.reactors.extend(shunt_reactors(f"{trafo.name}_hv", trafo.bus("hv_bus"), y_hv * to_hv, y0_hv * to_hv))
    branches.reactors.extend(shunt_reactors(f"{trafo.name}_lv", trafo.bus("lv_bus"), y_lv, y0_lv))
    sn_kva, percent = trafo.positive("sn_mva") * 1e3, 100.0 * series / (z_base * trafo.positive("parallel", 1.0))
    high = Winding(
        bus=trafo.bus("hv_bus"),
        phases=PHASES,
        connection="delta" if is_delta else "wye",
        kv=kv_hv / hv_tap,
        kva=sn_kva,
        r_percent=percent.real / 2.0,
        tap=hv_tap,
    )
    # A delta leads or lags its wye by 30 degrees; the multiples of 120 beyond that turn the low side's phases.
    high_side_lags = is_delta and shift % 120.0 == 90.0
    turn = round((shift - (-30.0 if high_side_lags else 30.0 if is_delta else 0.0)) / 120.0) % 3
    low = Winding(
        bus=trafo.bus("lv_bus"),
        phases=(*PHASES[3 - turn :], *PHASES[: 3 - turn]),
        connection="wye",
        kv=kv_lv / lv_tap,
        kva=sn_kva,
        r_percent=percent.real / 2.0,
        tap=lv_tap,
        neutral=4 if z_neutral else 0,
        neutral_r_ohm=z_neutral.real if z_neutral else None,
        neutral_x_ohm=z_neutral.imag,
    )
    branches.transformers.append(
        Transformer(
            name=trafo.name,
            windings=(high, low),
            xhl_percent=percent.imag,
            antifloat_ppm=0.0,
            high_side_lags=high_side_lags,
        )
    )


def _vector_group(trafo: Element, shift_degree: float) -> str:
    """Return "dyn" or "ynyn" if there are zero-sequence data for it, else nothing."""
    if shift_degree % 120.0 not in {0.0, 30.0, 90.0}:
        trafo.refuse(f"shift_degree is {shift_degree}", "give 0, 120, 240 or an odd multiple of 30")
    group = trafo.text("vector_group").rstrip("0123456789").lower()
    if not group or not all(trafo.has(key) for key in ZERO_SEQUENCE_TRAFO):
        return ""
    if group not in {"dyn", "ynyn"}:
        trafo.refuse(f"vector_group is '{group}'", "give Dyn or YNyn, or leave the zero-sequence columns empty")
    elif (group == "dyn") != (shift_degree % 60.0 == 30.0):
        trafo.refuse(f"vector_group '{group}' does not go with shift_degree {shift_degree}", "correct one of them")
    if trafo.number("xn_ohm", 0.0) or trafo.number("rn_ohm", 0.0):
        trafo.refuse("its neutral has an impedance", "leave xn_ohm and rn_ohm empty")
    return group


def _short_circuit(trafo: Element, sequence: str, z_base_ohm: float) -> complex:
    """Return the short-circuit impedance of positive ("") or zero sequence ("0"), ohm on the low side."""
    vk, vkr = trafo.positive(f"vk{sequence}_percent"), trafo.number(f"vkr{sequence}_percent")
    if not 0.0 <= vkr <= vk:
        trafo.refuse(f"vkr{sequence}_percent {vkr} is not within 0 and vk{sequence}_percent {vk}", "correct them")
        vkr = 0.0
    return complex(vkr, math.sqrt(vk**2 - vkr**2)) / 100.0 * z_base_ohm


def _no_load(trafo: Element, kv_lv: float) -> complex:
    """Return the magnetizing admittance of all units, siemens on the low side."""
    loss_mw = trafo.number("pfe_kw", 0.0) * 1e-3
    apparent_mva = trafo.number("i0_percent", 0.0) / 100.0 * trafo.positive("sn_mva")
    mva = complex(loss_mw, -math.sqrt(max(apparent_mva**2 - loss_mw**2, 0.0)))
    return mva * trafo.positive("parallel", 1.0) / kv_lv**2


def _pi(z_hv: complex, z_lv: complex, y_middle: complex) -> tuple[complex, complex, complex]:
    """Turn a T (two impedances, an admittance between) into a pi: series impedance, admittances at both ends."""
    total = z_hv + z_lv + z_hv * z_lv * y_middle
    return total, z_lv * y_middle / total, z_hv * y_middle / total


def _zero_sequence(trafo: Element, group: str, series: complex, z_base_ohm: float) -> tuple[complex, complex, complex]:
    """Return zero-sequence admittances that the reactors add at both ends, and the neutral's impedance (low side).

    pandapower's zero-sequence T: si0_hv_partial of vk0 on the high side, mag0 times vk0 in the middle (pd2ppc_zero).
    """
    z0 = _short_circuit(trafo, "0" if trafo.number("vk0_percent") else "", z_base_ohm)
    rx, share = trafo.number("mag0_rx"), trafo.number("si0_hv_partial")
    y_middle = math.hypot(rx, 1.0) / (abs(z0) * trafo.positive("mag0_percent") / 100.0 * complex(rx, 1.0))
    series0, y_hv, y_lv = _pi(z0 * share, z0 * (1.0 - share), y_middle)
    if group == "dyn":
        return 0j, y_lv + 1.0 / series0 - 1.0 / series, 0j
    return y_hv, y_lv, (series0 - series) / 3.0


def _taps(net: Net, trafo: Element) -> tuple[float, float]:
    """Return the ratios of both sides from the tap changer's position."""
    kind = trafo.text("tap_changer_type")
    if "tap_changer_type" not in net.columns["trafo"]:
        kind = "Ideal" if trafo.flag("tap_phase_shifter", default=False) else "Ratio"
    steps = trafo.number("tap_pos", 0.0) - trafo.number("tap_neutral", 0.0)
    if trafo.flag("tap_dependency_table", default=False):
        trafo.refuse("it has a tap_dependency_table", "give vk_percent and the tap as plain columns")
    if trafo.number("tap2_pos", 0.0) != trafo.number("tap2_neutral", 0.0):
        trafo.refuse("it has a second tap changer", "set tap2_pos to tap2_neutral")
    if steps == 0.0 or not trafo.has("tap_side"):
        return 1.0, 1.0
    if kind not in {"Ratio", "Symmetrical", "Ideal"}:
        net.notes.append(f"trafo {trafo.index}: its tap does not act, having no tap_changer_type (as in pandapower).")
        return 1.0, 1.0
    if trafo.number("tap_step_degree", 0.0) or kind == "Ideal":
        trafo.refuse("its tap changer shifts the phase", "set tap_step_degree to 0 and tap_changer_type to Ratio")
    ratio = 1.0 + steps * trafo.number("tap_step_percent", 0.0) / 100.0
    return (ratio, 1.0) if trafo.text("tap_side") == "hv" else (1.0, ratio)
