"""Recording: the same rows from any number of actors, with or without Ray, in one go or after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gridray.cli import main
from gridray.config import load_config
from gridray.datasets.drive import Driver
from gridray.datasets.record import RECORDED_COLUMNS, RecordConfig, make_behaviour, record
from gridray.datasets.schema import make_table, to_arrays, transition_schema
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import ConfigError, DatasetError
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.datasets.dataset import OfflineDataset
    from gridray.tasks.base import Task

HOUR = np.timedelta64(1, "h")
CONFIG = RecordConfig(
    task_config={"feeder": "ieee13", "step_minutes": 60, "num_days": 10},
    noise_std=0.1,
    random_share=0.5,
    num_episodes=10,
    num_envs=2,
    seed=5,
    rows_per_shard=96,
)


def sorted_rows(dataset: OfflineDataset) -> dict[str, NDArray[Any]]:
    columns = dataset.load()
    order = np.lexsort((columns["t"], columns["eps_id"]))
    return {name: values[order] for name, values in columns.items()}


def assert_equal_rows(first: OfflineDataset, second: OfflineDataset) -> None:
    expected, rows = sorted_rows(first), sorted_rows(second)
    assert set(rows) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(rows[name], values, err_msg=name)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    return record(CONFIG, tmp_path_factory.mktemp("recorded") / "plain", use_ray=False)


def test_episodes_are_whole_and_linked(recorded: OfflineDataset) -> None:
    rows = sorted_rows(recorded)
    assert recorded.num_transitions == 10 * 24
    assert max(shard.rows for shard in recorded.card.shards) <= 96
    assert len(set(rows["eps_id"])) == recorded.card.num_episodes == 10
    np.testing.assert_array_equal(rows["t"], np.tile(np.arange(24), 10))
    np.testing.assert_array_equal(rows["truncateds"], rows["t"] == 23)
    assert not rows["terminateds"].any()
    follows = rows["t"] > 0
    np.testing.assert_array_equal(rows["obs"][follows], rows["new_obs"][np.roll(follows, -1)])


def test_recorded_actions_replay_to_the_recorded_rows(recorded: OfflineDataset) -> None:
    rows = sorted_rows(recorded)
    task = make_task(CONFIG.task, CONFIG.task_config)
    env = GridVectorEnv(task, 1)
    starts = {day: env.reset(options={"days": [day]})[0][0].tobytes() for day in task.allowed_days()}
    [day] = [day for day, start in starts.items() if start == rows["obs"][0].tobytes()]
    env.reset(options={"days": [day]})
    for t in range(24):
        observations, rewards, _, _, infos = env.step(rows["actions"][t : t + 1])
        np.testing.assert_array_equal(observations[0], rows["new_obs"][t])
        assert np.float32(rewards[0]) == rows["rewards"][t]
        assert np.float32(infos["cost_losses_kwh"][0]) == rows["cost_losses_kwh"][t]


def test_shards_lie_in_folders_of_utility_and_day(recorded: OfflineDataset) -> None:
    for file in recorded.files:
        utility, day = file.parent.parent.name, file.parent.name
        assert utility == "utility=default"
        with pq.ParquetFile(file) as parquet:
            stamps = parquet.read(["timestamp", "t"])
        assert stamps.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC")
        times = stamps["timestamp"].to_numpy()
        assert {f"day={date}" for date in times.astype("datetime64[D]")} == {day}
        np.testing.assert_array_equal(times, times.astype("datetime64[D]") + stamps["t"].to_numpy() * HOUR)
    table = pq.read_table(recorded.path / "shards", filters=[("day", "=", file.parent.name.removeprefix("day="))])
    assert table.num_rows == sum(s.rows for s in recorded.card.shards if file.parent.name in s.file)


def test_mixture_has_its_shares_and_names_who_acted(tmp_path: Path) -> None:
    mixed = replace(
        CONFIG, policy={"medium": 0.5, "droop": 0.5}, tiers={"medium": "utility_controls"}, random_share=0.2
    )
    mixed = replace(mixed, num_episodes=60, noise_std=0.0)
    assert mixed.shares() == pytest.approx({"utility_controls": 0.4, "droop": 0.4, "random": 0.2})
    dataset = record(mixed, tmp_path / "mixed", use_ray=False)
    rows = sorted_rows(dataset)
    policy = rows["policy_index"].reshape(60, 24)
    np.testing.assert_array_equal(policy, np.broadcast_to(policy[:, :1], policy.shape))
    counts = np.bincount(policy[:, 0], minlength=3)
    # Binomial with a standard deviation of 3.8 and 3.1 episodes.
    np.testing.assert_allclose(counts, [24, 24, 12], atol=11)
    assert dataset.card.policy == "40 % utility_controls + 40 % droop + 20 % random"
    task = make_task(mixed.task, mixed.task_config)
    for index, name in enumerate(("utility_controls", "droop")):
        mine = rows["policy_index"] == index
        expected = make_policy(name, task).act(rows["obs"][mine], np.random.default_rng(0))
        np.testing.assert_array_equal(rows["actions"][mine], np.clip(expected, -1.0, 1.0))
    assert (rows["action_logp"][rows["policy_index"] < 2] == 0.0).all()
    at_random = rows["action_logp"][rows["policy_index"] == 2]
    np.testing.assert_allclose(at_random, -rows["actions"].shape[1] * np.log(2.0), rtol=1e-6)


def test_steps_without_a_solution_are_left_out_and_none_unfinished_is_kept() -> None:
    task = make_task(CONFIG.task, CONFIG.task_config)
    driver = Driver(task, make_behaviour(CONFIG, task), task.allowed_days()[:3], seed=5, prefix="run")
    episodes = np.arange(3)
    steps = driver.drive(episodes, 2)
    sizes = len(task.observation_channels), len(task.action_channels)
    schema = transition_schema(*sizes, task.cost_names, RECORDED_COLUMNS)

    def rows() -> dict[str, NDArray[Any]]:
        return to_arrays(make_table(driver.episode_rows(steps, 1, episodes[1:]), schema, where="here"))

    whole = rows()
    np.testing.assert_array_equal(whole["obs"], steps["obs"][1:, :-1].reshape(48, -1))
    np.testing.assert_array_equal(whole["new_obs"], steps["obs"][1:, 1:].reshape(48, -1))
    steps["is_kept"][1, 5] = False
    left = rows()
    for name, values in whole.items():
        np.testing.assert_array_equal(left[name], np.delete(values, 5, axis=0), err_msg=name)
    steps["obs"][2, 3, 0] = np.nan
    with pytest.raises(DatasetError, match="here: column 'obs', row 26 is not finite"):
        rows()


def test_noise_and_random_days_do_what_they_say(recorded: OfflineDataset, tmp_path: Path) -> None:
    plain = record(replace(CONFIG, noise_std=0.0, random_share=0.0), tmp_path / "plain", use_ray=False)
    always = record(replace(CONFIG, random_share=1.0), tmp_path / "random", use_ray=False)
    noisy = record(replace(CONFIG, random_share=0.0), tmp_path / "noisy", use_ray=False)
    assert np.abs(recorded.load()["actions"]).max() <= 1.0
    # Uniform on [-1, 1] has standard deviation 0.577.
    assert always.load()["actions"].std() == pytest.approx(0.577, abs=0.02)
    first = sorted_rows(plain)["t"] == 0
    moved = (sorted_rows(noisy)["actions"] - sorted_rows(plain)["actions"])[first]
    # Days are drawn before noise, so the first observations and what the controls propose are the same.
    inside = np.abs(sorted_rows(plain)["actions"][first]) < 0.5
    assert 0.05 < moved[inside].std() < 0.15
    assert min(plain.card.returns.mean, noisy.card.returns.mean) > always.card.returns.mean
    held = record(replace(CONFIG, random_share=0.0, noise_steps=4), tmp_path / "held", use_ray=False)
    by_step = [sorted_rows(dataset)["actions"] for dataset in (noisy, held)]
    np.testing.assert_array_equal(by_step[0][first], by_step[1][first])
    assert (by_step[0] != by_step[1]).any()


def test_episodes_do_not_depend_on_what_they_run_beside(recorded: OfflineDataset, tmp_path: Path) -> None:
    other = record(replace(CONFIG, num_envs=5, rows_per_shard=48), tmp_path / "wide", use_ray=False)
    assert len(other.files) > len(recorded.files)
    expected, rows = sorted_rows(recorded), sorted_rows(other)
    for name in ("obs", "actions", "rewards", "new_obs", "action_logp", "timestamp"):
        np.testing.assert_array_equal(rows[name], expected[name], err_msg=name)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("num_actors", [1, 2])
def test_actors_record_what_one_process_records(recorded: OfflineDataset, tmp_path: Path, num_actors: int) -> None:
    finished: list[int] = []
    dataset = record(replace(CONFIG, num_actors=num_actors), tmp_path / "actors", finished.append)
    assert_equal_rows(recorded, dataset)
    assert dataset.card == recorded.card
    assert sum(finished) == 10


@pytest.mark.usefixtures("ray_local")
def test_actor_that_dies_is_replaced_and_no_row_is_lost(recorded: OfflineDataset, tmp_path: Path) -> None:
    has_died = tmp_path / "has_died"

    class Fragile:
        """Ends its process in the first day, once."""

        name = "utility_controls"

        def __init__(self, task: Task) -> None:
            self._policy = make_policy(self.name, task)
            self._num_calls = 0

        def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
            self._num_calls += 1
            if self._num_calls > 30 and not has_died.exists():
                has_died.touch()
                os._exit(1)
            return self._policy.act(observations, rng)

    dataset = record(CONFIG, tmp_path / "north", policy_maker=lambda _name, task: Fragile(task))
    assert has_died.exists()
    assert_equal_rows(recorded, dataset)


def test_stopped_run_keeps_its_finished_shards(recorded: OfflineDataset, tmp_path: Path) -> None:
    path = tmp_path / "north"
    stop_after_first_shard(path)
    first = first_shard(tmp_path / ".partial-north")
    written = first.stat().st_mtime_ns
    finished: list[int] = []
    dataset = record(CONFIG, path, finished.append, use_ray=False)
    assert_equal_rows(recorded, dataset)
    assert finished[0] >= 2
    assert sum(finished) == 10
    assert dataset.files[0].stat().st_mtime_ns == written


def first_shard(folder: Path) -> Path:
    return min((folder / "shards").rglob("*.parquet"))


def stop_after_first_shard(path: Path) -> None:
    def stop(num_episodes: int) -> None:
        if num_episodes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(CONFIG, path, stop, use_ray=False)
    assert not path.exists()


def test_damaged_shard_of_a_stopped_run_is_made_again(recorded: OfflineDataset, tmp_path: Path) -> None:
    path = tmp_path / "north"
    stop_after_first_shard(path)
    os.truncate(first_shard(tmp_path / ".partial-north"), 1000)
    assert_equal_rows(recorded, record(CONFIG, path, use_ray=False))


def test_leftovers_of_other_settings_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "north"
    stop_after_first_shard(path)
    other = replace(CONFIG, seed=6)
    expected = record(other, tmp_path / "clean", use_ray=False)
    assert_equal_rows(expected, record(other, path, use_ray=False))
    assert not (tmp_path / ".partial-north").exists()


def test_killed_command_goes_on_without_gap_or_duplicate(recorded: OfflineDataset, tmp_path: Path) -> None:
    file, out = tmp_path / "record.yaml", tmp_path / "north"
    long = replace(CONFIG, num_episodes=200)
    settings = {name: getattr(long, name) for name in ("task_config", "noise_std", "random_share", "num_episodes")}
    file.write_text(yaml.safe_dump(settings | {"num_envs": 2, "seed": 5, "rows_per_shard": 96}), encoding="utf-8")
    command = [sys.executable, "-m", "gridray", "record", str(file), "--out", str(out), "--no-ray"]
    sidecars = tmp_path / ".partial-north" / "finished"
    with subprocess.Popen(command) as process:  # noqa: S603  # fixed words
        deadline = time.monotonic() + 60.0
        while len(list(sidecars.rglob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    dataset = record(long, out, use_ray=False)
    rows = sorted_rows(dataset)
    assert dataset.num_transitions == 200 * 24
    assert len(set(zip(rows["eps_id"], rows["t"], strict=True))) == 200 * 24
    # The first episodes of a longer recording are those of a shorter one.
    np.testing.assert_array_equal(rows["obs"][: 10 * 24], sorted_rows(recorded)["obs"])


def test_command_prints_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "north")
    with pytest.raises(SystemExit) as left:
        main(["record", "--out", out, "--episodes", "2", "--policy", "droop", "--no-ray", "--json"])
    assert left.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["path"] == out
    assert (shown["card"]["policy"], shown["card"]["num_transitions"]) == ("droop", 2 * 96)
    with pytest.raises(SystemExit) as left:
        main(["record", "--out", out, "--episodes", "2", "--no-ray"])
    assert left.value.code == 1
    assert "exists: remove it" in capsys.readouterr().err


def test_example_is_valid() -> None:
    config = load_config(RecordConfig, Path(__file__).parents[1] / "examples" / "record.yaml")
    assert make_task(config.task, config.task_config).feeder.name == "ieee13"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_episodes": 0}, "num_episodes is 0"),
        ({"noise_std": -1.0}, "noise_std is -1.0"),
        ({"noise_std": {"pv": 3.0}}, "noise_std is {'pv': 3.0}"),
        ({"noise_steps": 0}, "noise_steps is 0"),
        ({"random_share": 1.5}, "random_share is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"epsilon": 2.0}, "epsilon is 2.0"),
        ({"policy": {"droop": 0.5}}, "add up to 0.5"),
        ({"policy": {"droop": 1.5, "random": -0.5}}, "shares above 0"),
        ({"tiers": {"expert": "droop"}}, "Tier 'expert' has no share"),
    ],
)
def test_meaningless_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize("policy", ["utility_controls", "droop"])
def test_policy_that_reads_channels_is_refused_local_views(tmp_path: Path, policy: str) -> None:
    local = replace(CONFIG, policy=policy, task_config=CONFIG.task_config | {"observation": {"mode": "local"}})
    with pytest.raises(ConfigError, match="which the task does not observe: set mode of observation to full"):
        record(local, tmp_path / "north", use_ray=False)


def test_unknown_policy_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no policy 'drop'"):
        record(replace(CONFIG, policy="drop"), tmp_path / "north")
    assert not list(tmp_path.iterdir())
