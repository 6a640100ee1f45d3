"""`gridray train`: train a policy on one dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridray.algorithms.train import HistoryRow, LearnerSettings, TrainConfig, TrainResult, train
from gridray.cli.output import print_json, print_table, progress
from gridray.config import load_config

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_ROWS = 20


def command(  # one parameter per option
    dataset: Annotated[Path, typer.Argument(help="Directory of a dataset made by `gridray record`.")],
    *,
    algorithm: Annotated[str | None, typer.Option(help="bc or iql; default: as in --config, else iql.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for policy, history and checkpoint.")] = Path("runs/train"),
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, such as a sweep's best.yaml.")] = None,
    updates: Annotated[int, typer.Option(help="Gradient steps in all.", min=1)] = 20_000,
    batch_size: Annotated[int | None, typer.Option(help="Transitions per step; default 256.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Decides first weights and batches.")] = 0,
    stream: Annotated[
        bool | None, typer.Option(help="Read batches as a Ray Data stream; default: where memory is short.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train a policy on one dataset.

    A run that was stopped goes on from its last checkpoint when it is started again with the same --out.

    Example: gridray train data/north --algorithm iql --out runs/north --updates 20000
    """
    chosen = LearnerSettings() if config is None else load_config(LearnerSettings, config)
    settings = TrainConfig(
        dataset=dataset,
        algorithm=algorithm or chosen.algorithm,
        num_updates=updates,
        batch_size=batch_size or chosen.batch_size,
        seed=seed,
        learner=chosen.learner,
        stream=stream,
    )
    with progress(f"Training {settings.algorithm}", updates) as advance:
        result = train(settings, out, _advance(advance))
    if as_json:
        print_json({"bundle": result.bundle, "history": [asdict(row) for row in result.history]})
    else:
        _print(result)


def _advance(advance: Callable[[float], None]) -> Callable[[HistoryRow], None]:
    """Return a reporter that moves the bar to where the run is, wherever it was continued from."""
    reached = 0

    def report(row: HistoryRow) -> None:
        nonlocal reached
        advance(row.num_updates - reached)
        reached = row.num_updates

    return report


def _print(result: TrainResult) -> None:
    names = list(result.history[-1].metrics)
    step = -(-len(result.history) // _MOST_ROWS)
    # Every step-th row, counted from the last.
    rows = [[row.num_updates, *(row.metrics[name] for name in names)] for row in result.history[::-step][::-1]]
    print_table("Losses (means since the row before)", ["updates", *names], rows)
    print_table("Result", ["policy"], [[result.bundle]])
