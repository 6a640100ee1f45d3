"""Several learners end where one does."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
import pytest
import ray
import yaml

from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.checkpoint import read_checkpoint
from gridray.algorithms.data_parallel import train_in_parallel
from gridray.algorithms.gauges import TrainingGauges
from gridray.algorithms.train import CHECKPOINT, HistoryRow, LearnerSettings, TrainConfig, train
from gridray.cli import main
from gridray.datasets.record import RecordConfig, record
from gridray.errors import ConfigError
from gridray.evaluation.comparison import tuning_facts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    settings = RecordConfig(task_config={"num_days": 10}, num_episodes=2, noise_std=0.3)
    dataset = record(settings, tmp_path / "data", use_ray=False)
    learner = {"hidden_sizes": [16], "learning_rate": 1e-2, "max_grad_norm": 0.5}
    return TrainConfig(dataset=dataset.path, num_updates=20, report_every=10, batch_size=32, learner=learner)


@pytest.mark.usefixtures("ray_local")
def test_two_workers_end_where_one_does_and_go_on_from_it(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(config, tmp_path / "one")
    # Half of it alone, the other half by two.
    train(replace(config, num_updates=10), tmp_path / "two")
    settings = LearnerSettings(batch_size=config.batch_size, learner=config.learner, online_evaluations=12)
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(asdict(settings)))
    folders = ["--config", str(tmp_path / "best.yaml"), "--out", str(tmp_path / "two")]
    with pytest.raises(SystemExit) as left:
        main(["train", str(config.dataset), *folders, "--updates", "20", "--workers", "2", "--json"])
    assert left.value.code == 0
    history = json.loads(capsys.readouterr().out)["history"]
    assert [row["num_updates"] for row in history] == [10, 20]
    assert tuning_facts(load_bundle(tmp_path / "two" / "policy").manifest)["online_evaluations"] == 12
    assert history[0]["metrics"] == one.history[0].metrics
    ours, theirs = (read_checkpoint(tmp_path / name / CHECKPOINT)[0] for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-3, atol=1e-5, err_msg=name)
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == [CHECKPOINT, "history.json", "policy"]


@pytest.mark.usefixtures("ray_local")
def test_losses_are_offered_to_prometheus() -> None:
    TrainingGauges("td3_bc")(HistoryRow(num_updates=7, metrics={"critic_loss": 0.25}))
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    shown: dict[str, str] = {}
    deadline = time.monotonic() + 40.0
    while len(shown) < 2 and time.monotonic() < deadline:
        # A node collects from its processes every ten seconds.
        time.sleep(0.5)
        lines = urlopen(url, timeout=5).read().decode().splitlines()
        shown = {line.partition("{")[0]: line.split()[-1] for line in lines if 'algorithm="td3_bc"' in line}
    assert shown == {"ray_gridray_training_loss": "0.25", "ray_gridray_training_updates": "7.0"}


def test_what_cannot_be_divided_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    for changes, message in (
        ({"algorithm": "awr"}, "'awr' trains with one worker only"),
        ({"batch_size": 33}, "batch_size is 33: give a multiple of the 2 workers"),
        ({"stream": True}, "leave out --stream"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_in_parallel(replace(config, **changes), tmp_path / "out", 2)
