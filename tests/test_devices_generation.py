"""PV and wind: pvlib's own numbers, formulas by hand, and curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvlib.irradiance import get_total_irradiance
from pvlib.pvsystem import Array, FixedMount, PVSystem

from gridray.devices.curves import Curve, curve, evaluate
from gridray.devices.pv import PvSystem, Sun, ac_power_kw, cell_temperature_c, dc_power_kw, plane_w_m2
from gridray.devices.wind import WindTurbine, hub_wind_m_s, wind_power_kw

# Two systems: a south roof whose inverter clips, and a steep west one.
PV = PvSystem(
    *(
        np.array(values, dtype=np.float64)[:, None]
        for values in (
            [10.0, 5.0],
            [7.0, 5.0],
            [30.0, 60.0],
            [180.0, 270.0],
            [-0.004, -0.003],
            [25.0, 30.0],
            [6.84, 6.0],
            [0.96, 0.97],
        )
    )
)


def test_chain_is_that_of_pvlib_through_a_day() -> None:
    # A clear day: the sun rises in the east, stands 13 degrees from the zenith at noon and sets in the west.
    angle = np.linspace(-180.0, 180.0, 96, endpoint=False)
    zenith, azimuth = 13.0 + 0.5 * np.abs(angle) ** 1.1, 180.0 + np.clip(angle, -110.0, 110.0)
    dni, dhi = np.where(zenith < 90.0, 700.0, 0.0), np.where(zenith < 90.0, 120.0, 0.0)
    ghi = dni * np.cos(np.radians(zenith)) + dhi
    sun = Sun(*(values[None] for values in (zenith, azimuth, ghi, dni, dhi)))
    air, wind = np.full((1, 96), 28.0), np.full((1, 96), 2.0)
    plane = plane_w_m2(PV, sun)
    dc = dc_power_kw(PV, plane, cell_temperature_c(PV, plane, air, wind))
    ac = ac_power_kw(PV, dc)
    for n in range(2):
        tilt, azimuth_deg = PV.tilt_deg[n, 0], PV.azimuth_deg[n, 0]
        total = get_total_irradiance(tilt, azimuth_deg, zenith, azimuth, dni, ghi, dhi, model="isotropic")["poa_global"]
        np.testing.assert_allclose(plane[n], total, rtol=1e-12)
        array = Array(
            FixedMount(tilt, azimuth_deg),
            module_parameters={"pdc0": PV.dc_kw[n, 0], "gamma_pdc": PV.gamma_per_k[n, 0]},
            temperature_model_parameters={"u0": PV.u0_w_m2_k[n, 0], "u1": PV.u1_ws_m3_k[n, 0]},
        )
        efficiency = PV.inverter_efficiency[n, 0]
        inverter = {"pdc0": PV.ac_kw[n, 0] / efficiency, "eta_inv_nom": efficiency}
        system = PVSystem([array], inverter_parameters=inverter)
        cell = system.get_cell_temperature(total, 28.0, 2.0, model="faiman")
        np.testing.assert_allclose(dc[n], system.pvwatts_dc(total, cell), rtol=1e-12)
        np.testing.assert_allclose(ac[n], system.get_ac("pvwatts", system.pvwatts_dc(total, cell)), rtol=1e-12)
    assert ac[0].max() == 7.0
    assert ac.min() == 0.0


def test_modules_give_their_rating_at_standard_conditions_and_lose_with_heat() -> None:
    bright = np.full((2, 1), 1000.0)
    np.testing.assert_allclose(dc_power_kw(PV, bright, np.full((2, 1), 25.0)), [[10.0], [5.0]])
    # 20 K hotter: 8 % and 6 % less.
    np.testing.assert_allclose(dc_power_kw(PV, bright, np.full((2, 1), 45.0)), [[9.2], [4.7]])
    # 20 degC + 800 / (25 + 6.84 x 1) and 800 / (30 + 6).
    cell = cell_temperature_c(PV, np.full((2, 1), 800.0), np.full((2, 1), 20.0), np.ones((2, 1)))
    np.testing.assert_allclose(cell, [[20.0 + 800.0 / 31.84], [20.0 + 800.0 / 36.0]])


def test_wind_power_follows_its_curve() -> None:
    turbine = WindTurbine(*(np.full((1, 1), value) for value in (100.0, 3.0, 12.0, 25.0, 80.0, 1.0 / 7.0)))
    wind = np.array([[0.0, 3.0, 6.0, 12.0, 24.9, 25.0]])
    # (6^3 - 3^3) / (12^3 - 3^3) = 189 / 1701 = 1/9.
    np.testing.assert_allclose(wind_power_kw(turbine, wind), [[0.0, 0.0, 100.0 / 9.0, 100.0, 100.0, 0.0]])
    # From 10 m to 80 m over open land: 8^(1/7).
    assert hub_wind_m_s(turbine, np.full((1, 1), 5.0), 10.0)[0, 0] == pytest.approx(5.0 * 8.0 ** (1.0 / 7.0))


@given(x=st.floats(-10.0, 10.0), points=st.lists(st.integers(-500, 500), min_size=2, max_size=6, unique=True))
def test_curves_are_numpys_interpolation(x: float, points: list[int]) -> None:
    xs, ys = [point / 100.0 for point in sorted(points)], [float(i % 3) for i in range(len(points))]
    got = evaluate(curve(xs, ys), np.full((1, 1), x))[0, 0]
    assert got == pytest.approx(np.interp(x, xs, ys), abs=1e-12)


def test_each_item_has_its_own_curve_and_may_jump() -> None:
    x = np.array([[[0.0], [0.0]], [[1.0], [0.0]], [[2.0], [1.0]]])
    y = np.array([[[0.0], [5.0]], [[1.0], [7.0]], [[0.0], [9.0]]])
    got = evaluate(Curve(x, y), np.array([[0.5, 1.5, 3.0], [-0.1, 0.0, 0.5]]))
    np.testing.assert_allclose(got, [[0.5, 0.5, 0.0], [5.0, 7.0, 8.0]])
