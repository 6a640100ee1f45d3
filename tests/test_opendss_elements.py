"""Small circuits, each with an element or option that utilities' files have, solve as OpenDSS solves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dss import DSS

import gridray

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
    assert (np.abs(result.voltage[0] - expected) / grid.node_base_v).max() < 1e-8
    losses = complex(circuit.Losses[0], circuit.Losses[1]) / 1e3
    assert result.losses_kva[0] == pytest.approx(losses, rel=1e-5, abs=1e-5)
