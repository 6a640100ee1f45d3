"""An offline dataset: a directory of Parquet shards and a card; it is there as a whole or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from gridray.datasets.card import DatasetCard, DatasetSource, Shard, read_card
from gridray.datasets.partial import CARD, SHARDS, encode_shards, file_sha256, partial_folder, publish, write_shards
from gridray.datasets.schema import (
    COST_PREFIX,
    OPTIONAL_COLUMNS,
    check_schema,
    make_table,
    to_arrays,
    transition_schema,
)
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.datasets.partial import FinishedShard

SHARD_NAME = re.compile(r"([a-z]+=[A-Za-z0-9_.~%-]+/)*[A-Za-z0-9][A-Za-z0-9_.-]*\.parquet")
REMEDY = "copy the dataset again or record it anew"


@dataclass(frozen=True)
class OfflineDataset:
    """A dataset that was checked when it was opened; see `gridray.datasets.schema` for the columns."""

    path: Path
    card: DatasetCard

    @classmethod
    def open(cls, path: Path) -> OfflineDataset:
        """Open a dataset after checking its card and every shard's digest, columns and row count.

        Raises:
            DatasetError: there is no whole dataset at `path`; the message names the file.
        """
        card = read_card(path / CARD)
        folder = path / SHARDS
        names = [shard.file for shard in card.shards]
        for name in names:
            if not SHARD_NAME.fullmatch(name):
                raise DatasetError(f"'{path / CARD}' names the shard '{name}', which is no file name: {REMEDY}.")
        present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
        if missing := sorted(set(names) - present):
            raise DatasetError(f"'{folder / missing[0]}' is missing: {REMEDY}.")
        if unknown := sorted(present - set(names)):
            raise DatasetError(f"'{folder / unknown[0]}' is not in the card: remove it.")
        for shard in card.shards:
            _check_shard(folder / shard.file, shard, card)
        num_rows = sum(shard.rows for shard in card.shards)
        if len(set(names)) != len(names) or num_rows != card.num_transitions:
            raise DatasetError(
                f"'{path / CARD}' counts {card.num_transitions} transitions, its shards {num_rows}: {REMEDY}."
            )
        if not num_rows:
            raise DatasetError(f"'{path / CARD}' counts no transitions: record or import some.")
        return cls(path, card)

    @property
    def num_transitions(self) -> int:
        """Return the number of rows."""
        return self.card.num_transitions

    @property
    def files(self) -> list[Path]:
        """Return the shards in the order of the card."""
        return [self.path / SHARDS / shard.file for shard in self.card.shards]

    def load(self, columns: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return columns as arrays in the order of the shards; all columns if None.

        obs, new_obs and actions are float32 [num_transitions, size]; all others [num_transitions].

        Raises:
            DatasetError: the dataset has no such column, or a shard changed since it was opened.
        """
        names = None if columns is None else list(columns)
        return to_arrays(pa.concat_tables([_read(file, names) for file in self.files]))

    def to_ray(self) -> ray.data.Dataset:
        """Return the rows as a Ray dataset; this needs a running Ray."""
        # The folders' names are no columns: the card says the utility, the timestamps say the day.
        return ray.data.read_parquet([str(file) for file in self.files], partitioning=None)


def read_shard(file: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of one shard of an open dataset.

    Raises:
        DatasetError: the file changed since the dataset was opened.
    """
    return to_arrays(_read(file, None))


def write_dataset(
    path: Path,
    parts: Iterable[Mapping[str, NDArray[Any]]],
    source: DatasetSource,
    names: Iterator[str] | None = None,
) -> OfflineDataset:
    """Write arrays as a dataset; there is nothing at `path` until all of it is on disk.

    Args:
        path: Directory to be made.
        parts: Columns of each shard: all of `transition_schema`, and the same `cost_*` and optional columns in every
            part.
        source: What the card says about where they come from; its names give the sizes of obs and actions.
        names: Path of each shard in the folder of shards; by default they are numbered.

    Raises:
        DatasetError: something is at `path`, or a part does not fit the schema.
    """
    with partial_folder(path, {}) as folder:
        finished: list[FinishedShard] = []
        schema = None
        for index, columns in enumerate(parts):
            if schema is None:
                costs = [name.removeprefix(COST_PREFIX) for name in columns if name.startswith(COST_PREFIX)]
                more = [name for name in OPTIONAL_COLUMNS if name in columns]
                schema = transition_schema(len(source.observation_names), len(source.action_names), costs, more)
            table = make_table(columns, schema, where=f"part {index}")
            name = f"shard-{index:06d}.parquet" if names is None else next(names)
            finished += write_shards(folder, encode_shards([(name, table)]))
        publish(folder, path, source, finished)
    return OfflineDataset.open(path)


def _check_shard(file: Path, shard: Shard, card: DatasetCard) -> None:
    size = file.stat().st_size
    if size != shard.bytes:
        raise DatasetError(f"'{file}' has {size} bytes, the card says {shard.bytes}: {REMEDY}.")
    if file_sha256(file) != shard.sha256:
        raise DatasetError(f"'{file}' has another SHA-256 than the card says: {REMEDY}.")
    try:
        with pq.ParquetFile(file) as parquet:
            schema, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"'{file}' is no Parquet file ({error}): {REMEDY}.") from error
    check_schema(schema, len(card.observation_names), len(card.action_names), where=f"'{file}'")
    if num_rows != shard.rows:
        raise DatasetError(f"'{file}' has {num_rows} rows, the card says {shard.rows}: {REMEDY}.")


def _read(file: Path, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(file) as parquet:
            if unknown := sorted(set(columns or ()) - set(parquet.schema_arrow.names)):
                raise DatasetError(
                    f"'{file}' has no column '{unknown[0]}': give some of {', '.join(parquet.schema_arrow.names)}."
                )
            return parquet.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"'{file}' cannot be read ({error}): {REMEDY}.") from error
