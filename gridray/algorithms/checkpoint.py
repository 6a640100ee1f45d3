"""State of a training run in one safetensors file, replaced in one step: it is whole or it is the one before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_VALUES = "values"


class Checkpoint(NamedTuple):
    """Arrays by name, and plain values that JSON can hold."""

    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


def write_checkpoint(file: Path, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".partial-{file.name}")
    save_file(dict(arrays), aside, metadata={_VALUES: json.dumps(dict(values))})
    aside.replace(file)


def read_checkpoint(file: Path) -> Checkpoint:
    """Read the checkpoint at `file`.

    Raises:
        GridRayError: it is missing or damaged.
    """
    try:
        with safe_open(file, framework="numpy") as content:
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  # no mapping
            values = json.loads((content.metadata() or {})[_VALUES])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise GridRayError(
            f"Checkpoint '{file}' cannot be read ({error}): remove it to train from the start"
        ) from error
    return Checkpoint(arrays, values)
