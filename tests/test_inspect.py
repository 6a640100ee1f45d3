"""`gridray dataset inspect`: counts that add up, and a page that needs nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.cli import main
from gridray.datasets.coverage import measure_coverage
from gridray.datasets.record import RecordConfig, record
from gridray.tasks.base import physical_observations

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.datasets.dataset import OfflineDataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    config = RecordConfig(
        task_config={"feeder": "ieee13", "step_minutes": 60, "num_days": 10},
        policy={"droop": 0.5, "random": 0.5},
        noise_std=0.2,
        num_episodes=8,
        licence="CC0-1.0",
    )
    return record(config, tmp_path_factory.mktemp("inspect") / "north", use_ray=False)


def test_counts_are_those_of_the_rows(dataset: OfflineDataset) -> None:
    coverage = measure_coverage(dataset)
    rows = dataset.load()
    assert (coverage.actions.sum(axis=1) == 8 * 24).all()
    assert (coverage.voltages.sum(axis=1) == 8 * 24).all()
    expected = [np.histogram(column, 20, (-1.0, 1.0))[0] for column in rows["actions"].T.astype(np.float64)]
    np.testing.assert_array_equal(coverage.actions, expected)
    np.testing.assert_allclose(coverage.action_std, rows["actions"].std(axis=0), atol=1e-6)
    np.testing.assert_array_equal(coverage.hours, np.full(24, 8))
    assert coverage.policies == {i: int((rows["policy_index"] == i).sum()) for i in (0, 1)}
    assert coverage.inferred_share == 0.0
    physical = physical_observations(dataset.card.observation_channels, rows["obs"])
    columns = [i for i, name in enumerate(dataset.card.observation_names) if name.startswith("vmag_pu.")]
    np.testing.assert_allclose(coverage.below, (physical[:, columns] < 0.95).mean(axis=0))
    assert coverage.voltage_table()[0][1:] >= coverage.voltage_table()[-1][1:]
    assert coverage.first == str(rows["timestamp"].min())


class Links(HTMLParser):
    """Collects everything that a page would load from elsewhere, and its tables."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.num: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count elements."""
        self.num[tag] = self.num.get(tag, 0) + 1
        names = {"src", "href", "xlink:href"}
        self.loaded += [
            value for name, value in attrs if name in names and value and not value.startswith(("#", "data:"))
        ]


def test_command_writes_a_self_contained_page(
    dataset: OfflineDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "north.html"
    with pytest.raises(SystemExit) as left:
        main(["dataset", "inspect", str(dataset.path), "--html", str(page), "--json"])
    assert left.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["card"]["licence"] == "CC0-1.0"
    assert np.sum(shown["coverage"]["actions"]) == 8 * 24 * len(dataset.card.action_names)
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    assert not links.loaded
    assert links.num["svg"] == 4
    assert links.num["table"] == 4
    with pytest.raises(SystemExit) as left:
        main(["dataset", "inspect", str(dataset.path), "--html", str(page)])
    assert left.value.code == 0
    assert "Coverage of actions" in capsys.readouterr().out


def test_page_of_the_working_folder_lies_beside_it(dataset: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset.path)
    with pytest.raises(SystemExit) as left:
        main(["dataset", "inspect", "."])
    assert left.value.code == 0
    assert (dataset.path.parent / f"{dataset.path.name}.html").is_file()


def test_missing_dataset_fails_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["dataset", "inspect", str(tmp_path / "none")])
    assert left.value.code == 1
    assert "cannot be read" in capsys.readouterr().err
