"""Server rules: one suite for all of them, and what each of them promises beyond it."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridray.errors import ConfigError, FederationError
from gridray.federated.aggregators.fedora import FedoraConfig, ensemble_shares
from gridray.federated.aggregators.grouped import group_of, grouped
from gridray.federated.aggregators.registry import AGGREGATORS, make_aggregator
from gridray.federated.updates import ClientUpdate, digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.federated.aggregators.base import Aggregator

    Arrays = dict[str, NDArray[Any]]

STEPPING = {"fedadam", "fedyogi"}
"""Rules that move towards the clients' mean instead of taking it."""
ROBUST = {
    "geometric_median": {},
    "krum": {"num_attackers": 2},
    "median": {},
    "trimmed_mean": {"num_attackers": 2},
}
NUM_ROBUST = 7


def arrays(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "actor.bias": (scale * rng.normal(size=4)).astype(np.float32),
        "actor.weight": (scale * rng.normal(size=(4, 3))).astype(np.float32),
        "value.scale": scale * rng.normal(size=()),
    }


def make_update(client: str, weights: Arrays, *, num_samples: int = 100, value: float = 0.0) -> ClientUpdate:
    controls = {name: np.full_like(array, 0.5) for name, array in weights.items()}
    return ClientUpdate(
        client=client, round=0, num_samples=num_samples, weights=weights, metrics={}, controls=controls, value=value
    )


def cohort(num_clients: int) -> list[ClientUpdate]:
    return [
        make_update(f"c{i}", arrays(i + 1), num_samples=10 * (i + 1), value=float(i % 3)) for i in range(num_clients)
    ]


def tolerant(name: str) -> Aggregator:
    """Return the rule set so that any number of clients is enough."""
    settings_of = {"krum": {"num_attackers": 0}, "trimmed_mean": {"num_attackers": 0}}
    return make_aggregator(name, settings_of.get(name, {}), num_clients=5)


@pytest.fixture(params=sorted(AGGREGATORS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_outcome_does_not_depend_on_order_and_inputs_stay(name: str) -> None:
    rule, start, updates = tolerant(name), arrays(0), cohort(4)
    state = rule.init(start)
    before = [digest(start), digest(state), *(digest(update.weights) for update in updates)]
    outcomes = {
        (digest(outcome.weights), digest(outcome.state), tuple(outcome.report.items()))
        for order in permutations(updates)
        for outcome in [rule.update(state, start, order)]
    }
    assert len(outcomes) == 1
    assert before == [digest(start), digest(state), *(digest(update.weights) for update in updates)]


def test_outcome_has_the_form_of_what_went_in_over_rounds(name: str) -> None:
    rule, weights = tolerant(name), arrays(0)
    state = rule.init(weights)
    for _ in range(3):
        outcome = rule.update(state, weights, cohort(5))
        assert {key: (array.shape, array.dtype) for key, array in outcome.weights.items()} == {
            key: (array.shape, array.dtype) for key, array in weights.items()
        }
        assert all(np.isfinite(array).all() for array in outcome.weights.values())
        assert all(np.isfinite(value) for value in outcome.report.values())
        weights, state = outcome.weights, outcome.state


@pytest.mark.parametrize("num_clients", [1, 2, 3, 5])
def test_clients_that_agree_are_followed_bit_for_bit(name: str, num_clients: int) -> None:
    rule, start, agreed = tolerant(name), arrays(0), arrays(1)
    goal = start if name in STEPPING else agreed
    updates = [make_update(f"c{i}", goal, num_samples=7 + i) for i in range(num_clients)]
    assert digest(rule.update(rule.init(start), start, updates).weights) == digest(goal)


@pytest.mark.parametrize("name", sorted(STEPPING))
def test_server_optimiser_steps_towards_the_clients(name: str) -> None:
    rule = make_aggregator(name, {"learning_rate": 0.01, "adaptivity": 1e-3})
    start = {"w": np.zeros(3)}
    outcome = rule.update(rule.init(start), start, [make_update("a", {"w": np.array([1.0, -1.0, 0.0])})])
    # first = 0.1 * 1 and second = 0.01 * 1, for Adam and Yogi alike: 0.01 * 0.1 / (0.1 + 0.001).
    np.testing.assert_allclose(outcome.weights["w"], [0.0099, -0.0099, 0.0], rtol=2e-3)


def test_fedavg_counts_clients_by_samples_or_all_the_same() -> None:
    updates = [
        make_update("a", {"w": np.array([1.0, 0.0])}, num_samples=3),
        make_update("b", {"w": np.array([5.0, 4.0])}, num_samples=1),
    ]
    start = {"w": np.zeros(2)}
    # (3 * 1 + 1 * 5) / 4 = 2 and (3 * 0 + 1 * 4) / 4 = 1.
    np.testing.assert_array_equal(make_aggregator("fedavg").update({}, start, updates).weights["w"], [2.0, 1.0])
    even = make_aggregator("fedavg", {"count_by": "clients"})
    np.testing.assert_array_equal(even.update({}, start, updates).weights["w"], [3.0, 2.0])


def test_scaffold_moves_its_control_by_the_senders_part_of_all_clients() -> None:
    rule, start = make_aggregator("scaffold", num_clients=8), {"w": np.zeros(2)}
    updates = [make_update(client, {"w": np.ones(2)}) for client in "ab"]
    outcome = rule.update(rule.init(start), start, updates)
    # Two of eight clients say +0.5: the mean over all moves by 2 / 8 * 0.5.
    np.testing.assert_allclose(outcome.state["control/w"], [0.125, 0.125])


def test_stale_update_counts_for_what_it_changed_and_less() -> None:
    rule, start = make_aggregator("fedbuff", {"max_staleness": 3}), {"w": np.zeros(1)}
    first = rule.update(rule.init(start), start, [make_update("a", {"w": np.array([4.0])})])
    stale = make_update("b", {"w": np.array([2.0])})
    second = rule.update(first.state, first.weights, [stale])
    # It moved the weights of round 0 by 2; in round 1 that counts 1 / sqrt(2).
    np.testing.assert_allclose(second.weights["w"], [4.0 + 2.0 / np.sqrt(2.0)])
    assert second.report == {"mean_staleness": 1.0}


def distance(first: Arrays, second: Arrays) -> float:
    return float(np.sqrt(sum(np.square(first[key].astype(float) - second[key]).sum() for key in first)))


@pytest.mark.parametrize("rule_name", sorted(ROBUST))
@given(
    seed=st.integers(0, 2**32 - 1),
    num_attackers=st.integers(0, 2),
    scale=st.sampled_from([0.1, 1.0, 1e3, 1e6, 1e15, 1e30]),
    do_collude=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_minority_cannot_break_a_robust_rule(
    rule_name: str,
    seed: int,
    num_attackers: int,
    scale: float,
    do_collude: bool,  # noqa: FBT001  # drawn
) -> None:
    rule, start = make_aggregator(rule_name, ROBUST[rule_name]), arrays(0)
    honest = [arrays(seed + i) for i in range(NUM_ROBUST - num_attackers)]
    attacks = [arrays(seed + 100 + (0 if do_collude else i), scale) for i in range(num_attackers)]
    rng = np.random.default_rng(seed)
    updates = [
        make_update(f"c{place}", weights)
        for place, weights in zip(rng.permutation(NUM_ROBUST), [*honest, *attacks], strict=True)
    ]
    outcome = rule.update(rule.init(start), start, updates).weights
    mean = {key: np.mean([weights[key] for weights in honest], axis=0) for key in start}
    radius = max(distance(weights, mean) for weights in honest)
    # Krum: R + 2 R sqrt(n - f - 2); the geometric median: 2 R (n - f) / (n - 2 f); coordinate rules: R sqrt(17 values).
    bound = radius * max(1.0 + 2.0 * np.sqrt(3.0), 2.0 * 5.0 / 3.0, np.sqrt(17.0))
    assert distance(outcome, mean) <= bound * 1.001


def test_mean_is_broken_by_one(name: str) -> None:
    attacker = make_update("z", arrays(99, 1e20), value=0.0)
    rule, start = tolerant(name), arrays(0)
    outcome = rule.update(rule.init(start), start, [*cohort(6), attacker])
    is_broken = distance(outcome.weights, start) > 1e10
    assert is_broken == (name in {"fedavg", "fedbuff", "fedora", "scaffold", "trimmed_mean"})


@pytest.mark.parametrize("rule_name", ["median", "trimmed_mean"])
def test_coordinate_rules_stay_within_the_honest_range(rule_name: str) -> None:
    rule, start = make_aggregator(rule_name, ROBUST[rule_name]), arrays(0)
    honest = [arrays(i) for i in range(5)]
    attacks = [arrays(50, 1e9), arrays(51, -1e9)]
    updates = [make_update(f"c{i}", weights) for i, weights in enumerate([*honest, *attacks])]
    outcome = rule.update({}, start, updates).weights
    for key, array in outcome.items():
        values = np.stack([weights[key] for weights in honest])
        assert (array >= values.min(axis=0)).all()
        assert (array <= values.max(axis=0)).all()


def test_geometric_median_is_where_the_sum_of_distances_is_least() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(6, 2)) * [1.0, 5.0]
    updates = [make_update(f"c{i}", {"w": point}) for i, point in enumerate(points)]
    found = (
        make_aggregator("geometric_median", {"smoothing": 1e-6}).update({}, {"w": np.zeros(2)}, updates).weights["w"]
    )

    def total(place: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(points - place, axis=1).sum())

    for step in 0.01 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]):
        assert total(found) < total(found + step)


def test_multi_krum_is_the_mean_of_the_nearest_company() -> None:
    weights = [0.0, 0.1, 0.2, 0.3, 50.0]
    updates = [make_update(f"c{i}", {"w": np.array([w])}) for i, w in enumerate(weights)]
    rule = make_aggregator("krum", {"num_attackers": 1, "num_chosen": 4})
    np.testing.assert_allclose(rule.update({}, {"w": np.zeros(1)}, updates).weights["w"], [0.15])


def test_clipped_client_moves_the_weights_no_further_than_the_limit() -> None:
    rule, start = make_aggregator("clipped_mean", {"max_norm": 2.0}), {"w": np.zeros(2)}
    outcome = rule.update({}, start, [make_update("a", {"w": np.array([300.0, 400.0])})])
    np.testing.assert_allclose(outcome.weights["w"], [1.2, 1.6])
    assert outcome.report == {"clipped_clients": 1.0}


@pytest.mark.parametrize(("rule_name", "num_needed"), [("krum", 7), ("trimmed_mean", 5)])
def test_too_few_updates_for_the_promise_are_refused(rule_name: str, num_needed: int) -> None:
    rule, start = make_aggregator(rule_name, {"num_attackers": 2}), arrays(0)
    assert rule.min_updates == num_needed
    with pytest.raises(FederationError, match=f"against 2 attackers it needs {num_needed}"):
        rule.update({}, start, cohort(num_needed - 1))


GOOD, POOR = [10.0, 10.4, 9.8, 10.2, 9.9], [2.0, 2.3, 1.8, 2.1, 1.9]


def shares_of(values: list[float], **changes: Any) -> NDArray[np.float64]:
    return ensemble_shares(np.array(values), np.full(len(values), 1.0 / len(values)), FedoraConfig(**changes))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("values", [GOOD + POOR, GOOD[:2] + POOR + [2.2, 1.7, 2.0]])
def test_ensemble_follows_good_clients_in_any_unit_of_value(values: list[float], scale: float) -> None:
    shares = shares_of([scale * value for value in values])
    assert shares[np.array(values) > 5].sum() > 0.9
    np.testing.assert_allclose(shares, shares_of([value + 7.0 for value in values]), rtol=1e-6)


@pytest.mark.parametrize("claim", [110.0, 1e6, 1e12])
def test_client_that_inflates_its_value_is_left_out(claim: float) -> None:
    shares = shares_of([*GOOD, *POOR[:-1], claim])
    assert shares[-1] == 0.0
    assert shares[:5].sum() > 0.9
    # Without that defence it would have all it may have.
    assert shares_of([*GOOD, *POOR[:-1], claim], num_liars=0)[-1] == pytest.approx(0.5)


def test_small_lie_gains_no_more_than_the_best_other_client() -> None:
    shares = shares_of([*GOOD, *POOR[:-1], 12.0])
    assert shares[-1] <= shares[:5].max() * 1.001


def test_no_client_has_more_than_its_cap_and_shares_sum_to_one() -> None:
    shares = shares_of([100.0, 1.0, 0.9, 1.1, 1.0], num_liars=0, temperature=50.0, max_share=0.4)
    assert shares[0] == pytest.approx(0.4)
    assert shares.sum() == pytest.approx(1.0)


def test_equal_values_count_by_samples() -> None:
    samples = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(ensemble_shares(np.full(3, 5.0), samples, FedoraConfig()), samples)


def test_ensemble_reports_its_effective_number_of_clients() -> None:
    updates = [make_update(f"c{i}", arrays(i), value=value) for i, value in enumerate(GOOD + POOR)]
    report = make_aggregator("fedora").update({}, arrays(0), updates).report
    assert 4.0 < report["effective_clients"] < 5.5
    with pytest.raises(FederationError, match="'c' has no value report"):
        make_aggregator("fedora").update(
            {}, arrays(0), [*updates, ClientUpdate(client="c", round=0, num_samples=1, weights=arrays(1), metrics={})]
        )


def test_client_counts_no_more_than_a_third_where_updates_are_hidden() -> None:
    weigh = make_aggregator("fedora", {"num_liars": 0}).weigh
    assert weigh is not None
    values = {"a": 100.0, "b": 1.0, "c": 0.9, "d": 1.1}
    counts = weigh([make_update(name, arrays(0), value=value) for name, value in values.items()])
    assert max(counts, key=lambda name: counts[name]) == "a"
    assert counts["a"] == pytest.approx(1 / 3)
    assert sum(counts.values()) == pytest.approx(1.0)


def test_every_group_follows_its_own_rule() -> None:
    rule = grouped(
        {"": make_aggregator("fedavg"), "actor": make_aggregator("median"), "actor.bias": make_aggregator("fedadam")}
    )
    start = arrays(0)
    updates = [make_update(client, arrays(i), num_samples=1 + i) for i, client in enumerate("abc")]
    outcome = rule.update(rule.init(start), start, updates)
    for key, single in {"actor.weight": "median", "value.scale": "fedavg", "actor.bias": "fedadam"}.items():
        alone = make_aggregator(single)
        part = {key: start[key]}
        expected = alone.update(alone.init(part), part, updates).weights[key]
        np.testing.assert_array_equal(outcome.weights[key], expected)
    assert set(outcome.state) == {"actor.bias:first", "actor.bias:second"}


def test_group_is_the_longest_prefix_that_ends_at_a_dot() -> None:
    groups = ["", "actor", "actor.mean"]
    names = ["actor.mean.0", "actor.log_std", "actors", "critic"]
    assert [group_of(key, groups) for key in names] == ["actor.mean", "actor", "", ""]


@pytest.mark.parametrize(
    ("rule_name", "changes", "message"),
    [
        ("fedavgg", {}, "'fedavgg' does not exist: choose one of clipped_mean"),
        ("krum", {"num_attacker": 1}, "did you mean 'num_attackers'"),
        ("krum", {"num_chosen": 9}, "num_chosen is 9: give 1 to num_attackers \\+ 3 = 4"),
        ("krum", {"num_attackers": -1}, "num_attackers is -1"),
        ("trimmed_mean", {"num_attackers": -1}, "num_attackers is -1"),
        ("fedadam", {"learning_rate": 0}, "learning_rate is 0"),
        ("fedyogi", {"momentum": 1}, "momentum is 1"),
        ("scaffold", {"step": 0}, "step is 0"),
        ("scaffold", {"num_clients": 0}, "num_clients is 0"),
        ("fedbuff", {"max_staleness": -1}, "max_staleness is -1"),
        ("fedora", {"max_share": 0}, "max_share is 0"),
        ("fedora", {"temperature": -1}, "temperature is -1"),
        ("fedora", {"num_liars": -1}, "num_liars is -1"),
        ("geometric_median", {"smoothing": 0}, "smoothing is 0"),
        ("geometric_median", {"max_iterations": 0}, "max_iterations is 0"),
        ("clipped_mean", {"max_norm": 0}, "max_norm is 0"),
        ("fedavg", {"count_by": "dollars"}, "count_by"),
    ],
)
def test_wrong_rule_or_setting_is_refused(rule_name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_aggregator(rule_name, changes)
