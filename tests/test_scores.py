"""Scores are 0 at the floor and 100 at the ceiling, intervals cover, and every task's page says what it reports."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.cli import main
from gridray.compat.anm6 import Anm6Config, Anm6Easy
from gridray.config import parse_config
from gridray.errors import ConfigError, GridRayError
from gridray.evaluation.columns import caidi_min, columns
from gridray.evaluation.comparison import NOT_STATED, compare, tuning_facts
from gridray.evaluation.economics import DAYS_PER_MONTH, Economics, with_costs
from gridray.evaluation.indicators import cost_indicators, other_indicators, voltage_series
from gridray.evaluation.rollout import EpisodeTable, evaluate_policy
from gridray.evaluation.scores import BEST_FOUND, Ceiling, find_ceiling, score
from gridray.evaluation.statistics import (
    interquartile_mean,
    seasons,
    share_better,
    stratified_interval,
)
from gridray.policies.optimal.plan import RELAXED
from gridray.policies.registry import make_policy
from gridray.tasks.registry import TASKS, make_task

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.algorithms.bundle import Manifest

CONFIG = {"feeder": "ieee13", "num_days": 20, "step_minutes": 60, "days": "held_out"}


def table(returns: np.ndarray, **indicators: np.ndarray) -> EpisodeTable:
    day = np.arange(len(returns)) * 5 + 4
    return EpisodeTable(policy="made up", day=day, returns=np.asarray(returns, float), indicators=indicators)


def test_score_is_0_for_random_and_100_at_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    floor, today = rng.normal(-100.0, 5.0, 73), rng.normal(-30.0, 5.0, 73)
    best, half = today + 20.0, (today + today + 20.0) / 2.0
    tables = {"random": table(floor), "utility_controls": table(today), "best": table(best), "half": table(half)}
    ceiling = Ceiling(tables["random"].day, best, RELAXED)
    scores = {name: score(one, tables, ceiling) for name, one in tables.items()}
    assert scores["random"].normalised == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(scores["best"].normalised, 100.0)
    np.testing.assert_allclose(scores["best"].gap_share, 1.0)
    np.testing.assert_allclose(scores["half"].gap_share, 0.5)
    assert scores["utility_controls"].gap_share == (0.0, 0.0, 0.0)
    assert scores["utility_controls"].improvement.mean == 0.5
    assert scores["half"].improvement == (1.0, 1.0, 1.0)
    assert scores["half"].worst == half.min()


def test_no_gap_is_no_score() -> None:
    tables = {"random": table(np.zeros(8)), "utility_controls": table(np.zeros(8))}
    found = score(tables["random"], tables, Ceiling(tables["random"].day, np.zeros(8), BEST_FOUND))
    assert np.isnan(found.gap_share).all()


def test_interquartile_mean_leaves_outliers_out() -> None:
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e6])) == pytest.approx(3.5)
    assert share_better(np.array([1.0, 2.0, 2.0, 0.0]), np.array([0.0, 2.0, 1.0, 5.0])) == pytest.approx(0.625)


def test_strata_narrow_the_interval_and_it_covers() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(60):
        strata = np.arange(60) % 2
        values = rng.normal(10.0 * strata, 1.0)
        inside = stratified_interval(lambda x: x.mean(axis=-1), (values,), strata, seed=seed)
        hits += inside.low <= 5.0 <= inside.high
    outside = stratified_interval(lambda x: x.mean(axis=-1), (values,), np.zeros(60, dtype=np.int64))
    assert outside.high - outside.low > 3.0 * (inside.high - inside.low)
    assert 50 <= hits <= 60
    np.testing.assert_array_equal(seasons(np.array([0, 90, 92, 200, 364, 365])), [0, 0, 1, 2, 3, 0])


def test_day_alone_in_its_season_is_not_certain() -> None:
    values = np.array([1.0, 2.0, 3.0, 5.0])
    found = stratified_interval(lambda x: x.mean(axis=-1), (values,), np.arange(4))
    assert found.low < found.mean < found.high


def test_costs_become_totals_shares_depths_and_durations() -> None:
    series = {"thermal_pu": np.array([[0.0], [0.2], [0.4], [0.0]]), "losses_kwh": np.full((4, 1), 2.0)}
    found = cost_indicators(series, 0.5)
    expected = {"share": 0.5, "depth": 0.3, "hours": 1.0, "longest_hours": 1.0}
    assert {name: found[f"thermal_pu.{name}"][0] for name in expected} == pytest.approx(expected)
    assert found["losses_kwh"][0] == 8.0
    more = other_indicators({"source_kw": np.array([[-4.0], [10.0]]), "converged": np.array([[1.0], [0.0]])}, 0.5)
    assert {name: values[0] for name, values in more.items()} == {
        "import_kwh": 5.0,
        "export_kwh": 2.0,
        "peak_kw": 10.0,
        "unconverged_share": 0.5,
    }


def test_node_without_supply_violates_no_voltage() -> None:
    found = voltage_series(np.array([[1.0, 0.0, 0.93, 1.07]]))
    assert found["violation_share"][0] == 0.5
    assert found["violation_depth_pu"][0] == pytest.approx(0.02)


def test_costs_of_a_day_by_hand() -> None:
    one = np.ones(1)
    day = table(
        np.zeros(1),
        import_kwh=100.0 * one,
        export_kwh=10.0 * one,
        peak_kw=30.0 * one,
        ens_kwh=2.0 * one,
        tap_operations=4.0 * one,
        capacitor_operations=one,
        switch_operations=3.0 * one,
        losses_kwh=5.0 * one,
    )
    prices = Economics(
        import_per_kwh=0.2,
        export_per_kwh=0.1,
        demand_per_kw_month=DAYS_PER_MONTH,
        loss_per_kwh=0.3,
        outage_per_kwh=7.0,
        tap_each=0.5,
        capacitor_each=2.0,
        switch_each=1.0,
    )
    paid = with_costs(day, prices)
    expected = {"energy_cost": 19.0, "demand_cost": 30.0, "outage_cost": 14.0, "wear_cost": 7.0, "loss_cost": 1.5}
    assert {name: paid[name][0] for name in expected} == pytest.approx(expected)
    assert paid["total_cost"][0] == pytest.approx(70.0)
    with pytest.raises(ConfigError, match="tap_each is -1"):
        Economics(tap_each=-1.0)
    with pytest.raises(ConfigError, match="import_per_kwh"):
        parse_config(Economics, {"import_per_kw": 1.0}, where="prices")


def test_unknown_indicator_is_named() -> None:
    with pytest.raises(GridRayError, match="no indicator 'heat'"):
        table(np.zeros(3))["heat"]


def test_caidi_is_saidi_over_saifi_of_all_days() -> None:
    assert caidi_min(table(np.zeros(2), saidi_min=np.array([30.0, 0.0]), saifi=np.array([0.5, 0.0]))) == 60.0
    assert caidi_min(table(np.zeros(2))) is None


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_is_evaluated_with_all_that_it_reports(name: str) -> None:
    task = make_task(name, {"num_days": 10, "step_minutes": 60, "days": "held_out"})
    found = evaluate_policy(make_policy("utility_controls", task), task, days=task.allowed_days())
    assert all(any(column.startswith(cost) for column in found.names) for cost in task.cost_names)
    assert all(np.isfinite(found[column]).all() for column in found.names)
    shown = [column.name for column in columns([found])]
    assert shown[0] == "returns"
    assert len(set(shown)) == len(shown)
    assert ("saidi_min" in found.names) == (name == "reconfiguration")


def test_every_policy_meets_the_same_outages() -> None:
    task = make_task("reconfiguration", {"num_days": 10, "step_minutes": 60, "days": "held_out", "feeder": "ieee13"})
    policy = make_policy("hold", task)
    together = evaluate_policy(policy, task, days=task.allowed_days(), seed=3)
    alone = evaluate_policy(policy, task, days=task.allowed_days()[::-1], seed=3, num_envs=1)
    np.testing.assert_allclose(together.returns, alone.returns[::-1], rtol=1e-12)
    assert together["saifi"].any()


def test_ceiling_without_a_programme_is_the_best_found() -> None:
    task = Anm6Easy(Anm6Config())
    tables = {"a": table(np.array([1.0, 5.0])), "b": table(np.array([3.0, 2.0]))}
    found = find_ceiling(task, tables, num_days=1)
    assert found.kind == BEST_FOUND
    np.testing.assert_array_equal(found.returns, [3.0, 5.0])


def test_comparison_adds_floor_and_today_and_counts_its_progress() -> None:
    task = make_task("volt_var", CONFIG)
    done: list[float] = []
    found = compare(
        {"droop": make_policy("droop", task)},
        task,
        days=task.allowed_days(),
        prices=Economics(),
        bound_days=1,
        on_progress=done.append,
    )
    assert set(found.tables) == {"random", "utility_controls", "droop"}
    assert sum(done) == pytest.approx(1.0)
    assert len(found.ceiling.day) == 1
    on = found.tables["droop"].day == found.ceiling.day[0]
    assert (found.ceiling.returns >= max(one.returns[on][0] for one in found.tables.values())).all()


def test_tuning_is_stated_or_said_not_to_be() -> None:
    class Made:
        provenance = {"num_updates": 400}  # noqa: RUF012

    made: Manifest = Made()  # type: ignore[assignment]
    assert tuning_facts(made) == {"online_evaluations": NOT_STATED, "checkpoint": "last, after 400 updates"}
    Made.provenance = {"online_evaluations": 24}  # type: ignore[dict-item]
    assert tuning_facts(made)["online_evaluations"] == 24


def test_command_writes_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.yaml").write_text("feeder: ieee13\nstep_minutes: 60\nnum_days: 20\n")
    (tmp_path / "prices.yaml").write_text("currency: USD\noutage_per_kwh: 5.0\n")
    arguments = ["evaluate", "hold", "--config", str(tmp_path / "task.yaml"), "--prices", str(tmp_path / "prices.yaml")]
    arguments += ["--days", "6", "--bound-days", "1", "--report", str(tmp_path / "page"), "--json"]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "page" / "results.json").read_text()) == answer
    assert len(answer["days"]) == 6, "a task of 20 days has 4 held-out ones: a longer one is made"
    assert answer["currency"] == "USD"
    assert set(answer["policies"]) == {"random", "utility_controls", "hold"}
    assert answer["policies"]["hold"]["tuning"]["online_evaluations"] == 0
    assert answer["policies"]["random"]["score"]["normalised"]["mean"] == 0.0
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", ""), "the page stands alone"
    assert "online evaluations for tuning: 0" in page


def test_columns_hide_what_is_zero_for_all() -> None:
    one = table(np.ones(2), ens_kwh=np.zeros(2), own_kwh=np.ones(2))
    assert [column.name for column in columns([one])] == ["returns", "own_kwh"]
    other = replace(one, indicators=one.indicators | {"ens_kwh": np.ones(2)})
    assert [column.heading for column in columns([one, other])][1] == "energy not supplied, kWh/day"
