"""`gridray calibrate`: fit a feeder model to imported measurements."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gridray.cli.output import print_json, print_table
from gridray.config import load_config
from gridray.datasets.calibrate import CalibrateConfig, calibrate
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.historian import read_measurements
from gridray.datasets.partial import write_file
from gridray.errors import FeederError
from gridray.feeders.writing import write_feeder
from gridray.tasks.registry import make_task


def command(
    path: Annotated[Path, typer.Argument(help="Dataset made by `gridray dataset import`.")],
    *,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    samples: Annotated[int | None, typer.Option(help="Moments used, evenly spread.", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file of corrections; by default <PATH>/calibration.json.")
    ] = None,
    feeder_out: Annotated[
        Path | None, typer.Option("--feeder", help="Corrected feeder; by default feeder.yaml beside the JSON file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Fit phase labels, load allocation and line impedances of a dataset's feeder to its meters.

    The corrected feeder is written without generators and batteries, which a task places itself: give its path as
    `feeder` in a task's configuration.

    Example: gridray calibrate runs/imported --samples 96
    """
    dataset = OfflineDataset.open(path)
    settings = CalibrateConfig() if config is None else load_config(CalibrateConfig, config)
    if samples is not None:
        settings = replace(settings, num_samples=samples)
    task = make_task(dataset.card.task, dataset.card.task_config)
    feeder, found = calibrate(task.feeder, read_measurements(path), settings)
    file = out or path / "calibration.json"
    feeder_file = feeder_out or file.with_name("feeder.yaml")
    fixed, corrected = feeder.with_generators(()), None
    try:
        fixed, corrected = write_feeder(fixed, feeder_file), feeder_file
    except FeederError as error:
        # The corrections hold all the same.
        typer.echo(f"no corrected feeder file: {error}", err=True)
    facts: dict[str, Any] = asdict(found) | {"feeder_hash": fixed.content_hash()}
    write_file(file, json.dumps(facts, indent=2) + "\n")
    if as_json:
        print_json(facts | {"path": file, "feeder": corrected})
        return
    rows = [["model minus meter, rms, pu, before", found.rms_before_pu], ["after", found.rms_after_pu]]
    print_table(
        f"Calibration of '{task.feeder.name}'", ["", ""], [*rows, ["corrections", file], ["feeder", corrected or "-"]]
    )
    moved = [[name, *phases] for name, phases in found.load_phases.items()]
    print_table("Loads on another phase", ["load", "before", "after"], moved)
    print_table("Meters on another phase", ["labelled", "is"], list(found.meter_phases.items()))
    scales = [("load", *item) for item in found.load_scales.items()]
    scales += [("line code", *item) for item in found.impedance_scales.items()]
    changed = [row for row in scales if abs(row[2] - 1.0) > 0.01]
    print_table("Factors that are not 1", ["kind", "name", "factor"], changed)
