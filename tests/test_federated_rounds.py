"""Whole federations on small datasets: equal to plain training, equal with and without Ray, whatever is killed."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray
import yaml
from ray.exceptions import RayActorError

from gridray.algorithms.base import BATCH_COLUMNS
from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.policy import LearnedPolicy
from gridray.algorithms.registry import LEARNERS
from gridray.cli import main
from gridray.datasets.card import DatasetSource, task_source
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.errors import FederationError
from gridray.federated.client import UtilityClient, round_rng
from gridray.federated.config import ClientConfig, FederateConfig
from gridray.federated.coordinator import Coordinator, RoundRecord
from gridray.federated.federate import federate
from gridray.federated.membership import client_spec, initial_learner, round_rules
from gridray.federated.rounds import run_round, start_federation
from gridray.federated.sites import RayActors
from gridray.federated.updates import Broadcast, digest
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = ("east", "north", "south")
LEARNER = {"hidden_sizes": [8, 8]}
TASK = {"feeder": "ieee13", "num_days": 5}
IN_OPEN = 0x20


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Made-up transitions of three utilities on one feeder, of different size and mean."""
    folder = tmp_path_factory.mktemp("data")
    source = task_source(make_task("volt_var", TASK), policy="made up", seed=0)
    for seed, name in enumerate(NAMES):
        parts = [made_up(source, np.random.default_rng([seed, part]), num_rows=40 + 10 * seed) for part in range(2)]
        write_dataset(folder / name, parts, source)
    return {name: folder / name for name in NAMES}


def made_up(source: DatasetSource, rng: np.random.Generator, num_rows: int) -> dict[str, NDArray[Any]]:
    obs = rng.normal(loc=rng.normal(), size=(num_rows + 1, len(source.observation_names))).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(num_rows, len(source.action_names))).astype(np.float32)
    return {
        "eps_id": np.full(num_rows, f"episode{rng.integers(10**9)}"),
        "t": np.arange(num_rows, dtype=np.int32),
        "obs": obs[:-1],
        "actions": actions,
        "rewards": (obs[1:, 0] - actions[:, 0] ** 2).astype(np.float32),
        "new_obs": obs[1:],
        "terminateds": np.zeros(num_rows, dtype=bool),
        "truncateds": np.arange(num_rows) == num_rows - 1,
    }


@pytest.fixture
def config(datasets: dict[str, Path]) -> FederateConfig:
    clients = tuple(ClientConfig(name=name, dataset=datasets[name]) for name in NAMES)
    return FederateConfig(
        algorithm="iql", clients=clients, rounds=3, local_updates=3, batch_size=16, learner=LEARNER, seed=7
    )


def only(config: FederateConfig, *names: str) -> FederateConfig:
    return replace(config, clients=tuple(client for client in config.clients if client.name in names))


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_one_client_federated_is_plain_training(algorithm: str, config: FederateConfig, tmp_path: Path) -> None:
    alone = replace(only(config, "north"), algorithm=algorithm)
    result = federate(alone, tmp_path, use_ray=False)
    client = UtilityClient(client_spec(alone, alone.clients[0], tmp_path / "plain"))
    learner = initial_learner(alone, {"north": client.describe()}, {"north": client.moments()})
    columns = OfflineDataset.open(alone.clients[0].dataset).load(BATCH_COLUMNS)
    for index in range(alone.rounds):
        rng = round_rng(alone.seed, "north", index)
        for _ in range(alone.local_updates):
            rows = rng.integers(len(columns["rewards"]), size=alone.batch_size)
            learner.update({name: column[rows] for name, column in columns.items()})
    assert digest(learner.get_weights()) == result.history[-1].weights_sha256


def test_identical_clients_train_as_one(config: FederateConfig, tmp_path: Path) -> None:
    alone = only(config, "north")
    expected = federate(alone, tmp_path / "one", use_ray=False)
    client = UtilityClient(client_spec(alone, alone.clients[0], tmp_path / "copy"))
    descriptions = {"north": client.describe()}
    rules = replace(round_rules(alone, descriptions), clients=NAMES, num_samples={}, min_clients=3)
    start = initial_learner(alone, descriptions, {"north": client.moments()}).get_weights()
    coordinator = Coordinator(rules, start, tmp_path / "rounds")
    for index in range(alone.rounds):
        update = client.fit(coordinator.broadcast())
        assert [coordinator.receive(name, replace(update, client=name)) for name in NAMES] == [None] * 3
        assert coordinator.close_round({}).weights_sha256 == expected.history[index].weights_sha256


def test_all_clients_share_the_normaliser_of_all_rows(config: FederateConfig, tmp_path: Path) -> None:
    result = federate(replace(config, rounds=1), tmp_path, use_ray=False)
    rows = [OfflineDataset.open(client.dataset).load(("obs", "rewards")) for client in config.clients]
    obs = np.concatenate([columns["obs"] for columns in rows]).astype(np.float64)
    rewards = np.concatenate([columns["rewards"] for columns in rows]).astype(np.float64)
    np.testing.assert_allclose(result.weights["normaliser.observation_mean"], obs.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(result.weights["normaliser.observation_std"], obs.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(result.weights["normaliser.reward_mean"], [rewards.mean()], rtol=1e-5)
    np.testing.assert_allclose(result.weights["normaliser.reward_std"], [rewards.std()], rtol=1e-5)


@pytest.mark.usefixtures("ray_local")
def test_ray_and_one_process_give_equal_results(config: FederateConfig, tmp_path: Path) -> None:
    local = federate(config, tmp_path / "local", use_ray=False)
    actors = federate(config, tmp_path / "ray")
    assert actors.history == local.history
    assert digest(actors.weights) == digest(local.weights) == local.history[-1].weights_sha256


def test_bundle_holds_the_final_policy(config: FederateConfig, tmp_path: Path) -> None:
    result = federate(config, tmp_path, use_ray=False)
    bundle = load_bundle(result.bundle)
    observations = np.random.default_rng(0).normal(size=(5, bundle.policy.observation_size)).astype(np.float32)
    expected = LearnedPolicy.from_weights("iql", result.weights)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(bundle.policy.act(observations, rng), expected.act(observations, rng))
    assert set(bundle.manifest.provenance["clients"]) == set(NAMES)


def test_clients_of_unlike_feeders_are_refused(config: FederateConfig, tmp_path: Path) -> None:
    client = config.clients[0]
    source = task_source(make_task("volt_var", TASK | {"num_pv": 2}), policy="made up", seed=0)
    write_dataset(tmp_path / "unlike", [made_up(source, np.random.default_rng(0), 10)], source)
    unlike = replace(config, clients=(client, ClientConfig(name="unlike", dataset=tmp_path / "unlike")))
    with pytest.raises(FederationError, match=r"'unlike' has '.*' as number \d+ of its observation_names"):
        federate(unlike, tmp_path / "out", use_ray=False)


def test_stopped_run_goes_on_bit_for_bit(config: FederateConfig, tmp_path: Path) -> None:
    expected = federate(config, tmp_path / "whole", use_ray=False)

    def stop(record: RoundRecord) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(config, tmp_path / "stopped", stop, use_ray=False)
    resumed: list[int] = []
    result = federate(config, tmp_path / "stopped", lambda record: resumed.append(record.round), use_ray=False)
    assert resumed == [2]
    assert result.history == expected.history


def test_killed_process_goes_on_bit_for_bit(config: FederateConfig, tmp_path: Path) -> None:
    config = replace(config, rounds=200)
    file, out = tmp_path / "federate.yaml", tmp_path / "killed"
    clients = [{"name": client.name, "dataset": str(client.dataset)} for client in config.clients]
    file.write_text(yaml.safe_dump(asdict(config) | {"clients": clients}))
    code = "from gridray.cli import main; main()"
    command = [sys.executable, "-c", code, "federate", str(file), "--out", str(out), "--no-ray"]
    with subprocess.Popen(command) as process:  # noqa: S603  # our own command
        wait_until(lambda: any(out.glob("rounds/round-*")))
        process.kill()
    assert not (out / "policy").exists()
    num_done = 1 + max(int(path.name.removeprefix("round-")) for path in out.glob("rounds/round-*"))
    config = replace(config, rounds=num_done + 2)
    result = federate(config, out, use_ray=False)
    assert result.history == federate(config, tmp_path / "whole", use_ray=False).history


@pytest.fixture
def sites(ray_local: None) -> Iterator[RayActors]:  # noqa: ARG001
    actors = RayActors(timeout_s=60.0)
    yield actors
    actors.stop()


def test_restarted_client_goes_on_and_a_late_or_dead_one_misses_the_round(
    config: FederateConfig, sites: RayActors, tmp_path: Path
) -> None:
    expected = federate(config, tmp_path / "whole", use_ray=False)
    federation = start_federation(sites, config, tmp_path / "actors")
    north, south = federation.clients["north"], federation.clients["south"]
    assert run_round(federation) == expected.history[0]

    first = process_of(north)
    ray.kill(north, no_restart=False)
    wait_until(lambda: process_of(north) not in {first, None})
    assert run_round(federation) == expected.history[1]

    south.__ray_call__.remote(lambda _: time.sleep(60.0))
    record = run_round(replace(federation, sites=RayActors(timeout_s=5.0)))
    assert set(record.num_samples) == {"east", "north"}
    assert record.absent == {"south": "no update within 5 s"}

    ray.kill(south)
    assert run_round(federation).absent == {"south": "its actor failed (ActorDiedError)"}

    ray.kill(north)
    with pytest.raises(FederationError, match="Round 4 has 1 updates of 3 clients, min_clients is 2"):
        run_round(federation)


def test_missing_resource_is_named(config: FederateConfig, ray_local: None, tmp_path: Path) -> None:
    del ray_local
    client = replace(config.clients[0], resource="utility_nowhere")
    with pytest.raises(FederationError, match=r"'east' needs .*'utility_nowhere': 1\.0.* and no node has it free"):
        federate(replace(config, clients=(client,), timeout_s=0.5), tmp_path)


def test_client_opens_no_dataset_but_its_own(config: FederateConfig, datasets: dict[str, Path], tmp_path: Path) -> None:
    alone = only(config, "north")
    with watched(datasets) as opened:
        client = UtilityClient(client_spec(alone, alone.clients[0], tmp_path))
        learner = initial_learner(alone, {"north": client.describe()}, {"north": client.moments()})
        client.fit(Broadcast(round=0, weights=learner.get_weights()))
        assert opened() == {"north"}
        OfflineDataset.open(datasets["south"])
        assert opened() == {"north", "south"}


@contextmanager
def watched(folders: dict[str, Path]) -> Iterator[Callable[[], set[str]]]:
    """Let the kernel note every open of a file in these folders, by any process and library.

    Python's audit hooks would not see what Arrow opens.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    names = {}
    for name, folder in folders.items():
        for path in (folder, *(inner for inner in folder.rglob("*") if inner.is_dir())):
            names[libc.inotify_add_watch(descriptor, bytes(path), IN_OPEN)] = name
    seen: set[str] = set()

    def opened() -> set[str]:
        with suppress(BlockingIOError):
            events = os.read(descriptor, 2**20)
            while events:
                # struct inotify_event: int wd; uint32 mask, cookie, len; char name[len].
                watch, _, _, length = struct.unpack_from("iIII", events)
                seen.add(names[watch])
                events = events[16 + length :]
        return set(seen)

    try:
        yield opened
    finally:
        os.close(descriptor)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def process_of(actor: Any) -> int | None:  # noqa: ANN401
    try:
        pid: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=30.0)
    except RayActorError:
        return None
    return pid


def test_command_prints_rounds_as_json(
    config: FederateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "federate.yaml"
    clients = [{"name": client.name, "dataset": str(client.dataset)} for client in config.clients]
    file.write_text(yaml.safe_dump({"algorithm": "bc", "local_updates": 2, "learner": LEARNER, "clients": clients}))
    with pytest.raises(SystemExit) as left:
        main(["federate", str(file), "--out", str(tmp_path / "out"), "--rounds", "2", "--no-ray", "--json"])
    assert left.value.code in (0, None)
    printed = json.loads(capsys.readouterr().out)
    assert [record["round"] for record in printed["history"]] == [0, 1]
    assert printed["bundle"] == str(tmp_path / "out" / "policy")
