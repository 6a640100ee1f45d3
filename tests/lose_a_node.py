"""Run a federation on a Ray of several nodes and take away one client's node in the middle of a round.

Run by tests/test_federated_faults.py in a process of its own; arguments: the folder of the datasets, that of the run.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import ray
from federations import NAMES, hold, small_config, two_of
from ray.cluster_utils import Cluster

from gridray.federated.rounds import run_round, start_federation
from gridray.federated.sites import RayActors

RESOURCE = "utility_north"


def main(datasets: Path, out: Path) -> None:
    """Write one digest per round, as JSON."""
    config = two_of(small_config({name: datasets / name for name in NAMES}))
    clients = tuple(replace(client, resource=RESOURCE if client.name == "north" else None) for client in config.clients)
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        common = {"temp_dir": folder, "node_ip_address": "127.0.0.2", "include_dashboard": False}
        small = {"object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.2", "resources": {RESOURCE: 1.0}}
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=3, object_store_memory=80 * 2**20, **common)
            nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=1, **small) for _ in range(2))}
            ray.init(
                address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, _node_ip_address="127.0.0.2"
            )
            federation = start_federation(RayActors(timeout_s=90.0), replace(config, clients=clients), out)
            records = [run_round(federation)]
            home = ray.get(
                federation.clients["north"].__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()),
                timeout=30.0,
            )
            north = federation.clients["north"]
            with hold(north, out / "gate", lambda: cluster.remove_node(nodes[home], allow_graceful=False)):
                records.append(run_round(federation))
            records += [run_round(federation) for _ in range(config.rounds - 2)]
            was_lost = not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == home)
        finally:
            ray.shutdown()
            cluster.shutdown()
    result = {"was_lost": was_lost, "digests": [record.weights_sha256 for record in records]}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
