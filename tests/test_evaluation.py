"""Policies are compared on the same days, with intervals that cover, and the page says what the numbers say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.cli import main
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import GridRayError
from gridray.evaluation.report import ReportData, VoltageProfile, write_report
from gridray.evaluation.rollout import EpisodeTable, evaluate_policy, held_out_days
from gridray.evaluation.statistics import mean_interval, paired_difference
from gridray.evaluation.verdict import verdict
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.tasks.base import Task

CONFIG = {"feeder": "ieee13", "num_days": 40, "step_minutes": 60, "days": "held_out"}


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("volt_var", CONFIG)


@pytest.fixture(scope="module")
def utility(task: Task) -> EpisodeTable:
    return evaluate_policy(make_policy("utility_controls", task), task, days=held_out_days(task))


def test_table_equals_a_plain_loop_over_one_day(task: Task, utility: EpisodeTable) -> None:
    env = GridVectorEnv(task, 1)
    policy = make_policy("utility_controls", task)
    observations, _ = env.reset(options={"days": utility.day[:1]})
    total, taps, outside, run, longest = 0.0, 0.0, [], 0, 0
    for _ in range(24):
        observations, rewards, _, _, infos = env.step(policy.act(observations, np.random.default_rng(0)))
        total += rewards[0]
        taps += infos["cost_tap_operations"][0]
        share = ((env.vmag_pu < 0.95) | (env.vmag_pu > 1.05)).mean()
        outside.append(share)
        run = run + 1 if share > 0 else 0
        longest = max(longest, run)
    assert utility.returns[0] == pytest.approx(total)
    assert utility["tap_operations"][0] == taps
    assert utility["violation_share"][0] == pytest.approx(np.mean(outside))
    assert utility["longest_violation_hours"][0] == longest
    assert utility["violation_hours"][0] == sum(share > 0 for share in outside)


def test_days_side_by_side_equal_days_one_by_one(task: Task, utility: EpisodeTable) -> None:
    again = evaluate_policy(make_policy("utility_controls", task), task, days=held_out_days(task), num_envs=3)
    np.testing.assert_array_equal(again.returns, utility.returns)


def test_random_is_worse_than_the_utility(task: Task, utility: EpisodeTable) -> None:
    table = evaluate_policy(make_policy("random", task), task, days=utility.day)
    assert paired_difference(table.returns, utility.returns).high < 0.0
    assert table["violation_share"].mean() > utility["violation_share"].mean()


def test_held_out_days_are_spread_and_held_out(task: Task) -> None:
    days = held_out_days(task, 3)
    assert len(days) == 3
    assert (days % 5 == 4).all()
    assert days[0] < 10
    assert days[-1] >= 30


def test_policy_that_fails_is_named(task: Task) -> None:
    class Broken:
        name = "broken"

        def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return rng.normal(size=(len(observations), len(task.action_channels))) * np.nan

    with pytest.raises(GridRayError, match="'broken'"):
        evaluate_policy(Broken(), task, days=[4])


def test_interval_covers_the_mean_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(120):
        estimate = mean_interval(rng.normal(2.0, 1.0, 40), seed=seed)
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.87 <= hits / 120 <= 1.0
    assert mean_interval(np.full(5, 3.0)) == (3.0, 3.0, 3.0)


def test_verdict_goes_both_ways(utility: EpisodeTable) -> None:
    changed = {"violation_share": utility["violation_share"] * 0.5, "tap_operations": utility["tap_operations"] + 3.0}
    better = replace(utility, indicators=utility.indicators | changed)
    tables = {"north": {"utility_controls": utility, "federated": better}}
    assert "fewer voltage violations" in verdict(tables, ours="federated", today="utility_controls")[0]
    assert "more tap steps" in verdict(tables, ours="federated", today="utility_controls")[0]
    tables = {"north": {"utility_controls": better, "federated": utility}}
    assert "more voltage violations" in verdict(tables, ours="federated", today="utility_controls")[0]
    worn = {"north": {"utility_controls": utility, "federated": utility, "trained at x": better}}
    assert "at the price of +3.0 tap steps" in verdict(worn, ours="federated", today="utility_controls")[2]
    same = {"north": {"utility_controls": utility, "federated": utility, "trained at x": utility}}
    assert "no clear" in verdict(same, ours="federated", today="utility_controls")[1]


def test_page_holds_tables_plots_and_verdict(tmp_path: Path, utility: EpisodeTable) -> None:
    profile = VoltageProfile("noon", np.arange(3.0), np.array([1, 2, 3]), {"utility": np.array([1.0, 1.01, 0.94])})
    page = write_report(
        tmp_path / "report",
        ReportData(
            title="A <title>",
            verdict=["It holds."],
            tables={"north": {"utility_controls": utility}},
            curves={"north": {"alone": [(1, -2.0), (2, -1.0)], "utility": [(0, -1.5)]}},
            profiles=[profile],
            facts={"command": "gridray demo"},
        ),
    )
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 3
    assert "A &lt;title&gt;" in html
    assert "It holds." in html
    assert f"{utility.returns.mean():.2f}" in html
    assert [file.name for file in page.parent.iterdir()] == ["index.html"]


def test_unknown_policy_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "drop"])
    assert stop.value.code == 1
    assert "There is no policy 'drop': give the directory of a bundle" in capsys.readouterr().err


def test_missing_task_file_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "droop", "--config", str(tmp_path / "none.yaml")])
    assert stop.value.code == 1
    assert "none.yaml' cannot be read" in capsys.readouterr().err
