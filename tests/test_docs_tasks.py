"""docs/tasks.md names every channel, cost and reward weight that the tasks have."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gridray.tasks.registry import TASKS, make_task

if TYPE_CHECKING:
    from gridray.tasks.base import ActionChannel, ObservationChannel

PAGE = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+?) \|", re.MULTILINE)


def pattern(channel: ActionChannel | ObservationChannel) -> str:
    """Return "vmag_pu.<node>", "regulator.<name>.tap" or "price.eur_per_mwh.ahead_<k>"."""
    first, *middle, last = channel.name.split(".")
    if first in {"feeder", "time", "load", "price"}:
        return re.sub(r"ahead_\d+$", "ahead_<k>", channel.name)
    return f"{first}.<node>" if first == "vmag_pu" else f"{first}.<name>.{last}" if middle else channel.name


def part(name: str, title: str) -> str:
    section = PAGE.partition(f"\n## `{name}`")[2].partition("\n## ")[0]
    return section.partition(f"\n{title}\n")[2].partition("\n\n")[0]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tables_are_the_channels_of_the_task(name: str) -> None:
    task = make_task(name, {"num_days": 5, "step_minutes": 60})
    for title, channels in (("Actions:", task.action_channels), ("Observations:", task.observation_channels)):
        expected = list(dict.fromkeys((pattern(channel), channel.unit) for channel in channels))
        assert ROW.findall(part(name, title)) == expected


@pytest.mark.parametrize("name", sorted(TASKS))
def test_costs_and_weights_are_named(name: str) -> None:
    section = PAGE.partition(f"\n## `{name}`")[2].partition("\n## ")[0]
    common = PAGE.partition("\n## Constraints")[2].partition("\n## ")[0]
    for cost in TASKS[name][0].cost_names:
        assert f"`{cost}`" in section + common
    for field in fields(TASKS[name][1]):
        if field.name.endswith(("_weight", "_per_kwh", "_eur")):
            assert f"`{field.name}`" in section
