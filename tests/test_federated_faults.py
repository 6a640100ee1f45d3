"""Federations end as if nothing had been, whatever is killed, lost, full, late or malicious on the way."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray
from federations import hold, process_of, small_config, two_of, wait_until, waits_for, write_datasets

from gridray.errors import FederationError
from gridray.federated.client import UtilityClient
from gridray.federated.config import AsyncConfig
from gridray.federated.coordinator import Coordinator
from gridray.federated.federate import federate
from gridray.federated.ledger import RoundClosed, verify
from gridray.federated.membership import client_spec, initial_learner, round_rules
from gridray.federated.rounds import run_round, start_federation
from gridray.federated.sites import InProcess, Placing, RayActors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gridray.federated.config import FederateConfig
    from gridray.federated.updates import ClientUpdate

IN_OPEN = 0x20


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_datasets(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(datasets: dict[str, Path]) -> FederateConfig:
    return small_config(datasets)


@pytest.fixture
def sites(ray_local: None) -> Iterator[RayActors]:  # noqa: ARG001
    actors = RayActors(timeout_s=100.0)
    yield actors
    actors.stop()


def test_killed_clients_and_coordinators_leave_no_trace(
    config: FederateConfig, sites: RayActors, tmp_path: Path
) -> None:
    config = two_of(config, rounds=4)
    expected = federate(config, tmp_path / "whole", use_ray=False).history
    federation = start_federation(sites, config, tmp_path / "actors")
    north, coordinator = federation.clients["north"], federation.coordinator
    records, processes = [run_round(federation)], {process_of(north), process_of(coordinator)}
    for victim in (north, coordinator):
        with hold(north, tmp_path / f"gate{len(records)}", lambda victim=victim: ray.kill(victim, no_restart=False)):
            records.append(run_round(federation))
        assert process_of(victim) not in processes
    # Between rounds, too.
    ray.kill(coordinator, no_restart=False)
    records.append(run_round(federation))
    assert tuple(records) == expected


def test_client_that_is_late_misses_rounds_and_may_return(
    config: FederateConfig, sites: RayActors, tmp_path: Path
) -> None:
    federation = start_federation(sites, two_of(config, min_clients=1), tmp_path)
    south = federation.clients["south"]
    hasty = replace(federation, sites=RayActors(timeout_s=5.0))
    gate = tmp_path / "gate"
    # The first round takes longer: everything is loaded.
    assert run_round(federation).absent == {}
    south.__ray_call__.remote(waits_for(gate))
    assert run_round(hasty).absent == {"south": "no update within 5 s"}
    assert run_round(federation).absent == {"south": "still busy with an earlier round"}
    gate.touch()
    wait_until(lambda: sites.first(federation.in_flight, 0.0) == "south")
    assert run_round(federation).absent == {}

    ray.kill(south)
    assert run_round(federation).absent == {"south": "its actor failed (ActorDiedError)"}
    ray.kill(federation.clients["north"])
    with pytest.raises(FederationError, match="Round 5 has 0 updates of 2 clients, min_clients is 1"):
        run_round(federation)


@contextmanager
def full_disk(num_bytes: int = 2000) -> Iterator[None]:
    """Let the kernel refuse every byte that this process writes to a file beyond the first ones."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_at_the_clients_stops_the_run_which_goes_on_bit_for_bit(
    config: FederateConfig, tmp_path: Path
) -> None:
    expected = federate(config, tmp_path / "whole", use_ray=False).history
    federation = start_federation(InProcess(), config, tmp_path / "full")
    assert run_round(federation) == expected[0]
    with full_disk(), pytest.raises(FederationError, match=r"Round 1 has 0 updates .*cannot be written"):
        run_round(federation)
    # Clients hold on to the state of the last whole round, in this process and in the next.
    assert run_round(federation) == expected[1]
    assert federate(config, tmp_path / "full", use_ray=False).history == expected


class Malicious(UtilityClient):
    """Sends what the test makes of an honest update."""

    change: Callable[[ClientUpdate], Any]

    def fit(self, broadcast: Any) -> Any:  # noqa: ANN401, D102
        return self.change(super().fit(broadcast))


def with_bias(update: ClientUpdate, value: Any) -> ClientUpdate:  # noqa: ANN401
    return replace(update, weights=update.weights | {"actor.log_std": value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda update: with_bias(update, np.full_like(update.weights["actor.log_std"], np.nan)),
            "is nan at element 0",
        ),
        (lambda update: with_bias(update, update.weights["actor.log_std"][:1]), r"has shape \(1,\)"),
        (lambda update: with_bias(update, update.weights["actor.log_std"].astype(np.float64)), "is float64"),
        (lambda update: replace(update, weights=update.weights | {"spare": np.zeros(10**6)}), "unknown weight 'spare'"),
        (lambda update: replace(update, round=update.round - 1), "is for round -1"),
        (lambda update: replace(update, client="north"), "says it is from 'north'"),
        (lambda update: replace(update, num_samples=10**9), "it said 120 before"),
        (str, "is a str: send a ClientUpdate"),
    ],
)
def test_malicious_message_is_refused_and_recorded_and_the_round_goes_on(
    change: Callable[[ClientUpdate], Any], reason: str, config: FederateConfig, tmp_path: Path
) -> None:
    federation = start_federation(InProcess(), config, tmp_path)
    attacker = Malicious(federation.clients["south"]._spec)
    attacker.change = change
    record = run_round(replace(federation, clients=federation.clients | {"south": attacker}))
    assert set(record.num_samples) == {"east", "north"}
    assert re.search(reason, record.absent["south"])


def test_oversized_message_is_refused(config: FederateConfig, tmp_path: Path) -> None:
    federation = start_federation(InProcess(), replace(config, max_update_mib=1e-4), tmp_path)
    with pytest.raises(FederationError, match="bytes of weights: the limit is 104"):
        run_round(federation)


def test_buffered_rounds_take_late_updates_with_their_staleness(datasets: dict[str, Path], tmp_path: Path) -> None:
    config = small_config(datasets, rounds=4, aggregator="fedbuff", asynchronous=AsyncConfig(buffer_size=2))
    federation = start_federation(InProcess(), config, tmp_path)
    records = [run_round(federation) for _ in range(config.rounds)]
    # In one process, who has waited longest comes first: south enters one round late, and so on.
    senders = [["east", "north"], ["east", "south"], ["east", "north"], ["east", "south"]]
    assert [sorted(record.num_samples) for record in records] == senders
    assert [record.report["rest.mean_staleness"] for record in records] == [0.0, 0.5, 0.5, 0.5]
    lines = verify(tmp_path / "ledger.jsonl")
    late = [
        part.client
        for line in lines
        if isinstance(line.body, RoundClosed)
        for part in line.body.crossings
        if part.round < line.body.round
    ]
    assert late == ["south", "north", "south"]


def test_buffered_rounds_on_ray_do_not_wait_for_the_slowest(
    datasets: dict[str, Path], sites: RayActors, tmp_path: Path
) -> None:
    config = small_config(datasets, aggregator="fedbuff", asynchronous=AsyncConfig(buffer_size=1))
    federation = start_federation(sites, two_of(config), tmp_path)
    federation.clients["south"].__ray_call__.remote(lambda _: time.sleep(600.0))
    records = [run_round(federation) for _ in range(3)]
    assert [list(record.num_samples) for record in records] == [["north"]] * 3
    assert [record.report["rest.mean_staleness"] for record in records] == [0.0, 0.0, 0.0]


def test_each_member_opens_no_dataset_but_its_own(
    config: FederateConfig, datasets: dict[str, Path], sites: RayActors, tmp_path: Path
) -> None:
    config = two_of(config)
    specs = {client.name: client_spec(config, client, tmp_path / client.name) for client in config.clients}
    placing = Placing({"CPU": 0.1}, num_restarts=0)
    clients = {name: sites.start(name, UtilityClient, {"spec": spec}, placing) for name, spec in specs.items()}
    descriptions, moments = {}, {}
    with watched(datasets) as opened:
        # One member works at a time: what is opened then, it has opened, in whatever library.
        for name, client in clients.items():
            descriptions[name] = sites.value(sites.call(client, "describe"))
            moments[name] = sites.value(sites.call(client, "moments"))
            assert opened() == {name}
        learner = initial_learner(config, descriptions, moments)
        rules = round_rules(config, descriptions)
        arguments = {"rules": rules, "initial": learner.get_weights(), "folder": tmp_path / "rounds"}
        coordinator = sites.start("coordinator", Coordinator, arguments, placing)
        broadcast = sites.value(sites.call(coordinator, "broadcast"))
        assert opened() == set()
        for name, client in clients.items():
            update = sites.value(sites.call(client, "fit", broadcast))
            assert opened() <= {name}
            assert sites.value(sites.call(coordinator, "receive", name, update)) is None
        sites.value(sites.call(coordinator, "close_round", {}))
        assert opened() == set()


@contextmanager
def watched(folders: dict[str, Path]) -> Iterator[Callable[[], set[str]]]:
    """Let the kernel note every open of a file in these folders, by any process and library, since the last question.

    Python's audit hooks would not see what Arrow opens.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    names = {}
    for name, folder in folders.items():
        for path in (folder, *(inner for inner in folder.rglob("*") if inner.is_dir())):
            names[libc.inotify_add_watch(descriptor, bytes(path), IN_OPEN)] = name

    def opened() -> set[str]:
        seen = set()
        with suppress(BlockingIOError):
            while events := os.read(descriptor, 2**20):
                while events:
                    # struct inotify_event: int wd; uint32 mask, cookie, len; char name[len].
                    watch, _, _, length = struct.unpack_from("iIII", events)
                    seen.add(names[watch])
                    events = events[16 + length :]
        return seen

    try:
        yield opened
    finally:
        os.close(descriptor)
