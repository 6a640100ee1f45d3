"""Full, metered and local observations of every task, and the contract of local views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from gridray.envs.registration import make_env, make_vector_env
from gridray.errors import ConfigError
from gridray.policies.registry import make_policy
from gridray.tasks.registry import TASKS, make_task
from gridray.tasks.view_layout import FEATURES, KINDS, MAX_ACTIONS, WIDTH

SMALL: dict[str, Any] = {"num_days": 10, "step_minutes": 60}


def observed(name: str, num_envs: int = 3, **config: Any) -> tuple[Any, np.ndarray]:
    envs = make_vector_env(name, SMALL | config, num_envs, seed=2)
    envs.reset(seed=2)
    for _ in range(3):
        observations, *_ = envs.step(np.zeros(envs.action_space.shape, envs.action_space.dtype))
    return envs.task, observations


@pytest.mark.parametrize("name", sorted(TASKS))
def test_metered_points_are_some_of_the_full_state(name: str) -> None:
    full, whole = observed(name)
    task, part = observed(name, observation={"mode": "metered", "metered_share": 0.2})
    names = [channel.name for channel in full.observation_channels]
    columns = [names.index(channel.name) for channel in task.observation_channels]
    np.testing.assert_array_equal(part, whole[:, columns])
    left_out = [name for i, name in enumerate(names) if i not in columns]
    assert left_out
    assert all(name.startswith("vmag_pu.") for name in left_out)


def test_metered_buses_are_those_named_and_those_of_devices() -> None:
    task, _ = observed("volt_var", observation={"mode": "metered", "metered_buses": ("692",)})
    metered = {c.name.split(".")[1] for c in task.observation_channels if c.name.startswith("vmag_pu.")}
    assert metered == {"692"}.union(*(fleet.buses for fleet in task.twin.fleets))
    for policy in ("utility_controls", "droop"):
        assert make_policy(policy, task).act(np.zeros((2, len(task.observation_channels)), np.float32), None).any()


def test_only_devices_are_metered_unless_more_is_named() -> None:
    task, _ = observed("volt_var", observation={"mode": "metered"})
    metered = {c.name.split(".")[1] for c in task.observation_channels if c.name.startswith("vmag_pu.")}
    assert metered == set().union(*(fleet.buses for fleet in task.twin.fleets))


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("points", [{}, {"metered_share": 0.3}], ids=["all", "metered"])
def test_local_mode_shows_the_views_that_the_points_give(name: str, points: dict[str, Any]) -> None:
    mode = {"mode": "metered", **points} if points else {}
    seeing, observations = observed(name, observation=mode)
    local, flat = observed(name, observation={"mode": "local", **points})
    np.testing.assert_array_equal(local.views(flat), seeing.views(observations))
    assert flat.shape[1] == len(local.observation_channels)
    assert local.views(flat).shape == (3, local.local_views.num_devices, WIDTH)


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("mode", ["metered", "local"])
def test_check_env_passes_in_every_mode_with_imperfect_meters(name: str, mode: str) -> None:
    observation = {"mode": mode, "metered_share": 0.3, "load_look_ahead": 2}
    imperfection = {"voltage_class": 1.0, "sample_delay": 1, "sample_loss": 0.1, "command_delay": 1}
    env = make_env(name, **SMALL, observation=observation, imperfection=imperfection)
    check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (len(env.task.observation_channels),)


@pytest.mark.parametrize("feeder", ["ieee13", "ieee34", "ieee123"])
def test_views_have_one_width_on_every_feeder(feeder: str) -> None:
    task, observations = observed("volt_var", feeder=feeder)
    local, views = task.local_views, task.views(observations)
    assert views.shape == (
        3,
        sum(len(fleet.names) for fleet in task.twin.fleets if fleet.observation_channels),
        len(FEATURES),
    )
    np.testing.assert_array_equal(views[:, :, : len(KINDS)].argmax(axis=2), np.tile(local.kind_index, (3, 1)))
    assert np.isfinite(views).all()


def test_view_shows_the_device_its_bus_and_what_it_feeds() -> None:
    task, observations = observed("volt_var", feeder="ieee34")
    local, views = task.local_views, task.views(observations)
    names = [channel.name for channel in task.observation_channels]
    column, feature = names.index, FEATURES.index
    device = local.device_names.index("regulator.reg2a")
    bus = local.device_buses[device]
    own = observations[:, [column("regulator.reg2a.tap"), column("regulator.reg2a.control_v")]]
    np.testing.assert_array_equal(views[:, device, feature("own.0") : feature("own.0") + 2], own)
    np.testing.assert_array_equal(views[:, device, feature("bus.vmag.2")], observations[:, column(f"vmag_pu.{bus}.2")])
    # Regulator 2 is at 832, the far end of the feeder is fed through it and 808 is not.
    far, before = column("vmag_pu.840.1"), column("vmag_pu.808.1")
    low, high = (views[:, device, feature(f"below.vmag.{name}")] for name in ("min", "max"))
    assert ((low <= observations[:, far]) & (observations[:, far] <= high)).all()
    assert not ((low <= observations[:, before]) & (observations[:, before] <= high)).all()
    assert views[0, device, feature("static.load_below")] < 1.0
    phases = [views[0, device, feature(f"static.phase.{phase}")] for phase in (1, 2, 3)]
    assert sum(phases) == 1.0


def test_view_marks_what_is_not_metered() -> None:
    task, observations = observed("volt_var", feeder="ieee34", observation={"mode": "metered", "metered_share": 0.0})
    views, feature = task.views(observations), FEATURES.index
    upstream = views[0, :, feature("upstream.is_metered")]
    assert (upstream == 0.0).any()
    assert (views[:, upstream == 0.0, feature("upstream.vmag.mean")] == 0.0).all()
    # The voltage at a device is its own reading.
    assert (views[0, :, feature("bus.is_metered.1") : feature("bus.is_metered.3") + 1].sum(axis=1) > 0.0).all()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_actions_by_device_and_back(name: str) -> None:
    task = make_task(name, SMALL)
    local = task.local_views
    actions = np.random.default_rng(0).uniform(-1, 1, (5, len(task.action_channels))).astype(np.float32)
    by_device = local.by_device(actions)
    assert by_device.shape == (5, local.num_devices, MAX_ACTIONS)
    assert (by_device[:, ~local.action_mask] == 0.0).all()
    np.testing.assert_array_equal(local.joined(by_device + np.where(local.action_mask, 0.0, 9.0)), actions)
    for device, columns in zip(local.device_names, local.action_index, strict=True):
        assert all(task.action_channels[c].name.startswith(f"{device}.") for c in columns if c >= 0)


def test_load_forecast_is_the_load_to_come() -> None:
    envs = make_vector_env("volt_var", SMALL | {"observation": {"load_look_ahead": 3}}, 2, seed=0)
    names = [channel.name for channel in envs.task.observation_channels]
    column = names.index("load.total_pu.ahead_1")
    far, _ = envs.reset(seed=0)
    for _ in range(2):
        near, *_ = envs.step(np.zeros(envs.action_space.shape, np.float32))
    np.testing.assert_array_equal(near[:, column], far[:, column + 2])
    assert len(names) == column + 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metered_share": 0.5}, "mode is 'full'"),
        ({"mode": "metered", "metered_share": 1.5}, "metered_share is 1.5"),
        ({"mode": "metered", "metered_share": 0.5, "metered_buses": ("680",)}, "give one of them"),
        ({"mode": "metered", "metered_buses": ("688",)}, "'688', which feeder 'ieee13' has not"),
        ({"load_look_ahead": -1}, "load_look_ahead is -1"),
        ({"metred_share": 0.5}, "metered_share"),
    ],
)
def test_wrong_observation_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("volt_var", SMALL | {"observation": given})
