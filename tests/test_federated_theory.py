"""What sharing gives where there is a proof, and what attacks do to rules that do not guard against them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gridray.federated.aggregators.registry import make_aggregator
from gridray.federated.attacks import ATTACKS, attacked, inverted_rewards
from gridray.federated.tabular import (
    Episodes,
    fed_lcb_q,
    optimal_values,
    policy_value,
    random_mdp,
    sample_episodes,
)
from gridray.federated.updates import ClientUpdate

STEPS, STATES, ACTIONS = 4, 3, 3


def test_value_of_the_greedy_policy_of_the_optimal_values_is_their_mean_over_starts() -> None:
    mdp = random_mdp(np.random.default_rng(0), num_steps=STEPS, num_states=STATES, num_actions=ACTIONS)
    values = optimal_values(mdp)
    assert policy_value(mdp, values.argmax(axis=2)) == pytest.approx(float(mdp.start @ values[0].max(axis=1)))


def test_agents_together_learn_what_one_with_all_their_episodes_does() -> None:
    rng = np.random.default_rng(1)
    mdp = random_mdp(rng, num_steps=STEPS, num_states=STATES, num_actions=ACTIONS)
    behaviour = rng.dirichlet(np.ones(ACTIONS), size=(5, STEPS, STATES))
    apart = sample_episodes(mdp, behaviour, 40, rng)
    for num_rounds in (1, 8):
        # Episodes are interleaved, so that each round sees the same ones.
        together = Episodes(
            apart.states.transpose(1, 0, 2).reshape(1, 200, STEPS + 1),
            apart.actions.transpose(1, 0, 2).reshape(1, 200, STEPS),
        )
        np.testing.assert_array_equal(
            fed_lcb_q(mdp, apart, num_rounds=num_rounds, penalty=0.05),
            fed_lcb_q(mdp, together, num_rounds=num_rounds, penalty=0.05),
        )


def half_blind(best: np.ndarray, num_agents: int) -> np.ndarray:
    """Return behaviour that is uniform, but agent m never takes the best action at every other step, from m on."""
    behaviour = np.ones((num_agents, STEPS, STATES, ACTIONS))
    for agent in range(num_agents):
        steps = np.arange(agent % 2, STEPS, 2)[:, None]
        behaviour[agent, steps, np.arange(STATES), best[steps, np.arange(STATES)]] = 0.0
    return behaviour / behaviour.sum(axis=-1, keepdims=True)


def test_suboptimality_falls_with_agents_of_whom_none_covers_the_best_policy() -> None:
    agents, num_seeds = np.array([1, 2, 4, 8, 16]), 12
    gaps = np.zeros((num_seeds, len(agents)))
    alone = np.zeros(num_seeds)
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        mdp = random_mdp(rng, num_steps=STEPS, num_states=STATES, num_actions=ACTIONS)
        best = optimal_values(mdp).argmax(axis=2)
        top = policy_value(mdp, best)
        for column, num_agents in enumerate(agents):
            episodes = sample_episodes(mdp, half_blind(best, num_agents), 20, rng)
            gaps[seed, column] = top - policy_value(mdp, fed_lcb_q(mdp, episodes, num_rounds=16, penalty=0.05))
        much = sample_episodes(mdp, half_blind(best, 1), 320, rng)
        alone[seed] = top - policy_value(mdp, fed_lcb_q(mdp, much, num_rounds=16, penalty=0.05))
    draws = np.random.default_rng(0).integers(num_seeds, size=(500, num_seeds))
    slopes = [np.polyfit(np.log(agents), np.log(gaps[draw].mean(axis=0)), 1)[0] for draw in draws]
    assert np.quantile(slopes, 0.975) <= -0.4
    # As much data at one agent does not help: its best actions are never tried.
    assert alone.mean() > 3.0 * gaps[:, -1].mean()


def test_benchmark_writes_the_slope_with_its_interval(tmp_path: Path) -> None:
    script, out = Path(__file__).parents[1] / "benchmarks" / "federation.py", tmp_path / "out.json"
    subprocess.run([sys.executable, script, "tabular", out, "--quick"], check=True, capture_output=True, timeout=100)  # noqa: S603
    slope = json.loads(out.read_text())["log_log_slope"]
    assert slope["low"] <= slope["mean"] <= slope["high"] < 0.0


@pytest.mark.parametrize("attack", sorted(ATTACKS.keys() - {"colluding"}))
def test_attack_moves_the_mean_further_from_the_honest_one_than_the_median(attack: str) -> None:
    rng = np.random.default_rng(2)
    start = {"w": np.zeros(200), "b": np.zeros(3, dtype=np.float32)}
    drift = rng.normal(size=203)
    honest = [drift + 0.3 * rng.normal(size=203) for _ in range(10)]
    weights = [{"w": row[:200], "b": row[200:].astype(np.float32)} for row in honest]
    sent = attacked(attack, start, weights[:3], rng) + weights[3:]
    assert all({key: array.dtype for key, array in each.items()} == {"w": float, "b": np.float32} for each in sent)
    updates = [
        ClientUpdate(client=f"c{i}", round=0, num_samples=1, weights=each, metrics={}) for i, each in enumerate(sent)
    ]
    target = np.mean([each["w"] for each in weights[3:]], axis=0)
    error = {
        rule: float(np.linalg.norm(make_aggregator(rule).update({}, start, updates).weights["w"] - target))
        for rule in ("fedavg", "median")
    }
    assert error["fedavg"] > 1.3 * error["median"]


def test_colluding_attackers_pass_for_honest_clients_and_agree() -> None:
    rng = np.random.default_rng(3)
    start, drift = {"w": np.zeros(300)}, rng.normal(size=300)
    weights = [{"w": drift + 0.3 * rng.normal(size=300)} for _ in range(12)]
    first, *others = attacked("colluding", start, weights[:4], rng)
    assert all(np.array_equal(first["w"], other["w"]) for other in others)
    mean = np.mean([each["w"] for each in weights], axis=0)
    honest = [float(np.linalg.norm(each["w"] - mean)) for each in weights[4:]]
    assert float(np.linalg.norm(first["w"] - mean)) < 1.5 * max(honest)
    # They pull against the common direction.
    assert float((first["w"] - mean) @ np.sign(drift)) < 0


def test_inverted_rewards_make_the_worst_look_best_and_keep_the_mean() -> None:
    columns = {"rewards": np.array([1.0, 2.0, 6.0]), "obs": np.zeros((3, 1))}
    inverted = inverted_rewards(columns)
    np.testing.assert_array_equal(inverted["rewards"], [5.0, 4.0, 0.0])
    assert inverted["obs"] is columns["obs"]
