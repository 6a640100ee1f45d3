"""Transformers, their codes, and autotransformers."""

from __future__ import annotations

from typing import Any

from gridray.feeders.components import Transformer, Winding
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.model import Element, Model, bus_and_nodes, connection

Values = dict[str, Any]

MAX_WINDINGS = 20
MICRO_OHM = 1e-6
_ONE = {"bus": "bus", "conn": "conn", "kv": "kv", "kva": "kva", "tap": "tap", "%r": "r", "rneut": "rneut"}
_ONE |= {"xneut": "xneut", "maxtap": "maxtap", "mintap": "mintap", "numtaps": "numtaps"}
_ALL = {"buses": "bus", "conns": "conn", "kvs": "kv", "kvas": "kva", "taps": "tap", "%rs": "r"}
_REACTANCES = {"xhl": "x12", "xhx": "x12", "x12": "x12", "xht": "x13", "x13": "x13", "xlt": "x23", "xxt": "x23"}
_REACTANCES |= {"x23": "x23"}
_SHARED = ("phases", "x12", "x13", "x23", "%noloadloss", "%imag", "ppm_antifloat")


def defaults(_: Model) -> Values:
    """Return OpenDSS's default transformer."""
    return {
        "phases": 3,
        "wdg": 1,
        "windings_": [_winding(), _winding()],
        "x12": 7.0,
        "x13": 35.0,
        "x23": 30.0,
        "%noloadloss": 0.0,
        "%imag": 0.0,
        "ppm_antifloat": 1.0,
        "leadlag": "lag",
        "enabled": True,
    }


def auto_defaults(model: Model) -> Values:
    """Return OpenDSS's default autotransformer."""
    values = defaults(model)
    values.update(x12=10.0, x13=35.0, x23=30.0)
    values["windings_"][0].update(conn="series", kv=115.0)
    return values


def after(model: Model, item: Element, prop: str) -> None:  # noqa: C901
    """Follow up a property of a transformer or its code."""
    values = item.v
    windings = values["windings_"]
    if prop == "windings":
        _resize(item, values["windings"])
    elif prop == "wdg":
        if not 1 <= values["wdg"] <= len(windings):
            raise ScriptError(f"wdg={values['wdg']} of {len(windings)} windings: set windings first or correct it")
    elif prop in _ONE:
        value = connection(values["conn"]) if prop == "conn" else values[prop]
        windings[values["wdg"] - 1][_ONE[prop]] = value
        if prop == "kva" and (values["wdg"] == 1 or len(windings) == 2):
            for winding in windings:
                winding["kva"] = value
    elif prop in _ALL:
        _set_all(windings, prop, values[prop])
    elif prop in _REACTANCES:
        values[_REACTANCES[prop]] = values[prop]
    elif prop == "xscarray" and len(windings) <= 3:
        values.update(zip(("x12", "x13", "x23"), values["xscarray"], strict=False))
    elif prop == "%loadloss":
        for winding in windings[:2]:
            winding["r"] = values["%loadloss"] / 2.0
    elif prop == "xfmrcode":
        _fetch_code(model.find("xfmrcode", values["xfmrcode"]), values)


def convert(model: Model) -> list[Transformer]:
    """Return the transformers, autotransformers after them."""
    converted = []
    for item in (*model.of("transformer"), *model.of("autotrans")):
        try:
            converted.append(_transformer(item))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return converted


def _transformer(item: Element) -> Transformer:
    values = item.v
    windings = values["windings_"]
    n = len(windings)
    if n < 2:
        raise ScriptError(f"it has {n} winding: give two or more")
    pairs: tuple[float, ...] = values.get("xscarray", ()) if n > 3 else ()
    if n > 3 and len(pairs) != n * (n - 1) // 2:
        raise ScriptError(f"it has {n} windings and {len(pairs)} reactances: give xscarray, one for each two windings")
    if values["phases"] > 3:
        raise ScriptError(f"it has {values['phases']} phases: give 1 to 3")
    scale = 1.0
    if item.cls == "autotrans":
        windings, scale = _auto(windings)
    return Transformer(
        name=item.name,
        windings=tuple(_converted(winding, values["phases"]) for winding in windings),
        xhl_percent=values["x12"] * scale,
        xht_percent=values["x13"] if n == 3 else 0.0,
        xlt_percent=values["x23"] if n == 3 else 0.0,
        x_percent=pairs,
        no_load_loss_percent=values["%noloadloss"],
        magnetizing_percent=values["%imag"],
        antifloat_ppm=values["ppm_antifloat"],
        high_side_lags=values["leadlag"].startswith(("le", "eu")),
    )


def _auto(windings: list[Values]) -> tuple[list[Values], float]:
    """Return an autotransformer's coils, and the factor from its percentages, on the high side, to theirs.

    The series coil has the difference of the voltages, so its base impedance is ((H - X) / H)^2 of the high side's.
    """
    if [winding["conn"] for winding in windings] != ["series", "wye"]:
        raise ScriptError("an autotransformer other than series and wye: write it as a transformer of its coils")
    high, low = windings
    if not high["kv"] > low["kv"] > 0.0:
        raise ScriptError(f"an autotransformer of {high['kv']:g} to {low['kv']:g} kV: give the higher voltage first")
    scale = (high["kv"] / (high["kv"] - low["kv"])) ** 2
    return [
        {**high, "kv": high["kv"] - low["kv"], "r": high["r"] * scale},
        {**low, "r": low["r"] * scale},
    ], scale


def _converted(winding: Values, n: int) -> Winding:
    bus, nodes = bus_and_nodes(winding["bus"], n, n + 1)
    if not bus:
        raise ScriptError("a winding lacks its bus: give buses")
    kind = winding["conn"]
    phases, neutral = nodes[:n], nodes[n]
    if kind == "delta" and n < 3:
        if n == 2:
            raise ScriptError("a delta winding of 2 phases: write it as two transformers of one phase")
        if 0 in nodes:
            kind = "wye"
        else:
            phases, neutral = nodes, 0
    elif kind != "wye":
        neutral = 0
    if not (winding["kv"] > 0.0 and winding["kva"] > 0.0):
        raise ScriptError(f"a winding has kv {winding['kv']:g} and kva {winding['kva']:g}: give values above 0")
    if winding["tap"] == 0.0:
        raise ScriptError("a winding has tap 0: give a ratio above 0")
    has_impedance = neutral != 0 and kind == "wye" and winding["rneut"] >= 0.0
    # OpenDSS grounds a neutral without impedance through a micro-ohm.
    r_neutral = winding["rneut"] if winding["rneut"] > 0.0 or winding["xneut"] != 0.0 else MICRO_OHM
    return Winding(
        bus=bus,
        phases=phases,
        connection=kind,
        kv=winding["kv"],
        kva=winding["kva"],
        r_percent=winding["r"],
        tap=winding["tap"],
        neutral=neutral,
        neutral_r_ohm=r_neutral if has_impedance else None,
        neutral_x_ohm=winding["xneut"] if has_impedance else 0.0,
        min_tap=winding["mintap"],
        max_tap=winding["maxtap"],
        num_taps=winding["numtaps"],
    )


def _winding() -> Values:
    return {
        "bus": "",
        "conn": "wye",
        "kv": 12.47,
        "kva": 1000.0,
        "tap": 1.0,
        "r": 0.2,
        "rneut": -1.0,
        "xneut": 0.0,
        "maxtap": 1.1,
        "mintap": 0.9,
        "numtaps": 32,
    }


def _resize(item: Element, count: int) -> None:
    if not 1 <= count <= MAX_WINDINGS:
        raise ScriptError(f"{count} windings: give 2 to {MAX_WINDINGS}")
    values = item.v
    if count != len(values["windings_"]):
        values["windings_"] = [_winding() for _ in range(count)]
        if item.cls == "autotrans":
            values["windings_"][0].update(conn="series", kv=115.0)


def _set_all(windings: list[Values], prop: str, given: tuple[Any, ...]) -> None:
    if len(given) > len(windings):
        raise ScriptError(f"{prop} has {len(given)} values for {len(windings)} windings: set windings first")
    for winding, value in zip(windings, given, strict=False):
        winding[_ALL[prop]] = connection(value) if prop == "conns" else value


def _fetch_code(code: Element, values: Values) -> None:
    count = len(code.v["windings_"])
    buses = [winding["bus"] for winding in values["windings_"]]
    values["windings_"] = [dict(winding) for winding in code.v["windings_"]]
    if len(buses) == count:
        for winding, bus in zip(values["windings_"], buses, strict=True):
            winding["bus"] = bus
    values.update({prop: code.v[prop] for prop in (*_SHARED, "xscarray") if prop in code.v})
    values["wdg"] = 1
