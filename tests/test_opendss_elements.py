"""Small circuits, each with an element or option that utilities' files have, solve as OpenDSS solves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dss import DSS

import gridray
from gridray.errors import FeederError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
new circuit.c basekv=12.47 pu=1.02 mvasc3=300 mvasc1=250
new linecode.a nphases=3 r1=.3 x1=.4 r0=.5 x0=1.2 c1=10 c0=4 units=mi
new line.a bus1=sourcebus bus2=b linecode=a length=2 units=mi
new load.base bus1=b.1 phases=1 kv=7.2 kw=100
"""
TAIL = """
set voltagebases=[12.47 4.16 .48]
calcvoltagebases
"""
LOADS = "\nnew load.l bus1=c kv=12.47 kw=400\nnew load.m bus1=c.1 phases=1 kv=7.2 kw=200\n"
STORAGE = "new storage.s phases=3 bus1=b kv=12.47 kwrated=300 kwhrated=600 "
PV = "new xycurve.e npts=4 xarray=[.1 .2 .4 1] yarray=[.86 .9 .93 .97]\nnew pvsystem.p bus1=b kv=12.47 pmpp=300 "
CIRCUITS = {
    "like, then ~": "new load.l bus1=b kv=12.47 kw=100 pf=.9\nnew load.m like=l bus1=b\n~ kw=500",
    "transformer like": (
        "new transformer.a buses=(b c) kvs=(12.47 4.16) kvas=(500 500) %imag=2 %noloadloss=1 ppm=5 leadlag=lead\n"
        "~ conns=(delta wye)\nnew transformer.b like=a buses=(b d)\nnew load.l bus1=d kv=4.16 kw=100"
    ),
    "connected kva": (
        "new load.l bus1=b kv=12.47 xfkva=100 allocationfactor=.6 pf=.8\nnew load.m bus1=b kv=12.47 xfkva=100 kvar=20\n"
        "new load.n bus1=b kv=12.47 kw=30 xfkva=100 kvar=5"
    ),
    "options by short names": (
        "new load.l bus1=b kv=12.47 xfkva=100 pf=.8\nnew load.m bus1=b kv=12.47 kwh=9000 kwhdays=30\n"
        "new load.n bus1=b kv=12.47 kw=30\nnew generator.g bus1=b kv=12.47 kw=70\nset alloc=.7 loadmu=.6 genm=.4"
    ),
    "all loads by energy": (
        "new load.l bus1=b kv=12.47 xfkva=100 pf=.8\nnew load.m bus1=b kv=12.47 kwh=9000 kwhdays=30\nset cfactors=3"
    ),
    "fixed kvar": (
        "new load.l bus1=b kv=12.47 kw=300 model=6\n"
        "new load.m bus1=b kv=12.47 kw=300 model=7 conn=delta\nset loadmult=.7"
    ),
    "generator, phases last": "new generator.g bus1=b.1 kv=7.2 kw=300 phases=1",
    "generator between phases, limits": (
        "new generator.g phases=1 kv=12 vmaxpu=1.05 kw=300 pf=.9 conn=delta bus1=b.1.2\n"
        "new pvsystem.p phases=1 kv=12.47 pmpp=300 kva=400 conn=delta bus1=b.2.3 model=2"
    ),
    "capacitor steps": "new capacitor.c bus1=b kv=12.47 numsteps=3 kvar=[100 200 300] states=[1 0 1]",
    "capacitor steps in uF": "new capacitor.c bus1=b kv=12.47 cuf=[2] numsteps=2",
    "filters": (
        "new capacitor.c bus1=b kv=12.47 kvar=300 harm=5\nnew capacitor.d bus1=b kv=12.47 kvar=200 xl=60 r=5 conn=delta"
    ),
    "capacitor matrix": "new capacitor.c bus1=b cmatrix=[2|-.5 2|-.5 -.4 2]",
    "series capacitor": (
        "new capacitor.c bus1=b bus2=c kv=12.47 kvar=9000 xl=1\nnew load.l bus1=c kv=12.47 kw=400\n"
        "new capacitor.d bus1=b bus2=d cmatrix=[200|-50 200|-50 -40 200]\nnew load.m bus1=d kv=12.47 kw=300"
    ),
    "reactor matrices": (
        "new reactor.x bus1=b rmatrix=[3|1 3|1 1 3] xmatrix=[400|100 400|100 90 400]\n"
        "new reactor.y bus1=b bus2=c rmatrix=[.3|.1 .3|.1 .1 .3] xmatrix=[.4|.1 .4|.1 .1 .4] parallel=yes\n"
        "new load.l bus1=c kv=12.47 kw=400"
    ),
    "reactor sequence values": (
        "new reactor.x bus1=b bus2=c z1=[.3 .4] z2=[.2 .3] z0=[.9 1.2]\nnew load.l bus1=c.1 phases=1 kv=7.2 kw=400\n"
        "new reactor.y bus1=b z1=[3 400] z0=[9 900]"
    ),
    "shunt reactors": "new reactor.x bus1=b kv=12.47 kvar=500 rp=5000\nnew reactor.y bus1=b.1 phases=1 r=3 x=300",
    "reactor as it comes": "new reactor.x bus1=b",
    "storage discharges": STORAGE + "state=discharging %discharge=40 pf=-.95 kva=350",
    "storage charges": STORAGE + "kw=-200 %stored=50 kvar=60 kva=350",
    "storage is full": STORAGE + "state=charging",
    "storage is empty": STORAGE + "state=discharging %stored=20",
    "storage at rest gives kvar": STORAGE + "kvar=80 kva=350 %idlingkw=2",
    "storage limits": STORAGE + "kw=300 kva=310 kvar=200 kvarmax=150",
    "storage, phases last": "new storage.s bus1=b.2 kv=7.2 kwrated=100 kwhrated=200 kw=50 phases=1",
    "PV is limited by pmpp": PV + "%pmpp=60 irradiance=1.2 kva=400",
    "PV with efficiency": PV + "irradiance=.7 kva=320 effcurve=e pf=.9",
    "PV keeps its power factor": PV + "kva=290 pf=.8 pfpriority=yes kvarmax=120",
    "PV below cutout": PV + "kva=400 irradiance=.1 kvar=90 varfollowinverter=yes",
    "four windings": (
        "new transformer.t windings=4 buses=(b d e c) conns=(wye wye delta wye) kvs=(12.47 4.16 .48 12.47)\n"
        "~ kvas=(1000 500 300 800) %rs=(.3 .4 .5 .6) xscarray=[6 7 8 5 6 4] %imag=.3\n"
        "new load.q bus1=d kv=4.16 kw=100\nnew load.r bus1=e kv=.48 kw=100 conn=delta" + LOADS
    ),
    "second sources": (
        "new vsource.v bus1=c basekv=12.47 angle=-3 r1=.5 x1=2 r0=1 x0=4\nnew line.s bus1=b bus2=c linecode=a\n"
        "new vsource.w bus1=c.1 phases=1 basekv=7.2 pu=1.01 r1=.5 x1=2 r0=.5 x0=2" + LOADS
    ),
    "one conductor open": "new line.s bus1=b bus2=c linecode=a length=9 units=mi\nopen line.s 2 3\nclose line.s 1"
    + LOADS,
    "a line charges from one end": (
        "new line.s bus1=b bus2=c linecode=a length=9 units=mi\nnew line.t like=s bus1=b bus2=c\nopen line.t 2" + LOADS
    ),
    "switch control closes": (
        "new line.s bus1=b bus2=c switch=y\nopen line.s 1\nnew swtcontrol.s switchedobj=line.s switchedterm=1 state=c"
        + LOADS
    ),
    "relay is open": (
        "new line.s bus1=b bus2=c switch=y\nnew line.t bus1=b bus2=c linecode=a length=1 units=mi\n"
        "new relay.s monitoredobj=line.s monitoredterm=1 type=current state=open" + LOADS
    ),
    "one fuse is blown": (
        "new line.s bus1=b bus2=c switch=y\nnew fuse.s monitoredobj=line.s monitoredterm=1 state=[closed open closed]"
        + LOADS
    ),
    "earth model after the line": (
        "new wiredata.w rac=.306 runits=mi gmrac=.0244 gmrunits=ft diam=.7 radunits=in\n"
        "new linespacing.s nconds=3 nphases=3 units=ft x=[-4 -1 3] h=[28 28 28]\n"
        "new line.s bus1=b bus2=c spacing=s wires=[w w w] length=3 units=mi\nset earthmodel=carson" + LOADS
    ),
    "bare neutral of a load": "new load.l bus1=b.1.2.3.4 kv=12.47 kw=300",
    "bare neutral of many loads": (
        "new transformer.t buses=(b c) conns=(delta wye) kvs=(12.47 .48) kvas=(500 500)\n"
        "new load.l bus1=c.1.2.3.4 kv=.48 kw=30\nnew load.m bus1=c.1.2.3.5 kv=.48 kw=40\n"
        "new load.n bus1=c.1 phases=1 kv=.277 kw=40\nnew load.o bus1=c.2.5 phases=1 kv=.277 kw=5"
    ),
    "bare neutral of a bank": "new capacitor.c bus1=b.1.2.3 bus2=b.4.4.4 kv=12.47 kvar=300",
    "bare neutral wire": (
        "new linecode.n nphases=4 rmatrix=[.3|.1 .3|.1 .1 .3|.1 .1 .1 .5] xmatrix=[.8|.4 .8|.4 .4 .8|.3 .3 .3 .9]\n"
        "~ cmatrix=[0|0 0|0 0 0|0 0 0 0] units=mi\nnew line.n phases=4 bus1=b.1.2.3.4 bus2=c.1.2.3.4 linecode=n\n"
        "new load.l bus1=c.1.2.3.4 kv=12.47 kw=300\nnew load.m bus1=c.1.4 phases=1 kv=7.2 kw=200"
    ),
    "PV with little sun": PV + "kva=400 irradiance=.3 kvar=390 %pminkvarmax=50",
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_voltages_and_losses_are_opendss(tmp_path: Path, name: str) -> None:
    script = f"{HEAD}{CIRCUITS[name]}{TAIL}"
    (tmp_path / "master.dss").write_text(script)
    DSS.Text.Commands(f"clear\nset defaultbasefrequency=60\n{script}")
    DSS.Text.Commands("set controlmode=off tolerance=1e-11 maxiterations=500\nsolve")
    circuit = DSS.ActiveCircuit
    assert circuit.Solution.Converged
    pairs = np.reshape(circuit.AllBusVolts, (-1, 2))
    theirs = dict(zip(circuit.AllNodeNames, pairs[:, 0] + 1j * pairs[:, 1], strict=True))
    grid = gridray.compile_feeder(gridray.load_feeder(tmp_path / "master.dss"))
    result = gridray.solve(grid, tolerance=1e-10)
    assert result.converged.all()
    assert set(theirs) == set(grid.node_names)
    expected = np.array([theirs[node] for node in grid.node_names])
    assert (np.abs(result.voltage[0] - expected) / grid.node_base_v).max() < 1e-7
    losses = complex(circuit.Losses[0], circuit.Losses[1]) / 1e3
    assert result.losses_kva[0] == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert result.source_kva[0] == pytest.approx(-complex(*circuit.TotalPower), rel=1e-6)


REGULATORS = {
    "32 steps of 0.00625": ("", "vreg=122"),
    "few large steps": ("numtaps=8 maxtap=1.05 mintap=.95", "vreg=122"),
    "steps that do not divide 0.00625": ("numtaps=20", "vreg=121.5"),
    "a range to one side": ("numtaps=16 maxtap=1.05 mintap=.85", "vreg=115"),
    "at the end of its range": ("numtaps=8 maxtap=1.02 mintap=.98", "vreg=126"),
    "line drop and another start": ("tap=.95", "vreg=122 band=3 ctprim=300 r=2 x=3"),
    "delta": ("", "vreg=122 ptratio=103.9"),
}


@pytest.mark.parametrize("name", REGULATORS)
def test_free_regulators_end_at_opendss_taps(tmp_path: Path, name: str) -> None:
    tap, control = REGULATORS[name]
    kind = "delta" if name == "delta" else "wye"
    script = f"""{HEAD}
new transformer.t buses=(b c) conns=(wye {kind}) kvs=(12.47 12.47) kvas=(5000 5000) xhl=.1 %loadloss=.01 wdg=2 {tap}
new line.q bus1=c bus2=d linecode=a length=8 units=mi
new load.l bus1=d kv=12.47 kw=2500 conn={kind} vminpu=.8 vmaxpu=1.2
new regcontrol.r transformer=t winding=2 ptratio=60 band=2 {control}
{TAIL}"""
    (tmp_path / "master.dss").write_text(script)
    DSS.Text.Commands(f"clear\nset defaultbasefrequency=60\n{script}")
    DSS.Text.Commands("set controlmode=static tolerance=1e-9 maxiterations=500\nsolve")
    theirs, active_winding = DSS.ActiveCircuit.Transformers, "Wdg"
    theirs.Name = "t"
    setattr(theirs, active_winding, 2)
    grid = gridray.compile_feeder(gridray.load_feeder(tmp_path / "master.dss"))
    result = gridray.solve(grid, controls="free")
    assert result.converged.all()
    assert result.taps[0, 0] != 1.0
    assert result.taps[0, 0] == pytest.approx(theirs.Tap, abs=1e-9)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("set mode=daily", r"master\.dss:6: mode=daily is not the snapshot"),
        ("new load.x bus1=nowhere kv=12.47", r"master\.dss:6: load 'x' is at bus 'nowhere', which nothing connects"),
        ("new reactor.x bus1=b conn=delta rmatrix=[1] xmatrix=[1] phases=1", "delta given by a matrix"),
        ("new capacitor.x bus1=b cmatrix=[2|-.5 2|-.5 -.5 2] xl=3", "cmatrix and r, xl or harm"),
        ("open vsource.source 1\nopen line.a 3", r"2 problem\(s\)"),
        ("new transformer.x windings=4 buses=(b c d e)", "4 windings and 0 reactances"),
        ("set laodmult=.5", r"no option 'laodmult': did you mean 'loadmult'"),
        ("set freq=50", "frequency=50 after a circuit of 60 Hz"),
        ("set longline=yes", "longlinecorrection changes the impedance"),
        ("new invcontrol.x mode=voltvar", r"invcontrol\.x: GridRay has no invcontrol"),
    ],
)
def test_what_would_change_the_solution_is_refused(tmp_path: Path, script: str, said: str) -> None:
    (tmp_path / "master.dss").write_text(f"{HEAD}{script}{TAIL}")
    with pytest.raises(FeederError, match=said):
        gridray.load_feeder(tmp_path / "master.dss")


def test_snapshot_is_read_from_a_script_of_another_mode_on_demand(tmp_path: Path) -> None:
    (tmp_path / "master.dss").write_text(f"{HEAD}set mode=daily{TAIL}")
    assert gridray.load_feeder(tmp_path / "master.dss", commands=["set mode=snapshot"]).loads


def test_what_only_disabled_elements_reach_is_noted(tmp_path: Path) -> None:
    script = "new line.s bus1=b bus2=c linecode=a enabled=no\nnew load.x bus1=c kv=12.47\n"
    (tmp_path / "master.dss").write_text(f"{HEAD}{script}{TAIL}")
    feeder = gridray.load_feeder(tmp_path / "master.dss")
    assert [load.name for load in feeder.loads] == ["base"]
    assert any("only disabled elements reach" in note for note in feeder.notes)


def test_lines_of_one_geometry_have_their_own_earth(tmp_path: Path) -> None:
    geometry = (
        "new wiredata.w rac=.306 runits=mi gmrac=.0244 gmrunits=ft diam=.7 radunits=in\n"
        "new linegeometry.g nconds=3 nphases=3 cond=1 wire=w x=-4 h=28 units=ft\n"
        "~ cond=2 wire=w x=-1 h=28 units=ft cond=3 wire=w x=3 h=28 units=ft\n"
    )
    lines = [f"new line.{name} bus1=b bus2=c geometry=g rho={rho}\n" for name, rho in (("s", 50), ("t", 200))]
    (tmp_path / "master.dss").write_text(HEAD + geometry + "".join(lines) + TAIL)
    feeder = gridray.load_feeder(tmp_path / "master.dss")
    near, far = (code for code in feeder.line_codes if code.name.startswith("g"))
    assert near.x_ohm_per_km[0][0] < far.x_ohm_per_km[0][0]
    assert any("rho is its line's alone" in note for note in feeder.notes)


def test_switch_control_opens_unless_controls_are_off(tmp_path: Path) -> None:
    control = "new line.s bus1=b bus2=c switch=y\nnew swtcontrol.s switchedobj=line.s switchedterm=1 normal=open\n"
    (tmp_path / "master.dss").write_text(f"{HEAD}{control}{LOADS}{TAIL}")
    states = [
        gridray.load_feeder(tmp_path / "master.dss", commands=commands).lines[-1].is_open
        for commands in ([], ["set controlmode=off"], ["swtcontrol.s.lock=yes"])
    ]
    assert states == [True, False, False]
