"""The environments keep gymnasium's contracts and the task's physics."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from gridray.envs.registration import ENV_IDS, make_env, make_vector_env
from gridray.errors import ConfigError
from gridray.policies.registry import POLICIES, make_policy
from gridray.tasks.base import physical_observations, scaled_actions, set_points
from gridray.tasks.registry import TASKS, make_task

SMALL = {"feeder": "ieee13", "num_days": 10, "step_minutes": 60}


@pytest.mark.parametrize("env_id", sorted(ENV_IDS))
def test_check_env_passes_without_warning(env_id: str) -> None:
    env = gymnasium.make(env_id, num_days=5, disable_env_checker=True).unwrapped
    check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (len(env.task.observation_channels),)


def test_vector_env_is_found_by_its_id() -> None:
    envs = gymnasium.make_vec(
        "gridray/VoltVar-ieee13-v0", num_envs=3, vectorization_mode="vector_entry_point", num_days=5
    )
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observations, _ = envs.reset(seed=1)
    assert observations.shape == (3, len(envs.task.observation_channels))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_task_reports_costs_and_takes_its_own_configuration_back(name: str) -> None:
    task = make_task(name, SMALL)
    assert make_task(name, task.config_dict()).config == task.config
    state = task.new_state(4)
    task.reset(state, np.arange(4), task.allowed_days()[:4], np.arange(4, dtype=np.uint64))
    actions = np.random.default_rng(0).uniform(-1, 1, (4, len(task.action_channels))).astype(np.float32)
    result = task.step(state, actions)
    assert tuple(result.costs) == task.cost_names
    for cost in result.costs.values():
        assert cost.shape == (4,)
        assert (cost >= 0.0).all()
    assert np.isfinite(task.observe(state)).all()


def test_held_out_days_are_never_trained_on() -> None:
    days = {
        part: set(make_task("volt_var", SMALL | {"days": part}).allowed_days().tolist())
        for part in ("train", "held_out", "all")
    }
    assert not days["train"] & days["held_out"]
    assert days["train"] | days["held_out"] == days["all"]


def test_episode_is_one_day_and_the_next_row_is_a_reset() -> None:
    envs = make_vector_env("volt_var", SMALL, 2, seed=3)
    envs.reset(seed=3)
    zero = np.zeros(envs.action_space.shape, np.float32)
    for hour in range(24):
        _, _, terminated, truncated, _ = envs.step(zero)
        assert not terminated.any()
        assert truncated.all() == (hour == 23)
    after, rewards, _, truncated, infos = envs.step(zero)
    assert (rewards == 0.0).all()
    assert not truncated.any()
    assert (infos["cost_losses_kwh"] == 0.0).all()
    again, _ = make_vector_env("volt_var", SMALL, 2).reset(options={"days": infos["day"]})
    np.testing.assert_array_equal(after, again)


def test_environment_does_not_depend_on_how_many_there_are() -> None:
    few, many = make_vector_env("volt_var", SMALL, 2, seed=5), make_vector_env("volt_var", SMALL, 19, seed=5)
    first, other = few.reset()[0], many.reset()[0]
    rng = np.random.default_rng(0)
    for _ in range(26):
        np.testing.assert_array_equal(first, other[:2])
        actions = rng.uniform(-1, 1, many.action_space.shape).astype(np.float32)
        first, other = few.step(actions[:2])[0], many.step(actions)[0]


def test_single_env_equals_row_of_vector_env() -> None:
    single, vector = make_env("volt_var", **SMALL), make_vector_env("volt_var", SMALL, 3)
    observation, _ = single.reset(options={"day": 4})
    observations, _ = vector.reset(options={"days": [1, 4, 7]})
    np.testing.assert_array_equal(observation, observations[1])
    action = np.full(single.action_space.shape, 0.6, np.float32)
    _, reward, _, _, _ = single.step(action)
    _, rewards, _, _, _ = vector.step(np.tile(action, (3, 1)))
    assert reward == rewards[1]


def test_state_of_charge_never_leaves_its_range_and_energy_is_kept() -> None:
    task = make_task("volt_var", SMALL)
    state = task.new_state(1)
    task.reset(state, np.arange(1), np.array([2]), np.zeros(1, dtype=np.uint64))
    rng = np.random.default_rng(0)
    battery_kw = next(i for i, channel in enumerate(task.action_channels) if channel.name.startswith("battery."))
    for _ in range(48):
        before = state.fleets["battery"].soc
        actions = np.zeros((1, len(task.action_channels)), np.float32)
        actions[0, battery_kw] = rng.choice([-1.0, 1.0])
        task.step(state, actions)
        after = state.fleets["battery"]
        kw = after.kw[-1, 0]
        stored = (after.soc - before)[0, 0] * task.feeder.generators[-1].kwh
        assert stored == pytest.approx(-kw / 0.95 if kw > 0 else -kw * 0.95, abs=1e-9)
        assert 0.0 <= after.soc[0, 0] <= 1.0


def test_inverters_stay_within_their_rating() -> None:
    task = make_task("volt_var", SMALL)
    state = task.new_state(8)
    task.reset(state, np.arange(8), task.allowed_days()[:8], np.arange(8, dtype=np.uint64))
    rng = np.random.default_rng(0)
    for _ in range(24):
        task.step(state, rng.choice([-1.0, 1.0], (8, len(task.action_channels))).astype(np.float32))
        kw, kvar = (
            np.concatenate([getattr(state.fleets[kind], name) for kind in ("pv", "battery")]) for name in ("kw", "kvar")
        )
        assert (np.hypot(kw, kvar) <= task.grid.generator_kva[:, None] + 1e-9).all()


def test_more_reactive_power_raises_voltage() -> None:
    task = make_task("volt_var", SMALL)
    names = [channel.name for channel in task.action_channels]
    seen = []
    for level in (-1.0, 1.0):
        state = task.new_state(1)
        task.reset(state, np.arange(1), np.array([2]), np.zeros(1, dtype=np.uint64))
        actions = np.zeros((1, len(names)), np.float32)
        actions[0, [i for i, name in enumerate(names) if name.endswith(".kvar")]] = level
        task.step(state, actions)
        seen.append(task.voltages(state)[0, 6:].mean())
    assert seen[1] > seen[0] + 0.005


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_policy_acts_within_range(name: str) -> None:
    envs = make_vector_env("volt_var", SMALL, 3)
    policy = make_policy(name, envs.task)
    observations, _ = envs.reset(seed=0)
    actions = policy.act(observations, np.random.default_rng(0))
    assert actions.dtype == np.float32
    assert envs.action_space.contains(actions)


def test_utility_controls_do_nothing_when_at_rest() -> None:
    envs = make_vector_env("volt_var", SMALL, 5)
    observations, _ = envs.reset(seed=0)
    policy = make_policy("utility_controls", envs.task)
    decoded = set_points(envs.task.action_channels, policy.act(observations, np.random.default_rng(0)))
    assert (decoded[:, : len(envs.task.grid.tap_names)] == 0.0).all()


def test_utility_controls_pull_control_voltage_back_into_the_band() -> None:
    envs = make_vector_env("volt_var", SMALL, 4)
    task = envs.task
    observations, _ = envs.reset(seed=0)
    envs.step(scaled_actions(task.action_channels, {"regulator.reg1.tap_change": np.full(4, 4.0)}))
    policy = make_policy("utility_controls", task)
    column = [c.name for c in task.observation_channels].index("regulator.reg1.control_v")
    observations, *_ = envs.step(scaled_actions(task.action_channels, {"regulator.reg1.tap_change": np.full(4, 4.0)}))
    away = np.abs(physical_observations(task.observation_channels, observations)[:, column] - 122.0)
    observations, *_ = envs.step(policy.act(observations, np.random.default_rng(0)))
    near = np.abs(physical_observations(task.observation_channels, observations)[:, column] - 122.0)
    assert (near < away).all()


def test_set_points_round_trip() -> None:
    task = make_task("volt_var", SMALL)
    values = {"regulator.reg1.tap_change": np.array([3.0, -2.0]), "capacitor.cap1.state": np.array([0.0, np.nan])}
    decoded = set_points(task.action_channels, scaled_actions(task.action_channels, values))
    names = [channel.name for channel in task.action_channels]
    for name, expected in values.items():
        np.testing.assert_array_equal(decoded[:, names.index(name)], expected)


def test_nan_action_is_refused_by_name() -> None:
    envs = make_vector_env("volt_var", SMALL, 2)
    envs.reset(seed=0)
    actions = np.zeros(envs.action_space.shape, np.float32)
    actions[1, 0] = np.nan
    with pytest.raises(ConfigError, match=r"regulator\.reg1\.tap_change.*environment 1 is nan"):
        envs.step(actions)


def test_unknown_task_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="pv_share"):
        make_task("volt_var", {"pv_shar": 0.3})


def test_list_of_seeds_seeds_each_environment() -> None:
    envs = make_vector_env("volt_var", {"step_minutes": 60, "num_days": 300}, 3)
    days = [envs.reset(seed=[1, second, 5])[1]["day"] for second in range(6)]
    assert len({int(day[0]) for day in days}) == len({int(day[2]) for day in days}) == 1
    assert len({int(day[1]) for day in days}) > 1
    with pytest.raises(ConfigError, match="seed has 2 entries"):
        envs.reset(seed=[1, 2])


def test_reset_row_costs_nothing_and_counts_as_solved() -> None:
    envs = make_vector_env("volt_var", {"step_minutes": 60, "num_days": 10}, 2)
    envs.reset(seed=0)
    for _ in range(envs.task.num_steps):
        envs.step(np.zeros(envs.action_space.shape, np.float32))
    _, rewards, _, _, infos = envs.step(np.zeros(envs.action_space.shape, np.float32))
    assert (rewards == 0.0).all()
    assert (infos["converged"] == 1.0).all()
    assert all((value == 0.0).all() for name, value in infos.items() if name.startswith("cost_"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"day": 3}, "no option 'day': give days or seeds"),
        ({"reset_mask": np.array([True, False])}, "no option 'reset_mask'"),
        ({"days": [3, 40]}, r"options\['days'\] has 40: give days from 0 to 9"),
        ({"days": [-1, 3]}, r"options\['days'\] has -1"),
        ({"days": [0.5, 3]}, "give whole numbers from 0"),
        ({"seeds": [-1, 3]}, "give whole numbers from 0"),
        ({"days": 3}, r"shape \(\): give \(2,\)"),
    ],
)
def test_reset_takes_no_option_that_means_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_vector_env("volt_var", SMALL, 2).reset(options=options)


def test_single_environment_takes_one_day_and_no_step_comes_before_reset() -> None:
    single = make_env("volt_var", **SMALL)
    with pytest.raises(ConfigError, match="call reset before the first step"):
        single.step(np.zeros(single.action_space.shape, np.float32))
    with pytest.raises(ConfigError, match="no option 'days': give day"):
        single.reset(options={"days": [3]})
    with pytest.raises(ConfigError, match="seed is -1"):
        single.reset(seed=-1)
    assert single.reset(options={"day": 9})[1] == {"day": 9}


def test_single_environment_is_checked_as_made_and_its_day_ends() -> None:
    single = make_env("volt_var", **SMALL)
    check_env(single)
    assert gymnasium.make(single.spec).unwrapped.task.config == single.task.config
    single.reset(seed=0)
    action = np.zeros(single.action_space.shape, np.float32)
    with pytest.raises(ConfigError, match=r"The action has shape \(1, 13\): give \(13,\)"):
        single.step(action[None])
    with pytest.raises(ConfigError, match="of type complex128: give real numbers"):
        single.step(action.astype(complex))
    ends = [single.step(action)[3] for _ in range(single.task.num_steps)]
    assert ends == [False] * (len(ends) - 1) + [True]
    with pytest.raises(ConfigError, match="The day is over: call reset"):
        single.step(action)
    single.reset()
    single.step(action)


@pytest.mark.parametrize("seed", ["a", 1.5, -1, [0, "a"]])
def test_seeds_are_whole_numbers(seed: object) -> None:
    with pytest.raises(ConfigError, match="give a whole number from 0"):
        make_vector_env("volt_var", SMALL, 2).reset(seed=seed)
