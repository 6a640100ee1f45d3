"""Sensors, commands, forecasts, outages and their toll: what is stated is what happens, for each environment alone."""

from __future__ import annotations

import importlib
import pkgutil
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridray.devices
from gridray.devices.forecast import ForecastError, forecast, grown_std, next_errors, start_errors
from gridray.devices.outages import OutageRates, check_rates, line_rate_per_year, step_outages
from gridray.devices.random_streams import EnvStreams
from gridray.devices.reliability import count_interruptions, no_interruptions, reliability_indices
from gridray.devices.rows import put_rows, take_parameters, take_rows
from gridray.devices.scada import Link, send, start_link
from gridray.devices.sensors import Sensors, class_std, measure, start_sensors
from gridray.errors import ConfigError


def streams(num_envs: int, purpose: int = 0) -> EnvStreams:
    return EnvStreams.from_seeds(np.arange(num_envs, dtype=np.uint64), purpose=purpose)


def sensors(*, std: float = 0.0, bias_std: float = 0.0, delay: int = 0, loss: float = 0.0) -> Sensors:
    """Return two meters, at items 2 and 0."""
    column = np.ones((2, 1))
    return Sensors(
        np.array([2, 0]), std * column, bias_std * column, np.full((2, 1), delay, dtype=np.int64), loss * column
    )


def test_only_metered_items_are_seen_and_late() -> None:
    meters, draws = sensors(delay=2), streams(1)
    truths = [np.array([[10.0], [20.0], [30.0]]) + step for step in range(5)]
    state, seen = start_sensors(meters, truths[0], draws), []
    for truth in truths[1:]:
        state = measure(meters, state, truth, draws)
        seen.append(state.value[:, 0].tolist())
        assert state.age.tolist() == [[2], [2]]
    # What is known at step 4 was measured at step 2; before the start the first truth held.
    assert seen == [[30.0, 10.0], [30.0, 10.0], [31.0, 11.0], [32.0, 12.0]]


def test_noise_has_the_class_of_the_meter_and_bias_stays() -> None:
    # Class 0.5: 0.5 % at three standard deviations.
    assert class_std(0.5) == pytest.approx(0.005 / 3.0)
    meters, draws, truth = sensors(std=0.002, bias_std=0.01), streams(4000), np.full((3, 4000), 230.0)
    state = start_sensors(meters, truth, draws)
    first = measure(meters, state, truth, draws)
    second = measure(meters, first, truth, draws)
    # The standard deviation of n = 8000 samples is known to 1 / sqrt(2 n) = 0.8 %.
    assert np.std(first.value - second.value) / 230.0 == pytest.approx(0.002 * np.sqrt(2.0), rel=0.035)
    assert np.std(first.value) / 230.0 == pytest.approx(np.hypot(0.002, 0.01), rel=0.035)
    np.testing.assert_array_equal(first.bias, second.bias)


def test_lost_samples_leave_the_last_value_and_its_age() -> None:
    meters, draws = sensors(loss=0.3), streams(2000)
    state, num_stale = start_sensors(meters, np.zeros((3, 2000)), draws), 0
    for step in range(1, 51):
        state = measure(meters, state, np.full((3, 2000), float(step)), draws)
        np.testing.assert_array_equal(state.value, step - state.age)
        num_stale += int((state.age > 0).sum())
    # 200,000 samples: the share is known to 0.001.
    assert num_stale / (50 * 4000) == pytest.approx(0.3, abs=0.005)


def test_what_a_sensor_shows_depends_on_its_own_environment_only() -> None:
    meters, truth = sensors(std=0.01, bias_std=0.01, delay=1, loss=0.2), np.full((3, 6), 5.0)
    together, alone, pick = streams(6), EnvStreams.from_seeds(np.array([4, 1], dtype=np.uint64)), np.array([4, 1])
    both = start_sensors(meters, truth, together), start_sensors(meters, truth[:, pick], alone)
    for _ in range(10):
        both = measure(meters, both[0], truth, together), measure(meters, both[1], truth[:, pick], alone)
    for name in both[0]._fields:
        np.testing.assert_array_equal(getattr(both[0], name)[..., pick], getattr(both[1], name))


def test_environments_are_taken_out_and_put_back() -> None:
    meters, draws = sensors(delay=3), streams(4)
    state = start_sensors(meters, np.arange(12.0).reshape(3, 4), draws)
    part = take_rows(state, np.array([3, 1]))
    assert part.value.tolist() == [[11.0, 9.0], [3.0, 1.0]]
    put_rows(state, np.array([0, 2]), part)
    assert state.value.tolist() == [[11.0, 9.0, 9.0, 11.0], [3.0, 1.0, 1.0, 3.0]]
    assert state.sent.shape == (4, 2, 4)


def test_a_reset_of_some_environments_changes_nothing_for_the_others() -> None:
    meters = sensors(std=0.01, bias_std=0.02, delay=1)._replace(loss=np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]))
    truth, rows = np.full((3, 3), 5.0), np.array([1])
    draws, undisturbed = streams(3), streams(3)
    state, expected = start_sensors(meters, truth, draws), start_sensors(meters, truth, undisturbed)
    part = take_parameters(meters, rows)
    assert (part.loss.tolist(), part.std.shape, part.metered.tolist()) == ([[0.2], [0.2]], (2, 1), [2, 0])
    put_rows(state, rows, start_sensors(part, truth[:, rows], draws.at(rows)))
    for _ in range(5):
        state, expected = measure(meters, state, truth, draws), measure(meters, expected, truth, undisturbed)
    for name in state._fields:
        np.testing.assert_array_equal(getattr(state, name)[..., [0, 2]], getattr(expected, name)[..., [0, 2]])
    assert (state.value[:, 1] != expected.value[:, 1]).all()


def test_set_points_act_after_their_delay() -> None:
    link, draws = Link(np.array([[0], [2]]), np.zeros((2, 1))), streams(1)
    state, acting = start_link(link, np.zeros((2, 1))), []
    for step in range(1, 5):
        state = send(link, state, np.full((2, 1), float(step)), draws)
        acting.append(state.acting[:, 0].tolist())
    assert acting == [[1.0, 0.0], [2.0, 0.0], [3.0, 1.0], [4.0, 2.0]]


def test_device_keeps_the_last_command_that_arrived() -> None:
    link, draws = Link(np.full((1, 1), 1), np.full((1, 1), 0.25)), streams(20000)
    state = start_link(link, np.zeros((1, 20000)))
    for step in range(1, 4):
        state = send(link, state, np.full((1, 20000), float(step)), draws)
    # In step 3 the command of step 2 acts unless lost (0.25), else that of step 1, else the first.
    shares = [(state.acting == value).mean() for value in (2.0, 1.0, 0.0)]
    assert shares == pytest.approx([0.75, 0.1875, 0.0625], abs=0.012)
    lost = Link(np.zeros((1, 1), dtype=np.int64), np.ones((1, 1)))
    assert send(lost, start_link(lost, np.full((1, 1), 7.0)), np.zeros((1, 1)), streams(1)).acting[0, 0] == 7.0


def test_forecast_errors_have_the_stated_spread_at_each_lead_and_issue() -> None:
    std = grown_std(np.full((1, 1), 1.0), np.full((1, 1), 3.0), 9)
    # Variance grows from 1 to 9 in eight equal steps: 5 in the middle.
    assert std[:, 0, 0] == pytest.approx(np.sqrt(np.arange(1.0, 10.0)))
    error = ForecastError(std, 0.9, 0.8, np.full((1, 1), -np.inf), np.full((1, 1), np.inf))
    draws = streams(20000)
    scaled = start_errors(error, draws)
    truth = np.full(scaled.shape, 10.0)
    for _ in range(4):
        before, scaled = scaled, next_errors(error, scaled, draws)
        off = forecast(error, scaled, truth) - truth
        # 20,000 samples: standard deviations to 0.5 %, correlations to 0.007.
        np.testing.assert_allclose(off.std(axis=2), std[:, :, 0], rtol=0.025)
        np.testing.assert_allclose(off.mean(axis=2), 0.0, atol=0.1)
        assert np.corrcoef(scaled[2, 0], scaled[3, 0])[0, 1] == pytest.approx(0.9, abs=0.03)
        # The same target time was one lead farther in the issue before.
        assert np.corrcoef(scaled[2, 0], before[3, 0])[0, 1] == pytest.approx(0.8, abs=0.03)


def test_forecasts_stay_within_bounds_and_correlations_too() -> None:
    error = ForecastError(np.full((3, 1, 1), 5.0), 0.5, 0.5, np.zeros((1, 1)), np.ones((1, 1)))
    values = forecast(error, start_errors(error, streams(100)), np.full((3, 1, 100), 0.5))
    assert (values.min(), values.max()) == (0.0, 1.0)
    with pytest.raises(ConfigError, match=r"lead_correlation is 1\.5: give a number from 0 to 1"):
        start_errors(error._replace(lead_correlation=1.5), streams(1))


def test_outages_have_the_stated_rate_and_duration() -> None:
    # 0.2 per km and year x 50 km = 10 a year; out for 24 h in the mean.
    rates = OutageRates(
        line_rate_per_year(np.full((1, 1), 0.2), np.full((1, 1), 50.0)), *np.array([24.0, 0.5])[:, None, None]
    )
    draws, num_envs = streams(500), 500
    left_h, num_failures, out_h, up_h = np.zeros((1, num_envs)), 0, 0.0, 0.0
    for _ in range(8760):
        up_h += float((left_h <= 0.0).sum())
        left_h, has_failed = step_outages(rates, left_h, draws, 1.0)
        num_failures += int(has_failed.sum())
        out_h += float((left_h > 0.0).sum())
    # About 4,900 failures: rates to 1.5 %, mean durations to 0.7 %. Whole hours out: half an hour more in the mean.
    assert num_failures / (up_h / 8760.0) == pytest.approx(10.0, rel=0.06)
    assert out_h / num_failures == pytest.approx(24.5, rel=0.03)


def test_wrong_rates_delays_and_losses_are_named() -> None:
    rates = OutageRates(*(np.full((1, 1), value) for value in (1.0, 5.0, 0.0)))
    check_rates(rates)
    with pytest.raises(ConfigError, match=r"OutageRates \(0, 0\): repair_h is 0: give a number"):
        check_rates(rates._replace(repair_h=np.zeros((1, 1))))
    with pytest.raises(ConfigError, match=r"Sensors \(0, 0\): delay is 3: give a number from 0 to 1"):
        start_sensors(sensors(delay=3), np.zeros((3, 1)), streams(1), depth=2)
    with pytest.raises(ConfigError, match=r"Link \(1, 0\): loss is 2: give a number from 0 to 1"):
        start_link(Link(np.zeros((2, 1), dtype=np.int64), np.array([[0.0], [2.0]])), np.zeros((2, 1)), depth=4)


def test_storms_multiply_failures_and_what_is_out_stays_out() -> None:
    rates = OutageRates(*(np.full((1, 1), value) for value in (1.0, 5.0, 0.0)))
    calm = step_outages(rates, np.zeros((1, 200000)), streams(200000), 1.0)
    storm = step_outages(rates, np.zeros((1, 200000)), streams(200000), 1.0, weather=500.0)
    # 1 - exp(-1 / 8760) and 1 - exp(-500 / 8760).
    assert calm.has_failed.mean() == pytest.approx(1.1415e-4, abs=8e-5)
    assert storm.has_failed.mean() == pytest.approx(0.05548, abs=0.002)
    assert (storm.repair_left_h[storm.has_failed] == 5.0).all()
    later = step_outages(rates, storm.repair_left_h, streams(200000, purpose=1), 2.0)
    assert (later.repair_left_h[storm.has_failed] == 3.0).all()


def test_indices_are_those_of_ieee_1366() -> None:
    # 100 and 50 customers, 20 and 30 kW, steps of 2 min. The first load: out for 10 min (sustained), then 4 min
    # (momentary); the second is out for 6 min. SAIFI = 150 / 150, SAIDI = (100 x 10 + 50 x 6) / 150.
    customers, demand = np.array([[100.0], [50.0]]), np.array([[20.0], [30.0]])
    supplied = np.array([[0, 0, 0, 0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 1, 1, 1, 1]], dtype=np.bool_)
    counts = no_interruptions(2, 1)
    for column in supplied.T:
        counts = count_interruptions(counts, customers, column[:, None], demand, 2.0)
    indices = reliability_indices(counts, customers)
    assert indices.saifi[0] == 1.0
    assert indices.saidi_min[0] == pytest.approx(1300.0 / 150.0)
    assert indices.caidi_min[0] == pytest.approx(1300.0 / 150.0)
    assert indices.maifi[0] == pytest.approx(100.0 / 150.0)
    # 20 kW x 14 min + 30 kW x 6 min.
    assert indices.ens_kwh[0] == pytest.approx((20.0 * 14.0 + 30.0 * 6.0) / 60.0)
    quiet = reliability_indices(no_interruptions(2, 1), customers)
    assert (quiet.saifi[0], quiet.saidi_min[0], quiet.caidi_min[0]) == (0.0, 0.0, 0.0)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_customer_minutes_are_those_of_interruptions_longer_than_five(is_supplied: list[bool]) -> None:
    counts = no_interruptions(1, 1)
    for supplied in is_supplied:
        counts = count_interruptions(counts, np.ones((1, 1)), np.full((1, 1), supplied), np.ones((1, 1)), 1.0)
    lengths = [len(run) for run in re.findall("0+", "".join("01"[supplied] for supplied in is_supplied))]
    long = [length for length in lengths if length > 5]
    assert (counts.customer_min[0], counts.sustained[0]) == (sum(long), len(long))
    is_open = not is_supplied[-1] and lengths[-1] <= 5
    assert counts.momentary[0] == len(lengths) - len(long) - is_open


@pytest.mark.parametrize("name", sorted(module.name for module in pkgutil.iter_modules(gridray.devices.__path__)))
def test_every_field_is_documented_with_its_shape(name: str) -> None:
    module = importlib.import_module(f"gridray.devices.{name}")
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "_fields"):
            for field in kind._fields:
                line = re.search(rf"\b{field}\b[^:]*: (float64|int64|bool)", kind.__doc__ or "")
                assert line, f"{name}.{kind.__name__}.{field} has no type, shape and unit in its class docstring"
