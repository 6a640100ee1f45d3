"""Inverters and voltage trips against EPRI's OpenDER, and what OpenDER leaves open against the equations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opender import DER_PV, DERCommonFileFormat
from opender.auxiliary_funcs.low_pass_filter import LowPassFilter
from opender.auxiliary_funcs.ramping import Ramping
from opender.der import DER

from gridray.devices.inverter import (
    check_inverter,
    inverter,
    lag,
    limit_power,
    limit_power_factor,
    limit_watt_var,
    power_factor_kvar,
    ramp,
    volt_var_curve,
    volt_var_kvar,
    volt_watt_curve,
    volt_watt_kw,
    watt_var_curve,
    watt_var_kvar,
)
from gridray.devices.protection import connected, step_trip, voltage_trip
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

KVA = 100.0
V = np.linspace(0.89, 1.099, 23)
P = np.array([0.0, 0.03, 0.1, 0.19, 0.35, 0.6, 0.8, 0.9, 0.97, 1.0])
V_GRID, P_GRID = (grid.ravel()[None] for grid in np.meshgrid(V, P))


@pytest.fixture
def time_step_s() -> Iterator[Callable[[float], None]]:
    """Set OpenDER's time step, which all its objects share, and set it back."""
    before = DER.t_s
    yield lambda step_s: setattr(DER, "t_s", step_s)
    DER.t_s = before


def opender_pu(category: str, **settings: object) -> NDArray[np.float64]:
    """Return OpenDER's active and reactive power in steady state, pu of kVA, [2, 1, V x P]."""
    absorb = {"A": 0.25, "B": 0.44}[category] * KVA * 1e3
    nameplate = {
        "NP_P_MAX": KVA * 1e3,
        "NP_VA_MAX": KVA * 1e3,
        "NP_Q_MAX_INJ": 0.44 * KVA * 1e3,
        "NP_Q_MAX_ABS": absorb,
    }
    file = DERCommonFileFormat(NP_NORMAL_OP_CAT=f"CAT_{category}", **nameplate, **settings)
    results = []
    for v, p in zip(V_GRID[0], P_GRID[0], strict=True):
        der = DER_PV(file)
        der.update_der_input(v_pu=float(v), p_dc_pu=float(p), f=60.0)
        der.run()
        assert der.der_status != "Trip"
        results.append(der.get_der_output("PQ_pu"))
    return np.array(results, dtype=np.float64).T[:, None]


@pytest.mark.parametrize("category", ["A", "B"])
@pytest.mark.parametrize("priority", ["ACTIVE", "REACTIVE"])
def test_volt_var_is_that_of_opender(category: Literal["A", "B"], priority: str) -> None:
    expected = opender_pu(category, QV_MODE_ENABLE=True, NP_PRIO_OUTSIDE_MIN_Q_REQ=priority)
    device = inverter(np.full((1, 1), KVA), category)._replace(has_watt_priority=np.full((1, 1), priority == "ACTIVE"))
    kw, kvar = limit_power(device, P_GRID * KVA, volt_var_kvar(device, volt_var_curve(category), V_GRID))
    np.testing.assert_allclose(np.stack((kw, kvar)) / KVA, expected, atol=1e-3)


@pytest.mark.parametrize("category", ["A", "B"])
def test_volt_watt_is_that_of_opender(category: Literal["A", "B"]) -> None:
    expected = opender_pu(category, PV_MODE_ENABLE=True)
    device = inverter(np.full((1, 1), KVA), category)
    kw = np.minimum(P_GRID * KVA, volt_watt_kw(device, volt_watt_curve(), V_GRID))
    np.testing.assert_allclose(kw / KVA, expected[0], atol=1e-3)
    assert (kw < P_GRID * KVA).any()


def test_volt_var_and_volt_watt_together_are_those_of_opender() -> None:
    expected = opender_pu("B", PV_MODE_ENABLE=True, QV_MODE_ENABLE=True)
    device = inverter(np.full((1, 1), KVA), "B")
    kw = np.minimum(P_GRID * KVA, volt_watt_kw(device, volt_watt_curve(), V_GRID))
    power = limit_power(device, kw, volt_var_kvar(device, volt_var_curve("B"), V_GRID))
    np.testing.assert_allclose(np.stack(power) / KVA, expected, atol=1e-3)


def test_volt_watt_ends_where_the_device_can_go() -> None:
    # Table 10: the lesser of 20 % and the least power; storage may be set to charge.
    device = inverter(np.full((1, 1), KVA), "B")
    for least_pu, expected in ((0.0, 0.0), (0.1, 10.0), (0.5, 20.0), (-1.0, -100.0)):
        assert volt_watt_kw(device, volt_watt_curve(least_pu), np.full((1, 1), 1.12))[0, 0] == expected


@pytest.mark.parametrize("category", ["A", "B"])
def test_watt_var_is_that_of_opender(category: Literal["A", "B"]) -> None:
    expected = opender_pu(category, QP_MODE_ENABLE=True)
    device = inverter(np.full((1, 1), KVA), category)
    kw, kvar = limit_watt_var(device, watt_var_curve(category), P_GRID * KVA)
    np.testing.assert_allclose(np.stack((kw, kvar)) / KVA, expected, atol=1e-3)
    np.testing.assert_allclose(kvar, watt_var_kvar(device, watt_var_curve(category), kw), atol=1e-9)


@pytest.mark.parametrize(("power_factor", "excitation"), [(0.95, "INJ"), (-0.92, "ABS"), (1.0, "INJ")])
def test_constant_power_factor_is_that_of_opender(power_factor: float, excitation: str) -> None:
    settings = {"CONST_PF_MODE_ENABLE": True, "CONST_PF": abs(power_factor), "CONST_PF_EXCITATION": excitation}
    expected = opender_pu("B", **settings)
    device = inverter(np.full((1, 1), KVA), "B")
    wanted = power_factor_kvar(P_GRID * KVA, np.full((1, 1), power_factor))
    kw, kvar = limit_power_factor(device, P_GRID * KVA, wanted)
    np.testing.assert_allclose(np.stack((kw, kvar)) / KVA, expected, atol=1e-3)


def test_lag_is_that_of_opender(time_step_s: Callable[[float], None]) -> None:
    step_s, response_s = 0.05, 5.0
    time_step_s(step_s)
    given_pu = np.where(np.arange(400) % 130 < 65, 0.0, 0.44)
    theirs, ours, before = LowPassFilter(), np.zeros((1, 1)), given_pu[0]
    for value in given_pu:
        expected = theirs.low_pass_filter(value, response_s)
        # OpenDER's trapezoidal rule takes the mean of an input and the one before; ours holds one input over the step.
        ours = lag(ours, np.full((1, 1), 0.5 * (value + before)), np.full((1, 1), response_s), step_s)
        before = value
        assert abs(ours[0, 0] - expected) < 1e-3


def test_lag_has_done_nine_tenths_after_its_response_time() -> None:
    after = np.zeros((1, 1))
    for _ in range(20):
        after = lag(after, np.ones((1, 1)), np.array([[5.0]]), 0.25)
    assert after[0, 0] == pytest.approx(0.9)
    assert lag(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), 1.0)[0, 0] == 1.0


def test_ramp_is_that_of_opender(time_step_s: Callable[[float], None]) -> None:
    time_step_s(1.0)
    given_pu = np.random.default_rng(1).uniform(0.0, 1.0, 200)
    theirs, ours = Ramping(), np.full((1, 1), given_pu[0])
    for value in given_pu:
        expected = theirs.ramp(value, 10.0, 5.0)
        ours = ramp(ours, np.full((1, 1), value), np.array([[0.1]]), np.array([[0.2]]), 1.0)
        assert ours[0, 0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("category", ["II", "III"])
def test_voltage_trips_when_opender_does(category: Literal["II", "III"], time_step_s: Callable[[float], None]) -> None:
    step_s = 0.08
    time_step_s(step_s)
    ratings = {"NP_P_MAX": 1e5, "NP_VA_MAX": 1e5, "NP_Q_MAX_INJ": 44e3, "NP_Q_MAX_ABS": 44e3}
    der = DER_PV(DERCommonFileFormat(NP_ABNORMAL_OP_CAT=f"CAT_{category}", ES_DELAY=300.0, **ratings))
    trip, state = voltage_trip(category), connected(1, 1)
    levels = np.array([1.0, 1.15, 1.0, 1.15, 1.0, 0.8, 1.0, 0.6, 1.0, 0.4, 1.0, 1.3, 1.0, 0.85])
    held_s = np.array([1.0, 1.5, 1.0, 14.0, 310.0, 22.0, 310.0, 11.0, 310.0, 3.0, 310.0, 0.08, 1.0, 5.0])
    was_out = []
    for v in np.repeat(levels, np.rint(held_s / step_s).astype(int)):
        der.update_der_input(v_pu=float(v), p_dc_pu=0.5, f=60.0)
        der.run()
        state = step_trip(trip, state, np.full((1, 1), v), np.full((1, 1), v), step_s)
        was_out.append((bool(state.is_tripped[0, 0]), der.der_status == "Trip"))
    ours, theirs = np.array(was_out).T
    assert np.abs(np.diff(theirs.astype(int))).sum() >= 4
    # Sums of 0.08 s round differently: a step more or less where a timer ends exactly.
    assert (ours != theirs).sum() <= 4


@given(
    kw=st.floats(-150.0, 150.0),
    kvar=st.floats(-150.0, 150.0),
    has_watt_priority=st.booleans(),
    has_night_var=st.booleans(),
)
def test_limits_hold_and_never_turn_power_round(
    *, kw: float, kvar: float, has_watt_priority: bool, has_night_var: bool
) -> None:
    device = inverter(np.full((1, 1), KVA), "A")._replace(
        has_watt_priority=np.full((1, 1), has_watt_priority), has_night_var=np.full((1, 1), has_night_var)
    )
    p, q = (array[0, 0] for array in limit_power(device, np.full((1, 1), kw), np.full((1, 1), kvar)))
    assert p**2 + q**2 <= KVA**2 * (1 + 1e-12)
    assert -25.0 <= q <= 44.0
    assert 0.0 <= p * kw <= kw * kw
    assert 0.0 <= q * kvar <= kvar * kvar


def test_priority_decides_who_gives_way() -> None:
    # 90 kW and 60 kvar of 100 kVA. Var priority: 60 kvar, sqrt(100^2 - 60^2) = 80 kW. Watt priority keeps 44 kvar
    # required at most: 89.8 kW, and reactive power gets what is left: 44 kvar.
    full = inverter(np.full((1, 1), KVA), "B")._replace(inject_kvar=np.full((1, 1), 60.0))
    for has_watt_priority, expected in ((False, (80.0, 60.0)), (True, (89.79978, 44.0))):
        device = full._replace(has_watt_priority=np.full((1, 1), has_watt_priority))
        kw, kvar = limit_power(device, np.full((1, 1), 90.0), np.full((1, 1), 60.0))
        assert (kw[0, 0], kvar[0, 0]) == pytest.approx(expected, abs=1e-4)


def test_night_var_needs_no_sun() -> None:
    day = inverter(np.full((1, 1), KVA), "B")
    night = day._replace(has_night_var=np.full((1, 1), fill_value=True))
    for device, expected in ((day, 0.0), (night, 30.0)):
        assert limit_power(device, np.zeros((1, 1)), np.full((1, 1), 30.0))[1][0, 0] == expected


def test_impossible_inverters_are_named() -> None:
    device = inverter(np.full((2, 1), KVA), "B")
    check_inverter(device)
    with pytest.raises(ConfigError, match=r"Inverter \(1, 0\): kw is 0: give a number from 1e-06 to inf"):
        check_inverter(device._replace(kw=np.array([[KVA], [0.0]])))
    with pytest.raises(ConfigError, match=r"Inverter \(0, 0\): absorb_kvar is -44"):
        check_inverter(device._replace(absorb_kvar=-device.absorb_kvar))


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="Category 'C' is not one of IEEE 1547-2018: give 'A' or 'B'"):
        volt_var_curve("C")
    with pytest.raises(ConfigError, match="Trip category 'I' has no settings"):
        voltage_trip("I")
    with pytest.raises(ConfigError, match=r"power_factor is \[0\.0\]"):
        power_factor_kvar(np.ones((1, 1)), np.zeros((1, 1)))
