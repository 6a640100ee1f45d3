"""Score the reference policies on held-out days of the library's feeders between random and the optimisation bound.

Command: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/references.py benchmarks/references.json [TASK:FEEDER ...]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from gridray.evaluation.comparison import compare
from gridray.evaluation.economics import Economics
from gridray.evaluation.rollout import held_out_days
from gridray.policies.registry import POLICIES, TWIN_POLICIES, make_reference
from gridray.tasks.registry import make_task

CASES = (
    "volt_var:ieee13",
    "storage:ieee13",
    "ev_charging:ieee13",
    "curtailment:ieee13",
    "reconfiguration:ieee13",
    "reconfiguration:ieee123",
)
NUM_DAYS = 12


def run(case: str) -> dict[str, Any]:
    """Return scores and returns of a task on a feeder, hourly steps."""
    name, feeder = case.split(":")
    task = make_task(name, {"feeder": feeder, "step_minutes": 60, "days": "held_out"})
    policies = {policy: make_reference(policy, task) for policy in (*POLICIES, *TWIN_POLICIES)}
    start = time.perf_counter()
    days = held_out_days(task, NUM_DAYS)
    found = compare(policies, task, days=days, prices=Economics(), bound_days=NUM_DAYS)
    lowest = min(float((found.ceiling.returns - table.returns).min()) for table in found.tables.values())
    result: dict[str, Any] = {"ceiling": round(float(found.ceiling.returns.mean()), 3), "kind": found.ceiling.kind}
    result |= {"least_gap_of_any_day": round(lowest, 4), "seconds": round(time.perf_counter() - start, 1)}
    for policy, score in found.scores.items():
        result[policy] = {
            "return": [round(value, 3) for value in score.returns_mean],
            "score": [round(value, 1) for value in score.normalised],
            "share_of_gap": [round(value, 3) for value in score.gap_share],
        }
    return result


def main() -> None:
    """Run all cases, or those named, and write the result file after each."""
    file = Path(sys.argv[1])
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for case in sys.argv[2:] or CASES:
        results[case] = run(case)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
