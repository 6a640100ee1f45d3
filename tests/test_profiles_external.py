"""Published profiles are read from what the user has installed, and what is missing is named."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pvlib
import pyarrow.parquet as pq
import pytest

from gridray.errors import ConfigError, DatasetError
from gridray.profiles.external import demandlib_series, simbench_series, tmy_pv

GREENSBORO = Path(pvlib.__file__).parent / "data" / "723170TYA.CSV"


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed: pip install {package}")


def test_typical_year_gives_a_plausible_pv_year() -> None:
    year = tmy_pv(GREENSBORO)
    assert (year.names, year.unit, year.step_s) == (("pv",), "pu of rating", 3600)
    assert year.start == np.datetime64("2023-01-01T05:00:00")
    # PVWatts gives Greensboro about 1,400 to 1,500 kWh per kW and year.
    assert year.values.sum() == pytest.approx(1450.0, rel=0.1)
    by_hour = year.values.reshape(365, 24).mean(axis=0)
    assert int(np.argmax(by_hour)) in {11, 12}
    assert by_hour[:5].max() == 0.0


def test_tilted_plane_gains_in_winter() -> None:
    flat, tilted = (tmy_pv(GREENSBORO, tilt_deg=tilt).values[:, 0] for tilt in (0.0, 45.0))
    january = slice(0, 31 * 24)
    assert tilted[january].sum() > 1.3 * flat[january].sum()


def test_file_that_is_no_typical_year_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "year.csv"
    path.write_text("\n".join(GREENSBORO.read_text(encoding="utf-8").splitlines()[:50]), encoding="utf-8")
    with pytest.raises(DatasetError, match="has 48 rows"):
        tmy_pv(path)
    path.write_text("no,weather\n1,2\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="is no TMY3 file"):
        tmy_pv(path)
    with pytest.raises(DatasetError, match="is no TMY3 file"):
        tmy_pv(tmp_path / "missing.csv")


@needs("simbench")
def test_simbench_profiles_are_the_published_ones(reference_dir: Path) -> None:
    loads, sites = simbench_series("load"), simbench_series("renewables")
    assert loads.values.shape[0] == 366 * 96
    for series, file, name in ((loads, "load_p", "H0-A"), (sites, "res_p", "PV3")):
        path = reference_dir / "profiles" / f"simbench_2016_{file}.parquet"
        expected = pq.read_table(path, columns=[name])[name].to_numpy()
        np.testing.assert_allclose(series.values[:, series.names.index(name)], expected, atol=1e-4)
    assert "H0-A" in simbench_series("load_reactive").names


@needs("demandlib")
def test_standard_load_profiles_have_the_wanted_energy_and_the_published_course(reference_dir: Path) -> None:
    year = demandlib_series(2023, mwh_per_year=2.0)
    assert year.values.shape == (365 * 96, 11)
    np.testing.assert_allclose(year.values.sum(axis=0) * 0.25, 2000.0, rtol=1e-12)
    h0 = year.values[:, year.names.index("h0")].reshape(365, 96)
    assert h0[:59].mean() > 1.2 * h0[152:243].mean()
    g1 = year.values[:, year.names.index("g1")].reshape(365, 96).mean(axis=1)
    # 1 January 2023 was a Sunday: offices rest.
    assert g1[0] < 0.3 * g1[2]
    table = pq.read_table(reference_dir / "profiles" / "bdew_slp_15min.parquet").to_pylist()
    monday = np.array([row["g1"] for row in table if (row["period"], row["weekday"]) == ("winter", 1)])
    ours = year.values[96:192, year.names.index("g1")]
    np.testing.assert_allclose(ours / ours.sum(), monday / monday.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("package", "read"), [("simbench", simbench_series), ("demandlib", lambda: demandlib_series(2023))]
)
def test_missing_package_is_named_with_the_command_that_installs_it(package: str, read: object) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ConfigError, match=f"run `pip install {package}`"):
        read()  # type: ignore[operator]


def test_table_and_energy_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="table is 'gas'"):
        simbench_series("gas")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mwh_per_year is 0"):
        demandlib_series(2023, mwh_per_year=0)
