"""Configurations of privacy: what works together passes, what would only look private is refused with the reason."""

from __future__ import annotations

import pytest

from gridray.config import parse_config
from gridray.errors import ConfigError
from gridray.federated.aggregators.registry import AGGREGATORS
from gridray.federated.compression import CompressionConfig
from gridray.federated.privacy.accounting import Unit
from gridray.federated.privacy.dp_sgd import DpSgdConfig
from gridray.federated.privacy.protection import (
    ROBUST_RULES,
    SUM_RULES,
    WEIGHED_RULES,
    ProtectionConfig,
    SecureAggregationConfig,
    UtilityNoiseConfig,
    check_protection,
    check_run,
    masked_groups,
)
from gridray.federated.sharing import RuleConfig, Sharing

MASKED = ProtectionConfig(secure_aggregation=SecureAggregationConfig())


@pytest.mark.parametrize("rule", sorted(SUM_RULES))
def test_rules_that_need_a_sum_work_under_masks(rule: str) -> None:
    check_protection(MASKED, rules=[rule], num_clients=5)


@pytest.mark.parametrize("rule", sorted(ROBUST_RULES))
def test_robust_rule_and_masks_exclude_each_other_but_in_groups(rule: str) -> None:
    with pytest.raises(ConfigError, match=f"Rule '{rule}' compares single updates, and secure aggregation hides them"):
        check_protection(MASKED, rules=["fedavg", rule], num_clients=12)
    check_protection(ProtectionConfig(), rules=[rule], num_clients=12)
    in_groups = ProtectionConfig(secure_aggregation=SecureAggregationConfig(num_groups=4))
    check_protection(in_groups, rules=[rule], num_clients=12)
    with pytest.raises(ConfigError, match="11 clients in 4 groups leave 2 in a group"):
        check_protection(in_groups, rules=[rule], num_clients=11)


def test_every_aggregator_is_allowed_or_refused_under_masks_by_name() -> None:
    for rule in AGGREGATORS:
        if rule in SUM_RULES | WEIGHED_RULES:
            check_protection(MASKED, rules=[rule], num_clients=12)
        else:
            with pytest.raises(ConfigError, match=f"Rule '{rule}'"):
                check_protection(MASKED, rules=[rule], num_clients=12)


def test_rule_that_needs_more_than_sums_is_refused_under_masks() -> None:
    with pytest.raises(ConfigError, match="'scaffold' needs more of each client than a sum"):
        check_protection(MASKED, rules=["scaffold"], num_clients=12)


def test_rule_that_weighs_clients_has_one_sum_over_all_of_them() -> None:
    in_groups = ProtectionConfig(secure_aggregation=SecureAggregationConfig(num_groups=4))
    with pytest.raises(ConfigError, match="'fedora' weighs clients and not groups of them"):
        check_protection(in_groups, rules=["fedora"], num_clients=12)
    mixed = Sharing(rules={"actor": RuleConfig(rule="fedora"), "": RuleConfig(rule="fedavg")}, target_networks="keep")
    with pytest.raises(ConfigError, match="'fedora' counts clients in its own way"):
        mixed.check_masked(12)
    both = Sharing(rules={"actor": RuleConfig(rule="fedora"), "": RuleConfig(rule="fedora")}, target_networks="keep")
    both.check_masked(12)
    assert both.aggregator(12).weigh is not None


def test_sum_over_two_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 clients in 1 groups leave 2 in a group"):
        check_protection(MASKED, rules=["fedavg"], num_clients=2)


def test_top_k_under_masks_is_refused() -> None:
    protection = ProtectionConfig(
        secure_aggregation=SecureAggregationConfig(), compression=CompressionConfig(kind="top_k")
    )
    with pytest.raises(ConfigError, match="use random_k"):
        check_protection(protection, rules=["fedavg"], num_clients=5)


def test_noise_per_utility_needs_a_mean_of_clipped_updates() -> None:
    protection = ProtectionConfig(utility_noise=UtilityNoiseConfig(epsilon=8.0))
    check_protection(protection, rules=["fedavg"], num_clients=5)
    with pytest.raises(ConfigError, match="rule 'median' depends on single"):
        check_protection(protection, rules=["median"], num_clients=5)


def test_budget_per_utility_is_met_or_refused_once_the_size_is_known() -> None:
    protection = ProtectionConfig(utility_noise=UtilityNoiseConfig(epsilon=8.0))
    with pytest.raises(ConfigError, match="225 times the norm of the clip"):
        check_run(protection, num_clients=10, num_rounds=50, num_values=280_000)
    assert check_run(protection, num_clients=500, num_rounds=50, num_values=1000) == pytest.approx(4.244, abs=1e-3)
    assert check_run(ProtectionConfig(), num_clients=10, num_rounds=50, num_values=280_000) is None


@pytest.mark.parametrize(("num_members", "num_groups"), [(9, 3), (14, 4), (5, 1)])
def test_groups_are_a_split_of_even_sizes_that_others_can_repeat(num_members: int, num_groups: int) -> None:
    names = [f"utility{index}" for index in range(num_members)]
    groups = masked_groups(names, num_groups, seed=3)
    assert sorted(name for group in groups for name in group) == sorted(names)
    sizes = [len(group) for group in groups]
    assert len(groups) == num_groups
    assert max(sizes) - min(sizes) <= 1
    assert groups == masked_groups(names[::-1], num_groups, seed=3)
    if num_groups > 1:
        assert groups != masked_groups(names, num_groups, seed=4)


def test_protection_is_described_with_units() -> None:
    protection = ProtectionConfig(
        secure_aggregation=SecureAggregationConfig(num_groups=3),
        utility_noise=UtilityNoiseConfig(epsilon=8.0),
        dp_sgd=DpSgdConfig(epsilon=2.0, noise_multiplier=1.0),
    )
    assert protection.describe() == (
        "secure aggregation in 3 groups; at most epsilon 8 per utility (delta 1e-05); "
        "at most epsilon 2 per day (delta 1e-05)"
    )
    assert ProtectionConfig().describe() == "none: updates are seen by the coordinator"


def test_protection_is_read_from_plain_data() -> None:
    data = {"dp_sgd": {"unit": "feeder-year", "epsilon": 3, "noise_multiplier": 2.0}, "compression": {"kind": "int8"}}
    protection = parse_config(ProtectionConfig, data)
    assert protection.dp_sgd is not None
    assert protection.dp_sgd.unit is Unit.FEEDER_YEAR
    assert protection.compression.kind == "int8"
    with pytest.raises(ConfigError, match="did you mean 'epsilon'"):
        parse_config(ProtectionConfig, {"dp_sgd": {"epsilom": 3}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SecureAggregationConfig(limit=0.0), "limit 0.0"),
        (lambda: SecureAggregationConfig(num_groups=0), "num_groups 0"),
        (lambda: UtilityNoiseConfig(epsilon=1.0, clip=0.0), "clip 0.0"),
        (lambda: UtilityNoiseConfig(epsilon=1.0, max_noise_to_clip=-1.0), "max_noise_to_clip -1.0"),
        (lambda: UtilityNoiseConfig(epsilon=0.0), "epsilon 0.0"),
    ],
)
def test_wrong_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_threshold_is_above_two_thirds_unless_given() -> None:
    assert [SecureAggregationConfig().threshold_of(count) for count in (3, 4, 6, 10, 50)] == [3, 3, 5, 7, 34]
    assert SecureAggregationConfig(threshold=6).threshold_of(10) == 6
