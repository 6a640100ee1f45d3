"""Speed-up of FedLCB-Q with the number of agents, none of which covers the best policy alone.

Run by benchmarks/federation.py tabular.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.federated.tabular import fed_lcb_q, optimal_values, policy_value, random_mdp, sample_episodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_STEPS, NUM_STATES, NUM_ACTIONS = 6, 4, 4


def behaviour_of(best: NDArray[np.int64], num_agents: int) -> NDArray[np.float64]:
    """Return behaviour [M, H, S, A]: uniform, but agent m never takes the best action at steps h with h + m even."""
    behaviour = np.ones((num_agents, NUM_STEPS, NUM_STATES, NUM_ACTIONS))
    for agent in range(num_agents):
        steps = np.arange(agent % 2, NUM_STEPS, 2)[:, None]
        behaviour[agent, steps, np.arange(NUM_STATES), best[steps, np.arange(NUM_STATES)]] = 0.0
    return behaviour / behaviour.sum(axis=-1, keepdims=True)


def suboptimality(num_agents: int, seed: int, num_episodes: int) -> float:
    """Return what FedLCB-Q's policy falls short of the best return, on the random MDP of a seed."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, num_steps=NUM_STEPS, num_states=NUM_STATES, num_actions=NUM_ACTIONS)
    best = optimal_values(mdp).argmax(axis=2)
    episodes = sample_episodes(mdp, behaviour_of(best, num_agents), num_episodes, rng)
    policy = fed_lcb_q(mdp, episodes, num_rounds=4 * NUM_STEPS, penalty=0.05)
    return policy_value(mdp, best) - policy_value(mdp, policy)


def speed_up(*, num_seeds: int, num_episodes: int, agents: tuple[int, ...] = (1, 2, 4, 8, 16)) -> dict[str, Any]:
    """Return mean sub-optimality by number of agents and the slope of its log against log M, with a 95 % interval."""
    gaps = np.array([[suboptimality(m, seed, num_episodes) for m in agents] for seed in range(num_seeds)])
    logs = np.log(np.array(agents, dtype=np.float64))

    def slope(rows: NDArray[np.float64]) -> float:
        return float(np.polyfit(logs, np.log(rows.mean(axis=0)), 1)[0])

    rng = np.random.default_rng(0)
    slopes = [slope(gaps[rng.integers(num_seeds, size=num_seeds)]) for _ in range(1000)]
    low, high = np.quantile(slopes, [0.025, 0.975])
    more = np.array([suboptimality(1, seed, 16 * num_episodes) for seed in range(num_seeds)])
    return {
        "note": "agent m never takes the best action at every other step; sub-optimality of the joint policy by agents",
        "episodes_per_agent": num_episodes,
        "num_seeds": num_seeds,
        "suboptimality": dict(zip(map(str, agents), gaps.mean(axis=0).round(4).tolist(), strict=True)),
        "log_log_slope": {"mean": round(slope(gaps), 3), "low": round(float(low), 3), "high": round(float(high), 3)},
        "one_agent_with_the_data_of_16": round(float(more.mean()), 4),
    }
