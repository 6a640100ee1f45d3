"""Training runs and policy bundles: what is saved comes back, what was changed is refused, what was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from gridray.algorithms.bundle import MANIFEST, WEIGHTS, Bundle, load_bundle, save_bundle
from gridray.algorithms.registry import make_learner
from gridray.algorithms.train import CHECKPOINT, HistoryRow, TrainConfig, train
from gridray.cli import main
from gridray.datasets.card import task_source
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.errors import BundleError, ConfigError, DatasetError, GridRayError
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.tasks.base import Task

LEARNER = {"hidden_sizes": [8, 8]}


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("volt_var", {"num_days": 10})


@pytest.fixture(scope="module")
def dataset(task: Task, tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    """Two hundred transitions of the task's size; their numbers mean nothing."""
    rng = np.random.default_rng(0)
    num_rows, num_observations = 200, len(task.observation_channels)
    columns = {
        "eps_id": np.repeat(["a", "b"], num_rows // 2),
        "t": np.tile(np.arange(num_rows // 2), 2),
        "obs": rng.normal(size=(num_rows, num_observations)),
        "actions": rng.uniform(-1.0, 1.0, (num_rows, len(task.action_channels))),
        "rewards": rng.normal(size=num_rows),
        "new_obs": rng.normal(size=(num_rows, num_observations)),
        "terminateds": np.zeros(num_rows, dtype=np.bool_),
        "truncateds": np.tile(np.arange(num_rows // 2) == num_rows // 2 - 1, 2),
    }
    source = task_source(task, policy="random", seed=0, licence="CC0-1.0")
    return write_dataset(tmp_path_factory.mktemp("data") / "north", [columns], source)


@pytest.fixture
def bundle(task: Task, tmp_path: Path) -> Bundle:
    sizes = {"observation_size": len(task.observation_channels), "action_size": len(task.action_channels)}
    learner = make_learner("iql", **sizes, config=LEARNER, seed=3)
    return save_bundle(tmp_path / "policy", learner=learner, task=task, provenance={"kind": "test"})


@pytest.fixture
def config(dataset: OfflineDataset) -> TrainConfig:
    return TrainConfig(
        dataset=dataset.path, num_updates=6, batch_size=16, seed=5, learner=LEARNER, report_every=2, stream=False
    )


def edit_manifest(bundle: Bundle, **changes: Any) -> None:  # any JSON value
    file = bundle.path / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def observations_of(task: Task) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(5, len(task.observation_channels))).astype(np.float32)


def test_loaded_policy_acts_as_the_saved_one(bundle: Bundle, task: Task) -> None:
    loaded = load_bundle(bundle.path)
    rng = np.random.default_rng(0)
    observations = observations_of(task)
    np.testing.assert_array_equal(loaded.policy.act(observations, rng), bundle.policy.act(observations, rng))
    assert loaded.manifest == bundle.manifest
    assert loaded.manifest.provenance == {"kind": "test"}
    assert loaded.policy.name == "iql"
    assert {entry.name for entry in bundle.path.iterdir()} == {MANIFEST, WEIGHTS}
    assert not [name for name in loaded.policy.weights if "critic" in name or "value" in name]


def test_manifest_gives_its_task_back(bundle: Bundle) -> None:
    reference = load_bundle(bundle.path).manifest.task
    bundle.check_task(make_task(reference.name, reference.config))
    channel = json.loads((bundle.path / MANIFEST).read_text())["observation_channels"][0]
    assert set(channel) == {"name", "unit", "offset", "scale"}


def test_other_feeder_or_devices_are_refused(bundle: Bundle, task: Task) -> None:
    with pytest.raises(BundleError, match="for feeder 'ieee13'"):
        bundle.check_task(make_task("volt_var", {"num_days": 10, "num_pv": 1}))
    own = bundle.manifest.action_channels
    other = bundle.manifest.model_copy(update={"action_channels": (own[0]._replace(high=9.0), *own[1:])})
    with pytest.raises(BundleError, match=r"high=9\.0.* as action channel 0"):
        replace(bundle, manifest=other).check_task(task)


def test_new_bundle_takes_the_place_of_the_old_and_of_nothing_else(bundle: Bundle, task: Task, tmp_path: Path) -> None:
    sizes = {"observation_size": len(task.observation_channels), "action_size": len(task.action_channels)}
    learner = make_learner("bc", **sizes, config=LEARNER)
    save_bundle(bundle.path, learner=learner, task=task, provenance={})
    assert load_bundle(bundle.path).manifest.algorithm == "bc"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="no bundle"):
        save_bundle(tmp_path / "mine", learner=learner, task=task, provenance={})
    assert (tmp_path / "mine" / "thesis.txt").exists()
    with pytest.raises(BundleError, match="train on it"):
        save_bundle(
            tmp_path / "other",
            learner=make_learner("bc", observation_size=2, action_size=1),
            task=task,
            provenance={},
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format: Input should be 'gridray-policy'"),
        ({"format_version": 2}, "format_version"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"files": {}}, "files"),
        ({"files": {"../secret": {"sha256": "0" * 64, "bytes": 1}}}, "files"),
        ({"network": {"observation_size": 3, "action_size": 13, "hidden_sizes": [8, 8]}}, "observation_size 3"),
        ({"feeder": {"name": "ieee13", "hash": "x"}}, "feeder.hash"),
        ({"files": {WEIGHTS: {"sha256": "0" * 64, "bytes": 10**12}}}, "the manifest allows"),
    ],
)
def test_changed_manifest_is_refused(bundle: Bundle, changes: dict[str, Any], message: str) -> None:
    edit_manifest(bundle, **changes)
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle.path)
    assert message in str(caught.value)


def test_one_changed_bit_of_the_weights_is_refused(bundle: Bundle) -> None:
    content = bytearray((bundle.path / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (bundle.path / WEIGHTS).write_bytes(content)
    with pytest.raises(BundleError, match="another SHA-256"):
        load_bundle(bundle.path)


def test_bad_arrays_are_refused_even_with_the_right_digest(bundle: Bundle, task: Task) -> None:
    sizes = {"observation_size": len(task.observation_channels), "action_size": len(task.action_channels)}
    learner = make_learner("bc", **sizes, config=LEARNER)
    name = "actor.mean.layers.0.bias"
    learner.set_weights(learner.get_weights() | {name: np.full(8, np.nan, dtype=np.float32)})
    with pytest.raises(BundleError, match=r"'actor\.mean\.layers\.0\.bias' must be finite"):
        save_bundle(bundle.path, learner=learner, task=task, provenance={})
    assert load_bundle(bundle.path).manifest.algorithm == "iql"


def test_file_that_is_not_listed_is_refused(bundle: Bundle) -> None:
    (bundle.path / "extra.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(BundleError, match=r"extra\.pkl' is not listed"):
        load_bundle(bundle.path)


def test_missing_files_are_named(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=r"policy\.safetensors' cannot be read"):
        load_bundle(bundle.path)
    with pytest.raises(BundleError, match=r"manifest\.json' cannot be read"):
        load_bundle(tmp_path / "nowhere")


def test_training_writes_policy_history_and_checkpoint(config: TrainConfig, tmp_path: Path) -> None:
    rows: list[HistoryRow] = []
    result = train(config, tmp_path / "run", rows.append)
    assert [row.num_updates for row in rows] == [2, 4, 6]
    assert result.history == tuple(rows)
    assert [row["num_updates"] for row in json.loads((tmp_path / "run" / "history.json").read_text())] == [2, 4, 6]
    provenance = load_bundle(result.bundle).manifest.provenance
    assert provenance["num_updates"] == 6
    assert provenance["dataset"]["num_transitions"] == 200


def test_stopped_training_goes_on_bit_for_bit(config: TrainConfig, tmp_path: Path) -> None:
    def stop(row: HistoryRow) -> None:
        if row.num_updates == 4:
            raise KeyboardInterrupt

    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped" / "policy").exists()
    resumed: list[HistoryRow] = []
    train(config, tmp_path / "stopped", resumed.append)
    assert [row.num_updates for row in resumed] == [6]
    ours, theirs = (safetensors.numpy.load_file(tmp_path / run / CHECKPOINT) for run in ("whole", "stopped"))
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_directory_of_another_run_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path)
    with pytest.raises(GridRayError, match="of a run with another"):
        train(replace(config, seed=6), tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(GridRayError, match="cannot be read"):
        train(config, tmp_path)


def test_training_without_a_dataset_or_sense_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="gridray record"):
        train(replace(config, dataset=tmp_path / "nowhere"), tmp_path / "run")
    for name in ("num_updates", "batch_size", "report_every"):
        with pytest.raises(ConfigError, match=name):
            replace(config, **{name: 0})


@pytest.mark.usefixtures("ray_local")
def test_stream_trains_with_the_same_normaliser(config: TrainConfig, tmp_path: Path) -> None:
    streamed = train(replace(config, stream=True), tmp_path / "stream")
    whole = train(config, tmp_path / "memory")
    assert [row.num_updates for row in streamed.history] == [2, 4, 6]
    ours, theirs = (load_bundle(result.bundle).policy.weights for result in (streamed, whole))
    for name in ("normaliser.observation_mean", "normaliser.observation_std"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)


def test_command_prints_json(dataset: OfflineDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "best.yaml"
    settings.write_text("algorithm: bc\nbatch_size: 8\nlearner: {hidden_sizes: [4]}\n")
    arguments = ["train", str(dataset.path), "--config", str(settings), "--updates", "3", "--json", "--tensorboard"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", str(tmp_path / "run")])
    assert left.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["history"][-1]["metrics"]) == ["actor_loss"]
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"actor_loss" in events.read_bytes()
    assert load_bundle(tmp_path / "run" / "policy").manifest.network.hidden_sizes == (4,)
