"""Series taken together are as published: houses by the minute, coincidence, sites, seconds of sun, EV sessions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_profiles_statistics import GERMANY, YEAR, statistics

from gridray.profiles.business import COMMERCIAL, business_pu
from gridray.profiles.ev import KNOTS_H, EvConfig, EvSessions, Place, ev_sessions
from gridray.profiles.households import household_kw
from gridray.profiles.price import price_eur_per_mwh
from gridray.profiles.processes import Clock
from gridray.profiles.pv import pv_pu
from gridray.profiles.wind import wind_pu

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def published(reference_dir: Path) -> dict[str, Any]:
    path = reference_dir / "profiles" / "statistics.json"
    if not path.is_file():
        pytest.skip(f"no statistics of published profiles at '{path}'")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def houses() -> NDArray[np.float32]:
    """A winter weekday of 400 houses by the minute, kW, [1440, 400], as the European low voltage feeder's."""
    return household_kw(Clock(num_days=1, step_s=60, start="2024-02-06"), 400, np.random.default_rng(1))


@pytest.fixture(scope="module")
def home_sessions() -> EvSessions:
    return ev_sessions(Clock(num_days=364), 2000, np.random.default_rng(8))


@pytest.fixture(scope="module")
def sun_by_the_second() -> NDArray[np.float32]:
    """Ten days in May from 6:00 to 18:00, [10, 43200]."""
    series = pv_pu(Clock(num_days=10, step_s=1, start="2024-05-01"), 1, np.random.default_rng(2))
    return series[:, 0].reshape(10, 86400)[:, 6 * 3600 : 18 * 3600]


def mean_correlation(series: NDArray[Any]) -> float:
    return float(np.corrcoef(series.T)[np.triu_indices(series.shape[1], 1)].mean())


def mean_between(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.corrcoef(one.T, other.T)[: one.shape[1], one.shape[1] :].mean())


@pytest.mark.parametrize(
    ("file", "column", "name"),
    [("simbench_2016_load_p", "H0-B", "simbench.H0-B"), ("simbench_2016_res_p", "PV3", "simbench.PV3")],
)
def test_statistics_are_defined_as_the_published_ones(
    reference_dir: Path, published: dict[str, Any], file: str, column: str, name: str
) -> None:
    values = pq.read_table(reference_dir / "profiles" / f"{file}.parquet", columns=[column])[column].to_numpy()
    ours = statistics(values, 900, "2016-01-01")
    for key, value in ours.items():
        assert value == pytest.approx(published[name][key], rel=0.02, abs=0.002), key


# Medians of single houses by the minute: the reference is one day of 100 houses, whose own 10 % and 90 % quantiles lie
# at about 0.7 and 2.2 times the median for peak/mean.
@pytest.mark.parametrize(
    ("statistic", "tolerance"),
    [
        ("mean", 0.15),
        ("peak", 0.15),
        ("peak_to_mean", 0.20),
        ("std_to_mean", 0.20),
        ("ramp_std_over_mean", 0.25),
        ("acf_1step", 0.05),
        ("acf_1h", 0.60),
    ],
)
def test_single_houses_by_the_minute_are_as_the_european_feeders(
    published: dict[str, Any], houses: NDArray[np.float32], statistic: str, tolerance: float
) -> None:
    mean = houses.mean(axis=0)
    ramps = np.diff(houses, axis=0)
    ours = {
        "mean": mean,
        "peak": houses.max(axis=0),
        "peak_to_mean": houses.max(axis=0) / mean,
        "std_to_mean": houses.std(axis=0) / mean,
        "ramp_std_over_mean": ramps.std(axis=0) / mean,
        "acf_1step": [np.corrcoef(house[:-1], house[1:])[0, 1] for house in houses.T],
        "acf_1h": [np.corrcoef(house[:-60], house[60:])[0, 1] for house in houses.T],
    }[statistic]
    low, middle, high = published["eulv.houses_p10_p50_p90"][statistic]
    assert float(np.median(ours)) == pytest.approx(middle, rel=tolerance)
    assert low < float(np.median(ours)) < high


@pytest.mark.parametrize("num", [1, 2, 5, 10, 20, 55, 100])
def test_coincident_peak_per_house_falls_with_the_number_of_houses(
    published: dict[str, Any], houses: NDArray[np.float32], num: int
) -> None:
    rng = np.random.default_rng(0)
    groups = [rng.choice(houses.shape[1], num, replace=False) for _ in range(200)]
    ours = np.mean([houses[:, group].sum(axis=1).max() / num for group in groups])
    # One draw of 100 houses differs from another by about 8 %.
    assert ours == pytest.approx(published["eulv.coincidence"][str(num)], rel=0.20)


def test_hundred_houses_together_are_as_smooth_as_the_european_feeders(
    published: dict[str, Any], houses: NDArray[np.float32]
) -> None:
    facts = published["eulv.sum100"]
    for first in range(0, 400, 100):
        total = houses[:, first : first + 100].sum(axis=1)
        assert total.max() / total.mean() == pytest.approx(facts["peak_to_mean"], rel=0.25)
        assert total.std() / total.mean() == pytest.approx(facts["std_to_mean"], rel=0.25)
        assert np.diff(total).std() / total.mean() == pytest.approx(facts["ramp_std_over_mean"], rel=0.35)


# Bands: the published pairs of PV sites alone run from 0.55 to 0.98, those of wind sites from 0.33 to 0.95.
@pytest.mark.parametrize(
    ("key", "tolerance"),
    [
        ("H0 households", 0.10),
        ("G commercial", 0.10),
        ("PV sites", 0.10),
        ("wind sites", 0.10),
        ("15-min ramps of PV sites", 0.15),
        ("15-min ramps of H0", 0.05),
        ("H0-PV", 0.10),
        ("PV-wind", 0.10),
    ],
)
def test_series_of_a_kind_move_together_as_published(published: dict[str, Any], key: str, tolerance: float) -> None:
    rng = np.random.default_rng(3)

    def meters() -> NDArray[Any]:
        return household_kw(YEAR, 18, rng).reshape(-1, 6, 3).mean(axis=2)

    def sun() -> NDArray[Any]:
        return pv_pu(YEAR, 8, rng, GERMANY)

    def wind() -> NDArray[Any]:
        return wind_pu(YEAR, 12, rng)

    ours = {
        "H0 households": lambda: mean_correlation(meters()),
        "G commercial": lambda: mean_correlation(business_pu(YEAR, 30, rng, COMMERCIAL)),
        "PV sites": lambda: mean_correlation(sun()),
        "wind sites": lambda: mean_correlation(wind()),
        "15-min ramps of PV sites": lambda: mean_correlation(np.diff(sun(), axis=0)),
        "15-min ramps of H0": lambda: mean_correlation(np.diff(meters(), axis=0)),
        "H0-PV": lambda: mean_between(meters(), sun()),
        "PV-wind": lambda: mean_between(sun(), wind()),
    }[key]()
    assert ours == pytest.approx(published["cross_correlation_mean"][key], abs=tolerance)


@pytest.mark.parametrize("lag_s", [1, 10, 60, 300, 900])
def test_broken_sky_changes_by_the_second_as_measured(
    published: dict[str, Any], sun_by_the_second: NDArray[np.float32], lag_s: int
) -> None:
    steep = [np.quantile(np.abs(day[lag_s:] - day[:-lag_s]), 0.95) / day.max() for day in sun_by_the_second]
    key = f"ramp_{lag_s}s_p50_p95_p99_max_over_peak"
    measured = np.mean([published[name][key][1] for name in ("opendss.solar_1", "opendss.solar_2")])
    # Both published days are of broken sky, picked for that: the worst of ten days is compared, and within a third.
    assert max(steep) == pytest.approx(measured, rel=0.35)


@pytest.mark.parametrize(("place", "column"), [("home", "private"), ("public", "public"), ("work", "workplace")])
def test_cars_arrive_when_they_do_in_the_netherlands(published: dict[str, Any], place: Place, column: str) -> None:
    clock = Clock(num_days=364)
    sessions = ev_sessions(clock, 400, np.random.default_rng(8), EvConfig(place=place))
    is_weekday = (sessions.arrival_h // 24) % 7 < 5
    ours = np.bincount((sessions.arrival_h[is_weekday] % 24).astype(int), minlength=24) / is_weekday.sum()
    # Cars that find the charger taken go elsewhere; that and chance may move a percent and a half of the arrivals.
    np.testing.assert_allclose(ours, np.array(published["ev.distribution-of-arrival"][column]) / 100.0, atol=0.015)


def test_sessions_want_the_energy_and_stay_as_long_as_in_the_netherlands(
    published: dict[str, Any], home_sessions: EvSessions
) -> None:
    def by_hour(table: str, hour: str) -> float:
        return next(row[1] for row in published[table]["first_rows"] if row[0] == hour)

    hour = home_sessions.arrival_h % 24
    for clock_time, knot in (("00:00", 0.0), ("02:00", 2.0), ("07:00", 7.0), ("09:00", 9.0), ("10:00", 10.0)):
        assert knot in KNOTS_H
        near = np.abs((hour - knot + 12.0) % 24.0 - 12.0) < 0.5
        stay = (home_sessions.departure_h - home_sessions.arrival_h)[near].mean()
        # A slow charger cannot give what is wanted in a short stay, and few cars come at night.
        assert home_sessions.energy_kwh[near].mean() == pytest.approx(
            by_hour("ev.mean-demand-per-arrival", clock_time), rel=0.20
        )
        assert stay == pytest.approx(by_hour("ev.mean-session-length-per", clock_time), rel=0.20)


def test_sessions_of_a_charger_do_not_overlap_and_can_be_met(home_sessions: EvSessions) -> None:
    same = np.diff(home_sessions.charger) == 0
    assert (home_sessions.arrival_h[1:][same] >= home_sessions.departure_h[:-1][same]).all()
    stay_h = home_sessions.departure_h - home_sessions.arrival_h
    assert (stay_h > 0.0).all()
    assert (home_sessions.energy_kwh <= home_sessions.kw * stay_h + 1e-9).all()
    per_day = len(home_sessions.kw) / 2000 / 364
    # simbench's home chargers draw 2 to 4.5 kWh a day.
    assert 2.0 < per_day * home_sessions.energy_kwh.mean() < 4.5


def test_prices_fall_below_zero_as_rarely_as_on_the_dutch_market(published: dict[str, Any]) -> None:
    prices = price_eur_per_mwh(Clock(step_s=3600), 30, np.random.default_rng(0))
    years = [published[f"price.nl_{year}"] for year in (2016, 2019, 2022)]
    share = (prices < 0.0).mean()
    assert 0.0 < share < max(year["negative_share"] for year in years)
    lowest = np.median(prices.min(axis=0) / prices.mean(axis=0))
    assert min(year["min_to_mean"] for year in years) < lowest < max(year["min_to_mean"] for year in years)
