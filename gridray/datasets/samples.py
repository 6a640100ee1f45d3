"""Read a utility's exports as samples (point, time in UTC, value), each with the reason why it is not used, if so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from gridray.datasets.mapping import resolve
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.datasets.mapping import Mapping, Points, SourceFile

UTC = pl.Datetime("ms", "UTC")
OFFSET = r"(Z|[+-]\d\d:?\d\d)$"
COLUMNS = ("tag", "time", "received", "value", "quality", "reason", "note", "row")


def read_samples(mapping: Mapping, mapping_file: Path, points: Points) -> pl.DataFrame:
    """Return all samples of all files that some point wants.

    Returns:
        channel, time (UTC), value (channel's unit), reason (None if used), note (what was repaired, or None), row.

    Raises:
        DatasetError: a file cannot be read, or lacks a column that the mapping names.
    """
    tags = {point.tag for point in mapping.points.values()}
    frames = [_read_file(source, resolve(mapping_file, source), tags) for source in mapping.files]
    samples = pl.concat(frames)
    if missing := sorted(tags - set(samples["tag"].unique())):
        raise DatasetError(f"No file has the tag '{missing[0]}': give a tag that the files have, or leave it out.")
    parts = []
    for channel, point in mapping.points.items():
        part = samples.filter(pl.col("tag") == point.tag).with_columns(channel=pl.lit(channel))
        raw = pl.col("value").cast(pl.Float64, strict=False)
        if point.states:
            state = pl.col("value").replace_strict(point.states, default=None, return_dtype=pl.Float64)
            raw = pl.coalesce(state, raw)
        factor = points.factor(channel, point.unit)
        part = part.with_columns(text=pl.col("value"), value=(raw * point.scale + point.offset) * factor)
        is_outside = (pl.col("value") < point.low) | (pl.col("value") > point.high)
        part = _mark(part, pl.col("text").is_null() | (pl.col("text") == ""), "empty")
        part = _mark(part, ~pl.col("value").is_finite().fill_null(value=False), "no number")
        parts.append(_mark(part, is_outside, "outside its limits"))
    samples = pl.concat(parts)
    is_good = pl.col("quality").is_in(list(mapping.good_quality)) | pl.col("quality").is_null()
    samples = _mark(samples, ~is_good, "bad quality")
    delay_min = (pl.col("received") - pl.col("time")).dt.total_milliseconds() / 60_000.0
    samples = _mark(samples, delay_min > mapping.repair.late_minutes, "late")
    return _without_duplicates(samples, mapping.repair.duplicates).select(
        "channel", "time", "value", "reason", "note", "row"
    )


def _read_file(source: SourceFile, path: Path, tags: set[str]) -> pl.DataFrame:
    table = _read_table(source, path)
    needed = [source.time, *([source.tag, source.value] if source.layout == "long" else [])]
    needed += [source.received] if source.received else []
    needed += [source.quality] if source.quality and source.layout == "long" else []
    if missing := [name for name in needed if name not in table.columns]:
        raise DatasetError(f"'{path}' has no column '{missing[0]}': it has {', '.join(table.columns)}.")
    table = table.with_row_index("row")
    samples = _long(source, table, tags) if source.layout == "long" else _wide(source, table, tags)
    value = pl.col("value").cast(pl.String).str.strip_chars()
    if source.decimal == ",":
        value = value.str.replace(",", ".", literal=True)
    empty = {"reason": pl.lit(None, pl.String), "note": pl.lit(None, pl.String)}
    samples = samples.with_columns(value=value, quality=pl.col("quality").cast(pl.String), **empty)
    samples = _in_utc(source, path, samples, "time")
    if source.received:
        samples = _in_utc(source, path, samples, "received")
    else:
        samples = samples.with_columns(received=pl.lit(None, UTC))
    if source.stamp == "end":
        interval = pl.duration(milliseconds=round(source.interval_minutes * 60_000))
        samples = samples.with_columns(time=pl.col("time") - interval)
    return samples.select(COLUMNS)


def _read_table(source: SourceFile, path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, separator=source.separator, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DatasetError(f"'{path}' cannot be read ({error}): give a CSV or Parquet file.") from error


def _long(source: SourceFile, table: pl.DataFrame, tags: set[str]) -> pl.DataFrame:
    quality = pl.col(source.quality) if source.quality else pl.lit(None, pl.String)
    return table.filter(pl.col(source.tag).is_in(list(tags))).select(
        tag=pl.col(source.tag),
        time=pl.col(source.time),
        received=pl.col(source.received) if source.received else pl.lit(None, pl.String),
        value=pl.col(source.value).cast(pl.String),
        quality=quality,
        row=pl.col("row"),
    )


def _wide(source: SourceFile, table: pl.DataFrame, tags: set[str]) -> pl.DataFrame:
    parts = []
    for tag in sorted(tags & set(table.columns)):
        flag = f"{tag}{source.quality}"
        has_flag = source.quality is not None and flag in table.columns
        part = table.select(
            tag=pl.lit(tag),
            time=pl.col(source.time),
            received=pl.col(source.received) if source.received else pl.lit(None, pl.String),
            value=pl.col(tag).cast(pl.String),
            quality=pl.col(flag).cast(pl.String) if has_flag else pl.lit(None, pl.String),
            row=pl.col("row"),
        )
        parts.append(part)
    if not parts:
        return table.head(0).select(
            row=pl.col("row"),
            **{name: pl.lit(None, pl.String) for name in ("tag", "time", "received", "value", "quality")},
        )
    return pl.concat(parts)


def _in_utc(source: SourceFile, path: Path, samples: pl.DataFrame, name: str) -> pl.DataFrame:
    """Turn a column of stamps into UTC; what cannot be told gets a reason."""
    stamp = pl.col(name)
    if samples.schema[name] == pl.String:
        text, form = stamp.str.strip_chars(), source.time_format
        if form is None and samples.select(text.str.contains(OFFSET).any()).item():
            text, form = text.str.replace(" ", "T", literal=True), "%+"
        stamp = text.str.to_datetime(form, time_unit="ms", strict=False)
    try:
        samples = samples.with_columns(stamp.alias(name))
    except pl.exceptions.PolarsError as error:
        raise DatasetError(f"'{path}': column '{name}' is no time ({error}): give time_format.") from error
    kind = samples.schema[name]
    if not isinstance(kind, pl.Datetime):
        raise DatasetError(f"'{path}': column '{getattr(source, name)}' is {kind}: give times, or a time_format.")
    if kind.time_zone is not None:
        samples = samples.with_columns(pl.col(name).dt.convert_time_zone("UTC").cast(UTC))
        return _mark(samples, pl.col(name).is_null(), "no time") if name == "time" else samples
    if source.time_zone is None:
        raise DatasetError(f"'{path}' has times without offset from UTC: give time_zone, such as Europe/Berlin.")
    samples = _mark(samples, pl.col(name).is_null(), "no time") if name == "time" else samples
    return _localised(source, samples, name)


def _localised(source: SourceFile, samples: pl.DataFrame, name: str) -> pl.DataFrame:
    """Read local times as UTC, with the hours that daylight saving repeats or skips."""
    zone = source.time_zone or "UTC"
    local = pl.col(name).cast(pl.Datetime("ms"))
    first = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    second = local.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null").dt.convert_time_zone("UTC")
    # An hour forward from a time that does not exist is what the clock of one who forgot to change it meant.
    shifted = (local + pl.duration(hours=1)).dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    samples = samples.with_columns(
        is_skipped=local.is_not_null() & first.is_null(),
        is_repeated=first != second,
        _place=pl.int_range(pl.len()).over("tag", name),
        _count=pl.len().over("tag", name),
    )
    is_pair = pl.col("_count") == 2
    nothing = pl.lit(None, UTC)
    place = pl.col("_place")
    in_order = _choose(nothing, (is_pair & (place == 0), first), (is_pair & (place == 1), second))
    repeated = {"order": in_order, "first": first, "second": second, "drop": nothing}[source.ambiguous]
    skipped = shifted.dt.convert_time_zone("UTC") if source.nonexistent == "shift" else nothing
    utc = _choose(first, (pl.col("is_repeated"), repeated), (pl.col("is_skipped"), skipped))
    samples = samples.with_columns(utc.cast(UTC).alias(name))
    if name == "time":
        is_open = pl.col(name).is_null()
        samples = _mark(samples, pl.col("is_repeated") & is_open, "hour that daylight saving repeats")
        samples = _mark(samples, pl.col("is_skipped") & is_open, "hour that daylight saving skips")
        note = _choose(
            pl.col("note"),
            (pl.col("is_repeated") & ~is_open, pl.lit(f"repeated hour, {source.ambiguous}")),
            (pl.col("is_skipped") & ~is_open, pl.lit("skipped hour, moved")),
        )
        samples = samples.with_columns(note=note)
    return samples.drop("is_skipped", "is_repeated", "_place", "_count")


def _without_duplicates(samples: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Keep one sample of a point and time."""
    used = samples.filter(pl.col("reason").is_null()).sort("channel", "time", "received", "row", nulls_last=False)
    rest = samples.filter(pl.col("reason").is_not_null())
    group = ("channel", "time")
    used = used.with_columns(
        count=pl.len().over(group),
        place=pl.int_range(pl.len()).over(group),
        spread=(pl.col("value").max() - pl.col("value").min()).over(group),
        is_stated=pl.col("received").is_not_null().all().over(group),
        mean=pl.col("value").mean().over(group),
    )
    is_last = pl.col("place") == pl.col("count") - 1
    is_kept = {
        "drop": pl.lit(value=False),
        "first": pl.col("place") == 0,
        "last": is_last,
        "mean": pl.col("place") == 0,
    }
    same = pl.col("spread") == 0.0
    keep = pl.when(same).then(pl.col("place") == 0).when(pl.col("is_stated")).then(is_last).otherwise(is_kept[rule])
    is_double = pl.col("count") > 1
    used = _mark(used, is_double & ~keep & same, "duplicate")
    used = _mark(used, is_double & ~keep & pl.col("is_stated"), "replaced by a later arrival")
    used = _mark(used, is_double & ~keep, "contradicts another value")
    chosen = is_double & ~same & pl.col("reason").is_null()
    note = _choose(
        pl.col("note"),
        (chosen & pl.col("is_stated"), pl.lit("latest arrival of several")),
        (chosen, pl.lit(f"{rule} of several")),
    )
    value = pl.col("mean") if rule == "mean" else pl.col("value")
    value = pl.when(chosen & ~pl.col("is_stated")).then(value).otherwise(pl.col("value"))
    used = used.with_columns(note=note, value=value).select(rest.columns)
    return pl.concat([used, rest])


def _choose(otherwise: pl.Expr, *cases: tuple[pl.Expr, pl.Expr]) -> pl.Expr:
    """Return the value of the first (condition, value) that holds."""
    for condition, value in reversed(cases):
        otherwise = pl.when(condition).then(value).otherwise(otherwise)
    return otherwise


def _mark(samples: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
    """Give samples that have none yet this reason."""
    is_new = pl.col("reason").is_null() & condition.fill_null(value=False)
    return samples.with_columns(reason=pl.when(is_new).then(pl.lit(reason)).otherwise(pl.col("reason")))
