"""The feeder's own regulators move once their delays have run, each environment by its own timers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.devices.regulator import fresh_timer
from gridray.errors import ConfigError
from gridray.physics.controls import TAP_STEP, settle
from gridray.policies.optimal.plan import has_bound
from gridray.tasks.base import neutral_set_points
from gridray.tasks.storage import Storage, StorageConfig
from gridray.tasks.tap_delays import settle_in_time, tap_timing
from gridray.tasks.volt_var import VoltVarConfig

if TYPE_CHECKING:
    from gridray.tasks.twin import TwinState

NUM_ENVS = 3
DAY = np.full(NUM_ENVS, 2)


def made_task(scale: float) -> Storage:
    return Storage(StorageConfig(num_days=5, step_minutes=1, regulator_delay_scale=scale))


def started(task: Storage) -> TwinState:
    """Return a day's start whose regulators are where they rest, eight steps too low, and eight too high."""
    state = task.new_state(NUM_ENVS)
    task.reset(state, np.arange(NUM_ENVS), DAY, np.zeros(NUM_ENVS, dtype=np.uint64))
    state.grid.taps[...] += TAP_STEP * np.array([0.0, -8.0, 8.0])
    return state


@pytest.fixture(scope="module")
def delayed() -> Storage:
    # The feeder's 15 s and 2 s, times 8: first tap after 120 s, one more every 16 s.
    return made_task(8.0)


def test_taps_wait_in_every_environment_for_themselves(delayed: Storage) -> None:
    state = started(delayed)
    neutral = np.stack(list(neutral_set_points(delayed.action_channels, NUM_ENVS).values()))
    steps = [np.rint((state.grid.taps - 1.0) / TAP_STEP)]
    for _ in range(5):
        delayed.twin.interval(state, neutral)
        steps.append(np.rint((state.grid.taps - 1.0) / TAP_STEP))
    # After 60 s none, after 120 s one, after 180 s 1 + floor(60 / 16) = 4; then as many as bring them into the band.
    for interval, due in enumerate((0.0, 1.0, 4.0), start=1):
        np.testing.assert_array_equal(steps[interval] - steps[0], np.broadcast_to([0.0, due, -due], (3, NUM_ENVS)))
    assert (np.abs(steps[-1] - steps[0])[:, 1:] > 4.0).all()
    np.testing.assert_array_equal(state.tap_timer.waited_s, 0.0)


def test_no_time_passes_between_intervals_and_a_reset_forgets_it(delayed: Storage) -> None:
    state = started(delayed)
    neutral = np.stack(list(neutral_set_points(delayed.action_channels, NUM_ENVS).values()))
    delayed.twin.interval(state, neutral)
    before = state.grid.taps.copy()
    delayed.twin.move_on(state)
    np.testing.assert_array_equal(state.grid.taps, before)
    np.testing.assert_array_equal(state.tap_timer.waited_s, np.broadcast_to([0.0, 60.0, 60.0], (3, NUM_ENVS)))
    delayed.reset(state, np.array([1]), DAY[:1], np.zeros(1, dtype=np.uint64))
    np.testing.assert_array_equal(state.tap_timer.waited_s, np.broadcast_to([0.0, 0.0, 60.0], (3, NUM_ENVS)))
    np.testing.assert_array_equal(state.tap_timer.direction, np.broadcast_to([0.0, 0.0, -1.0], (3, NUM_ENVS)))


def test_delays_far_below_an_interval_change_nothing(delayed: Storage) -> None:
    grid, timing = delayed.grid, tap_timing(delayed.feeder, delayed.grid, 1.0)
    expected = settle(grid, started(delayed).grid, tolerance=1e-6)
    found, timer = settle_in_time(
        grid, started(delayed).grid, timing, fresh_timer(3, NUM_ENVS), passed_s=900.0, tolerance=1e-6
    )
    np.testing.assert_array_equal(found.taps, expected.taps)
    np.testing.assert_allclose(found.v, expected.v, atol=1e-6)
    np.testing.assert_array_equal(timer.direction, 0.0)


def test_delays_belong_to_regulators_that_nobody_commands_and_have_no_bound(delayed: Storage) -> None:
    assert not has_bound(delayed)
    with pytest.raises(ConfigError, match="volt_var commands the regulators"):
        VoltVarConfig(regulator_delay_scale=1.0)
    with pytest.raises(ConfigError, match=r"regulator_delay_scale is -1\.0"):
        StorageConfig(regulator_delay_scale=-1.0)
