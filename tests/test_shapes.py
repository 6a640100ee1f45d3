"""A feeder's load shapes give the loads of a day, which solves as OpenDSS's does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

import gridray
from gridray.errors import FeederError
from gridray.feeders.components import LoadShape
from gridray.feeders.library import load_feeder
from gridray.profiles.shapes import load_series

if TYPE_CHECKING:
    from pathlib import Path


def test_low_voltage_day_follows_reference_minute_by_minute(reference_dir: Path) -> None:
    feeder = load_feeder(reference_dir / "dss/LVTestCase/Master.dss")
    grid = gridray.compile_feeder(feeder)
    day = pq.read_table(reference_dir / "timeseries/eulv_day_1min.parquet").to_pandas()
    assert len(day) == 1440
    kw, kvar = load_series(feeder, day["minute"].to_numpy() / 60.0, kind="yearly")
    result = gridray.solve(grid, load_kw=kw, load_kvar=kvar)
    assert result.converged.all()
    expected = day[["p_a_kw", "p_b_kw", "p_c_kw"]].sum(axis=1).to_numpy()
    np.testing.assert_allclose(result.source_kva.real, np.abs(expected), rtol=1e-5)
    columns = [name for name in day.columns if name.startswith("v_volt.")]
    picked = [grid.node_names.index(name.removeprefix("v_volt.")) for name in columns]
    assert len(columns) > 50
    error = np.abs(np.abs(result.voltage[:, picked]) - day[columns].to_numpy()) / grid.node_base_v[picked]
    assert error.max() < 1e-5


def test_hours_repeat_and_loads_without_shape_stay_nominal() -> None:
    feeder = load_feeder("ieee13")
    first, second, *rest = feeder.loads
    shape = LoadShape(name="s", interval_h=1.0, p_mult=(0.5, 1.0), q_mult=(0.25, 2.0))
    actual = LoadShape(name="a", interval_h=1.0, p_mult=(7.0, 8.0), is_actual=True)
    loads = (replace(first, daily="s"), replace(second, daily="a"), *rest)
    feeder = replace(feeder, loads=loads, shapes=(shape, actual))
    kw, kvar = load_series(feeder, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(kw[:, 0], first.kw * np.array([0.5, 1.0, 0.5]))
    np.testing.assert_allclose(kvar[:, 0], first.kvar * np.array([0.25, 2.0, 0.25]))
    np.testing.assert_allclose(kw[:, 1], [7.0, 8.0, 7.0])
    np.testing.assert_allclose(kvar[:, 1], second.kvar)
    np.testing.assert_allclose(kw[:, 2:], [[load.kw for load in rest]] * 3)


def test_unknown_shape_is_named() -> None:
    feeder = load_feeder("ieee13")
    feeder = replace(feeder, loads=(replace(feeder.loads[0], daily="gone"), *feeder.loads[1:]))
    with pytest.raises(FeederError, match="shape 'gone'"):
        load_series(feeder, np.arange(3.0))


@pytest.mark.parametrize(("status", "expected_kw"), [("variable", 100.0), ("fixed", 100.0), ("exempt", 50.0)])
def test_status_says_what_a_load_follows(tmp_path: Path, status: str, expected_kw: float) -> None:
    # Set loadmult=2: OpenDSS gives 100, 100 and 50 kW at the shape's 0.5.
    (tmp_path / "master.dss").write_text(
        "new circuit.c basekv=12.47\n"
        "new loadshape.half npts=2 interval=1 mult=(0.5 0.5)\n"
        f"new load.a bus1=sourcebus kv=12.47 kw=100 status={status} daily=half\n"
        "set loadmult=2\n"
        "set voltagebases=[12.47]\n"
    )
    kw, _ = load_series(load_feeder(tmp_path / "master.dss"), np.array([1.0]))
    assert kw[0, 0] == pytest.approx(expected_kw)
