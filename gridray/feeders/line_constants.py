"""Impedance and capacitance of overhead lines and cables from their geometry, number for number as OpenDSS has them.

Sources: LineConstants.pas, CNLineConstants.pas, TSLineConstants.pas and CableConstants.pas of DSS C-API 0.14 (EPRI's
OpenDSS), with its rounded constants; cables after W. H. Kersting, "Distribution System Modeling and Analysis", ch. 4;
earth return after J. R. Carson (1926, series in Tleis, "Power Systems Modelling and Fault Analysis") and after
A. Deri et al., "The complex ground return plane", IEEE Trans. PAS-100 (1981).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from gridray.errors import FeederError

if TYPE_CHECKING:
    from collections.abc import Sequence

EarthModel = Literal["carson", "fullcarson", "deri"]

# OpenDSS rounds these; nine digits of agreement need the same roundings.
EPSILON_0_F_PER_M = 8.854e-12
MU_0_H_PER_M = 12.56637e-7
TWO_PI = 6.283185307
COPPER_TAPE_OHM_M = 2.3718e-8
ONE_OVER_PI = 0.3183


@dataclass(frozen=True, kw_only=True)
class ConcentricNeutral:
    """Concentric neutral of a cable: its strands (m, ohm/m each), the insulation beneath and the whole (m).

    With semicon layers (all that DSS C-API 0.14 knows) the field ends at the insulation's surface; without, at the
    strands (Kersting's formula, and DSS C-API's from 0.15 on).
    """

    num_strands: int
    strand_diameter_m: float
    strand_gmr_m: float
    strand_r_ac_ohm_per_m: float
    eps_r: float
    insulation_thickness_m: float
    diameter_over_insulation_m: float
    diameter_over_cable_m: float
    semicon: bool = True


@dataclass(frozen=True, kw_only=True)
class TapeShield:
    """Copper tape shield of a cable: tape (m, lap in percent, 0 to below 100) and the insulation beneath (m)."""

    tape_thickness_m: float
    tape_lap_percent: float
    diameter_over_shield_m: float
    eps_r: float
    insulation_thickness_m: float
    diameter_over_insulation_m: float


@dataclass(frozen=True, kw_only=True)
class Conductor:
    """Wire, or core of a cable, at x (m, any origin) and h (m above earth; a cable is buried at either sign).

    The self capacitance of a bare wire uses capacitance_radius_m if given (bundles), else radius_m. OpenDSS takes
    r_ac for both Carson models, and r_dc with skin effect for Deri's.
    """

    x_m: float
    h_m: float
    r_ac_ohm_per_m: float
    r_dc_ohm_per_m: float
    gmr_m: float
    radius_m: float
    capacitance_radius_m: float | None = None
    cable: ConcentricNeutral | TapeShield | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LineMatrices:
    """Series impedance and shunt capacitance, each of shape (conductors, conductors), float64, symmetric.

    r_ohm_per_km and x_ohm_per_km in ohm/km, c_nf_per_km (Maxwell's: negative off the diagonal) in nF/km.
    """

    r_ohm_per_km: NDArray[np.float64]
    x_ohm_per_km: NDArray[np.float64]
    c_nf_per_km: NDArray[np.float64]


def line_constants(
    conductors: Sequence[Conductor],
    *,
    num_phases: int,
    frequency_hz: float,
    earth_resistivity_ohm_m: float = 100.0,
    earth_model: EarthModel = "deri",
    reduce: bool = True,
) -> LineMatrices:
    """Compute a line's matrices from its conductors, phases first.

    Neutrals and shields of cables are always eliminated (grounded at both ends). Conductors beyond num_phases are
    eliminated if `reduce`, else kept; of a cable among them only the core counts. If one conductor is a cable, all
    phases are; concentric neutrals beside tape shields are as in DSS C-API 0.15 (0.14 refuses them).

    Raises:
        FeederError: the geometry is impossible; lists every problem.
    """
    problems = _problems(conductors, num_phases)
    if earth_model not in get_args(EarthModel):
        problems.append(f"Earth model {earth_model!r} is not known: use one of {', '.join(get_args(EarthModel))}")
    for name, value in (("Frequency", frequency_hz), ("Earth resistivity", earth_resistivity_ohm_m)):
        if not 0.0 < value < np.inf:
            problems.append(f"{name} is {value}: give a positive number")
    if problems:
        raise FeederError("\n".join(problems))

    omega = TWO_PI * frequency_hz
    internal = np.array([_internal_impedance(c, frequency_hz, earth_model) for c in conductors])
    spacing = _distances(conductors)
    if 40.0 < frequency_hz < 1000.0:
        # Published GMRs hold at power frequency and contain the internal reactance.
        internal = internal.real.astype(np.complex128)
        np.fill_diagonal(spacing, [c.gmr_m for c in conductors])
    else:
        np.fill_diagonal(spacing, [c.radius_m for c in conductors])
    earth = _earth_impedance(conductors, frequency_hz, earth_resistivity_ohm_m, earth_model)
    shields = [c.cable for c in conductors[:num_phases] if c.cable is not None]
    if shields:
        internal = np.append(internal, [_shield_resistance(s) for s in shields])
        spacing = _with_shields(spacing, shields)
        # A shield lies where its core does, so they share the way through the earth.
        core_index = np.append(np.arange(len(conductors)), np.arange(num_phases))
        earth = earth[np.ix_(core_index, core_index)]
        c_f_per_m = _cable_capacitance(shields, len(conductors))
    else:
        c_f_per_m = _overhead_capacitance(conductors)

    z_ohm_per_m = np.diag(internal) + earth - 1j * omega * MU_0_H_PER_M / TWO_PI * np.log(spacing)
    num_kept = num_phases if reduce else len(conductors)
    z_ohm_per_km = 1e3 * _kron(z_ohm_per_m, num_kept)
    return LineMatrices(
        r_ohm_per_km=z_ohm_per_km.real,
        x_ohm_per_km=z_ohm_per_km.imag,
        # OpenDSS keeps w C by its own two pi, and divides by a better one.
        c_nf_per_km=1e12 * TWO_PI / (2.0 * np.pi) * c_f_per_m[:num_kept, :num_kept],
    )


def _problems(conductors: Sequence[Conductor], num_phases: int) -> list[str]:
    """List what is wrong with a geometry, conductors counted from 1."""
    if not 1 <= num_phases <= len(conductors):
        return [f"Line has {num_phases} phases and {len(conductors)} conductors: give a conductor for each phase"]
    problems = []
    has_cable = any(c.cable is not None for c in conductors)
    for i, c in enumerate(conductors, start=1):
        positive = {"gmr_m": c.gmr_m, "radius_m": c.radius_m, "r_ac_ohm_per_m": c.r_ac_ohm_per_m}
        positive |= {"r_dc_ohm_per_m": c.r_dc_ohm_per_m}
        if c.capacitance_radius_m is not None:
            positive["capacitance_radius_m"] = c.capacitance_radius_m
        problems += [
            f"Conductor {i} has {name} {value}: give a positive number"
            for name, value in positive.items()
            if not 0.0 < value < np.inf
        ]
        if has_cable and i <= num_phases and c.cable is None:
            problems.append(f"Conductor {i} is a bare phase among cables: give it a concentric neutral or tape shield")
        if c.cable is not None and i <= num_phases:
            problems += _cable_problems(i, c.cable)
        if not has_cable and not 0.0 < c.h_m < np.inf:
            problems.append(f"Conductor {i} has h_m {c.h_m}: hang it above the earth, or make it a cable")
        elif has_cable and (c.h_m == 0.0 or not np.isfinite(c.h_m)):
            problems.append(f"Conductor {i} has h_m {c.h_m}: give the depth or height of a cable as a number not 0")
        if not np.isfinite(c.x_m):
            problems.append(f"Conductor {i} has x_m {c.x_m}: give a finite number")
    return problems or _overlaps(conductors, num_phases)


def _cable_problems(i: int, cable: ConcentricNeutral | TapeShield) -> list[str]:
    problems = [
        f"Cable of conductor {i} has {name} {value}: give a positive number"
        for name, value in vars(cable).items()
        if name not in {"semicon", "tape_lap_percent"} and not 0.0 < value < np.inf
    ]
    if not 2.0 * cable.insulation_thickness_m < cable.diameter_over_insulation_m:
        problems.append(
            f"Cable of conductor {i} has insulation {cable.insulation_thickness_m} m thick inside a diameter of "
            f"{cable.diameter_over_insulation_m} m: give less than half the diameter"
        )
    if isinstance(cable, TapeShield) and not 0.0 <= cable.tape_lap_percent < 100.0:
        problems.append(f"Tape shield of conductor {i} laps {cable.tape_lap_percent} %: give 0 to below 100")
    if not problems and not _shield_radius(cable) > 0.0:
        problems.append(f"Shield of conductor {i} has radius {_shield_radius(cable)} m: give a larger diameter over it")
    if not problems and not _insulation_log(cable) > 0.0:
        problems.append(f"Strands of conductor {i} fill more than their circle: give fewer or thinner ones")
    return problems


def _overlaps(conductors: Sequence[Conductor], num_phases: int) -> list[str]:
    """List the conductors that touch; like OpenDSS, let cables overlap so long as no core is inside another shield."""
    distance = _distances(conductors)
    shield = [_shield_radius(c.cable) if c.cable is not None else 0.0 for c in conductors[:num_phases]]
    shield += [0.0] * (len(conductors) - num_phases)
    problems = []
    for i, a in enumerate(conductors):
        for j, b in enumerate(conductors[:i]):
            least = max(a.radius_m + b.radius_m, shield[i], shield[j])
            if distance[i, j] < least or distance[i, j] <= max(shield[i], shield[j]):
                problems.append(
                    f"Conductors {j + 1} and {i + 1} are {distance[i, j]:.6g} m apart and need {least:.6g} m: "
                    f"move one of them"
                )
    return problems


def _distances(conductors: Sequence[Conductor]) -> NDArray[np.float64]:
    """Distance between each two conductors (m), 0 on the diagonal."""
    x = np.array([c.x_m for c in conductors], dtype=np.float64)
    h = np.array([c.h_m for c in conductors], dtype=np.float64)
    return np.asarray(np.hypot(x[:, None] - x, h[:, None] - h), dtype=np.float64)


def _internal_impedance(conductor: Conductor, frequency_hz: float, earth_model: EarthModel) -> complex:
    """Internal impedance (ohm/m): with skin effect of a round wire for Deri, with r_ac and a flat field else.

    For Deri, z = (1 + j) / 2 sqrt(r_dc f mu) I0(a) / I1(a) with a = (1 + j) sqrt(f mu / r_dc).
    """
    if earth_model != "deri":
        return complex(conductor.r_ac_ohm_per_m, TWO_PI * frequency_hz * MU_0_H_PER_M / (8.0 * np.pi))
    alpha = (1.0 + 1.0j) * np.sqrt(frequency_hz * MU_0_H_PER_M / conductor.r_dc_ohm_per_m)
    # OpenDSS cuts its series off above 35.
    ratio = 1.0 if abs(alpha) > 35.0 else ive(0, alpha) / ive(1, alpha)
    return complex((1.0 + 1.0j) * ratio * np.sqrt(conductor.r_dc_ohm_per_m * frequency_hz * MU_0_H_PER_M) / 2.0)


def _earth_impedance(
    conductors: Sequence[Conductor], frequency_hz: float, rho_ohm_m: float, earth_model: EarthModel
) -> NDArray[np.complex128]:
    """Earth return between each two conductors (ohm/m); adding -j w mu/2pi ln(distance) makes the mutual impedance."""
    x = np.array([c.x_m for c in conductors], dtype=np.float64)
    h = np.abs([c.h_m for c in conductors])
    dx, h_sum = x[:, None] - x, h[:, None] + h
    omega_mu = TWO_PI * frequency_hz * MU_0_H_PER_M
    if earth_model == "carson":
        log_depth = np.log(658.5 * np.sqrt(rho_ohm_m / frequency_hz))
        return np.full(dx.shape, complex(omega_mu / 8.0, omega_mu / TWO_PI * log_depth))
    if earth_model == "deri":
        depth = 1.0 / np.sqrt(1j * omega_mu / rho_ohm_m)
        image = np.sqrt((h_sum + 2.0 * depth) ** 2 + dx**2)
        return np.asarray(1j * omega_mu / TWO_PI * np.log(image), dtype=np.complex128)
    image = np.hypot(h_sum, dx)
    return omega_mu / np.pi * _carson_series(image, np.arctan2(np.abs(dx), h_sum), frequency_hz / rho_ohm_m)


def _carson_series(
    image_m: NDArray[np.float64], theta: NDArray[np.float64], f_over_rho: float
) -> NDArray[np.complex128]:
    """Carson's correction P + jQ, four terms of the series, plus j/2 ln(image distance), as OpenDSS truncates it."""
    m = 2.8099e-3 * image_m * np.sqrt(f_over_rho)
    b1, b2 = 1.0 / (3.0 * np.sqrt(2.0)), 1.0 / 16.0
    b3, b4 = b1 / 15.0, b2 / 24.0
    c2 = 1.3659315
    c4 = c2 + 1.0 / 4.0 + 1.0 / 6.0
    odd = b3 * m**3 * np.cos(3.0 * theta)
    p = np.pi / 8.0 - b1 * m * np.cos(theta) + odd - b4 * np.pi / 4.0 * m**4 * np.cos(4.0 * theta)
    p = p + b2 * m**2 * ((c2 - np.log(m)) * np.cos(2.0 * theta) + theta * np.sin(2.0 * theta))
    q = 0.5 * np.log(1.85138 / m) + b1 * m * np.cos(theta) + odd - b2 * np.pi / 4.0 * m**2 * np.cos(2.0 * theta)
    q = q - b4 * m**4 * ((c4 - np.log(m)) * np.cos(4.0 * theta) + theta * np.sin(4.0 * theta))
    return np.asarray(p + 1j * (q + 0.5 * np.log(image_m)), dtype=np.complex128)


def _shield_radius(cable: ConcentricNeutral | TapeShield) -> float:
    """Radius to the middle of the strands or the tape (m)."""
    if isinstance(cable, ConcentricNeutral):
        return 0.5 * (cable.diameter_over_cable_m - cable.strand_diameter_m)
    return 0.5 * (cable.diameter_over_shield_m - cable.tape_thickness_m)


def _shield_resistance(cable: ConcentricNeutral | TapeShield) -> float:
    """Resistance of all strands in parallel, or of a lapped copper tape (ohm/m)."""
    if isinstance(cable, ConcentricNeutral):
        return cable.strand_r_ac_ohm_per_m / cable.num_strands
    section = cable.diameter_over_shield_m * cable.tape_thickness_m
    return float(ONE_OVER_PI * COPPER_TAPE_OHM_M / (section * np.sqrt(50.0 / (100.0 - cable.tape_lap_percent))))


def _with_shields(
    spacing: NDArray[np.float64], shields: Sequence[ConcentricNeutral | TapeShield]
) -> NDArray[np.float64]:
    """Append the shields' equivalent distances (m) to the conductors'; on the diagonal, their GMR."""
    num_cores, num_shields = len(spacing), len(shields)
    core_index = np.append(np.arange(num_cores), np.arange(num_shields))
    extended = spacing[np.ix_(core_index, core_index)]
    for i, cable in enumerate(shields):
        row, radius = num_cores + i, _shield_radius(cable)
        to_cores = spacing[i].copy()
        gmr = to_cores[i] = radius
        if isinstance(cable, ConcentricNeutral):
            k = cable.num_strands
            gmr = (cable.strand_gmr_m * k * radius ** (k - 1)) ** (1.0 / k)
            others = np.arange(num_cores) != i
            to_cores[others] *= (1.0 - (radius / to_cores[others]) ** k) ** (1.0 / k)
        extended[row, :num_cores] = extended[:num_cores, row] = to_cores
        extended[row, row] = gmr
    return extended


def _insulation_log(cable: ConcentricNeutral | TapeShield) -> float:
    """Logarithm by which the coaxial capacitance 2 pi eps / log is less."""
    outer = 0.5 * cable.diameter_over_insulation_m
    inner = outer - cable.insulation_thickness_m
    if isinstance(cable, TapeShield) or cable.semicon:
        return float(np.log(outer / inner))
    radius, k = _shield_radius(cable), cable.num_strands
    return float(np.log(radius / inner) - np.log(k * 0.5 * cable.strand_diameter_m / radius) / k)


def _cable_capacitance(shields: Sequence[ConcentricNeutral | TapeShield], size: int) -> NDArray[np.float64]:
    """Capacitance of each core to its shield (F/m); nothing between cores, and nothing to bare neutrals."""
    c = np.zeros((size, size), dtype=np.float64)
    for i, cable in enumerate(shields):
        c[i, i] = TWO_PI * EPSILON_0_F_PER_M * cable.eps_r / _insulation_log(cable)
    return c


def _overhead_capacitance(conductors: Sequence[Conductor]) -> NDArray[np.float64]:
    """Capacitance (F/m) by images in the earth: the inverse of the potential coefficients."""
    x = np.array([c.x_m for c in conductors], dtype=np.float64)
    h = np.array([c.h_m for c in conductors], dtype=np.float64)
    own = _distances(conductors)
    np.fill_diagonal(
        own, [c.radius_m if c.capacitance_radius_m is None else c.capacitance_radius_m for c in conductors]
    )
    potential = np.log(np.hypot(x[:, None] - x, h[:, None] + h) / own) / (TWO_PI * EPSILON_0_F_PER_M)
    return np.asarray(np.linalg.inv(potential), dtype=np.float64)


def _kron(z: NDArray[np.complex128], num_kept: int) -> NDArray[np.complex128]:
    """Eliminate the conductors beyond num_kept, at zero voltage."""
    if num_kept == len(z):
        return z
    coupling = z[:num_kept, num_kept:]
    reduced = z[:num_kept, :num_kept] - coupling @ np.linalg.solve(z[num_kept:, num_kept:], coupling.T)
    return np.asarray(0.5 * (reduced + reduced.T), dtype=np.complex128)
