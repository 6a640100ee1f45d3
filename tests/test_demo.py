"""The demo goes the whole way, also when it was killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gridray.algorithms.bundle import load_bundle
from gridray.datasets.dataset import OfflineDataset
from gridray.demo import QUICK, DemoConfig, run_demo
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "gridray", "demo", "--quick", "--json", "--out", "demo", "--report", "report")


def _start(folder: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(  # noqa: S603  # our own command
        COMMAND,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.timeout(500)
def test_demo_killed_and_started_again_goes_the_whole_way(tmp_path: Path) -> None:
    killed = _start(tmp_path)
    deadline = time.monotonic() + 200.0
    while not (tmp_path / "demo/datasets/north").exists() and time.monotonic() < deadline:
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "report").exists()
    again = _start(tmp_path)
    out, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors
    result = json.loads(out)
    assert (tmp_path / "report/index.html").read_text(encoding="utf-8").count("<svg") == 5
    assert set(result["tables"]) == {"north", "east", "south"}
    for utility, policies in result["tables"].items():
        assert OfflineDataset.open(tmp_path / "demo/datasets" / utility).num_transitions == QUICK.num_episodes * 96
        trained = {f"trained at {name}" for name in result["tables"]}
        assert set(policies) == {"random", "utility_controls", "droop", "federated"} | trained
        assert policies["random"]["returns"]["mean"] < policies["utility_controls"]["returns"]["mean"]
        bundle = load_bundle(tmp_path / "demo/bundles" / utility / "federated")
        assert bundle.manifest.task.config["utility"] == utility
    assert len(result["verdict"]) >= 6


def test_directory_of_another_demo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps({"digest": DemoConfig().digest()}), encoding="utf-8")
    with pytest.raises(GridRayError, match="another configuration"):
        run_demo(QUICK, tmp_path, tmp_path / "report")
