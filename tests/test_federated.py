"""Federated training: what clients may send, how it is joined, and that rounds repeat bit for bit."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridray.config import parse_config
from gridray.errors import ConfigError, FederationError
from gridray.federated.aggregators.grouped import REST
from gridray.federated.config import FederateConfig
from gridray.federated.coordinator import Coordinator, LostUpdatesError, RoundRules
from gridray.federated.local.config import LocalConfig
from gridray.federated.moments import as_sums, moments, of_sums, pool
from gridray.federated.sharing import RuleConfig, Sharing
from gridray.federated.updates import (
    MAX_METRICS,
    Broadcast,
    ClientUpdate,
    EvaluationReport,
    Expected,
    check_report,
    check_update,
    digest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def some_weights(seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "actor.0.bias": rng.normal(size=4).astype(np.float32),
        "actor.0.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "value.scale": rng.normal(size=()).astype(np.float64),
    }


def some_update(client: str = "north", *, seed: int = 1, num_samples: int = 100) -> ClientUpdate:
    return ClientUpdate(
        client=client, round=0, num_samples=num_samples, weights=some_weights(seed), metrics={"loss": 0.5}
    )


def expected(**changes: Any) -> Expected:
    return Expected(**({"weights": some_weights(0), "rounds": range(1), "max_bytes": 1000} | changes))


def assert_same(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> None:
    assert digest(first) == digest(second)


def test_update_of_the_broadcast_form_passes() -> None:
    check_update(some_update(), expected(), client="north")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": "south"}, "says it is from 'south'"),
        ({"round": 3}, "is for round 3: only round 0 is open"),
        ({"num_samples": 0}, "num_samples 0"),
        ({"num_samples": True}, "num_samples True"),
        ({"metrics": {"loss": float("nan")}}, "metric 'loss' = nan"),
        ({"metrics": {"loss": 1}}, "metric 'loss' = 1"),
        ({"metrics": {"Feeder 7, Main St": 1.0}}, "a metric named 'Feeder 7, Main St'"),
        ({"metrics": {f"m{i}": 0.0 for i in range(MAX_METRICS + 1)}}, "no dict of at most 64 metrics"),
        ({"metrics": None}, "no dict of at most 64 metrics"),
        ({"value": 1.0}, "has a value report, which no rule asks for"),
        ({"controls": some_weights(1)}, "unknown control 'actor.0.bias'"),
        ({"weights": [1.0]}, "list instead of a dict of weights"),
        ({"weights": {}}, "lacks weight 'actor.0.bias'"),
        ({"weights": some_weights(1) | {"backdoor": np.zeros(1)}}, "unknown weight 'backdoor'"),
        ({"weights": some_weights(1) | {"actor.0.bias": np.zeros(5, np.float32)}}, r"'actor.0.bias' has shape \(5,\)"),
        ({"weights": some_weights(1) | {"actor.0.bias": np.zeros(4)}}, "'actor.0.bias' is float64, it must be float32"),
        ({"weights": some_weights(1) | {"value.scale": 1.0}}, "'value.scale' is float, it must be float64"),
        ({"weights": some_weights(1) | {"value.scale": np.array(np.nan)}}, "'value.scale' is nan at element 0"),
        (
            {"weights": some_weights(1) | {"actor.0.bias": np.array([0, 0, np.inf, 0], np.float32)}},
            "'actor.0.bias' is inf at element 2",
        ),
    ],
)
def test_malformed_update_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    update = replace(some_update(), **changes)
    with pytest.raises(FederationError, match=message):
        check_update(update, expected(), client="north")


def test_oversized_update_is_refused() -> None:
    num_bytes = sum(array.nbytes for array in some_weights(0).values())
    with pytest.raises(FederationError, match=f"has {num_bytes} bytes of weights: the limit is {num_bytes - 1}"):
        check_update(some_update(), expected(max_bytes=num_bytes - 1), client="north")


def test_anything_but_an_update_is_refused() -> None:
    with pytest.raises(FederationError, match="is a dict: send a ClientUpdate"):
        check_update({}, expected(), client="north")  # type: ignore[arg-type]


def test_pooled_moments_are_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.normal(loc=i, size=(10 + i, 3)) for i, name in enumerate(("b", "a", "c"))}
    rows = np.concatenate(list(parts.values()))
    pooled = pool({name: moments(part) for name, part in parts.items()})
    assert pooled.num_rows == len(rows)
    np.testing.assert_allclose(pooled.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pooled.m2 / pooled.num_rows, rows.var(axis=0), rtol=1e-12)


def test_moments_as_sums_about_a_public_centre_add_up_to_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(loc=5.0 * i, size=(10 + i, 3)) for i in range(4)]
    centre = np.full(3, 7.0)
    total = sum(as_sums(moments(part), centre) for part in parts)
    pooled, expected = of_sums(np.asarray(total), centre), moments(np.concatenate(parts))
    assert pooled.num_rows == expected.num_rows
    np.testing.assert_allclose(pooled.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(pooled.m2, expected.m2, rtol=1e-10)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (np.zeros((2, 4)), r"'b' have shape \(4,\)"),
        (np.full((2, 3), np.nan), "'b' are not finite"),
    ],
)
def test_wrong_moments_are_refused(part: NDArray[Any], message: str) -> None:
    with pytest.raises(FederationError, match=message):
        pool({"a": moments(np.zeros((2, 3))), "b": moments(part)})


def some_coordinator(folder: Path, *, run: str = "run", min_clients: int = 2) -> Coordinator:
    rules = RoundRules(
        sharing=Sharing(rules={REST: RuleConfig(rule="fedavg")}, target_networks="average"),
        clients=("east", "north", "south"),
        min_clients=min_clients,
        max_update_bytes=1000,
        run_digest=run,
    )
    return Coordinator(rules, some_weights(0), folder)


def test_coordinator_closes_a_round_with_a_quorum_and_notes_who_is_absent(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path)
    assert coordinator.receive("north", some_update("north")) is None
    assert coordinator.receive("south", some_update("south", seed=2)) is None
    refusal = coordinator.receive("east", replace(some_update("east"), round=1))
    assert refusal is not None
    record = coordinator.close_round({"east": refusal})
    assert record.num_samples == {"north": 100, "south": 100}
    assert "is for round 1" in record.absent["east"]
    assert record.weights_sha256 == digest(coordinator.weights())


def test_coordinator_refuses_to_close_below_the_quorum(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path)
    coordinator.receive("north", some_update("north"))
    with pytest.raises(FederationError, match=r"Round 0 has 1 updates of 3 clients, min_clients is 2 \(south: late\)"):
        coordinator.close_round({"south": "late"})


def test_second_update_of_a_round_is_refused_and_the_first_counts(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path, min_clients=1)
    assert coordinator.receive("north", some_update("north", seed=1)) is None
    refusal = coordinator.receive("north", some_update("north", seed=2))
    assert refusal is not None
    assert "has sent its update of this round already" in refusal
    coordinator.close_round({})
    assert_same(coordinator.weights(), some_weights(1))


def test_update_of_a_closed_round_is_refused_when_it_is_replayed(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path, min_clients=1)
    recorded = some_update("north")
    assert coordinator.receive("north", recorded) is None
    coordinator.close_round({})
    refusal = coordinator.receive("north", recorded)
    assert refusal is not None
    assert "is for round 0: only round 1 is open" in refusal


def test_client_cannot_claim_more_samples_than_it_said_it_has(tmp_path: Path) -> None:
    rules = replace(some_coordinator(tmp_path)._rules, num_samples={"north": 100})
    coordinator = Coordinator(rules, some_weights(0), tmp_path)
    refusal = coordinator.receive("north", some_update("north", num_samples=10**9))
    assert refusal is not None
    assert "has num_samples 1000000000, it said 100 before" in refusal


def test_round_that_was_opened_in_another_life_is_not_closed(tmp_path: Path) -> None:
    first = some_coordinator(tmp_path, min_clients=1)
    token = first.open_round().token
    second = some_coordinator(tmp_path, min_clients=1)
    second.receive("north", some_update("north"))
    with pytest.raises(LostUpdatesError, match="Round 0 was opened by a coordinator that is no more"):
        second.close_round({}, token)
    assert second.history() == []


def test_round_that_cannot_be_saved_changes_nothing_and_the_last_one_stays(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path, min_clients=1)
    coordinator.receive("north", some_update("north"))
    first = coordinator.close_round({})
    coordinator.receive("north", replace(some_update("north", seed=2), round=1))
    with full_disk(), pytest.raises(FederationError, match=r"round-000001 cannot be written .*: make room"):
        coordinator.close_round({})
    assert coordinator.history() == [first]
    assert [path.name for path in tmp_path.iterdir()] == ["round-000000"]
    assert some_coordinator(tmp_path).history() == [first]
    # With room again, the same round closes as if nothing had been.
    record = coordinator.close_round({})
    assert record.weights_sha256 == digest(some_weights(2))


@contextmanager
def full_disk() -> Iterator[None]:
    """Let the kernel refuse every byte that this process writes to a file beyond the first 100 of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": "south"}, "says it is from 'south'"),
        ({"round": 1}, "is for round 1: only round 0 is open"),
        ({"num_days": 0}, "num_days 0"),
        ({"metrics": {"returns": float("inf")}}, "metric 'returns' = inf"),
    ],
)
def test_malformed_evaluation_is_refused(changes: dict[str, Any], message: str) -> None:
    report = EvaluationReport(client="north", round=0, num_days=3, metrics={"returns": 1.0})
    check_report(report, round_index=0, client="north")
    with pytest.raises(FederationError, match=message):
        check_report(replace(report, **changes), round_index=0, client="north")
    with pytest.raises(FederationError, match="is a Broadcast: send an EvaluationReport"):
        check_report(Broadcast(round=0, weights={}), round_index=0, client="north")  # type: ignore[arg-type]


def test_evaluations_enter_the_record_of_the_round_that_starts_from_what_they_judge(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path, min_clients=1)
    report = EvaluationReport(client="north", round=0, num_days=3, metrics={"returns": 1.0})
    assert coordinator.receive_report("north", report) is None
    refusal = coordinator.receive_report("north", replace(report, metrics={"returns": float("nan")}))
    assert refusal is not None
    assert "metric 'returns' = nan" in refusal
    coordinator.receive("north", some_update("north"))
    assert coordinator.close_round({}).evaluation == {"north": {"returns": 1.0}}
    assert coordinator.evaluation() == {}


def test_coordinator_refuses_strangers(tmp_path: Path) -> None:
    refusal = some_coordinator(tmp_path).receive("mallory", some_update("mallory"))
    assert refusal is not None
    assert "'mallory' is not a member" in refusal


def test_restarted_coordinator_goes_on_where_it_stopped(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path, min_clients=1)
    for index in range(4):
        coordinator.receive("north", replace(some_update("north", seed=index), round=index))
        coordinator.close_round({})
    # What a crash in the middle of a write leaves behind must not be taken for a checkpoint.
    (tmp_path / ".partial-round-000009-1").mkdir()
    restarted = some_coordinator(tmp_path, min_clients=1)
    assert restarted.history() == coordinator.history()
    assert_same(restarted.weights(), coordinator.weights())
    assert len(list(tmp_path.glob("round-*"))) == 2


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    coordinator = some_coordinator(tmp_path, min_clients=1)
    coordinator.receive("north", some_update("north"))
    coordinator.close_round({})
    with pytest.raises(FederationError, match="is of a run with another configuration"):
        some_coordinator(tmp_path, run="other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": []}, "has no clients"),
        ({"clients": [{"name": "a", "dataset": "x"}, {"name": "a", "dataset": "y"}]}, "'a' is given 2 times"),
        ({"clients": [{"name": "../a", "dataset": "x"}]}, "'../a' is not valid"),
        ({"clients": [{"name": "a", "dataset": "x", "num_cpus": -1}]}, "num_cpus -1"),
        ({"rounds": 0}, "rounds 0"),
        ({"seed": -1}, "seed -1"),
        ({"min_clients": 2}, "min_clients 2: give 1 to 1"),
        ({"local_update": 5}, "did you mean 'local_updates'"),
        ({"local_epochs": 0}, "local_epochs 0"),
        ({"local_epochs": float("nan")}, "local_epochs nan"),
        ({"timeout_s": float("inf")}, "timeout_s inf"),
        ({"clients_per_round": 2}, "clients_per_round 2: give 1 to 1"),
        ({"simulation_actors": 0}, "simulation_actors 0"),
        ({"aggregator": "fedavgg"}, "'fedavgg' does not exist"),
        ({"aggregator": "local"}, "No weight is sent"),
        ({"groups": {"actor": {"rule": "krum"}}}, "closes rounds with 1 updates, its rules need 5: take another"),
        ({"groups": {"actor": {"rule": "fedavg", "settings": {"count": 1}}}}, "did you mean 'count_by'"),
        ({"asynchronous": {"buffer_size": 1}}, "need rule 'fedbuff' for every group"),
        ({"asynchronous": {"buffer_size": 0}}, "buffer_size 0"),
        ({"asynchronous": {"buffer_size": 2}, "aggregator": "fedbuff"}, "buffer_size 2: give 1 to 1"),
        (
            {
                "evaluation": {"every": 1},
                "protection": {"dp_sgd": {"epsilon": 3, "noise_multiplier": 2.0}},
            },
            "leave evaluation out",
        ),
        (
            {
                "asynchronous": {"buffer_size": 1},
                "aggregator": "fedbuff",
                "protection": {"compression": {"kind": "int8"}},
            },
            "cannot be masked or compressed",
        ),
        ({"evaluation": {"patience": 0}}, "patience 0"),
        ({"local": {"proximal": {"actor": -1}}}, "proximal of group 'actor' is -1"),
        ({"local": {"personal": -1}}, "personal is -1"),
        ({"local": {"holdout_share": 1}}, "holdout_share is 1"),
        ({"local": {"ensemble": {"actor_anchor": -1}}}, "actor_anchor is -1"),
        ({"local": {"ensemble": {"decay": 0}}}, "decay is 0"),
        ({"clients": [{"name": "a", "dataset": "x", "away": [[3, 1]]}]}, "is away from 3 to 1"),
    ],
)
def test_wrong_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    data = {"algorithm": "bc", "clients": [{"name": "a", "dataset": "x"}]} | changes
    with pytest.raises(ConfigError, match=message):
        parse_config(FederateConfig, data)


def test_rules_of_network_groups_are_read_from_plain_data() -> None:
    groups = {"critic": {"rule": "krum", "settings": {"num_attackers": 0}}, "actor.mean": "local"}
    config = parse_config(
        FederateConfig, {"algorithm": "iql", "clients": [{"name": "a", "dataset": "x"}], "groups": groups}
    )
    names = ["actor.log_std", "actor.mean.0", "critic.0", "target_critic.0", "normaliser.reward_std"]
    assert config.sharing.sent(names) == ["actor.log_std", "critic.0", "target_critic.0"]
    assert config.sharing.broadcast(names) == [*config.sharing.sent(names), "normaliser.reward_std"]
    kept = replace(config, local=LocalConfig(target_networks="keep")).sharing
    assert kept.sent(names) == ["actor.log_std", "critic.0"]
    assert not config.sharing.is_whole(names)
    assert kept.is_whole(["actor.log_std", "target_critic.0"])
    with pytest.raises(
        ConfigError, match="Group 'critic' names no weight: networks of this algorithm are actor, normaliser"
    ):
        config.sharing.check(["actor.mean.0", "normaliser.reward_std"])


@pytest.mark.parametrize(("num_clients", "quorum"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_quorum_is_a_majority_by_default(num_clients: int, quorum: int) -> None:
    clients = [{"name": f"c{i}", "dataset": "x"} for i in range(num_clients)]
    assert parse_config(FederateConfig, {"algorithm": "bc", "clients": clients}).quorum == quorum
