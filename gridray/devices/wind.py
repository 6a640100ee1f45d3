"""Wind turbines: wind at hub height to power."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WindTurbine(NamedTuple):
    """N turbines.

    kw: float64 [N, 1 or E], rated power.
    cut_in_m_s, rated_m_s, cut_out_m_s: float64 [N, 1 or E], wind at hub height that starts, fills and stops it.
    hub_m: float64 [N, 1 or E], height of the hub; shear: float64 [N, 1 or E], exponent of the wind profile, 1/7 over
        open land.
    """

    kw: NDArray[np.float64]
    cut_in_m_s: NDArray[np.float64]
    rated_m_s: NDArray[np.float64]
    cut_out_m_s: NDArray[np.float64]
    hub_m: NDArray[np.float64]
    shear: NDArray[np.float64]


def hub_wind_m_s(turbine: WindTurbine, wind_m_s: NDArray[np.float64], height_m: float) -> NDArray[np.float64]:
    """Return the wind at the hub, measured at height_m: v (hub / height)^shear (IEC 61400-1, 6.3.2.2), [N, E]."""
    hub: NDArray[np.float64] = wind_m_s * (turbine.hub_m / height_m) ** turbine.shear
    return hub


def wind_power_kw(turbine: WindTurbine, hub_m_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kW injected, [N, E]: rated (v^3 - in^3) / (rated^3 - in^3) below rated wind, rated up to cut-out, else 0.

    The cubic law between cut-in and rated wind as in Carrillo et al., "Review of power curve modelling for wind
    turbines", Renewable and Sustainable Energy Reviews 21 (2013).
    """
    start = turbine.cut_in_m_s**3
    share = np.clip((hub_m_s**3 - start) / (turbine.rated_m_s**3 - start), 0.0, 1.0)
    return np.where(hub_m_s < turbine.cut_out_m_s, turbine.kw * share, 0.0)
