"""Time series in Parquet: one column of UTC time stamps, one column per series, unit and step in the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gridray.errors import DatasetError
from gridray.profiles.series import MAX_STEP_S, MIN_STEP_S, TimeSeries

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME = "time"
METADATA_KEY = b"gridray.series"
FORMAT_VERSION = 1


def write_series(path: str | Path, series: TimeSeries) -> None:
    """Write the series; the file appears under its name only when it is whole.

    Args:
        path: where to; a file that is there is replaced.
        series: what to write; no series may be called "time".

    Raises:
        DatasetError: a series has the name of the column of time stamps.
    """
    path = Path(path)
    if TIME in series.names:
        raise DatasetError(f"A series for '{path}' is named '{TIME}', as the time stamps are: rename it.")
    ends_ms = np.arange(len(series.values), dtype=np.int64) * 1000 * series.step_s
    stamps = series.start.astype("datetime64[ms]") + ends_ms.astype("timedelta64[ms]")
    arrays = [pa.array(stamps, type=pa.timestamp("ms", tz="UTC")), *(pa.array(column) for column in series.values.T)]
    facts = {"format_version": FORMAT_VERSION, "unit": series.unit, "step_s": series.step_s}
    table = pa.table(arrays, names=[TIME, *series.names]).replace_schema_metadata({METADATA_KEY: json.dumps(facts)})
    aside = path.with_name(f".{path.name}.part")
    pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
    aside.replace(path)


def read_series(path: str | Path, *, unit: str | None = None, assumed_unit: str | None = None) -> TimeSeries:
    """Return the series of a Parquet file, ours or the user's own.

    A file needs one column of time stamps, at equal steps from 1 s to 1 h, and otherwise columns of numbers. Time
    stamps without a time zone are taken as UTC. Nothing is filled in or sorted.

    Args:
        path: the file.
        unit: of the values, where the file is not ours and so does not tell; another one in the file is an error.
        assumed_unit: likewise, but the file's own goes first.

    Raises:
        DatasetError: the file is missing, damaged or lacks its unit; the time stamps are irregular, doubled, missing
            or not on whole seconds; a column is no number or not finite everywhere.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"There is no file '{path}': give a Parquet file of series.")
    try:
        table = pq.read_table(path, use_pandas_metadata=False, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"'{path}' is no readable Parquet file ({error}): write it again.") from error
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise DatasetError(f"'{path}' has {len(times)} columns of time stamps {times}: give exactly one.")
    names = tuple(name for name in table.column_names if name != times[0])
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"'{path}' has the series {list(names)}: give at least one, each with its own name.")
    metadata = table.schema.metadata or {}
    unit, stated_step_s = _facts(
        path, metadata, assumed_unit if METADATA_KEY not in metadata and unit is None else unit
    )
    start, step_s = _clock(path, times[0], table[times[0]], stated_step_s)
    columns = [_column(path, name, table[name]) for name in names]
    return TimeSeries(names=names, unit=unit, start=start, step_s=step_s, values=np.column_stack(columns))


def _facts(path: Path, metadata: dict[bytes, bytes], unit: str | None) -> tuple[str, int | None]:
    """Return the unit and, if the file states it, the step."""
    if METADATA_KEY not in metadata:
        if unit is None:
            raise DatasetError(f"'{path}' does not state the unit of its values: give `unit`, as unit=\"kW\".")
        return unit, None
    try:
        facts = json.loads(metadata[METADATA_KEY])
        version, stated_unit, step_s = facts["format_version"], str(facts["unit"]), int(facts["step_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"'{path}' has damaged metadata ({error!r}): write it again.") from error
    if version != FORMAT_VERSION:
        raise DatasetError(f"'{path}' is of format {version}, this GridRay reads {FORMAT_VERSION}: write it again.")
    if unit not in {None, stated_unit}:
        raise DatasetError(f"'{path}' is in {stated_unit}, not in {unit}: leave `unit` out or correct it.")
    return stated_unit, step_s


def _clock(path: Path, name: str, column: pa.ChunkedArray, stated_step_s: int | None) -> tuple[np.datetime64, int]:
    """Return start and step of a column of time stamps at equal steps."""
    where = f"'{path}', column '{name}'"
    if column.null_count:
        raise DatasetError(f"{where}: {column.null_count} time stamps are missing: give one for each row.")
    try:
        stamps = column.cast(pa.timestamp("ns", tz=column.type.tz)).to_numpy().astype(np.int64)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{where}: {error}: give dates from 1678 to 2262.") from error
    if len(stamps) < 2 and (stated_step_s is None or not len(stamps)):
        raise DatasetError(f"{where} has {len(stamps)} rows: give at least two, so that the step is known.")
    step = int(stamps[1] - stamps[0]) if stated_step_s is None else stated_step_s * 10**9
    wrong = np.flatnonzero(np.diff(stamps) != step)
    if len(wrong):
        before, after = stamps[wrong[0] : wrong[0] + 2].astype("datetime64[ns]").astype("datetime64[ms]")
        what = "is there twice" if before == after else f"follows {before}"
        raise DatasetError(
            f"{where}: {after} {what} at row {wrong[0] + 1} where the step is {step / 1e9:g} s: "
            "give rising time stamps at equal steps."
        )
    if step % 10**9 or not MIN_STEP_S <= step // 10**9 <= MAX_STEP_S or stamps[0] % 10**9:
        raise DatasetError(
            f"{where}: steps of {step / 1e9:g} s from {stamps[0].astype('datetime64[ns]')}: give whole seconds and "
            f"steps from {MIN_STEP_S} to {MAX_STEP_S} s."
        )
    return stamps[0].astype("datetime64[ns]").astype("datetime64[s]"), step // 10**9


def _column(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[np.floating[Any]]:
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    if not is_number:
        raise DatasetError(f"'{path}', column '{name}' is of type {column.type}: give numbers.")
    # A null becomes NaN and is refused with it.
    kind = np.float32 if pa.types.is_float32(column.type) else np.float64
    values: NDArray[np.floating[Any]] = column.to_numpy().astype(kind)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DatasetError(
            f"'{path}', column '{name}' is {values[bad[0]]} at row {bad[0]} ({len(bad)} rows in all): "
            "give finite values."
        )
    return values
