"""A federation is shown beside all that it has to be better than."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from federations import NAMES, small_config, write_datasets

from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.train import TrainConfig, train
from gridray.cli import main
from gridray.datasets.dataset import OfflineDataset
from gridray.errors import ConfigError
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.federated.comparison import METHODS, NAIVE, compare, plainly_averaged, pooled_weights
from gridray.federated.local.config import LocalConfig
from gridray.federated.privacy.dp_sgd import DpSgdConfig
from gridray.federated.privacy.protection import ProtectionConfig, UtilityNoiseConfig
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.federated.config import FederateConfig

NUM_DAYS = 3


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> FederateConfig:
    datasets = write_datasets(tmp_path_factory.mktemp("data"))
    return small_config(datasets, local=LocalConfig(proximal={"actor": 0.1}))


def test_every_method_is_shown_and_training_alone_is_plain_training(config: FederateConfig, tmp_path: Path) -> None:
    found = compare(config, tmp_path, num_days=NUM_DAYS, is_pooled=True, use_ray=False)
    means = found.means("returns")
    assert tuple(means) == METHODS
    assert all(set(row) == {*NAMES, "all"} for row in means.values())
    assert json.loads((tmp_path / "comparison.json").read_text("utf-8")) == found.metrics
    north = next(client for client in config.clients if client.name == "north")
    plain = TrainConfig(
        dataset=north.dataset, algorithm="iql", learner=config.learner, num_updates=9, batch_size=16, seed=config.seed
    )
    train(plain, tmp_path / "plain")
    card = OfflineDataset.open(north.dataset).card
    task = make_task(card.task, dict(card.task_config) | {"days": "held_out"})

    alone = evaluate_policy(load_bundle(tmp_path / "plain" / "policy").policy, task, days=held_out_days(task, NUM_DAYS))
    assert means["alone"]["north"] == pytest.approx(float(alone.returns.mean()), abs=1e-6)
    gain, low, high = found.gains("federated")["north"]
    assert gain == pytest.approx(means["federated"]["north"] - means["alone"]["north"])
    assert low <= gain <= high


def test_plain_averaging_is_not_run_twice(config: FederateConfig, tmp_path: Path) -> None:
    plain = replace(plainly_averaged(config), rounds=1)
    assert NAIVE not in compare(plain, tmp_path, num_days=2, use_ray=False).means("returns")
    assert not (tmp_path / NAIVE).exists()


def test_pooled_training_of_one_utility_takes_its_rows_only(config: FederateConfig, tmp_path: Path) -> None:
    single = replace(config, clients=config.clients[:1], min_clients=1)
    weights = pooled_weights(single, tmp_path)
    assert all(np.isfinite(array).all() for array in weights.values())
    again = pooled_weights(single, tmp_path)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_pooled_training_takes_as_many_updates_as_all_clients(config: FederateConfig, tmp_path: Path) -> None:
    # North has 100 rows: seven batches of 16 are its epoch.
    single = replace(config, clients=config.clients[1:2], min_clients=1)
    given = pooled_weights(replace(single, local_updates=7), tmp_path)
    epochs = pooled_weights(replace(single, local_epochs=1.0), tmp_path)
    assert all(np.array_equal(given[name], epochs[name]) for name in given)


def test_comparison_is_refused_where_a_budget_is_to_be_kept(config: FederateConfig, tmp_path: Path) -> None:
    noise = UtilityNoiseConfig(epsilon=8.0, max_noise_to_clip=1e6)
    for protection in (
        ProtectionConfig(utility_noise=noise),
        ProtectionConfig(dp_sgd=DpSgdConfig(epsilon=9.0, noise_multiplier=2.0)),
    ):
        with pytest.raises(ConfigError, match="trains a second federation on the same data"):
            compare(replace(config, protection=protection), tmp_path, use_ray=False)
    assert not any(tmp_path.iterdir())


def test_pooled_training_is_offered_with_a_comparison_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["federate", str(tmp_path / "federate.yaml"), "--pooled"])
    assert end.value.code == 2
    assert "--compare" in capsys.readouterr().err


def test_command_tells_whether_sharing_helps(
    config: FederateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"  - {{name: {client.name}, dataset: {client.dataset}}}" for client in config.clients]
    text = "algorithm: iql\nrounds: 1\nlocal_updates: 2\nbatch_size: 16\nlearner: {hidden_sizes: [8, 8]}\nclients:\n"
    file = tmp_path / "federate.yaml"
    file.write_text(text + "\n".join(lines) + "\n", "utf-8")
    arguments = ["federate", str(file), "--out", str(tmp_path / "out"), "--no-ray", "--compare", "--days", "2"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert "Does sharing help?" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(report["comparison"]) == set(NAMES)
