"""Utilities with different feeders learn one controller."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from federations import made_up

from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.device_layout import device_layout
from gridray.algorithms.train import TrainConfig, train
from gridray.cli import main
from gridray.config import parse_config
from gridray.datasets.card import task_source
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.errors import FederationError
from gridray.federated.config import FederateConfig
from gridray.federated.federate import federate
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FEEDERS = {"north": "ieee13", "east": "ieee34", "south": "synthetic-60-1"}
NORMALISER = "normaliser.observation_mean"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Made-up transitions on three feeders, of other numbers of observations, actions and rows."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, feeder) in enumerate(FEEDERS.items()):
        source = task_source(task_of(name), policy="made up", seed=0, licence="CC0-1.0")
        parts = [made_up(source, np.random.default_rng([seed, part]), 20 + 10 * seed) for part in range(4)]
        write_dataset(folder / name, parts, source)
        assert source.task_config["feeder"] == feeder
    return {name: folder / name for name in FEEDERS}


def task_of(name: str) -> Any:  # noqa: ANN401  # tests look inside
    return make_task("volt_var", {"feeder": FEEDERS[name], "num_days": 5})


def config_of(datasets: dict[str, Path], shape: str, **changes: Any) -> FederateConfig:
    settings: dict[str, Any] = {
        "algorithm": "td3_bc",
        "rounds": 2,
        "local_updates": 2,
        "batch_size": 16,
        "learner": {"policy": shape, "hidden_sizes": [8, 8]},
        "clients": [{"name": name, "dataset": str(path)} for name, path in datasets.items()],
    }
    config: FederateConfig = parse_config(FederateConfig, settings | changes, where="test")
    return config


def policies(out: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the weights of each client's policy, which acts on the client's own feeder."""
    found = {}
    for name in FEEDERS:
        bundle, task = load_bundle(out / "clients" / name / "policy"), task_of(name)
        bundle.check_task(task)
        obs = np.zeros((2, len(task.observation_channels)), dtype=np.float32)
        assert bundle.policy.act(obs, np.random.default_rng(0)).shape == (2, len(task.action_channels))
        found[name] = bundle.policy.weights
    return found


@pytest.mark.parametrize("shape", ["local", "graph"])
def test_different_feeders_learn_one_controller(shape: str, datasets: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(datasets, shape, evaluation={"num_days": 1}, local={"ensemble": {}}, aggregator="fedora")
    result = federate(config, tmp_path, use_ray=False)
    assert set(result.evaluation) == set(FEEDERS)
    assert all(np.isfinite(metrics["returns"]) for metrics in result.evaluation.values())
    shared = load_bundle(result.bundle).policy.weights
    for weights in policies(tmp_path).values():
        assert {name: array.tobytes() for name, array in weights.items()} == {
            name: array.tobytes() for name, array in shared.items()
        }
    views = [
        device_layout(task_of(name)).views(OfflineDataset.open(path).load(["obs"])["obs"]).reshape(-1, 57)
        for name, path in datasets.items()
    ]
    np.testing.assert_allclose(shared[NORMALISER], np.concatenate(views).mean(axis=0), atol=1e-5)


def test_trunk_is_shared_and_heads_are_each_utility_s_own(datasets: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(datasets, "local", groups={"actor.mean.head": "local"}, local={"target_networks": "copy"})
    result = federate(config, tmp_path, use_ray=False)
    assert not [name for name in result.weights if name.startswith("actor.mean.head")]
    first, *others = policies(tmp_path).values()
    for other in others:
        same = {name for name, array in first.items() if (array == other[name]).all()}
        assert {name for name in first if name not in same} == {
            "actor.mean.head.kinds.weight",
            "actor.mean.head.kinds.bias",
        }


@pytest.mark.parametrize(
    "protection",
    [
        {"secure_aggregation": {"limit": 0.5}},
        {"dp_sgd": {"epsilon": 9.0, "delta": 1e-3, "noise_multiplier": 1.5, "units_per_batch": 2, "rows_per_unit": 4}},
    ],
)
def test_protection_knows_no_feeder_either(
    protection: dict[str, Any], datasets: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of(datasets, "graph", rounds=1, algorithm="bc", local_updates=1, protection=protection)
    result = federate(config, tmp_path / "protected", use_ray=False)
    plain = federate(config_of(datasets, "graph", rounds=1, algorithm="bc"), tmp_path / "plain", use_ray=False)
    assert {name: array.shape for name, array in result.weights.items()} == {
        name: array.shape for name, array in plain.weights.items()
    }
    is_exact = "secure_aggregation" in protection
    assert np.allclose(result.weights[NORMALISER], plain.weights[NORMALISER], atol=1e-3) == is_exact


def test_utility_trains_on_from_the_policy_of_all(datasets: dict[str, Path], tmp_path: Path) -> None:
    shared = federate(config_of(datasets, "local"), tmp_path / "all", use_ray=False).bundle
    config = TrainConfig(
        dataset=datasets["south"],
        algorithm="bc",
        num_updates=1,
        batch_size=16,
        learner={"policy": "local", "hidden_sizes": [8, 8], "learning_rate": 1e-9},
        start=shared,
    )
    tuned = load_bundle(train(config, tmp_path / "tuned").bundle)
    given = load_bundle(shared)
    for name, array in given.policy.weights.items():
        np.testing.assert_allclose(tuned.policy.weights[name], array, atol=1e-6)
    tuned.check_task(task_of("south"))
    assert tuned.manifest.provenance["start"] == given.manifest.files["policy.safetensors"].sha256
    alone = load_bundle(train(replace(config, start=None), tmp_path / "alone").bundle)
    assert (alone.policy.weights[NORMALISER] != given.policy.weights[NORMALISER]).any()


def test_command_trains_on_from_a_bundle_of_any_shape(datasets: dict[str, Path], tmp_path: Path) -> None:
    shared = federate(config_of(datasets, "local", rounds=1), tmp_path / "all", use_ray=False).bundle
    options = ["--algorithm", "bc", "--updates", "1", "--batch-size", "16", "--out", str(tmp_path / "tuned")]
    with pytest.raises(SystemExit) as end:
        main(["train", str(datasets["south"]), "--start", str(shared), *options])
    assert end.value.code == 0
    assert load_bundle(tmp_path / "tuned" / "policy").manifest.network.policy == "local"


def test_flat_policies_of_different_feeders_are_refused(datasets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="or let the learner have policy: local or graph"):
        federate(config_of(datasets, "flat"), tmp_path, use_ray=False)
