"""From a request's rows to what a policy sees; every problem found names its field."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import GridRayError
from gridray.tasks.base import scaled_observations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import ObservationChannel

MAX_SCALED = 1e6
"""Scaled observations are around 1: what is a million times that is no measurement, and would overflow float32."""
MAX_PROBLEMS = 20


class RequestError(GridRayError):
    """Fields of a request are wrong; problems are pairs of field and message."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems[:MAX_PROBLEMS])
        super().__init__("; ".join(f"{field}: {message}" for field, message in self.problems))


def check_feeder(feeder: str, *, name: str, content_hash: str, field: str = "feeder") -> None:
    """Refuse a request for another feeder than the one the policy was trained on.

    Raises:
        RequestError: `feeder` is neither the feeder's name nor its hash.
    """
    if feeder not in {name, content_hash}:
        rule = f"the policy was trained on feeder '{name}' (hash {content_hash}): give its name or hash"
        raise RequestError([(field, f"'{feeder[:80]}' is another feeder; {rule}")])


def check_num_rows(num_rows: int, max_rows: int, *, field: str = "observations") -> None:
    """Refuse more rows than one request may have.

    Raises:
        RequestError: `num_rows` is above `max_rows`.
    """
    if num_rows > max_rows:
        raise RequestError([(field, f"{num_rows} rows are too many: give at most {max_rows} in one request")])


def read_rows(
    channels: Sequence[ObservationChannel], rows: Sequence[Mapping[str, float] | Sequence[float]]
) -> NDArray[np.float32]:
    """Return scaled observations, float32 [num_rows, num_channels], of rows by name or in channel order.

    Raises:
        RequestError: A row has the wrong length, a missing or unknown name, or a value beyond any measurement.
    """
    names = [channel.name for channel in channels]
    problems: list[tuple[str, str]] = []
    physical = np.zeros((len(rows), len(names)))
    for index, row in enumerate(rows):
        field = f"observations[{index}]"
        if isinstance(row, Mapping):
            found = _name_problems(names, row, field)
            values = [row.get(name, 0.0) for name in names]
        else:
            found = _length_problems(names, row, field)
            values = list(row)
        problems += found
        if not found:
            physical[index] = values
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise RequestError(problems)
    with np.errstate(over="ignore"):
        scaled = scaled_observations(channels, physical)
    for index, column in np.argwhere(~(np.abs(scaled) <= MAX_SCALED)):
        channel = channels[column]
        message = f"{physical[index, column]:g} is no possible value in {channel.unit}: check its unit"
        problems.append((f"observations[{index}].{channel.name}", message))
    if problems:
        raise RequestError(problems)
    return scaled


def _name_problems(names: Sequence[str], row: Mapping[str, float], field: str) -> list[tuple[str, str]]:
    unknown = [name for name in row if name not in names]
    missing = [name for name in names if name not in row]
    problems = []
    for name in unknown:
        nearest = get_close_matches(name, missing or names, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else "GET /v1/policy lists the names"
        problems.append((f"{field}.{name[:80]}", f"unknown observation: {hint}"))
    return problems + [(f"{field}.{name}", "required observation is missing: add it") for name in missing]


def _length_problems(names: Sequence[str], row: Sequence[float], field: str) -> list[tuple[str, str]]:
    if len(row) == len(names):
        return []
    return [(field, f"has {len(row)} values: give {len(names)}, in the order of GET /v1/policy")]
