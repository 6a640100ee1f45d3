"""Import of a utility's export: a known twin's days, written as a utility would write them, come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import yaml

from gridray.cli import main
from gridray.config import parse_config
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.historian import ImportReport, import_historian, read_measurements
from gridray.datasets.intervals import hold, interpolate
from gridray.datasets.mapping import Mapping, Points
from gridray.datasets.samples import read_samples
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import ConfigError, DatasetError
from gridray.policies.registry import make_policy
from gridray.tasks.base import physical_observations, set_points
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task

TASK_CONFIG = {"feeder": "ieee13", "step_minutes": 60, "num_days": 10}
ZONE = "America/New_York"
# Local midnight of the day on which daylight saving ends: 25 hours.
START = np.datetime64("2024-11-03T04:00", "ms")
HOUR = np.timedelta64(1, "h")


class Log(NamedTuple):
    """What happened on the twin: physical values by point [num_steps + 1], set-points [num_steps, A], rewards."""

    task: Task
    points: dict[str, NDArray[np.float64]]
    set_points: NDArray[np.float64]
    rewards: NDArray[np.float64]


@pytest.fixture(scope="module")
def log() -> Log:
    task = make_task("volt_var", TASK_CONFIG)
    env = GridVectorEnv(task, 1)
    policy = make_policy("droop", task)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(options={"days": [2]})
    observations, loads, actions, rewards = [observation[0]], [], [], []
    num_loads = len(task.grid.load_names)

    def powers() -> NDArray[np.float64]:
        grid = env._state.grid
        return np.concatenate((grid.items_kw[:num_loads, 0], grid.items_kvar[:num_loads, 0]))

    loads.append(powers())
    for _ in range(24):
        action = np.clip(
            policy.act(observation, rng) + rng.normal(0.0, 0.3, (1, len(task.action_channels))), -1.0, 1.0
        ).astype(np.float32)
        observation, reward, *_ = env.step(action)
        observations.append(observation[0])
        loads.append(powers())
        actions.append(set_points(task.action_channels, action)[0])
        rewards.append(reward[0])
    seen = physical_observations(task.observation_channels, np.stack(observations))
    points = {channel.name: seen[:, i] for i, channel in enumerate(task.observation_channels)}
    by_load = np.stack(loads).T
    for i, name in enumerate(task.grid.load_names):
        points |= {f"load.{name}.kw": by_load[i], f"load.{name}.kvar": by_load[num_loads + i]}
    return Log(task, points, np.stack(actions), np.array(rewards))


def measured_names(log: Log) -> list[str]:
    return [name for name in log.points if not name.startswith("time.")]


def local_texts(num: int, form: str = "%d.%m.%Y %H:%M") -> list[str]:
    stamps = pl.Series(START + np.arange(num) * HOUR).dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE)
    return stamps.dt.strftime(form).to_list()


def write_wide(folder: Path, log: Log, **changes: Any) -> Path:
    """Write a CSV with a row per hour in local time, decimal commas, volts and kW, and its mapping; return that."""
    names = measured_names(log)
    kva = {g.name: g.kva for g in log.task.feeder.generators}
    base = dict(zip(log.task.grid.node_names, log.task.grid.node_base_v, strict=True))
    columns: dict[str, list[str]] = {"Zeit": local_texts(25)}
    points: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        factor, unit = 1.0, None
        if name.startswith("vmag_pu."):
            factor, unit = base[name.removeprefix("vmag_pu.")] / 1e3, "kV"
        elif name.startswith(("pv.", "battery.")) and not name.endswith(".soc"):
            factor, unit = kva[name.split(".")[1]] * 1e3, "W"
        columns[f"T{i}"] = [f"{value * factor:.9f}".replace(".", ",") for value in log.points[name]]
        points[name] = {"tag": f"T{i}"} | ({} if unit is None else {"unit": unit})
    pl.DataFrame(columns).write_csv(folder / "scada.csv", separator=";")
    file = {
        "path": "scada.csv",
        "time": "Zeit",
        "time_format": "%d.%m.%Y %H:%M",
        "time_zone": ZONE,
        "ambiguous": "order",
        "separator": ";",
        "decimal": ",",
    }
    mapping = {
        "utility": "north",
        "files": [file],
        "points": points,
        "task_config": TASK_CONFIG,
        "licence": "CC-BY-4.0",
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping | changes), encoding="utf-8")
    return folder / "mapping.yaml"


@pytest.fixture(scope="module")
def imported(log: Log, tmp_path_factory: pytest.TempPathFactory) -> tuple[OfflineDataset, ImportReport]:
    folder = tmp_path_factory.mktemp("wide")
    return import_historian(write_wide(folder, log), folder / "out")


def test_known_day_comes_back(log: Log, imported: tuple[OfflineDataset, ImportReport]) -> None:
    dataset, report = imported
    rows = OfflineDataset.open(dataset.path).load()
    assert dataset.num_transitions == 24
    np.testing.assert_array_equal(rows["timestamp"], START + np.arange(24) * HOUR)
    seen = physical_observations(log.task.observation_channels, rows["obs"])
    for i, channel in enumerate(log.task.observation_channels):
        if not channel.name.startswith("time."):
            np.testing.assert_allclose(seen[:, i], log.points[channel.name][:24], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(rows["obs"][1:], rows["new_obs"][:-1])
    np.testing.assert_array_equal(rows["truncateds"], np.arange(24) == 23)
    assert [file.parent.parent.name for file in dataset.files] == ["utility=north"]
    assert report.intervals["transitions"] == 24
    assert dataset.card.licence == "CC-BY-4.0"


def test_actions_are_inferred_from_what_devices_did(log: Log, imported: tuple[OfflineDataset, ImportReport]) -> None:
    dataset, report = imported
    rows = dataset.load()
    assert rows["actions_inferred"].all()
    assert set(report.actions.values()) == {"inferred"}
    inferred = set_points(log.task.action_channels, rows["actions"])
    for i, channel in enumerate(log.task.action_channels):
        after = log.points.get(channel.name, np.zeros(25))[1:]
        if channel.kind == "integer":
            tap = log.points[channel.name.replace(".tap_change", ".tap")]
            np.testing.assert_allclose(inferred[:, i], np.diff(tap), atol=1e-3)
        elif channel.name.endswith(".kvar"):
            # The set-point, but where the inverter's kVA cut it.
            kva = next(g.kva for g in log.task.feeder.generators if g.name == channel.name.split(".")[1])
            np.testing.assert_allclose(inferred[:, i], np.clip(after * kva, channel.low, channel.high), atol=0.01)
            assert np.median(np.abs(inferred[:, i] - log.set_points[:, i])) < 0.01
        elif channel.kind == "switch":
            np.testing.assert_array_equal(inferred[:, i], np.rint(after))


def test_twin_without_error_agrees_with_its_own_meters(imported: tuple[OfflineDataset, ImportReport]) -> None:
    _, report = imported
    assert len(report.voltage_error) == len(make_task("volt_var", TASK_CONFIG).grid.node_names)
    assert max(error["max_pu"] for error in report.voltage_error) < 1e-5
    assert {error["num_samples"] for error in report.voltage_error} == {25}


def test_reward_is_the_tasks_on_what_was_measured(log: Log, imported: tuple[OfflineDataset, ImportReport]) -> None:
    rows = imported[0].load()
    # Scored at the end of the interval, with the next one's loads: near the simulated reward, and ordered alike.
    assert np.corrcoef(rows["rewards"], log.rewards)[0, 1] > 0.7
    assert (rows["rewards"] < 0.0).all()
    taps = np.abs(np.diff([log.points[n] for n in log.points if n.endswith(".tap")], axis=1)).sum(axis=0)
    np.testing.assert_allclose(rows["cost_tap_operations"], np.rint(taps))


def test_long_export_gives_the_same_rows(
    log: Log, imported: tuple[OfflineDataset, ImportReport], tmp_path: Path
) -> None:
    frame = {"when": [], "point": [], "value": [], "flag": []}
    points = {}
    stamps = [f"{stamp}Z" for stamp in np.datetime_as_string(START + np.arange(25) * HOUR, unit="s")]
    for name in measured_names(log):
        points[name] = {"tag": name.upper()}
        frame["when"] += stamps
        frame["point"] += [name.upper()] * 25
        frame["value"] += log.points[name].tolist()
        frame["flag"] += [192] * 25
    pl.DataFrame(frame).sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "ami.parquet")
    columns = {"time": "when", "tag": "point", "quality": "flag"}
    file = {"path": "ami.parquet", "layout": "long"} | columns
    mapping = {"utility": "north", "files": [file], "points": points, "task_config": TASK_CONFIG}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    dataset, _ = import_historian(tmp_path / "m.yaml", tmp_path / "out")
    rows, expected = dataset.load(), imported[0].load()
    assert dataset.num_transitions == 24
    for name in ("actions", "rewards"):
        np.testing.assert_allclose(rows[name], expected[name], atol=1e-3)
    # Without a zone days are those of UTC, and so is the clock that is observed: episodes are cut elsewhere.
    is_clock = np.array([name.startswith("time.") for name in dataset.card.observation_names])
    np.testing.assert_allclose(rows["obs"][:, ~is_clock], expected["obs"][:, ~is_clock], atol=1e-3)
    assert len(set(rows["eps_id"])) == 2


def test_unmetered_nodes_come_from_the_twin(log: Log, tmp_path: Path) -> None:
    mapping = yaml.safe_load(write_wide(tmp_path, log).read_text(encoding="utf-8"))
    for name in list(mapping["points"]):
        if name.startswith("vmag_pu.") and "671" not in name:
            del mapping["points"][name]
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"38 observations have no source, such as vmag_pu"):
        import_historian(tmp_path / "mapping.yaml", tmp_path / "out")
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping | {"estimate": ["vmag_pu.*"]}), encoding="utf-8")
    dataset, report = import_historian(tmp_path / "mapping.yaml", tmp_path / "out")
    assert sum(origin == "estimated" for origin in report.observations.values()) == 38
    seen = physical_observations(log.task.observation_channels, dataset.load(["obs"])["obs"])
    for i, channel in enumerate(log.task.observation_channels):
        if channel.name.startswith("vmag_pu."):
            np.testing.assert_allclose(seen[:, i], log.points[channel.name][:24], atol=1e-5, err_msg=channel.name)
    # Only what was measured is there to calibrate the twin with.
    meters = {name for name in read_measurements(dataset.path) if name.startswith("vmag_pu.")}
    assert meters == {"vmag_pu.671.1", "vmag_pu.671.2", "vmag_pu.671.3"}


def test_example_imports_and_accounts_for_every_sample(tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "examples" / "mapping.yaml"
    dataset, report = import_historian(file, tmp_path / "out")
    assert dataset.num_transitions == 24
    rows = pl.read_csv(file.parent / "historian" / "ami.csv").height
    in_loads = sum(sum(counts.values()) for name, counts in report.samples.items() if name.startswith("load."))
    assert in_loads == rows
    assert report.samples["vmag_pu.671.2"]["outside its limits"] == 1
    assert report.samples["vmag_pu.671.3"]["bad quality"] == 1
    assert report.samples["load.671.kw"]["duplicate"] == 1
    assert report.samples["vmag_pu.671.1"]["used: repeated hour, order"] == 2
    assert report.filled["load.652.kw"] == 2


def test_gaps_are_only_filled_as_far_as_allowed(log: Log, tmp_path: Path) -> None:
    file = write_wide(tmp_path, log)
    table = (tmp_path / "scada.csv").read_text(encoding="utf-8").splitlines()
    del table[6:8]
    (tmp_path / "scada.csv").write_text("\n".join(table), encoding="utf-8")
    dataset, report = import_historian(file, tmp_path / "plain")
    # Two hours are missing: three transitions less, and two episodes.
    assert (dataset.num_transitions, dataset.card.num_episodes) == (21, 2)
    assert not any(report.filled.values())
    mapping = yaml.safe_load(file.read_text(encoding="utf-8"))
    repair = {"interpolate_minutes": 120, "hold_minutes": 120}
    file.write_text(yaml.safe_dump(mapping | {"repair": repair}), encoding="utf-8")
    dataset, report = import_historian(file, tmp_path / "repaired")
    assert (dataset.num_transitions, dataset.card.num_episodes) == (24, 1)
    assert set(report.filled.values()) == {2}


def samples_of(tmp_path: Path, text: str, log: Log, **settings: Any) -> pl.DataFrame:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    repair = settings.pop("repair", {})
    point = {"tag": "A", "low": 0.0, "high": 10.0} | settings.pop("point", {})
    file = {"path": "x.csv", "layout": "long", "time_zone": ZONE} | settings
    data = {"utility": "n", "files": [file], "points": {"feeder.p_kw": point}, "repair": repair}
    mapping = parse_config(Mapping, data)
    return read_samples(mapping, tmp_path / "m.yaml", Points(mapping, log.task)).sort("row")


def test_every_dropped_sample_has_its_reason(log: Log, tmp_path: Path) -> None:
    text = """time,tag,value,q,arrived
2024-06-01 00:00,A,1.5,GOOD,2024-06-01 00:01
2024-06-01 00:00,A,1.5,GOOD,2024-06-01 00:02
2024-06-01 01:00,A,2.0,BAD,2024-06-01 01:01
2024-06-01 02:00,A,n/a,GOOD,2024-06-01 02:01
2024-06-01 03:00,A,,GOOD,2024-06-01 03:01
2024-06-01 04:00,A,99,GOOD,2024-06-01 04:01
2024-06-01 05:00,A,5,GOOD,2024-06-03 05:01
2024-06-01 06:00,A,6,GOOD,2024-06-01 06:01
2024-06-01 06:00,A,7,GOOD,2024-06-01 06:30
not a time,A,7,GOOD,2024-06-01 06:30
"""
    settings = {"quality": "q", "received": "arrived", "repair": {"late_minutes": 60.0}}
    table = samples_of(tmp_path, text, log, **settings)
    assert table["reason"].to_list() == [
        None,
        "duplicate",
        "bad quality",
        "no number",
        "empty",
        "outside its limits",
        "late",
        "replaced by a later arrival",
        None,
        "no time",
    ]
    assert table["note"].to_list()[8] == "latest arrival of several"
    assert table.filter(pl.col("reason").is_null())["value"].to_list() == [1.5, 7.0]


@pytest.mark.parametrize(("rule", "expected"), [("drop", []), ("first", [6.0]), ("last", [7.0]), ("mean", [6.5])])
def test_contradicting_values_follow_the_rule(log: Log, tmp_path: Path, rule: str, expected: list[float]) -> None:
    text = "time,tag,value\n2024-06-01 06:00,A,6\n2024-06-01 06:00,A,7\n"
    table = samples_of(tmp_path, text, log, repair={"duplicates": rule})
    assert table.filter(pl.col("reason").is_null())["value"].to_list() == expected
    assert "contradicts another value" in table["reason"].to_list()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("order", ["05:30", "06:30"]), ("first", ["05:30"]), ("second", ["06:30"]), ("drop", [])],
)
def test_repeated_hour_follows_the_rule(log: Log, tmp_path: Path, rule: str, expected: list[str]) -> None:
    # 1:30 on 3 November 2024 is 5:30 UTC and, an hour later, 6:30 UTC.
    text = "time,tag,value\n2024-11-03 01:30,A,1\n2024-11-03 01:30,A,2\n"
    table = samples_of(tmp_path, text, log, ambiguous=rule, repair={"duplicates": "first"})
    used = table.filter(pl.col("reason").is_null())
    assert used["time"].dt.strftime("%H:%M").to_list() == expected
    if rule == "drop":
        assert table["reason"].to_list() == ["hour that daylight saving repeats"] * 2


def test_skipped_hour_follows_the_rule(log: Log, tmp_path: Path) -> None:
    # 2:30 on 10 March 2024 does not exist; 1:30 and 3:30 are 6:30 and 7:30 UTC.
    text = "time,tag,value\n2024-03-10 01:30,A,1\n2024-03-10 02:30,A,2\n"
    assert samples_of(tmp_path, text, log)["reason"].to_list() == [None, "hour that daylight saving skips"]
    shifted = samples_of(tmp_path, text, log, nonexistent="shift")
    assert shifted["time"].dt.strftime("%H:%M").to_list() == ["06:30", "07:30"]
    assert shifted["note"].to_list() == [None, "skipped hour, moved"]


def test_states_units_and_end_stamps(log: Log, tmp_path: Path) -> None:
    text = "time,tag,value\n2024-06-01T06:15:00+02:00,A,OPEN\n2024-06-01T04:30:00Z,A,3000\n"
    point = {"states": {"OPEN": 5000.0}, "unit": "W", "offset": 1000.0}
    table = samples_of(tmp_path, text, log, point=point, stamp="end", interval_minutes=15, time_format="%+")
    assert table["value"].to_list() == [6.0, 4.0]
    assert table["time"].dt.strftime("%H:%M").to_list() == ["04:00", "04:15"]


def test_gap_rules() -> None:
    row = np.array([np.nan, 1.0, np.nan, 3.0, np.nan, np.nan, 6.0, np.nan])
    np.testing.assert_array_equal(interpolate(row, 1), [np.nan, 1, 2, 3, np.nan, np.nan, 6, np.nan])
    np.testing.assert_array_equal(interpolate(row, 2), [np.nan, 1, 2, 3, 4, 5, 6, np.nan])
    np.testing.assert_array_equal(hold(row, 1), [np.nan, 1, 1, 3, 3, np.nan, 6, 6])
    np.testing.assert_array_equal(hold(row, 0), row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": {"vmag_pu.671.9": {"tag": "A"}}}, r"no point 'vmag_pu.671.9', did you mean 'vmag_pu.671"),
        ({"points": {"feeder.p_kw": {"tag": "A", "unit": "V"}}}, "is in kW, its tag 'A' in V"),
        ({"constants": {"wind.*": 1.0}}, r"'wind\.\*' of constants or estimate fits no point"),
        ({"files": []}, "files or points is empty"),
        ({"files": [{"path": "x", "time_zone": "Europe/Berln"}]}, "such as 'Europe/Berlin'"),
        ({"files": [{"path": "x", "stamp": "end"}]}, "give interval_minutes"),
        ({"repair": {"interpolat_minutes": 3}}, "did you mean 'interpolate_minutes'"),
        ({"points": {"feeder.p_kw": {"tag": "A", "unit": "lbs"}}}, "give one of W, kW"),
    ],
)
def test_wrong_mapping_is_refused(log: Log, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write_wide(tmp_path, log, **change)
    with pytest.raises(ConfigError, match=message):
        import_historian(file, tmp_path / "out")


def test_missing_column_and_naive_times_are_named(log: Log, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no column 'value': it has time, tag"):
        samples_of(tmp_path, "time,tag\n2024-06-01 00:00,A\n", log)
    with pytest.raises(DatasetError, match="give time_zone"):
        samples_of(tmp_path, "time,tag,value\n2024-06-01 00:00,A,1\n", log, time_zone=None)


def test_command_reports(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write_wide(tmp_path, log), tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        main(["dataset", "import", str(file), "--out", str(out), "--json"])
    assert left.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["report"]["intervals"]["transitions"] == 24
    assert json.loads((out / "import.json").read_text(encoding="utf-8")) == shown["report"]
    with pytest.raises(SystemExit) as left:
        main(["dataset", "import", str(file), "--out", str(out)])
    assert left.value.code == 1
