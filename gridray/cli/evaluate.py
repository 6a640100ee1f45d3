"""`gridray evaluate`: compare policies on held-out days."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from gridray.algorithms.bundle import load_bundle
from gridray.cli.output import print_json, print_table, progress
from gridray.errors import ConfigError
from gridray.evaluation.report import COLUMNS, ReportData, summary, write_report
from gridray.evaluation.rollout import EpisodeTable, evaluate_policy, held_out_days
from gridray.evaluation.statistics import paired_difference
from gridray.policies.registry import POLICIES, make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from gridray.policies.base import Policy
    from gridray.tasks.base import Task


def command(  # noqa: PLR0917
    policies: Annotated[
        list[str], typer.Argument(help="random, utility_controls, droop, or the directory of a policy bundle.")
    ],
    task: Annotated[str, typer.Option(help="Task to evaluate on.")] = "volt_var",
    config: Annotated[
        Path | None, typer.Option(help="YAML with the task's configuration; default: that of the first bundle.")
    ] = None,
    days: Annotated[int, typer.Option(help="Held-out days, spread over the year.", min=1)] = 36,
    seed: Annotated[int, typer.Option(help="Seed of policies that draw.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write a page with tables and plots to this directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,  # noqa: FBT002
) -> None:
    """Compare policies on held-out days: returns with 95 % intervals, violations, losses, operations.

    Example: gridray evaluate random utility_controls droop runs/north/policy --days 36
    """
    made = make_task(task, _task_config(policies, config) | {"days": "held_out"})
    held_out = held_out_days(made, days)
    tables: dict[str, EpisodeTable] = {}
    with progress("Evaluating", len(policies)) as advance:
        for name in policies:
            tables[name] = evaluate_policy(_policy(name, made), made, days=held_out, seed=seed)
            advance(1)
    if report is not None:
        _write(report, made, tables)
    if as_json:
        print_json({name: _plain(table, tables[policies[0]]) for name, table in tables.items()})
    else:
        headings = ["policy", *(heading for _, heading, _, _ in COLUMNS)]
        print_table(f"{made.feeder.name}: {len(held_out)} held-out days", headings, [_row(*i) for i in tables.items()])


def _task_config(policies: list[str], config: Path | None) -> dict[str, Any]:
    if config is not None:
        try:
            data = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"'{config}' cannot be read as YAML ({error}): give a file of task settings.") from error
        if not isinstance(data, dict):
            raise ConfigError(f"'{config}' holds no mapping of task settings: give keys such as feeder: ieee34.")
        return data
    bundles = [name for name in policies if name not in POLICIES]
    return dict(load_bundle(Path(bundles[0])).manifest.task.config) if bundles else {}


def _policy(name: str, task: Task) -> Policy:
    if name in POLICIES:
        return make_policy(name, task)
    bundle = load_bundle(Path(name))
    bundle.check_task(task)
    return bundle.policy


def _row(name: str, table: EpisodeTable) -> list[str]:
    estimates = summary(table)
    cells = []
    for key, _, factor, decimals in COLUMNS:
        e = estimates[key]
        half = max(e.high - e.mean, e.mean - e.low) * factor
        cells.append(f"{e.mean * factor:.{decimals}f} ±{half:.{decimals}f}")
    return [name, *cells]


def _plain(table: EpisodeTable, baseline: EpisodeTable) -> dict[str, Any]:
    result: dict[str, Any] = {key: estimate._asdict() for key, estimate in summary(table).items()}
    result["days"] = table.day.tolist()
    result["return_minus_first"] = paired_difference(table.returns, baseline.returns)._asdict()
    return result


def _write(folder: Path, task: Task, tables: dict[str, EpisodeTable]) -> None:
    best = max(tables, key=lambda name: float(tables[name].returns.mean()))
    data = ReportData(
        title=f"Policies on {task.feeder.name}",
        verdict=[_against(best, name, tables) for name in tables if name != best],
        tables={task.feeder.name: tables},
        curves={},
        profiles=(),
        facts={"task": task.name, **{key: str(value) for key, value in task.config_dict().items()}},
    )
    write_report(folder, data)


def _against(best: str, other: str, tables: dict[str, EpisodeTable]) -> str:
    """Compare the highest mean return with another by paired days, and claim no more than the interval does."""
    gain = paired_difference(tables[best].returns, tables[other].returns)
    word = "is above" if gain.low > 0.0 else "is not clearly different from"
    return f"Return of {best} {word} that of {other}: {gain.mean:+.2f} a day ({gain.low:+.2f} to {gain.high:+.2f})."
