"""FedLCB-Q: federated, pessimistic tabular Q-learning, the case with a proof that sharing helps.

Woo, Shi, Joshi and Chi, "Federated offline reinforcement learning: collaborative single-policy coverage suffices",
ICML 2024 (arXiv 2402.05876). Agents learn from their own episodes between rounds with rates that grow with their own
visits; the server averages by importance, so that every sample counts the same wherever it was seen, and subtracts a
penalty for what all agents together have seen too rarely. It is enough that the agents together cover the best policy.
Here agents bootstrap from the value of the last round, which makes their local steps a weighted mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Mdp(NamedTuple):
    """Finite-horizon Markov decision process with H steps, S states and A actions.

    transitions: float64 [H, S, A, S], sums to 1 over the last axis.
    rewards: float64 [H, S, A], from 0 to 1.
    start: float64 [S], sums to 1.
    """

    transitions: NDArray[np.float64]
    rewards: NDArray[np.float64]
    start: NDArray[np.float64]


class Episodes(NamedTuple):
    """Episodes of M agents, K each.

    states: int64 [M, K, H + 1]; actions: int64 [M, K, H].
    """

    states: NDArray[np.int64]
    actions: NDArray[np.int64]


def random_mdp(rng: np.random.Generator, *, num_steps: int, num_states: int, num_actions: int) -> Mdp:
    """Return an MDP whose next states follow Dirichlet distributions and whose rewards are uniform."""
    shape = (num_steps, num_states, num_actions)
    return Mdp(
        transitions=rng.dirichlet(np.ones(num_states), size=shape),
        rewards=rng.uniform(size=shape),
        start=np.full(num_states, 1.0 / num_states),
    )


def optimal_values(mdp: Mdp) -> NDArray[np.float64]:
    """Return the optimal values Q* [H, S, A] by backward induction."""
    values = np.zeros_like(mdp.rewards)
    following = np.zeros(mdp.transitions.shape[1])
    for step in reversed(range(len(values))):
        values[step] = mdp.rewards[step] + mdp.transitions[step] @ following
        following = values[step].max(axis=1)
    return values


def policy_value(mdp: Mdp, policy: NDArray[np.int64]) -> float:
    """Return the expected return of a deterministic policy [H, S]."""
    states = np.arange(mdp.transitions.shape[1])
    following = np.zeros(len(states))
    for step in reversed(range(len(policy))):
        chosen = policy[step]
        following = mdp.rewards[step, states, chosen] + mdp.transitions[step, states, chosen] @ following
    return float(mdp.start @ following)


def sample_episodes(mdp: Mdp, behaviour: NDArray[np.float64], num_episodes: int, rng: np.random.Generator) -> Episodes:
    """Return K episodes of each of M agents, whose behaviour [M, H, S, A] sums to 1 over the last axis."""
    num_agents, num_steps = behaviour.shape[:2]
    agents = np.arange(num_agents)[:, None]
    states = np.zeros((num_agents, num_episodes, num_steps + 1), dtype=np.int64)
    actions = np.zeros((num_agents, num_episodes, num_steps), dtype=np.int64)
    states[:, :, 0] = rng.choice(len(mdp.start), p=mdp.start, size=(num_agents, num_episodes))
    for step in range(num_steps):
        now = states[:, :, step]
        actions[:, :, step] = _draw(behaviour[agents, step, now], rng)
        states[:, :, step + 1] = _draw(mdp.transitions[step, now, actions[:, :, step]], rng)
    return Episodes(states, actions)


def fed_lcb_q(mdp: Mdp, episodes: Episodes, *, num_rounds: int, penalty: float) -> NDArray[np.int64]:
    """Return the greedy policy [H, S] after num_rounds, in which each agent uses an equal part of its episodes.

    Args:
        mdp: gives rewards and sizes; its transitions are not read.
        episodes: the agents' data.
        num_rounds: how often agents and server exchange values.
        penalty: scale of the uncertainty that is subtracted, penalty * sqrt(H^2 / visits).
    """
    num_agents, num_episodes, num_steps = episodes.actions.shape
    shape = mdp.rewards.shape
    values, visits = np.zeros(shape), np.zeros(shape)
    upper = np.zeros((num_steps + 1, shape[1]))
    rate = num_steps + 1.0
    for part in np.array_split(np.arange(num_episodes), num_rounds):
        counts, targets = _local_sums(mdp, episodes, part, upper)
        # Local steps with rates M (H + 1) / (N + M (H + 1) i) end at this mean of old values and new targets.
        weight = visits + num_agents * rate * counts
        local = (visits * values + num_agents * rate * targets) / np.maximum(weight, 1.0)
        new = counts.sum(axis=0)
        total = visits + rate * new
        importance = weight / num_agents / np.maximum(total, 1.0)
        visits = visits + new
        shared = (importance * local).sum(axis=0)
        seen = new > 0
        bonus = penalty * num_steps / np.sqrt(np.maximum(visits, 1.0))
        share = np.where(seen, rate * new / np.maximum(total, 1.0), 0.0)
        values = np.where(seen, shared - share * bonus, values)
        upper[:-1] = np.maximum(upper[:-1], values.max(axis=2))
    policy: NDArray[np.int64] = values.argmax(axis=2)
    return policy


def _local_sums(
    mdp: Mdp, episodes: Episodes, part: NDArray[np.int64], upper: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each agent's visits and sum of targets, both [M, H, S, A]."""
    states, actions = episodes.states[:, part], episodes.actions[:, part]
    num_agents, _, num_steps = actions.shape
    agents, steps = np.arange(num_agents)[:, None, None], np.arange(num_steps)
    where = (agents, steps, states[:, :, :-1], actions)
    reached = upper[steps + 1, states[:, :, 1:]]
    counts, targets = np.zeros((num_agents, *mdp.rewards.shape)), np.zeros((num_agents, *mdp.rewards.shape))
    np.add.at(counts, where, 1.0)
    np.add.at(targets, where, mdp.rewards[steps, states[:, :, :-1], actions] + reached)
    return counts, targets


def _draw(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return one index per distribution along the last axis."""
    edges = probabilities.cumsum(axis=-1)
    uniform = rng.uniform(size=(*probabilities.shape[:-1], 1)) * edges[..., -1:]
    drawn: NDArray[np.int64] = (uniform > edges).sum(axis=-1)
    return drawn
