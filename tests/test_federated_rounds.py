"""Whole federations on small datasets: equal to plain training, equal with and without Ray, whatever is killed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from federations import LEARNER, NAMES, TASK, made_up, small_config, wait_until, write_datasets

from gridray.algorithms.batches import load_columns
from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.policy import LearnedPolicy
from gridray.algorithms.registry import LEARNERS
from gridray.cli import main
from gridray.datasets.card import task_source
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.errors import FederationError, GridRayError
from gridray.federated.client import UtilityClient, round_rng
from gridray.federated.config import ClientConfig, EvaluationConfig, FederateConfig
from gridray.federated.coordinator import Coordinator, RoundRecord
from gridray.federated.federate import federate, has_stalled, private_ray
from gridray.federated.local.config import EnsembleConfig, LocalConfig
from gridray.federated.membership import check_agreement, client_spec, initial_learner, round_rules
from gridray.federated.rounds import drawn_clients
from gridray.federated.updates import digest
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_datasets(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(datasets: dict[str, Path]) -> FederateConfig:
    return small_config(datasets)


def only(config: FederateConfig, *names: str) -> FederateConfig:
    return replace(config, clients=tuple(client for client in config.clients if client.name in names))


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_one_client_federated_is_plain_training(algorithm: str, config: FederateConfig, tmp_path: Path) -> None:
    alone = replace(only(config, "north"), algorithm=algorithm)
    result = federate(alone, tmp_path, use_ray=False)
    client = UtilityClient(client_spec(alone, alone.clients[0], tmp_path / "plain"))
    learner = initial_learner(alone, {"north": client.describe()}, {"north": client.moments()})
    columns = load_columns(OfflineDataset.open(alone.clients[0].dataset), learner.columns)
    for index in range(alone.rounds):
        rng = round_rng(alone.seed, "north", index)
        for _ in range(alone.local_updates):
            rows = rng.integers(len(columns["obs"]), size=alone.batch_size)
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
    source = task_source(make_task("volt_var", TASK | {"num_pv": 2}), policy="made up", seed=0, licence="CC0-1.0")
    write_dataset(tmp_path / "unlike", [made_up(source, np.random.default_rng(0), 10)], source)
    unlike = replace(config, clients=(client, ClientConfig(name="unlike", dataset=tmp_path / "unlike")))
    with pytest.raises(FederationError, match=r"'unlike' has '.*' as number \d+ of its observation_names"):
        federate(unlike, tmp_path / "out", use_ray=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local": LocalConfig(proximal={"actr": 1.0})}, "Group 'actr' names no weight"),
        ({"algorithm": "bc", "aggregator": "fedora"}, "no critics to value a state with"),
        ({"learner": {"hidden_sizes": [4, 4]}}, "client 'north' make weight .* the federation's has"),
    ],
)
def test_what_no_client_could_do_is_refused_before_the_first_round(
    changes: dict[str, Any], message: str, config: FederateConfig, tmp_path: Path
) -> None:
    clients = tuple(replace(client, learner=LEARNER) if client.name == "north" else client for client in config.clients)
    with pytest.raises(GridRayError, match=message):
        federate(replace(config, clients=clients, **changes), tmp_path, use_ray=False)
    assert not (tmp_path / "rounds").exists()


def test_output_that_is_a_file_is_named(config: FederateConfig, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", "utf-8")
    with pytest.raises(FederationError, match="taken' cannot be made"):
        federate(config, tmp_path / "taken", use_ray=False)


def test_private_ray_has_a_place_for_every_client(config: FederateConfig) -> None:
    clients = tuple(replace(config.clients[0], name=f"u{index}", num_cpus=2.5) for index in range(40))
    assert private_ray(replace(config, clients=clients, min_clients=1))["num_cpus"] == 101
    assert private_ray(config)["num_cpus"] >= 2


def test_private_ray_has_the_resources_that_pin_clients(config: FederateConfig) -> None:
    pinned = [replace(client, resource=f"utility_{client.name}") for client in config.clients]
    assert private_ray(replace(config, clients=tuple(pinned)))["resources"]["utility_north"] == 1
    assert private_ray(config)["resources"] == {}


def test_utilities_agree_on_the_step(config: FederateConfig, tmp_path: Path) -> None:
    parts = {
        client.name: UtilityClient(client_spec(config, client, tmp_path / client.name)).describe()
        for client in config.clients
    }
    check_agreement(parts, "flat")
    slow = replace(parts["south"], task_config=parts["south"].task_config | {"step_minutes": 60})
    for policy in ("flat", "local"):
        with pytest.raises(FederationError, match="'south' has steps of 60 minutes, client 'east' of 15"):
            check_agreement(parts | {"south": slow}, policy)


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


def test_missing_resource_is_named(config: FederateConfig, ray_local: None, tmp_path: Path) -> None:
    del ray_local
    client = replace(config.clients[0], resource="utility_nowhere")
    with pytest.raises(FederationError, match=r"'east' needs .*'utility_nowhere': 1\.0.* and no node has it free"):
        federate(replace(config, clients=(client,), timeout_s=0.5), tmp_path)


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


def test_drawn_clients_follow_from_seed_and_round_and_leave_out_who_is_away(config: FederateConfig) -> None:
    away = tuple(replace(client, away=((1, 2),)) if client.name == "north" else client for client in config.clients)
    sampled = replace(config, clients=away, clients_per_round=2)
    draws = [drawn_clients(sampled, index) for index in range(60)]
    assert draws == [drawn_clients(sampled, index) for index in range(60)]
    assert draws[1] == draws[2] == ["east", "south"]
    assert {name: sum(name in draw for draw in draws) for name in NAMES}["north"] == pytest.approx(39, abs=12)
    assert all(len(draw) == 2 for draw in draws)


def test_unlike_clients_train_and_are_evaluated_on_their_own_days(config: FederateConfig, tmp_path: Path) -> None:
    clients = (
        replace(config.clients[0], learner={"expectile": 0.9}, shared_metrics=("returns", "critic_loss")),
        replace(config.clients[1], away=((0, 0),)),
        config.clients[2],
    )
    unlike = replace(
        config,
        clients=clients,
        local_epochs=0.5,
        rounds=2,
        evaluation=EvaluationConfig(every=2, num_days=1),
        min_clients=2,
    )
    result = federate(unlike, tmp_path, use_ray=False)
    assert result.history[0].absent == {"north": "away"}
    assert set(result.history[1].metrics["east"]) == {"critic_loss"}
    assert set(result.history[1].metrics["south"]) > {"critic_loss", "actor_loss"}
    assert [set(record.evaluation) for record in result.history] == [set(NAMES), set()]
    assert set(result.evaluation["east"]) == {"returns"}
    with (tmp_path / "curves.csv").open(encoding="utf-8", newline="") as file:
        curves = list(csv.DictReader(file))
    assert {row["client"] for row in curves} == {*NAMES, "all"}
    (final,) = [row for row in curves if row["round"] == "2" and row["client"] == "east"]
    assert (final["metric"], float(final["value"])) == ("held_out_returns", result.evaluation["east"]["returns"])


def test_run_stops_when_evaluations_no_longer_get_better(config: FederateConfig) -> None:
    patient = replace(config, evaluation=EvaluationConfig(patience=2))

    def history(*returns: float) -> list[RoundRecord]:
        empty: dict[str, Any] = {"num_samples": {}, "metrics": {}, "absent": {}, "report": {}, "weights_sha256": ""}
        return [
            RoundRecord(round=index, evaluation={"east": {"returns": value}}, **empty)
            for index, value in enumerate(returns)
        ]

    assert not has_stalled(patient, history(1.0, 2.0))
    assert not has_stalled(patient, history(1.0, 2.0, 1.5, 2.5))
    assert has_stalled(patient, history(1.0, 2.0, 1.5, 2.0))
    assert not has_stalled(config, history(1.0, 0.0, 0.0, 0.0))


def test_local_heads_stay_at_home_and_make_personal_policies(config: FederateConfig, tmp_path: Path) -> None:
    head = "actor.mean.layers.2"
    personal = replace(config, groups={head: "local", "value": "local"}, rounds=2)
    result = federate(personal, tmp_path, use_ray=False)
    assert not any(name.startswith((head, "value.")) for name in result.weights)
    heads = {}
    for name in NAMES:
        bundle = load_bundle(tmp_path / "clients" / name / "policy")
        heads[name] = bundle.policy.weights[f"{head}.weight"]
        np.testing.assert_array_equal(
            bundle.policy.weights["actor.mean.layers.0.weight"], result.weights["actor.mean.layers.0.weight"]
        )
    assert not np.array_equal(heads["east"], heads["north"])


@pytest.mark.parametrize(
    "changes",
    [
        {
            "algorithm": "td3_bc",
            "aggregator": "fedora",
            "local": LocalConfig(ensemble=EnsembleConfig(), holdout_share=0.2),
        },
        {"aggregator": "fedora", "groups": {"critic": "scaffold", "actor": "median"}},
        {"aggregator": "fedyogi", "local": LocalConfig(target_networks="copy", proximal={"actor": 0.1}, personal=0.5)},
    ],
    ids=["fedora", "groups", "fedyogi"],
)
def test_every_method_goes_on_bit_for_bit_after_a_stop(
    changes: dict[str, Any], config: FederateConfig, tmp_path: Path
) -> None:
    chosen = replace(config, **changes)
    expected = federate(chosen, tmp_path / "whole", use_ray=False)

    def stop(record: RoundRecord) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(chosen, tmp_path / "stopped", stop, use_ray=False)
    assert federate(chosen, tmp_path / "stopped", use_ray=False).history == expected.history


@pytest.mark.usefixtures("ray_local")
def test_pooled_clients_give_equal_results(config: FederateConfig, tmp_path: Path) -> None:
    local = federate(config, tmp_path / "local", use_ray=False)
    pooled = federate(replace(config, simulation_actors=2), tmp_path / "pooled")
    assert pooled.history == local.history
