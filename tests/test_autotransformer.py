"""Autotransformers read from OpenDSS scripts have OpenDSS's admittance and voltages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dss import DSS

import gridray
from gridray.errors import FeederError

if TYPE_CHECKING:
    from pathlib import Path

CIRCUITS = {
    "one phase": [
        "new circuit.c phases=1 bus1=h.1 basekv=66.395 pu=1.02 mvasc1=900",
        "new autotrans.a phases=1 windings=2 buses=(h.1 x.1.0) conns=(series wye) kvs=(66.395 39.837) "
        "kvas=(10000 10000) xhx=8 %loadloss=0.5 taps=(1.0 1.025)",
        "new load.l phases=1 bus1=x.1 kv=39.837 kw=5000 pf=0.9",
    ],
    "three phases": [
        "new circuit.c bus1=h basekv=115 pu=1.01",
        "new autotrans.a phases=3 windings=2 buses=(h x) conns=(series wye) kvs=(115 69) kvas=(50000 50000) xhx=7 "
        "%loadloss=0.3 %noloadloss=0.1 %imag=0.4",
        "new line.l bus1=x bus2=y r1=0.1 x1=0.4 r0=0.3 x0=1.2 c1=9 c0=5 length=10 units=km",
        "new load.l phases=3 bus1=y kv=69 kw=20000 pf=0.95",
        "new load.m phases=1 bus1=y.2 kv=39.837 kw=4000 pf=0.95",
    ],
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_voltages_are_opendss(tmp_path: Path, name: str) -> None:
    lines = ["clear", *CIRCUITS[name], "set voltagebases=(115 69)", "calcvoltagebases"]
    (tmp_path / "auto.dss").write_text("\n".join([*lines, "solve"]))
    for line in [*lines, "set tolerance=1e-10 maxiterations=200", "solve"]:
        DSS.Text.Command = line
    circuit = DSS.ActiveCircuit
    pairs = np.reshape(circuit.AllBusVolts, (-1, 2))
    theirs = dict(zip(circuit.AllNodeNames, pairs[:, 0] + 1j * pairs[:, 1], strict=True))
    grid = gridray.compile_feeder(gridray.load_feeder(tmp_path / "auto.dss"))
    result = gridray.solve(grid)
    assert result.converged.all()
    assert set(theirs) == set(grid.node_names)
    expected = np.array([theirs[node] for node in grid.node_names])
    assert (np.abs(result.voltage[0] - expected) / grid.node_base_v).max() < 1e-7


def test_other_connections_are_refused(tmp_path: Path) -> None:
    script = [line.replace("conns=(series wye)", "conns=(series delta)") for line in CIRCUITS["three phases"]]
    (tmp_path / "auto.dss").write_text("\n".join(["clear", *script, "solve"]))
    with pytest.raises(FeederError, match=r"auto\.dss:3.*series and wye"):
        gridray.load_feeder(tmp_path / "auto.dss")
