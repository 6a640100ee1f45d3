"""Policies of devices: one set of weights for any feeder, whatever the algorithm."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from gridray.algorithms.bundle import DEVICES, MANIFEST, adapt_bundle, load_bundle, save_bundle
from gridray.algorithms.device_layout import RELATIONS, DeviceLayout, device_layout
from gridray.algorithms.device_networks import DeviceArchitecture
from gridray.algorithms.registry import LEARNERS, make_learner, task_learner
from gridray.algorithms.settings import NetworkSettings
from gridray.cli import main
from gridray.errors import BundleError, ConfigError
from gridray.tasks.registry import make_task
from gridray.tasks.view_layout import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.algorithms.policy import LearnedPolicy
    from gridray.tasks.base import Task

FEEDERS = ("ieee13", "synthetic-60-1")
SHAPES = ("local", "graph")
SMALL = {"hidden_sizes": [16, 16, 16], "learning_rate": 3e-3}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    """A feeder with regulators and one without."""
    return {name: make_task("volt_var", {"feeder": name, "num_days": 10}) for name in FEEDERS}


def rows_of(task: Task, num_rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return transitions of the task's sizes; their numbers mean nothing."""
    rng = np.random.default_rng(seed)
    num_observations, num_actions = len(task.observation_channels), len(task.action_channels)
    floats = {
        "obs": rng.normal(size=(num_rows, num_observations)),
        "new_obs": rng.normal(size=(num_rows, num_observations)),
        "actions": rng.uniform(-1.0, 1.0, (num_rows, num_actions)),
        "new_actions": rng.uniform(-1.0, 1.0, (num_rows, num_actions)),
        "has_new_actions": rng.random(num_rows) < 0.9,
        "rewards": rng.normal(size=num_rows),
        "cost_voltage_violation_pu": rng.exponential(size=num_rows),
    }
    columns = {name: np.asarray(values, dtype=np.float32) for name, values in floats.items()}
    return columns | {"terminateds": rng.random(num_rows) < 0.1}


def learner_for(name: str, task: Task, shape: str, *, seed: int = 3, **config: Any) -> Any:  # noqa: ANN401  # tests look inside
    return task_learner(name, task, config={**SMALL, "policy": shape, **config}, seed=seed)


def renumbered(layout: DeviceLayout, order: NDArray[np.int64]) -> DeviceLayout:
    """Return the same devices in another order."""
    place = np.argsort(order)
    return layout._replace(
        source=layout.source[order],
        static=layout.static[order],
        kind_index=layout.kind_index[order],
        action_index=layout.action_index[order],
        edges=np.stack((layout.edges[0], place[layout.edges[1]], place[layout.edges[2]])),
    )


@pytest.mark.parametrize(("name", "shape"), [*product(sorted(LEARNERS), SHAPES)])
def test_every_learner_trains_both_and_weights_know_no_feeder(name: str, shape: str, tasks: dict[str, Task]) -> None:
    heads = ("continuous", "mixed") if LEARNERS[name][0].has_mixed_actions else ("continuous",)
    for head in heads:
        config = {"action_head": head} if len(heads) > 1 else {}
        learners = {feeder: learner_for(name, task, shape, **config) for feeder, task in tasks.items()}
        first, second = (learner.get_weights() for learner in learners.values())
        assert {key: array.tobytes() for key, array in first.items()} == {
            key: array.tobytes() for key, array in second.items()
        }
        for feeder, task in tasks.items():
            learner, batch = learners[feeder], rows_of(task, 32)
            stopped = learner_for(name, task, shape, seed=9, **config)
            learner.update(batch)
            stopped.set_training_state(learner.get_training_state())
            stopped.set_weights(learner.get_weights())
            for _ in range(2):
                assert learner.update(batch) == stopped.update(batch)
            after = learner.get_weights()
            moved = {key.partition(".")[0] for key, array in after.items() if (array != first[key]).any()}
            # The normaliser keeps still, and the multiplier as long as the cost is within its budget.
            assert moved >= {key.partition(".")[0] for key in after} - {"normaliser", "multiplier"}


@pytest.mark.parametrize(
    ("name", "shape", "config"),
    [
        ("awr", "graph", {"temperature": 3.0}),
        ("cql", "local", {"actor_learning_rate": 1e-2, "num_action_samples": 2}),
        ("iql", "local", {"temperature": 10.0, "target_rate": 0.1}),
        ("iql_lagrange", "graph", {"temperature": 10.0, "target_rate": 0.1, "budget": 1e6}),
        ("rebrac", "graph", {}),
        ("td3_bc", "local", {"value_weight": 10.0}),
    ],
)
def test_values_of_all_devices_together_teach_each_what_to_do(
    name: str, shape: str, config: dict[str, Any], tasks: dict[str, Task]
) -> None:
    """The reward asks inverters for 0.5 and capacitors for -0.5; the data does anything."""
    task = tasks["synthetic-60-1"]
    learner = learner_for(name, task, shape, discount=0.0, **(config | {"learning_rate": 1e-2}))
    wanted = np.array([-0.5 if channel.name.startswith("capacitor") else 0.5 for channel in task.action_channels])
    for step in range(100):
        batch = rows_of(task, 128, seed=step)
        rewards = 3.0 - 9.0 * np.square(batch["actions"] - wanted).mean(axis=1)
        learner.update(batch | {"rewards": rewards.astype(np.float32)})
    actions = learner.policy().act(rows_of(task, 64, seed=999)["obs"], RNG).mean(axis=0)
    # Cloning the data gives 0 for each.
    towards = np.sign(wanted) * actions
    assert towards.mean() > 0.1
    assert towards[wanted < 0.0].mean() > 0.0


@pytest.mark.parametrize(("name", "shape"), [("bc", "local"), ("cql", "graph"), ("td3_bc", "graph")])
def test_arrays_act_as_the_network_does(name: str, shape: str, tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        learner, batch = learner_for(name, task, shape), rows_of(task, 16)
        learner.update(batch)
        networks = learner.networks
        with torch.no_grad():
            views = networks.normaliser.prepare(torch.from_numpy(batch["obs"]))
            expected = networks.actor.greedy(networks.normaliser.observations(views)).numpy()
        np.testing.assert_allclose(learner.policy().act(batch["obs"], RNG), expected, atol=1e-6)


def test_choices_are_those_of_the_likeliest_logits(tasks: dict[str, Task]) -> None:
    task = tasks["ieee13"]
    learner, batch = learner_for("bc", task, "graph", action_head="mixed"), rows_of(task, 64)
    wanted = np.tile(batch["actions"][:1], (64, 1))
    for _ in range(150):
        learner.update(batch | {"actions": wanted})
    actions = learner.policy().act(batch["obs"], RNG)
    kinds = np.array([channel.kind for channel in task.action_channels])
    # A step of a tap is 1/4 of the range, a switch has thirds; devices of a kind cannot but do alike on noise.
    grid = learner.policy().grid
    assert grid is not None
    assert sorted(grid.discrete) == np.flatnonzero(kinds != "continuous").tolist()
    regulators = actions[:, :3] * 4.0
    assert (np.abs(regulators) <= 4.0).all()
    assert len(np.unique(regulators)) <= 9
    assert set(np.unique(actions[:, 3:5])) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("shape", SHAPES)
def test_order_of_devices_changes_nothing_but_the_order(shape: str, tasks: dict[str, Task]) -> None:
    task = tasks["ieee13"]
    learner, batch = learner_for("iql", task, shape), rows_of(task, 8)
    layout, policy = device_layout(task), learner.policy()
    other = renumbered(layout, np.random.default_rng(1).permutation(layout.num_devices))
    expected = policy.act(batch["obs"], RNG)
    np.testing.assert_allclose(policy.on(other, task.action_channels).act(batch["obs"], RNG), expected, atol=1e-6)
    values = []
    for each in (layout, other):
        architecture = DeviceArchitecture(each, (16, 16, 16), shape == "graph")
        networks = LEARNERS["iql"][0](architecture, LEARNERS["iql"][1](hidden_sizes=(16, 16, 16)))
        networks.load_state_dict(learner.networks.state_dict())
        views = networks.normaliser.prepare(torch.from_numpy(batch["obs"]))
        parts: Any = dict(networks.named_children())
        values.append((parts["critic"](views, torch.from_numpy(batch["actions"])), parts["value"](views)))
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_devices_of_a_kind_that_change_places_change_set_points(tasks: dict[str, Task]) -> None:
    """What one inverter sees decides what it does, and which one it is does not."""
    task = tasks["ieee13"]
    layout, policy = device_layout(task), learner_for("bc", task, "local").policy()
    first, second = np.flatnonzero(layout.kind_index == KINDS.index("pv"))[:2]
    source, static = layout.source.copy(), layout.static.copy()
    for array in (source, static):
        array[[first, second]] = array[[second, first]]
    swapped = policy.on(layout._replace(source=source, static=static), task.action_channels)
    obs = rows_of(task, 4)["obs"]
    before, after = policy.act(obs, RNG), swapped.act(obs, RNG)
    columns = layout.action_index[[first, second]]
    np.testing.assert_array_equal(after[:, columns[0]], before[:, columns[1]])
    np.testing.assert_array_equal(after[:, columns[1]], before[:, columns[0]])
    rest = np.setdiff1d(np.arange(len(task.action_channels)), columns.ravel())
    np.testing.assert_array_equal(after[:, rest], before[:, rest])
    assert (before[:, columns[0]] != before[:, columns[1]]).any()


def test_neighbours_are_the_nearest_devices_along_the_feeder(tasks: dict[str, Task]) -> None:
    """IEEE 13: source, regulators at rg60, then 632, 670, 671; behind 671 are 680, 692-675, 684-611."""
    task: Any = tasks["ieee13"]
    names, edges = task.local_views.device_names, device_layout(task).edges
    found = {(RELATIONS[kind], names[device], names[other]) for kind, device, other in edges.T}
    regulators = {f"regulator.reg{i}" for i in (1, 2, 3)}
    above = {
        "pv.pv632": regulators,
        "pv.pv670": {"pv.pv632"},
        "pv.pv671": {"pv.pv670"},
        "battery.battery680": {"pv.pv671"},
        "capacitor.cap1": {"pv.pv671"},
        "capacitor.cap2": {"pv.pv671"},
    }
    pairs = {(device, other) for device, others in above.items() for other in others}
    assert {(device, other) for kind, device, other in found if kind == "upstream"} == pairs
    assert {(other, device) for kind, device, other in found if kind == "downstream"} == pairs
    assert {(a, b) for kind, a, b in found if kind == "beside"} == {
        (a, b) for a, b in product(regulators, regulators) if a != b
    }


def test_messages_reach_as_many_devices_as_there_are_rounds(tasks: dict[str, Task]) -> None:
    """The battery hears in one round pv671, in two pv670 and the capacitors, in three pv632: not the regulators."""
    task: Any = tasks["ieee13"]
    names, layout = task.local_views.device_names, device_layout(task)
    battery = names.index("battery.battery680")
    reached = []
    for rounds in range(4):
        shape = "graph" if rounds else "local"
        learner = learner_for("bc", task, shape, hidden_sizes=[16] * (rounds + 1))
        network: Any = learner.networks.actor.mean
        views = torch.zeros(1, layout.num_devices, 57).requires_grad_()
        network(views)[0, layout.action_index[battery, 0]].backward()
        heard = views.grad.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
        reached.append({names[device] for device in heard})
    around = [{"battery.battery680"}, {"pv.pv671"}, {"pv.pv670", "capacitor.cap1", "capacitor.cap2"}, {"pv.pv632"}]
    assert reached == [set.union(*around[: rounds + 1]) for rounds in range(4)]


def test_bundle_acts_on_its_feeder_and_on_any_other(tasks: dict[str, Task], tmp_path: Path) -> None:
    own, other = tasks.values()
    learner = learner_for("iql", own, "graph", action_head="mixed")
    save_bundle(tmp_path / "policy", learner=learner, task=own, provenance={})
    bundle = load_bundle(tmp_path / "policy")
    obs = rows_of(own, 4)["obs"]
    np.testing.assert_array_equal(bundle.policy.act(obs, RNG), learner.policy().act(obs, RNG))
    np.testing.assert_array_equal(bundle.policy_for(own).act(obs, RNG), bundle.policy.act(obs, RNG))
    policy: LearnedPolicy = bundle.policy_for(other)
    state = other.new_state(2)
    other.reset(state, np.arange(2), np.arange(2), np.arange(2, dtype=np.uint64))
    actions = policy.act(other.observe(state), RNG)
    assert actions.shape == (2, len(other.action_channels))
    assert np.isfinite(other.step(state, actions).rewards).all()
    adapted = adapt_bundle(bundle, tmp_path / "other", task=other)
    np.testing.assert_array_equal(adapted.policy.act(other.observe(state), RNG), policy.act(other.observe(state), RNG))
    adapted.check_task(other)
    with pytest.raises(BundleError, match="for task 'volt_var', not 'storage'"):
        bundle.policy_for(make_task("storage", {"num_days": 10}))
    with pytest.raises(BundleError, match="for feeder 'ieee13'"):
        bundle.check_task(other)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("source", lambda array: np.full_like(array, 10**6), "points to what is not there"),
        ("group_start", lambda array: array[::-1].copy(), "points to what is not there"),
        ("edges", lambda array: array + 100, "points to what is not there"),
        ("action_index", np.zeros_like, "points to what is not there"),
        ("kind_index", lambda array: array[:-1], "it must be"),
        ("static", lambda array: array.astype(np.float64), "static is float64"),
    ],
)
def test_layout_that_points_elsewhere_is_refused(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]], message: str, tasks: dict[str, Task]
) -> None:
    arrays = device_layout(tasks["ieee13"]).arrays()
    with pytest.raises(ConfigError, match=message):
        DeviceLayout.from_arrays(arrays | {name: change(arrays[name])})
    del arrays[name]
    with pytest.raises(ConfigError, match="has the arrays"):
        DeviceLayout.from_arrays(arrays)


def test_bundle_without_its_layout_is_refused(tasks: dict[str, Task], tmp_path: Path) -> None:
    task = tasks["synthetic-60-1"]
    path = tmp_path / "policy"
    save_bundle(path, learner=learner_for("bc", task, "local"), task=task, provenance={})
    content = (path / DEVICES).read_bytes()
    (path / DEVICES).write_bytes(content[:-4] + bytes(4))
    with pytest.raises(BundleError, match="another SHA-256"):
        load_bundle(path)
    (path / DEVICES).write_bytes(content)
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["files"][DEVICES]
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"must list the files devices\.safetensors, policy\.safetensors"):
        load_bundle(path)
    assert safetensors.numpy.load(content)["num_observations"] == len(task.observation_channels)


def test_command_writes_the_bundle_of_another_feeder(
    tasks: dict[str, Task], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = tasks.values()
    save_bundle(tmp_path / "policy", learner=learner_for("bc", own, "local"), task=own, provenance={})
    (tmp_path / "other.yaml").write_text("feeder: synthetic-60-1\nnum_days: 10\n")
    arguments = ["adapt", str(tmp_path / "policy"), "--config", str(tmp_path / "other.yaml")]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", str(tmp_path / "adapted"), "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["feeder"] == other.feeder.name
    load_bundle(tmp_path / "adapted").check_task(other)


def test_what_cannot_be_is_refused(tasks: dict[str, Task]) -> None:
    task = tasks["ieee13"]
    with pytest.raises(ConfigError, match="give 2 to 4"):
        learner_for("bc", task, "graph", hidden_sizes=[8])
    with pytest.raises(ConfigError, match="needs one layer or more"):
        learner_for("bc", task, "local", hidden_sizes=[])
    with pytest.raises(ConfigError, match="needs the devices of a task"):
        make_learner("bc", observation_size=3, action_size=2, config={"policy": "local"})
    with pytest.raises(ConfigError, match="RLlib's learners have flat policies only"):
        task_learner("rllib_bc", task, config={"policy": "local"})
    assert NetworkSettings().policy == "flat"
