"""The benchmark scripts run on tiny sizes and write what the documents read."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dss")
pytest.importorskip("power_grid_model")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(reference_dir: Path, tmp_path: Path) -> Any:  # noqa: ANN401
    """Return a function that runs a script and returns its result file; the reference folder must exist."""

    def results_of(script: str, *options: str) -> Any:  # noqa: ANN401
        out = tmp_path / "out.json"
        subprocess.run(  # noqa: S603
            [sys.executable, BENCHMARKS / script, out, "--quick", *options],
            env={"GRIDRAY_REFERENCE_DIR": str(reference_dir), "OMP_NUM_THREADS": "1", "PATH": ""},
            check=True,
            capture_output=True,
            timeout=100,
        )
        return json.loads(out.read_text())

    return results_of


def test_power_flow_benchmark_agrees_with_its_peers(run: Any) -> None:  # noqa: ANN401
    results = run("powerflow.py")
    assert [(row["changes"], row["tolerance"]) for row in results["opendss"]] == [
        ("loads", 1e-8),
        ("loads", 1e-4),
        ("loads and taps", 1e-8),
        ("loads and taps", 1e-4),
    ]
    for row in results["opendss"]:
        assert row["ratio_to_solve"]["p10"] > 0.0
        assert row["max_difference_pu"] < (1e-6 if row["tolerance"] == 1e-8 else 1e-3)
    assert results["power_grid_model"][0]["max_difference_pu"]["newton_raphson"] < 1e-6
    assert results["scaling"]["log_log_slope"]["memory"] == pytest.approx(1.0, abs=0.1)
    assert all(row["peak_rss_bytes"] > row["state_bytes"] > 0 for row in results["memory"]["batches"])
    assert results["first_call"]["load_compile_solve_s"]["median"] > 0.0
    assert results["two_threads"][0]["speedup"]["median"] > 0.0


def test_learner_benchmark_compares_equal_work(tmp_path: Path) -> None:
    pytest.importorskip("d3rlpy")
    out = tmp_path / "out.json"
    command = [sys.executable, BENCHMARKS / "learners.py", "speed", out, "--quick", "--algorithms", "td3_bc"]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": str(BENCHMARKS.parent)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=100)  # noqa: S603
    rates = json.loads(out.read_text())["updates_per_second"]["td3_bc"]
    assert rates.keys() == {"d3rlpy", "gridray", "ratio_to_d3rlpy"}
    assert min(rates.values()) > 0.0


def test_stress_sweep_flags_what_it_does_not_solve(run: Any) -> None:  # noqa: ANN401
    (row,) = run("stress.py", "--feeders", "ieee13")["feeders"]
    assert row["num_converged"] + row["num_flagged"] == row["num_states"] == sum(row["statuses"].values())
    assert row["num_with_nan"] == row["num_wrongly_converged"] == 0
    assert row["largest_residual_of_converged"] < 1e-6
    assert row["opendss"]["both, same voltages"] > 0


def test_environment_benchmark_steps_all_kinds(run: Any) -> None:  # noqa: ANN401
    results = run("environments.py")
    rates = [*results["volt_var"].values(), *results["powergym"].values()]
    assert len(rates) == 2
    for row in rates:
        assert row["steps_per_s"] == pytest.approx(1e6 / row["step_us"], rel=0.01)
        assert row["reset_us"] > 0.0
    assert 0.0 < results["volt_var"]["ieee13"]["solver_share"] < 1.0
    for row in results["rllib"].values():
        assert row["env_steps_per_s"] > row["default_runner_steps_per_s"] > 0
        for runner in ("default", "array"):
            assert 0.0 < row[f"{runner}_runner_env_share"] + row[f"{runner}_runner_network_share"] < 1.0
    assert results["four_in_one_actor"]["four_over_four_times_one"] < 1.0


def test_page_of_environments_shows_the_results_committed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    environments = importlib.import_module("environments")
    page = tmp_path / "page.md"
    shown = (BENCHMARKS.parent / "docs/environments.md").read_text("utf-8")
    page.write_text(shown, "utf-8")
    environments.write_page(page, json.loads((BENCHMARKS / "environments.json").read_text("utf-8")))
    assert page.read_text("utf-8") == shown
