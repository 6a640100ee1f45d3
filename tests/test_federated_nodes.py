"""A federation goes on as if nothing had been when a utility's node is lost."""

from __future__ import annotations

import secrets
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from federations import hold, small_config, two_of, write_datasets
from ray.cluster_utils import Cluster

from gridray.cluster.runtime import RAY_SETTINGS, THREAD_PINS
from gridray.federated.federate import federate
from gridray.federated.rounds import run_round, start_federation
from gridray.federated.sites import RayActors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from gridray.federated.coordinator import RoundRecord

# Ray takes 127.0.0.1 for an address that others cannot reach, and puts another one in its place.
LOOPBACK = "127.0.0.2"
NODE: dict[str, Any] = {"num_cpus": 1, "node_ip_address": LOOPBACK, "object_store_memory": 80 * 2**20}
NORTH = {"utility_north": 1.0}


@contextmanager
def cluster_of_nodes() -> Iterator[Cluster]:
    nodes = Cluster()
    try:
        nodes.add_node(**NODE, include_dashboard=False)
        ray.init(address=nodes.address, _node_ip_address=LOOPBACK)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def records_with_and_without_loss(folder: Path) -> tuple[tuple[RoundRecord, ...], tuple[RoundRecord, ...]]:
    config = two_of(small_config(write_datasets(folder / "data")), rounds=3)
    north, *others = config.clients
    config = replace(config, clients=(replace(north, resource=next(iter(NORTH))), *others))
    expected = federate(config, folder / "whole", use_ray=False).history
    with cluster_of_nodes() as cluster:
        lost = cluster.add_node(**NODE, resources=NORTH)
        federation = start_federation(RayActors(timeout_s=100.0), config, folder / "actors")
        records = [run_round(federation)]
        cluster.add_node(**NODE, resources=NORTH)

        def strike() -> None:
            cluster.remove_node(lost, allow_graceful=False)

        with hold(federation.clients["north"], folder / "gate", strike):
            records.append(run_round(federation))
        records.append(run_round(federation))
    return tuple(records), expected


def test_lost_node_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray reads its settings when it is imported, and a process has one Ray: this takes a process of its own.
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:
        Path(folder, "ray").mkdir()
        token = Path(folder, "token")
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        settings = {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        for name, value in (THREAD_PINS | RAY_SETTINGS | settings).items():
            monkeypatch.setenv(name, value)
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            records, expected = pool.submit(records_with_and_without_loss, tmp_path).result(timeout=170)
    assert records == expected
