"""Compressed updates: what is left out comes later, rounding has the exact mean, masks are obeyed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.errors import ConfigError, FederationError
from gridray.federated.compression import (
    Compressed,
    CompressionConfig,
    compress,
    decompress,
    masked_fixed_point,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("none", "top_k", "random_k", "int8")
NUM_VALUES = 500


def send_all(
    config: CompressionConfig, updates: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Send a row per round; return the sum of what arrived and what was left at the end."""
    rng, residual, arrived = np.random.default_rng(1), None, np.zeros(updates.shape[1])
    for round_index, update in enumerate(updates):
        message, residual = compress(config, update, residual, rng=rng, common_seed=round_index)
        arrived += decompress(message, common_seed=round_index)
    return arrived, residual


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_it_only_comes_later(kind: str) -> None:
    updates = np.random.default_rng(0).normal(size=(12, NUM_VALUES))
    arrived, left = send_all(CompressionConfig(kind=kind, share=0.2), updates)
    np.testing.assert_allclose(arrived + left, updates.sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("kind", ["top_k", "random_k"])
def test_what_is_left_stays_bounded_as_rounds_go_on(kind: str) -> None:
    config = CompressionConfig(kind=kind, share=0.2)
    updates = np.random.default_rng(0).normal(size=(200, NUM_VALUES))
    left = [np.linalg.norm(send_all(config, updates[:num_rounds])[1]) for num_rounds in (20, 100, 200)]
    # Without feedback the loss would grow as the square root of the rounds: 3.2 times from 20 to 200.
    assert left[2] < 1.5 * left[0]


@pytest.mark.parametrize(
    ("kind", "num_bytes"), [("none", 4 * 500), ("top_k", 8 * 50), ("random_k", 4 * 50), ("int8", 500)]
)
def test_bytes_of_a_message(kind: str, num_bytes: int) -> None:
    update = np.random.default_rng(0).normal(size=NUM_VALUES)
    message, _ = compress(
        CompressionConfig(kind=kind, share=0.1), update, None, rng=np.random.default_rng(0), common_seed=0
    )
    assert message.num_bytes == num_bytes


def test_top_k_sends_the_largest_changes_exactly() -> None:
    update = np.array([0.1, -5.0, 0.0, 3.0, -0.2])
    message, left = compress(
        CompressionConfig(kind="top_k", share=0.4), update, None, rng=np.random.default_rng(0), common_seed=0
    )
    np.testing.assert_array_equal(decompress(message, common_seed=0), [0.0, -5.0, 0.0, 3.0, 0.0])
    np.testing.assert_array_equal(left, [0.1, 0.0, 0.0, 0.0, -0.2])


def test_places_of_random_k_are_the_same_for_all_and_others_in_the_next_round() -> None:
    config = CompressionConfig(kind="random_k", share=0.1)
    places = [
        np.flatnonzero(
            decompress(
                compress(
                    config, np.ones(NUM_VALUES), None, rng=np.random.default_rng(client), common_seed=seed
                ).message,
                common_seed=seed,
            )
        )
        for client, seed in ((0, 7), (1, 7), (0, 8))
    ]
    assert len(places[0]) == 50
    np.testing.assert_array_equal(places[0], places[1])
    assert not np.array_equal(places[0], places[2])


def test_mean_of_int8_is_exact() -> None:
    config, rng = CompressionConfig(kind="int8"), np.random.default_rng(0)
    update = np.array([1.0, 0.123456, -0.654321, 1e-4])
    draws = [
        decompress(compress(config, update, None, rng=rng, common_seed=0).message, common_seed=0) for _ in range(5000)
    ]
    # A level is 1/127; the mean of 5000 draws has a standard deviation below 0.5 / 127 / sqrt(5000) = 5.6e-5.
    np.testing.assert_allclose(np.mean(draws, axis=0), update, atol=5 * 5.6e-5)
    np.testing.assert_allclose(draws[0], update, atol=1 / 127 + 1e-12)


def test_zero_update_stays_zero() -> None:
    for kind in KINDS:
        message, left = compress(
            CompressionConfig(kind=kind), np.zeros(NUM_VALUES), None, rng=np.random.default_rng(0), common_seed=0
        )
        assert not decompress(message, common_seed=0).any()
        assert not left.any()


def test_top_k_under_masks_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigError, match=r"neither add up nor may be seen.*use random_k"):
        masked_fixed_point(CompressionConfig(kind="top_k"), limit=1.0, num_clients=5)


def test_int8_adds_up_under_masks_in_words_of_16_bits() -> None:
    fixed = masked_fixed_point(CompressionConfig(kind="int8"), limit=0.1, num_clients=50)
    rng = np.random.default_rng(0)
    updates = rng.uniform(-0.1, 0.1, size=(50, 2000))
    words = [fixed.encode(update, rng) for update in updates]
    assert words[0].dtype == np.uint16
    total = fixed.decode(np.sum(words, axis=0, dtype=np.uint16))
    # 50 roundings of a step of 0.1 / 127, each uniform: standard deviation below 0.5 * step * sqrt(50).
    assert np.abs(total - updates.sum(axis=0)).max() < 6 * 0.5 * fixed.step * 50**0.5


def test_more_clients_than_16_bits_can_add_are_refused_at_the_start() -> None:
    assert masked_fixed_point(CompressionConfig(kind="int8"), limit=1.0, num_clients=258).word_bits == 16
    with pytest.raises(ConfigError, match="The sum of 259 clients' levels up to 127 can reach 32893"):
        masked_fixed_point(CompressionConfig(kind="int8"), limit=1.0, num_clients=259)


TOP_K = Compressed(
    kind="top_k", num_values=10, values=np.ones(3, np.float32), places=np.array([1, 4, 9], dtype=np.int32)
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"places": np.array([1, 4, 10], np.int32)}, "places ascend from 0 to below 10"),
        ({"places": np.array([-1, 4, 9], np.int32)}, "places ascend"),
        ({"places": np.array([4, 4, 9], np.int32)}, "places ascend"),
        ({"places": np.array([1, 4], np.int32)}, "2 places for 3 values"),
        ({"values": np.array([1, np.nan, 1], np.float32)}, "not finite"),
        ({"kind": "none", "places": None}, "has 3 values, not 10"),
    ],
)
def test_malformed_message_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FederationError, match=message):
        decompress(replace(TOP_K, **changes), common_seed=0)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_wrong_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"share {share}"):
        CompressionConfig(share=share)
