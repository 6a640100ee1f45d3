"""`gridray tune`: search learner settings with Ray Tune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gridray.cli.output import print_json, print_table, progress
from gridray.cli.sweep_results import write_plot, write_table
from gridray.config import load_config
from gridray.sweeps import SweepConfig, SweepResult, sweep

_INTERRUPTED = 130


def command(
    config: Annotated[Path, typer.Argument(help="YAML file of the sweep, such as tune_configs/volt_var_iql.yaml.")],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the sweep; default: runs/tune/ and the file's name.")
    ] = None,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Search an algorithm's settings: at random or by Optuna, with ASHA or population based training.

    Ctrl-C stops the sweep; --resume goes on from the checkpoints of its trials. The best settings are in best.yaml,
    all trials in trials.csv, and their scores over each setting in trials.svg.

    Example: gridray tune tune_configs/volt_var_iql.yaml
    """
    settings = load_config(SweepConfig, config)
    directory = Path("runs/tune") / config.stem if out is None else out
    with progress("Sweeping", settings.num_samples * settings.max_reports) as advance:
        result = sweep(settings, directory, lambda: advance(1), resume=resume)
    write_table(directory / "trials.csv", result.trials)
    write_plot(directory / "trials.svg", result.trials)
    if as_json:
        report = {"is_finished": result.is_finished, "best": asdict(result.trials[0]), "best_file": result.best_file}
        report["online_evaluations"] = result.num_evaluations
        print_json(report | {"trials": [asdict(trial) for trial in result.trials]})
    else:
        _print(result)
    if not result.is_finished:
        typer.echo("stopped before its end: continue with --resume", err=True)
        raise typer.Exit(_INTERRUPTED)


def _print(result: SweepResult) -> None:
    names = list(result.trials[0].settings)
    rows = [
        [
            "-" if trial.score is None else trial.score,
            trial.num_updates,
            *(trial.settings[name] for name in names),
            trial.error or "",
        ]
        for trial in result.trials
    ]
    print_table("Trials, best first (score: mean return of a validation day)", ["score", "updates", *names, ""], rows)
    files = [result.best_file, result.best_file.with_name("trials.csv"), result.best_file.with_name("trials.svg")]
    print_table("Result", ["best settings", "trials", "plot", "online evaluations"], [[*files, result.num_evaluations]])
