"""`gridray train`: train a policy on one dataset."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.gauges import TrainingGauges
from gridray.algorithms.registry import LEARNERS, RLLIB_LEARNERS
from gridray.algorithms.train import HistoryRow, LearnerSettings, TrainConfig, TrainResult, train
from gridray.cli.output import print_json, print_table, progress
from gridray.config import load_config

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_ROWS = 20
ALGORITHMS = (*LEARNERS, *RLLIB_LEARNERS)


def command(  # one parameter per option
    dataset: Annotated[Path, typer.Argument(help="Directory of a dataset made by `gridray record`.")],
    *,
    algorithm: Annotated[
        str | None, typer.Option(help=f"{', '.join(ALGORITHMS)}; default: as in --config, else iql.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for policy, history and checkpoint.")] = Path("runs/train"),
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, such as a sweep's best.yaml.")] = None,
    updates: Annotated[int, typer.Option(help="Gradient steps in all.", min=1)] = 20_000,
    batch_size: Annotated[int | None, typer.Option(help="Transitions per step; default 256.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Decides first weights and batches.", min=0)] = 0,
    stream: Annotated[
        bool | None, typer.Option(help="Read batches as a Ray Data stream; default: where memory is short.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Bundle whose policy is trained on, such as a federation's; critics begin anew.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Learners side by side by Ray Train, each with a part of every batch.", min=1)
    ] = 1,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard event files into the folder tensorboard of --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train a policy on one dataset.

    A run that was stopped goes on from its last checkpoint when it is started again with the same --out. Where a Ray
    runs, losses are gauges for Prometheus.

    Example: gridray train runs/data/north --algorithm iql --out runs/north --updates 20000
    """
    # Settings that nobody chose were chosen without a simulator.
    chosen = LearnerSettings(online_evaluations=0) if config is None else load_config(LearnerSettings, config)
    settings = TrainConfig(
        dataset=dataset,
        algorithm=algorithm or chosen.algorithm,
        num_updates=updates,
        batch_size=batch_size or chosen.batch_size,
        seed=seed,
        learner=({} if start is None else _network_of(start)) | chosen.learner,
        stream=stream,
        start=start,
        online_evaluations=chosen.online_evaluations,
    )
    with ExitStack() as stack:
        reporters: list[Callable[[HistoryRow], None]] = [
            _advance(stack.enter_context(progress(f"Training {settings.algorithm}", updates)))
        ]
        if tensorboard:
            reporters.append(_event_writer(stack, out / "tensorboard"))

        def report(row: HistoryRow) -> None:
            for reporter in reporters:
                reporter(row)

        if workers == 1:
            reporters.append(TrainingGauges(settings.algorithm))
            result = train(settings, out, report)
        else:
            # Ray Train takes half a second to import.
            from gridray.algorithms.data_parallel import train_in_parallel  # noqa: PLC0415

            result = train_in_parallel(settings, out, workers)
            # Its learners are other processes: all is told at the end.
            for row in result.history:
                report(row)
    if as_json:
        print_json({"bundle": result.bundle, "history": [asdict(row) for row in result.history]})
    else:
        _print(result)


def _network_of(bundle: Path) -> dict[str, Any]:
    """Return the settings that make a network of a bundle's shape; those that are a default are left out."""
    network = load_bundle(bundle).manifest.network
    settings: dict[str, Any] = {"hidden_sizes": list(network.hidden_sizes)}
    if network.policy != "flat":
        settings["policy"] = network.policy
    if network.head == "mixed":
        settings["action_head"] = "mixed"
    return settings


def _advance(advance: Callable[[float], None]) -> Callable[[HistoryRow], None]:
    """Return a reporter that moves the bar to where the run is, wherever it was continued from."""
    reached = 0

    def report(row: HistoryRow) -> None:
        nonlocal reached
        advance(row.num_updates - reached)
        reached = row.num_updates

    return report


def _event_writer(stack: ExitStack, folder: Path) -> Callable[[HistoryRow], None]:
    """Return a reporter that writes every loss as a scalar over the number of updates."""
    # TensorBoard's writer takes a second to import.
    from tensorboardX import SummaryWriter  # noqa: PLC0415

    writer = stack.enter_context(SummaryWriter(str(folder)))

    def report(row: HistoryRow) -> None:
        for name, value in row.metrics.items():
            writer.add_scalar(name, value, row.num_updates)

    return report


def _print(result: TrainResult) -> None:
    names = list(result.history[-1].metrics)
    step = -(-len(result.history) // _MOST_ROWS)
    # Every step-th row, counted from the last.
    rows = [[row.num_updates, *(row.metrics[name] for name in names)] for row in result.history[::-step][::-1]]
    print_table("Losses (means since the row before)", ["updates", *names], rows)
    print_table("Result", ["policy"], [[result.bundle]])
