"""Sweeps: the space is read strictly, and a real sweep can be stopped and continued."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gridray.algorithms.registry import LEARNERS
from gridray.algorithms.train import LearnerSettings
from gridray.cli import main
from gridray.cli.sweep_results import write_plot, write_table
from gridray.config import load_config
from gridray.datasets.record import RecordConfig, record
from gridray.errors import ConfigError, GridRayError
from gridray.sweeps import SweepConfig, TrialResult, _search, search_space, sweep

SPACE = {
    "hidden_sizes": [8],
    "learning_rate": {"loguniform": [1.0e-4, 1.0e-2]},
    "temperature": {"choice": [1.0, 10.0]},
}
SHIPPED = sorted((Path(__file__).parents[1] / "tune_configs").glob("*.yaml"))


def config_of(**changes: Any) -> SweepConfig:  # fields of several types
    return SweepConfig(**({"dataset": Path("nowhere"), "space": SPACE} | changes))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_sweep_is_valid_and_draws_what_it_says(file: Path) -> None:
    config = load_config(SweepConfig, file)
    assert f"gridray tune tune_configs/{file.name}" in file.read_text()
    space = search_space(config)
    assert space["hidden_sizes"] == [64, 64]
    for name, value in config.space.items():
        kind, arguments = next(iter(value.items())) if isinstance(value, dict) else ("fixed", value)
        if kind in {"loguniform", "uniform"}:
            assert all(arguments[0] <= space[name].sample() <= arguments[1] for _ in range(20))
        elif kind == "choice":
            assert {space[name].sample() for _ in range(50)} == set(arguments)


def test_every_learner_has_a_shipped_sweep() -> None:
    assert {load_config(SweepConfig, file).algorithm for file in SHIPPED} == set(LEARNERS)


def test_optuna_learns_from_finished_trials() -> None:
    config = config_of(search="optuna", seed=3)
    drawn = []
    for _ in range(2):
        search: Any = _search(config)
        search.set_search_properties("score", "max", search_space(config))
        for trial in range(4):
            point = search.suggest(str(trial))
            assert 1.0e-4 <= point["learning_rate"] <= 1.0e-2
            search.on_trial_complete(str(trial), {"score": point["learning_rate"]})
        drawn.append(point)
    assert drawn[0] == drawn[1]


# Trials are stopped and started anew, each in a process that imports all libraries.
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_local")
def test_population_hands_networks_on(tmp_path: Path) -> None:
    dataset = record(RecordConfig(task_config={"num_days": 10}, num_episodes=2), tmp_path / "data", use_ray=False)
    space = SPACE | {"temperature": {"uniform": [1.0, 10.0]}}
    config = config_of(
        dataset=dataset.path,
        space=space,
        scheduler="pbt",
        num_samples=2,
        max_reports=3,
        updates_per_report=2,
        batch_size=8,
        validation_days=1,
    )
    result = sweep(config, tmp_path / "sweep")
    assert result.is_finished
    assert [trial.error for trial in result.trials] == [None, None]
    assert {trial.num_updates for trial in result.trials} == {6}


def test_population_needs_one_network_size() -> None:
    with pytest.raises(ConfigError, match="hidden_sizes is drawn"):
        config_of(scheduler="pbt", space={"hidden_sizes": {"choice": [[8], [16]]}})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"temperature": {"loguniforn": [1.0, 2.0]}}, "did you mean 'loguniform'"),
        ({"temperature": {"uniform": [1.0, 2.0], "choice": [1]}}, "Give one of loguniform"),
        ({"temperature": {"uniform": [2.0, 1.0]}}, "two numbers, the lower first"),
        ({"temperature": {"loguniform": [0.0, 1.0]}}, "two numbers, the lower first"),
        ({"learning_rate": {"loguniform": ["1e-4", 1.0]}}, "write 1.0e-4"),
        ({"actor_decay_updates": {"randint": [1.5, 3]}}, "two numbers"),
        ({"temperature": {"choice": []}}, "give a list"),
        ({"temperatur": {"choice": [1.0]}}, "did you mean 'temperature'"),
        ({"expectile": {"uniform": [0.5, 1.0]}}, "expectile"),
        ({"temperature": {"choice": ["__import__('os')"]}}, "temperature"),
    ],
)
def test_wrong_space_is_refused_before_any_trial(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        search_space(config_of(space=space))
    assert message in str(caught.value)


def test_randint_reaches_its_last_value_and_not_its_bound() -> None:
    space = search_space(config_of(space={"actor_decay_updates": {"randint": [1, 3]}}))
    assert {space["actor_decay_updates"].sample() for _ in range(50)} == {1, 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"num_samples": 0},
        {"updates_per_report": 0},
        {"batch_size": 0},
        {"validation_days": 0},
        {"grace_reports": 9},
        {"reduction_factor": 1},
    ],
)
def test_values_without_meaning_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config_of(**changes)


def test_missing_dataset_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(GridRayError, match=r"nowhere' .*gridray record .*nowhere"):
        sweep(config_of(), tmp_path / "sweep")
    with pytest.raises(ConfigError, match="no algorithm 'sac'"):
        sweep(config_of(algorithm="sac"), tmp_path / "sweep")


@pytest.mark.usefixtures("ray_local")
def test_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task_config = {"num_days": 10}
    dataset = record(RecordConfig(task_config=task_config, num_episodes=2), tmp_path / "data", use_ray=False)
    config = config_of(
        dataset=dataset.path, num_samples=2, max_reports=3, updates_per_report=2, batch_size=8, validation_days=1
    )
    out = tmp_path / "sweep"
    num_reports = 0

    def interrupt() -> None:
        nonlocal num_reports
        num_reports += 1
        # What Ctrl-C sends; Tune saves its state and returns.
        os.kill(os.getpid(), signal.SIGINT)

    stopped = sweep(config, out, interrupt)
    assert not stopped.is_finished
    assert 1 <= num_reports < 6
    with pytest.raises(GridRayError, match="continue it with --resume"):
        sweep(config, out)
    with pytest.raises(GridRayError, match="another configuration"):
        sweep(replace(config, seed=1), out, resume=True)

    file = tmp_path / "sweep.yaml"
    plain = {name: getattr(config, name) for name in config.__dataclass_fields__}
    file.write_text(yaml.safe_dump(plain | {"dataset": str(config.dataset)}))
    with pytest.raises(SystemExit) as left:
        main(["tune", str(file), "--out", str(out), "--resume"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "Trials, best first" in printed
    assert str(out / "best.yaml") in printed
    best = load_config(LearnerSettings, out / "best.yaml")
    assert best.learner["temperature"] in {1.0, 10.0}
    assert best.online_evaluations is not None
    assert 4 <= best.online_evaluations <= 6
    rows = (out / "trials.csv").read_text().splitlines()
    assert rows[0] == "score,num_updates,num_evaluations,is_done,hidden_sizes,learning_rate,temperature,error"
    assert len(rows) == 3
    assert sum(int(row.split(",")[2]) for row in rows[1:]) == best.online_evaluations
    assert "learning_rate" in (out / "trials.svg").read_text()


def test_resume_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(GridRayError, match="no sweep to resume"):
        sweep(config_of(dataset=tmp_path / "data"), tmp_path / "sweep", resume=True)


def test_trials_of_one_point_are_drawn_in_their_order(tmp_path: Path) -> None:
    trials = [
        TrialResult(
            settings={"expectile": 0.7}, score=score, num_updates=4, num_evaluations=2, is_done=True, error=None
        )
        for score in (-1.0, -2.5, None)
    ]
    write_table(tmp_path / "trials.csv", trials)
    write_plot(tmp_path / "trials.svg", trials)
    assert (tmp_path / "trials.csv").read_text().splitlines()[1:] == [
        "-1.0,4,2,True,0.7,",
        "-2.5,4,2,True,0.7,",
        ",4,2,True,0.7,",
    ]
    assert "trial, best first" in (tmp_path / "trials.svg").read_text()
