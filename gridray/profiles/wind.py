"""Wind power: Weibull wind speeds that are correlated in time and space, and a turbine's power curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from gridray.errors import ConfigError
from gridray.profiles.processes import Clock, gaussian, in_space, sites_km, step_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINE_S = 900
"""Longest step at which wind is followed; longer steps are means of these."""
WEATHER = ((14.0, 1.2, 0.50), (110.0, 3.0, 0.50))
"""Correlation time and lag, h, and share of the variance: gusty days and weather types, fitted to simbench's WP1-12."""
WEIBULL_SHAPE = 2.0
CUT_IN_M_S, RATED_M_S, CUT_OUT_M_S = 3.0, 12.0, 25.0
"""Of a usual three-blade turbine."""


@dataclass(frozen=True, kw_only=True)
class WindConfig:
    """Sites in a disc of diameter spread_km; wind is correlated over length_km and scale_m_s is even between sites."""

    spread_km: float = 200.0
    length_km: float = 300.0
    scale_m_s: tuple[float, float] = (7.5, 12.0)
    winter_gain: float = 0.06

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("spread_km", "length_km"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0.")


def wind_pu(clock: Clock, num: int, rng: np.random.Generator, config: WindConfig | None = None) -> NDArray[np.float32]:
    """Return power over rating, 0..1, [num_steps, num]; first sites stay when more are added.

    Args:
        clock: steps.
        num: number of sites.
        rng: its children make the sites.
        config: sites and wind.
    """
    config = config or WindConfig()
    fine = clock.finer(FINE_S)
    if num == 0:
        return np.empty((clock.num_steps, 0), dtype=np.float32)
    sites = rng.spawn(num)
    distance_km = sites_km(sites, config.spread_km)
    scales = np.array([site.uniform(*config.scale_m_s) for site in sites])
    state = np.zeros((fine.num_steps, num))
    for time_h, lag_h, share in WEATHER:
        own = np.stack([gaussian(site, fine.num_steps, fine.step_h, time_h, lag_h) for site in sites], axis=1)
        state += np.sqrt(share) * in_space(own, distance_km, config.length_km)
    season = 1.0 + config.winter_gain * np.repeat(fine.winter, fine.per_day)
    weibull = (-np.log1p(-np.minimum(ndtr(state), 1.0 - 1e-12))) ** (1.0 / WEIBULL_SHAPE)
    power = power_curve(scales * season[:, None] * weibull)
    return step_means(power, clock.step_s // fine.step_s).astype(np.float32)


def power_curve(speed_m_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return power over rating: cubic from cut-in to rated speed, none beyond cut-out, of the speed's shape."""
    cubic = (speed_m_s**3 - CUT_IN_M_S**3) / (RATED_M_S**3 - CUT_IN_M_S**3)
    return np.where(speed_m_s < CUT_OUT_M_S, np.clip(cubic, 0.0, 1.0), 0.0)
