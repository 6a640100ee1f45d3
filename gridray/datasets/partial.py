"""A dataset while it is written: aside, under a lock, shard by shard, and then renamed into place as a whole."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gridray.config import parse_config
from gridray.datasets.card import DatasetCard, DatasetSource, Shard, make_card
from gridray.datasets.schema import COST_PREFIX, TENSOR_COLUMNS
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
SYNCS_AT_ONCE = 8
PAGE_BYTES = 1 << 17
"""Of a column: what is still in cache when it is digested and written."""


@dataclass(frozen=True, kw_only=True)
class FinishedShard:
    """A shard that is whole on disk, and the totals of its episodes (lists are as long as `episodes`).

    are_done: whether the shard has the episode's last row.
    """

    shard: Shard
    episodes: tuple[str, ...]
    are_done: tuple[bool, ...]
    returns: tuple[float, ...]
    costs: dict[str, tuple[float, ...]]


class EncodedShard(NamedTuple):
    """A shard that is not on disk yet: the pieces of its file, and what it will be."""

    pages: list[bytes]
    finished: FinishedShard


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


def encode_shards(tables: Iterable[tuple[str, pa.Table]]) -> list[EncodedShard]:
    """Encode tables by the name of their shard, a path in the folder of shards; `write_shards` writes them."""
    encoded = []
    for name, table in tables:
        pages, digest = _parquet(table)
        shard = Shard(file=name, rows=table.num_rows, bytes=sum(map(len, pages)), sha256=digest)
        encoded.append(EncodedShard(pages, _with_totals(shard, table)))
    return encoded


def write_shards(folder: Path, encoded: list[EncodedShard]) -> list[FinishedShard]:
    """Write shards aside, bring them to disk, name them and write their sidecars: what has a sidecar is whole."""
    finished = [one.finished for one in encoded]
    files = [folder / SHARDS / one.shard.file for one in finished]
    for file, one in zip(files, encoded, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        with _aside(file).open("wb", buffering=0) as target:
            for page in one.pages:
                target.write(page)
    _sync([_aside(file) for file in files])
    for file, whole in zip(files, finished, strict=True):
        _aside(file).rename(file)
        # One that a power cut damages only means that the shard is made again: it need not be on disk yet.
        content = vars(whole) | {"shard": vars(whole.shard)}
        _sidecar(folder, whole.shard.file).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return finished


def finished_shard(folder: Path, name: str) -> FinishedShard | None:
    """Return a shard that an earlier run finished, or None if there is none or it is damaged."""
    try:
        finished = read_sidecar(folder, name)
        is_whole = file_sha256(folder / SHARDS / name) == finished.shard.sha256
    except (OSError, DatasetError):
        # Half-written by the run that was killed: the shard is made again.
        return None
    return finished if is_whole else None


def read_sidecar(folder: Path, name: str) -> FinishedShard:
    """Return what the sidecar of a shard says.

    Raises:
        DatasetError: there is no whole sidecar.
    """
    sidecar = _sidecar(folder, name)
    try:
        return parse_config(FinishedShard, json.loads(sidecar.read_text(encoding="utf-8")), where=str(sidecar))
    except (OSError, ValueError, ConfigError) as error:
        raise DatasetError(f"Shard '{name}' is missing: record again to complete the dataset.") from error


def publish(folder: Path, path: Path, source: DatasetSource, finished: Iterable[FinishedShard]) -> DatasetCard:
    """Write the card, bring everything to disk and rename the folder to `path`.

    Raises:
        DatasetError: there is not a single transition.
    """
    totals = EpisodeTotals()
    shards = []
    for shard in finished:
        shards.append(shard.shard)
        totals.add(shard)
    totals.end()
    if not totals.returns:
        raise DatasetError(f"Dataset '{path}' has no transition: record at least one episode.")
    card = make_card(source, shards, totals.returns, totals.costs)
    write_file(folder / CARD, card.to_json())
    write_file(folder / README, card.to_markdown())
    (folder / IDENTITY).unlink()
    shutil.rmtree(folder / SIDECARS)
    known = {folder / SHARDS / shard.file for shard in shards}
    entries = list((folder / SHARDS).rglob("*"))
    for file in entries:
        if not file.is_dir() and file not in known:
            file.unlink()
    _sync([*(entry for entry in entries if entry.is_dir()), folder / SHARDS, folder])
    folder.rename(path)
    _sync([path.parent])
    return card


class EpisodeTotals:
    """Returns and costs of whole episodes, added up shard by shard; an episode may go on in the next shards.

    returns, costs: numbers by episode, 8 bytes each, so that a hundred million transitions take megabytes.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.returns: array[float] = array("d")
        self.costs: dict[str, array[float]] = {}
        self._open: dict[str, tuple[float, dict[str, float]]] = {}

    def add(self, finished: FinishedShard) -> None:
        """Add a shard."""
        for row, (episode, is_done) in enumerate(zip(finished.episodes, finished.are_done, strict=True)):
            total, costs = self._open.pop(episode, (0.0, {}))
            total += finished.returns[row]
            costs = {name: costs.get(name, 0.0) + values[row] for name, values in finished.costs.items()}
            if is_done:
                self._close(total, costs)
            else:
                self._open[episode] = total, costs

    def end(self) -> None:
        """Count episodes without a last row."""
        for total, costs in self._open.values():
            self._close(total, costs)
        self._open.clear()

    def _close(self, total: float, costs: dict[str, float]) -> None:
        self.returns.append(total)
        for name, value in costs.items():
            self.costs.setdefault(name, array("d")).append(value)


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_file(file: Path, text: str) -> None:
    """Write a text file so that it is either whole or absent."""
    _aside(file).write_text(text, encoding="utf-8")
    _sync([_aside(file)])
    _aside(file).rename(file)


def _parquet(table: pa.Table) -> tuple[list[bytes], str]:
    """Return a table as Parquet, in pieces, and its digest."""
    tensors = [name for name in table.column_names if name in TENSOR_COLUMNS]
    scalars = [name for name in table.column_names if name not in TENSOR_COLUMNS]
    # Tensors' digits hardly compress, and statistics of their elements would say nothing; those of the rest let
    # readers skip files.
    compression = dict.fromkeys(scalars, "snappy") | {f"{name}.list.element": "none" for name in tensors}
    options: dict[str, Any] = {"compression": compression, "use_dictionary": ["eps_id"], "write_statistics": scalars}
    with _Digesting() as stream:
        pq.write_table(table, stream, data_page_size=PAGE_BYTES, write_batch_size=8192, **options)
    return stream.pages, stream.digest.hexdigest()


class _Digesting(io.BufferedIOBase):
    """A stream that takes the digest of what it keeps."""

    def __init__(self) -> None:
        self.pages: list[bytes] = []
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401  # whatever has bytes
        self.pages.append(bytes(content))
        self.digest.update(self.pages[-1])
        return len(self.pages[-1])


def _sync(entries: list[Path]) -> None:
    """Bring files or directories to disk, several at once: the disk then has one journal entry to write for many."""
    with ThreadPoolExecutor(max_workers=SYNCS_AT_ONCE) as pool:
        list(pool.map(_sync_one, entries))


def _sync_one(entry: Path) -> None:
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.new")


def _with_totals(shard: Shard, table: pa.Table) -> FinishedShard:
    coded = table.column("eps_id").combine_chunks().dictionary_encode()
    episodes, rows = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    ends = np.logical_or(*(table.column(name).to_numpy() for name in ("terminateds", "truncateds")))
    totals = {
        name: tuple(np.bincount(rows, weights=table.column(name).to_numpy(), minlength=len(episodes)).tolist())
        for name in table.column_names
        if name == "rewards" or name.startswith(COST_PREFIX)
    }
    returns = totals.pop("rewards")
    return FinishedShard(
        shard=shard,
        episodes=tuple(episodes),
        are_done=tuple((np.bincount(rows, weights=ends, minlength=len(episodes)) > 0.0).tolist()),
        returns=returns,
        costs={name.removeprefix(COST_PREFIX): total for name, total in totals.items()},
    )


def _sidecar(folder: Path, name: str) -> Path:
    return folder / SIDECARS / f"{quote(name, safe='')}.json"


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
