"""Federated training: what clients may send, how it is joined, and that rounds repeat bit for bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridray.config import parse_config
from gridray.errors import ConfigError, FederationError
from gridray.federated.aggregators.registry import AGGREGATORS, make_aggregator
from gridray.federated.config import FederateConfig
from gridray.federated.coordinator import Coordinator, RoundRules
from gridray.federated.moments import moments, pool
from gridray.federated.updates import ClientUpdate, check_update, digest

if TYPE_CHECKING:
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


def assert_same(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> None:
    assert digest(first) == digest(second)


def test_update_of_the_broadcast_form_passes() -> None:
    check_update(some_update(), some_weights(0), round_index=0, client="north", max_bytes=1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": "south"}, "says it is from 'south'"),
        ({"round": 3}, "is for round 3: only round 0 is open"),
        ({"num_samples": 0}, "num_samples 0"),
        ({"num_samples": True}, "num_samples True"),
        ({"metrics": {"loss": float("nan")}}, "metric 'loss' = nan"),
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
        check_update(update, some_weights(0), round_index=0, client="north", max_bytes=1000)


def test_oversized_update_is_refused() -> None:
    num_bytes = sum(array.nbytes for array in some_weights(0).values())
    with pytest.raises(FederationError, match=f"has {num_bytes} bytes of weights: the limit is {num_bytes - 1}"):
        check_update(some_update(), some_weights(0), round_index=0, client="north", max_bytes=num_bytes - 1)


def test_anything_but_an_update_is_refused() -> None:
    with pytest.raises(FederationError, match="is a dict: send a ClientUpdate"):
        check_update({}, some_weights(0), round_index=0, client="north", max_bytes=1000)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", AGGREGATORS)
def test_aggregation_is_pure_and_independent_of_order(name: str) -> None:
    aggregator = make_aggregator(name)
    start = some_weights(0)
    updates = [some_update(client, seed=i, num_samples=10 ** (i + 1)) for i, client in enumerate("cab")]
    before = [digest(start), *(digest(update.weights) for update in updates)]
    outcomes = {digest(aggregator.update(aggregator.init(start), start, order)[0]) for order in permutations(updates)}
    assert len(outcomes) == 1
    assert before == [digest(start), *(digest(update.weights) for update in updates)]


@pytest.mark.parametrize("name", AGGREGATORS)
def test_aggregate_has_the_form_of_the_global_weights(name: str) -> None:
    aggregator = make_aggregator(name)
    start = some_weights(0)
    weights, _ = aggregator.update(aggregator.init(start), start, [some_update("a"), some_update("b", seed=2)])
    assert {key: (array.shape, array.dtype) for key, array in weights.items()} == {
        key: (array.shape, array.dtype) for key, array in start.items()
    }


@pytest.mark.parametrize("num_clients", [1, 2, 3, 7])
def test_fedavg_of_identical_updates_is_that_update(num_clients: int) -> None:
    start = some_weights(0)
    updates = [some_update(f"client{i}", num_samples=100 + i) for i in range(num_clients)]
    assert_same(make_aggregator("fedavg").update({}, start, updates)[0], updates[0].weights)


def test_fedavg_counts_clients_by_samples() -> None:
    updates = [
        replace(some_update("a", num_samples=3), weights={"w": np.array([1.0, 0.0])}),
        replace(some_update("b", num_samples=1), weights={"w": np.array([5.0, 4.0])}),
    ]
    weights, _ = make_aggregator("fedavg").update({}, {"w": np.zeros(2)}, updates)
    # (3 * 1 + 1 * 5) / 4 = 2 and (3 * 0 + 1 * 4) / 4 = 1.
    np.testing.assert_array_equal(weights["w"], [2.0, 1.0])


def test_unknown_aggregator_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fedavgg' does not exist: choose one of fedavg"):
        make_aggregator("fedavgg")


def test_pooled_moments_are_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.normal(loc=i, size=(10 + i, 3)) for i, name in enumerate(("b", "a", "c"))}
    rows = np.concatenate(list(parts.values()))
    pooled = pool({name: moments(part) for name, part in parts.items()})
    assert pooled.num_rows == len(rows)
    np.testing.assert_allclose(pooled.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pooled.m2 / pooled.num_rows, rows.var(axis=0), rtol=1e-12)


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
        aggregator="fedavg",
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
    ],
)
def test_wrong_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    data = {"algorithm": "bc", "clients": [{"name": "a", "dataset": "x"}]} | changes
    with pytest.raises(ConfigError, match=message):
        parse_config(FederateConfig, data)


@pytest.mark.parametrize(("num_clients", "quorum"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_quorum_is_a_majority_by_default(num_clients: int, quorum: int) -> None:
    clients = [{"name": f"c{i}", "dataset": "x"} for i in range(num_clients)]
    assert parse_config(FederateConfig, {"algorithm": "bc", "clients": clients}).quorum == quorum
