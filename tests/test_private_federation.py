"""Whole federations under protection: equal to plain ones where they should be, within budgets, with a ledger."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from protected_federations import NAMES, small_config, weights_of, write_days

from gridray.algorithms.bundle import load_bundle
from gridray.errors import ConfigError, FederationError
from gridray.federated.compression import CompressionConfig
from gridray.federated.federate import federate
from gridray.federated.ledger import RoundClosed, RunEnded, verify
from gridray.federated.privacy.dp_sgd import DpSgdConfig
from gridray.federated.privacy.protection import ProtectionConfig, SecureAggregationConfig, UtilityNoiseConfig
from gridray.federated.rounds import Federation, run_round, start_federation
from gridray.federated.sites import InProcess

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.federated.config import FederateConfig


MASKED = ProtectionConfig(secure_aggregation=SecureAggregationConfig(limit=0.5))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_days(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(datasets: dict[str, Path]) -> FederateConfig:
    return small_config(datasets)


@pytest.mark.parametrize("kind", ["top_k", "int8"])
def test_compressed_federation_repeats_and_resumes_bit_for_bit(
    config: FederateConfig, tmp_path: Path, kind: str
) -> None:
    protection = ProtectionConfig(compression=CompressionConfig(kind=kind, share=0.3))
    compressed = replace(config, protection=protection)
    whole = weights_of(compressed, tmp_path / "whole")
    federate(replace(compressed, rounds=1), tmp_path / "stopped", use_ray=False)
    resumed = weights_of(compressed, tmp_path / "stopped")
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    sizes = {
        crossing.num_bytes
        for entry in verify(tmp_path / "whole" / "ledger.jsonl")
        if isinstance(entry.body, RoundClosed)
        for crossing in entry.body.crossings
    }
    num_values = sum(array.size for name, array in whole.items() if not name.startswith("normaliser."))
    share = round(0.3 * num_values)
    assert sizes == {{"top_k": 8 * share, "int8": num_values}[kind]}


def test_noise_per_utility_has_the_accounted_size(config: FederateConfig, tmp_path: Path) -> None:
    noise = UtilityNoiseConfig(epsilon=5.0, clip=0.05, max_noise_to_clip=1e4)
    for protection in (ProtectionConfig(utility_noise=noise), replace(MASKED, utility_noise=noise)):
        out = tmp_path / str(protection.secure_aggregation is None)
        federation = start_federation(InProcess(), replace(config, protection=protection), out)
        before = federation.ask("weights")
        before = {name: array.copy() for name, array in before.items()}
        record = run_round(federation)
        after = federation.ask("weights")
        moved = np.concatenate(
            [(after[name] - before[name]).ravel() for name in after if not name.startswith("normaliser.")]
        )
        # Standard deviation of the noise on the mean of four; the clipped mean itself has norm 0.05 at most.
        expected = noise_multiplier_of(federation) * 0.05 / 4
        assert np.std(moved) == pytest.approx(expected, rel=0.1)
        assert record.num_samples.keys() == set(NAMES)
        spent = [entry.body for entry in verify(out / "ledger.jsonl") if isinstance(entry.body, RoundClosed)][
            -1
        ].privacy
        assert [(part.scope, part.unit) for part in spent] == [("all", "utility")]
        assert 0 < spent[0].epsilon < 5.0


def noise_multiplier_of(federation: Federation) -> float:
    rules = federation.coordinator._rules
    assert rules.noise_multiplier is not None
    return float(rules.noise_multiplier)


def test_noise_that_drowns_the_updates_is_refused_with_the_figure(config: FederateConfig, tmp_path: Path) -> None:
    protection = ProtectionConfig(utility_noise=UtilityNoiseConfig(epsilon=1.0))
    with pytest.raises(ConfigError, match=r"times the norm of the clip .* It takes \d+ utilities"):
        federate(replace(config, protection=protection), tmp_path, use_ray=False)


def test_day_level_run_stops_before_its_budget_and_tells_no_losses(config: FederateConfig, tmp_path: Path) -> None:
    dp_sgd = DpSgdConfig(epsilon=3.0, delta=1e-3, noise_multiplier=1.5, units_per_batch=4, rows_per_unit=4)
    private = replace(config, rounds=50, protection=ProtectionConfig(dp_sgd=dp_sgd))
    result = federate(private, tmp_path, use_ray=False)
    assert 1 < len(result.history) < 50
    spent = [record.metrics[name]["epsilon_per_day"] for record in result.history for name in NAMES]
    assert max(spent) <= 3.0
    assert {key for record in result.history for metrics in record.metrics.values() for key in metrics} == {
        "epsilon_per_day"
    }
    entries = verify(tmp_path / "ledger.jsonl")
    assert isinstance(entries[-1].body, RunEnded)
    assert entries[-1].body.reason == "privacy budget spent"
    last = entries[-2].body
    assert isinstance(last, RoundClosed)
    assert {(part.scope, part.unit) for part in last.privacy} == {(name, "day") for name in NAMES}
    # Going on with more rounds finds no more budget.
    again = federate(replace(private, rounds=60), tmp_path, use_ray=False)
    assert len(again.history) == len(result.history)


def test_private_run_resumes_bit_for_bit_and_pays_once(config: FederateConfig, tmp_path: Path) -> None:
    dp_sgd = DpSgdConfig(epsilon=9.0, delta=1e-3, noise_multiplier=1.5, units_per_batch=4, rows_per_unit=4)
    private = replace(config, protection=ProtectionConfig(dp_sgd=dp_sgd))
    # Each utility has secrets of its own: an equal run needs the same ones.
    whole = federate(private, tmp_path / "whole", use_ray=False)
    for name in NAMES:
        (tmp_path / "stopped" / "clients" / name).mkdir(parents=True)
        shutil.copy(tmp_path / "whole" / "clients" / name / "noise.key", tmp_path / "stopped" / "clients" / name)
    federate(replace(private, rounds=2), tmp_path / "stopped", use_ray=False)
    federation = start_federation(InProcess(), private, tmp_path / "stopped")
    # A round that is trained twice costs once.
    for _ in range(2):
        update = federation.clients["north"].fit(federation.ask("broadcast"))
    resumed = federate(private, tmp_path / "stopped", use_ray=False)
    assert update.metrics == whole.history[2].metrics["north"]
    assert [record.metrics for record in resumed.history] == [record.metrics for record in whole.history]
    assert all(np.array_equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


def test_other_data_in_the_same_folder_gets_other_noise_and_is_paid_for(config: FederateConfig, tmp_path: Path) -> None:
    dp_sgd = DpSgdConfig(epsilon=9.0, delta=1e-3, noise_multiplier=1.5, units_per_batch=4, rows_per_unit=4)
    private = replace(config, rounds=1, protection=ProtectionConfig(dp_sgd=dp_sgd))
    first = federate(private, tmp_path, use_ray=False)
    north = next(client for client in config.clients if client.name == "north")
    others = tuple(client for client in config.clients if client.name != "north")
    other = replace(private, clients=(replace(north, dataset=others[0].dataset), *others))
    with pytest.raises(FederationError, match=f"remove {tmp_path} to start over"):
        federate(other, tmp_path, use_ray=False)
    for left in (tmp_path / "ledger.jsonl", tmp_path / "ledger.jsonl.head"):
        left.unlink()
    shutil.rmtree(tmp_path / "rounds")
    again = federate(other, tmp_path, use_ray=False)
    charged = json.loads((tmp_path / "clients" / "north" / "privacy.json").read_text("utf-8"))
    assert sorted(charged.values()) == [private.local_updates] * 2
    # West's data are as they were, and so is its noise.
    assert first.history[0].metrics["west"] == again.history[0].metrics["west"]
    assert first.history[0].metrics["north"]["epsilon_per_day"] < again.history[0].metrics["north"]["epsilon_per_day"]


def test_run_does_not_go_on_in_the_ledger_of_another(config: FederateConfig, tmp_path: Path) -> None:
    federate(replace(config, rounds=1), tmp_path, use_ray=False)
    shutil.rmtree(tmp_path / "rounds")
    with pytest.raises(FederationError, match=r"Ledger .* is of a run with another configuration"):
        federate(replace(config, rounds=1, seed=config.seed + 1), tmp_path, use_ray=False)
    verify(tmp_path / "ledger.jsonl")


def test_noise_per_utility_shows_no_moments_and_is_told_with_its_unit(config: FederateConfig, tmp_path: Path) -> None:
    noise = UtilityNoiseConfig(epsilon=5.0, max_noise_to_clip=1e4, reward_std=7.0)
    result = federate(replace(config, protection=ProtectionConfig(utility_noise=noise)), tmp_path, use_ray=False)
    assert not result.weights["normaliser.observation_mean"].any()
    assert result.weights["normaliser.reward_std"].tolist() == [7.0]
    (spent,) = result.privacy
    assert (spent.scope, spent.unit, result.ended) == ("all", "utility", "all rounds")
    assert spent.epsilon == pytest.approx(5.0)
    grouped = ProtectionConfig(secure_aggregation=SecureAggregationConfig(num_groups=2), utility_noise=noise)
    clients = tuple(replace(config.clients[0], name=f"u{index}") for index in range(6))
    with pytest.raises(ConfigError, match="give secure_aggregation num_groups 1"):
        replace(config, clients=clients, min_clients=6, protection=grouped)


def test_private_run_shows_no_moments_and_cannot_be_repeated_without_the_clients_secrets(
    config: FederateConfig, tmp_path: Path
) -> None:
    dp_sgd = DpSgdConfig(epsilon=9.0, delta=1e-3, noise_multiplier=1.5, units_per_batch=4, reward_std=7.0)
    private = replace(config, rounds=1, protection=ProtectionConfig(dp_sgd=dp_sgd))
    first, second = (weights_of(private, tmp_path / name) for name in ("first", "second"))
    assert not all(np.array_equal(first[name], second[name]) for name in first)
    assert not first["normaliser.observation_mean"].any()
    assert (first["normaliser.observation_std"] == 1.0).all()
    assert first["normaliser.reward_std"].tolist() == [7.0]


def test_budget_for_not_one_round_is_refused(config: FederateConfig, tmp_path: Path) -> None:
    dp_sgd = DpSgdConfig(epsilon=0.1, delta=1e-3, noise_multiplier=1.0, units_per_batch=4)
    with pytest.raises(ConfigError, match=r"cannot take one round within its budget .at most epsilon 0.1 per day"):
        federate(replace(config, protection=ProtectionConfig(dp_sgd=dp_sgd)), tmp_path, use_ray=False)


def test_update_whose_signature_does_not_fit_is_refused(config: FederateConfig, tmp_path: Path) -> None:
    federation = start_federation(InProcess(), config, tmp_path)
    update = federation.clients["north"].fit(federation.ask("broadcast"))
    forged = replace(update, metrics={"actor_loss": 0.0})
    assert "is not signed with its identity key" in federation.ask("receive", "north", forged)
    assert federation.ask("receive", "north", update) is None
    federation.coordinator.end_run("test")
    ended = verify(tmp_path / "ledger.jsonl")[-1].body
    assert isinstance(ended, RunEnded)
    assert (ended.num_rounds, ended.reason) == (0, "test")


def test_actor_only_federation_keeps_critics_at_home_and_out_of_bundles(config: FederateConfig, tmp_path: Path) -> None:
    learner = {"hidden_sizes": [8, 8]}
    groups = dict.fromkeys(("critic", "target_critic", "value"), "local")
    actor_only = replace(config, algorithm="iql", learner=learner, groups=groups, rounds=1)
    result = federate(actor_only, tmp_path, use_ray=False)
    assert {name.partition(".")[0] for name in result.weights} == {"actor", "normaliser"}
    assert {name.partition(".")[0] for name in load_bundle(result.bundle).policy.weights} <= {"actor", "normaliser"}
    entries = verify(tmp_path / "ledger.jsonl")
    closed = next(entry.body for entry in entries if isinstance(entry.body, RoundClosed))
    num_values = sum(array.size for name, array in result.weights.items() if name.startswith("actor"))
    assert {part.num_bytes for part in closed.crossings} == {4 * num_values}


def test_ledger_holds_no_value_of_the_data(config: FederateConfig, tmp_path: Path) -> None:
    federate(config, tmp_path, use_ray=False)
    entries = verify(tmp_path / "ledger.jsonl")
    numbers: list[float] = []

    def collect(value: object) -> None:
        if isinstance(value, dict):
            [collect(item) for item in value.values()]
        elif isinstance(value, list):
            [collect(item) for item in value]
        elif isinstance(value, float):
            numbers.append(value)

    lines = (tmp_path / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        collect(json.loads(line))
    norms = [part.norm for entry in entries if isinstance(entry.body, RoundClosed) for part in entry.body.crossings]
    reports = [
        value for entry in entries if isinstance(entry.body, RoundClosed) for value in entry.body.report.values()
    ]
    assert sorted(numbers) == sorted(norms + reports)
    assert "day" not in "".join(lines)
