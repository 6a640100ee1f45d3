"""`gridray adapt`: write a policy for any feeder as the bundle of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gridray.algorithms.bundle import adapt_bundle, load_bundle
from gridray.cli.evaluate import task_settings
from gridray.cli.output import print_json, print_table
from gridray.tasks.registry import make_task


def command(
    bundle: Annotated[Path, typer.Argument(help="Bundle of a local or graph policy.")],
    *,
    config: Annotated[Path, typer.Option(help="YAML with the task's configuration on the other feeder.")],
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Write a policy for any feeder as the bundle of one, to serve it there.

    Example: gridray adapt runs/all/policy --config other.yaml --out runs/other/policy
    """
    given = load_bundle(bundle)
    adapted = adapt_bundle(given, out, task=make_task(given.manifest.task.name, task_settings(config)))
    facts = {"bundle": adapted.path, "feeder": adapted.manifest.feeder.name, "task": adapted.manifest.task.name}
    if as_json:
        print_json(facts)
    else:
        print_table("Result", list(facts), [list(facts.values())])
