"""Solve a feeder inside each utility's own nodes: `ray submit clusters/local.yaml examples/cluster_powerflow.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import ray

TIMEOUT_S = 120


@ray.remote
def solve(feeder: str) -> dict[str, object]:
    """Solve the feeder by the command line of the node that runs this task."""
    command = [sys.executable, "-m", "gridray", "powerflow", feeder, "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout  # noqa: S603
    solution = json.loads(shown)
    return {key: solution[key] for key in ("converged", "iterations", "losses_kw")} | {
        "node": ray.util.get_node_ip_address()
    }


if __name__ == "__main__":
    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False)
    utilities = sorted(name for name in ray.cluster_resources() if name.startswith("utility_"))
    tasks = [solve.options(resources={name: 0.001}).remote("ieee13") for name in utilities]
    for name, solution in zip(utilities, ray.get(tasks, timeout=TIMEOUT_S), strict=True):
        sys.stdout.write(json.dumps({"resource": name} | solution) + "\n")
