"""`gridray evaluate`: compare policies on held-out days."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from gridray.algorithms.bundle import load_bundle
from gridray.cli.offline_values import offline_values
from gridray.cli.output import plain, print_json, print_table, progress
from gridray.config import load_config, parse_yaml
from gridray.errors import ConfigError
from gridray.evaluation.columns import columns, summary
from gridray.evaluation.comparison import UNTUNED, Comparison, compare, tuning_facts
from gridray.evaluation.economics import Economics
from gridray.evaluation.fqe import FqeConfig
from gridray.evaluation.report import ReportData, write_report
from gridray.evaluation.rollout import held_out_days
from gridray.evaluation.statistics import paired_difference
from gridray.policies.registry import POLICIES, TWIN_POLICIES, make_reference
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from gridray.evaluation.statistics import Estimate
    from gridray.tasks.base import Task

REFERENCES = (*POLICIES, *TWIN_POLICIES)


def command(  # noqa: PLR0917
    policies: Annotated[
        list[str], typer.Argument(help=f"{', '.join(REFERENCES)}, or the directory of a policy bundle.")
    ],
    task: Annotated[str | None, typer.Option(help="Task; default: that of the first bundle, or volt_var.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML with the task's configuration; default: that of the first bundle.")
    ] = None,
    days: Annotated[
        int, typer.Option(help="Held-out days, spread over the year; more than it has: a longer one is made.", min=2)
    ] = 36,
    bound_days: Annotated[
        int, typer.Option(help="Days whose optimum is computed for the ceiling, spread over the days.", min=1)
    ] = 12,
    prices: Annotated[Path | None, typer.Option(help="YAML with prices of energy, demand, outages and wear.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of policies and tasks that draw.", min=0)] = 0,
    report: Annotated[Path | None, typer.Option(help="Write index.html and results.json to this directory.")] = None,
    offline: Annotated[
        Path | None, typer.Option(help="Estimate values from this dataset alone; the twin is not run.")
    ] = None,
    noise: Annotated[float, typer.Option(help="With --offline: noise on the policies' actions.", min=0.01)] = 0.2,
    fqe_updates: Annotated[
        int, typer.Option(help="With --offline: gradient steps of fitted Q evaluation for each policy.", min=1)
    ] = FqeConfig.num_updates,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,  # noqa: FBT002
) -> None:
    """Compare policies on held-out days and place them between random, utility controls and the optimum.

    Scores are 0 for random and 100 for the ceiling: an optimisation bound, or the best that was found
    where there is none. Random and utility controls always run too. With --offline, returns are estimated by
    fitted Q evaluation, importance sampling and doubly robust from logged days.

    Example: gridray evaluate static greedy perfect_plan runs/north/policy --days 36 --report report
    """
    if offline is not None:
        fit = FqeConfig(seed=seed, num_updates=fqe_updates)
        offline_values(policies, offline, noise_std=noise, config=fit, as_json=as_json)
        return
    made = _task(task, policies, config, days)
    held_out = held_out_days(made, days)
    tuning: dict[str, Any] = {}
    run = {}
    for name in policies:
        if name in REFERENCES:
            run[name] = make_reference(name, made)
            continue
        bundle = load_bundle(Path(name))
        run[name], tuning[name] = bundle.policy_for(made), tuning_facts(bundle.manifest)
    paid = Economics() if prices is None else load_config(Economics, prices)
    with progress("Evaluating", 1.0) as advance:
        result = compare(run, made, days=held_out, prices=paid, bound_days=bound_days, seed=seed, on_progress=advance)
    answer = {"task": made.name, "feeder": made.feeder.name, "currency": paid.currency, **result.plain(tuning)}
    if report is not None:
        _write(report, made, result, tuning, answer)
    if as_json:
        print_json(answer)
        return
    _print(made, result, tuning)


def _task(name: str | None, policies: list[str], config: Path | None, num_days: int) -> Task:
    """Return the task with enough held-out days."""
    bundles = [policy for policy in policies if policy not in REFERENCES]
    if missing := [bundle for bundle in bundles if not Path(bundle).is_dir()]:
        raise ConfigError(
            f"There is no policy '{missing[0]}': give the directory of a bundle made by `gridray train`, or one of "
            f"{', '.join(REFERENCES)}."
        )
    own = load_bundle(Path(bundles[0])).manifest.task if bundles else None
    if own is not None and name not in {None, own.name}:
        raise ConfigError(f"Bundle '{bundles[0]}' is for task '{own.name}', not '{name}': leave --task out.")
    settings = task_settings(config) if config is not None else dict(own.config) if own is not None else {}
    made = make_task(name or (own.name if own is not None else "volt_var"), settings | {"days": "held_out"})
    if len(made.allowed_days()) >= num_days:
        return made
    longer = {"num_days": num_days * int(made.config.held_out_every)}
    return make_task(made.name, settings | {"days": "held_out"} | longer)


def task_settings(config: Path) -> dict[str, Any]:
    """Return the task settings in a YAML file.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    try:
        data = parse_yaml(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"'{config}' cannot be read as YAML ({error}): give a file of task settings.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"'{config}' holds no mapping of task settings: give keys such as feeder: ieee34.")
    return data


def _print(task: Task, result: Comparison, tuning: dict[str, Any]) -> None:
    rows = []
    for name, score in result.scores.items():
        known = tuning.get(name, UNTUNED)
        rows.append(
            [
                name,
                _interval(score.normalised, 1.0, 1),
                _interval(score.gap_share, 100.0, 1),
                _interval(score.returns_mean, 1.0, 2),
                _interval(score.returns_iqm, 1.0, 2),
                _interval(score.improvement, 100.0, 0),
                f"{score.worst:.2f} (day {score.worst_day})",
                known["online_evaluations"],
            ]
        )
    headings = ["policy", "score", "% of gap", "return", "IQM", "% days above utility", "worst", "online evaluations"]
    num_days = len(next(iter(result.tables.values())).day)
    print_table(f"{task.name} on {task.feeder.name}: {num_days} held-out days", headings, rows)
    typer.echo(
        f"Ceiling on {len(result.ceiling.day)} days, {result.ceiling.returns.mean():.2f}: {result.ceiling.kind}\n"
    )
    shown = columns(result.tables.values())
    means = {name: summary(table) for name, table in result.tables.items()}
    lines = [[c.heading, *(_interval(means[name][c.name], c.factor, c.decimals) for name in means)] for c in shown]
    print_table("Means over the days with 95 % intervals", ["", *means], lines)


def _interval(e: Estimate, factor: float, decimals: int) -> str:
    if math.isnan(e.mean):
        return "-"
    half = max(e.high - e.mean, e.mean - e.low) * factor
    return f"{e.mean * factor:.{decimals}f} ±{half:.{decimals}f}"


def _write(folder: Path, task: Task, result: Comparison, tuning: dict[str, Any], answer: dict[str, Any]) -> None:
    tables = result.tables
    best = max(tables, key=lambda name: float(tables[name].returns.mean()))
    facts = {"task": task.name, **{key: str(value) for key, value in task.config_dict().items()}}
    for name in tables:
        known = tuning.get(name, UNTUNED)
        facts[name] = f"online evaluations for tuning: {known['online_evaluations']}; checkpoint: {known['checkpoint']}"
    data = ReportData(
        title=f"Policies on {task.feeder.name}: {task.name}",
        verdict=[_against(best, name, result) for name in tables if name != best],
        tables={task.feeder.name: tables},
        curves={},
        profiles=(),
        facts=facts,
        scores={task.feeder.name: result.scores},
        notes=[
            f"Ceiling, mean {result.ceiling.returns.mean():.2f} on {len(result.ceiling.day)} days: "
            f"{result.ceiling.kind}. Intervals: 95 %, days drawn anew within their seasons."
        ],
    )
    write_report(folder, data)
    aside = folder / f".results.json.{os.getpid()}"
    aside.write_text(json.dumps(plain(answer), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    aside.replace(folder / "results.json")


def _against(best: str, other: str, result: Comparison) -> str:
    """Compare the highest mean return with another by paired days, and claim no more than the interval does."""
    gain = paired_difference(result.tables[best].returns, result.tables[other].returns)
    word = "is above" if gain.low > 0.0 else "is not clearly different from"
    return f"Return of {best} {word} that of {other}: {gain.mean:+.2f} a day ({gain.low:+.2f} to {gain.high:+.2f})."
