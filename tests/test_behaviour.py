"""Who acts while a dataset is recorded, and with what noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import norm

from gridray.datasets.behaviour import Behaviour, Draws, censored_normal
from gridray.errors import ConfigError
from gridray.policies.registry import make_policy
from gridray.tasks.base import ActionChannel
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("volt_var", {"feeder": "ieee13", "step_minutes": 60, "num_days": 10})


def test_log_probability_is_that_of_the_cut_normal() -> None:
    rng = np.random.default_rng(0)
    mean = np.tile([[0.9, -1.0, 0.0]], (200_000, 1))
    actions, log_p = censored_normal(mean, rng.standard_normal(mean.shape), 0.3)
    assert np.abs(actions).max() == 1.0
    assert np.isfinite(log_p).all()
    # Mass at an end: P(0.9 + 0.3 z >= 1) = 1 - Phi(1/3), P(-1 + 0.3 z <= -1) = 1/2; scipy's norm gives the density.
    first = rng.standard_normal((1, 3))
    one, value = censored_normal(mean[:1], first, 0.3)
    parts = [
        norm.logpdf(a, m, 0.3) if abs(a) < 1.0 else norm.logsf(1.0, m, 0.3) if a > 0.0 else norm.logcdf(-1.0, m, 0.3)
        for a, m in zip(one[0], mean[0], strict=True)
    ]
    assert value[0] == pytest.approx(sum(parts))
    # Whatever the mean, the probabilities of all outcomes add up to 1: E[q(a) / p(a)] = 1 for another law q.
    other = np.tile([[0.7, -0.8, 0.1]], (200_000, 1))
    shifted = (actions - other) / 0.3
    _, log_q = censored_normal(other, shifted, 0.3)
    assert np.exp(log_q - log_p).mean() == pytest.approx(1.0, abs=0.02)


def test_columns_without_noise_are_certain() -> None:
    rng = np.random.default_rng(1)
    mean, noise = rng.uniform(-1.0, 1.0, (50, 3)), rng.standard_normal((50, 3))
    actions, log_p = censored_normal(mean, noise, np.array([0.3, 0.0, 0.1]))
    np.testing.assert_array_equal(actions[:, 1], mean[:, 1].astype(np.float32))
    parts = [censored_normal(mean[:, [i]], noise[:, [i]], std) for i, std in ((0, 0.3), (2, 0.1))]
    np.testing.assert_array_equal(actions[:, [0, 2]], np.hstack([part[0] for part in parts]))
    np.testing.assert_allclose(log_p, parts[0][1] + parts[1][1])


def test_log_probability_of_an_end_is_exact_near_and_far() -> None:
    # Cut at 1 from a mean of -1, z = 2 / std standard deviations away; the last ones underflow as a probability.
    for z in (0.1, 1.0, 5.0, 20.0, 34.0, 36.0, 50.0, 400.0):
        for side in (-1.0, 1.0):
            _, value = censored_normal(np.array([[-side]]), np.array([[side * (z + 1.0)]]), 2.0 / z)
            assert value[0] == pytest.approx(norm.logcdf(-z), rel=1e-12)


def test_noise_by_kind_of_device_leaves_the_others_alone(task: Task) -> None:
    state = task.new_state(6)
    task.reset(state, np.arange(6), np.arange(6), np.arange(6, dtype=np.uint64))
    rng = np.random.default_rng(0)
    deviates = rng.standard_normal((6, 1, len(task.action_channels)))
    plain, noisy = (
        Behaviour(task, {"droop": 1.0}, make_policy, noise_std=noise, epsilon=0.0).act(
            task.observe(state), 0, Draws(np.zeros(6, dtype=np.int64), deviates), [rng]
        )
        for noise in (0.0, {"pv": 0.2, "wind": 0.5})
    )
    is_pv = np.array([channel.name.startswith("pv.") for channel in task.action_channels])
    moved = noisy[0] != plain[0]
    assert moved[:, is_pv].any(axis=0).all()
    assert not moved[:, ~is_pv].any()
    assert (noisy[1] != 0.0).all()
    assert (plain[1] == 0.0).all()


def test_noise_stays_for_as_many_steps_as_it_is_told(task: Task) -> None:
    behaviour = Behaviour(task, {"droop": 1.0}, make_policy, noise_std=0.2, epsilon=0.0, noise_steps=4)
    deviates = np.empty((10, len(task.action_channels)))
    behaviour.draw(0, np.random.default_rng(3), deviates)
    drawn = np.random.default_rng(3).standard_normal(deviates.shape)
    np.testing.assert_array_equal(deviates, drawn[[0, 0, 0, 0, 4, 4, 4, 4, 8, 8]])


def test_noise_on_no_kind_of_device_is_refused(task: Task) -> None:
    with pytest.raises(ConfigError, match="noise_std names 'pvs', which is no kind of device: 'volt_var' has"):
        Behaviour(task, {"droop": 1.0}, make_policy, noise_std={"pvs": 0.2}, epsilon=0.0)


def test_behaviour_of_levels_explores_with_epsilon() -> None:
    task = LevelTask()
    behaviour = Behaviour(task, {"first": 1.0}, lambda _name, _task: FirstLevel(), noise_std=0.0, epsilon=0.4)
    rng = np.random.default_rng(0)
    draws = Draws(np.zeros(50_000, dtype=np.int64), rng.random((50_000, 1, 2)))
    actions, log_p = behaviour.act(np.zeros((50_000, 3), dtype=np.float32), 0, draws, [rng])
    values, counts = np.unique(actions[:, 1], return_counts=True)
    np.testing.assert_array_equal(values, [-1.0, 0.0, 1.0, 2.0])
    # 0.6 + 0.4 / 4 for the policy's own level, 0.1 for each other.
    np.testing.assert_allclose(counts / 50_000, [0.7, 0.1, 0.1, 0.1], atol=0.01)
    own = (actions == np.array([0.0, -1.0])).all(axis=1)
    # Levels 0 and 1 of the first action: 0.6 + 0.4 / 2.
    np.testing.assert_allclose(log_p[own], np.log(0.8 * 0.7))
    with pytest.raises(ConfigError, match="are levels: give epsilon"):
        Behaviour(task, {"random": 1.0}, make_policy, noise_std=0.1, epsilon=0.0)


class FirstLevel:
    """Takes the lowest level of each action."""

    name = "first"

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the lowest levels."""
        del rng
        return np.tile(np.array([[0.0, -1.0]], dtype=np.float32), (len(observations), 1))


class LevelTask:
    """What a behaviour asks of a task: its actions, here a switch of 2 and a tap of 4 levels."""

    name = "levels"
    action_channels = (ActionChannel("a", "1", 0.0, 1.0, "level"), ActionChannel("b", "1", -1.0, 2.0, "level"))
