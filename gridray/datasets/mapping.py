"""How a utility's own export maps onto a feeder's points: what a mapping file may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import available_timezones

import numpy as np

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.tasks.base import Task

SCALES = {"W": 1e-3, "kW": 1.0, "MW": 1e3, "var": 1e-3, "kvar": 1.0, "Mvar": 1e3}
VOLTS = {"V": 1.0, "kV": 1e3, "V_ll": 1.0 / np.sqrt(3.0), "kV_ll": 1e3 / np.sqrt(3.0)}
STATE_SUFFIXES = (".tap", ".state", ".soc", ".level", ".connected")
"""Points that are positions at a moment, not means of an interval."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One export, CSV (or other separated text) or Parquet.

    path: relative to the mapping file.
    layout: wide (a row per time, a column per tag) or long (a row per time and tag, in columns `tag` and `value`).
    quality: column of quality flags in a long file; in a wide one the suffix of the flag's column, such as "_q".
    received: column of the time at which a value arrived, in the same zone.
    time_format: as strptime has it; ISO 8601 if not given.
    time_zone: IANA name of the zone of stamps without an offset, such as America/New_York; None if all carry theirs.
    ambiguous: the hour that daylight saving repeats: take the two of each tag in the order of the file, the first or
    second of both, or drop it; nonexistent: the hour that it skips: drop it, or move it to the end of the gap.
    stamp: whether a stamp is the start or the end of its interval of interval_minutes.
    """

    path: str
    layout: Literal["wide", "long"] = "wide"
    time: str = "time"
    tag: str = "tag"
    value: str = "value"
    quality: str | None = None
    received: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    ambiguous: Literal["order", "first", "second", "drop"] = "drop"
    nonexistent: Literal["shift", "drop"] = "drop"
    stamp: Literal["start", "end"] = "start"
    interval_minutes: float = 0.0
    separator: str = ","
    decimal: Literal[".", ","] = "."

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.time_zone is not None and self.time_zone not in available_timezones():
            nearest = get_close_matches(self.time_zone, available_timezones(), n=1, cutoff=0.5)
            hint = f", such as '{nearest[0]}'" if nearest else ""
            raise ConfigError(f"time_zone is '{self.time_zone}': give an IANA name{hint}.")
        if self.stamp == "end" and not self.interval_minutes > 0.0:
            raise ConfigError(f"stamp is 'end' in '{self.path}': give interval_minutes, the length of its intervals.")


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a point's values come from.

    unit: of the tag; V, kV (line to neutral) and V_ll, kV_ll (line to line) become pu of the node's base, powers kW or
    kvar, and pu of kVA where the channel asks for that; None: as the channel.
    scale, offset: value * scale + offset, before the unit is converted; states: numbers for texts such as OPEN.
    low, high: limits in the channel's unit; what is outside is dropped.
    aggregate: mean of the samples of an interval, or the last one up to its beginning; None: by kind of point.
    """

    tag: str
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    states: dict[str, float] = field(default_factory=dict)
    low: float = -np.inf
    high: float = np.inf
    aggregate: Literal["mean", "last"] | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.unit is not None and self.unit not in {*SCALES, *VOLTS, "pu"}:
            known = ", ".join((*SCALES, *VOLTS, "pu"))
            raise ConfigError(f"unit of tag '{self.tag}' is '{self.unit}': give one of {known}, or scale and offset.")


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What may be repaired; by default nothing is.

    interpolate_minutes: longest gap that is filled on a straight line between means; hold_minutes: longest time that
    the last value of a position is kept; duplicates: which of several different values of a tag and time counts, the
    one that arrived last being taken where `received` tells; late_minutes: later arrivals are dropped.
    """

    interpolate_minutes: float = 0.0
    hold_minutes: float = 0.0
    duplicates: Literal["drop", "first", "last", "mean"] = "drop"
    late_minutes: float = np.inf


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A utility's exports, and which tag is which point.

    task, task_config: whose observations and actions the points are; the feeder is in the task's configuration.
    points: by the task's observation ("vmag_pu.671.1", "regulator.reg1.tap"), "load.<name>.kw" and "load.<name>.kvar"
    of the feeder's loads, "action.<name>" if set-points were logged, "reward" and "cost.<name>".
    constants: values of points that nobody measures, by name or pattern ("battery.*.soc").
    estimate: patterns of observations that are neither measured nor constant and that the twin computes from loads and
    device positions, such as ["vmag_pu.*", "regulator.*.control_v", "feeder.*"].
    good_quality: flags that count as good, compared as texts.
    """

    utility: str
    files: tuple[SourceFile, ...]
    points: dict[str, Point]
    task: str = "volt_var"
    task_config: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    estimate: tuple[str, ...] = ()
    good_quality: tuple[str, ...] = ("good", "GOOD", "Good", "0", "192")
    repair: Repair = field(default_factory=Repair)
    licence: str = "not stated"

    def __post_init__(self) -> None:
        """Refuse a mapping of nothing."""
        if not self.files or not self.points:
            raise ConfigError("files or points is empty: name at least one file and one point.")


class Points:
    """The points of a task's feeder, and how to convert a tag's values to a point's unit."""

    def __init__(self, mapping: Mapping, task: Task) -> None:
        """Check the mapping's names against the task.

        Raises:
            ConfigError: a point is unknown or a unit does not fit; lists all.
        """
        self._kva = {generator.name: generator.kva for generator in task.feeder.generators}
        self._base_v = dict(zip(task.grid.node_names, task.grid.node_base_v.tolist(), strict=True))
        self._units = _units(task)
        unknown = [name for name in mapping.points if name not in self._units]
        problems = [f"there is no point '{name}'{self._nearest(name)}" for name in unknown]
        problems += [
            f"'{pattern}' of constants or estimate fits no point"
            for pattern in (*mapping.constants, *mapping.estimate)
            if not any(fnmatchcase(name, pattern) for name in self._units)
        ]
        for name, point in mapping.points.items():
            if name not in unknown and point.unit is not None and self._factor(name, point.unit) is None:
                problems.append(f"point '{name}' is in {self._units[name]}, its tag '{point.tag}' in {point.unit}")
        if problems:
            raise ConfigError(f"Mapping of '{mapping.utility}': {'; '.join(problems)}.")

    def factor(self, name: str, unit: str | None) -> float:
        """Return what a value in `unit` is multiplied with."""
        return 1.0 if unit is None else self._factor(name, unit) or 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """Every point there is."""
        return tuple(self._units)

    def _factor(self, name: str, unit: str) -> float | None:
        wanted = self._units[name]
        if unit in VOLTS and name.startswith("vmag_pu."):
            return float(VOLTS[unit] / self._base_v[name.removeprefix("vmag_pu.")])
        if unit in SCALES and wanted == "pu of kVA":
            return SCALES[unit] / self._kva[name.rpartition(".")[0].partition(".")[2]]
        if unit in SCALES and wanted in {"kW", "kvar"}:
            return SCALES[unit]
        return 1.0 if unit == "pu" and wanted.startswith("pu") else None

    def _nearest(self, name: str) -> str:
        nearest = get_close_matches(name, self._units, n=1, cutoff=0.5)
        return f", did you mean '{nearest[0]}'?" if nearest else ""


def is_position(name: str, point: Point) -> bool:
    """Tell whether a point is a position at a moment and not the mean of an interval."""
    return point.aggregate == "last" if point.aggregate else name.endswith(STATE_SUFFIXES)


def resolve(mapping_file: Path, source: SourceFile) -> Path:
    """Return a source's path."""
    return mapping_file.parent / source.path


def _units(task: Task) -> dict[str, str]:
    """Return the unit of every point of a task's feeder."""
    units = dict.fromkeys((f"vmag_pu.{node}" for node in task.grid.node_names), "pu")
    for generator in task.feeder.generators:
        units |= {f"{generator.kind}.{generator.name}.{quantity}": "pu of kVA" for quantity in ("kw", "kvar")}
    units |= {f"regulator.{name}.tap": "step" for name in task.grid.tap_names}
    units |= {f"capacitor.{name}.state": "1" for name in task.grid.capacitor_names}
    for load in task.grid.load_names:
        units |= {f"load.{load}.kw": "kW", f"load.{load}.kvar": "kvar"}
    units |= {channel.name: channel.unit for channel in task.observation_channels}
    units |= {f"action.{channel.name}": channel.unit for channel in task.action_channels}
    return units | {f"cost.{name}": "1" for name in task.cost_names} | {"reward": "1"}
