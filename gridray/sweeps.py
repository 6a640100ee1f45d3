"""Search learner settings with Ray Tune: ASHA or population based training, at random or by Optuna; it can go on."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search import BasicVariantGenerator

from gridray.algorithms.registry import settings_class
from gridray.algorithms.train import CHECKPOINT, LearnerSettings, TrainConfig, Training
from gridray.cluster.runtime import ray_session
from gridray.config import parse_config
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.partial import write_file
from gridray.errors import ConfigError, GridRayError
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from ray.tune.experiment import Trial
    from ray.tune.result_grid import ResultGrid
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import SearchAlgorithm, Searcher
    from ray.tune.search.sample import Domain

METRIC = "score"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep over the settings of one algorithm.

    dataset: directory of an offline dataset, the same for all trials.
    space: settings of the algorithm: a plain value is fixed, {loguniform: [low, high]}, {uniform: [low, high]},
        {randint: [low, high]} (high left out) and {choice: [...]} are drawn.
    num_samples: trials.
    search: how points are drawn: "random", or "optuna", whose tree of Parzen estimators learns from finished trials.
    scheduler: "asha" stops poor trials early; "pbt" lets the worst quarter take over networks and settings of the
        best, with the drawn settings changed, so that the settings found are those of the last stretch.
    max_reports: evaluations of a trial that is never stopped.
    updates_per_report: gradient steps between two evaluations.
    grace_reports: evaluations before ASHA may stop a trial, or between two changes of a trial's settings.
    reduction_factor: of so many trials at a rung of ASHA, one goes on.
    validation_days: days of each evaluation, from those the dataset's task is trained on: held-out days stay unseen.
    """

    dataset: Path
    algorithm: str = "iql"
    space: dict[str, Any] = field(default_factory=dict)
    search: Literal["random", "optuna"] = "random"
    scheduler: Literal["asha", "pbt"] = "asha"
    num_samples: int = 8
    max_reports: int = 8
    updates_per_report: int = 500
    grace_reports: int = 1
    reduction_factor: int = 2
    batch_size: int = 256
    validation_days: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_reports", "updates_per_report", "batch_size", "validation_days"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        if not 1 <= self.grace_reports <= self.max_reports:
            raise ConfigError(f"grace_reports is {self.grace_reports}: give 1 to max_reports ({self.max_reports})")
        if self.reduction_factor < 2:
            raise ConfigError(f"reduction_factor is {self.reduction_factor}: give 2 or more")
        if self.scheduler == "pbt" and isinstance(self.space.get("hidden_sizes"), Mapping):
            raise ConfigError("space: hidden_sizes is drawn: pbt hands networks on, give one value for all trials")


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial; score is its last mean return per day, None where it failed before its first evaluation.

    num_evaluations: how often its policy was run on the twin.
    """

    settings: dict[str, Any]
    score: float | None
    num_updates: int
    num_evaluations: int
    is_done: bool
    error: str | None


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Outcome of a sweep, best trial first; best_file has the best settings, ready for `gridray train --config`."""

    trials: tuple[TrialResult, ...]
    best_file: Path

    @property
    def is_finished(self) -> bool:
        """Tell whether every trial ended by itself or by ASHA, rather than by an interruption."""
        return all(trial.is_done for trial in self.trials)

    @property
    def num_evaluations(self) -> int:
        """Return how often a policy was run on the twin to find the best settings."""
        return sum(trial.num_evaluations for trial in self.trials)


class ReportCounter(tune.Callback):
    """Calls `on_report` after each evaluation of a trial; Tune stores its callbacks, so the function is the class's."""

    on_report: ClassVar[Callable[[], None] | None] = None

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[Any, Any],
        **info: Any,  # Tune's signature
    ) -> None:
        """Count one evaluation."""
        del iteration, trials, trial, result, info
        if ReportCounter.on_report is not None:
            ReportCounter.on_report()


def sweep(
    config: SweepConfig, out: Path, on_report: Callable[[], None] | None = None, *, resume: bool = False
) -> SweepResult:
    """Run a sweep to its end, or until Ctrl-C; each trial takes one CPU.

    Args:
        config: the sweep.
        out: directory of the sweep's state and `best.yaml`.
        on_report: called after each evaluation of any trial.
        resume: go on with the sweep that was stopped in `out`. Ray Tune keeps that state as pickles: resume only
            what you started yourself.

    Raises:
        ConfigError: the space is not valid.
        GridRayError: there is no dataset, `out` has no or another sweep, or every trial failed.
    """
    space = search_space(config)
    if not config.dataset.is_dir():
        raise GridRayError(
            f"Dataset '{config.dataset}' of the sweep is not there: make it with "
            f"`gridray record --out {config.dataset} --episodes 192 --noise 0.4`, or give another path under 'dataset'"
        )
    config, out = replace(config, dataset=config.dataset.absolute()), out.absolute()
    _check_directory(config, out, resume=resume)
    OfflineDataset.open(config.dataset)
    # Tune's own CSV and JSON logs are read by nobody, and stay open where a sweep is interrupted.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's banner is no result: standard output is for what the command prints.
    with ray_session(), redirect_stdout(sys.stderr), warnings.catch_warnings():
        # Trials that are used again would have to forget their networks: a new process does that for certain.
        warnings.filterwarnings("ignore", "Consider boosting PBT performance")
        ReportCounter.on_report = on_report
        try:
            results = _tuner(config, space, out, resume=resume).fit()
        finally:
            ReportCounter.on_report = None
        trials = _trials(config, results)
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        reason = next((trial.error for trial in trials if trial.error), "it was stopped before the first evaluation")
        raise GridRayError(f"No trial of the sweep in '{out}' has a score: {reason}")
    result = SweepResult(trials=tuple(trials), best_file=out / "best.yaml")
    best = LearnerSettings(
        algorithm=config.algorithm,
        batch_size=config.batch_size,
        learner=scored[0].settings,
        online_evaluations=result.num_evaluations,
    )
    write_file(result.best_file, yaml.safe_dump(asdict(best), sort_keys=False))
    return result


def search_space(config: SweepConfig) -> dict[str, Any]:
    """Return Tune's search space: distributions, and fixed values as they are.

    Raises:
        ConfigError: a distribution is unknown or has wrong arguments, or the algorithm has no such setting.
    """
    settings = settings_class(config.algorithm)
    space = {name: _distribution(name, value) for name, value in config.space.items()}
    # Wrong names and values are found here, not after an hour in the first trial that draws them.
    for corner in (0, -1):
        ends = {name: _end(value, corner) for name, value in config.space.items()}
        parse_config(settings, ends, where="space")
    return space


def _distribution(name: str, value: object) -> Any:  # noqa: ANN401  # a Domain or any fixed value
    if not isinstance(value, Mapping):
        return value
    kinds: dict[str, Callable[..., Domain]] = {
        "loguniform": tune.loguniform,
        "uniform": tune.uniform,
        "randint": tune.randint,
        "choice": tune.choice,
    }
    kind, arguments = next(iter(value.items()), ("", None))
    if len(value) != 1 or kind not in kinds:
        nearest = get_close_matches(str(kind), kinds, n=1)
        hint = f"did you mean '{nearest[0]}'? " if nearest else ""
        raise ConfigError(f"space: '{name}' is {dict(value)}: {hint}Give one of {', '.join(kinds)}")
    if not isinstance(arguments, list) or not arguments:
        raise ConfigError(f"space: '{name}' has {kind}: {arguments!r}: give a list")
    if kind == "choice":
        return tune.choice(arguments)
    numbers = all(isinstance(bound, int if kind == "randint" else (int, float)) for bound in arguments)
    if (
        len(arguments) != 2
        or not numbers
        or not arguments[0] < arguments[1]
        or (kind == "loguniform" and arguments[0] <= 0)
    ):
        raise ConfigError(
            f"space: '{name}' has {kind}: {arguments!r}: give two numbers, the lower first "
            "(YAML reads 1e-4 as text: write 1.0e-4)"
        )
    return kinds[kind](*arguments)


def _end(value: Any, corner: int) -> Any:  # noqa: ANN401  # any YAML value
    """Return a fixed value itself, and the first (0) or last (-1) value that a distribution gives."""
    if not isinstance(value, Mapping):
        return value
    kind, arguments = next(iter(value.items()))
    return arguments[corner] - (1 if kind == "randint" and corner else 0) if kind != "choice" else arguments[corner]


def _check_directory(config: SweepConfig, out: Path, *, resume: bool) -> None:
    """Keep each sweep in a directory of its own, which knows its configuration."""
    file = out / "sweep.yaml"
    text = yaml.safe_dump(asdict(config) | {"dataset": str(config.dataset)}, sort_keys=True)
    is_known = tune.Tuner.can_restore(str(out))
    if resume and not (is_known and file.is_file()):
        raise GridRayError(f"'{out}' has no sweep to resume: run without --resume, or give the right --out")
    if resume and file.read_text(encoding="utf-8") != text:
        raise GridRayError(f"'{out}' has a sweep of another configuration: compare '{file}', or give another --out")
    if not resume and is_known:
        raise GridRayError(f"'{out}' has a sweep already: continue it with --resume, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _tuner(config: SweepConfig, space: dict[str, Any], out: Path, *, resume: bool) -> tune.Tuner:
    trainable = tune.with_resources(tune.with_parameters(_trial, sweep_config=config), {"cpu": 1})
    if resume:
        return tune.Tuner.restore(str(out), trainable, resume_unfinished=True, restart_errored=True, param_space=space)
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=config.num_samples,
            scheduler=_scheduler(config, space),
            search_alg=_search(config),
        ),
        run_config=tune.RunConfig(
            name=out.name,
            storage_path=str(out.parent),
            verbose=0,
            callbacks=[ReportCounter()],
            # A population copies from others' checkpoints, which must last until they are read.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1 if config.scheduler == "asha" else 4),
        ),
    )


def _scheduler(config: SweepConfig, space: dict[str, Any]) -> TrialScheduler:
    if config.scheduler == "asha":
        return ASHAScheduler(
            time_attr="training_iteration",
            max_t=config.max_reports,
            grace_period=config.grace_reports,
            reduction_factor=config.reduction_factor,
        )
    drawn = {name: value for name, value in space.items() if isinstance(config.space[name], Mapping)}
    return PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=config.grace_reports, hyperparam_mutations=drawn
    )


def _search(config: SweepConfig) -> SearchAlgorithm | Searcher:
    if config.search == "random":
        return BasicVariantGenerator(random_state=config.seed)
    if find_spec("optuna") is None:
        raise ConfigError("search is optuna, which is not installed: install it with `pip install optuna`")
    # Optuna takes a second to import, and only this search needs it.
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    return OptunaSearch(seed=config.seed)


def _trial(point: dict[str, Any], sweep_config: SweepConfig) -> None:
    """Train with one point's settings; report and checkpoint after every evaluation."""
    dataset = OfflineDataset.open(sweep_config.dataset)
    settings = TrainConfig(
        dataset=sweep_config.dataset,
        algorithm=sweep_config.algorithm,
        batch_size=sweep_config.batch_size,
        seed=sweep_config.seed,
        learner=point,
    )
    training = Training(settings, dataset)
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            # Population based training goes on from another trial's networks, with settings of its own.
            training.restore(Path(folder) / CHECKPOINT, of_other_settings=sweep_config.scheduler == "pbt")
    task = make_task(dataset.card.task, dataset.card.task_config)
    days = held_out_days(task, sweep_config.validation_days)
    for _ in range(len(training.history), sweep_config.max_reports):
        row = training.advance(sweep_config.updates_per_report)
        table = evaluate_policy(training.learner.policy(), task, days=days, seed=sweep_config.seed)
        report = {METRIC: float(table.returns.mean()), "num_updates": row.num_updates, **row.metrics}
        with tempfile.TemporaryDirectory() as folder:
            training.save(Path(folder) / CHECKPOINT)
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def _trials(config: SweepConfig, results: ResultGrid) -> list[TrialResult]:
    """Return the trials, best first."""
    trials = []
    for index in range(len(results)):
        result = results[index]
        metrics = result.metrics or {}
        num_updates = int(metrics.get("num_updates", 0))
        trials.append(
            TrialResult(
                settings=dict(result.config or {}),
                score=metrics.get(METRIC),
                num_updates=num_updates,
                num_evaluations=int(metrics.get("training_iteration", 0)),
                is_done=bool(metrics.get("done")) or num_updates >= config.max_reports * config.updates_per_report,
                error=None if result.error is None else str(result.error).strip().splitlines()[-1],
            )
        )
    return sorted(trials, key=lambda trial: float("-inf") if trial.score is None else trial.score, reverse=True)
