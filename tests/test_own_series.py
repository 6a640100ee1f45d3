"""Tasks run on the user's own series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridray.envs.registration import make_vector_env
from gridray.errors import ConfigError
from gridray.profiles.parquet import write_series
from gridray.profiles.series import TimeSeries
from gridray.tasks.base import physical_observations
from gridray.tasks.registry import make_task
from gridray.tasks.siting import INVERTER_OVERSIZE

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"feeder": "ieee13", "num_days": 5, "step_minutes": 60}
START = np.datetime64("2024-06-01T00:00:00", "s")


def file(
    path: Path, unit: str, names: tuple[str, ...], *, step_s: int = 900, num_days: int = 5, low: float = 0.0
) -> str:
    shape = (num_days * 86400 // step_s, len(names))
    values = np.random.default_rng(len(names)).uniform(low, low + 1.0, shape)
    write_series(path, TimeSeries(names=names, unit=unit, start=START, step_s=step_s, values=values))
    return str(path)


def hourly(path: Path, unit: str, names: tuple[str, ...]) -> tuple[str, np.ndarray]:
    """Write series at 15 min; return the file and its hourly means."""
    written = file(path, unit, names)
    values = np.random.default_rng(len(names)).uniform(0.0, 1.0, (480, len(names)))
    return written, values.reshape(120, 4, -1).mean(axis=1)


def test_loads_in_kw_are_what_the_feeder_draws(tmp_path: Path) -> None:
    names = make_task("volt_var", SMALL).grid.load_names
    path, expected = hourly(tmp_path / "load.parquet", "kW", names[::-1])
    task = make_task("volt_var", SMALL | {"series": {"load": path}, "load_scale": 2.0})
    drawn = task.twin.loads.series_pu * task.twin.loads.kw
    np.testing.assert_allclose(drawn, 2.0 * expected[:, ::-1], rtol=1e-5)
    assert make_task("volt_var", task.config_dict()).config == task.config


def test_columns_of_other_names_are_taken_in_turn_and_the_rest_is_generated(tmp_path: Path) -> None:
    path, expected = hourly(tmp_path / "load.parquet", "pu of peak", ("H0", "G0"))
    own, generated = (make_task("volt_var", SMALL | more) for more in ({"series": {"load": path}}, {}))
    np.testing.assert_allclose(own.twin.loads.series_pu, expected[:, np.arange(15) % 2], rtol=1e-6)
    assert own.twin.loads.series_pu.shape == generated.twin.loads.series_pu.shape
    day = {"days": [2]}
    seen = [make_vector_env("volt_var", task.config_dict()).reset(options=day)[0][0] for task in (own, generated)]
    sun = [channel.name.endswith("available") for channel in own.observation_channels]
    np.testing.assert_array_equal(seen[0][sun], seen[1][sun])
    assert (seen[0] != seen[1]).any()


def test_sun_wind_weather_and_prices_come_from_files(tmp_path: Path) -> None:
    units = {"pv": "pu of rating", "wind": "pu of rating", "temperature": "C", "price": "EUR/MWh"}
    files = {kind: hourly(tmp_path / f"{kind}.parquet", unit, (kind,)) for kind, unit in units.items()}
    series = {kind: path for kind, (path, _) in files.items()}
    ends = {"pv.": ("available", "pv"), "wind.": ("available", "wind"), "price.": ("mwh", "price")}
    ends["heat_pump."] = ("outdoor_c", "temperature")
    compared = set()
    for name in ("curtailment", "storage"):
        task = make_task(name, SMALL | {"series": series})
        observed, _ = make_vector_env(name, task.config_dict()).reset(options={"days": [3]})
        physical = physical_observations(task.observation_channels, observed)[0]
        for channel, value in zip(task.observation_channels, physical, strict=True):
            end, kind = next((end for start, end in ends.items() if channel.name.startswith(start)), ("-", ""))
            if channel.name.endswith(end):
                in_kva = INVERTER_OVERSIZE if end == "available" else 1.0
                assert value == pytest.approx(files[kind][1][72, 0] / in_kva, abs=1e-5)
                compared.add(kind)
    assert compared == set(units)


@pytest.mark.parametrize(
    ("kind", "unit", "names", "more", "message"),
    [
        ("load", "kW", ("a",), {}, "has no column '[^']+': give one for each of"),
        ("load", "MW", ("a",), {}, "is in MW: give kW or pu"),
        ("pv", "kW", ("a",), {}, "is in kW: give pu"),
        ("pv", "pu", ("a",), {"low": -1.0}, "goes down to -"),
        ("load", "pu", ("a",), {"num_days": 3}, "has 3 whole days of steps of 900 s: give num_days of at most 3"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, kind: str, unit: str, names: tuple[str, ...], more: dict[str, Any], message: str
) -> None:
    path = file(tmp_path / "own.parquet", unit, names, **more)
    with pytest.raises(ConfigError, match=message):
        make_task("volt_var", SMALL | {"series": {kind: path}})
