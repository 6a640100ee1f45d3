"""Accounting: equal to dp-accounting and to published figures, honest about units, and a budget is never passed."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from gridray.errors import ConfigError
from gridray.federated.privacy.accounting import (
    Budget,
    Mechanism,
    Unit,
    check_utility_budget,
    gaussian_noise_multiplier,
    noise_to_clip,
    sampled_noise_multiplier,
)

UTILITY = Budget(unit=Unit.UTILITY, epsilon=8.0, delta=1e-5)
DAY = Budget(unit=Unit.DAY, epsilon=2.0, delta=1e-5)
# One year of 15-min intervals, batches of 256.
YEAR_RATE = 256 / 35_040


def accountant_epsilon(mechanism: Mechanism, num_steps: int, delta: float) -> float:
    event = dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    if mechanism.sampling_rate < 1:
        event = dp_accounting.PoissonSampledDpEvent(mechanism.sampling_rate, event)
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, num_steps))
    return float(accountant.get_epsilon(delta))


# The notes' table: all utilities in all rounds, delta 1e-5, printed with two significant digits.
NOTES = {
    50: (54, 21, 6.6, 2.9, 1.4, 0.9),
    100: (92, 33, 10, 4.4, 2.0, 1.3),
    200: (159, 54, 15, 6.6, 2.9, 1.9),
    1000: (634, 192, 46, 18, 7.5, 4.7),
}


@pytest.mark.parametrize("rounds", NOTES)
def test_utility_level_epsilon_is_that_of_the_table(rounds: int) -> None:
    for noise_multiplier, printed in zip((1, 2, 5, 10, 20, 30), NOTES[rounds], strict=True):
        epsilon = Mechanism(noise_multiplier=noise_multiplier).spent(rounds, UTILITY).epsilon
        # 1 %, and half of the last digit that the table prints.
        last_digit = 1.0 if printed >= 10 else 0.1
        assert epsilon == pytest.approx(printed, rel=0.01, abs=0.501 * last_digit)


@pytest.mark.parametrize(
    ("noise_multiplier", "sampling_rate", "num_steps"),
    [(5.0, 1.0, 50), (20.0, 1.0, 1000), (2.0, YEAR_RATE, 10_000), (1.0, YEAR_RATE, 2000), (8.0, 16 / 365, 5000)],
)
def test_epsilon_is_dp_accountings(noise_multiplier: float, sampling_rate: float, num_steps: int) -> None:
    mechanism = Mechanism(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate)
    expected = accountant_epsilon(mechanism, num_steps, 1e-5)
    assert mechanism.spent(num_steps, DAY).epsilon == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("noise_multiplier", "num_steps", "printed"),
    [(1, 10_000, 5.2), (2, 10_000, 1.9), (4, 10_000, 0.84), (1, 50_000, 12.9), (2, 50_000, 4.5), (4, 50_000, 2.0)],
)
def test_sample_level_epsilon_is_below_the_notes_looser_bound(
    noise_multiplier: float, num_steps: int, printed: float
) -> None:
    # The notes' sample-level figures are Renyi bounds; privacy loss distributions give 5 to 10 % less for the same.
    accountant = RdpAccountant()
    event = dp_accounting.PoissonSampledDpEvent(YEAR_RATE, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, num_steps))
    assert accountant.get_epsilon(1e-6) == pytest.approx(printed, rel=0.02)
    budget = Budget(unit=Unit.TRANSITION, epsilon=1.0, delta=1e-6)
    ours = Mechanism(noise_multiplier=noise_multiplier, sampling_rate=YEAR_RATE).spent(num_steps, budget).epsilon
    assert 0.85 * printed < ours < printed


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_noise_multiplier_meets_its_budget_and_hardly_less_does_not(epsilon: float) -> None:
    budget = Budget(unit=Unit.UTILITY, epsilon=epsilon, delta=1e-5)
    noise_multiplier = gaussian_noise_multiplier(budget, 50)
    assert Mechanism(noise_multiplier=noise_multiplier * 1.0001).allows(50, budget)
    assert not Mechanism(noise_multiplier=noise_multiplier * 0.999).allows(50, budget)


def test_sampled_noise_multiplier_meets_its_budget_closely() -> None:
    rate = 16 / 365
    noise_multiplier = sampled_noise_multiplier(DAY, 1000, rate)
    assert Mechanism(noise_multiplier=noise_multiplier, sampling_rate=rate).allows(1000, DAY)
    assert not Mechanism(noise_multiplier=0.98 * noise_multiplier, sampling_rate=rate).allows(1000, DAY)


def test_run_stops_at_the_last_step_within_the_budget() -> None:
    mechanism = Mechanism(noise_multiplier=1.5, sampling_rate=16 / 365)
    steps = mechanism.max_steps(DAY, at_most=5000)
    assert mechanism.spent(steps, DAY).epsilon <= DAY.epsilon < mechanism.spent(steps + 1, DAY).epsilon
    assert mechanism.max_steps(DAY, at_most=steps - 1) == steps - 1
    assert Mechanism(noise_multiplier=0.1).max_steps(DAY, at_most=100) == 0


def test_every_step_spends_and_none_spends_nothing() -> None:
    mechanism = Mechanism(noise_multiplier=2.0)
    spent = [mechanism.spent(steps, UTILITY).epsilon for steps in range(6)]
    assert spent[0] == 0.0
    assert (np.diff(spent) > 0).all()


def test_an_epsilon_is_shown_with_its_unit() -> None:
    assert str(Mechanism(noise_multiplier=5).spent(50, UTILITY)) == "epsilon 6.57 per utility (delta 1e-05)"


def test_budget_that_ten_utilities_cannot_meet_is_refused_with_the_figure() -> None:
    # 4.244 * sqrt(280000) / 10 = 224.6. The notes say 237, from the Renyi bound's noise multiplier of 4.5.
    with pytest.raises(
        ConfigError, match=r"have 225 times the norm of the clip .* It takes 2246 utilities; or protect"
    ):
        check_utility_budget(UTILITY, num_clients=10, num_rounds=50, num_values=280_000, max_noise_to_clip=1.0)
    assert noise_to_clip(4.48, num_clients=10, num_values=280_000) == pytest.approx(237, abs=0.5)


def test_the_number_of_utilities_that_the_refusal_names_is_enough() -> None:
    known = {"num_rounds": 50, "num_values": 280_000, "max_noise_to_clip": 1.0}
    assert check_utility_budget(UTILITY, num_clients=2246, **known) == pytest.approx(4.244, abs=1e-3)
    with pytest.raises(ConfigError, match="It takes 2246 utilities"):
        check_utility_budget(UTILITY, num_clients=2245, **known)


def test_delta_that_would_let_a_unit_be_published_is_refused() -> None:
    DAY.check_delta(365)
    with pytest.raises(ConfigError, match=r"delta 0\.01 for 365 units .day.: one of them could be published whole"):
        Budget(unit=Unit.DAY, epsilon=1.0, delta=0.01).check_delta(365)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(unit=Unit.DAY, epsilon=0.0, delta=1e-5), "epsilon 0.0"),
        (lambda: Budget(unit=Unit.DAY, epsilon=1.0, delta=1.0), "delta 1.0"),
        (lambda: Mechanism(noise_multiplier=0.0), "noise_multiplier is 0.0"),
        (lambda: Mechanism(noise_multiplier=1.0, sampling_rate=1.5), "sampling_rate is 1.5"),
    ],
)
def test_wrong_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
