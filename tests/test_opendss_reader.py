"""Reader of OpenDSS models: OpenDSS itself reads the same text and must have the same elements."""

# ruff: noqa: ANN401
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridray.errors import FeederError
from gridray.feeders.library import load_feeder
from gridray.feeders.opendss import files, read_opendss

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.feeders.components import Line
    from gridray.feeders.feeder import Feeder

CIRCUIT = "new circuit.t basekv=12.47 pu=1.02 mvasc3=300 mvasc1=250\n"
LINES = """
new linecode.a nphases=3 r1=.3 x1=.4 r0=.5 x0=1.2 c1=10 c0=4 units=mi
new linecode.b nphases=2 rmatrix=(.3 | .1 .3) xmatrix=[.8|.4 .8] units=kft
new linecode.k nphases=4 units=km rmatrix=[.3|.1 .3|.1 .1 .3|.1 .1 .1 .4]
~ xmatrix=[.8|.4 .8|.4 .4 .8|.4 .4 .4 .9] cmatrix=[8|-1 8|-1 -1 8|-1 -1 -1 9] kron=y
new linecode.f nphases=3 r1=.3 basefreq=50
new line.a bus1=sourcebus bus2=b linecode=a length=(3 2 *) units=km
new line.b bus1=b.3.1 bus2=c.3.1 linecode=b length=300 units=ft
new line.c bus1=b bus2=d linecode=k length=.3 units=mi
new line.d b e length=2 r1=.1 x1=.2 units=km
new line.e bus1=b bus2=f switch=y ! a switch
new line.f bus1=b.2 bus2=g.2 phases=1 linecode=a length=2
new line.g bus1=b bus2=h linecode=f length=2
"""
GEOMETRY = """
new wiredata.c runits=mi rac=0.306 gmrunits=ft gmrac=0.0244 radunits=in diam=0.721
new linegeometry.a nconds=4 nphases=3 reduce=yes cond=1 wire=c x=-4 h=28 units=ft cond=2 wire=c x=-1.5 h=28
~ cond=3 wire=c x=3 h=28 cond=4 wire=c x=0 h=24
new linespacing.s nconds=4 nphases=3 units=ft x=[-4 -1.5 3 0] h=[28 28 28 24]
new line.a bus1=sourcebus bus2=b geometry=a length=2 units=mi
new line.b bus1=b bus2=c spacing=s wires=[c c c c] length=2000 units=ft
"""
CABLES = """
new cndata.c k=13 diastrand=.064 gmrstrand=.00208 rstrand=14.87 inslayer=.22 diains=1.06 diacable=1.16
~ rac=.41 gmrac=.0171 diam=.567 runits=mi radunits=in gmrunits=ft
new cndata.d k=6 diastrand=.064 rstrand=14.87 epsr=2.5 inslayer=.22 diains=1.06 diacable=1.16
~ rac=.41 diam=.567 runits=mi radunits=in gmrunits=cm
new tsdata.t diashield=.88 tapelayer=.005 tapelap=20 inslayer=.22 diains=.82 diacable=1.06
~ rac=.97 diam=.368 runits=mi radunits=in gmrunits=ft
new wiredata.w rac=.303 runits=mi gmrac=.0244 gmrunits=ft radunits=in
new linespacing.s nconds=4 nphases=3 units=ft x=[-.5 0 .5 1] h=[-4 -4 -4 -4]
new linespacing.u nconds=3 nphases=3 units=ft x=[-.5 0 .5] h=[-4 -4 -4]
new line.a bus1=sourcebus bus2=b spacing=s cncables=[c c c] wires=[w] length=2 units=mi
new line.b bus1=b bus2=c spacing=u cncables=[d d d] length=.3 units=km
new line.c bus1=b bus2=d spacing=u tscables=[t t t] length=900 units=ft
"""
LOADS = """
new load.a bus1=sourcebus kw=100 pf=.9
new load.b bus1=sourcebus kw=100 kvar=30 pf=-.9
new load.c bus1=sourcebus kva=100 pf=.9
new load.d bus1=sourcebus xfkva=100 pf=.8 allocationfactor=.3
new load.e bus1=sourcebus kwh=1000 pf=.8
new load.f bus1=sourcebus.1.2 phases=1 conn=delta kw=50 pf=.95
new load.g like=a bus1=sourcebus kw=20
new load.h bus1=sourcebus kw=-20 kvar=10
load.h.kw=-40
new load.i bus1=sourcebus
new load.j bus1=sourcebus kw=270 pf=.9 allocationfactor=1
batchedit load.[ab] vminpu=.8
"""
TRANSFORMERS = """
new xfmrcode.x phases=1 windings=3 kvs=[7.2 .12 .12] kvas=[25 25 25] %rs=[.6 1.2 1.2] xhl=2 xht=2.1 xlt=1.3
new transformer.a xfmrcode=x buses=[sourcebus.1 a.1.0 a.0.2]
new transformer.b windings=3 buses=(sourcebus b c) conns=(delta wye delta) kvs=(12.47 4.16 .48) kvas=(500 300 200)
~ xhl=6 %loadloss=1
new transformer.c buses=[sourcebus i] kvs=[12.47 4.16] wdg=2 kva=300 numtaps=16 maxtap=1.05
new regcontrol.c transformer=c winding=2 tapnum=5
"""


@pytest.fixture(scope="module")
def dss() -> Any:
    """OpenDSS's engine."""
    return pytest.importorskip("dss").DSS


def _read_both(engine: Any, folder: Path, text: str) -> Feeder:
    (folder / "master.dss").write_text(CIRCUIT + text)
    engine.Text.Commands("clear\nset defaultbasefrequency=60\n" + CIRCUIT + text + "calcvoltagebases\n")
    return read_opendss(folder / "master.dss")


def _impedance(feeder: Feeder, line: Line) -> Any:
    code = next(code for code in feeder.line_codes if code.name == line.line_code)
    return (np.array(code.r_ohm_per_km) + 1j * np.array(code.x_ohm_per_km)) * line.length_km


@pytest.mark.parametrize("text", [LINES, GEOMETRY, CABLES])
def test_line_impedances_and_nodes_are_opendss_own(dss: Any, tmp_path: Path, text: str) -> None:
    feeder = _read_both(dss, tmp_path, text)
    assert len(feeder.lines) == dss.ActiveCircuit.Lines.Count
    for line in feeder.lines:
        dss.ActiveCircuit.SetActiveElement(f"line.{line.name}")
        element = dss.ActiveCircuit.ActiveCktElement
        n = len(line.phases)
        y = np.array(element.Yprim).view(complex).reshape(2 * n, 2 * n)
        series = np.linalg.inv(_impedance(feeder, line))
        np.testing.assert_allclose(-y[:n, n:], series, rtol=0.0, atol=1e-12 * abs(series).max(), err_msg=line.name)
        code = next(code for code in feeder.line_codes if code.name == line.line_code)
        shunt = 1j * np.pi * feeder.frequency_hz * np.array(code.c_nf_per_km) * 1e-9 * line.length_km
        # OpenDSS adds 4.2e-8 S of its own on the diagonal.
        own = 4.2e-8j * np.eye(n)
        np.testing.assert_allclose(y[:n, :n] + y[:n, n:], shunt + own, rtol=0.0, atol=5e-8, err_msg=line.name)
        assert list(element.NodeOrder) == [*line.phases, *(line.to_phases or line.phases)]


def test_loads_have_opendss_power_whatever_came_first(dss: Any, tmp_path: Path) -> None:
    feeder = _read_both(dss, tmp_path, LOADS)
    loads = dss.ActiveCircuit.Loads
    assert len(feeder.loads) == loads.Count
    for load in feeder.loads:
        loads.Name = load.name
        read = (load.kw, load.kvar, load.kv, load.vmin_pu)
        assert read == pytest.approx((loads.kW, loads.kvar, loads.kV, loads.Vminpu), rel=1e-12), load.name


def test_windings_taps_and_reactances_are_opendss_own(dss: Any, tmp_path: Path) -> None:
    feeder = _read_both(dss, tmp_path, TRANSFORMERS)
    theirs, active_winding = dss.ActiveCircuit.Transformers, "Wdg"
    assert len(feeder.transformers) == theirs.Count
    for transformer in feeder.transformers:
        theirs.Name = transformer.name
        assert transformer.xhl_percent == pytest.approx(theirs.Xhl)
        for number, winding in enumerate(transformer.windings, 1):
            setattr(theirs, active_winding, number)
            read = (winding.kv, winding.kva, winding.tap, winding.r_percent)
            assert read == pytest.approx((theirs.kV, theirs.kVA, theirs.Tap, theirs.R), rel=1e-12), transformer.name
            assert (winding.connection == "delta") == theirs.IsDelta
    centre_tapped = feeder.transformers[0]
    assert [(w.phases, w.neutral) for w in centre_tapped.windings] == [((1,), 0), ((1,), 0), ((0,), 2)]


@pytest.mark.parametrize(
    "given",
    ["r1=.1 x1=.2", "r1=.1 x1=.2 r0=.3 x0=.4", "z1=[.1 .2]", "puz1=[.1 .2] basemva=50", "isc3=3000 isc1=5", "x0r0=4"],
)
def test_source_impedance_is_opendss_own(dss: Any, tmp_path: Path, given: str) -> None:
    source = _read_both(dss, tmp_path, f"edit vsource.source {given}\n").source
    dss.ActiveCircuit.SetActiveElement("vsource.source")
    z = np.linalg.inv(np.array(dss.ActiveCircuit.ActiveCktElement.Yprim).view(complex).reshape(6, 6)[:3, :3])
    z1, z0 = z[0, 0] - z[0, 1], z[0, 0] + 2.0 * z[0, 1]
    read = np.array([source.r1_ohm, source.x1_ohm, source.r0_ohm, source.x0_ohm])
    np.testing.assert_allclose(read, [z1.real, z1.imag, z0.real, z0.imag], rtol=1e-7, atol=1e-9)


def _cases(reference_dir: Path) -> list[tuple[Path, list[str]]]:
    files = sorted([*(reference_dir / "solutions").glob("*.json"), *(reference_dir / "scenarios").glob("*.json")])
    cases = [json.loads(file.read_text()) for file in files]
    return [
        (reference_dir / "dss" / case["master"].rpartition("reference/dss/")[2], case["commands_before_solve"])
        for case in cases
    ]


def test_every_reference_master_reads_with_its_commands(reference_dir: Path) -> None:
    cases = _cases(reference_dir)
    feeders = [load_feeder(master, commands=commands) for master, commands in cases]
    assert len(feeders) > 20
    assert all(feeder.loads and feeder.lines for feeder in feeders)


def test_frozen_taps_are_set_by_commands(reference_dir: Path) -> None:
    master = reference_dir / "dss" / "13Bus" / "IEEE13Nodeckt.dss"
    feeder = load_feeder(master, commands=("Transformer.Reg1.Taps=[1.0 1.0625]", "open line.671692 1 0"))
    assert next(t for t in feeder.transformers if t.name == "reg1").windings[1].tap == 1.0625
    assert next(line for line in feeder.lines if line.name == "671692").is_open


def test_commands_after_the_first_solve_are_noted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "m.dss").write_text(CIRCUIT + "new load.a bus1=sourcebus kw=5\nsolve\nload.a.kw=7\nnew monitor.m\n")
    feeder = read_opendss(tmp_path / "m.dss")
    assert feeder.loads[0].kw == 5.0
    assert "after the first solve" in feeder.notes[0]


def test_block_comments_variables_and_other_spellings_of_files(tmp_path: Path) -> None:
    (tmp_path / "Sub").mkdir()
    (tmp_path / "Sub" / "Loads.DSS").write_text("new load.a bus1=sourcebus kw=@size // five\n")
    text = CIRCUIT + "/* new load.x\n*/\nvar @size=5\nredirect SUB\\loads.dss\nset loadmult=2\n"
    (tmp_path / "m.dss").write_text(text)
    feeder = read_opendss(tmp_path / "m.dss")
    assert [(load.name, load.kw) for load in feeder.loads] == [("a", 10.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("new laods.a\n", "did you mean 'load'"),
        ("new load.a bus1=b kw=abc\n", "m.dss:2: load kw: 'abc' is not a number"),
        ("new load.a bus1=b wattage=5\n", "no property 'wattage'"),
        ("new load.a bus1=b kw=nan\n", "'nan' is not a number"),
        ("new load.a bus1=b kw=1e999\n", "not a finite number"),
        ("new load.a bus1=(b kw=5\n", "not closed"),
        ("new load.a bus1=b kw=(1 0 /)\n", "has no value"),
        ("new line.a bus1=b bus2=c linecode=x\n", "no linecode 'x'"),
        ("redirect missing.dss\n", "no file 'missing.dss'"),
        ("redirect m.dss\n", "is being read already"),
        ("redirect ../../../etc/passwd\n", "outside the model's folder"),
        ("redirect /etc/passwd\n", "outside the model's folder"),
        ("new fault.a bus1=sourcebus\nnew isource.b bus1=sourcebus\n", "2 problem(s)"),
        ("new load.a like=b\n", "like 'b'"),
        ("new load.\u00ff bus1=b phases=0\n", "0 phases"),
    ],
)
def test_what_cannot_be_read_is_one_error_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    folder = tmp_path / "a" / "model"
    folder.mkdir(parents=True)
    (folder / "m.dss").write_bytes((CIRCUIT + text).encode("latin-1"))
    with pytest.raises(FeederError) as error:
        read_opendss(folder / "m.dss")
    assert said in str(error.value)


def test_files_that_redirect_to_each_other_many_times_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 50)
    for depth in range(7):
        (tmp_path / f"r{depth}.dss").write_text(f"redirect r{depth + 1}.dss\n" * 2)
    (tmp_path / "m.dss").write_text(f"{CIRCUIT}redirect r0.dss\n")
    (tmp_path / "r7.dss").write_text("")
    with pytest.raises(FeederError, match="more than 50 files"):
        read_opendss(tmp_path / "m.dss")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_text_reads_or_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    text = CIRCUIT + LINES + GEOMETRY.replace("line.", "line.g") + LOADS + TRANSFORMERS
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 20))
        piece = data.draw(st.sampled_from(["", "[", "=", "0", "-1", "nan", "~", "|", ".", "{1 0 /}", "\n", "1e400"]))
        text = text[:at] + piece + text[at + length :]
    (tmp_path / "m.dss").write_text(text)
    try:
        feeder = read_opendss(tmp_path / "m.dss")
    except FeederError as error:
        message = str(error)
    else:
        message = f"{feeder.name} has 0 problem(s)"
    assert "problem(s)" in message
