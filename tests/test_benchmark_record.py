"""The recording benchmark runs on tiny sizes and writes what the documents read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "record.py"


def test_recording_benchmark_measures_rate_and_memory(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), str(out), "--quick"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=110)  # noqa: S603
    results = json.loads(out.read_text(encoding="utf-8"))
    row = results["throughput"]["ieee13"]
    assert row["transitions"] == 960
    expected = row["transitions_per_second"] / row["bare_steps_per_second"]
    assert abs(row["share_of_bare"] - expected) < 0.01
    assert [run["transitions"] for run in results["memory"]] == [960]
    assert results["memory"][0]["peak_mb"] > 100
