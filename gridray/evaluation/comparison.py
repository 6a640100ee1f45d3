"""Policies on the same held-out days: tables, ceiling, scores, and what is known about how each came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridray.evaluation.columns import caidi_min, summary
from gridray.evaluation.economics import Economics, with_costs
from gridray.evaluation.rollout import EpisodeTable, evaluate_policy
from gridray.evaluation.scores import FLOOR, TODAY, Ceiling, Score, find_ceiling, score
from gridray.evaluation.statistics import paired_difference
from gridray.policies.optimal.plan import PerfectPlan
from gridray.policies.registry import make_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from gridray.algorithms.bundle import Manifest
    from gridray.policies.base import Policy, TwinPolicy
    from gridray.tasks.base import Task

NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """tables, scores: by policy, floor and today's controls among them; ceiling: of the same task and days."""

    tables: dict[str, EpisodeTable]
    ceiling: Ceiling
    scores: dict[str, Score]

    def plain(self, tuning: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return everything as JSON takes it; tuning: by policy, from `tuning_facts`."""
        today = self.tables[TODAY]
        policies = {}
        for name, table in self.tables.items():
            policies[name] = {
                "score": self.scores[name]._asdict() | {k: v._asdict() for k, v in _estimates(self.scores[name])},
                "indicators": {key: e._asdict() for key, e in summary(table).items()},
                "caidi_min": caidi_min(table),
                "return_minus_utility": paired_difference(table.returns, today.returns)._asdict(),
                "returns": table.returns.tolist(),
                "tuning": dict(tuning.get(name, UNTUNED)),
            }
        ceiling = {"kind": self.ceiling.kind, "days": self.ceiling.day, "returns": self.ceiling.returns}
        return {"days": today.day, "ceiling": ceiling, "policies": policies}


UNTUNED = {"online_evaluations": 0, "checkpoint": "untrained"}


def compare(  # noqa: PLR0913
    policies: Mapping[str, Policy | TwinPolicy],
    task: Task,
    *,
    days: NDArray[np.int64],
    prices: Economics,
    bound_days: int,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Run all policies, random and today's controls too, on the same days, and score them against the ceiling.

    Args:
        policies: by the name to show.
        task: with its held-out days.
        days: int64 [D].
        prices: of energy, demand, outages and wear.
        bound_days: days whose optimum is computed, spread over `days`.
        seed: of what draws.
        on_progress: called with shares of the work done.
    """
    progress = on_progress or (lambda _share: None)
    run = {name: make_policy(name, task) for name in (FLOOR, TODAY) if name not in policies} | dict(policies)
    part = 1.0 / (len(run) + 1)
    tables = {}
    for name, policy in run.items():
        table = evaluate_policy(policy, task, days=days, seed=seed, on_step=lambda share: progress(part * share))
        tables[name] = with_costs(table, prices)
    planner = next((policy for policy in run.values() if isinstance(policy, PerfectPlan)), None)
    ceiling = find_ceiling(
        task,
        tables,
        num_days=bound_days,
        seed=seed,
        planner=planner,
        on_day=lambda: progress(part / min(bound_days, len(days))),
    )
    return Comparison(
        tables=tables, ceiling=ceiling, scores={name: score(table, tables, ceiling) for name, table in tables.items()}
    )


def tuning_facts(manifest: Manifest) -> dict[str, Any]:
    """Return what a bundle says about its tuning: evaluations on a simulator, and which checkpoint it is."""
    provenance = manifest.provenance
    updates = provenance.get("num_updates")
    return {
        "online_evaluations": provenance.get("online_evaluations", NOT_STATED),
        "checkpoint": NOT_STATED if updates is None else f"last, after {updates} updates",
    }


def _estimates(score: Score) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in score._asdict().items() if hasattr(value, "_asdict")]
