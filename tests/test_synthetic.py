"""Synthetic feeders are the same for the same seed, valid, of the size asked for, and solve to sound voltages."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pytest

import gridray
from gridray.errors import FeederError
from gridray.feeders.conductors import Cable, Wire, cable_line_code, overhead_line_code
from gridray.feeders.library import load_feeder
from gridray.feeders.synthetic import parse_synthetic_name, synthetic_feeder
from gridray.feeders.validate import validate

if TYPE_CHECKING:
    from gridray.feeders.feeder import Feeder

KM_PER_MILE = 1.609344
SIZES = (20, 30, 99, 100, 300, 1000, 5000)


def nodes(feeder: Feeder) -> set[tuple[str, int]]:
    found = {(bus, p) for line in feeder.lines for bus in (line.from_bus, line.to_bus) for p in line.phases}
    return found | {(w.bus, p) for t in feeder.transformers for w in t.windings for p in w.phases}


def closed_graph(feeder: Feeder) -> nx.Graph:
    graph = nx.Graph((line.from_bus, line.to_bus) for line in feeder.lines if not line.is_open)
    graph.add_edges_from((t.windings[0].bus, t.windings[1].bus) for t in feeder.transformers)
    return graph


def phases_by_bus(feeder: Feeder) -> dict[str, set[int]]:
    phases: dict[str, set[int]] = {}
    for bus, phase in nodes(feeder):
        phases.setdefault(bus, set()).add(phase)
    return phases


@pytest.mark.parametrize("num_nodes", [*SIZES, 4999, 12_000])
@pytest.mark.parametrize("meshed", [False, True])
def test_feeder_is_valid_and_has_the_nodes_asked_for(num_nodes: int, meshed: bool) -> None:  # noqa: FBT001
    feeder = synthetic_feeder(num_nodes, seed=4, meshed=meshed)
    validate(feeder)
    assert abs(len(nodes(feeder)) - num_nodes) <= 10
    assert len({bus for bus, _, _ in feeder.bus_xy}) == len(phases_by_bus(feeder))


@pytest.mark.parametrize("num_nodes", SIZES)
@pytest.mark.parametrize("seed", [0, 1, 18])
def test_voltages_are_those_of_a_sound_feeder(num_nodes: int, seed: int) -> None:
    feeder = synthetic_feeder(num_nodes, seed=seed, meshed=seed == 1)
    result = gridray.solve(gridray.compile_feeder(feeder))
    assert result.converged.all()
    assert 0.9 < result.vmag_pu.min() < 1.0
    assert result.vmag_pu.max() < 1.05


def test_same_seed_gives_the_same_feeder_and_another_seed_another() -> None:
    first = synthetic_feeder(400, seed=7).content_hash()
    assert synthetic_feeder(400, seed=7).content_hash() == first
    assert synthetic_feeder(400, seed=8).content_hash() != first
    assert synthetic_feeder(400, seed=7, meshed=True).content_hash() != first


def test_radial_feeder_is_a_tree_and_a_meshed_one_has_a_few_loops() -> None:
    radial, meshed = (closed_graph(synthetic_feeder(1000, seed=2, meshed=meshed)) for meshed in (False, True))
    assert nx.is_tree(radial)
    assert 1 <= meshed.number_of_edges() - meshed.number_of_nodes() + 1 <= 5


def test_feeder_has_every_kind_of_part() -> None:
    feeder = synthetic_feeder(3000, seed=1)
    assert Counter(len(line.phases) for line in feeder.lines).keys() == {1, 2, 3}
    assert {load.model for load in feeder.loads} == {1, 2, 4, 5}
    kinds = {(load.connection, len(load.phases)) for load in feeder.loads}
    assert kinds == {("wye", 1), ("wye", 3), ("delta", 2), ("delta", 3)}
    assert len(feeder.regulators) == 6
    assert len(feeder.capacitors) == 3
    assert {line.is_open for line in feeder.lines if line.is_switch} == {True, False}
    assert {"oh1", "oh2", "oh3", "ug1", "ug3", "switch3"} == {code.name.split("_")[0] for code in feeder.line_codes}
    assert {t.windings[1].kv for t in feeder.transformers} == {12.47, 7.2, 0.24, 0.208}


def test_laterals_hang_off_buses_that_have_their_phases() -> None:
    feeder = synthetic_feeder(2000, seed=3)
    above: dict[str, set[int]] = {t.windings[1].bus: set(t.windings[1].phases) for t in feeder.transformers}
    for regulator in feeder.regulators:
        above[regulator.name.split(".")[0]] = {1, 2, 3}
    for line in feeder.lines:
        above.setdefault(line.to_bus, set(line.phases))
    assert all(set(line.phases) <= above[line.from_bus] for line in feeder.lines)


def test_conductors_grow_towards_the_head() -> None:
    feeder = synthetic_feeder(4000, seed=6)
    r = {code.name: code.r_ohm_per_km[0][0] for code in feeder.line_codes}
    overhead = {line.to_bus: line for line in feeder.lines if line.line_code.startswith("oh") and not line.is_switch}
    pairs = [(overhead[line.from_bus], line) for line in overhead.values() if line.from_bus in overhead]
    same = [(a, b) for a, b in pairs if len(a.phases) == len(b.phases)]
    assert len(same) > 100
    assert all(r[a.line_code] <= r[b.line_code] for a, b in same)


def test_a_hundred_thousand_nodes_take_seconds() -> None:
    start = time.process_time()
    feeder = synthetic_feeder(100_000, seed=1)
    # 2.5 s on one core of the machine that this was written on; the bound leaves room for busy machines.
    assert time.process_time() - start < 15.0
    assert len(nodes(feeder)) == pytest.approx(100_000, abs=10)
    assert sum(t.windings[0].connection == "delta" for t in feeder.transformers) == 5


def test_names_are_parsed() -> None:
    feeder = parse_synthetic_name("synthetic-60-7-meshed")
    assert feeder is not None
    assert feeder.name == "synthetic-60-7-meshed"
    assert feeder.content_hash() == synthetic_feeder(60, seed=7, meshed=True).content_hash()
    assert parse_synthetic_name("synthetic-60") is None
    assert parse_synthetic_name("ieee13") is None


@pytest.mark.parametrize(("num_nodes", "seed"), [(19, 0), (1_000_001, 0), (50, -1)])
def test_arguments_out_of_range_are_refused(num_nodes: int, seed: int) -> None:
    with pytest.raises(FeederError, match="give 20 to 1000000 nodes"):
        synthetic_feeder(num_nodes, seed=seed)


def test_overhead_matrices_are_kerstings() -> None:
    # IEEE 13's configuration 601: 556.5 kcmil ACSR, neutral 4/0, spacing 500, phases b a c.
    phase = Wire(name="556", r_ohm_per_mile=0.1859, gmr_ft=0.0313, diameter_in=0.927, ampacity_a=730.0)
    neutral = Wire(name="4/0", r_ohm_per_mile=0.592, gmr_ft=0.00814, diameter_in=0.563, ampacity_a=340.0)
    code = overhead_line_code("601", phase, neutral, ((2.5, 28.0), (0.0, 28.0), (7.0, 28.0)), (4.0, 24.0))
    published = next(code for code in load_feeder("ieee13").line_codes if code.name == "mtx601")
    np.testing.assert_allclose(code.r_ohm_per_km, published.r_ohm_per_km, atol=6e-5 / KM_PER_MILE)
    np.testing.assert_allclose(code.x_ohm_per_km, published.x_ohm_per_km, atol=6e-5 / KM_PER_MILE)
    # IEEE's table of configuration 601: B is 6.2998 and -1.9958 microsiemens per mile.
    siemens = np.array(code.c_nf_per_km) * KM_PER_MILE * 2.0 * np.pi * 60.0 * 1e-3
    np.testing.assert_allclose(siemens[0, :2], [6.2998, -1.9958], atol=1e-3)


def test_cable_matrices_are_kerstings() -> None:
    # IEEE 13's configuration 606: 250 kcmil AA, 13 strands of #14, 6 inches apart; ohm and microsiemens per mile.
    core = Wire(name="250", r_ohm_per_mile=0.41, gmr_ft=0.0171, diameter_in=0.567, ampacity_a=260.0)
    strand = Wire(name="14", r_ohm_per_mile=14.8722, gmr_ft=0.00208, diameter_in=0.0641, ampacity_a=20.0)
    cable = Cable(name="250", core=core, diameter_in=1.29, strand=strand, num_strands=13)
    code = cable_line_code("606", cable, (0.0, 0.5, 1.0))
    r, x = (np.array(matrix) * KM_PER_MILE for matrix in (code.r_ohm_per_km, code.x_ohm_per_km))
    np.testing.assert_allclose(r[0], [0.7982, 0.3192, 0.2849], atol=1e-4)
    np.testing.assert_allclose(x[0], [0.4463, 0.0328, -0.0143], atol=1e-4)
    siemens = np.array(code.c_nf_per_km) * KM_PER_MILE * 2.0 * np.pi * 60.0 * 1e-3
    np.testing.assert_allclose(np.diag(siemens), 96.8897, rtol=4e-3)
