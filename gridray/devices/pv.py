"""PV systems: irradiance and temperature to DC and AC power, by PVWatts as pvlib documents it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pvlib import inverter, irradiance, pvsystem, temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALBEDO = 0.25
"""Share of the light that grass reflects."""


class PvSystem(NamedTuple):
    """N arrays with their inverters.

    dc_kw: float64 [N, 1 or E], power of the modules at 1000 W/m2 and 25 degC, after soiling and wiring.
    ac_kw: float64 [N, 1 or E], most AC power of the inverter: it clips there.
    tilt_deg, azimuth_deg: float64 [N, 1 or E], slope (0 level) and direction (180 south).
    gamma_per_k: float64 [N, 1 or E], power per kelvin of the cell, about -0.004.
    u0_w_m2_k, u1_ws_m3_k: float64 [N, 1 or E], heat losses of the module, 25 and 6.84 (IEC 61853-2, Faiman).
    inverter_efficiency: float64 [N, 1 or E], nominal, about 0.96.
    """

    dc_kw: NDArray[np.float64]
    ac_kw: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    azimuth_deg: NDArray[np.float64]
    gamma_per_k: NDArray[np.float64]
    u0_w_m2_k: NDArray[np.float64]
    u1_ws_m3_k: NDArray[np.float64]
    inverter_efficiency: NDArray[np.float64]


class Sun(NamedTuple):
    """Where the sun stands and what it sends, at the site of each item.

    zenith_deg, azimuth_deg: float64 [N or 1, 1 or E].
    ghi_w_m2, dni_w_m2, dhi_w_m2: float64 [N or 1, 1 or E], global horizontal, direct normal, diffuse horizontal.
    """

    zenith_deg: NDArray[np.float64]
    azimuth_deg: NDArray[np.float64]
    ghi_w_m2: NDArray[np.float64]
    dni_w_m2: NDArray[np.float64]
    dhi_w_m2: NDArray[np.float64]


def plane_w_m2(pv: PvSystem, sun: Sun) -> NDArray[np.float64]:
    """Return the irradiance on the modules, W/m2, [N, E]: direct, isotropic sky and ground (Liu and Jordan, 1963)."""
    cosine = irradiance.aoi_projection(pv.tilt_deg, pv.azimuth_deg, sun.zenith_deg, sun.azimuth_deg)
    direct = np.maximum(cosine, 0.0) * sun.dni_w_m2
    sky = irradiance.isotropic(pv.tilt_deg, sun.dhi_w_m2)
    ground = irradiance.get_ground_diffuse(pv.tilt_deg, sun.ghi_w_m2, ALBEDO)
    total: NDArray[np.float64] = direct + sky + ground
    return total


def cell_temperature_c(
    pv: PvSystem, plane_w_m2: NDArray[np.float64], air_c: NDArray[np.float64], wind_m_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return air + irradiance / (u0 + u1 wind), degC, [N, E] (Faiman, 2008)."""
    cell: NDArray[np.float64] = temperature.faiman(plane_w_m2, air_c, wind_m_s, pv.u0_w_m2_k, pv.u1_ws_m3_k)
    return cell


def dc_power_kw(pv: PvSystem, plane_w_m2: NDArray[np.float64], cell_c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return G / 1000 dc_kw (1 + gamma (T - 25)), kW, never below 0, [N, E] (Dobos, NREL/TP-6A20-62641)."""
    dc_kw: NDArray[np.float64] = np.maximum(pvsystem.pvwatts_dc(plane_w_m2, cell_c, pv.dc_kw, pv.gamma_per_k), 0.0)
    return dc_kw


def ac_power_kw(pv: PvSystem, dc_kw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the inverter can inject of this DC power, kW, clipped at its rating, [N, E].

    Efficiency is nom / 0.9637 (-0.0162 z - 0.0059 / z + 0.9858) with z = dc / (ac_kw / nom) (Dobos, as above).
    """
    limit_kw, nominal = np.broadcast_arrays(pv.ac_kw / pv.inverter_efficiency, pv.inverter_efficiency)
    ac_kw: NDArray[np.float64] = inverter.pvwatts(dc_kw, limit_kw, nominal)
    return ac_kw
