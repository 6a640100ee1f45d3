"""Published series from packages that users install themselves: simbench, demandlib, and pvlib's typical years.

Only the packages' data files are read: none of their code runs, and their licences stay with them.
"""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pvlib import iotools
from pyarrow import csv

from gridray.errors import ConfigError, DatasetError
from gridray.profiles.processes import Clock
from gridray.profiles.pv import plane_pu, sun_position
from gridray.profiles.series import TimeSeries

if TYPE_CHECKING:
    import pyarrow as pa

SIMBENCH_TABLES = {
    "load": ("LoadProfile.csv", "_pload"),
    "load_reactive": ("LoadProfile.csv", "_qload"),
    "renewables": ("RESProfile.csv", ""),
}
SUMMER = ((5, 15), (9, 14))
WINTER = ((3, 20), (11, 1))
"""BDEW's seasons: summer from and to, winter to and from, as (month, day); the rest is transition."""


def simbench_series(table: Literal["load", "load_reactive", "renewables"] = "load") -> TimeSeries:
    """Return all simbench profiles of 2016 of one table, 15 min, in pu of each one's own peak.

    The data are under ODbL 1.0: attribute them, and share what you derive alike. Times are as simbench states them.

    Args:
        table: loads' active or reactive power, or PV, wind, biomass and hydro.

    Raises:
        ConfigError: there is no such table, or simbench is not installed.
    """
    if table not in SIMBENCH_TABLES:
        raise ConfigError(f"table is '{table}': give one of {', '.join(SIMBENCH_TABLES)}.")
    file, suffix = SIMBENCH_TABLES[table]
    path = _package_folder("simbench") / "networks" / "1-complete_data-mixed-all-1-sw" / file
    rows = _read_csv(path, delimiter=";")
    # Names in lower case are whole grids, sums of the others.
    columns = [name for name in rows.column_names if name.endswith(suffix) and not name[0].islower()]
    values = np.column_stack([rows[name].to_numpy() for name in columns]).astype(np.float32)
    names = tuple(name.removesuffix(suffix) for name in columns)
    start = np.datetime64("2016-01-01T00:00:00", "s")
    return TimeSeries(names=names, unit="pu of peak", start=start, step_s=900, values=values)


def demandlib_series(year: int, *, mwh_per_year: float = 1.0) -> TimeSeries:
    """Return the BDEW standard load profiles of a year, 15 min, kW, h0 with its yearly course.

    Args:
        year: calendar year, German local time without daylight saving; holidays are not told apart.
        mwh_per_year: energy that each profile is scaled to.

    Raises:
        ConfigError: the energy is not positive, or demandlib is not installed.
    """
    if not mwh_per_year > 0.0:
        raise ConfigError(f"mwh_per_year is {mwh_per_year}: give a number above 0.")
    rows = _read_csv(_package_folder("demandlib") / "bdew" / "bdew_data" / "selp_series.csv")
    names = tuple(rows.column_names[3:])
    weeks = np.column_stack([rows[name].to_numpy() for name in names]).reshape(-1, 96, len(names))
    days_at = {
        key: index // 96
        for index, key in enumerate(zip(*(rows[name].to_pylist() for name in ("period", "weekday")), strict=True))
    }
    clock = Clock(num_days=(date(year + 1, 1, 1) - date(year, 1, 1)).days, start=f"{year}-01-01")
    days = [date(year, 1, 1).fromordinal(date(year, 1, 1).toordinal() + index) for index in range(clock.num_days)]
    kw = weeks[[days_at[_season(day), day.isoweekday()] for day in days]]
    # BDEW's polynomial of the day of the year, which only household profiles have.
    t = clock.day_of_year + 1.0
    kw[:, :, names.index("h0")] *= (-3.92e-10 * t**4 + 3.2e-7 * t**3 - 7.02e-5 * t**2 + 2.1e-3 * t + 1.24)[:, None]
    values = kw.reshape(clock.num_steps, len(names))
    values = values * (mwh_per_year * 1000.0 / (0.25 * values.sum(axis=0)))
    start = np.datetime64(clock.start, "s")
    return TimeSeries(names=names, unit="kW", start=start, step_s=900, values=values)


def tmy_pv(path: str | Path, *, tilt_deg: float = 25.0, azimuth_deg: float = 180.0, year: int = 2023) -> TimeSeries:
    """Return hourly PV power of a typical year in NREL's TMY3 format, pu of rating.

    Args:
        path: TMY3 file, as pvlib's own data/723170TYA.CSV (Greensboro, NC).
        tilt_deg: of the plane.
        azimuth_deg: of the plane, clockwise from north.
        year: that the months are put into; typical months come from several.

    Raises:
        DatasetError: the file is missing or not a whole TMY3 year.
    """
    try:
        table, station = iotools.read_tmy3(path, map_variables=True)
        ghi, dni, dhi = (table[name].to_numpy(dtype=np.float64) for name in ("ghi", "dni", "dhi"))
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DatasetError(f"'{path}' is no TMY3 file ({error}): give one from NREL's NSRDB.") from error
    if len(ghi) != 8760:
        raise DatasetError(f"'{path}' has {len(ghi)} rows: give a whole TMY3 year of 8760.")
    start_s = np.datetime64(f"{year}-01-01", "s").astype(np.int64) - round(3600.0 * station["TZ"])
    # Rows are means of the hour before: the sun stands where it is in the middle.
    middle_s = start_s + 3600.0 * (np.arange(8760) + 0.5)
    sun = sun_position(middle_s, station["latitude"], station["longitude"])
    power = plane_pu(ghi, dni, dhi, sun, (tilt_deg, azimuth_deg))
    start = start_s.astype("datetime64[s]")
    return TimeSeries(names=("pv",), unit="pu of rating", start=start, step_s=3600, values=power[:, None])


def _season(day: date) -> str:
    month_day = (day.month, day.day)
    if SUMMER[0] <= month_day <= SUMMER[1]:
        return "summer"
    return "winter" if month_day <= WINTER[0] or month_day >= WINTER[1] else "transition"


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"The package '{package}' is not installed: run `pip install {package}`.")
    return Path(spec.origin).parent


def _read_csv(path: Path, delimiter: str = ",") -> pa.Table:
    if not path.is_file():
        raise ConfigError(f"The installed package has no '{path}': install simbench 1.6 or demandlib 0.2.")
    return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter))
