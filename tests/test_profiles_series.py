"""Resampling keeps energy, and Parquet gives back what was written or says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridray.errors import ConfigError, DatasetError
from gridray.profiles.parquet import read_series, write_series
from gridray.profiles.series import TimeSeries, resample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

START = np.datetime64("2024-03-01T00:00:00", "s")
DIVISORS_OF_DAY = [step for step in range(1, 3601) if 86400 % step == 0]


def series_of(values: NDArray[Any], step_s: int = 900, names: tuple[str, ...] | None = None) -> TimeSeries:
    names = names or tuple(f"s{index}" for index in range(values.shape[1]))
    return TimeSeries(names=names, unit="kW", start=START, step_s=step_s, values=values)


@given(old=st.sampled_from(DIVISORS_OF_DAY), new=st.sampled_from(DIVISORS_OF_DAY), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_resampling_keeps_the_energy_of_the_day_and_of_every_shared_span(old: int, new: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(1.0, 5.0, (86400 // old, 2))
    there = resample(series_of(values, old), new)
    scale = np.abs(values).sum(axis=0) * old
    shared = np.lcm(old, new)
    before = values.reshape(-1, shared // old, 2).sum(axis=1) * old
    after = there.values.reshape(-1, shared // new, 2).sum(axis=1) * new
    assert (np.abs(after - before) <= 1e-9 * scale).all()
    assert there.step_s == new
    assert len(there.values) == 86400 // new


def test_interval_across_two_old_ones_takes_both_by_overlap() -> None:
    # 20-minute means of 30-minute steps: the second interval lies half in each step.
    there = resample(series_of(np.array([[1.0], [4.0]]), 1800), 1200)
    np.testing.assert_allclose(there.values[:, 0], [1.0, 2.5, 4.0], rtol=1e-14)


def test_finer_steps_hold_and_go_back_to_the_same() -> None:
    coarse = series_of(np.arange(8.0).reshape(4, 2))
    fine = resample(coarse, 60)
    np.testing.assert_array_equal(fine.values[:15], np.tile([0.0, 1.0], (15, 1)))
    np.testing.assert_allclose(resample(fine, 900).values, coarse.values, rtol=1e-13)


def test_step_out_of_range_or_not_dividing_is_refused() -> None:
    day = series_of(np.ones((4, 1)))
    with pytest.raises(ConfigError, match="step_s is 7200"):
        resample(day, 7200)
    with pytest.raises(ConfigError, match="3600 s, which 7 s does not divide"):
        resample(day, 7)


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        (np.array([[1.0, np.nan]]), ("a", "b"), "Series 'b' is nan at step 0"),
        (np.ones((2, 2)), ("a", "a"), "Two series are named 'a'"),
        (np.ones((2, 2)), ("a",), r"shape \(2, 2\) for 1 names"),
        (np.ones((2, 1), dtype=np.int64), ("a",), "values are int64"),
    ],
)
def test_parts_that_do_not_fit_are_refused(values: NDArray[Any], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        series_of(values, names=names)


@pytest.mark.parametrize("step_s", [1, 900, 3600])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_written_series_come_back_the_same(tmp_path: Path, step_s: int, kind: type) -> None:
    written = series_of(np.random.default_rng(0).random((50, 3)).astype(kind), step_s)
    write_series(tmp_path / "a.parquet", written)
    back = read_series(tmp_path / "a.parquet")
    assert (back.names, back.unit, back.start, back.step_s) == (written.names, "kW", START, step_s)
    assert back.values.dtype == kind
    np.testing.assert_array_equal(back.values, written.values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_one_step_keeps_its_length(tmp_path: Path) -> None:
    write_series(tmp_path / "a.parquet", series_of(np.ones((1, 1)), 60))
    assert read_series(tmp_path / "a.parquet").step_s == 60


def test_file_of_the_user_needs_only_time_stamps_numbers_and_a_unit(tmp_path: Path) -> None:
    stamps = START + np.arange(3) * np.timedelta64(1800, "s")
    pq.write_table(pa.table({"when": stamps, "load": [1, 2, 3]}), tmp_path / "mine.parquet")
    with pytest.raises(DatasetError, match="does not state the unit"):
        read_series(tmp_path / "mine.parquet")
    mine = read_series(tmp_path / "mine.parquet", unit="kW")
    assert (mine.names, mine.step_s, mine.start) == (("load",), 1800, START)
    np.testing.assert_array_equal(mine.values[:, 0], [1.0, 2.0, 3.0])


def test_unit_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "a.parquet", series_of(np.ones((2, 1))))
    with pytest.raises(DatasetError, match="is in kW, not in MW"):
        read_series(tmp_path / "a.parquet", unit="MW")


STAMPS = (START + np.arange(4) * np.timedelta64(60, "s")).astype("datetime64[ms]")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": STAMPS, "a": [1.0, None, 3.0, 4.0]}, "column 'a' is nan at row 1"),
        ({"time": STAMPS, "a": [1.0, 2.0, np.inf, 4.0]}, "column 'a' is inf at row 2"),
        ({"time": STAMPS, "a": ["1", "2", "3", "4"]}, "column 'a' is of type"),
        ({"time": STAMPS[[0, 1, 1, 3]], "a": np.ones(4)}, "is there twice at row 2"),
        ({"time": STAMPS[[0, 1, 3]], "a": np.ones(3)}, "follows 2024-03-01T00:01:00.000 at row 2"),
        ({"time": STAMPS[[1, 0]], "a": np.ones(2)}, "steps of -60 s"),
        ({"time": STAMPS[:1], "a": np.ones(1)}, "has 1 rows"),
        (
            {"time": pa.array([None, *STAMPS[1:]], type=pa.timestamp("ms")), "a": np.ones(4)},
            "1 time stamps are missing",
        ),
        ({"time": STAMPS[:2] + np.array([0, 1], dtype="timedelta64[ms]"), "a": np.ones(2)}, "steps of 60.001 s"),
        ({"time": STAMPS, "then": STAMPS, "a": np.ones(4)}, "has 2 columns of time stamps"),
        ({"time": np.array(["0001-01-01", "0001-01-02"], dtype="datetime64[s]"), "a": np.ones(2)}, "from 1678 to 2262"),
        ({"a": np.ones(4)}, "has 0 columns of time stamps"),
        ({"time": STAMPS}, "give at least one"),
    ],
)
def test_file_that_is_wrong_names_column_value_and_place(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "wrong.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DatasetError, match=message) as caught:
        read_series(path, unit="kW")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.parquet"
    write_series(path, series_of(np.ones((500, 2))))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(DatasetError, match="no readable Parquet file"):
        read_series(path)


def test_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_series(path, series_of(np.random.default_rng(0).random((500, 2))))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="no readable Parquet file"):
        read_series(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.parquet"):
        read_series(tmp_path / "nowhere.parquet")


def test_file_of_a_later_format_or_with_damaged_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_series(path, series_of(np.ones((2, 1))))
    table = pq.read_table(path)
    facts = b'{"format_version": 2, "unit": "kW", "step_s": 900}'
    for metadata, message in ((facts, "is of format 2"), (facts[:-1], "damaged metadata"), (b"{}", "damaged metadata")):
        pq.write_table(table.replace_schema_metadata({b"gridray.series": metadata}), path)
        with pytest.raises(DatasetError, match=message):
            read_series(path)


def test_series_named_as_the_time_stamps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="named 'time'"):
        write_series(tmp_path / "a.parquet", series_of(np.ones((2, 1)), names=("time",)))
