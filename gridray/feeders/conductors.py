"""Line codes of overhead lines and cables from their conductors, by Carson's modified equations.

Formulas: W. H. Kersting, "Distribution System Modeling and Analysis", chapters 4 and 5 (60 Hz, earth of 100 ohm m;
he gives ohm per mile, feet for distances and microfarad per mile).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.feeders.components import LineCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import Matrix

KM_PER_MILE = 1.609344
EARTH_R_OHM_PER_MILE = 0.09530
CARSON_OHM_PER_MILE = 0.12134
CARSON_OFFSET = 7.93402
POTENTIAL_MILE_PER_UF = 11.17689
"""1 / (2 pi epsilon) in air."""
CABLE_UF_PER_MILE = 0.20521
"""2 pi epsilon in cross-linked polyethylene (2.3 times air)."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Bare conductor: AC resistance, geometric mean radius and diameter; what it may carry."""

    name: str
    r_ohm_per_mile: float
    gmr_ft: float
    diameter_in: float
    ampacity_a: float


@dataclass(frozen=True, kw_only=True)
class Cable:
    """Concentric-neutral cable: its core, the diameter over the neutral, and the neutral's strands."""

    name: str
    core: Wire
    diameter_in: float
    strand: Wire
    num_strands: int


def overhead_line_code(
    name: str,
    wire: Wire,
    neutral: Wire,
    phase_xy_ft: tuple[tuple[float, float], ...],
    neutral_xy_ft: tuple[float, float],
) -> LineCode:
    """Return the line code of phases and one grounded neutral at these places (x, height above ground)."""
    places = np.array([*phase_xy_ft, neutral_xy_ft])
    wires = [wire] * len(phase_xy_ft) + [neutral]
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    image = np.linalg.norm(places[:, None] - places[None] * [1.0, -1.0], axis=2)
    radius = np.array([w.diameter_in / 24.0 for w in wires])
    potential = POTENTIAL_MILE_PER_UF * np.log(image / (distance + np.diag(radius)))
    z = _carson([w.r_ohm_per_mile for w in wires], distance + np.diag([w.gmr_ft for w in wires]))
    num = len(phase_xy_ft)
    return _line_code(name, _kron(z, num), np.linalg.inv(_kron(potential, num)).real)


def cable_line_code(name: str, cable: Cable, phase_x_ft: tuple[float, ...]) -> LineCode:
    """Return the line code of concentric-neutral cables side by side at these places."""
    num, k = len(phase_x_ft), cable.num_strands
    ring_ft = (cable.diameter_in - cable.strand.diameter_in) / 24.0
    ring_gmr = (cable.strand.gmr_ft * k * ring_ft ** (k - 1)) ** (1.0 / k)
    x = np.array(phase_x_ft)
    apart = np.abs(x[:, None] - x[None])
    core, ring = apart + cable.core.gmr_ft * np.eye(num), apart + ring_gmr * np.eye(num)
    between = apart + ring_ft * np.eye(num)
    r = [cable.core.r_ohm_per_mile] * num + [cable.strand.r_ohm_per_mile / k] * num
    z = _carson(r, np.block([[core, between], [between, ring]]))
    logs = np.log(ring_ft / (cable.core.diameter_in / 24.0))
    logs -= np.log(k * (cable.strand.diameter_in / 24.0) / ring_ft) / k
    return _line_code(name, _kron(z, num), np.diag([CABLE_UF_PER_MILE / float(logs)] * num))


def _carson(r_ohm_per_mile: list[float], distance_ft: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Carson's modified equations: z_ij = r_ii + 0.0953 + j 0.12134 (ln 1/D_ij + 7.93402), ohm/mile."""
    reactance = CARSON_OHM_PER_MILE * (np.log(1.0 / distance_ft) + CARSON_OFFSET)
    return np.diag(r_ohm_per_mile) + EARTH_R_OHM_PER_MILE + 1j * reactance


def _kron(matrix: NDArray[np.complex128], num_phases: int) -> NDArray[np.complex128]:
    """Eliminate the grounded neutrals behind the phases."""
    m = num_phases
    return matrix[:m, :m] - matrix[:m, m:] @ np.linalg.solve(matrix[m:, m:], matrix[m:, :m])


def _line_code(name: str, z_ohm_per_mile: NDArray[np.complex128], c_uf_per_mile: NDArray[np.floating]) -> LineCode:
    z = z_ohm_per_mile / KM_PER_MILE
    return LineCode(
        name=name,
        r_ohm_per_km=_matrix(z.real),
        x_ohm_per_km=_matrix(z.imag),
        c_nf_per_km=_matrix(c_uf_per_mile * 1e3 / KM_PER_MILE),
    )


def _matrix(values: NDArray[np.floating]) -> Matrix:
    symmetric = (values + values.T) / 2.0
    return tuple(tuple(float(v) for v in row) for row in symmetric)
