"""`gridray compat`: other projects' benchmarks on our solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gridray.cli.output import print_json, print_table
from gridray.compat.base import Run
from gridray.compat.registry import ANCHORS, find_anchor
from gridray.errors import ConfigError


def command(  # one parameter per option
    name: Annotated[str, typer.Argument(help=f"Benchmark: {', '.join(ANCHORS)}.")],
    system: Annotated[
        str | None, typer.Argument(help="System of the benchmark; without one, print the comparison table.")
    ] = None,
    *,
    data: Annotated[Path | None, typer.Option(help="Folder of the original's data files.")] = None,
    policy: Annotated[str, typer.Option(help="Policy; powergym: static-K, hold, random, utility.")] = "hold",
    profile: Annotated[int, typer.Option(help="Number of the profile or day.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of policies that draw.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Play an episode of another project's benchmark, or compare its published scores with ours.

    Example: gridray compat powergym 13Bus --data powergym --policy static-16 --profile 0 --json
    """
    anchor = find_anchor(name)
    if system is None:
        rows = anchor.compare(data)
        if as_json:
            print_json([row._asdict() for row in rows])
        else:
            print_table(f"{name}: the original and GridRay", list(rows[0]._fields), rows)
        return
    if system not in anchor.systems:
        raise ConfigError(f"{name} has no system '{system}': give one of {', '.join(anchor.systems)}.")
    rewards, metrics = anchor.play(Run(system, policy, profile, seed), data)
    returns = {"return": float(rewards.sum())}
    if anchor.discount < 1.0:
        returns |= {"discount": anchor.discount}
        returns |= {"discounted_return": float(rewards @ anchor.discount ** np.arange(len(rewards)))}
    returns |= metrics
    if as_json:
        print_json({"rewards": rewards} | returns)
    else:
        print_table(f"{name} {system}, {policy}", ["step", "reward"], list(enumerate(rewards.tolist(), 1)))
        print_table("", list(returns), [list(returns.values())])
