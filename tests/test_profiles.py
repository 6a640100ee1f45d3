"""Profiles look like customers and sun, and are the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from gridray.errors import ConfigError
from gridray.profiles.generate import ProfileConfig, Profiles, generate_profiles

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
    peak_of_one = (year.load_pu.max(axis=0) / year.load_pu.mean(axis=0)).mean()
    total = year.load_pu.mean(axis=1)
    assert peak_of_one > 1.3 * total.max() / total.mean()


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


def test_sites_share_most_of_their_clouds(year: Profiles) -> None:
    noon = year.pv_pu.reshape(365, 96, 4)[:, 48]
    correlation = np.corrcoef(noon.T)[np.triu_indices(4, 1)]
    assert (correlation > 0.7).all()
    assert (correlation < 0.999).all()


def test_steps_that_do_not_divide_the_day_are_refused() -> None:
    with pytest.raises(ConfigError, match="step_minutes 7"):
        ProfileConfig(step_minutes=7)
