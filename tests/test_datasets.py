"""Offline datasets: what is written comes back, what was damaged is refused, what was cut short is not there."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gridray.datasets.card import DatasetSource
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.datasets.partial import file_sha256, partial_folder
from gridray.datasets.schema import check_schema, transition_schema
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SOURCE = DatasetSource(
    feeder="ieee13",
    feeder_hash="0" * 64,
    task="volt_var",
    task_config={"feeder": "ieee13", "seed": 3},
    policy="random",
    seed=3,
    observation_names=("a", "b", "c"),
    action_names=("x", "y"),
    licence="CC-BY-4.0",
)


def part(first_episode: int, num_rows: int = 6) -> dict[str, NDArray[Any]]:
    """Return two episodes of num_rows / 2 steps."""
    rng = np.random.default_rng(first_episode)
    length = num_rows // 2
    return {
        "eps_id": np.repeat([f"e{first_episode}", f"e{first_episode + 1}"], length),
        "t": np.tile(np.arange(length), 2),
        "obs": rng.normal(size=(num_rows, 3)),
        "actions": rng.uniform(-1.0, 1.0, (num_rows, 2)),
        "rewards": np.ones(num_rows),
        "new_obs": rng.normal(size=(num_rows, 3)),
        "terminateds": np.zeros(num_rows, dtype=np.bool_),
        "truncateds": np.tile(np.arange(length) == length - 1, 2),
        "cost_losses_kwh": np.full(num_rows, 2.0),
    }


@pytest.fixture
def dataset(tmp_path: Path) -> OfflineDataset:
    return write_dataset(tmp_path / "north", [part(0), part(2)], SOURCE)


def test_what_is_written_comes_back(dataset: OfflineDataset) -> None:
    loaded = OfflineDataset.open(dataset.path).load()
    for name, expected in part(0).items():
        np.testing.assert_array_equal(loaded[name][:6], expected.astype(loaded[name].dtype))
    assert loaded["obs"].dtype == np.float32
    assert loaded["obs"].shape == (12, 3)
    assert list(dataset.load(["rewards", "t"])) == ["rewards", "t"]
    assert {file.name for file in dataset.path.iterdir()} == {"card.json", "README.md", "shards"}


def test_card_summarises_episodes(dataset: OfflineDataset) -> None:
    card = dataset.card
    assert (card.num_transitions, card.num_episodes, dataset.num_transitions) == (12, 4, 12)
    # Three steps of reward 1 and cost 2 in each episode.
    assert (card.returns.mean, card.returns.std, card.returns.quantiles["0.5"]) == (3.0, 0.0, 3.0)
    losses = card.costs["losses_kwh"]
    assert (losses.mean, losses.std, losses.max) == (6.0, 0.0, 6.0)
    assert card.licence == "CC-BY-4.0"
    assert "| licence | CC-BY-4.0 |" in card.to_markdown()
    assert (card.feeder, card.policy, card.task_config["seed"]) == ("ieee13", "random", 3)
    assert (card.format, card.format_version) == ("gridray-dataset", 1)
    assert "| transitions | 12 |" in (dataset.path / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("ray_local")
def test_ray_reads_the_same_rows(dataset: OfflineDataset) -> None:
    rows = dataset.to_ray().take_all()
    assert np.stack([row["obs"] for row in rows]).shape == (12, 3)
    assert {tuple(row["obs"].tolist()) for row in rows} == {tuple(row.tolist()) for row in dataset.load()["obs"]}


def test_truncated_shard_is_refused(dataset: OfflineDataset) -> None:
    file = dataset.files[1]
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(DatasetError, match=r"shard-000001\.parquet' has \d+ bytes, the card says \d+: copy"):
        OfflineDataset.open(dataset.path)


def test_edited_shard_is_refused(dataset: OfflineDataset) -> None:
    file = dataset.files[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"shard-000000\.parquet' has another SHA-256"):
        OfflineDataset.open(dataset.path)


def test_missing_and_added_shards_are_refused(dataset: OfflineDataset) -> None:
    dataset.files[0].rename(dataset.path / "shards" / "other.parquet")
    with pytest.raises(DatasetError, match=r"shard-000000\.parquet' is missing"):
        OfflineDataset.open(dataset.path)
    dataset.files[0].write_bytes((dataset.path / "shards" / "other.parquet").read_bytes())
    with pytest.raises(DatasetError, match=r"other\.parquet' is not in the card"):
        OfflineDataset.open(dataset.path)


def edit_card(dataset: OfflineDataset, **changes: object) -> None:
    file = dataset.path / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_edited_card_is_refused(dataset: OfflineDataset) -> None:
    edit_card(dataset, num_transitions=13)
    with pytest.raises(DatasetError, match="counts 13 transitions, its shards 12"):
        OfflineDataset.open(dataset.path)
    edit_card(dataset, shards=[{"file": "../x.parquet", "rows": 1, "bytes": 1, "sha256": ""}])
    with pytest.raises(DatasetError, match="no file name"):
        OfflineDataset.open(dataset.path)
    shutil.rmtree(dataset.path / "shards")
    (dataset.path / "shards").mkdir()
    edit_card(dataset, shards=[], num_transitions=0)
    with pytest.raises(DatasetError, match="counts no transitions"):
        OfflineDataset.open(dataset.path)
    edit_card(dataset, format_version=2)
    with pytest.raises(DatasetError, match="is no card of a dataset"):
        OfflineDataset.open(dataset.path)


def test_text_observations_are_refused_even_with_matching_digest(dataset: OfflineDataset) -> None:
    file = dataset.files[0]
    table = pq.read_table(file)
    # RLlib would unpickle these.
    table = table.set_column(table.column_names.index("obs"), "obs", pa.array(["gASV"] * table.num_rows))
    pq.write_table(table, file)
    shards = [{"file": s.file, "rows": s.rows, "bytes": s.bytes, "sha256": s.sha256} for s in dataset.card.shards]
    shards[0] |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    edit_card(dataset, shards=shards)
    with pytest.raises(DatasetError, match="column 'obs' is string, must be extension"):
        OfflineDataset.open(dataset.path)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("rewards", pa.float64(), "column 'rewards' is double, must be float"),
        ("new_obs", pa.binary(), "column 'new_obs' is binary"),
        ("cost_x", pa.string(), "column 'cost_x' is string"),
        ("infos", pa.binary(), "column 'infos' is binary, must hold numbers or booleans"),
    ],
)
def test_mistyped_column_is_refused(name: str, kind: pa.DataType, message: str) -> None:
    fields = [field for field in transition_schema(3, 2) if field.name != name]
    with pytest.raises(DatasetError, match=message):
        check_schema(pa.schema([*fields, pa.field(name, kind)]), 3, 2, where="file")


def test_further_numeric_columns_are_allowed() -> None:
    schema = transition_schema(3, 2, ["x"]).append(pa.field("temperature_c", pa.float64()))
    check_schema(schema, 3, 2, where="file")
    assert "cost_x" in schema.names


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("obs", np.zeros((6, 4)), r"'obs' has shape \(6, 4\): give \(6, 3\)"),
        ("rewards", np.array([0.0, np.nan, 0.0, 0.0, 0.0, 0.0]), "'rewards', row 1 is not finite"),
        ("colour", np.zeros(6), r"unknown: \['colour'\]"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, column: str, values: NDArray[Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        write_dataset(tmp_path / "north", [part(0) | {column: values}], SOURCE)
    assert not (tmp_path / "north").exists()


def test_unknown_column_is_named(dataset: OfflineDataset) -> None:
    with pytest.raises(DatasetError, match="has no column 'reward': give some of eps_id, t"):
        dataset.load(["reward"])


def test_failed_write_leaves_nothing_at_the_path_and_the_next_clears_up(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, NDArray[Any]]]:
        yield part(0)
        raise KeyboardInterrupt

    path = tmp_path / "north"
    with pytest.raises(KeyboardInterrupt):
        write_dataset(path, broken(), SOURCE)
    assert [file.name for file in tmp_path.iterdir()] == [".partial-north"]
    assert write_dataset(path, [part(4)], SOURCE).num_transitions == 6
    assert [file.name for file in tmp_path.iterdir()] == ["north"]


def test_existing_dataset_and_concurrent_writer_are_refused(dataset: OfflineDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="exists: remove it"):
        write_dataset(dataset.path, [part(0)], SOURCE)
    path = tmp_path / "south"
    with partial_folder(path, {}), pytest.raises(DatasetError, match="Another process is writing"):
        write_dataset(path, [part(0)], SOURCE)


def test_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no transition"):
        write_dataset(tmp_path / "north", [], SOURCE)


def test_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"card\.json' cannot be read"):
        OfflineDataset.open(tmp_path)
