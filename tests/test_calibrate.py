"""Calibration: a twin that was corrupted on purpose is found again from its meters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.cli import main
from gridray.datasets.calibrate import CalibrateConfig, calibrate
from gridray.datasets.candidates import Candidates
from gridray.datasets.historian import import_historian
from gridray.datasets.replay import replayed_state, voltage_errors
from gridray.errors import ConfigError, DatasetError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import power_balance, voltage_magnitudes
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder

NUM_MOMENTS = 30


def measured(feeder: Feeder, seed: int, noise_pu: float) -> dict[str, NDArray[np.float64]]:
    """Return what meters of a feeder see while its loads and taps move: true powers and noisy voltages."""
    rng = np.random.default_rng(seed)
    grid = compile_feeder(feeder)
    values = {}
    common = rng.uniform(0.4, 1.0, NUM_MOMENTS)
    for load, kw, kvar in zip(grid.load_names, grid.load_kw, grid.load_kvar, strict=True):
        own = common * rng.lognormal(0.0, 0.3, NUM_MOMENTS)
        values |= {f"load.{load}.kw": kw * own, f"load.{load}.kvar": kvar * own}
    for name, tap in zip(grid.tap_names, grid.nominal_taps, strict=True):
        steps = np.rint((tap - 1.0) / 0.00625)
        values[f"regulator.{name}.tap"] = steps + rng.integers(-2, 3, NUM_MOMENTS)
    for name in grid.capacitor_names:
        values[f"capacitor.{name}.state"] = rng.integers(0, 2, NUM_MOMENTS).astype(np.float64)
    state = replayed_state(feeder, grid, values)
    assert state.converged.all()
    magnitude = voltage_magnitudes(grid, state)
    for node, row in zip(grid.node_names, magnitude, strict=True):
        values[f"vmag_pu.{node}"] = row + rng.normal(0.0, noise_pu, NUM_MOMENTS)
    source = power_balance(grid, state).source
    return values | {"feeder.p_kw": source.real, "feeder.q_kvar": source.imag}


def corrupted(feeder: Feeder, phases: dict[str, int], scales: dict[str, float], impedance: dict[str, float]) -> Feeder:
    """Return a feeder model with wrong labels and impedances; the factors of loads go into the measurements."""
    loads = tuple(replace(load, phases=(phases[load.name],)) if load.name in phases else load for load in feeder.loads)
    codes = tuple(
        replace(
            code,
            r_ohm_per_km=tuple(tuple(v * impedance.get(code.name, 1.0) for v in row) for row in code.r_ohm_per_km),
            x_ohm_per_km=tuple(tuple(v * impedance.get(code.name, 1.0) for v in row) for row in code.x_ohm_per_km),
        )
        for code in feeder.line_codes
    )
    assert set(scales) <= {load.name for load in loads}
    return replace(feeder, loads=loads, line_codes=codes)


def test_corrupted_twin_is_recovered() -> None:
    truth = load_feeder("ieee13")
    values = measured(truth, seed=1, noise_pu=2e-4)
    # Loads 675a and 675c swapped, 634a on phase 2; two customers' allocation wrong; two codes with wrong impedances;
    # the meters of phases 1 and 2 at bus 671 swapped.
    scales = {"671": 1.25, "675b": 0.8, "645": 0.8}
    wrong = corrupted(truth, {"675a": 3, "675c": 1, "634a": 2}, scales, {"mtx601": 0.85, "mtx602": 1.2})
    for name, factor in scales.items():
        for quantity in ("kw", "kvar"):
            values[f"load.{name}.{quantity}"] = values[f"load.{name}.{quantity}"] / factor
    values["vmag_pu.671.1"], values["vmag_pu.671.2"] = values["vmag_pu.671.2"], values["vmag_pu.671.1"]
    fixed, found = calibrate(wrong, values, CalibrateConfig(num_samples=30, meter_std_pu=2e-4, power_std=1e-3))
    assert found.load_phases == {"675a": (3, 1), "675c": (1, 3), "634a": (2, 1)}
    assert found.meter_phases == {"671.1": "671.2", "671.2": "671.1"}
    assert found.impedance_scales["mtx601"] == pytest.approx(1.0 / 0.85, rel=0.05)
    assert found.impedance_scales["mtx602"] == pytest.approx(1.0 / 1.2, rel=0.05)
    for name in ("671", "675a", "675b", "675c", "645", "634a", "611", "652"):
        assert found.load_scales[name] == pytest.approx(scales.get(name, 1.0), rel=0.06), name
    assert found.rms_before_pu > 0.01
    assert found.rms_after_pu < 3e-4
    by_name = {load.name: load for load in fixed.loads}
    assert all(by_name[load.name].phases == load.phases for load in truth.loads)


def test_right_model_is_left_as_it_is() -> None:
    truth = load_feeder("ieee34")
    fixed, found = calibrate(truth, measured(truth, seed=2, noise_pu=0.0), CalibrateConfig(num_samples=8))
    assert not found.load_phases
    assert not found.meter_phases
    assert found.rms_before_pu < 1e-6
    np.testing.assert_allclose(list(found.load_scales.values()), 1.0, atol=1e-3)
    np.testing.assert_allclose(list(found.impedance_scales.values()), 1.0, atol=1e-3)
    assert [load.phases for load in fixed.loads] == [load.phases for load in truth.loads]


def test_batch_of_candidates_equals_feeders_of_their_own() -> None:
    truth = load_feeder("ieee13")
    values = measured(truth, seed=3, noise_pu=0.0)
    candidates = Candidates(truth, values)
    place = [load.name for load in truth.loads].index("634a")
    labels = np.tile(candidates.first_labels, (2, 1))
    labels[1, place] = 3
    answer = candidates.solve(labels, np.ones((2, len(truth.loads))))
    moved = corrupted(truth, {"634a": 3}, {}, {})
    for index, feeder in enumerate((truth, moved)):
        grid = compile_feeder(feeder)
        expected = voltage_magnitudes(grid, replayed_state(feeder, grid, values))
        rows = [candidates.grid.node_names.index(node) for node in grid.node_names]
        np.testing.assert_allclose(answer.vmag_pu[index, rows], expected, atol=1e-6)


def test_voltage_error_is_told_by_bus_and_phase() -> None:
    truth = load_feeder("ieee13")
    grid = compile_feeder(truth)
    model = np.ones((grid.num_nodes, 4))
    seen = {"vmag_pu.671.1": np.array([0.99, 1.01, np.nan, 0.99]), "vmag_pu.671.2": np.full(4, np.nan)}
    [error] = voltage_errors(grid, model, seen)
    assert (error.bus, error.phase, error.num_samples) == ("671", "1", 3)
    assert error.bias_pu == pytest.approx(0.01 / 3.0)
    assert error.rms_pu == pytest.approx(0.01)
    assert error.max_pu == pytest.approx(0.01)


def test_what_cannot_be_calibrated_is_refused() -> None:
    truth = load_feeder("ieee13")
    values = measured(truth, seed=1, noise_pu=0.0)
    without = {name: row for name, row in values.items() if not name.startswith("vmag_pu.")}
    with pytest.raises(DatasetError, match="No voltage was measured"):
        calibrate(truth, without, CalibrateConfig())
    with pytest.raises(DatasetError, match=r"needs the points load\.671\.kw"):
        calibrate(truth, {name: row for name, row in values.items() if "671" not in name}, CalibrateConfig())
    with pytest.raises(DatasetError, match="At no moment"):
        calibrate(truth, values | {"load.671.kw": np.full(NUM_MOMENTS, np.nan)}, CalibrateConfig())
    with pytest.raises(ConfigError, match="num_samples is 0"):
        CalibrateConfig(num_samples=0)


def test_command_writes_a_feeder_that_a_task_takes(tmp_path: Path) -> None:
    mapping = Path(__file__).parents[1] / "examples" / "mapping.yaml"
    dataset, _ = import_historian(mapping, tmp_path / "data")
    with pytest.raises(SystemExit) as left:
        main(["calibrate", str(dataset.path), "--samples", "4", "--out", str(tmp_path / "found.json")])
    assert left.value.code == 0
    facts = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    task = make_task(dataset.card.task, dataset.card.task_config | {"feeder": str(tmp_path / "feeder.yaml")})
    assert task.feeder.with_generators(()).content_hash() == facts["feeder_hash"]
    published = {load.name: load.kw for load in load_feeder("ieee13").loads}
    scaled = {load.name: load.kw / published[load.name] for load in task.feeder.loads}
    assert scaled == pytest.approx(facts["load_scales"])
    assert max(abs(scale - 1.0) for scale in scaled.values()) > 0.01
