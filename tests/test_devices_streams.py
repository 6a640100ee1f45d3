"""Random streams: each environment's own, the reference generator's words, and the statistics of what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from gridray.devices.random_streams import EnvStreams
from gridray.errors import ConfigError

SEEDS = np.array([7, 2**63 + 5, 0, 12345678901234567], dtype=np.uint64)


def test_words_are_those_of_numpys_philox() -> None:
    streams = EnvStreams.from_seeds(SEEDS, purpose=3)
    # Each call begins a new block of four words.
    drawn = np.concatenate((streams.uniform(8), streams.uniform(2)))
    for env, seed in enumerate(SEEDS.tolist()):
        # NumPy's generator counts before it computes a block, so that it starts one block before ours.
        words = np.random.Philox(key=seed + (3 << 64), counter=2**256 - 1).random_raw(10)
        np.testing.assert_array_equal(drawn[:, env], ((words >> np.uint64(12)).astype(float) + 0.5) / 2**52)


def test_an_environment_draws_the_same_whatever_runs_beside_it() -> None:
    together = EnvStreams.from_seeds(SEEDS)
    draws = [together.uniform(3), together.normal(2, 5), together.exponential(1)]
    for order in ([2], [3, 0], [1, 3, 2, 0]):
        part = EnvStreams.from_seeds(SEEDS[order])
        for expected, got in zip(draws, [part.uniform(3), part.normal(2, 5), part.exponential(1)], strict=True):
            np.testing.assert_array_equal(got, expected[..., order])


def test_drawing_for_some_environments_leaves_the_others_where_they_are() -> None:
    streams, alone = EnvStreams.from_seeds(SEEDS), EnvStreams.from_seeds(SEEDS)
    some = streams.at(np.array([2, 0])).uniform(7)
    np.testing.assert_array_equal(some, alone.uniform(7)[:, [2, 0]])
    after = streams.uniform(3)
    np.testing.assert_array_equal(after[:, [1, 3]], EnvStreams.from_seeds(SEEDS).uniform(3)[:, [1, 3]])
    np.testing.assert_array_equal(after[:, [0, 2]], alone.uniform(3)[:, [0, 2]])
    assert streams.at(np.zeros(0, dtype=np.int64)).normal(3).shape == (3, 0)


def test_restart_repeats_these_environments_and_leaves_the_others_alone() -> None:
    streams, untouched = EnvStreams.from_seeds(SEEDS), EnvStreams.from_seeds(SEEDS)
    first = streams.uniform(6)
    untouched.uniform(6)
    streams.restart(np.array([1, 3]), SEEDS[[1, 3]])
    second, expected = streams.uniform(6), untouched.uniform(6)
    np.testing.assert_array_equal(second[:, [1, 3]], first[:, [1, 3]])
    np.testing.assert_array_equal(second[:, [0, 2]], expected[:, [0, 2]])


def test_seeds_are_not_those_of_the_caller() -> None:
    seeds = SEEDS.copy()
    EnvStreams.from_seeds(seeds).restart(np.array([0]), np.array([99], dtype=np.uint64))
    np.testing.assert_array_equal(seeds, SEEDS)


def test_draws_have_their_distributions_and_are_independent() -> None:
    streams = EnvStreams.from_seeds(np.arange(500, dtype=np.uint64))
    uniform, normal, exponential = streams.uniform(200), streams.normal(200), streams.exponential(200)
    # 100,000 draws with fixed seeds: a true generator falls below 1e-3 once in a thousand choices of seeds.
    assert kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert kstest(exponential.ravel(), "expon").pvalue > 1e-3
    # Neighbouring seeds, neighbouring draws and other purposes: correlation of n pairs has std 1/sqrt(n) = 0.0032.
    other = EnvStreams.from_seeds(np.arange(500, dtype=np.uint64), purpose=1).uniform(200)
    for a, b in ((uniform[:, 1:], uniform[:, :-1]), (uniform[1:], uniform[:-1]), (uniform, other)):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 * 0.0032


def test_uniform_never_gives_the_ends() -> None:
    drawn = EnvStreams.from_seeds(np.arange(1000, dtype=np.uint64)).uniform(1000)
    assert drawn.min() > 0.0
    assert drawn.max() < 1.0
    assert np.isfinite(EnvStreams.from_seeds(SEEDS).normal(1000)).all()


def test_global_generator_is_untouched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # this is what must not move
    EnvStreams.from_seeds(SEEDS).normal(100)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_wrong_seeds_and_purposes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"seeds are int64 of shape \(2,\): give uint64"):
        EnvStreams.from_seeds(np.array([1, 2]))
    with pytest.raises(ConfigError, match="purpose is -1"):
        EnvStreams.from_seeds(SEEDS, purpose=-1)
