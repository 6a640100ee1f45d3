"""Batteries, EV chargers, heat pumps and controllable loads: bounds that nothing breaks, energy that adds up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opender.bess_specifc.soc import StateOfCharge
from opender.der import DER

from gridray.devices import ev_charger
from gridray.devices.battery import Battery, check_battery, power_range_kw, step_battery
from gridray.devices.controllable_load import ControllableLoad, step_load
from gridray.devices.ev_charger import EvCharger, EvSessions, is_present, laxity_h, missing_kwh, step_chargers
from gridray.devices.heat_pump import (
    Comfort,
    HeatPump,
    cop,
    discomfort_kh,
    injected_kw_kvar,
    step_house,
    thermostat,
)
from gridray.errors import ConfigError


def one(*values: float) -> list[np.ndarray]:
    return [np.full((1, 1), value) for value in values]


def battery(**changes: float) -> Battery:
    plain = Battery(*one(10.0, 0.1, 0.9, 5.0, 4.0, 5.0, 0.95, 0.9, 0.0))
    return plain._replace(**{name: np.full((1, 1), value) for name, value in changes.items()})


# Powers and lengths whose products do not fit a float: where rounding could carry the state over its bound.
AWKWARD = st.sampled_from([0.1, 0.3, 1.0 / 3.0, 0.7, 1e-9, 1e9, 3.3333333, 2.0 / 3.0])


@settings(max_examples=300, deadline=None)
@given(
    powers=st.lists(st.one_of(AWKWARD, AWKWARD.map(lambda x: -x), st.floats(-1e6, 1e6)), min_size=1, max_size=40),
    bounds=st.tuples(st.floats(0.0, 0.5), st.floats(0.5, 1.0)),
    efficiency=st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 1.0)),
    kwh=st.one_of(AWKWARD, st.floats(0.01, 1e4)),
    step_h=st.sampled_from([1.0 / 3600.0, 1.0 / 60.0, 0.25, 1.0 / 3.0, 1.0]),
    leak=st.sampled_from([0.0, 1e-5, 0.3]),
)
def test_soc_stays_within_its_bounds_exactly_and_energy_adds_up(
    *,
    powers: list[float],
    bounds: tuple[float, float],
    efficiency: tuple[float, float],
    kwh: float,
    step_h: float,
    leak: float,
) -> None:
    device = battery(
        kwh=kwh,
        soc_min=bounds[0],
        soc_max=bounds[1],
        charge_efficiency=efficiency[0],
        discharge_efficiency=efficiency[1],
        self_discharge_per_h=leak,
        charge_kw=1e6,
        discharge_kw=1e6,
        kva=1e6,
    )
    soc = np.full((1, 1), 0.5)
    for power in powers:
        least, most = power_range_kw(device, soc, step_h)
        after = step_battery(device, soc, np.full((1, 1), power), np.zeros((1, 1)), step_h)
        assert bounds[0] <= after.soc[0, 0] <= bounds[1]
        assert least <= after.kw <= most
        taken_kwh = after.kw * step_h + after.loss_kwh
        np.testing.assert_allclose((soc - after.soc) * kwh, taken_kwh, rtol=0.0, atol=1e-9 * kwh)
        assert after.loss_kwh[0, 0] >= -1e-12 * kwh
        soc = after.soc


def test_battery_is_that_of_opender() -> None:
    # OpenDER's efficiency is that of a round trip, taken while charging.
    settings = SimpleNamespace(
        SOC_INIT=0.5,
        NP_EFFICIENCY=0.88,
        NP_BESS_CAPACITY=10e3,
        NP_BESS_SELF_DISCHARGE=0.0,
        NP_BESS_SELF_DISCHARGE_SOC=0.0,
        NP_BESS_SOC_MAX=0.9,
        NP_BESS_SOC_MIN=0.1,
        NP_P_MAX_CHARGE=4e3,
        NP_P_MAX=5e3,
        NP_BESS_P_MAX_BY_SOC={
            "SOC_P_CHARGE_MAX": [0.0, 1.0],
            "P_CHARGE_MAX_PU": [1.0, 1.0],
            "SOC_P_DISCHARGE_MAX": [0.0, 1.0],
            "P_DISCHARGE_MAX_PU": [1.0, 1.0],
        },
    )
    theirs, device, soc = (
        StateOfCharge(settings),
        battery(charge_efficiency=0.88, discharge_efficiency=1.0),
        one(0.5)[0],
    )
    step_h = DER.t_s / 3600.0
    for power in np.random.default_rng(2).uniform(-0.2, 0.2, 300):
        theirs.calculate_p_max_by_soc()
        least, most = power_range_kw(device, soc, step_h)
        expected = (-4.0 * theirs.p_max_charge_pu, 5.0 * theirs.p_max_discharge_pu)
        assert (least[0, 0], most[0, 0]) == pytest.approx(expected, abs=1e-9)
        step = step_battery(device, soc, *one(power, 0.0), step_h)
        theirs.calculate_soc(1e3 * step.kw[0, 0])
        soc = step.soc
        assert soc[0, 0] == pytest.approx(theirs.bess_soc, abs=1e-9)
    assert theirs.p_max_charge_pu < 1.0


def test_battery_loses_what_its_efficiencies_say() -> None:
    device = battery()
    # 4 kW for 1 h at 0.95 stores 3.8 kWh of 10; then 3.42 kW for 1 h at 0.9 takes 3.8 kWh out again.
    charged = step_battery(device, np.full((1, 1), 0.2), *one(-9.0, 0.0), 1.0)
    assert (charged.kw[0, 0], charged.soc[0, 0]) == pytest.approx((-4.0, 0.58))
    emptied = step_battery(device, charged.soc, *one(3.42, 0.0), 1.0)
    assert emptied.soc[0, 0] == pytest.approx(0.2)
    assert (charged.loss_kwh + emptied.loss_kwh)[0, 0] == pytest.approx(4.0 - 3.42)


def test_battery_ends_at_its_bound_and_stays_within_its_apparent_power() -> None:
    # 0.05 of 10 kWh above the bound, at 0.9: 0.45 kW for an hour; reactive power up to sqrt(25 - 0.2025).
    step = step_battery(battery(), np.full((1, 1), 0.15), *one(5.0, -9.0), 1.0)
    assert (step.kw[0, 0], step.soc[0, 0], step.kvar[0, 0]) == pytest.approx((0.45, 0.1, -4.979709))


def test_self_discharge_ends_at_the_lower_bound() -> None:
    device = battery(self_discharge_per_h=0.5)
    assert step_battery(device, np.full((1, 1), 0.8), *one(0.0, 0.0), 1.0).soc[0, 0] == pytest.approx(0.4)
    assert step_battery(device, np.full((1, 1), 0.15), *one(0.0, 0.0), 1.0).soc[0, 0] == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kwh": 0.0}, r"Battery \(0, 0\): kwh is 0: give a number from 1e-06 to inf"),
        ({"soc_max": 0.05}, r"soc_max is 0.05: give a number from 0.1 to 1"),
        ({"kva": -1.0}, "kva is -1"),
        ({"charge_efficiency": 1.1}, "charge_efficiency is 1.1"),
        ({"self_discharge_per_h": 2.0}, "self_discharge_per_h is 2"),
    ],
)
def test_impossible_batteries_are_named(changes: dict[str, float], message: str) -> None:
    check_battery(battery())
    with pytest.raises(ConfigError, match=message):
        check_battery(battery(**changes))


CHARGER = EvCharger(*one(11.0, 0.0, 0.9))
TWO_WAY = CHARGER._replace(discharge_kw=np.full((1, 1), 5.0))
# Two cars at one point: steps 2..5 wants 18 kWh, steps 8..9 wants 30 kWh; each can spare 2 kWh.
SESSIONS = EvSessions(
    *(np.array(values, dtype=np.int64)[:, None, None] for values in ([2, 8], [6, 10])),
    *(np.array(values)[:, None, None] for values in ([18.0, 30.0], [2.0, 2.0])),
)


def charge(charger: EvCharger, powers: list[float], step_h: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return powers and unmet energy of each step."""
    stored, kw, unmet = np.zeros((2, 1, 1)), [], []
    for step, power in enumerate(powers):
        after = step_chargers(charger, SESSIONS, stored, np.full((1, 1), power), np.array([step]), step_h)
        stored = after.stored_kwh
        kw.append(after.kw[0, 0])
        unmet.append(after.unmet_kwh[0, 0])
    return np.array(kw), np.array(unmet)


def test_cars_charge_while_they_are_there_and_what_they_miss_is_counted_once() -> None:
    kw, unmet = charge(CHARGER, [-50.0] * 12)
    # 11 kW x 0.5 h x 0.9 = 4.95 kWh a step: 18 kWh take three steps and 3.15 kWh / 0.9 / 0.5 h = 7 kW in a fourth.
    np.testing.assert_allclose(kw, [0, 0, -11, -11, -11, -7, 0, 0, -11, -11, 0, 0], atol=1e-12)
    np.testing.assert_allclose(unmet, [0] * 9 + [30 - 9.9] + [0] * 2, atol=1e-12)


def test_cars_give_back_no_more_than_they_can_spare() -> None:
    # 2 kWh x 0.9 = 1.8 kWh: 3.6 kW for half an hour; then the car wants 20 kWh.
    kw, unmet = charge(TWO_WAY, [5.0] * 3 + [0.0] * 9)
    np.testing.assert_allclose(kw, [0, 0, 3.6] + [0] * 9, atol=1e-12)
    np.testing.assert_allclose(unmet[[5, 9]], [20.0, 30.0])
    assert charge(CHARGER, [5.0] * 12)[0].any() == np.False_


@given(st.lists(st.floats(-30.0, 30.0), min_size=12, max_size=12))
def test_energy_of_a_session_stays_between_spare_and_wanted(powers: list[float]) -> None:
    stored = np.zeros((2, 1, 1))
    for step, power in enumerate(powers):
        at = np.array([step])
        least, most = ev_charger.power_range_kw(TWO_WAY, SESSIONS, stored, at, 0.5)
        after = step_chargers(TWO_WAY, SESSIONS, stored, np.full((1, 1), power), at, 0.5)
        assert (-SESSIONS.spare_kwh <= after.stored_kwh).all()
        assert (after.stored_kwh <= SESSIONS.wanted_kwh).all()
        assert least <= after.kw <= most
        gain = np.where(after.kw < 0.0, -after.kw * 0.9, -after.kw / 0.9) * 0.5
        np.testing.assert_allclose((after.stored_kwh - stored).sum(axis=0), gain, atol=1e-9)
        stored = after.stored_kwh


def test_laxity_is_the_time_a_car_can_wait() -> None:
    stored, at = np.zeros((2, 1, 1)), np.array([3])
    assert is_present(SESSIONS, at)[:, 0, 0].tolist() == [True, False]
    assert missing_kwh(SESSIONS, stored, at)[0, 0] == 18.0
    # Three steps of half an hour to departure, 18 / 9.9 h of charging.
    assert laxity_h(CHARGER, SESSIONS, stored, at, 0.5)[0, 0] == pytest.approx(1.5 - 18.0 / 9.9)
    assert laxity_h(CHARGER, SESSIONS, stored, np.array([7]), 0.5)[0, 0] == np.inf


def test_impossible_sessions_are_named() -> None:
    ev_charger.check_chargers(CHARGER, SESSIONS)
    # A session of no steps is none, wherever it lies.
    ev_charger.check_chargers(
        CHARGER,
        EvSessions(
            *(
                np.concatenate((values, 0 * values[:1] + pad))
                for values, pad in zip(SESSIONS, (4, 4, 0, 0), strict=True)
            )
        ),
    )
    late = SESSIONS._replace(departure=SESSIONS.departure + np.array([3, 0])[:, None, None])
    with pytest.raises(
        ConfigError, match="comes to point 0 of environment 0 in step 8, but the one before leaves in step 9"
    ):
        ev_charger.check_chargers(CHARGER, late)
    with pytest.raises(ConfigError, match=r"departure is 6: give a number from 7 to inf"):
        ev_charger.check_chargers(CHARGER, SESSIONS._replace(arrival=SESSIONS.arrival + 5))


def heat_pump(*, is_cooling: bool = False, supply_c: float = 35.0) -> HeatPump:
    flags = np.full((1, 1), is_cooling)
    return HeatPump(*one(3.0, 5.0, 4.0), flags, *one(supply_c, 0.45, 15.0, 0.95))


def test_house_follows_its_exponential() -> None:
    # No heat: towards outdoors with time constant 5 K/kW x 4 kWh/K = 20 h; one step of 10 h is ten of 1 h.
    device, indoor = heat_pump(), np.full((1, 1), 20.0)
    for _ in range(10):
        indoor = step_house(device, indoor, *one(0.0, 0.0, 0.0), 1.0)
    assert indoor[0, 0] == pytest.approx(20.0 * np.exp(-0.5))
    # In the end heat balances loss: T = 0 + R (gain + duty kw cop) = 5 (0.2 + 0.5 x 3 x cop).
    end = step_house(device, indoor, *one(0.0, 0.2, 0.5), 1e4)
    assert end[0, 0] == pytest.approx(5.0 * (0.2 + 1.5 * cop(device, np.zeros((1, 1)))[0, 0]))


def test_cop_is_a_share_of_carnots() -> None:
    # Heating 35 degC from 0 degC: 0.45 x 308.15 / 35; cooling with 12 degC at 37 degC: 0.45 x 285.15 / 25.
    assert cop(heat_pump(), np.zeros((1, 1)))[0, 0] == pytest.approx(0.45 * 308.15 / 35.0)
    assert cop(heat_pump(is_cooling=True, supply_c=12.0), np.full((1, 1), 37.0))[0, 0] == pytest.approx(5.1327)
    # At 30 degC outdoors the lift of 5 K counts as 15 K.
    assert cop(heat_pump(), np.full((1, 1), 30.0))[0, 0] == pytest.approx(0.45 * 308.15 / 15.0)


def test_air_conditioner_cools() -> None:
    device = heat_pump(is_cooling=True, supply_c=12.0)
    assert step_house(device, *one(25.0, 35.0, 0.0, 1.0), 1.0)[0, 0] < 25.0


@pytest.mark.parametrize(
    ("is_cooling", "indoor", "expected"),
    [
        (False, 19.4, [True, True]),
        (False, 20.0, [False, True]),
        (False, 20.6, [False, False]),
        (True, 20.6, [True] * 2),
    ],
)
def test_thermostat_has_hysteresis(*, is_cooling: bool, indoor: float, expected: list[bool]) -> None:
    comfort = Comfort(*one(20.0, 1.0, 18.0, 22.0))
    answers = [
        thermostat(heat_pump(is_cooling=is_cooling), comfort, np.full((1, 1), indoor), np.full((1, 1), is_on))[0, 0]
        for is_on in (False, True)
    ]
    assert answers == expected


def test_heat_pump_draws_and_discomfort_counts_outside_its_bounds() -> None:
    kw, kvar = injected_kw_kvar(heat_pump(), np.full((1, 1), 0.5))
    assert (kw[0, 0], kvar[0, 0]) == pytest.approx((-1.5, -1.5 * 0.3286841))
    comfort = Comfort(*one(20.0, 1.0, 18.0, 22.0))
    felt = [discomfort_kh(comfort, np.full((1, 1), t), 0.5)[0, 0] for t in (17.0, 20.0, 25.0)]
    assert felt == [0.5, 0.0, 1.5]


def test_shifted_energy_comes_back_when_nothing_is_shed() -> None:
    load, owed = ControllableLoad(*one(0.5, 1.0, 3.0, 100.0)), np.zeros((1, 1))
    kw = []
    for shed in (8.0, 2.0, 0.0, 0.0, 0.0):
        after = step_load(load, owed, *one(10.0, shed), 1.0)
        owed = after.owed_kwh
        kw.append(after.kw[0, 0])
    # 5 (half of 10 kW) and 2 kWh left out; 3, 3 and 1 kWh come back.
    np.testing.assert_allclose(kw, [-5.0, -8.0, -13.0, -13.0, -11.0])


@given(
    shed=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=30),
    rebound=st.floats(0.0, 1.5),
    step_h=st.sampled_from([0.25, 1.0 / 3.0, 1.0]),
)
def test_owed_energy_is_what_was_left_out_less_what_came_back(shed: list[float], rebound: float, step_h: float) -> None:
    load, owed = ControllableLoad(*one(0.7, rebound, 2.0, 6.0)), np.zeros((1, 1))
    out_kwh = back_kwh = 0.0
    for power in shed:
        after = step_load(load, owed, *one(10.0, power), step_h)
        assert 0.0 <= after.shed_kw[0, 0] <= 7.0
        assert 0.0 <= after.owed_kwh[0, 0] <= 6.0 + 1e-9
        out_kwh += after.shed_kw[0, 0] * step_h
        back_kwh += (-after.kw[0, 0] - 10.0 + after.shed_kw[0, 0]) * step_h
        owed = after.owed_kwh
    assert owed[0, 0] == pytest.approx(rebound * out_kwh - back_kwh, abs=1e-9)
