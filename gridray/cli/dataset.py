"""`gridray dataset`: import a utility's own data, look at datasets, exchange them with Minari."""

from __future__ import annotations

import json
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gridray.cli.output import print_json, print_table
from gridray.datasets.coverage import measure_coverage
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.historian import ImportReport, import_historian
from gridray.datasets.page import write_page

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


def inspect(
    path: Annotated[Path, typer.Argument(help="Directory of a dataset.")],
    *,
    html: Annotated[Path | None, typer.Option(help="File of the page with plots; by default <PATH>.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show a dataset's card and what actions and voltages it covers, and write a page with plots.

    Example: gridray dataset inspect runs/data/north --html north.html
    """
    dataset = OfflineDataset.open(path)
    coverage = measure_coverage(dataset)
    place = path if path.name else path.resolve()
    page = html or place.with_name(f"{place.name}.html")
    write_page(page, dataset.card, coverage)
    if as_json:
        print_json({"card": json.loads(dataset.card.to_json()), "coverage": asdict(coverage), "page": page})
        return
    print_table(f"Dataset '{path}'", ["", ""], dataset.card.summary())
    headings = ["cost", "mean", "deviation", "5 %", "median", "95 %", "most"]
    print_table("Costs, totals of an episode", headings, dataset.card.cost_table())
    headings = ["action", "mean", "deviation", "bins with rows", "rows in an end bin"]
    print_table("Coverage of actions", headings, coverage.action_table())
    headings = ["node", "share below 0.95 pu", "share above 1.05 pu"]
    if coverage.voltage_names:
        print_table("Voltages, worst first", headings, coverage.voltage_table()[:MOST_ROWS])
    print_table("", ["page with plots"], [[str(page)]])


def to_minari(
    path: Annotated[Path, typer.Argument(help="Directory of a dataset.")],
    name: Annotated[str, typer.Argument(help="Minari's id, such as gridray/north-v0.")],
    *,
    folder: Annotated[
        Path | None, typer.Option(help="Minari's folder of datasets.", envvar="MINARI_DATASETS_PATH")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Write a dataset as a local Minari dataset.

    Example: gridray dataset to-minari runs/data/north gridray/north-v0
    """
    from gridray.datasets.minari import export_minari  # noqa: PLC0415

    place = (folder or Path.home() / ".minari" / "datasets") / name
    made = export_minari(OfflineDataset.open(path), place, name)
    _print_facts({"path": place, "episodes": made.total_episodes, "steps": made.total_steps}, as_json=as_json)


def from_minari(
    path: Annotated[Path, typer.Argument(help="Directory of a Minari dataset, which has metadata.json.")],
    *,
    out: Annotated[Path, typer.Option(help="Directory of the dataset; must not exist.")] = Path("runs/minari"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Write a local Minari dataset as one of GridRay's.

    Example: gridray dataset from-minari ~/.minari/datasets/gridray/north-v0 --out runs/data/north
    """
    from gridray.datasets.minari import import_minari  # noqa: PLC0415

    card = import_minari(path, out).card
    _print_facts({"path": out, "episodes": card.num_episodes, "steps": card.num_transitions}, as_json=as_json)


def _print_facts(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_table("", list(facts), [list(facts.values())])


def _print_report(report: ImportReport) -> None:
    totals: dict[str, int] = {}
    for counts in report.samples.values():
        for what, number in counts.items():
            totals[what] = totals.get(what, 0) + number
    print_table("Samples", ["what became of them", "number"], sorted(totals.items(), key=itemgetter(1), reverse=True))
    print_table("Intervals", ["", "number"], list(report.intervals.items()))
    filled = [(name, number) for name, number in report.filled.items() if number]
    if filled:
        print_table("Filled intervals", ["point", "number"], filled)
    for title, origins in (("Observations", report.observations), ("Actions", report.actions)):
        kinds = sorted(set(origins.values()))
        print_table(title, ["source", "number"], [(kind, list(origins.values()).count(kind)) for kind in kinds])
    if report.voltage_error:
        headings = list(report.voltage_error[0])
        worst = sorted(report.voltage_error, key=lambda error: error["rms_pu"], reverse=True)[:MOST_ROWS]
        print_table("Model minus meter, worst first", headings, [list(error.values()) for error in worst])


COMMANDS: Final[dict[str, Any]] = {
    "import": import_,
    "inspect": inspect,
    "to-minari": to_minari,
    "from-minari": from_minari,
}
"""Subcommands by name."""
