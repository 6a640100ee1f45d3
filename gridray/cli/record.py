"""`gridray record`: drive a policy and keep what happens as an offline dataset."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridray.algorithms.bundle import load_bundle
from gridray.cli.output import print_json, print_table, progress
from gridray.config import load_config
from gridray.datasets.record import RecordConfig, record
from gridray.policies.registry import make_policy

if TYPE_CHECKING:
    from gridray.policies.base import Policy
    from gridray.tasks.base import Task


def command(  # noqa: PLR0917  # typer makes an option of every parameter
    config: Annotated[Path | None, typer.Argument(help="YAML file, such as examples/record.yaml.")] = None,
    out: Annotated[Path, typer.Option(help="Directory of the dataset; must not exist.")] = Path("runs/dataset"),
    feeder: Annotated[str | None, typer.Option(help="Feeder name or file, instead of that in the file.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy name or directory of a trained policy.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Days to record.", min=1)] = None,
    noise: Annotated[float | None, typer.Option(help="Standard deviation of noise on actions.", min=0.0)] = None,
    random_share: Annotated[float | None, typer.Option(help="Share of random days.", min=0.0, max=1.0)] = None,
    actors: Annotated[int | None, typer.Option(help="Ray actors that record at the same time.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of days and noise.", min=0)] = None,
    *,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Record in this process; equal rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Record an offline dataset: one day of the year per episode, one Parquet row per interval.

    A run that was stopped goes on from its finished files when it is started again with the same settings.

    Example: gridray record examples/record.yaml --out runs/data/north --episodes 200
    """
    settings = RecordConfig() if config is None else load_config(RecordConfig, config)
    given: dict[str, Any] = {
        "policy": policy,
        "num_episodes": episodes,
        "noise_std": noise,
        "random_share": random_share,
        "num_actors": actors,
        "seed": seed,
        "task_config": None if feeder is None else settings.task_config | {"feeder": feeder},
    }
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    with progress(f"Recording {settings.num_episodes} days", settings.num_episodes) as advance:
        dataset = record(settings, out, advance, use_ray=not no_ray, policy_maker=policy_or_bundle)
    if as_json:
        print_json({"path": dataset.path, "card": asdict(dataset.card)})
        return
    print_table(f"Dataset '{out}'", ["", ""], dataset.card.summary())
    headings = ["cost", "mean", "deviation", "5 %", "median", "95 %", "most"]
    print_table("Costs, totals of an episode", headings, dataset.card.cost_table())


def policy_or_bundle(name: str, task: Task) -> Policy:
    """Return the trained policy in the directory `name` if there is one, else the policy of that name."""
    if not Path(name).is_dir():
        return make_policy(name, task)
    return load_bundle(Path(name)).policy_for(task)
