"""Train one learner on one dataset, in steps that can be stopped and continued."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridray.algorithms.batches import (
    Batches,
    InMemoryBatches,
    StreamedBatches,
    dataset_normaliser,
    fits_in_memory,
    load_columns,
)
from gridray.algorithms.bundle import WEIGHTS, load_bundle, save_bundle
from gridray.algorithms.checkpoint import read_checkpoint, write_checkpoint
from gridray.algorithms.registry import task_learner
from gridray.cluster.runtime import ray_session
from gridray.datasets.dataset import OfflineDataset
from gridray.errors import ConfigError, GridRayError
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.algorithms.base import Learner

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    dataset: directory of an offline dataset.
    learner: configuration of the algorithm.
    report_every: updates between two rows of the history; each row comes with a checkpoint.
    stream: read batches as a Ray Data stream; by default only where the data does not fit in memory.
    start: directory of a bundle whose actor and observation scales are trained on; critics begin anew.
    online_evaluations: how many policies were run on a simulator to choose these settings; None: not known. The bundle
        states it.
    """

    dataset: Path
    algorithm: str = "iql"
    num_updates: int = 20_000
    batch_size: int = 256
    seed: int = 0
    learner: dict[str, Any] = field(default_factory=dict)
    report_every: int = 500
    stream: bool | None = None
    start: Path | None = None
    online_evaluations: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_updates", "batch_size", "report_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        _check_online_evaluations(self.online_evaluations)


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """What to train with, as a sweep writes it to `best.yaml`.

    online_evaluations: how many policies were run on a simulator to choose them; None: not known.
    """

    algorithm: str = "iql"
    batch_size: int = 256
    learner: dict[str, Any] = field(default_factory=dict)
    online_evaluations: int | None = None

    def __post_init__(self) -> None:
        _check_online_evaluations(self.online_evaluations)


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """Means of the losses over the updates since the row before; num_updates counts from the start."""

    num_updates: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Outcome of a training run; bundle is the directory of the policy."""

    bundle: Path
    history: tuple[HistoryRow, ...]


class Training:
    """A learner and its batches, somewhere on the way; the same from one seed, stopped in between or not."""

    def __init__(self, config: TrainConfig, dataset: OfflineDataset, *, part: tuple[int, int] = (0, 1)) -> None:
        """Make learner and normaliser; a Ray must be running if the data is streamed.

        part: which of how many parts of each batch this learner takes; those of a stream are its only one.
        """
        task = make_task(dataset.card.task, dataset.card.task_config)
        self.learner: Learner = task_learner(config.algorithm, task, config=config.learner, seed=config.seed)
        self.history: list[HistoryRow] = []
        self.num_updates = 0
        self._identity = _identity(config, dataset)
        streams = is_streamed(config, dataset)
        columns, cost_column = self.learner.columns, self.learner.cost_column
        rows = self.learner.observation_rows
        self.learner.set_normaliser(dataset_normaliser(dataset, stream=streams, cost_column=cost_column, rows_of=rows))
        options: dict[str, Any] = {
            "batch_size": config.batch_size,
            "seed": config.seed,
            "device": config.learner.get("device", "cpu"),
        }
        if config.start is not None:
            given = load_bundle(config.start).policy.weights
            self.learner.set_weights(self.learner.get_weights() | given)
        self._batches: Batches = (
            StreamedBatches(dataset, columns, **options)
            if streams
            else InMemoryBatches(load_columns(dataset, columns), **options, part=part)
        )

    def advance(self, num_updates: int) -> HistoryRow:
        """Take so many updates and add a row to the history."""
        totals: defaultdict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        for _ in range(num_updates):
            losses = self.learner.update(self._batches.draw())
            # A loss that is lowered only now and then counts as often as it is there.
            counts.update(losses.keys())
            for name, value in losses.items():
                totals[name] += value
        self.num_updates += num_updates
        means = {name: total / counts[name] for name, total in totals.items()}
        row = HistoryRow(num_updates=self.num_updates, metrics=means)
        self.history.append(row)
        return row

    def save(self, file: Path) -> None:
        """Write everything that an exact continuation needs."""
        arrays = {f"weights.{name}": array for name, array in self.learner.get_weights().items()}
        arrays |= {f"training.{name}": array for name, array in self.learner.get_training_state().items()}
        arrays["batches"] = self._batches.get_state()
        history = [asdict(row) for row in self.history]
        write_checkpoint(file, arrays, {"identity": self._identity, "history": history})

    def end_stream(self) -> None:
        """Leave a stream's pass while Ray runs; afterwards its end would fail, in a traceback that nobody can catch."""
        self._batches.set_state(self._batches.get_state())

    def restore(self, file: Path, *, of_other_settings: bool = False) -> None:
        """Go on from a checkpoint of the same run; or from one whose algorithm has other settings, but equal networks.

        Raises:
            GridRayError: the checkpoint is damaged, or of another configuration or dataset.
        """
        arrays, values = read_checkpoint(file)
        found = values["identity"] | ({"learner": self._identity["learner"]} if of_other_settings else {})
        if found != self._identity:
            raise GridRayError(
                f"'{file}' is of a run with another dataset, algorithm, batch_size, seed or learner configuration: "
                "give another output directory, or remove it to train from the start"
            )
        self.history = [HistoryRow(**row) for row in values["history"]]
        self.num_updates = self.history[-1].num_updates if self.history else 0
        self._batches.set_state(arrays["batches"])
        self.learner.set_weights(_under("weights.", arrays))
        self.learner.set_training_state(_under("training.", arrays))


def train(config: TrainConfig, out: Path, on_progress: Callable[[HistoryRow], None] | None = None) -> TrainResult:
    """Train a policy on a dataset.

    Args:
        config: the run.
        out: directory for the bundle (`policy/`), `history.json` and the checkpoint; where it holds a stopped run of
            the same configuration, that run is continued.
        on_progress: called after every `report_every` updates of this call.

    Raises:
        DatasetError: there is no whole dataset.
        GridRayError: training diverged, or `out` holds another run.
    """
    dataset = OfflineDataset.open(config.dataset)
    with ExitStack() as stack:
        if is_streamed(config, dataset):
            stack.enter_context(ray_session())
        training = Training(config, dataset)
        stack.callback(training.end_stream)
        run_to_end(training, config, out, on_progress)
    return write_result(training, config, dataset, out)


def run_to_end(
    training: Training,
    config: TrainConfig,
    out: Path,
    on_progress: Callable[[HistoryRow], None] | None = None,
    *,
    is_writer: bool = True,
) -> None:
    """Go on from the checkpoint in `out`, if there is one, to the last update; is_writer: write checkpoints."""
    if (out / CHECKPOINT).exists():
        training.restore(out / CHECKPOINT)
    while training.num_updates < config.num_updates:
        row = training.advance(min(config.report_every, config.num_updates - training.num_updates))
        if is_writer:
            training.save(out / CHECKPOINT)
        if on_progress is not None:
            on_progress(row)


def write_result(training: Training, config: TrainConfig, dataset: OfflineDataset, out: Path) -> TrainResult:
    """Write history and bundle."""
    out.mkdir(parents=True, exist_ok=True)
    history = [asdict(row) for row in training.history]
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    save_policy(training, config, dataset, out / "policy")
    return TrainResult(bundle=out / "policy", history=tuple(training.history))


def save_policy(training: Training, config: TrainConfig, dataset: OfflineDataset, path: Path) -> None:
    """Write the bundle of the present policy."""
    card = dataset.card
    provenance = {
        "kind": "local",
        "algorithm": config.algorithm,
        "learner": config.learner,
        "num_updates": training.num_updates,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "start": None if config.start is None else load_bundle(config.start).manifest.files[WEIGHTS].sha256,
        "dataset": {
            "policy": card.policy,
            "num_transitions": card.num_transitions,
            "data_sha256": _data_sha256(dataset),
        },
    }
    if config.online_evaluations is not None:
        provenance["online_evaluations"] = config.online_evaluations
    save_bundle(path, learner=training.learner, task=make_task(card.task, card.task_config), provenance=provenance)


def _check_online_evaluations(number: int | None) -> None:
    if number is not None and number < 0:
        raise ConfigError(f"online_evaluations is {number}: give 0 or more, or leave it out where it is not known")


def _identity(config: TrainConfig, dataset: OfflineDataset) -> dict[str, Any]:
    """Return all that decides the numbers, but for how many updates are taken."""
    decisive = {"data_sha256": _data_sha256(dataset), "is_streamed": is_streamed(config, dataset)}
    decisive |= {name: getattr(config, name) for name in ("algorithm", "batch_size", "seed", "learner")}
    if config.start is not None:
        decisive["start"] = load_bundle(config.start).manifest.files[WEIGHTS].sha256
    identity: dict[str, Any] = json.loads(json.dumps(decisive))
    return identity


def _data_sha256(dataset: OfflineDataset) -> str:
    return hashlib.sha256("".join(shard.sha256 for shard in dataset.card.shards).encode()).hexdigest()


def is_streamed(config: TrainConfig, dataset: OfflineDataset) -> bool:
    """Tell whether batches come from a Ray Data stream."""
    return not fits_in_memory(dataset) if config.stream is None else config.stream


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
