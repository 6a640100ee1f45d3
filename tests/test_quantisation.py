"""Fixed point: sums are exact in levels, cannot overflow, and nothing is cut silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridray.errors import ConfigError, FederationError
from gridray.federated.privacy.quantisation import FixedPoint, widest


@settings(deadline=None, max_examples=50)
@given(
    num_terms=st.integers(1, 200),
    word_bits=st.sampled_from([16, 32, 64]),
    limit=st.sampled_from([1e-3, 0.1, 1.0, 7.3]),
    seed=st.integers(0, 2**32),
)
def test_decoded_sum_is_the_sum_to_half_a_step_per_term(
    num_terms: int, word_bits: int, limit: float, seed: int
) -> None:
    fixed = widest(limit, num_terms, word_bits)
    values = np.random.default_rng(seed).uniform(-limit, limit, size=(num_terms, 5))
    values[:, 0], values[:, 1] = limit, -limit
    words = np.sum([fixed.encode(row) for row in values], axis=0, dtype=fixed.encode(values[0]).dtype)
    error = np.abs(fixed.decode(words) - values.sum(axis=0))
    rounding_of_floats = 1e-14 * num_terms * limit
    assert (error <= num_terms * fixed.step * (0.5 + 1e-6) + rounding_of_floats).all()


@settings(deadline=None)
@given(num_terms=st.integers(1, 10_000), word_bits=st.sampled_from([16, 32, 64]))
def test_widest_fits_and_one_bit_more_does_not(num_terms: int, word_bits: int) -> None:
    fixed = widest(1.0, num_terms, word_bits)
    largest = 2 ** (word_bits - 1) - 1
    assert num_terms * fixed.max_level <= largest
    if fixed.level_bits < min(word_bits, 53):
        with pytest.raises(ConfigError, match=f"a signed word of {word_bits} bits holds {largest}: give level_bits"):
            FixedPoint(limit=1.0, num_terms=num_terms, level_bits=fixed.level_bits + 1, word_bits=word_bits)


def test_words_too_narrow_for_the_clients_are_refused() -> None:
    with pytest.raises(ConfigError, match="level_bits is 1: give 2 to 16"):
        widest(1.0, 40_000, 16)


@pytest.mark.parametrize("value", [1.0001, -1.5, np.nan, np.inf])
def test_value_beyond_the_limit_is_an_error_not_a_cut(value: float) -> None:
    with pytest.raises(FederationError, match=r"at element 2 is not within \[-1, 1\]: clip the update"):
        widest(1.0, 10).encode(np.array([0.0, 1.0, value]))


def test_random_rounding_has_the_exact_mean() -> None:
    fixed = FixedPoint(limit=1.0, num_terms=1, level_bits=3)
    values = np.full(200_000, 0.4)
    decoded = fixed.decode(fixed.encode(values, np.random.default_rng(0)))
    # A level is 1/3: draws are 1/3 or 2/3, so the mean of n has a standard deviation below (1/6) / sqrt(n) = 0.0004.
    assert set(np.round(decoded, 6)) == {0.333333, 0.666667}
    assert decoded.mean() == pytest.approx(0.4, abs=0.002)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0.0}, "limit is 0.0"),
        ({"limit": np.inf}, "limit is inf"),
        ({"num_terms": 0}, "num_terms is 0"),
        ({"word_bits": 24}, "word_bits is 24: give 16, 32 or 64"),
        ({"level_bits": 33}, "level_bits is 33: give 2 to 32"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, float], message: str) -> None:
    good = {"limit": 1.0, "num_terms": 4, "level_bits": 8, "word_bits": 32}
    with pytest.raises(ConfigError, match=message):
        FixedPoint(**(good | changes))
