"""Line constants from geometry equal OpenDSS's, and obey physics where OpenDSS's formulas do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from dss import DSS

from gridray.errors import FeederError
from gridray.feeders.line_constants import (
    ConcentricNeutral,
    Conductor,
    EarthModel,
    LineMatrices,
    TapeShield,
    line_constants,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-11
WIRE = Conductor(
    x_m=0.0, h_m=9.0, r_ac_ohm_per_m=1.9e-4, r_dc_ohm_per_m=1.85e-4, gmr_m=7.4e-3, radius_m=9.2e-3
)  # About 336 kcmil ACSR.
NEUTRAL = replace(WIRE, r_ac_ohm_per_m=3.7e-4, r_dc_ohm_per_m=3.6e-4, gmr_m=2.5e-3, radius_m=7.2e-3)
CN = ConcentricNeutral(
    num_strands=13,
    strand_diameter_m=1.63e-3,
    strand_gmr_m=6.35e-4,
    strand_r_ac_ohm_per_m=9.2e-3,
    eps_r=2.3,
    insulation_thickness_m=5.6e-3,
    diameter_over_insulation_m=2.7e-2,
    diameter_over_cable_m=3.3e-2,
)
TS = TapeShield(
    tape_thickness_m=1.27e-4,
    tape_lap_percent=20.0,
    diameter_over_shield_m=2.24e-2,
    eps_r=2.3,
    insulation_thickness_m=5.6e-3,
    diameter_over_insulation_m=2.08e-2,
)


def _at(conductor: Conductor, *places: tuple[float, float]) -> list[Conductor]:
    return [replace(conductor, x_m=x, h_m=h) for x, h in places]


CN_CORE = replace(WIRE, gmr_m=5.2e-3, radius_m=7.2e-3, cable=CN)
TS_CORE = replace(NEUTRAL, gmr_m=3.4e-3, radius_m=4.7e-3, cable=TS)
FLAT = ((-1.2, 8.8), (-0.4, 8.8), (0.95, 8.8))
TRENCH = ((-0.15, -1.2), (0.0, -1.2), (0.16, -1.25))
BARE_IN_TRENCH = _at(NEUTRAL, (0.3, -1.2))
GEOMETRIES = {
    "overhead three-wire": (_at(WIRE, *FLAT), 3),
    "overhead four-wire": (_at(WIRE, *FLAT) + _at(NEUTRAL, (0.1, 7.6)), 3),
    "overhead five-wire": (_at(WIRE, *FLAT) + _at(NEUTRAL, (0.1, 7.6), (0.0, 11.0)), 3),
    "single phase": (_at(WIRE, (0.0, 9.1)) + _at(NEUTRAL, (0.2, 7.5)), 1),
    "two phases without neutral": (_at(WIRE, *FLAT[:2]), 2),
    "one wire": (_at(WIRE, (0.0, 9.1)), 1),
    "bundle": (_at(replace(WIRE, capacitance_radius_m=0.06), *FLAT), 3),
    "triplex": (_at(replace(WIRE, gmr_m=4e-3, radius_m=5e-3), (0.0, 6.0), (0.0135, 6.0), (0.0068, 5.9876)), 2),
    "concentric neutral, three": (_at(CN_CORE, *TRENCH), 3),
    "concentric neutral and bare": (_at(CN_CORE, *TRENCH) + BARE_IN_TRENCH, 3),
    "concentric neutral, one": (_at(CN_CORE, TRENCH[0]), 1),
    "concentric neutral, one and bare": (_at(CN_CORE, TRENCH[0]) + BARE_IN_TRENCH, 1),
    "concentric neutrals, touching": (_at(CN_CORE, (0.0, -1.0), (0.033, -1.0), (0.0165, -1.0286)), 3),
    "concentric neutral as neutral": (_at(CN_CORE, *TRENCH), 2),
    "concentric neutral, positive depth": (_at(CN_CORE, *((x, -h) for x, h in TRENCH)), 3),
    "tape shield, three": (_at(TS_CORE, *TRENCH), 3),
    "tape shield and bare": (_at(TS_CORE, *TRENCH) + BARE_IN_TRENCH, 3),
    "tape shield, one and bare": (_at(TS_CORE, TRENCH[0]) + BARE_IN_TRENCH, 1),
}


def _data_command(name: str, c: Conductor) -> str:
    common = (
        f"Rdc={c.r_dc_ohm_per_m!r} Rac={c.r_ac_ohm_per_m!r} Runits=m GMRac={c.gmr_m!r} GMRunits=m "
        f"radius={c.radius_m!r} radunits=m"
    )
    if c.capacitance_radius_m is not None:
        common += f" capradius={c.capacitance_radius_m!r}"
    if c.cable is None:
        return f"new WireData.{name} {common}"
    insulation = f"EpsR={c.cable.eps_r} InsLayer={c.cable.insulation_thickness_m!r} "
    insulation += f"DiaIns={c.cable.diameter_over_insulation_m!r} "
    if isinstance(c.cable, TapeShield):
        return (
            f"new TSData.{name} {common} {insulation} DiaShield={c.cable.diameter_over_shield_m!r} "
            f"TapeLayer={c.cable.tape_thickness_m!r} TapeLap={c.cable.tape_lap_percent!r} DiaCable=0.03"
        )
    return (
        f"new CNData.{name} {common} {insulation} k={c.cable.num_strands} DiaStrand={c.cable.strand_diameter_m!r} "
        f"GmrStrand={c.cable.strand_gmr_m!r} Rstrand={c.cable.strand_r_ac_ohm_per_m!r} "
        f"DiaCable={c.cable.diameter_over_cable_m!r}"
    )


def _opendss(
    conductors: list[Conductor], num_phases: int, frequency_hz: float, rho: float, earth_model: str, *, reduce: bool
) -> LineMatrices:
    engine = DSS.NewContext()
    place = []
    commands = [f"set defaultbasefrequency={frequency_hz}", "clear", f"new circuit.test basefreq={frequency_hz}"]
    commands.append(f"set earthmodel={earth_model}")
    for i, c in enumerate(conductors, start=1):
        commands.append(_data_command(f"d{i}", c))
        kind = "wire" if c.cable is None else "tscable" if isinstance(c.cable, TapeShield) else "cncable"
        place.append(f"cond={i} {kind}=d{i} x={c.x_m!r} h={c.h_m!r} units=m")
    size = f"nconds={len(conductors)} nphases={num_phases}"
    commands.append(f"new LineGeometry.g {size} {' '.join(place)} reduce={'y' if reduce else 'n'}")
    nodes = "".join(f".{i}" for i in range(1, 1 + (num_phases if reduce else len(conductors))))
    bus = f"bus1=sourcebus{nodes} bus2=b{nodes}"
    commands.append(f"new Line.l {bus} geometry=g length=1 units=km rho={rho}")
    commands += ["set mode=snap", "calcvoltagebases", "solve"]
    for command in commands:
        engine.Text.Command = command
    lines = engine.ActiveCircuit.Lines
    lines.Name = "l"
    size_kept = num_phases if reduce else len(conductors)
    r, x, c_nf = (
        np.asarray(m, dtype=np.float64).reshape(size_kept, size_kept)
        for m in (lines.Rmatrix, lines.Xmatrix, lines.Cmatrix)
    )
    return LineMatrices(r_ohm_per_km=r, x_ohm_per_km=x, c_nf_per_km=c_nf)


def _error(ours: LineMatrices, theirs: LineMatrices) -> float:
    """Return the largest difference of any element, relative to that element's modulus (r + jx), or to c's largest."""
    z = theirs.r_ohm_per_km + 1j * theirs.x_ohm_per_km
    dz = ours.r_ohm_per_km + 1j * ours.x_ohm_per_km - z
    dc = np.abs(ours.c_nf_per_km - theirs.c_nf_per_km).max() / theirs.c_nf_per_km.max()
    return float(max((np.abs(dz) / np.abs(z)).max(), dc))


@pytest.mark.parametrize("reduce", [True, False], ids=["reduced", "full"])
@pytest.mark.parametrize(("frequency_hz", "rho"), [(60.0, 100.0), (50.0, 7.3), (50.0, 2500.0)])
@pytest.mark.parametrize("earth_model", get_args(EarthModel))
@pytest.mark.parametrize("name", GEOMETRIES)
def test_matrices_equal_opendss(
    name: str, earth_model: EarthModel, frequency_hz: float, rho: float, *, reduce: bool
) -> None:
    conductors, num_phases = GEOMETRIES[name]
    ours = line_constants(
        conductors,
        num_phases=num_phases,
        frequency_hz=frequency_hz,
        earth_resistivity_ohm_m=rho,
        earth_model=earth_model,
        reduce=reduce,
    )
    assert _error(ours, _opendss(conductors, num_phases, frequency_hz, rho, earth_model, reduce=reduce)) < TOLERANCE


@pytest.mark.parametrize("frequency_hz", [25.0, 1200.0])
@pytest.mark.parametrize("earth_model", get_args(EarthModel))
@pytest.mark.parametrize("name", ["overhead four-wire", "concentric neutral and bare", "tape shield and bare"])
def test_internal_reactance_replaces_gmr_off_power_frequency(
    name: str, earth_model: EarthModel, frequency_hz: float
) -> None:
    conductors, num_phases = GEOMETRIES[name]
    ours = line_constants(conductors, num_phases=num_phases, frequency_hz=frequency_hz, earth_model=earth_model)
    theirs = _opendss(conductors, num_phases, frequency_hz, 100.0, earth_model, reduce=True)
    assert _error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("earth_model", get_args(EarthModel))
@pytest.mark.parametrize("name", GEOMETRIES)
def test_line_is_reciprocal_and_passive(name: str, earth_model: EarthModel) -> None:
    conductors, num_phases = GEOMETRIES[name]
    line = line_constants(conductors, num_phases=num_phases, frequency_hz=50.0, earth_model=earth_model)
    matrices: tuple[NDArray[np.float64], ...] = (line.r_ohm_per_km, line.x_ohm_per_km, line.c_nf_per_km)
    for matrix in matrices:
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
        assert np.linalg.eigvalsh(matrix).min() > 0.0
    off_diagonal = line.c_nf_per_km[~np.eye(num_phases, dtype=bool)]
    assert (off_diagonal <= 0.0).all()


@pytest.mark.parametrize("name", ["overhead three-wire", "concentric neutral, three", "tape shield, three"])
def test_order_of_phases_permutes_matrices(name: str) -> None:
    conductors, _ = GEOMETRIES[name]
    order = [2, 0, 1]
    line = line_constants(conductors, num_phases=3, frequency_hz=60.0)
    permuted = line_constants([conductors[i] for i in order], num_phases=3, frequency_hz=60.0)
    index = np.ix_(order, order)
    np.testing.assert_allclose(permuted.r_ohm_per_km, line.r_ohm_per_km[index], rtol=1e-12)
    np.testing.assert_allclose(permuted.x_ohm_per_km, line.x_ohm_per_km[index], rtol=1e-12)
    np.testing.assert_allclose(permuted.c_nf_per_km, line.c_nf_per_km[index], rtol=1e-12)


def test_mixed_cables_keep_each_its_own_capacitance() -> None:
    mixed = [*_at(CN_CORE, TRENCH[0]), *_at(TS_CORE, TRENCH[1])]
    line = line_constants(mixed, num_phases=2, frequency_hz=60.0)
    alone = [line_constants([c], num_phases=1, frequency_hz=60.0).c_nf_per_km[0, 0] for c in mixed]
    np.testing.assert_allclose(line.c_nf_per_km, np.diag(alone), rtol=1e-12)
    assert np.linalg.eigvalsh(line.r_ohm_per_km).min() > 0.0


def test_bare_phase_beside_cabled_neutral_is_refused() -> None:
    with pytest.raises(FeederError, match="Conductor 1 is a bare phase among cables"):
        line_constants(_at(WIRE, (0.0, 9.0)) + _at(CN_CORE, (1.0, 9.0)), num_phases=1, frequency_hz=60.0)


def test_strands_without_semicon_raise_no_field_beyond_them() -> None:
    # Kersting, chapter 5: C = 2 pi eps / (ln(Rb / RDc) - ln(k RDs / Rb) / k); here Rb = 15.685 mm, RDc = 7.9 mm,
    # RDs = 0.815 mm, k = 13: ln 1.985443 - ln(0.675486) / 13 = 0.685842 + 0.030179 = 0.716021.
    cable = replace(CN, semicon=False)
    line = line_constants(_at(replace(CN_CORE, cable=cable), TRENCH[0]), num_phases=1, frequency_hz=60.0)
    expected_nf_per_km = 2.0 * np.pi * 8.854e-12 * 2.3 / 0.716021 * 1e12
    np.testing.assert_allclose(line.c_nf_per_km, [[expected_nf_per_km]], rtol=2e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"h_m": -1.0}, "Conductor 2 has h_m -1.0: hang it above the earth"),
        ({"h_m": 0.0}, "Conductor 2 has h_m 0.0"),
        ({"gmr_m": 0.0}, "Conductor 2 has gmr_m 0.0: give a positive number"),
        ({"radius_m": float("nan")}, "Conductor 2 has radius_m nan"),
        ({"r_dc_ohm_per_m": -1.0}, "Conductor 2 has r_dc_ohm_per_m -1.0"),
        ({"capacitance_radius_m": 0.0}, "Conductor 2 has capacitance_radius_m 0.0"),
        ({"x_m": float("inf")}, "Conductor 2 has x_m inf"),
        ({"x_m": -1.19, "h_m": 8.8}, "Conductors 1 and 2 are 0.01 m apart and need 0.0184 m"),
    ],
)
def test_impossible_wire_is_named(change: dict[str, float], words: str) -> None:
    conductors = _at(WIRE, *FLAT)
    conductors[1] = replace(conductors[1], **change)
    with pytest.raises(FeederError, match=words):
        line_constants(conductors, num_phases=3, frequency_hz=60.0)


@pytest.mark.parametrize(
    ("cable", "words"),
    [
        (None, "Conductor 2 is a bare phase among cables"),
        (replace(CN, num_strands=0), "Cable of conductor 2 has num_strands 0"),
        (replace(CN, insulation_thickness_m=0.02), "insulation 0.02 m thick inside a diameter of 0.027 m"),
        (replace(CN, diameter_over_cable_m=1e-3), "Shield of conductor 2 has radius"),
        (replace(CN, diameter_over_cable_m=0.8), "Conductors 1 and 2 are 0.15 m apart and need 0.399185 m"),
        (replace(TS, tape_lap_percent=100.0), "Tape shield of conductor 2 laps 100.0 %"),
    ],
)
def test_impossible_cable_is_named(cable: ConcentricNeutral | TapeShield | None, words: str) -> None:
    conductors = _at(CN_CORE, *TRENCH)
    conductors[1] = replace(conductors[1], cable=cable)
    with pytest.raises(FeederError, match=words):
        line_constants(conductors, num_phases=3, frequency_hz=60.0)


def test_every_problem_is_listed() -> None:
    with pytest.raises(FeederError) as error:
        line_constants(
            _at(replace(WIRE, gmr_m=-1.0, radius_m=0.0), (0.0, 9.0)),
            num_phases=1,
            frequency_hz=0.0,
            earth_resistivity_ohm_m=-5.0,
            earth_model="wet",  # type: ignore[arg-type]
        )
    for words in ("gmr_m -1.0", "radius_m 0.0", "Frequency is 0.0", "Earth resistivity is -5.0", "'wet' is not known"):
        assert words in str(error.value)


def test_too_few_conductors_are_refused() -> None:
    with pytest.raises(FeederError, match="3 phases and 1 conductors"):
        line_constants(_at(WIRE, (0.0, 9.0)), num_phases=3, frequency_hz=60.0)
