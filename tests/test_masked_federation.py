"""Whole federations under masks: equal to plain ones up to rounding, whoever drops out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from protected_federations import NAMES, assert_close, small_config, weights_of, write_days

from gridray.errors import FederationError
from gridray.federated.client import UtilityClient
from gridray.federated.compression import CompressionConfig
from gridray.federated.config import ClientConfig, FederateConfig
from gridray.federated.federate import federate
from gridray.federated.ledger import RoundClosed, verify
from gridray.federated.membership import client_spec
from gridray.federated.moments import moments, pool
from gridray.federated.privacy.protection import ProtectionConfig, SecureAggregationConfig
from gridray.federated.rounds import run_round, start_federation
from gridray.federated.sharing import RuleConfig
from gridray.federated.sites import InProcess

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.federated.outbox import Order
    from gridray.federated.signing import Signed

MASKED = ProtectionConfig(secure_aggregation=SecureAggregationConfig(limit=0.5))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_days(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(datasets: dict[str, Path]) -> FederateConfig:
    return small_config(datasets)


def test_masked_federation_equals_a_plain_one_up_to_quantisation(config: FederateConfig, tmp_path: Path) -> None:
    plain = weights_of(config, tmp_path / "plain")
    masked = weights_of(replace(config, protection=MASKED), tmp_path / "masked")
    # The normaliser comes from masked sums too.
    assert_close(masked, plain, 2e-5)
    entries = verify(tmp_path / "masked" / "ledger.jsonl")
    messages = [
        crossing for entry in entries if isinstance(entry.body, RoundClosed) for crossing in entry.body.crossings
    ]
    kinds = {crossing.message for crossing in messages}
    assert kinds == {"ClientUpdate", "KeyAdvert", "SealedShares", "MaskedInput", "Confirmation", "UnmaskShares"}
    num_values = sum(array.size for name, array in plain.items() if not name.startswith("normaliser."))
    assert {crossing.num_bytes for crossing in messages if crossing.message == "MaskedInput"} == {4 * (num_values + 2)}
    # No weight leaves a client in the clear, and no norm of one is known.
    assert {crossing.num_bytes for crossing in messages if crossing.message == "ClientUpdate"} == {0}
    assert {crossing.norm for crossing in messages} == {None}


@pytest.mark.parametrize(
    ("algorithm", "aggregator"),
    [
        ("bc", RuleConfig(rule="fedavg", settings={"count_by": "clients"})),
        ("td3_bc", RuleConfig(rule="fedora", settings={"max_share": 1 / 3})),
    ],
)
def test_clients_count_under_masks_as_the_rule_says(
    config: FederateConfig, tmp_path: Path, algorithm: str, aggregator: RuleConfig
) -> None:
    config = replace(config, algorithm=algorithm, aggregator=aggregator)
    plain = federate(config, tmp_path / "plain", use_ray=False)
    masked = federate(replace(config, protection=MASKED), tmp_path / "masked", use_ray=False)
    by_samples = federate(replace(config, aggregator="fedavg"), tmp_path / "by_samples", use_ray=False)
    assert_close(masked.weights, plain.weights, 5e-5)
    with pytest.raises(AssertionError):
        assert_close(masked.weights, by_samples.weights, 5e-5)
    assert all(3.0 <= record.report["masked.effective_clients"] <= 4.0 + 1e-6 for record in masked.history)


def test_client_that_inflates_its_value_is_in_no_sum(
    config: FederateConfig, datasets: dict[str, Path], tmp_path: Path
) -> None:
    clients = tuple(ClientConfig(name=f"u{index}", dataset=datasets[NAMES[index % 4]]) for index in range(5))
    masked = replace(config, algorithm="td3_bc", aggregator="fedora", clients=clients, protection=MASKED)
    federation = start_federation(InProcess(), masked, tmp_path)
    outbox = federation.clients["u2"]._outbox
    honest = outbox.pack
    outbox.pack = lambda update, *rest: honest(replace(update, value=update.value + 100.0), *rest)
    record = run_round(federation)
    assert sorted(record.num_samples) == ["u0", "u1", "u3", "u4"]
    assert record.absent == {"u2": "it counts nothing by the rule of the round"}


def test_a_limit_that_cuts_updates_is_told(config: FederateConfig, tmp_path: Path) -> None:
    shares = []
    for limit in (0.5, 1e-3):
        protection = ProtectionConfig(secure_aggregation=SecureAggregationConfig(limit=limit))
        federation = start_federation(InProcess(), replace(config, protection=protection), tmp_path / str(limit))
        before = {name: array.copy() for name, array in federation.ask("weights").items()}
        shares += [metrics["clipped_share"] for metrics in run_round(federation).metrics.values()]
        after = federation.ask("weights")
        assert max(float(np.abs(after[name] - before[name]).max()) for name in after) <= limit + 1e-6
    assert shares[:4] == [0.0] * 4
    assert all(0.5 < share <= 1.0 for share in shares[4:])


def test_masked_moments_are_those_of_all_rows(config: FederateConfig, tmp_path: Path) -> None:
    federation = start_federation(InProcess(), replace(config, protection=MASKED), tmp_path)
    rows = [UtilityClient.moments(client) for client in federation.clients.values()]
    pooled = pool({str(index): part["obs"] for index, part in enumerate(rows)})
    weights = federation.learner.get_weights()
    np.testing.assert_allclose(weights["normaliser.observation_mean"], pooled.mean, atol=1e-5)
    std = np.sqrt(pooled.m2 / pooled.num_rows)
    np.testing.assert_allclose(weights["normaliser.observation_std"], std, rtol=1e-4)
    assert pooled.num_rows == sum(moments(np.zeros((12 * (8 + seed), 1))).num_rows for seed in range(4))


@pytest.mark.parametrize("kind", ["random_k", "int8"])
def test_masks_and_compression_together_resume_bit_for_bit(config: FederateConfig, tmp_path: Path, kind: str) -> None:
    protection = replace(MASKED, compression=CompressionConfig(kind=kind, share=0.3))
    both = replace(config, protection=protection)
    whole = weights_of(both, tmp_path / "whole")
    federate(replace(both, rounds=2), tmp_path / "stopped", use_ray=False)
    resumed = weights_of(both, tmp_path / "stopped")
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    sizes = [
        crossing.num_bytes
        for entry in verify(tmp_path / "whole" / "ledger.jsonl")
        if isinstance(entry.body, RoundClosed)
        for crossing in entry.body.crossings
        if crossing.message == "MaskedInput"
    ]
    num_values = sum(array.size for name, array in whole.items() if not name.startswith("normaliser."))
    words = {"random_k": 4 * (round(0.3 * num_values) + 2), "int8": 2 * (num_values + 2)}[kind]
    assert set(sizes) == {words}


class DroppingClient(UtilityClient):
    """A client that fails at one stage of the sum."""

    stage = ""

    def take_part(self, order: Order) -> Signed:
        """Fail at the stage."""
        if order.stage == self.stage and order.session.round >= 0:
            raise FederationError("link is down")
        return super().take_part(order)


@pytest.mark.parametrize("stage", ["advertise", "share_keys", "mask", "confirm", "unmask"])
def test_client_that_drops_out_of_a_sum_is_left_out_and_noted(
    config: FederateConfig, tmp_path: Path, stage: str
) -> None:
    federation = start_federation(InProcess(), replace(config, protection=MASKED), tmp_path)
    dropping = DroppingClient(federation.clients["north"]._spec)
    dropping.stage = stage
    federation.clients["north"] = dropping
    record = run_round(federation)
    is_in = stage in {"confirm", "unmask"}
    assert ("north" in record.num_samples) == is_in
    assert record.absent == ({} if is_in else {"north": "it failed (FederationError: link is down)"})
    assert set(record.num_samples) >= {"east", "south", "west"}


def test_coordinator_that_repeats_a_round_with_others_is_refused(config: FederateConfig, tmp_path: Path) -> None:
    federation = start_federation(InProcess(), replace(config, protection=MASKED), tmp_path)
    run_round(federation)
    # The coordinator goes back to the round before and leaves a client out of it.
    shutil.rmtree(tmp_path / "rounds")
    again = start_federation(InProcess(), replace(config, protection=MASKED), tmp_path)
    dropping = DroppingClient(again.clients["north"]._spec)
    dropping.stage = "mask"
    with pytest.raises(FederationError, match="unmasking shares of 0 members arrived"):
        run_round(replace(again, clients=dict(again.clients) | {"north": dropping}))
    assert run_round(again).absent == {}


def test_coordinator_that_poses_as_another_member_is_refused(config: FederateConfig, tmp_path: Path) -> None:
    honest = UtilityClient(client_spec(config, config.clients[0], tmp_path / "clients" / "east")).describe().public_key
    for key in (honest, "ab" * 32):
        clients = (replace(config.clients[0], public_key=key), *config.clients[1:])
        known = replace(config, clients=clients, rounds=1, protection=MASKED)
        if key == honest:
            federate(known, tmp_path, use_ray=False)
        else:
            with pytest.raises(FederationError, match="another identity key of 'east' than is known: refused"):
                federate(known, tmp_path, use_ray=False)


def test_masked_federation_over_actors_equals_that_in_one_process(
    ray_local: None, config: FederateConfig, tmp_path: Path
) -> None:
    del ray_local
    protection = replace(MASKED, compression=CompressionConfig(kind="int8"))
    masked = replace(config, clients=config.clients[:3], rounds=1, protection=protection)
    alone = federate(masked, tmp_path / "alone", use_ray=False)
    apart = federate(masked, tmp_path / "apart")
    assert [record.weights_sha256 for record in alone.history] == [record.weights_sha256 for record in apart.history]
    assert len(verify(tmp_path / "apart" / "ledger.jsonl")) == 3


def test_robust_rule_over_masked_groups_runs(datasets: dict[str, Path], config: FederateConfig, tmp_path: Path) -> None:
    clients = tuple(ClientConfig(name=f"u{index}", dataset=datasets[NAMES[index % 4]]) for index in range(9))
    protection = ProtectionConfig(secure_aggregation=SecureAggregationConfig(num_groups=3))
    robust = replace(config, clients=clients, aggregator="median", rounds=2, protection=protection)
    history = federate(robust, tmp_path, use_ray=False).history
    assert [len(record.num_samples) for record in history] == [9, 9]
    # Each of the four datasets is a little larger than the one before: nearly all nine count.
    assert all(8.5 < record.report["masked.effective_clients"] <= 9.0 for record in history)
