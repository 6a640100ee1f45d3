"""A dataset while it is written: aside, under a lock, shard by shard, and then renamed into place as a whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gridray.config import parse_config
from gridray.datasets.card import DatasetCard, DatasetSource, Shard, make_card
from gridray.datasets.schema import COST_PREFIX
from gridray.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SHARDS = "shards"
CARD = "card.json"
README = "README.md"
IDENTITY = "identity.json"
SIDECARS = "finished"
PREFIX = ".partial-"


@dataclass(frozen=True, kw_only=True)
class FinishedShard:
    """A shard that is whole on disk, and the totals of its episodes (lists are as long as `episodes`)."""

    shard: Shard
    episodes: tuple[str, ...]
    returns: tuple[float, ...]
    costs: dict[str, tuple[float, ...]]


@contextmanager
def partial_folder(path: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """Give the block the folder in which the dataset `path` is written; remove it if nothing in it can be reused.

    A folder that a killed run left behind is kept if its identity is the same, so that its finished shards count, and
    else removed. If the block fails the folder stays for the next run; `publish` moves it away.

    Args:
        path: Where the dataset will be.
        identity: Plain values that decide the content of every shard; an empty one is never reused.

    Raises:
        DatasetError: there is something at `path`, or another process is writing it.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DatasetError(f"'{path}' exists: remove it or give another directory for the dataset.")
    folder = path.parent / f"{PREFIX}{path.name}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"Another process is writing '{path}': wait for it or give another directory."
            ) from error
        text = json.dumps(identity, sort_keys=True, indent=2) + "\n"
        file = folder / IDENTITY
        if not identity or not file.is_file() or file.read_text(encoding="utf-8") != text:
            _empty(folder)
            write_file(file, text)
        for name in (SHARDS, SIDECARS):
            (folder / name).mkdir(exist_ok=True)
        yield folder
    finally:
        os.close(lock)


def write_shard(folder: Path, index: int, table: pa.Table) -> FinishedShard:
    """Write one shard, and its sidecar once the shard is on disk: what has a sidecar is whole."""
    name = f"shard-{index:06d}.parquet"
    file = folder / SHARDS / name
    with file.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd", use_dictionary=["eps_id"])
        stream.flush()
        os.fsync(stream.fileno())
    shard = Shard(file=name, rows=table.num_rows, bytes=file.stat().st_size, sha256=file_sha256(file))
    finished = _with_totals(shard, table)
    write_file(folder / SIDECARS / f"{name}.json", json.dumps(asdict(finished)) + "\n")
    return finished


def finished_shard(folder: Path, index: int) -> FinishedShard | None:
    """Return a shard that an earlier run finished, or None if there is none or it is damaged."""
    name = f"shard-{index:06d}.parquet"
    sidecar, file = folder / SIDECARS / f"{name}.json", folder / SHARDS / name
    try:
        finished = parse_config(FinishedShard, json.loads(sidecar.read_text(encoding="utf-8")), where=str(sidecar))
        is_whole = file_sha256(file) == finished.shard.sha256
    except (OSError, ValueError, ConfigError):
        # Half-written by the run that was killed: the shard is made again.
        return None
    return finished if is_whole else None


def publish(folder: Path, path: Path, source: DatasetSource, finished: Iterable[FinishedShard]) -> DatasetCard:
    """Write the card, bring everything to disk and rename the folder to `path`.

    Raises:
        DatasetError: there is not a single transition.
    """
    shards = list(finished)
    returns = _sums(shards, [shard.returns for shard in shards])
    if not returns:
        raise DatasetError(f"Dataset '{path}' has no transition: record at least one episode.")
    names = sorted({name for shard in shards for name in shard.costs})
    costs = {name: list(_sums(shards, [shard.costs[name] for shard in shards]).values()) for name in names}
    card = make_card(source, [shard.shard for shard in shards], list(returns.values()), costs)
    write_file(folder / CARD, card.to_json())
    write_file(folder / README, card.to_markdown())
    (folder / IDENTITY).unlink()
    shutil.rmtree(folder / SIDECARS)
    known = {shard.shard.file for shard in shards}
    for file in (folder / SHARDS).iterdir():
        if file.name not in known:
            file.unlink()
    for directory in (folder / SHARDS, folder):
        _sync_directory(directory)
    folder.rename(path)
    _sync_directory(path.parent)
    return card


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_file(file: Path, text: str) -> None:
    """Write a text file so that it is either whole or absent."""
    aside = file.with_name(f"{file.name}.new")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.rename(file)


def _with_totals(shard: Shard, table: pa.Table) -> FinishedShard:
    episodes, rows = np.unique(table.column("eps_id").to_numpy(), return_inverse=True)
    totals = {
        name: tuple(np.bincount(rows, weights=table.column(name).to_numpy(), minlength=len(episodes)).tolist())
        for name in table.column_names
        if name == "rewards" or name.startswith(COST_PREFIX)
    }
    returns = totals.pop("rewards")
    return FinishedShard(
        shard=shard,
        episodes=tuple(episodes.tolist()),
        returns=returns,
        costs={name.removeprefix(COST_PREFIX): total for name, total in totals.items()},
    )


def _sums(shards: list[FinishedShard], values: list[tuple[float, ...]]) -> dict[str, float]:
    """Add up values by episode: an episode may lie in more than one shard."""
    sums: dict[str, float] = {}
    for shard, row in zip(shards, values, strict=True):
        for episode, value in zip(shard.episodes, row, strict=True):
            sums[episode] = sums.get(episode, 0.0) + value
    return sums


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
