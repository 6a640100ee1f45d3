"""The 6-bus network and the 24-hour series of ANM6Easy (Henry, Ernst 2021, arXiv:2103.07932), per its section 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.compat.tables import make_table
from gridray.feeders.pandapower import from_pandapower

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder

BASE_MVA = 100.0
KV = 33.0
"""Of all buses: the network is given per unit, so the transformer's other side needs no voltage of its own."""
STEPS_PER_DAY = 96


class Branches(NamedTuple):
    """Lines and the transformer: bus numbers int64, impedance complex128 and rating float64, pu, all [5]."""

    from_bus: NDArray[np.int64]
    to_bus: NDArray[np.int64]
    z: NDArray[np.complex128]
    rating: NDArray[np.float64]


class Unit(NamedTuple):
    """A controlled device, MW and Mvar; up to corner_p it gives any q to max_q, then less down to edge_q at max_p."""

    bus: int
    min_p: float
    max_p: float
    max_q: float
    corner_p: float
    edge_q: float


BRANCHES = Branches(
    np.array([0, 1, 1, 2, 2]),
    np.array([1, 2, 3, 4, 5]),
    np.array([0.0036 + 0.1834j, 0.03 + 0.022j, 0.0307 + 0.0621j, 0.0303 + 0.0611j, 0.0159 + 0.0502j]),
    np.array([32.0, 25.0, 18.0, 18.0, 18.0]) / BASE_MVA,
)
SOLAR = Unit(3, 0.0, 30.0, 30.0, 20.0, 15.0)
WIND = Unit(4, 0.0, 50.0, 50.0, 35.0, 20.0)
STORAGE = Unit(5, -50.0, 50.0, 50.0, 30.0, 25.0)
CAPACITY_MWH, EFFICIENCY = 100.0, 0.9
LOAD_BUS = (3, 4, 5)
LOAD_Q_PER_P = 0.2


def network() -> Feeder:
    """Return the network: loads at buses 3, 4, 5; solar, wind and storage as generators."""
    ohm = KV**2 / BASE_MVA
    lines = {
        n: {
            "from_bus": int(BRANCHES.from_bus[n]),
            "to_bus": int(BRANCHES.to_bus[n]),
            "length_km": 1.0,
            "r_ohm_per_km": float(z.real) * ohm,
            "x_ohm_per_km": float(z.imag) * ohm,
            "c_nf_per_km": 0.0,
        }
        for n, z in enumerate(BRANCHES.z)
    }
    return from_pandapower(
        {
            "name": "anm6",
            "bus": make_table({bus: {"vn_kv": KV} for bus in range(6)}),
            "ext_grid": make_table({0: {"bus": 0, "vm_pu": 1.0}}),
            "line": make_table(lines),
            "load": make_table({n: {"bus": bus, "p_mw": 5.0, "q_mvar": 1.0} for n, bus in enumerate(LOAD_BUS)}),
            "sgen": make_table(
                {n: {"bus": unit.bus, "p_mw": 1.0, "q_mvar": 0.0} for n, unit in enumerate((SOLAR, WIND, STORAGE))}
            ),
        }
    )


def load_series() -> NDArray[np.float64]:
    """Return MW drawn by the residential, industrial and EV loads, float64 [3, 96]."""
    return np.stack(
        [
            _day(1.0, (1.5, 4.5), 5.0, (4.625, 2.375), 2.0),
            _day(4.0, (4.75, 9.25), 10.0, (11.25, 18.75), 20.0),
            _day(0.0, (3.125, 21.875), 25.0, (21.875, 3.125), 0.0),
        ]
    )


def potential_series() -> NDArray[np.float64]:
    """Return MW available from sun and wind, float64 [2, 96], within their ratings."""
    solar = _day(0.0, (0.5, 3.5), 4.0, (7.25, 36.75), 30.0)
    wind = _day(40.0, (36.375, 14.625), 11.0, (14.725, 36.375), 40.0)
    return np.stack([np.minimum(solar, SOLAR.max_p), np.minimum(wind, WIND.max_p)])


def _day(
    night: float, up: tuple[float, float], morning: float, on: tuple[float, float], noon: float
) -> NDArray[np.float64]:
    """Return a day of plateaus and straight ramps, the evening mirroring the morning, [96]."""
    rise, over = np.linspace(up[0], up[1], 7), np.linspace(on[0], on[1], 7)
    plateaus = (np.full(25, night), np.full(13, morning), np.full(13, noon), np.full(4, night))
    parts = (plateaus[0], rise, plateaus[1], over, plateaus[2], over[::-1], plateaus[1], rise[::-1], plateaus[3])
    return np.concatenate(parts)
