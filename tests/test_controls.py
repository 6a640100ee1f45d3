"""Regulators and capacitors left free end where OpenDSS's do, in a snapshot and hour by hour."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

import gridray
from gridray.physics.controls import TAP_STEP, settle
from gridray.physics.powerflow import solve

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState

SNAPSHOTS = (
    "ieee13_free",
    "ieee34mod1_free",
    "ieee34mod2_free",
    "ieee37_free",
    "ieee123_free",
    "ieee123_free_master",
    "ieee8500_free",
    "ieee8500u_free",
)
# The day starts from the snapshot at full load, as the reference's did.
DAYS = {
    "ieee13": "ieee13_free",
    "ieee34mod2": "ieee34mod2_free",
    "ieee123": "ieee123_free",
    "ieee8500": "ieee8500_free",
}


def _read(reference_dir: Path, case: str) -> tuple[dict, Feeder]:
    settings = json.loads((reference_dir / f"solutions/{case}.json").read_text())
    master = reference_dir / "dss" / settings["master"]
    return settings, gridray.load_feeder(master, commands=tuple(settings["commands_before_solve"]))


def _steps(grid: CompiledFeeder, state: GridState) -> dict[str, int]:
    steps = np.rint((state.taps[:, 0] - 1.0) / TAP_STEP).astype(int)
    return dict(zip(grid.tap_names, steps.tolist(), strict=True))


def _banks(grid: CompiledFeeder, state: GridState) -> dict[str, int]:
    return dict(zip(grid.capacitor_names, state.capacitor_states[:, 0].astype(int).tolist(), strict=True))


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_free_controls_end_at_reference(reference_dir: Path, case: str) -> None:
    settings, feeder = _read(reference_dir, case)
    grid = gridray.compile_feeder(feeder)
    state = settle(grid, solve(grid, tolerance=1e-9).state, tolerance=1e-9)
    assert state.converged.all()
    assert _steps(grid, state) == {r["transformer"]: r["step"] for r in settings["regulators"].values()}
    closed = {name: sum(bank["states"]) for name, bank in settings["capacitors"].items()}
    assert _banks(grid, state) == closed


@pytest.mark.parametrize("name", DAYS)
def test_day_follows_reference_hour_by_hour(reference_dir: Path, name: str) -> None:
    _, feeder = _read(reference_dir, DAYS[name])
    grid = gridray.compile_feeder(feeder)
    transformer = {control.name: control.transformer for control in feeder.regulators}
    state = settle(grid, solve(grid, tolerance=1e-9).state, tolerance=1e-9)
    with (reference_dir / f"timeseries/{name}_day.csv").open() as file:
        hours = list(csv.DictReader(file))
    assert len(hours) == 24
    for hour in hours:
        share = float(hour["mult"])
        kw, kvar = np.array([grid.load_kw, grid.load_kvar])[:, :, None] * share
        state = settle(grid, state._replace(items_kw=kw, items_kvar=kvar), tolerance=1e-9)
        taps = {key.removeprefix("tap."): int(value) for key, value in hour.items() if key.startswith("tap.")}
        taps = {transformer.get(key, key): step for key, step in taps.items()}
        banks = {key.removeprefix("cap."): int(value) for key, value in hour.items() if key.startswith("cap.")}
        assert (_steps(grid, state), _banks(grid, state)) == (taps, banks), f"hour {hour['hour']}"


def test_controls_that_never_rest_are_flagged(tmp_path: Path) -> None:
    (tmp_path / "m.dss").write_text(
        "new circuit.c basekv=12.47 mvasc3=30 mvasc1=25\n"
        "new line.a bus1=sourcebus bus2=b r1=.3 x1=.4 r0=.5 x0=1.2 c1=0 c0=0\n"
        "new load.d bus1=b kv=12.47 kw=3000 kvar=2000\nnew capacitor.c bus1=b kv=12.47 kvar=3000\n"
        "new capcontrol.c capacitor=c element=line.a terminal=2 type=voltage ptratio=60\n"
        "~ onsetting=117 offsetting=117.2\n"
    )
    grid = gridray.compile_feeder(gridray.load_feeder(tmp_path / "m.dss"))
    result = solve(grid, capacitor_states=[[0.0], [1.0]], source_pu=[1.0, 0.8], controls="free")
    assert result.status.tolist() == ["controls hunt", "converged"]
    assert result.converged.tolist() == [False, True]
    given_up = solve(grid, source_pu=0.8, controls="free", max_iterations=1)
    assert given_up.status.tolist() == ["not converged"]


def test_environments_settle_as_if_alone(reference_dir: Path) -> None:
    _, feeder = _read(reference_dir, "ieee123_free_master")
    grid = gridray.compile_feeder(feeder)
    share = np.linspace(0.3, 1.2, 7)[:, None]
    together = settle(grid, solve(grid, load_kw=share * grid.load_kw, load_kvar=share * grid.load_kvar).state)
    assert len(np.unique(together.taps, axis=1).T) > 1
    for row in (0, 3, 6):
        alone = settle(
            grid, solve(grid, load_kw=share[row] * grid.load_kw, load_kvar=share[row] * grid.load_kvar).state
        )
        np.testing.assert_array_equal(alone.taps[:, 0], together.taps[:, row])
        np.testing.assert_array_equal(alone.v[:, :, 0], together.v[:, :, row])
