"""Who acts while a dataset is recorded: policies in stated shares, exploration noise, probability of each action."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.errors import ConfigError
from gridray.tasks.base import device_kinds, has_levels
from gridray.tasks.view_layout import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task

    PolicyMaker = Callable[[str, Task], Policy]
    NoiseStd = float | Mapping[str, float]

RANDOM = "random"
SHARE_TOLERANCE = 1e-6
FAR_TAIL = -35.0
"""Standard deviations below which the normal probability is taken from its asymptotic series."""


class Draws(NamedTuple):
    """What chance decides in n episodes, drawn from each episode's own stream.

    policy: int64 [n], index of the policy that acts; deviates: float64 [n, num_steps, num_actions], standard normal for
    noise on continuous actions, in [0, 1) where actions are levels or the episode acts at random.
    """

    policy: NDArray[np.int64]
    deviates: NDArray[np.float64]


class Behaviour:
    """Policies in stated shares; one acts through an episode, with noise on its actions.

    A continuous action is the policy's plus a normal deviate of standard deviation noise_std, cut to [-1, 1]; its law
    has a density inside and a probability at each end, and `action_logp` is the logarithm of whichever applies, summed
    over the components that have noise. A level is replaced by a uniform draw of all its levels with probability
    `epsilon`. The policy "random" draws uniformly and has no further noise. Without noise the action is certain and
    action_logp is 0. The probabilities are those given the policy that acts, `policy_index`, and count a policy as
    deterministic.
    """

    def __init__(
        self,
        task: Task,
        shares: Mapping[str, float],
        maker: PolicyMaker,
        *,
        noise_std: NoiseStd,
        epsilon: float,
        noise_steps: int = 1,
    ) -> None:
        """Make the policies.

        Args:
            task: what they act on.
            shares: share of episodes by the name that `maker` understands, in all 1.
            maker: makes a policy.
            noise_std: of actions in [-1, 1], one for all or by kind of device; kinds that are not named have none.
            epsilon: probability that a level is drawn at random.
            noise_steps: steps through which a deviate stays.

        Raises:
            ConfigError: there is noise of the wrong kind for the task's actions, or on a kind that there is not.
        """
        self.names = tuple(shares)
        self._shares = np.cumsum(list(shares.values()))
        self._policies = tuple(None if name == RANDOM else maker(name, task) for name in self.names)
        self._noise_std, self._epsilon = _noise_of_actions(task, noise_std), epsilon
        self._noise_steps = noise_steps
        self._is_noisy = bool((self._noise_std > 0.0).any())
        self._is_level = has_levels(task.action_channels)
        self._low = np.array([channel.low for channel in task.action_channels])
        self._count = np.array([channel.high - channel.low + 1.0 for channel in task.action_channels])
        if self._is_level and self._is_noisy:
            raise ConfigError(f"noise_std is {noise_std} but the actions of '{task.name}' are levels: give epsilon.")
        if not self._is_level and epsilon > 0.0:
            raise ConfigError(f"epsilon is {epsilon} but '{task.name}' has continuous actions: give noise_std.")

    @property
    def policy_names(self) -> tuple[str, ...]:
        """Own name of each policy."""
        return tuple(RANDOM if policy is None else policy.name for policy in self._policies)

    def draw_policies(self, num_episodes: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the index of the policy of each episode; those of fewer episodes come first in those of more."""
        drawn = np.searchsorted(self._shares, rng.random(num_episodes), side="right")
        indices: NDArray[np.int64] = np.minimum(drawn, len(self.names) - 1)
        return indices

    def draw(self, policy: int, rng: np.random.Generator, out: NDArray[np.float64]) -> None:
        """Draw an episode's deviates, [num_steps, num_actions], into `out`."""
        if self._is_level or self._policies[policy] is None:
            rng.random(out=out)
        elif self._is_noisy:
            rng.standard_normal(out=out)
            if self._noise_steps > 1:
                out[:] = out[np.arange(len(out)) // self._noise_steps * self._noise_steps]

    def act(
        self, observations: NDArray[np.float32], t: int, draws: Draws, rngs: list[np.random.Generator]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return actions [n, num_actions] and their log-probabilities [n] in step t; rngs: one per policy."""
        actions = np.empty((len(observations), len(self._low)), dtype=np.float32)
        log_p = np.empty(len(observations))
        for index, policy in enumerate(self._policies):
            rows = np.flatnonzero(draws.policy == index)
            if not len(rows):
                continue
            part = slice(None) if len(rows) == len(observations) else rows
            if policy is None:
                actions[part], log_p[part] = self._random(draws.deviates[part, t])
                continue
            proposed = policy.act(observations[part], rngs[index])
            noisy = self._noisy_levels if self._is_level else self._noisy
            actions[part], log_p[part] = noisy(proposed, draws.deviates[part, t])
        return actions, log_p

    def _random(self, uniform: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._is_level:
            actions = self._low + np.floor(uniform * self._count)
            return actions, np.full(len(uniform), -np.log(self._count).sum())
        return 2.0 * uniform - 1.0, np.full(len(uniform), -uniform.shape[1] * np.log(2.0))

    def _noisy(
        self, proposed: NDArray[np.float32], noise: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        mean = np.clip(proposed, -1.0, 1.0)
        if not self._is_noisy:
            return mean, np.zeros(len(mean))
        return censored_normal(mean, noise, self._noise_std)

    def _noisy_levels(
        self, proposed: NDArray[np.float32], uniform: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One uniform number decides both whether to explore and, divided by epsilon, which level."""
        if self._epsilon == 0.0:
            return np.asarray(proposed, dtype=np.float64), np.zeros(len(proposed))
        explores = uniform < self._epsilon
        drawn = self._low + np.floor(np.minimum(uniform / self._epsilon, 1.0 - 1e-12) * self._count)
        actions = np.where(explores, drawn, proposed)
        chance = self._epsilon / self._count + np.where(actions == proposed, 1.0 - self._epsilon, 0.0)
        return actions, np.log(chance).sum(axis=1)


def _noise_of_actions(task: Task, noise_std: NoiseStd) -> NDArray[np.float64]:
    """Return the standard deviation of the noise on each action."""
    kinds = device_kinds(task.action_channels)
    if not isinstance(noise_std, Mapping):
        return np.full(len(kinds), float(noise_std))
    if unknown := sorted(set(noise_std) - {*kinds, *KINDS}):
        known = ", ".join(dict.fromkeys(kinds))
        raise ConfigError(f"noise_std names '{unknown[0]}', which is no kind of device: '{task.name}' has {known}.")
    return np.array([float(noise_std.get(kind, 0.0)) for kind in kinds])


def censored_normal(
    mean: NDArray[np.floating], noise: NDArray[np.float64], std: float | NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return mean + std * noise cut to [-1, 1], and the sum over columns of its log-likelihood (Tobin 1958).

    Inside it is the normal log-density, at an end the logarithm of the probability of all that is cut to it. Actions
    are rounded to float32 first, so that what is stored is what is judged. std: of all, or of each column; a column
    without noise is certain.
    """
    actions, log_p = np.empty(mean.shape, dtype=np.float32), np.empty(len(mean))
    _censored_normal(mean, noise, np.full(mean.shape[1], std), actions, log_p)
    return actions, log_p


@njit(cache=True, nogil=True)
def _censored_normal(
    mean: NDArray[np.floating],
    noise: NDArray[np.float64],
    std: NDArray[np.float64],
    actions: NDArray[np.float32],
    log_p: NDArray[np.float64],
) -> None:
    log_scale = np.log(std * math.sqrt(2.0 * math.pi))
    for row in range(mean.shape[0]):
        total = 0.0
        for column in range(mean.shape[1]):
            middle = np.float64(mean[row, column])
            if std[column] == 0.0:
                actions[row, column] = middle
                continue
            action = np.float32(min(max(middle + std[column] * noise[row, column], -1.0), 1.0))
            z = (np.float64(action) - middle) / std[column]
            if abs(action) < 1.0:
                total -= 0.5 * z * z + log_scale[column]
            else:
                total += _log_normal_probability(z if action < 0.0 else -z)
            actions[row, column] = action
        log_p[row] = total


@njit(cache=True, nogil=True)
def _log_normal_probability(z: float) -> float:
    """Return the logarithm of the probability that a standard normal deviate is below z."""
    if z > 0.0:
        return math.log1p(-0.5 * math.erfc(z / math.sqrt(2.0)))
    if z > FAR_TAIL:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2.0)))
    # erfc underflows; Abramowitz and Stegun 26.2.12.
    series = -1.0 / z**2 + 3.0 / z**4 - 15.0 / z**6
    return -0.5 * z * z - math.log(-z * math.sqrt(2.0 * math.pi)) + math.log1p(series)


def resolve_shares(
    policy: str | Mapping[str, float], tiers: Mapping[str, str], random_share: float
) -> dict[str, tuple[str, float]]:
    """Return policy (name or directory) and share of each tier, `random_share` of all going to "random" besides.

    Raises:
        ConfigError: shares are not positive or do not add up to 1.
    """
    stated = {policy: 1.0} if isinstance(policy, str) else dict(policy)
    if not stated or any(not share > 0.0 for share in stated.values()):
        raise ConfigError(
            f"policy is {stated}: give policies with shares above 0, such as {{droop: 0.7, random: 0.3}}."
        )
    if abs(sum(stated.values()) - 1.0) > SHARE_TOLERANCE:
        raise ConfigError(f"The shares of policy add up to {sum(stated.values()):g}: make them 1.")
    if unused := sorted(set(tiers) - set(stated)):
        raise ConfigError(f"Tier '{unused[0]}' has no share in policy: give it one or leave it out.")
    shares = {tier: share * (1.0 - random_share) for tier, share in stated.items()}
    if random_share > 0.0:
        shares[RANDOM] = shares.get(RANDOM, 0.0) + random_share
    return {tier: (tiers.get(tier, tier), share) for tier, share in shares.items() if share > 0.0}
