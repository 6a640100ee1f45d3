"""`gridray dataset`: import a utility's own data, look at datasets, exchange them with Minari."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gridray.cli.output import print_json, print_table
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.historian import ImportReport, import_historian

MOST_ROWS = 20


def group() -> None:
    """Import, inspect and exchange offline datasets."""


def import_(
    mapping: Annotated[Path, typer.Argument(help="YAML file, such as examples/mapping.yaml.")],
    *,
    out: Annotated[Path, typer.Option(help="Directory of the dataset; must not exist.")] = Path("runs/imported"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Import SCADA and AMI exports as an offline dataset, and report what was used, repaired or dropped and why.

    Example: gridray dataset import examples/mapping.yaml --out runs/imported
    """
    dataset, report = import_historian(mapping, out)
    if as_json:
        print_json({"path": dataset.path, "card": asdict(dataset.card), "report": asdict(report)})
        return
    print_table(f"Dataset '{out}'", ["", ""], dataset.card.summary())
    _print_report(report)


def _print_report(report: ImportReport) -> None:
    totals: dict[str, int] = {}
    for counts in report.samples.values():
        for what, number in counts.items():
            totals[what] = totals.get(what, 0) + number
    print_table("Samples", ["what became of them", "number"], sorted(totals.items(), key=lambda item: -item[1]))
    print_table("Intervals", ["", "number"], list(report.intervals.items()))
    filled = [(name, number) for name, number in report.filled.items() if number]
    if filled:
        print_table("Filled intervals", ["point", "number"], filled)
    for title, origins in (("Observations", report.observations), ("Actions", report.actions)):
        kinds = sorted(set(origins.values()))
        print_table(title, ["source", "number"], [(kind, list(origins.values()).count(kind)) for kind in kinds])
    if report.voltage_error:
        headings = list(report.voltage_error[0])
        worst = sorted(report.voltage_error, key=lambda error: -error["rms_pu"])[:MOST_ROWS]
        print_table("Model minus meter, worst first", headings, [list(error.values()) for error in worst])


COMMANDS: Final[dict[str, Any]] = {"import": import_}
"""Subcommands by name."""
