"""Random loads, PV, taps, capacitors and switches in one batch, and every load model, agree with OpenDSS."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import gridray
from gridray.physics.measure import branch_powers

if TYPE_CHECKING:
    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.measure import PowerFlow

REFERENCE = Path(os.environ.get("GRIDRAY_REFERENCE_DIR", Path(__file__).parents[2] / "shared" / "reference"))
NAMES = sorted(path.stem for path in (REFERENCE / "scenarios").glob("*.npz"))
TAP_STEP = 0.00625
DEAD_PU = 1e-9
"""OpenDSS leaves a dead island at the noise of its own matrix; we return zero."""


class Scenario(NamedTuple):
    """A scenario file and our solution of all its rows as one batch; expected: complex128 [E, num_nodes], V."""

    data: dict[str, np.ndarray]
    grid: CompiledFeeder
    result: PowerFlow
    expected: np.ndarray
    is_ill_conditioned: np.ndarray


@pytest.fixture(scope="module", params=NAMES)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    names = json.loads((REFERENCE / f"scenarios/{request.param}.json").read_text())
    with np.load(REFERENCE / f"scenarios/{request.param}.npz") as file:
        data = dict(file)
    master = REFERENCE / names["master"].removeprefix("shared/reference/")
    feeder = gridray.load_feeder(master, commands=(*names["commands_before_solve"], "set controlmode=off"))
    grid = gridray.compile_feeder(_with_pv(feeder, names["pv"]))
    closed = _columns(names["switches"], data["switch_closed"])
    assert set(closed) <= set(grid.switch_names)
    result = gridray.solve(
        grid,
        load_kw=_columns([load["name"] for load in names["loads"]], data["load_kw"]),
        load_kvar=_columns([load["name"] for load in names["loads"]], data["load_kvar"]),
        generator_kw=_columns([site["name"] for site in names["pv"]], data["pv_kw"]),
        generator_kvar=_columns([site["name"] for site in names["pv"]], data["pv_kvar"]),
        taps=_columns([r["transformer"] for r in names["regulators"]], 1.0 + TAP_STEP * data["reg_tap_step"]),
        capacitor_states=_columns([bank["name"] for bank in names["capacitors"]], data["cap_state"]),
        switch_closed=closed,
        tolerance=1e-9,
    )
    picked = [names["nodes"].index(node) for node in grid.node_names]
    expected = (data["v_re"] + 1j * data["v_im"])[:, picked]
    # The reference's README: sw4 open and sw8 closed feed two phases of an island through coupling only.
    is_ill = np.zeros(len(expected), dtype=bool)
    if {"sw4", "sw8"} <= set(closed):
        is_ill = (closed["sw4"] == 0.0) & (closed["sw8"] == 1.0)
    return Scenario(data, grid, result, expected, is_ill)


def _columns(names: list[str], values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names, values.T, strict=True))


def _with_pv(feeder: Feeder, sites: list[dict[str, Any]]) -> Feeder:
    """Return the feeder with the scenarios' generators: constant power within 0.5..1.5 pu."""
    for site in sites:
        feeder = feeder.with_pv(
            name=site["name"],
            bus=site["bus"],
            phases=site["phases"],
            kv=site["kv"],
            kw=1.0,
            connection=site["conn"],
            vmin_pu=0.5,
            vmax_pu=1.5,
        )
    return feeder


def _is_compared(grid: CompiledFeeder) -> np.ndarray:
    """Leave out node 610, which floats behind a delta winding."""
    return np.array([not name.startswith("610.") for name in grid.node_names])


def test_every_row_converges_or_has_a_dead_island(scenario: Scenario) -> None:
    is_dead = (np.abs(scenario.expected) < DEAD_PU * scenario.grid.node_base_v).any(axis=1)
    expected = np.where(is_dead, "dead island", "converged")
    assert scenario.result.converged.all()
    np.testing.assert_array_equal(scenario.result.status, expected)


def test_every_voltage_agrees(scenario: Scenario) -> None:
    error_pu = np.abs(scenario.result.voltage - scenario.expected) / scenario.grid.node_base_v
    error_pu = error_pu[:, _is_compared(scenario.grid)]
    assert error_pu[~scenario.is_ill_conditioned].max() < 1e-6
    assert error_pu[scenario.is_ill_conditioned].max(initial=0.0) < 5e-3


def test_dead_nodes_are_exactly_zero(scenario: Scenario) -> None:
    is_dead = np.abs(scenario.expected) < DEAD_PU * scenario.grid.node_base_v
    assert (scenario.result.voltage[is_dead] == 0.0).all()


def test_source_power_and_losses_agree(scenario: Scenario) -> None:
    rows = ~scenario.is_ill_conditioned
    p_kw, q_kvar = scenario.data["source_p_kw_q_kvar"].reshape(-1, 2, 3).sum(axis=2).T
    np.testing.assert_allclose(scenario.result.source_kva[rows], (p_kw + 1j * q_kvar)[rows], rtol=1e-5)
    losses_kw = scenario.data["losses_kw_kvar"][:, 0]
    np.testing.assert_allclose(scenario.result.losses_kva.real[rows], losses_kw[rows], rtol=1e-5)


CURVES = REFERENCE / "load_model_curves.csv"
CIRCUITS = {
    "wye": ("basekv=2.4 phases=1", "bus1=b.1 phases=1 kv=2.4"),
    "delta": ("basekv=4.16 phases=3", "bus1=b.1.2 phases=1 kv=4.16"),
}
"""Stiff sources of the curves, and where their one-branch loads hang: 100 kW + j50 kvar at 1 pu."""


@pytest.mark.skipif(not CURVES.exists(), reason=f"no '{CURVES}': set GRIDRAY_REFERENCE_DIR to the folder that has it")
@pytest.mark.parametrize("connection", ["wye", "delta"])
def test_every_load_model_follows_its_curve(tmp_path: Path, connection: str) -> None:
    curves: dict[str, dict[float, tuple[float, ...]]] = {}
    with CURVES.open() as file:
        for row in csv.DictReader(file):
            if row["conn"] == connection:
                kind = f"model={row['model']} vminpu={row['vminpu']} vmaxpu={row['vmaxpu']} {row['extra']}"
                seen = tuple(float(row[name]) for name in ("p_kw", "q_kvar", "i_amp"))
                curves.setdefault(kind, {})[float(row["v_pu"])] = seen
    assert curves
    source, place = CIRCUITS[connection]
    lines = [f"new circuit.stiff bus1=b {source} pu=1 r1=0 x1=1e-6 r0=0 x0=1e-6"]
    lines += [f"new load.l{n} {place} conn={connection} kw=100 kvar=50 {kind}" for n, kind in enumerate(curves)]
    (tmp_path / "curves.dss").write_text("\n".join(["clear", *lines, "set voltagebases=[4.16]", "calcv"]))
    grid = gridray.compile_feeder(gridray.load_feeder(tmp_path / "curves.dss"))
    v_pu = np.unique([v for curve in curves.values() for v in curve])
    result = gridray.solve(grid, source_pu=v_pu, tolerance=1e-11)
    assert result.converged.all()
    found_kva = branch_powers(grid, result.state)[grid.network.branch_item.argsort()]
    for kind, curve, power_kva in zip(curves, curves.values(), found_kva, strict=True):
        kv = v_pu * (2.4 if connection == "wye" else 4.16)
        found = np.column_stack((power_kva.real, power_kva.imag, np.abs(power_kva) / kv))
        # At its cut-off voltage a ZIP load of OpenDSS is half on, where its own iteration happened to stop.
        rows = [row for row, v in enumerate(v_pu) if v in curve and not ("zipv" in kind and v == 0.7)]
        expected = np.array([curve[v_pu[row]] for row in rows])
        np.testing.assert_allclose(found[rows], expected, rtol=1e-6, atol=1e-9, err_msg=kind)
