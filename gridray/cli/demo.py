"""`gridray demo`: the whole way for three utilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gridray.cli.output import print_json, print_table, progress
from gridray.demo import QUICK, DemoConfig, run_demo
from gridray.evaluation.columns import columns, summary


def command(
    out: Annotated[Path, typer.Option(help="Working directory; a stopped demo goes on from what it finished.")] = Path(
        "demo"
    ),
    report: Annotated[Path, typer.Option(help="Directory of the page with tables and plots.")] = Path("report"),
    quick: Annotated[bool, typer.Option("--quick", help="A minute's run, too short to learn much.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,  # noqa: FBT002
) -> None:
    """Three utilities record, train alone, federate and are compared; writes report/index.html and policy bundles.

    Example: gridray demo
    """
    with progress("GridRay demo", 1.0) as advance:
        result = run_demo(QUICK if quick else DemoConfig(), out, report, lambda _what, share: advance(share))
    if as_json:
        tables = {u: {p: summary(table) for p, table in policies.items()} for u, policies in result.tables.items()}
        print_json({"tables": tables, "verdict": result.verdict, "report": result.report, "bundles": result.bundles})
        return
    for utility, policies in result.tables.items():
        shown = columns(policies.values())
        rows = []
        for policy, table in policies.items():
            rows.append([policy, *(column.text(float(table[column.name].mean())) for column in shown)])
        print_table(f"{utility}: means over held-out days", ["policy", *(c.heading for c in shown)], rows)
    for sentence in result.verdict:
        typer.echo(f"- {sentence}")
    typer.echo(f"\nReport: {result.report}")
    for utility, bundle in result.bundles.items():
        typer.echo(f"Policy for {utility}: {bundle}   (gridray serve {bundle})")
