"""Rank policies from a log alone and compare with the twin: Spearman's correlation over twenty policies.

Command: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/off_policy.py benchmarks/off_policy.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from gridray.datasets.record import RecordConfig, record
from gridray.evaluation.fqe import FqeConfig
from gridray.evaluation.off_policy import estimate, read_episodes
from gridray.evaluation.rollout import evaluate_policy
from gridray.policies.registry import make_policy
from gridray.policies.static import StaticSetting
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.policies.base import Policy

TASK = {"feeder": "ieee13", "step_minutes": 60, "load_scale": 0.8}
NOISE, NUM_EPISODES, NUM_POLICIES = 0.3, 300, 20
FQE = FqeConfig(num_members=3, num_updates=2000, target_rate=0.02)


class Mixed:
    """Utility controls and a fixed setting, weighed, with noise."""

    def __init__(self, first: Policy, second: Policy, share: float, noise: float) -> None:
        """Weigh the second policy by `share`."""
        self.name = f"{second.name} {share:.2f}"
        self._parts, self._share, self._noise = (first, second), share, noise

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return weighed actions, float32 [num_envs, num_actions]."""
        first, second = (part.act(observations, rng) for part in self._parts)
        mean = (1.0 - self._share) * first + self._share * second
        return np.clip(mean + rng.normal(0.0, self._noise, mean.shape), -1.0, 1.0).astype(np.float32)


def main() -> None:
    """Record, estimate, compare, and write the result file."""
    task = make_task("volt_var", TASK)
    utility, rng = make_policy("utility_controls", task), np.random.default_rng(0)
    settings = []
    for number in range(NUM_POLICIES):
        setting = rng.uniform(-1.0, 1.0, len(task.action_channels))
        taps = [channel.kind == "integer" for channel in task.action_channels]
        setting[taps] = rng.integers(-4, 13, sum(taps))
        settings.append((StaticSetting(task, setting), number / (NUM_POLICIES - 1)))
    with tempfile.TemporaryDirectory() as folder:
        config = RecordConfig(
            task_config=TASK, noise_std=NOISE, random_share=0.2, num_episodes=NUM_EPISODES, num_envs=200
        )
        episodes, log_p, source = read_episodes(record(config, Path(folder) / "log", use_ray=False))
    truth, found = [], []
    for static, share in settings:
        twin = evaluate_policy(Mixed(utility, static, share, NOISE), task, days=task.allowed_days())
        truth.append(float(twin.returns.mean()))
        found.append(estimate(episodes, log_p, Mixed(utility, static, share, 0.0), noise_std=NOISE, config=FQE))
        sys.stdout.write(f"{len(found)} of {NUM_POLICIES}: {truth[-1]:.2f}, fitted Q {found[-1].fqe.mean:.2f}\n")
        sys.stdout.flush()
    result: dict[str, Any] = {"behaviour": source, "num_policies": NUM_POLICIES, "num_episodes": NUM_EPISODES}
    result["effective_episodes"] = [round(one.effective_episodes, 1) for one in found]
    for name in ("fqe", "wis", "wdr"):
        means = [getattr(one, name).mean for one in found]
        picked = int(np.argmax(means))
        result[name] = {
            "estimates": [round(mean, 2) for mean in means],
            "rank_correlation": round(float(spearmanr(means, truth).statistic), 3),
            "mean_absolute_error": round(float(np.abs(np.array(means) - truth).mean()), 2),
            "regret_at_1": round(max(truth) - truth[picked], 3),
        }
    result["fqe_settings"] = asdict(FQE)
    result["truth"] = [round(value, 2) for value in truth]
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
