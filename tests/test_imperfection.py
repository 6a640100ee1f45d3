"""Meters, links and forecasts of a task are as imperfect as stated, and reproducible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridray.envs.registration import make_vector_env
from gridray.errors import ConfigError
from gridray.tasks.base import physical_observations, scaled_actions
from gridray.tasks.imperfection import Imperfection, ImperfectionConfig
from gridray.tasks.observations import LOAD_CHANNEL
from gridray.tasks.registry import TASKS, make_task

if TYPE_CHECKING:
    from gridray.envs.vector_env import GridVectorEnv

SMALL: dict[str, Any] = {"num_days": 10, "step_minutes": 60}
ALL = {
    "voltage_class": 0.5,
    "power_class": 1.0,
    "bias_class": 0.2,
    "sample_delay": 1,
    "sample_loss": 0.1,
    "command_delay": 1,
    "command_loss": 0.1,
    "forecast_error_first": 0.05,
    "forecast_error_last": 0.2,
}


def make(num_envs: int, imperfection: dict[str, float], name: str = "volt_var", **config: Any) -> GridVectorEnv:
    return make_vector_env(name, SMALL | config | {"imperfection": imperfection}, num_envs, seed=3)


def column(envs: GridVectorEnv, name: str) -> int:
    return [channel.name for channel in envs.task.observation_channels].index(name)


def physical(envs: GridVectorEnv, observations: np.ndarray) -> np.ndarray:
    return physical_observations(envs.task.observation_channels, observations)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_imperfect_run_does_not_depend_on_how_many_environments_there_are(name: str) -> None:
    observation = {"mode": "metered", "metered_share": 0.5, "load_look_ahead": 2}
    few, many = (make(number, ALL, name, observation=observation) for number in (2, 7))
    first, other = few.reset()[0], many.reset()[0]
    rng = np.random.default_rng(0)
    for _ in range(26):
        np.testing.assert_array_equal(first, other[:2])
        if np.issubdtype(many.action_space.dtype, np.integer):
            actions = rng.integers(many.action_space.nvec) + many.action_space.start
        else:
            actions = rng.uniform(-1, 1, many.action_space.shape).astype(np.float32)
        first, other = few.step(actions[:2])[0], many.step(actions)[0]
    again = make(2, ALL, name, observation=observation)
    np.testing.assert_array_equal(again.reset()[0], make(2, ALL, name, observation=observation).reset()[0])


def test_voltage_meters_have_their_class_and_positions_are_exact() -> None:
    noisy, true = make(512, {"voltage_class": 1.0}), make(512, {})
    seen, truth = (physical(envs, envs.reset()[0]) for envs in (noisy, true))
    action = np.zeros(noisy.action_space.shape, np.float32)
    for _ in range(2):
        seen, truth = (physical(envs, envs.step(action)[0]) for envs in (noisy, true))
    v, tap, kw = (column(noisy, name) for name in ("vmag_pu.680.1", "regulator.reg1.tap", "feeder.p_kw"))
    # Class 1: 1 % at three standard deviations; of 512 samples it is known to 3 %.
    assert np.std(seen[:, v] / truth[:, v] - 1.0) == pytest.approx(0.01 / 3.0, rel=0.15)
    np.testing.assert_array_equal(seen[:, [tap, kw]], truth[:, [tap, kw]])


def test_bias_of_a_meter_stays_for_an_episode() -> None:
    biased, true = make(64, {"bias_class": 2.0}), make(64, {})
    v = column(biased, "vmag_pu.680.1")
    errors = []
    for envs in (biased, true):
        envs.reset()
    for _ in range(3):
        seen, truth = (
            physical(envs, envs.step(np.zeros(envs.action_space.shape, np.float32))[0])[:, v] for envs in (biased, true)
        )
        errors.append(seen / truth - 1.0)
    np.testing.assert_allclose(errors[0], errors[2], atol=1e-6)
    assert np.std(errors[0]) == pytest.approx(0.02 / 3.0, rel=0.4)


def test_samples_arrive_after_their_delay_and_the_clock_does_not() -> None:
    late, true = make(3, {"sample_delay": 2}), make(3, {})
    seen, truth = [late.reset()[0]], [true.reset()[0]]
    rng = np.random.default_rng(0)
    for _ in range(6):
        actions = rng.uniform(-1, 1, late.action_space.shape).astype(np.float32)
        seen.append(late.step(actions)[0])
        truth.append(true.step(actions)[0])
    clock = column(true, "time.sin_day")
    np.testing.assert_array_equal(np.array(seen)[:, :, clock], np.array(truth)[:, :, clock])
    measured = [i for i in range(truth[0].shape[1]) if i not in {clock, clock + 1}]
    np.testing.assert_array_equal(np.array(seen)[2:, :, measured], np.array(truth)[:-2, :, measured])
    np.testing.assert_array_equal(seen[1][:, measured], truth[0][:, measured])


def test_a_lost_sample_leaves_the_last_one() -> None:
    envs = make(2, {"sample_loss": 1.0})
    first = envs.reset()[0]
    later = envs.step(np.full(envs.action_space.shape, 0.8, np.float32))[0]
    clock = column(envs, "time.sin_day")
    assert (later != first).any(axis=0).nonzero()[0].tolist() == [clock, clock + 1]


def test_commands_act_late_and_a_tap_change_acts_once() -> None:
    envs = make(2, {"command_delay": 1})
    channels = envs.task.action_channels
    tap, kvar = column(envs, "regulator.reg1.tap"), "battery.battery611.kvar"
    kvar = next(c.name for c in channels if c.name.startswith("battery.") and c.name.endswith(".kvar"))
    seen_kvar = column(envs, kvar)
    high = next(c.high for c in channels if c.name == kvar)
    start = physical(envs, envs.reset()[0])
    taps, kvars = [start[:, tap]], []
    for change, level in ((2.0, 0.0), (0.0, high), (0.0, high), (0.0, 0.0)):
        values = {"regulator.reg1.tap_change": np.full(2, change), kvar: np.full(2, level)}
        seen = physical(envs, envs.step(scaled_actions(channels, values))[0])
        taps.append(seen[:, tap])
        kvars.append(seen[:, seen_kvar] > 0.1)
    # The change of the first step, before which nothing was on its way, moves the tap in the second and not again.
    np.testing.assert_array_equal(np.diff(taps, axis=0), [[0, 0], [2, 2], [0, 0], [0, 0]])
    assert np.array(kvars)[:, 0].tolist() == [False, False, True, True]


def test_lost_commands_leave_devices_alone() -> None:
    lossy, perfect = make(2, {"command_loss": 1.0}), make(2, {})
    days = {"days": [3, 9]}
    rng = np.random.default_rng(0)
    lossy.reset(options=days), perfect.reset(options=days)
    neutral = np.repeat(scaled_actions(lossy.task.action_channels, {}), 2, axis=0)
    for _ in range(3):
        random = rng.uniform(-1.0, 1.0, lossy.action_space.shape).astype(np.float32)
        np.testing.assert_array_equal(lossy.step(random)[0], perfect.step(neutral)[0])


def test_forecasts_are_off_by_the_stated_share_of_the_series() -> None:
    observation = {"load_look_ahead": 4}
    wrong = make(2000, {"forecast_error_first": 0.1, "forecast_error_last": 0.2}, observation=observation)
    true = make(2000, {}, observation=observation)
    lead_1 = column(true, f"{LOAD_CHANNEL.name}.ahead_1")
    seen, truth = (physical(envs, envs.reset()[0])[:, lead_1:] for envs in (wrong, true))
    spread = np.std(true.task._points.load_pu)
    off = np.std(seen - truth, axis=0) / spread
    # Of 2000 forecasts the standard deviation is known to 1.6 %.
    assert off[0] == pytest.approx(0.1, rel=0.08)
    assert off[3] == pytest.approx(0.2, rel=0.08)


def test_perfect_by_default_and_nothing_is_drawn() -> None:
    task = make_task("volt_var", SMALL)
    assert not isinstance(task._imperfection, Imperfection)
    assert task.new_state(2).imperfect is None
    assert make_task("volt_var", task.config_dict()).config.imperfection == ImperfectionConfig()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sample_loss": 1.5}, "sample_loss is 1.5: give a number from 0 to 1"),
        ({"command_delay": 200}, "command_delay is 200: give a number from 0 to 96"),
        ({"voltage_class": -0.1}, "voltage_class is -0.1"),
        ({"forecast_error_first": 0.3}, "errors grow with the lead"),
        ({"sample_los": 0.1}, "sample_loss"),
    ],
)
def test_wrong_imperfection_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("volt_var", SMALL | {"imperfection": given})


def test_first_observation_of_a_day_is_as_noisy_as_the_others() -> None:
    config = {"feeder": "ieee13", "num_days": 10, "step_minutes": 60}
    envs = [
        make_vector_env("volt_var", config | {"imperfection": imperfection}, 400)
        for imperfection in ({"voltage_class": 3.0, "sample_delay": 2}, {})
    ]
    seen, true = (env.reset(seed=0, options={"days": np.full(400, 3)})[0] for env in envs)
    channels = envs[0].task.observation_channels
    is_voltage = [channel.name.startswith("vmag_pu.") for channel in channels]
    seen, true = (physical_observations(channels, each)[:, is_voltage] for each in (seen, true))
    assert (seen / true - 1.0).std(axis=0) == pytest.approx(0.01, rel=0.2)
