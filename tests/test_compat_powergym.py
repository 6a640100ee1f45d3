"""PowerGym's tasks give the original's observations, rewards and daily returns."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import dss
import numpy as np
import pytest
from gymnasium.spaces import MultiDiscrete
from gymnasium.utils.env_checker import check_env

from gridray.cli import main
from gridray.compat.powergym import IDLE, PowerGym, PowerGymConfig
from gridray.compat.powergym_scores import FIRST_REWARDS, NUM_PUBLISHED, PUBLISHED, daily_rewards, static_action
from gridray.envs.single import GridEnv
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import ConfigError
from gridray.tasks.base import ActionChannel, has_levels, scaled_actions, set_points

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dss.ICircuit import ICircuit
    from numpy.typing import NDArray

# powergym/EXPECTED.md and the issue: numbers of an observation; actions: capacitors, taps, batteries.
SIZES = {"13Bus": (48, 6), "34Bus": (107, 10), "123Bus": (297, 15), "8500Node": (8573, 32)}


@pytest.fixture(scope="session")
def data(reference_dir: Path) -> Path:
    """Folder of PowerGym's files."""
    path = reference_dir / "powergym"
    if not path.is_dir():
        pytest.skip(f"no PowerGym data at '{path}': set GRIDRAY_REFERENCE_DIR to the folder that has it")
    return path


@pytest.fixture(scope="session")
def task_of(data: Path) -> Callable[..., PowerGym]:
    """Return tasks by system, each made once."""
    made: dict[tuple[str, bool], PowerGym] = {}

    def make(system: str, *, compat: bool = True) -> PowerGym:
        key = system, compat
        if key not in made:
            made[key] = PowerGym(PowerGymConfig(system=system, data=str(data), compat=compat))
        return made[key]

    return make


def _random_levels(task: PowerGym, rng: np.random.Generator, *shape: int) -> NDArray[np.int64]:
    return rng.integers(
        0, [int(channel.high) + 1 for channel in task.action_channels], (*shape, len(task.action_channels))
    )


@pytest.mark.parametrize("system", SIZES)
def test_spaces_are_those_of_the_original(system: str, task_of: Callable[..., PowerGym]) -> None:
    env = GridEnv(task_of(system))
    size, num_actions = SIZES[system]
    assert env.observation_space.shape == (size,)
    assert isinstance(env.action_space, MultiDiscrete)
    capacitors = len(env.task.grid.capacitor_names)
    assert env.action_space.nvec.tolist() == [2] * capacitors + [33] * (num_actions - capacitors)
    observation, _ = env.reset(options={"day": 0})
    taps = len(env.task.grid.tap_names)
    devices = observation[len(task_of(system).grid.node_names) :]
    assert devices[: capacitors + taps] == pytest.approx([1.0] * capacitors + [1.1] * taps)
    assert devices[capacitors + taps :].tolist() == [1.0, 0.0] * len(env.task.grid.generator_names)


def test_environment_keeps_gymnasiums_contract(task_of: Callable[..., PowerGym]) -> None:
    env = GridEnv(task_of("13Bus"))
    check_env(env, skip_render_check=True)
    assert env.action_space.contains(env.action_space.sample())


@pytest.mark.parametrize("system", FIRST_REWARDS)
def test_first_rewards_are_the_originals(system: str, task_of: Callable[..., PowerGym]) -> None:
    rewards = daily_rewards(task_of(system), "static-16", [0])[0]
    # The original solves to 1e-4 pu, which moves a reward by about 1e-5.
    assert rewards[:3] == pytest.approx(FIRST_REWARDS[system], abs=3e-5)


@pytest.mark.parametrize("system", FIRST_REWARDS)
@pytest.mark.parametrize("policy", ["static-16", "hold", "utility"])
def test_daily_returns_are_the_originals(system: str, policy: str, task_of: Callable[..., PowerGym]) -> None:
    returns = daily_rewards(task_of(system), policy, range(NUM_PUBLISHED[system])).sum(axis=1)
    # Published to two decimals.
    assert returns.mean() == pytest.approx(PUBLISHED[system][policy], abs=0.0051)


@pytest.mark.parametrize(("system", "deviation"), [("13Bus", 3.24), ("34Bus", 6.77), ("123Bus", 16.36)])
def test_random_returns_are_the_originals(system: str, deviation: float, task_of: Callable[..., PowerGym]) -> None:
    num = NUM_PUBLISHED[system]
    returns = daily_rewards(task_of(system), "random", range(num), seed=3).sum(axis=1)
    # Two independent samples of `num` days: three standard errors of their difference.
    assert returns.mean() == pytest.approx(PUBLISHED[system]["random"], abs=3.0 * deviation * np.sqrt(2.0 / num))


def test_observations_are_opendss_s(data: Path, tmp_path: Path, task_of: Callable[..., PowerGym]) -> None:
    task = task_of("13Bus")
    circuit = _opendss_day(data / "systems" / "13Bus", tmp_path, task)
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([0]))
    num_nodes = task.grid.num_nodes
    assert task.observe(state)[0, :num_nodes] == pytest.approx(_opendss_v(circuit), abs=1e-6)
    for tap in (16, 3, 29):
        circuit.SetActiveElement("Transformer.reg1")
        for name in task.grid.tap_names:
            circuit.Transformers.Name = name
            circuit.Transformers.Wdg = 2
            circuit.Transformers.Tap = 0.9 + 0.00625 * tap
        circuit.Solution.Solve()
        task.step(state, static_action(task, tap)[None])
        assert task.observe(state)[0, :num_nodes] == pytest.approx(_opendss_v(circuit), abs=1e-6)
        assert task.voltages(state).max() == pytest.approx(_opendss_v(circuit).max(), abs=1e-6)


def test_battery_follows_the_original_only_in_compat(task_of: Callable[..., PowerGym]) -> None:
    compat, correct = task_of("13Bus"), task_of("13Bus", compat=False)
    kwh, kvar = {}, {}
    for task in (compat, correct):
        state = task.new_state(1)
        task.reset(state, np.array([0]), np.array([0]))
        for _ in range(2):
            action = static_action(task, 16)
            action[-1] = IDLE + 3
            task.step(state, action[None])
        kwh[task.config.compat], kvar[task.config.compat] = state.kwh[0, 0], -state.grid.items_kvar[-1, 0]
    # 200 kW in 16 levels: 37.5 kW an hour, from 1000 kWh; 962.5 rounds to 962, and 924.5 to 924 (half to even).
    assert kwh == {True: 924.0, False: pytest.approx(925.0, abs=1e-6)}
    # 37.5 kW at power factor 0.95: 37.5 / 0.95 there, 37.5 tan(acos 0.95) by the definition of the power factor.
    assert kvar == {True: pytest.approx(39.4737, abs=1e-4), False: pytest.approx(12.3257, abs=1e-4)}


def test_battery_gives_no_more_than_its_charge(task_of: Callable[..., PowerGym]) -> None:
    task = task_of("13Bus", compat=False)
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([0]))
    action = static_action(task, 16)
    action[-1] = 2 * IDLE
    powers = []
    for _ in range(7):
        task.step(state, action[None])
        powers.append(float(state.observations[0, -1]) * 200.0)
    assert powers == pytest.approx([200.0] * 5 + [0.0] * 2, abs=1e-3)
    assert state.kwh[0, 0] == pytest.approx(0.0, abs=1e-6)


def test_soc_variant_charges_for_the_missing_energy(data: Path) -> None:
    returns = {}
    for system in ("13Bus", "13Bus_soc"):
        task = PowerGym(PowerGymConfig(system=system, data=str(data)))
        state = task.new_state(1)
        task.reset(state, np.array([0]), np.array([0]))
        action = static_action(task, 16)
        rewards = []
        for t in range(24):
            action[-1] = IDLE + 8 * (t == 0)
            rewards.append(task.step(state, action[None]).rewards[0])
        returns[system] = rewards
    # 100 of 1000 kWh are missing at the end; discharging half the rated power once cost 6/33 and now 1/33.
    assert returns["13Bus_soc"][-1] - returns["13Bus"][-1] == pytest.approx(-20.0 / 33.0 * 0.1, abs=1e-6)
    assert returns["13Bus_soc"][0] - returns["13Bus"][0] == pytest.approx(5.0 / 33.0 * 0.5, abs=1e-6)


def test_environments_do_not_see_each_other(task_of: Callable[..., PowerGym]) -> None:
    task = task_of("34Bus")
    rng = np.random.default_rng(0)
    days = np.array([3, 0, 7, 3])
    actions = _random_levels(task, rng, 30, 4)
    actions[:, 3] = actions[:, 0]
    together = GridVectorEnv(task, 4, seed=0)
    first, _ = together.reset(options={"days": days})
    alone = GridVectorEnv(task, 1, seed=0)
    assert alone.reset(options={"days": days[2:3]})[0] == pytest.approx(first[2:3], abs=1e-6)
    for t in range(24):
        observations, rewards, _, truncated, infos = together.step(actions[t])
        one, reward, *_ = alone.step(actions[t, 2:3])
        assert rewards[2] == pytest.approx(reward[0], abs=1e-5)
        assert observations[2] == pytest.approx(one[0], abs=1e-4)
        assert observations[0].tolist() == observations[3].tolist()
        assert infos["cost_voltage_violation_pu"].min() >= 0.0
    assert truncated.all()
    observations, rewards, *_ = together.step(actions[24])
    assert rewards.tolist() == [0.0] * 4
    assert observations[:, -4:].tolist() == [[1.0, 0.0, 1.0, 0.0]] * 4


def test_wrong_levels_are_named(task_of: Callable[..., PowerGym]) -> None:
    envs = GridVectorEnv(task_of("13Bus"), 2)
    envs.reset()
    actions = np.tile(static_action(task_of("13Bus"), 16), (2, 1)).astype(np.float64)
    for wrong in (33.0, -1.0, 3.5, np.nan):
        actions[1, 2] = wrong
        with pytest.raises(ConfigError, match=r"regulator\.reg1\.tap.*environment 1.*from 0 to 32"):
            envs.step(actions)


def test_levels_are_all_or_nothing() -> None:
    level = ActionChannel("tap", "step", 0, 32, "level")
    other = ActionChannel("kw", "kW", -1.0, 1.0, "continuous")
    assert has_levels((level, level))
    assert not has_levels((other,))
    with pytest.raises(ConfigError, match="'tap' is a level but others are not"):
        has_levels((level, other))
    assert set_points((level,), np.array([[7]])).tolist() == [[7.0]]
    assert scaled_actions((level,), {"tap": np.array([6.7, 40.0])}).tolist() == [[7.0], [32.0]]


def test_command_line_plays_a_day(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "compat",
        "powergym",
        "13Bus",
        "--data",
        str(data),
        "--policy",
        "static-16",
        "--profile",
        "0",
        "--json",
    ]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["rewards"][:3] == pytest.approx(FIRST_REWARDS["13Bus"], abs=3e-5)
    assert len(result["rewards"]) == 24
    assert set(result) == {"rewards", "return"}
    assert result["return"] == pytest.approx(sum(result["rewards"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["13Bus", "--policy", "static-33"], "static-0..static-32"),
        (["13Bus", "--profile", "73"], "no profile 73: give one of 0..72"),
        (["14Bus"], "no system '14Bus'"),
    ],
)
def test_command_line_names_what_is_wrong(
    arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compat", "powergym", *arguments, "--data", str(data)])
    assert left.value.code == 1
    assert message in capsys.readouterr().err


def test_missing_data_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no '13Bus/IEEE13Nodeckt_daily\.dss'"):
        PowerGym(PowerGymConfig(data=str(tmp_path)))
    shutil.copytree(data / "systems" / "13Bus", tmp_path / "13Bus")
    shutil.rmtree(tmp_path / "13Bus" / "loadshape")
    with pytest.raises(ConfigError, match="lacks the load shapes"):
        PowerGym(PowerGymConfig(data=str(tmp_path)))


def _opendss_day(folder: Path, tmp_path: Path, task: PowerGym) -> ICircuit:
    """Compile the original's files with profile 0 in OpenDSS, in the state of its reset."""
    place = tmp_path / "13Bus"
    shutil.copytree(folder, place)
    values = np.concatenate([np.loadtxt(path) for path in sorted((place / "loadshape").iterdir())])
    num_profiles = len(values) // (24 * len(task.grid.load_names))
    lines = [
        f"New Loadshape.loadshape_{name} npts=24 interval=1 mult=({' '.join(map(repr, day.tolist()))})"
        for name, day in zip(task.grid.load_names, values.reshape(-1, 24)[::num_profiles], strict=False)
    ]
    (place / "loadshape.dss").write_text("\n".join(lines), encoding="utf-8")
    engine = dss.DSS
    engine.AllowChangeDir = False
    for command in (f'compile "{place / "IEEE13Nodeckt_daily.dss"}"', "set controlmode=off tolerance=1e-9"):
        engine.Text.Command = command
    circuit = engine.ActiveCircuit
    for name in task.grid.tap_names:
        circuit.Transformers.Name = name
        circuit.Transformers.Wdg = 2
        circuit.Transformers.Tap = 1.1
    circuit.Solution.SolveNoControl()
    return circuit


def _opendss_v(circuit: ICircuit) -> NDArray[np.float64]:
    return np.concatenate([circuit.Buses(bus).puVmagAngle[::2] for bus in circuit.AllBusNames])
