"""Feeder files load whole, and every breach of a rule is named."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
import pytest
import yaml

import gridray.feeders
from gridray.errors import FeederError
from gridray.feeders.components import Capacitor, Generator, Reactor
from gridray.feeders.library import feeder_names, load_feeder
from gridray.feeders.validate import validate
from gridray.physics.compiled import compile_feeder

if TYPE_CHECKING:
    from gridray.feeders.feeder import Feeder

DATA = Path(gridray.feeders.__file__).parent / "data"
CASES = {"ieee13": "ieee13", "ieee34": "ieee34mod2", "ieee123": "ieee123"}


@pytest.fixture(params=feeder_names())
def feeder(request: pytest.FixtureRequest) -> Feeder:
    return load_feeder(request.param)


@pytest.fixture
def ieee13() -> Feeder:
    return load_feeder("ieee13")


def _nodes(feeder: Feeder) -> set[str]:
    nodes = {f"{bus}.{p}" for line in feeder.lines for bus in (line.from_bus, line.to_bus) for p in line.phases}
    return nodes | {f"{w.bus}.{p}" for t in feeder.transformers for w in t.windings for p in w.phases}


def test_nodes_and_loads_are_the_references(reference_dir: Path, feeder: Feeder) -> None:
    case = CASES[feeder.name]
    with (reference_dir / f"solutions/{case}_frozen.nodes.csv").open() as file:
        nodes = {row["node"] for row in csv.DictReader(file) if "_open" not in row["node"]}
    assert _nodes(feeder) == nodes
    names = json.loads((reference_dir / f"scenarios/{case}.json").read_text())
    assert {load.name for load in feeder.loads} == {item["name"] for item in names["loads"]}
    assert {capacitor.name for capacitor in feeder.capacitors} == {item["name"] for item in names["capacitors"]}
    assert {c.transformer for c in feeder.regulators} == {item["transformer"] for item in names["regulators"]}


@pytest.mark.parametrize(
    ("name", "kw", "kvar"),
    # Total spot and distributed loads as IEEE's tables give them.
    [("ieee13", 3466.0, 2102.0), ("ieee34", 1769.0, 1044.0), ("ieee123", 3490.0, 1920.0)],
)
def test_total_load_is_the_published_one(name: str, kw: float, kvar: float) -> None:
    feeder = load_feeder(name)
    assert sum(load.kw for load in feeder.loads) == pytest.approx(kw, rel=1e-9)
    assert sum(load.kvar for load in feeder.loads) == pytest.approx(kvar, rel=1e-9)


def test_closed_lines_and_transformers_form_a_tree(feeder: Feeder) -> None:
    graph = nx.Graph((line.from_bus, line.to_bus) for line in feeder.lines if not line.is_open)
    graph.add_edges_from((t.windings[0].bus, t.windings[1].bus) for t in feeder.transformers)
    assert nx.is_tree(graph)


def test_units_are_converted() -> None:
    feeder = load_feeder("ieee13")
    code = next(code for code in feeder.line_codes if code.name == "mtx601")
    # 0.3465 ohm/mile; 1.05558 microsiemens/mile at 60 Hz are 2.8 nF/mile; 2000 ft are 0.6096 km.
    assert code.r_ohm_per_km[0][0] == pytest.approx(0.3465 / 1.609344)
    assert code.x_ohm_per_km[0][1] == code.x_ohm_per_km[1][0] == pytest.approx(0.5017 / 1.609344)
    assert code.c_nf_per_km[0][0] == pytest.approx(2.8 / 1.609344, rel=1e-5)
    assert next(line for line in feeder.lines if line.name == "650632").length_km == pytest.approx(0.6096)


def test_content_hash_follows_content_not_form(tmp_path: Path, feeder: Feeder) -> None:
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((DATA / f"{feeder.name}.yaml").read_text()), sort_keys=False))
    assert load_feeder(path).content_hash() == feeder.content_hash()
    other = replace(feeder, loads=(replace(feeder.loads[0], kw=1.0), *feeder.loads[1:]))
    assert other.content_hash() != feeder.content_hash()


def test_every_bus_of_a_published_table_has_a_place(feeder: Feeder) -> None:
    placed = {bus for bus, _, _ in feeder.bus_xy}
    buses = {node.split(".")[0] for node in _nodes(feeder)}
    assert placed <= buses
    assert all(bus.startswith("mid") for bus in buses - placed)


def test_unknown_feeder_names_the_nearest() -> None:
    with pytest.raises(FeederError, match="Did you mean 'ieee13'"):
        load_feeder("iee13")
    with pytest.raises(FeederError, match=r"no feeder or file '/nowhere/grid\.yaml'"):
        load_feeder("/nowhere/grid.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kvar: 660", "kvr: 660", r"loads\.0\.kvr.*did you mean 'kvar'"),
        ("frequency_hz: 60", "frequency_hz: fast", "frequency_hz"),
        ("kw: 1155", "kw: .nan", r"loads\.0\.kw"),
        ("connection: delta, model: 1", "connection: star, model: 1", r"loads\.0\.connection.*'wye' or 'delta'"),
        ("length_ft: 2000", "length_ft: -1", r"lines\.0\.length_ft.*greater than 0"),
        ("r: [[1.3292]]", "r: [[1.3292, 0.1]]", r"line_codes\.mtx605\.r.*lower triangle"),
        ("mtx605: {r", "mtx604: {r", "key 'mtx604' is there twice"),
        ("name: ieee13", "name: [ieee13", "is not YAML"),
        ("loads:", "laods:", "did you mean 'loads'"),
    ],
)
def test_damaged_file_is_refused_by_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (DATA / "ieee13.yaml").read_text()
    assert old in text
    path = tmp_path / "grid.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FeederError, match=message):
        load_feeder(path)


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"\xff\xfe\x00", b"just words"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "grid.yaml"
    path.write_bytes(content)
    with pytest.raises(FeederError, match=r"grid\.yaml"):
        load_feeder(path)


def test_all_problems_are_reported_together(ieee13: Feeder) -> None:
    load, line = ieee13.loads[0], ieee13.lines[0]
    broken = replace(
        ieee13,
        loads=(load, replace(load, model=9), replace(load, name="far", bus="999"), replace(load, name="hv", kv=41.6)),
        lines=(replace(line, line_code="none"), replace(line, name="short", phases=(1, 2)), *ieee13.lines[1:]),
    )
    with pytest.raises(FeederError) as caught:
        validate(broken)
    text = str(caught.value)
    for part in (
        "2 of the loads are called '671'",
        "model 9",
        "bus '999'",
        "Load 'hv' is rated 41.6 kV",
        "line code 'none'",
        "Line 'short' has 2 phases",
    ):
        assert part in text


def test_missing_phase_is_named(ieee13: Feeder) -> None:
    capacitor = Capacitor(name="c", bus="645", phases=(1,), connection="wye", kv=2.4, kvar=50.0)
    with pytest.raises(FeederError, match=r"Capacitor 'c' is at bus '645', which has no phase \[1\]"):
        validate(replace(ieee13, capacitors=(capacitor,)))
    inverter = Generator(name="pv1", kind="pv", bus="611", phases=(1, 2, 3), kv=4.16, kva=10.0, kw=8.0)
    with pytest.raises(FeederError, match=r"Generator 'pv1' is at bus '611'"):
        validate(ieee13.with_generators((inverter,)))


def test_island_is_named(ieee13: Feeder) -> None:
    lines = tuple(replace(line, is_open=line.name == "684611") for line in ieee13.lines)
    loads = tuple(load for load in ieee13.loads if load.bus != "611")
    capacitors = tuple(capacitor for capacitor in ieee13.capacitors if capacitor.bus != "611")
    xy = tuple(place for place in ieee13.bus_xy if place[0] != "611")
    # A bus behind an open switch with nothing at it is no part of the network; one with a line beyond is an island.
    validate(replace(ieee13, lines=lines, loads=loads, capacitors=capacitors, bus_xy=xy))
    beyond = replace(ieee13.lines[0], name="beyond", from_bus="x", to_bus="y")
    with pytest.raises(FeederError, match=r"Node 'x\.1' has no path to the source 'sourcebus'"):
        validate(replace(ieee13, lines=(*ieee13.lines, beyond)))


def test_impedances_that_cannot_be_inverted_are_named(ieee13: Feeder) -> None:
    code = replace(ieee13.line_codes[0], r_ohm_per_km=((1.0,) * 3,) * 3, x_ohm_per_km=((0.0,) * 3,) * 3)
    source = replace(ieee13.source, r1_ohm=0.0, x1_ohm=0.0)
    with pytest.raises(FeederError, match=r"(?s)source at bus 'sourcebus' has no impedance.*'mtx601' has an impedance"):
        validate(replace(ieee13, line_codes=(code, *ieee13.line_codes[1:]), source=source))


def test_two_controls_of_one_transformer_are_refused(ieee13: Feeder) -> None:
    twin = replace(ieee13.regulators[0], name="twin")
    with pytest.raises(FeederError, match="2 regulators control transformer 'reg1'"):
        validate(replace(ieee13, regulators=(*ieee13.regulators, twin)))


def test_synthetic_feeder_is_loaded_by_name() -> None:
    feeder = load_feeder("synthetic-200-3")
    assert feeder.content_hash() == load_feeder("synthetic-200-3").content_hash()
    assert feeder.content_hash() != load_feeder("synthetic-200-4").content_hash()


def test_copies_with_more_leave_the_feeder_alone(ieee13: Feeder) -> None:
    richer = (
        ieee13.with_pv(name="pv", bus="645.2", phases=1, kv=2.4, kw=100.0)
        .with_battery(name="bat", bus="675", phases=3, kv=4.16, kw=250.0, kwh=1000.0)
        .with_generator(name="gen", bus="680", phases=3, kv=4.16, kw=80.0, kvar=10.0)
        .with_load(name="more", bus="692", phases=3, kv=4.16, kw=30.0, kvar=5.0)
    )
    assert not ieee13.generators
    assert [(g.name, g.kind, g.phases) for g in richer.generators] == [
        ("pv", "pv", (2,)),
        ("bat", "battery", (1, 2, 3)),
        ("gen", "generator", (1, 2, 3)),
    ]
    assert richer.loads[-1].name == "more"
    assert len(richer.loads) == len(ieee13.loads) + 1
    validate(richer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bus": "nosuch.2"}, "no bus 'nosuch'"),
        ({"bus": "645.1"}, "Bus '645' has no node 1: it has 2, 3"),
        ({"bus": "645.x"}, "not a name and node numbers"),
        ({"phases": 3}, "names 1 node"),
        ({"kv": 0.0}, "kv 0.0"),
        ({"kv": -2.4}, "kv -2.4"),
        ({"kw": float("nan")}, "nan kW"),
        ({"connection": "star"}, "connection 'star'"),
        ({"kva": -5.0}, "-5.0 kva"),
        ({"kwh": -1.0}, "-1.0 kwh"),
        ({"bus": "645.2.2"}, "a node twice"),
        ({"name": "first"}, "'first' is there already"),
    ],
)
def test_addition_that_does_not_fit_is_refused_by_name(change: dict[str, object], said: str) -> None:
    good = {"name": "new", "bus": "645.2", "phases": 1, "kv": 2.4, "kw": 10.0}
    feeder = load_feeder("ieee13").with_generator(**{**good, "name": "first"})
    assert len(feeder.with_generator(**good).generators) == 2
    with pytest.raises(FeederError, match=said):
        feeder.with_generator(**{**good, **change})


def test_bus_is_found_whatever_its_case() -> None:
    feeder = load_feeder("ieee13")
    bus = feeder.source.bus
    assert bus.upper() != bus
    (load,) = feeder.with_load(name="new", bus=f"{bus.upper()}.1", phases=1, kv=66.4, kw=1.0).loads[-1:]
    assert load.bus == bus


def test_load_of_an_unknown_model_is_refused() -> None:
    with pytest.raises(FeederError, match="model 9"):
        load_feeder("ieee13").with_load(name="new", bus="645.2", phases=1, kv=2.4, kw=1.0, model=9)


def _breaches(feeder: Feeder) -> dict[str, Feeder]:
    """Return feeders made by hand, each wrong in one way, by a word of what must be said."""
    line, load, transformer = feeder.lines[0], feeder.loads[0], feeder.transformers[0]
    high, low = transformer.windings
    loads, lines, units = feeder.loads[1:], feeder.lines[1:], feeder.transformers[1:]
    resistor = Reactor(name="x", bus="671", phases=(1, 2), r_ohm=0.0, x_ohm=0.0)
    return {
        "at bus 'nowhere', which nothing connects": replace(feeder, loads=(replace(load, bus="nowhere"), *loads)),
        f"2 of the loads are called '{load.name}'": replace(feeder, loads=(load, *feeder.loads)),
        "has model 9": replace(feeder, loads=(replace(load, model=9), *loads)),
        "is a delta on phases [1]": replace(feeder, loads=(replace(load, phases=(1,)), *loads)),
        "kv 0.0": replace(feeder, loads=(replace(load, kv=0.0), *loads)),
        "kvar nan": replace(feeder, loads=(replace(load, kvar=float("nan")), *loads)),
        "line code 'zz', which is not defined": replace(feeder, lines=(replace(line, line_code="zz"), *lines)),
        "is 0.0 km long": replace(feeder, lines=(replace(line, length_km=0.0), *lines)),
        "3 phases and 1 to_phases": replace(feeder, lines=(replace(line, to_phases=(1,)), *lines)),
        "open_ends ((3, 1),)": replace(feeder, lines=(replace(line, open_ends=((3, 1),)), *lines)),
        "has 1 winding(s)": replace(feeder, transformers=(replace(transformer, windings=(high,)), *units)),
        "windings of [1, 3] phases": replace(
            feeder, transformers=(replace(transformer, windings=(replace(high, phases=(1,)), low)), *units)
        ),
        "tap 0.0": replace(feeder, transformers=(replace(transformer, windings=(high, replace(low, tap=0.0))), *units)),
        "watches bus 'zz.1'": replace(feeder, regulators=(replace(feeder.regulators[0], bus="zz.1"),)),
        "watches winding 5": replace(feeder, regulators=(replace(feeder.regulators[0], winding=5),)),
        "has no impedance": replace(feeder, source=replace(feeder.source, r1_ohm=0.0, x1_ohm=0.0)),
        "neither r_ohm nor x_ohm": replace(feeder, reactors=(resistor,)),
        "matrices of [1] rows": replace(
            feeder, reactors=(replace(resistor, r_matrix_ohm=((1.0,),), x_matrix_ohm=((1.0,),)),)
        ),
    }


def test_feeder_made_by_hand_is_checked_when_it_is_compiled(ieee13: Feeder) -> None:
    for said, feeder in _breaches(ieee13).items():
        with pytest.raises(FeederError) as error:
            compile_feeder(feeder)
        assert said in str(error.value)
        assert "1 problem(s)" in str(error.value), said
