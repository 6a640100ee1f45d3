"""Profiles look like customers and sun, are the same for the same seed, and stay when others are added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.errors import ConfigError
from gridray.profiles.business import COMMERCIAL, INDUSTRIAL
from gridray.profiles.ev import EvConfig
from gridray.profiles.generate import KINDS, ProfileConfig, Profiles, generate_profiles, generate_series
from gridray.profiles.households import MEAN_KW, expected_kw, household_kw
from gridray.profiles.price import PriceConfig
from gridray.profiles.processes import Clock, pulses
from gridray.profiles.pv import PvConfig, pv_pu
from gridray.profiles.series import resample
from gridray.profiles.weather import ClimateConfig, temperature_c
from gridray.profiles.wind import WindConfig, power_curve

if TYPE_CHECKING:
    from collections.abc import Callable

LOADS_KW = np.full(40, 25.0)


@pytest.fixture(scope="module")
def year() -> Profiles:
    return generate_profiles(ProfileConfig(seed=3), LOADS_KW, 4)


def test_same_seed_gives_same_series_and_another_does_not(year: Profiles) -> None:
    again = generate_profiles(ProfileConfig(seed=3), LOADS_KW, 4)
    np.testing.assert_array_equal(year.load_pu, again.load_pu)
    np.testing.assert_array_equal(year.pv_pu, again.pv_pu)
    assert not np.array_equal(year.load_pu, generate_profiles(ProfileConfig(seed=4), LOADS_KW, 4).load_pu)


def test_feeder_peaks_at_its_nominal_load_and_runs_at_about_half(year: Profiles) -> None:
    total = year.load_pu.mean(axis=1)
    assert np.quantile(total, 0.999) == pytest.approx(1.0, abs=0.02)
    assert 0.4 < total.mean() < 0.7
    assert year.load_pu.min() > 0.0


def test_customers_differ_more_than_their_sum(year: Profiles) -> None:
    peak_of_one = np.median(year.load_pu.max(axis=0) / year.load_pu.mean(axis=0))
    total = year.load_pu.mean(axis=1)
    assert peak_of_one > 1.8 * total.max() / total.mean()


def test_small_loads_are_single_houses_and_large_ones_their_sums() -> None:
    config = ProfileConfig(seed=1, num_days=28, commercial_share=0.0, industrial_share=0.0)
    peaks = [
        float(
            np.median((loads := generate_profiles(config, np.full(20, kw), 0).load_pu).max(axis=0) / loads.mean(axis=0))
        )
        for kw in (config.household_kw, 10.0 * config.household_kw, 1000.0 * config.household_kw)
    ]
    assert peaks[0] > 8.0
    assert peaks[0] > 2.0 * peaks[1] > 2.0 * peaks[2]
    assert peaks[2] < 2.5


def test_expected_course_is_the_mean_of_many_houses() -> None:
    clock = Clock(num_days=28)
    many = household_kw(clock, 600, np.random.default_rng(0)).mean(axis=1, dtype=np.float64)
    typical = expected_kw(clock)
    assert many.mean() == pytest.approx(typical.mean(), rel=0.06)
    assert np.corrcoef(many, typical)[0, 1] > 0.93
    assert expected_kw(Clock()).mean() == pytest.approx(MEAN_KW, rel=0.03)


def test_load_follows_the_day_and_remembers_the_hour_before(year: Profiles) -> None:
    total = year.load_pu.mean(axis=1)
    hourly = total.reshape(365, 24, 4).mean(axis=(0, 2))
    assert hourly[3] < 0.75 * hourly[19]
    assert np.corrcoef(total[:-4], total[4:])[0, 1] > 0.8
    assert np.corrcoef(total[:-96], total[96:])[0, 1] > 0.6


def test_sun_sets_and_summer_is_brighter(year: Profiles) -> None:
    by_day = year.pv_pu.reshape(365, 96, 4)
    assert (by_day[:, :12] == 0.0).all()
    assert (by_day[:, -12:] == 0.0).all()
    assert by_day[152:243].mean() > 1.5 * by_day[:59].mean()
    assert by_day.min() >= 0.0
    assert by_day.max() < 1.15


def test_sites_share_most_of_their_clouds_and_less_at_a_distance() -> None:
    near, far = (
        generate_profiles(ProfileConfig(seed=3, pv_spread_km=spread), LOADS_KW[:1], 4).pv_pu for spread in (0.5, 100.0)
    )
    correlations = [np.corrcoef(pv.T)[np.triu_indices(4, 1)].mean() for pv in (near, far)]
    ramps = [np.corrcoef(np.diff(pv, axis=0).T)[np.triu_indices(4, 1)].mean() for pv in (near, far)]
    assert 0.999 > correlations[0] > correlations[1] + 0.03 > 0.75
    assert ramps[0] > ramps[1] + 0.2


def test_steps_that_do_not_divide_the_day_are_refused() -> None:
    with pytest.raises(ConfigError, match="step_minutes 7"):
        ProfileConfig(step_minutes=7)


CLOCK = Clock(num_days=14, step_s=900)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_repeats_with_its_seed_and_keeps_the_first_series_when_more_are_added(kind: str) -> None:
    two, five = (generate_series(kind, CLOCK, num, seed=7) for num in (2, 5))
    np.testing.assert_array_equal(two.values, five.values[:, :2])
    np.testing.assert_array_equal(five.values, generate_series(kind, CLOCK, 5, seed=7).values)
    assert not np.array_equal(five.values, generate_series(kind, CLOCK, 5, seed=8).values)
    assert two.names == five.names[:2]
    assert two.unit == KINDS[kind][0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step_s", [1, 60, 3600])
def test_kind_has_every_step_from_a_second_to_an_hour(kind: str, step_s: int) -> None:
    days = 1 if step_s == 1 else 5
    series = generate_series(kind, Clock(num_days=days, step_s=step_s, start="2024-01-15"), 2, seed=1)
    assert series.values.shape == (days * 86400 // step_s, 2)
    assert series.values.dtype == np.float32
    if kind not in {"temperature", "price"}:
        assert series.values.min() >= 0.0


@pytest.mark.parametrize("kind", ["household", "ev", "heat_pump", "price"])
def test_coarser_steps_are_means_of_finer_ones(kind: str) -> None:
    minutes, quarters = (
        generate_series(kind, Clock(num_days=7, step_s=step_s, start="2024-02-01"), 3, seed=5) for step_s in (60, 900)
    )
    np.testing.assert_allclose(resample(minutes, 900).values, quarters.values, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_series_of_a_kind_is_an_empty_table(kind: str) -> None:
    assert KINDS[kind][1](CLOCK, 0, np.random.default_rng(0)).shape == (CLOCK.num_steps, 0)


def test_first_loads_stay_when_loads_and_sites_are_added() -> None:
    config = ProfileConfig(num_days=3)
    few = generate_profiles(config, LOADS_KW[:3], 2)
    many = generate_profiles(config, LOADS_KW, 5)
    # All are scaled by the feeder's peak, which other loads change.
    ratio = few.load_pu / many.load_pu[:, :3]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    np.testing.assert_array_equal(few.pv_pu, many.pv_pu[:, :2])


def test_shares_make_the_customers() -> None:
    def weekend_share(**shares: float) -> float:
        total = generate_profiles(ProfileConfig(num_days=28, **shares), LOADS_KW, 0).load_pu.mean(axis=1)
        days = total.reshape(4, 7, 96).mean(axis=(0, 2))
        return float(days[5:].mean() / days[:5].mean())

    homes = weekend_share(commercial_share=0.0, industrial_share=0.0)
    assert homes > 1.0
    assert weekend_share(commercial_share=1.0, industrial_share=0.0) < 0.85
    assert weekend_share(commercial_share=0.0, industrial_share=1.0) < 0.85


def test_pulses_give_exact_energy_at_any_step() -> None:
    start, length, kw = np.array([0.1, 3.3, 23.9]), np.array([0.01, 5.7, 4.0]), np.array([2.0, 0.5, 1.0])
    for step_s in (1, 60, 900, 3600):
        power = pulses(Clock(num_days=2, step_s=step_s), start, length, kw)
        assert power.sum() * step_s / 3600.0 == pytest.approx((length * kw).sum(), rel=1e-9)
    assert pulses(Clock(num_days=1, step_s=3600), start, length, kw)[3] == pytest.approx(0.35, rel=1e-9)
    # The last pulse is cut at midnight.
    assert pulses(Clock(num_days=1, step_s=60), start, length, kw).sum() / 60.0 == pytest.approx(2.97, rel=1e-9)


def test_clock_knows_date_and_weekday() -> None:
    clock = Clock(num_days=3, step_s=3600, start="2023-12-30")
    assert clock.weekday.tolist() == [5, 6, 0]
    assert clock.day_of_year.tolist() == [363, 364, 0]
    assert clock.hour[12] == 12.5
    assert Clock(step_s=450).finer(300).step_s == 225


def test_planes_face_the_equator_on_both_halves_of_the_earth() -> None:
    clock = Clock(num_days=365, step_s=3600)
    north, south = (
        pv_pu(clock, 1, np.random.default_rng(0), PvConfig(latitude_deg=latitude, tilt_deg=(45.0, 45.0)))
        for latitude in (40.0, -40.0)
    )
    assert north.mean() == pytest.approx(south.mean(), rel=0.15)
    assert south[: 59 * 24].mean() > 1.3 * south[152 * 24 : 212 * 24].mean()


def test_turbine_starts_reaches_its_rating_and_stops_in_a_storm() -> None:
    np.testing.assert_allclose(power_curve(np.array([2.9, 12.0, 20.0, 25.1])), [0.0, 1.0, 1.0, 0.0])
    assert 0.1 < power_curve(np.array([7.0]))[0] < 0.3


def test_temperature_is_of_the_climate() -> None:
    climate = ClimateConfig(mean_c=5.0, season_c=8.0, day_c=3.0, weather_c=0.0)
    year = temperature_c(Clock(step_s=3600), np.random.default_rng(0), climate)
    assert year.mean() == pytest.approx(5.0, abs=0.1)
    assert year.max() == pytest.approx(16.0, abs=0.1)
    assert int(np.argmax(year.reshape(365, 24).mean(axis=0))) == 14


def test_all_kinds_of_business_have_shares_of_one() -> None:
    for kinds in (COMMERCIAL, INDUSTRIAL):
        assert sum(kind.share for kind in kinds.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clock(step_s=7), "step_s 7"),
        (lambda: Clock(start="1 May"), "start is '1 May'"),
        (lambda: Clock(num_days=0), "num_days is 0"),
        (lambda: ProfileConfig(step_minutes=90), "step_minutes 90"),
        (lambda: ProfileConfig(commercial_share=0.9, industrial_share=0.2), "industrial_share is 1.1"),
        (lambda: ProfileConfig(household_kw=0.0), "household_kw is 0"),
        (lambda: PvConfig(latitude_deg=80.0), "latitude_deg is 80"),
        (lambda: PvConfig(area_km=0.0), "area_km is 0"),
        (lambda: WindConfig(length_km=-1.0), "length_km is -1"),
        (lambda: EvConfig(place="moon"), "place is 'moon'"),
        (lambda: EvConfig(sessions_per_day=0.0), "sessions_per_day is 0"),
        (lambda: ClimateConfig(design_c=20.0), "design_c is 20"),
        (lambda: PriceConfig(weekend=0.0), "weekend 0"),
        (lambda: PriceConfig(days_std=-0.1), "below 0"),
        (lambda: generate_series("tide", CLOCK, 1, seed=0), "no series of kind 'tide'"),
    ],
)
def test_value_that_means_nothing_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
