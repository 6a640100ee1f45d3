"""Fleets keep energy, and devices their limits, through a day of random commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.devices.ev_charger import EvCharger
from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.policies.optimal.plan import has_bound
from gridray.profiles.ev import EvConfig, ev_sessions
from gridray.profiles.processes import Clock
from gridray.tasks.base import scaled_actions
from gridray.tasks.curtailment import Curtailment, CurtailmentConfig
from gridray.tasks.ev_charging import EvCharging, EvChargingConfig
from gridray.tasks.fleets.ev_chargers import EFFICIENCY, shared_kw
from gridray.tasks.fleets.ev_sessions import episode_sessions
from gridray.tasks.fleets.heat_pumps import LOW_C, SET_POINT_C
from gridray.tasks.siting import spread_buses
from gridray.tasks.storage import Storage, StorageConfig
from gridray.tasks.twin import calendar
from gridray.tasks.volt_var import VoltVar, VoltVarConfig

if TYPE_CHECKING:
    from gridray.tasks.twin import TwinState
    from gridray.tasks.twin_config import TwinConfig
    from gridray.tasks.twin_task import TwinTask

NUM_ENVS = 5


def started(task: TwinTask, days: list[int] | None = None) -> TwinState:
    state = task.new_state(NUM_ENVS)
    task.reset(state, np.arange(NUM_ENVS), np.array(days or range(NUM_ENVS)), np.arange(NUM_ENVS, dtype=np.uint64))
    return state


def act(task: TwinTask, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1.0, 1.0, (NUM_ENVS, len(task.action_channels))).astype(np.float32)


def test_batteries_keep_energy_and_bounds() -> None:
    task = Storage(StorageConfig(num_days=10, step_minutes=60))
    state, rng = started(task), np.random.default_rng(0)
    battery = task.twin.fleets[0].battery  # type: ignore[attr-defined]
    for _ in range(24):
        before = state.fleets["battery"].soc.copy()
        task.step(state, act(task, rng))
        own = state.fleets["battery"]
        # Charging stores 0.95 of what is drawn, discharging takes 1 / 0.95 of what is given.
        drawn = np.where(own.kw > 0.0, own.kw / 0.95, own.kw * 0.95)
        np.testing.assert_allclose((before - own.soc) * battery.kwh, drawn, atol=1e-9)
        assert ((own.soc >= 0.0) & (own.soc <= 1.0)).all()
        assert (own.kw**2 + own.kvar**2 <= battery.kva**2 + 1e-9).all()


def test_storage_earns_the_price_difference_and_ends_with_its_energy_paid() -> None:
    config = StorageConfig(
        num_days=10, step_minutes=60, wear_eur_per_kwh=0.0, peak_eur_per_kwh=0.0, voltage_eur=0.0, num_batteries=1
    )
    task = Storage(config)
    state = started(task, [3] * NUM_ENVS)
    prices = task.twin.signals[0].series[3 * 24 : 4 * 24] / 1e3
    kwh = task.twin.fleets[0].battery.kwh[0, 0]  # type: ignore[attr-defined]
    column = [channel.name.endswith(".kw") for channel in task.action_channels].index(True)
    total = np.zeros(NUM_ENVS)
    for hour in range(24):
        actions = np.zeros((NUM_ENVS, len(task.action_channels)), np.float32)
        # Charge for an hour at 3:00, discharge for one at 18:00, each at half power; environment 0 does nothing.
        actions[1:, column] = {3: -0.5, 18: 0.5}.get(hour, 0.0)
        total += task.step(state, actions).rewards
    half_kw = 0.5 * kwh / config.battery_hours
    left_kwh = half_kw * 0.95 - half_kw / 0.95
    mean = task.twin.signals[0].series.mean() / 1e3
    expected = (half_kw * (prices[18] - prices[3]) + left_kwh * 0.95 * mean) / (kwh * mean)
    np.testing.assert_allclose(total, [0.0] + [expected] * 4, atol=1e-6)


def test_chargers_store_what_they_draw_and_count_what_is_missing() -> None:
    task = EvCharging(EvChargingConfig(num_days=10, step_minutes=30, points_per_site=6))
    state, rng = started(task), np.random.default_rng(1)
    charged, unmet = np.zeros(NUM_ENVS), np.zeros(NUM_ENVS)
    for _ in range(48):
        result = task.step(state, act(task, rng))
        charged += result.indicators["charged_kwh"]
        unmet += result.costs["unmet_kwh"]
    own = state.fleets["ev"]
    assert own.wanted_kwh.sum() > 0.0
    np.testing.assert_allclose(own.stored_kwh.sum(axis=(0, 1)), charged * EFFICIENCY, rtol=1e-9)
    np.testing.assert_allclose((own.wanted_kwh - own.stored_kwh).sum(axis=(0, 1)), unmet, atol=1e-6)
    assert (own.stored_kwh <= own.wanted_kwh + 1e-9).all()


def test_cars_that_may_charge_freely_leave_with_all_they_want() -> None:
    task = EvCharging(EvChargingConfig(num_days=10, step_minutes=30, points_per_site=6, place="home", first_hour=12))
    state = started(task)
    for _ in range(48):
        result = task.step(state, np.ones((NUM_ENVS, len(task.action_channels)), np.float32))
        np.testing.assert_allclose(result.costs["unmet_kwh"], 0.0, atol=1e-6)


def test_episodes_want_what_the_year_does() -> None:
    clock = Clock(num_days=40, step_s=900)
    year = ev_sessions(clock, 12, np.random.default_rng(0), EvConfig(place="home", charger_kw=(50.0,)))
    rated = np.full((12, 1), 50.0)
    table = episode_sessions(year, EvCharger(rated, 0.0 * rated, 0.0 * rated + 0.9), calendar(15, 40, 12))
    is_inside = (year.arrival_h >= 12.0) & (year.departure_h < 39 * 24.0)
    # Sessions at either end of the year are partly in the first and last episodes.
    edge = year.energy_kwh[~is_inside].sum()
    assert year.energy_kwh[is_inside].sum() - 1e-6 <= table.wanted_kwh.sum() <= year.energy_kwh[is_inside].sum() + edge
    assert ((table.departure >= table.arrival) & (table.departure <= 96)).all()


def test_power_of_a_site_goes_to_the_cars_that_can_wait_least() -> None:
    most = np.array([[10.0], [10.0], [10.0], [4.0]])
    laxity = np.array([[3.0], [1.0], [2.0], [0.5]])
    np.testing.assert_array_equal(shared_kw(np.array([[17.0]]), most, laxity)[:, 0], [0.0, 10.0, 3.0, 4.0])
    np.testing.assert_array_equal(shared_kw(np.array([[17.0], [2.0]]), most, laxity)[:, 0], [7.0, 10.0, 0.0, 2.0])


def test_active_network_management_keeps_balances() -> None:
    task = Curtailment(CurtailmentConfig(num_days=10, step_minutes=60))
    state, rng = started(task), np.random.default_rng(2)
    for _ in range(24):
        owed = state.fleets["flexible_load"].owed_kwh.copy()
        base = state.fleets["flexible_load"].base_kw.copy()
        available = sum(state.fleets[kind].available_kw.sum(axis=0) for kind in ("pv", "wind"))
        interval = task.twin.interval(state, _set_points(task, rng))
        injected = sum(state.fleets[kind].kw.sum(axis=0) for kind in ("pv", "wind"))
        np.testing.assert_allclose(interval.quantities["curtailed_kwh"], available - injected, atol=1e-9)
        flexible = state.fleets["flexible_load"]
        rows = [list(task.grid.load_names).index(name) for name in task.twin.fleets[3].names]
        # What is drawn less is owed, and what comes back is drawn more, as rebound is 1.
        np.testing.assert_allclose(base - state.grid.items_kw[rows], flexible.owed_kwh - owed, atol=1e-9)
        np.testing.assert_allclose(
            (interval.balance.source - interval.balance.items - interval.balance.losses).real, 0.0, atol=1e-6
        )
        task.twin.move_on(state)


def _set_points(task: TwinTask, rng: np.random.Generator) -> np.ndarray:
    low = np.array([channel.low for channel in task.action_channels])[:, None]
    high = np.array([channel.high for channel in task.action_channels])[:, None]
    return rng.uniform(low, high, (len(low), NUM_ENVS))


def test_cold_houses_heat_whatever_is_asked() -> None:
    task = Curtailment(CurtailmentConfig(num_days=10, step_minutes=60))
    state = started(task)
    for _ in range(24):
        task.step(state, -np.ones((NUM_ENVS, len(task.action_channels)), np.float32))
    own = state.fleets["heat_pump"]
    assert (own.indoor_c > LOW_C - 2.0).all()
    assert (own.outdoor_c < own.indoor_c).all()


def test_houses_left_alone_keep_their_temperature() -> None:
    task = Curtailment(CurtailmentConfig(num_days=10, step_minutes=60))
    state = started(task)
    hold = np.repeat(scaled_actions(task.action_channels, {}), NUM_ENVS, axis=0)
    duty = state.fleets["heat_pump"].duty.copy()
    assert ((duty > 0.0) & (duty < 1.0)).all(), "winter days"
    for _ in range(4):
        task.step(state, hold)
        np.testing.assert_allclose(state.fleets["heat_pump"].indoor_c, SET_POINT_C, atol=1e-6)


def test_inverters_follow_the_voltage_by_themselves() -> None:
    task = Curtailment(CurtailmentConfig(num_days=10, step_minutes=60, pv_autonomy="volt_var_watt"))
    pv = task.twin.fleets[0]
    assert [channel.name.rpartition(".")[2] for channel in pv.action_channels] == ["kw"] * 3
    state = started(task)
    kva = np.array([generator.kva for generator in task.feeder.generators[:3]])[:, None]
    rated = kva / 1.1
    own = state.fleets["pv"]._replace(available_kw=np.repeat(0.8 * rated, NUM_ENVS, axis=1))
    for v_pu, kvar_share, kw_share in ((1.0, 0.0, 0.8), (1.05, -0.22, 0.8), (1.08, -0.44, 0.5), (0.95, 0.22, 0.8)):
        state.fleets["pv"] = own
        state.vmag_pu = np.full_like(state.vmag_pu, v_pu)
        after, quantities = pv.act(state, np.repeat(rated, NUM_ENVS, axis=1))
        # Category B: 0 within 0.98..1.02 pu, 44 % at 0.92 and 1.08; volt-watt from 1 at 1.06 to 0 at 1.1 pu.
        np.testing.assert_allclose(after.kvar, np.broadcast_to(kvar_share * kva, after.kvar.shape), atol=1e-9)
        np.testing.assert_allclose(after.kw, np.broadcast_to(kw_share * rated, after.kw.shape), rtol=1e-9)
        np.testing.assert_allclose(quantities["curtailed_kwh"], ((0.8 - kw_share) * rated).sum(), atol=1e-9)


def test_inverters_follow_their_power_by_themselves() -> None:
    task = Curtailment(CurtailmentConfig(num_days=10, step_minutes=60, pv_autonomy="watt_var"))
    pv = task.twin.fleets[0]
    assert [channel.name.rpartition(".")[2] for channel in pv.action_channels] == ["kw"] * 3
    state = started(task)
    kva = np.array([generator.kva for generator in task.feeder.generators[:3]])[:, None]
    rated = kva / 1.1
    offered = np.array([0.3, 0.5, 0.8, 1.0, 1.0])
    state.fleets["pv"] = state.fleets["pv"]._replace(available_kw=rated * offered)
    after, _ = pv.act(state, rated * np.array([1.0, 1.0, 1.0, 1.0, 0.6]))
    # Category B: nothing up to half of rated power, then down to absorbing 44 % of kVA at all of it.
    np.testing.assert_allclose((after.kvar / kva)[:, [0, 1, 2, 4]], [[0.0, 0.0, -0.264, -0.088]] * 3, atol=1e-9)
    np.testing.assert_allclose((after.kw / rated)[:, [0, 1, 2, 4]], [[0.3, 0.5, 0.8, 0.6]] * 3, rtol=1e-9)
    # At rated power the curve leaves the kVA circle, (1 / 1.1)^2 + 0.44^2 > 1: active power gives way along the curve.
    np.testing.assert_allclose(np.hypot(after.kw, after.kvar)[:, 3], kva[:, 0], rtol=1e-9)
    np.testing.assert_allclose((after.kvar / kva)[:, 3], -0.88 * ((after.kw / rated)[:, 3] - 0.5), rtol=1e-9)


@pytest.mark.parametrize(("task_type", "config_type"), [(Curtailment, CurtailmentConfig), (Storage, StorageConfig)])
def test_inverters_trip_at_the_end_of_their_clearing_time_and_return(
    task_type: type[TwinTask], config_type: type[TwinConfig]
) -> None:
    task = task_type(config_type(num_days=5, step_minutes=1, pv_trip="III"))  # type: ignore[call-arg]
    pv = next(fleet for fleet in task.twin.fleets if fleet.kind == "pv")
    phases = [name.partition(".")[0] == pv.buses[0] for name in task.grid.node_names]
    state = started(task)
    noon = np.full(NUM_ENVS, 12 * 60)
    state.t[:] = noon
    # One phase of the first: in order, too high for a minute, too low for a minute, within limits, too high to return.
    events = {1: 1.12, 2: 0.87, 3: 1.09, 4: 1.2}
    out = []
    for interval in range(8):
        state.interval_v = np.ones_like(state.interval_v)
        for env, v_pu in events.items():
            if interval == 0 or (env == 4 and interval == 1):
                state.interval_v[np.flatnonzero(phases)[0], env] = v_pu if interval == 0 else 1.06
        state.fleets["pv"] = pv.begin(state, noon)
        out.append(state.fleets["pv"].is_tripped[0])
        own, quantities = pv.act(state, np.full((len(pv.action_channels), NUM_ENVS), 1e9))
        assert not own.is_tripped[1:].any()
        assert ((own.kw == 0.0) == own.is_tripped).all()
        assert (own.kvar[own.is_tripped] == 0.0).all()
        first = own.available_kw[0] / 60.0
        np.testing.assert_allclose(quantities["curtailed_kwh"], np.where(own.is_tripped[0], first, 0.0), atol=1e-9)
        state.fleets["pv"] = own
    # Out for the 300 s that the voltage must be good; one that is still high in the first of them waits a minute more.
    np.testing.assert_array_equal(
        np.array(out).sum(axis=0), [0, 5, 5, 0, 6], "intervals out: none, by OV1, by UV1, none, by OV2"
    )
    assert not out[-1].any()


def test_high_voltage_of_one_environment_trips_its_inverters_alone() -> None:
    task = VoltVar(VoltVarConfig(num_days=5, step_minutes=1, pv_trip="II"))
    state = started(task)
    state.grid.source_pu[1] *= 1.2
    hold = np.repeat(scaled_actions(task.action_channels, {}), NUM_ENVS, axis=0)
    task.step(state, hold)
    assert state.interval_v[:, [0, 2, 3, 4]].max() < 1.1 < state.interval_v[:, 1].max()
    np.testing.assert_array_equal(state.fleets["pv"].is_tripped, [[False, True, False, False, False]] * 3)
    task.reset(state, np.array([1]), np.array([1]), np.zeros(1, dtype=np.uint64))
    assert not state.fleets["pv"].is_tripped.any()
    assert not has_bound(task)


def test_any_kind_of_device_may_be_left_out() -> None:
    none = {f"num_{kind}": 0 for kind in ("pv", "wind", "batteries", "heat_pumps")}
    task = Curtailment(CurtailmentConfig(num_days=10, step_minutes=60, pv_autonomy="volt_var", num_flexible=1, **none))
    result = task.step(started(task), np.ones((NUM_ENVS, 1), np.float32))
    assert (result.costs["shed_kwh"] > 0.0).all()
    assert (result.costs["curtailed_kwh"] == 0.0).all()


def test_too_many_devices_are_refused() -> None:
    feeder = load_feeder("ieee13")
    with pytest.raises(ConfigError, match="need a three-phase bus each"):
        spread_buses(feeder, 99)
