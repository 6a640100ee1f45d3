"""A policy's value without a simulator: fitted Q, weighted importance sampling, weighted doubly robust."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import log_ndtr

from gridray.errors import DatasetError
from gridray.evaluation.fqe import Episodes, FqeConfig, Values, fit_values
from gridray.evaluation.statistics import NUM_RESAMPLES, Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.datasets.dataset import OfflineDataset
    from gridray.policies.base import Policy

LOGGED, CLONED = "logged with the data", "estimated by behaviour cloning (linear mean, Gaussian noise)"
END = 1.0 - 1e-6
"""Beyond this an action was cut: its probability is that of all beyond."""
SMALLEST_STD = 0.02
RIDGE = 1e-3


class OfflineEstimate(NamedTuple):
    """Return of a day of the policy with its noise, by three estimators.

    effective_episodes: (sum w)^2 / sum w^2 of the weights of wis and wdr; where that is a few only, wis says nothing
    and wdr little more than fqe.
    """

    fqe: Estimate
    wis: Estimate
    wdr: Estimate
    effective_episodes: float


def read_episodes(dataset: OfflineDataset) -> tuple[Episodes, NDArray[np.float64], str]:
    """Return whole episodes, log-probabilities [n, T] of their actions, and where these come from.

    Raises:
        DatasetError: episodes are not all of one length.
    """
    data = dataset.load()
    _, number, length = np.unique(data["eps_id"], return_inverse=True, return_counts=True)
    if not len(length) or (length != length[0]).any():
        raise DatasetError(f"'{dataset.path}' has episodes of other lengths: estimates need whole days of one length.")
    order = np.lexsort((data["t"], number))
    shape = (len(length), int(length[0]))
    obs, actions, rewards, new_obs = (
        data[name][order].reshape(*shape, *data[name].shape[1:]) for name in ("obs", "actions", "rewards", "new_obs")
    )
    episodes = Episodes(obs, actions, rewards.astype(np.float64), new_obs)
    if "action_logp" in data:
        return episodes, data["action_logp"][order].astype(np.float64).reshape(shape), LOGGED
    return episodes, cloned_log_p(episodes), CLONED


def cloned_log_p(episodes: Episodes) -> NDArray[np.float64]:
    """Return log-probabilities of the logged actions under a clone of what acted, [n, T]."""
    n, num_steps, size = episodes.obs.shape
    x = episodes.obs.reshape(-1, size).astype(np.float64)
    x = np.hstack(((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6), np.ones((len(x), 1))))
    y = episodes.actions.reshape(len(x), -1).astype(np.float64)
    mean = x @ np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(size + 1), x.T @ y)
    std = np.maximum((y - mean).std(axis=0), SMALLEST_STD)
    return noisy_log_p(y, mean, std).reshape(n, num_steps)


def noisy_log_p(
    actions: NDArray[np.float64], mean: NDArray[np.float64], std: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the log-probability of actions [..., A]: the mean plus normal noise, cut to [-1, 1]; summed over A."""
    z = (actions - mean) / std
    inside = -0.5 * z * z - np.log(std) - 0.5 * np.log(2.0 * np.pi)
    above, below = log_ndtr((mean - 1.0) / std), log_ndtr((-1.0 - mean) / std)
    total: NDArray[np.float64] = np.where(actions >= END, above, np.where(actions <= -END, below, inside)).sum(axis=-1)
    return total


def estimate(
    episodes: Episodes, log_p: NDArray[np.float64], policy: Policy, *, noise_std: float, config: FqeConfig
) -> OfflineEstimate:
    """Estimate a policy's mean return of a day.

    Args:
        episodes: logged days.
        log_p: of their actions under what acted, [n, T].
        policy: to be valued.
        noise_std: of the normal noise that is put on its actions: a policy without any has no overlap with a log of
            continuous actions.
        config: of fitted Q evaluation.
    """
    n, _, size = episodes.obs.shape
    rng = np.random.default_rng(config.seed)
    own = policy.act(episodes.obs.reshape(-1, size), rng).reshape(episodes.actions.shape).astype(np.float64)
    ratio = noisy_log_p(episodes.actions.astype(np.float64), own, noise_std) - log_p
    weights = ratio.cumsum(axis=1)
    values = fit_values(episodes, policy, config, noise_std=noise_std)
    first = values.v[:, :, 0]
    spread = first.mean(axis=1)
    picks = rng.integers(0, n, (NUM_RESAMPLES, n))
    drawn = first.mean(axis=0)[picks].mean(axis=1) + rng.choice(spread - spread.mean(), NUM_RESAMPLES)
    everything = np.arange(n)[None]
    last = np.exp(weights[:, -1] - weights[:, -1].max())
    returns = episodes.rewards.sum(axis=1)
    wis = _wis(last, returns, everything)[0], _wis(last, returns, picks)
    mean = Values(*(part.mean(axis=0) for part in values))
    wdr = _wdr(weights, episodes.rewards, mean, everything)[0], _wdr(weights, episodes.rewards, mean, picks)
    return OfflineEstimate(
        fqe=_interval(float(spread.mean()), drawn),
        wis=_interval(float(wis[0]), wis[1]),
        wdr=_interval(float(wdr[0]), wdr[1]),
        effective_episodes=float(last.sum() ** 2 / (last**2).sum()),
    )


def _wis(weights: NDArray[np.float64], returns: NDArray[np.float64], picks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weighted mean of returns of each resample, [B]."""
    w = weights[picks]
    result: NDArray[np.float64] = (w * returns[picks]).sum(axis=1) / np.maximum(w.sum(axis=1), 1e-300)
    return result


def _wdr(
    log_weights: NDArray[np.float64], rewards: NDArray[np.float64], values: Values, picks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the weighted doubly robust value of each resample, [B].

    V(s_0) + sum_t w_t (r_t + V(s_t+1) - Q(s_t, a_t)), w_t normalised over episodes in every step (Thomas and Brunskill,
    "Data-efficient off-policy policy evaluation", ICML 2016).
    """
    scaled = np.exp(log_weights - log_weights.max(axis=0))
    after = np.hstack((values.v[:, 1:], np.zeros((len(rewards), 1))))
    error = rewards + after - values.q
    total = values.v[:, 0][picks].mean(axis=1)
    for t in range(rewards.shape[1]):
        w = scaled[:, t][picks]
        total = total + (w * error[:, t][picks]).sum(axis=1) / np.maximum(w.sum(axis=1), 1e-300)
    result: NDArray[np.float64] = total
    return result


def _interval(point: float, drawn: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(point, float(low), float(high))
