"""The power flow agrees with OpenDSS and keeps the laws of circuits."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.errors import ConfigError
from gridray.feeders.components import Load
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import TYPICAL_LOAD, CompiledFeeder, compile_feeder
from gridray.physics.measure import node_voltages, power_balance
from gridray.physics.powerflow import solve

if TYPE_CHECKING:
    from pathlib import Path

CASES = [("ieee13", "ieee13"), ("ieee34", "ieee34mod2"), ("ieee123", "ieee123")]


@pytest.fixture(scope="module", params=["ieee13", "ieee34", "ieee123"])
def grid(request: pytest.FixtureRequest) -> CompiledFeeder:
    return compile_feeder(load_feeder(request.param))


def _frozen_taps(grid: CompiledFeeder, case: dict) -> np.ndarray:
    by_transformer = {r["transformer"]: r["tap_pu"] for r in case["regulators"].values()}
    return np.array([by_transformer[name] for name in grid.tap_names])


@pytest.mark.parametrize(("feeder", "case"), CASES)
def test_frozen_case_agrees_with_reference(reference_dir: Path, feeder: str, case: str) -> None:
    grid = compile_feeder(load_feeder(feeder))
    solution = json.loads((reference_dir / f"solutions/{case}_frozen.json").read_text())
    state = solve(grid, taps=_frozen_taps(grid, solution), tolerance=1e-8).state
    assert state.converged.all()
    v = dict(zip(grid.node_names, node_voltages(grid, state)[:, 0] * grid.node_base_v, strict=True))
    with (reference_dir / f"solutions/{case}_frozen.nodes.csv").open() as file:
        rows = {row["node"]: row for row in csv.DictReader(file)}
    # The reference model's open switches end at dummy buses; ours has none. Node 610 floats: line to line below.
    rows = {name: row for name, row in rows.items() if not name.split(".")[0].endswith("_open")}
    assert set(rows) == set(v)
    for name, row in rows.items():
        if feeder == "ieee123" and name.startswith("610."):
            continue
        expected = complex(float(row["v_re"]), float(row["v_im"]))
        base_v = float(row["kv_base_ln"]) * 1e3
        assert abs(v[name] - expected) / base_v < 1e-6, name
        assert grid.node_base_v[grid.node_names.index(name)] == pytest.approx(base_v, rel=1e-6), name
    balance = power_balance(grid, state)
    assert balance.source[0].real == pytest.approx(solution["source"]["p_kw"], rel=1e-5)
    assert balance.source[0].imag == pytest.approx(solution["source"]["q_kvar"], rel=1e-5)
    assert balance.losses[0].real == pytest.approx(solution["losses_kw"], rel=1e-4)


def test_floating_winding_agrees_line_to_line(reference_dir: Path) -> None:
    grid = compile_feeder(load_feeder("ieee123"))
    solution = json.loads((reference_dir / "solutions/ieee123_frozen.json").read_text())
    state = solve(grid, taps=_frozen_taps(grid, solution), tolerance=1e-8).state
    v = dict(zip(grid.node_names, node_voltages(grid, state)[:, 0] * grid.node_base_v, strict=True))
    with (reference_dir / "solutions/ieee123_frozen.nodes.csv").open() as file:
        expected = {r["node"]: complex(float(r["v_re"]), float(r["v_im"])) for r in csv.DictReader(file)}
    for a, b in (("610.1", "610.2"), ("610.2", "610.3")):
        assert abs((v[a] - v[b]) - (expected[a] - expected[b])) / 480.0 < 1e-6


@pytest.mark.parametrize(
    ("feeder", "case"), [("ieee13", "ieee13_free"), ("ieee34", "ieee34mod2_free"), ("ieee123", "ieee123_free")]
)
def test_free_controls_end_at_reference_taps(reference_dir: Path, feeder: str, case: str) -> None:
    solution = json.loads((reference_dir / f"solutions/{case}.json").read_text())
    published = load_feeder(feeder)
    settings = solution["regulators"]
    regulators = tuple(
        replace(control, delay_s=settings[control.name]["delay"], max_tap_change=settings[control.name]["maxtapchange"])
        for control in published.regulators
    )
    grid = compile_feeder(replace(published, regulators=regulators))
    result = solve(grid, taps=np.ones(len(grid.tap_names)), controls="free")
    assert result.converged.all()
    steps = np.rint((result.taps[0] - 1.0) / 0.00625)
    expected = np.rint((_frozen_taps(grid, solution) - 1.0) / 0.00625)
    np.testing.assert_array_equal(steps, expected)


@pytest.mark.parametrize(("feeder", "case"), CASES)
def test_random_loads_pv_taps_and_capacitors_agree_with_reference(reference_dir: Path, feeder: str, case: str) -> None:
    names = json.loads((reference_dir / f"scenarios/{case}.json").read_text())
    data = np.load(reference_dir / f"scenarios/{case}.npz")
    published = load_feeder(feeder)
    grid = compile_feeder(replace(published, loads=(*published.loads, *(_pv(site) for site in names["pv"]))))
    rows = np.flatnonzero(data["family"] <= 2)
    assert len(rows) >= 12
    loads = [item["name"] for item in names["loads"]]
    order = [loads.index(load.name) for load in published.loads]
    regulators = [item["transformer"] for item in names["regulators"]]
    banks = [item["name"] for item in names["capacitors"]]
    state = solve(
        grid,
        load_kw=np.hstack((data["load_kw"][:, order], -data["pv_kw"]))[rows],
        load_kvar=np.hstack((data["load_kvar"][:, order], -data["pv_kvar"]))[rows],
        taps=1.0 + 0.00625 * data["reg_tap_step"][rows][:, [regulators.index(name) for name in grid.tap_names]],
        capacitor_states=data["cap_state"][rows][:, [banks.index(name) for name in grid.capacitor_names]],
        tolerance=1e-8,
    ).state
    assert state.converged.all()
    seen = node_voltages(grid, state).T * grid.node_base_v
    is_compared = np.array([not name.startswith("610.") for name in grid.node_names])
    picked = [names["nodes"].index(name) for name in grid.node_names]
    expected = (data["v_re"] + 1j * data["v_im"])[rows][:, picked]
    assert (np.abs(seen - expected) / grid.node_base_v)[:, is_compared].max() < 1e-6


def _pv(site: dict) -> Load:
    """Return the scenario's generator as a load of negative power: constant within 0.5..1.5 pu, wye or delta."""
    bus, *phases = site["bus"].split(".")
    return Load(
        name=site["name"],
        bus=bus,
        phases=tuple(int(p) for p in phases) or (1, 2, 3),
        connection=site["conn"],
        model=1,
        kv=site["kv"],
        kw=0.0,
        kvar=0.0,
        vmin_pu=0.5,
        vmax_pu=1.5,
    )


def test_row_of_a_batch_equals_the_environment_alone(grid: CompiledFeeder) -> None:
    rng = np.random.default_rng(0)
    kw = grid.load_kw * rng.uniform(0.0, 1.4, (21, len(grid.load_kw)))
    taps = 1.0 + 0.00625 * rng.integers(-10, 11, (21, len(grid.tap_names)))
    together = solve(grid, load_kw=kw, taps=taps).state
    for row in (0, 15, 16, 20):
        alone = solve(grid, load_kw=kw[row], taps=taps[row]).state
        np.testing.assert_array_equal(alone.v[:, :, 0], together.v[:, :, row])
        assert alone.iterations[0] == together.iterations[row]


def test_permuting_environments_permutes_results(grid: CompiledFeeder) -> None:
    rng = np.random.default_rng(1)
    kw = grid.load_kw * rng.uniform(0.0, 1.4, (20, len(grid.load_kw)))
    order = rng.permutation(20)
    np.testing.assert_array_equal(solve(grid, load_kw=kw[order]).state.v, solve(grid, load_kw=kw).state.v[:, :, order])


def test_lossless_bookkeeping_without_loads(grid: CompiledFeeder) -> None:
    state = solve(grid, load_kw=0.0 * grid.load_kw, load_kvar=0.0 * grid.load_kvar, tolerance=1e-8).state
    balance = power_balance(grid, state)
    assert abs(balance.items[0]) < 1e-9
    assert balance.source[0].real == pytest.approx(balance.losses[0].real, abs=1e-6)
    assert balance.losses[0].real >= 0.0


def test_given_up_environment_is_reported_beside_one_that_converged() -> None:
    grid = compile_feeder(load_feeder("ieee13"))
    # The start is the solution at typical load; elsewhere one iteration is too few.
    scale = np.array([[TYPICAL_LOAD], [0.5]])
    result = solve(grid, load_kw=scale * grid.load_kw, load_kvar=scale * grid.load_kvar, max_iterations=1)
    assert result.converged.tolist() == [True, False]
    assert result.status.tolist() == ["converged", "not converged"]
    assert solve(grid).converged.all()


def test_wrong_shape_and_nan_are_refused_by_name(grid: CompiledFeeder) -> None:
    with pytest.raises(ConfigError, match=r"taps has shape \(99,\)"):
        solve(grid, taps=np.ones(99))
    kw = grid.load_kw.copy()
    kw[2] = np.nan
    with pytest.raises(ConfigError, match=r"load_kw\[0, 2\] is nan"):
        solve(grid, load_kw=kw)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"taps": [9.0, 6.0, 9.0]}, "not a number of steps"),
        ({"capacitor_states": [2.5, 1.0]}, "capacitor_states has 2.5"),
        ({"switch_closed": [0.5]}, "switch_closed has 0.5"),
        ({"source_pu": 0.0}, "source_pu has 0"),
        ({"controls": "off"}, "controls is 'off'"),
        ({"load_kw": {"reg7": 1.0}}, "names 'reg7'"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"load_kw": {"671": "abc"}}, "give a number"),
        ({"load_kw": {"671": [1.0, 2.0], "645": [1.0, 2.0, 3.0]}}, "give both the same"),
        ({"load_kw": {"671": [[1.0, 2.0]]}}, "shape"),
        ({"source_pu": [[1.0, 1.0]]}, r"source_pu has shape \(1, 2\)"),
        ({"load_kw": {"671": 1.0 + 2.0j}}, r"load_kw\['671'\] is \(1\+2j\)"),
        ({"load_kw": np.full(15, 1.0 + 2.0j)}, "it is complex"),
    ],
)
def test_what_no_device_can_do_is_refused(given: dict[str, object], said: str) -> None:
    grid = compile_feeder(load_feeder("ieee13"))
    with pytest.raises(ConfigError, match=said):
        solve(grid, **given)


def test_names_are_taken_in_any_case() -> None:
    feeder = load_feeder("IEEE13")
    pv = feeder.with_pv(name="Roof", bus="645.2", phases=1, kv=2.4, kw=100.0)
    grid = compile_feeder(pv)
    given = {"load_kw": {"675A": 300.0}, "generator_kw": {"ROOF": 50.0}, "taps": {"Reg2": 1.05}}
    small = {"load_kw": {"675a": 300.0}, "generator_kw": {"Roof": 50.0}, "taps": {"reg2": 1.05}}
    np.testing.assert_array_equal(solve(grid, **given).voltage, solve(grid, **small).voltage)
    assert solve(grid, **small).taps[0, grid.tap_names.index("reg2")] == 1.05
    assert solve(grid, capacitor_states={"CAP1": 0}).capacitor_states[0, grid.capacitor_names.index("cap1")] == 0.0
