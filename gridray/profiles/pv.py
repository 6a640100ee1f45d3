"""PV: pvlib's clear sky on each site's own plane, under clouds that pass over the sites with the wind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pvlib import clearsky, irradiance, spa

from gridray.errors import ConfigError
from gridray.profiles.processes import Clock, gaussian, in_space, sites_km, step_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINE_S = 300
"""Longest step at which clouds are followed; longer steps are means of these."""
TURBIDITY = 3.0
"""Turbidity factor of a temperate place, yearly mean, as pvlib's monthly maps have it: 2.5 to 4."""
ALBEDO = 0.2
PERFORMANCE = 0.88
"""AC power over DC rating at 1000 W/m2 in the plane: heat, dirt, wiring, inverter; PVWatts version 5 takes 0.86."""


class CloudLayer(NamedTuple):
    """Part of the sky: correlation time and lag, h, and its weight in standard deviations."""

    time_h: float
    smooth_h: float
    weight: float


LAYERS = (
    CloudLayer(20.0, 2.0, 0.75),
    CloudLayer(1.5, 0.3, 0.50),
    CloudLayer(0.3, 0.1, 0.40),
    CloudLayer(0.03, 0.0006, 1.00),
)
GAIN = 2.6
"""Weather fronts, cloud fields, groups of clouds and single clouds, whose edges take 2 s to pass."""


@dataclass(frozen=True, kw_only=True)
class PvConfig:
    """Place, sky and planes of PV sites.

    cloud_bias moves the sky's state in standard deviations: above 0 is clearer. Clouds drift at cloud_speed_m_s, so
    that a layer's correlation falls with distance over speed times its correlation time (Hoff and Perez, Solar Energy
    2012). Sites lie in a disc of diameter
    spread_km and are each area_km wide; tilts are even in tilt_deg, azimuths normal around the equator's side.
    """

    latitude_deg: float = 36.1
    longitude_deg: float = -79.9
    cloud_bias: float = 0.6
    cloud_speed_m_s: float = 10.0
    spread_km: float = 8.0
    area_km: float = 0.1
    tilt_deg: tuple[float, float] = (15.0, 40.0)
    azimuth_std_deg: float = 35.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not -66.0 <= self.latitude_deg <= 66.0:
            raise ConfigError(f"latitude_deg is {self.latitude_deg}: give -66 to 66, where the sun rises every day.")
        for name in ("cloud_speed_m_s", "spread_km", "area_km"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0.")


def pv_pu(clock: Clock, num: int, rng: np.random.Generator, config: PvConfig | None = None) -> NDArray[np.float32]:
    """Return AC power available over the DC rating, 0..1.1, [num_steps, num]; first sites stay when more are added.

    Args:
        clock: steps of local mean solar time.
        num: number of sites.
        rng: its children make the sites.
        config: place, sky and planes.
    """
    config = config or PvConfig()
    fine = clock.finer(FINE_S)
    if num == 0:
        return np.empty((clock.num_steps, 0), dtype=np.float32)
    sites = rng.spawn(num)
    distance_km = sites_km(sites, config.spread_km)
    equator = 180.0 if config.latitude_deg >= 0.0 else 0.0
    planes = [
        (own.uniform(*config.tilt_deg), equator + config.azimuth_std_deg * own.standard_normal()) for own in sites
    ]
    index = clear_sky_index(fine, sites, distance_km, config)
    sky = _sky(fine, config)
    series = np.zeros((clock.num_steps, num), dtype=np.float32)
    for column, plane in enumerate(planes):
        power = np.zeros(fine.num_steps)
        power[sky.is_day] = _power(sky, index[sky.is_day, column], plane)
        series[:, column] = step_means(power, clock.step_s // fine.step_s)
    return series


def sun_position(
    unix_s: NDArray[np.float64], latitude_deg: float, longitude_deg: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sun's apparent zenith and its azimuth, degrees, by NREL's algorithm in standard air."""
    sun = spa.solar_position(unix_s, latitude_deg, longitude_deg, 0.0, 1013.25, 12.0, 67.0, 0.5667)
    return sun[0], sun[4]


def plane_pu(
    ghi: NDArray[np.float64],
    dni: NDArray[np.float64],
    dhi: NDArray[np.float64],
    sun_deg: tuple[NDArray[np.float64], NDArray[np.float64]],
    plane_deg: tuple[float, float],
) -> NDArray[np.float64]:
    """Return AC power over rating of a plane under an isotropic sky, 0..1.1, [num_steps].

    Args:
        ghi: global horizontal irradiance, W/m2, [num_steps].
        dni: direct normal irradiance, likewise.
        dhi: diffuse horizontal irradiance, likewise.
        sun_deg: the sun's zenith and azimuth, [num_steps] each.
        plane_deg: tilt, and azimuth clockwise from north.
    """
    tilt, azimuth = plane_deg
    direct = dni * np.maximum(irradiance.aoi_projection(tilt, azimuth, *sun_deg), 0.0)
    view = 0.5 * (1.0 + np.cos(np.radians(tilt)))
    plane = direct + dhi * view + ghi * ALBEDO * (1.0 - view)
    power: NDArray[np.float64] = np.clip(PERFORMANCE * plane / 1000.0, 0.0, 1.1)
    return power


def clear_sky_index(
    clock: Clock, sites: list[np.random.Generator], distance_km: NDArray[np.float64], config: PvConfig
) -> NDArray[np.float64]:
    """Return irradiance over clear sky's, 0.05..1.06, [num_steps, num_sites].

    A logistic of the layers' sum: most time is spent near overcast or near clear, as in measurements (Skartveit and
    Olseth, Solar Energy 1992). What a step or a plant's area averages out of a layer lowers the layer's variance and
    flattens the logistic instead, by the probit approximation of the logistic's mean over a normal distribution.
    """
    speed_km_h = 3.6 * config.cloud_speed_m_s
    passing_h = config.area_km / speed_km_h
    state = np.full((clock.num_steps, len(sites)), config.cloud_bias)
    lost = 0.0
    for layer in LAYERS:
        kept = _kept_variance(layer, clock.step_h + passing_h)
        lost += layer.weight**2 * (1.0 - kept)
        lag_h = layer.smooth_h + passing_h
        own = np.stack([gaussian(site, clock.num_steps, clock.step_h, layer.time_h, lag_h) for site in sites], axis=1)
        state += layer.weight * np.sqrt(kept) * in_space(own, distance_km, speed_km_h * (layer.time_h + passing_h))
    gain = GAIN / np.sqrt(1.0 + np.pi / 8.0 * GAIN**2 * lost)
    index: NDArray[np.float64] = 0.05 + 1.01 / (1.0 + np.exp(-gain * state))
    return index


def _kept_variance(layer: CloudLayer, window_h: float) -> float:
    """Return the share of an Ornstein-Uhlenbeck process's variance that its mean over a window has."""
    time_h = layer.time_h + layer.smooth_h
    ratio = time_h / window_h
    return float(2.0 * ratio * (1.0 - ratio * (1.0 - np.exp(-1.0 / ratio))))


class _Sky(NamedTuple):
    """Sun of the steps when it is up: is_day bool [num_steps]; zenith, azimuth (degrees), clear (W/m2), day of year."""

    is_day: NDArray[np.bool_]
    zenith: NDArray[np.float64]
    azimuth: NDArray[np.float64]
    clear: NDArray[np.float64]
    day_of_year: NDArray[np.int64]


def _sky(clock: Clock, config: PvConfig) -> _Sky:
    days = clock.dates.astype("datetime64[s]").astype(np.int64)
    local_s = (days[:, None] + clock.hour[None, :] * 3600.0).ravel()
    sun = sun_position(local_s - config.longitude_deg * 240.0, config.latitude_deg, config.longitude_deg)
    is_day = sun[0] < 89.0
    zenith, azimuth = sun[0][is_day], sun[1][is_day]
    # Air mass of Kasten and Young, Applied Optics 1989.
    air_mass = 1.0 / (np.cos(np.radians(zenith)) + 0.50572 * (96.07995 - zenith) ** -1.6364)
    day_of_year = np.repeat(clock.day_of_year, clock.per_day)[is_day] + 1
    extra = irradiance.get_extra_radiation(day_of_year)
    clear = clearsky.ineichen(zenith, air_mass, TURBIDITY, dni_extra=extra)["ghi"]
    return _Sky(is_day, zenith, azimuth, clear, day_of_year)


def _power(sky: _Sky, index: NDArray[np.float64], plane: tuple[float, float]) -> NDArray[np.float64]:
    ghi = sky.clear * index
    split = irradiance.erbs(ghi, sky.zenith, sky.day_of_year)
    return plane_pu(ghi, split["dni"], split["dhi"], (sky.zenith, sky.azimuth), plane)
