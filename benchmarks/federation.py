"""Measure a federation: overhead of rounds, what attackers do to each rule, speed-up with agents, FEDORA in miniature.

Commands:
  .venv/bin/python benchmarks/federation.py overhead benchmarks/federation_overhead.json [--flower-python PYTHON]
  .venv/bin/python benchmarks/federation.py attacks benchmarks/federation_attacks.json
  .venv/bin/python benchmarks/federation.py tabular benchmarks/federation_tabular.json
  .venv/bin/python benchmarks/federation.py fedora benchmarks/federation_fedora.json [--seconds 600]
  .venv/bin/python benchmarks/federation.py headline benchmarks/federation_headline.json [--seconds 600]

--flower-python names an interpreter that has `flwr[simulation]`, which cannot share an environment with GridRay.

--rules names the rules that attacks are tried on, all by default.
--seconds ends fedora or headline after so long; the same command goes on with the cells that are missing.
--quick runs everything on tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import attacks
import federation_headline
import fedora
import numpy as np
import tabular

from gridray.cluster.runtime import ray_session
from gridray.federated.aggregators.grouped import REST
from gridray.federated.config import ClientConfig, FederateConfig
from gridray.federated.coordinator import Coordinator, RoundRules
from gridray.federated.rounds import Federation, run_round
from gridray.federated.sharing import RuleConfig, Sharing
from gridray.federated.sites import Placing, PooledActors, RayActors
from gridray.federated.updates import Broadcast, ClientUpdate

SIZES = {"actor": 81_000, "critic": 163_000, "value": 36_000}
"""280,000 float32 values, as of two hidden layers of 256."""
FLOWER_SCRIPT = Path(__file__).with_name("federation_flower.py")


class TrivialClient:
    """Adds 1 to every weight: what is left is the cost of the round itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def fit(self, broadcast: Broadcast) -> ClientUpdate:
        """Return an update."""
        weights = {name: array + np.float32(1.0) for name, array in broadcast.weights.items()}
        return ClientUpdate(client=self._name, round=broadcast.round, num_samples=100, weights=weights, metrics={})

    def memory_mib(self) -> float:
        """Return the resident memory of the process that this client is in, MiB."""
        return resident_mib(os.getpid())


def federation_of(sites: RayActors, num_clients: int, folder: Path, rule: str) -> Federation:
    """Start coordinator and trivial clients."""
    names = [f"c{index:04d}" for index in range(num_clients)]
    clients = {
        name: sites.start(name, TrivialClient, {"name": name}, Placing({"CPU": 0.001}, num_restarts=0))
        for name in names
    }
    sharing = Sharing(rules={REST: RuleConfig(rule=rule)}, target_networks="average")
    rules = RoundRules(
        sharing=sharing,
        clients=tuple(names),
        min_clients=num_clients,
        max_update_bytes=2**24,
        run_digest="benchmark",
    )
    initial = {f"{name}.weight": np.zeros(size, dtype=np.float32) for name, size in SIZES.items()}
    arguments = {"rules": rules, "initial": initial, "folder": folder}
    coordinator = sites.start("coordinator", Coordinator, arguments, Placing({"CPU": 0.001}, num_restarts=0))
    config = FederateConfig(
        algorithm="iql",
        clients=tuple(ClientConfig(name=name, dataset=folder) for name in names),
        min_clients=num_clients,
    )
    learner: Any = None
    return Federation(
        sites=sites, config=config, coordinator=coordinator, clients=clients, descriptions={}, learner=learner
    )


def round_times(
    num_clients: int, num_rounds: int, *, num_actors: int | None = None, rule: str = "fedavg"
) -> dict[str, Any]:
    """Return the cost of rounds, checks and checkpoint included; each client is an actor, or all are on num_actors."""
    sites = RayActors(120.0) if num_actors is None else PooledActors(120.0, num_actors, (TrivialClient,))
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        try:
            federation = federation_of(sites, num_clients, Path(folder), rule)
            times = []
            for _ in range(num_rounds + 2):
                start = time.perf_counter()
                record = run_round(federation)
                times.append(time.perf_counter() - start)
                if len(record.num_samples) != num_clients:
                    sys.exit(f"{len(record.num_samples)} of {num_clients} clients were in the round: {record.absent}")
            tickets = [
                sites.call(client, TrivialClient.memory_mib.__name__)
                for client in list(federation.clients.values())[: num_actors or 1]
            ]
            client_mib = sum(sites.value(ticket) for ticket in tickets)
        finally:
            sites.stop()
    seconds = median(times[2:])
    row: dict[str, Any] = {
        "clients": num_clients,
        "rule": rule,
        "ms_per_round": round(1e3 * seconds, 1),
        "client_rounds_per_s": round(num_clients / seconds, 1),
    }
    if num_actors is not None:
        return row | {"actors": num_actors, "client_mib": round(client_mib / num_clients, 2)}
    return row | {"client_mib": round(client_mib, 1)}


def overhead(*, is_quick: bool, flower_python: str | None) -> dict[str, Any]:
    """Return the rows of actors of their own, of pools, and of Flower's simulation where it is at hand."""
    plan: list[tuple[int, int, int | None, str]] = [
        (10, 20, None, "fedavg"),
        (50, 8, None, "fedavg"),
        (50, 8, 2, "fedavg"),
        (1000, 2, 2, "fedavg"),
        (50, 4, 2, "median"),
    ]
    rows = []
    with ray_session(num_cpus=2, object_store_bytes=2**31):
        for num_clients, num_rounds, num_actors, rule in ((2, 2, None, "fedavg"),) if is_quick else plan:
            rows.append(round_times(num_clients, num_rounds, num_actors=num_actors, rule=rule))
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
    results: dict[str, Any] = {"values": sum(SIZES.values()), "cpus": os.cpu_count(), "gridray": rows}
    if flower_python is not None:
        command = [flower_python, str(FLOWER_SCRIPT), str(sum(SIZES.values())), "2" if is_quick else "10,50"]
        # Ray takes 127.0.0.1 for an address that others cannot reach, and may put one in its place that nobody can.
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
        run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=own)  # noqa: S603
        results["flower"] = json.loads(run.stdout.splitlines()[-1])
    return results


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Run one mode and write its result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("overhead", "attacks", "tabular", "fedora", "headline"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--flower-python")
    parser.add_argument("--rules", default=",".join(attacks.RULES))
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    results: Any
    if options.mode == "overhead":
        results = overhead(is_quick=options.quick, flower_python=options.flower_python)
    elif options.mode == "attacks":
        rules = options.rules.split(",")
        results = attacks.table(num_rounds=1 if options.quick else 5, num_seeds=1 if options.quick else 5, rules=rules)
    elif options.mode == "fedora":
        results = fedora.table(options.out, seconds=options.seconds, is_quick=options.quick)
    elif options.mode == "headline":
        results = federation_headline.table(options.out, seconds=options.seconds, is_quick=options.quick)
    else:
        results = tabular.speed_up(num_seeds=4 if options.quick else 40, num_episodes=30)
    text = json.dumps(results, indent=1) + "\n"
    if options.mode not in {"fedora", "headline"}:
        options.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
