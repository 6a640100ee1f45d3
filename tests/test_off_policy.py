"""Values from a log alone agree with what is known of a small linear problem, and rank policies rightly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from gridray.algorithms.train import TrainConfig, train
from gridray.cli import main
from gridray.datasets.record import RecordConfig, record
from gridray.errors import ConfigError
from gridray.evaluation.fqe import Episodes, FqeConfig
from gridray.evaluation.off_policy import (
    CLONED,
    LOGGED,
    OfflineEstimate,
    cloned_log_p,
    estimate,
    noisy_log_p,
    read_episodes,
)

if TYPE_CHECKING:
    from pathlib import Path

NUM_STEPS, NOISE, DRIFT = 5, 0.3, 0.9
CONFIG = FqeConfig(num_members=3, hidden_size=32, num_updates=500, batch_size=128, target_rate=0.05)


class Linear:
    """a = gain s."""

    def __init__(self, gain: float) -> None:
        self.name, self._gain = f"gain {gain}", gain

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """Return actions."""
        return (self._gain * observations).astype(np.float32)


def run(gain: float, num: int, seed: int) -> tuple[Episodes, np.ndarray]:
    """S' = 0.9 s + a, r = -s'^2, a = gain s + noise, s_0 normal of 0.3: no action comes near its end."""
    rng = np.random.default_rng(seed)
    s = rng.normal(0.0, 0.3, (num, 1))
    rows: list[tuple[np.ndarray, ...]] = []
    for _ in range(NUM_STEPS):
        a = gain * s + rng.normal(0.0, NOISE, s.shape)
        new = DRIFT * s + a
        log_p = norm.logpdf(a, gain * s, NOISE).sum(axis=1)
        rows.append((s, a, -(new**2)[:, 0], new, log_p))
        s = new
    obs, actions, rewards, new_obs, log_p = (np.stack(part, axis=1) for part in zip(*rows, strict=True))
    episodes = Episodes(*(np.float32(x) for x in (obs, actions)), rewards, np.float32(new_obs))
    return episodes, log_p


def known(gain: float) -> float:
    """Return -sum of E[s_t^2], where E[s_t+1^2] = (0.9 + gain)^2 E[s_t^2] + noise^2."""
    variance, total = 0.3**2, 0.0
    for _ in range(NUM_STEPS):
        variance = (DRIFT + gain) ** 2 * variance + NOISE**2
        total -= variance
    return total


@pytest.fixture(scope="module")
def log() -> tuple[Episodes, np.ndarray]:
    return run(-0.3, 1500, seed=0)


@pytest.fixture(scope="module")
def found(log: tuple[Episodes, np.ndarray]) -> dict[float, OfflineEstimate]:
    gains = (-0.9, -0.3, 0.0)
    return {gain: estimate(*log, Linear(gain), noise_std=NOISE, config=CONFIG) for gain in gains}


def test_weighted_estimates_have_the_known_value_within(found: dict[float, OfflineEstimate]) -> None:
    for gain in (-0.3, 0.0):
        for name in ("wis", "wdr"):
            value = getattr(found[gain], name)
            half = value.high - value.low
            assert value.low - half / 2.0 <= known(gain) <= value.high + half / 2.0, (gain, name)


def test_doubly_robust_is_narrower_than_importance_sampling(found: dict[float, OfflineEstimate]) -> None:
    for value in found.values():
        assert value.wdr.high - value.wdr.low < value.wis.high - value.wis.low


def test_policies_are_ranked_by_their_known_values(found: dict[float, OfflineEstimate]) -> None:
    truth = [known(gain) for gain in found]
    for name in ("fqe", "wdr"):
        estimates = [getattr(value, name).mean for value in found.values()]
        assert spearmanr(estimates, truth).statistic == pytest.approx(1.0), name


def test_fitted_q_is_near_the_known_value(found: dict[float, OfflineEstimate]) -> None:
    for gain, value in found.items():
        assert abs(value.fqe.mean - known(gain)) < 0.15 * abs(known(gain)), gain


def test_all_episodes_count_where_the_policy_is_what_acted(found: dict[float, OfflineEstimate]) -> None:
    assert found[-0.3].effective_episodes == pytest.approx(1500.0, rel=1e-2)
    assert found[-0.9].effective_episodes < 600.0


def test_clone_finds_the_probabilities_of_what_acted(log: tuple[Episodes, np.ndarray]) -> None:
    episodes, log_p = log
    assert np.abs(cloned_log_p(episodes) - log_p).mean() < 0.02


def test_law_of_cut_noise_adds_up_to_one() -> None:
    inside = np.linspace(-1.0, 1.0, 20001)[1:-1, None]
    density = np.exp(noisy_log_p(inside, np.array([0.8]), 0.3)).sum() * 1e-4
    ends = np.exp(noisy_log_p(np.array([[1.0], [-1.0]]), np.array([0.8]), 0.3)).sum()
    assert density + ends == pytest.approx(1.0, abs=1e-3)


def test_recorded_days_are_read_whole_and_in_order(tmp_path: Path) -> None:
    task = {"feeder": "ieee13", "step_minutes": 60, "num_days": 10}
    config = RecordConfig(task_config=task, noise_std=0.2, num_episodes=3, num_envs=3)
    dataset = record(config, tmp_path / "log", use_ray=False)
    episodes, log_p, source = read_episodes(dataset)
    assert episodes.obs.shape[:2] == log_p.shape == (3, 24)
    assert np.isfinite(log_p).all()
    assert source in {LOGGED, CLONED}
    np.testing.assert_array_equal(episodes.obs[:, 1:], episodes.new_obs[:, :-1])
    total = dataset.load(["rewards"])["rewards"].sum()
    assert episodes.rewards.sum() == pytest.approx(total, rel=1e-5)


def test_command_values_a_bundle_and_a_policy_from_logged_days(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RecordConfig(task_config={"num_days": 10, "step_minutes": 60}, num_episodes=6, noise_std=0.2)
    dataset = record(settings, tmp_path / "log", use_ray=False)
    learner = {"hidden_sizes": [8]}
    config = TrainConfig(dataset=dataset.path, algorithm="bc", num_updates=5, batch_size=32, learner=learner)
    bundle = train(config, tmp_path / "run").bundle
    arguments = ["evaluate", str(bundle), "utility_controls", "--offline", str(dataset.path), "--fqe-updates", "300"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--noise", "0.2", "--json"])
    assert left.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    logged = dataset.load(["rewards"])["rewards"].sum() / 6
    assert answer["behaviour"] == LOGGED
    assert answer["logged_return"] == pytest.approx(logged, rel=1e-5)
    assert list(answer["policies"]) == [str(bundle), "utility_controls"]
    # What acted, with the noise that it had: all weights are 1, and both estimates are the mean of the log.
    acted = answer["policies"]["utility_controls"]
    assert acted["effective_episodes"] == pytest.approx(6.0, rel=1e-3)
    assert acted["wis"]["mean"] == pytest.approx(logged, rel=1e-3)
    for values in answer["policies"].values():
        for name in ("fqe", "wis", "wdr"):
            assert values[name]["low"] <= values[name]["mean"] <= values[name]["high"]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "Return of a day from 6 logged days" in capsys.readouterr().out


def test_what_looks_into_the_twin_has_no_value_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RecordConfig(task_config={"step_minutes": 60, "num_days": 10}, num_episodes=1, num_envs=1)
    record(config, tmp_path / "log", use_ray=False)
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "greedy", "--offline", str(tmp_path / "log")])
    assert left.value.code == 1
    assert "'greedy' looks into the twin" in capsys.readouterr().err


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_members is 0"):
        FqeConfig(num_members=0)
    with pytest.raises(ConfigError, match="target_rate is 0"):
        FqeConfig(target_rate=0.0)
