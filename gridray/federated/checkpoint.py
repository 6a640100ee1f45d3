"""Arrays and plain values on disk, written aside and renamed: a checkpoint is whole or it is not there."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gridray.errors import FederationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_ARRAYS = "arrays.safetensors"
_VALUES = "values.json"
_NUM_KEPT = 2


class Checkpoint(NamedTuple):
    """State after a round.

    round: index of the round, from 0.
    arrays: name -> array.
    values: what JSON can hold.
    """

    round: int
    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the state after a round into folder, and delete all but the last two.

    Raises:
        FederationError: the disk is full or cannot be written; the checkpoints that were there stay.
    """
    target = folder / f"round-{checkpoint.round:06d}"
    aside = folder / f".partial-{target.name}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        save_file(checkpoint.arrays, aside / _ARRAYS)
        (aside / _VALUES).write_text(json.dumps(checkpoint.values, indent=1, sort_keys=True), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        message = (
            f"Checkpoint {target} cannot be written ({error}): make room and run again to go on from the one before"
        )
        raise FederationError(message) from error
    for old in _rounds(folder)[:-_NUM_KEPT]:
        shutil.rmtree(folder / f"round-{old:06d}")


def load_latest(folder: Path, *, before: int | None = None) -> Checkpoint | None:
    """Return the newest state in folder, of a round below `before` if given; None if there is none.

    Raises:
        FederationError: a file of the checkpoint cannot be read.
    """
    rounds = [index for index in _rounds(folder) if before is None or index < before]
    if not rounds:
        return None
    path = folder / f"round-{rounds[-1]:06d}"
    try:
        values: Mapping[str, Any] = json.loads((path / _VALUES).read_text(encoding="utf-8"))
        return Checkpoint(rounds[-1], load_file(path / _ARRAYS), dict(values))
    except (OSError, ValueError, SafetensorError) as error:
        message = f"Checkpoint {path} cannot be read ({error}): remove it to go on from the one before"
        raise FederationError(message) from error


def _rounds(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("round-")) for path in folder.glob("round-[0-9]*"))
