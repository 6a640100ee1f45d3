"""A feeder's load shapes give the loads of a day, which solves as OpenDSS's does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from dss import DSS

import gridray
from gridray.errors import FeederError
from gridray.feeders.components import LoadShape
from gridray.feeders.library import load_feeder
from gridray.profiles.shapes import load_series

if TYPE_CHECKING:
    from pathlib import Path


def test_low_voltage_day_follows_reference_minute_by_minute(reference_dir: Path) -> None:
    feeder = load_feeder(reference_dir / "dss/LVTestCase/Master.dss")
    grid = gridray.compile_feeder(feeder)
    day = pq.read_table(reference_dir / "timeseries/eulv_day_1min.parquet").to_pandas()
    assert len(day) == 1440
    kw, kvar = load_series(feeder, day["minute"].to_numpy() / 60.0, kind="yearly")
    result = gridray.solve(grid, load_kw=kw, load_kvar=kvar)
    assert result.converged.all()
    expected = day[["p_a_kw", "p_b_kw", "p_c_kw"]].sum(axis=1).to_numpy()
    np.testing.assert_allclose(result.source_kva.real, np.abs(expected), rtol=1e-5)
    columns = [name for name in day.columns if name.startswith("v_volt.")]
    picked = [grid.node_names.index(name.removeprefix("v_volt.")) for name in columns]
    assert len(columns) > 50
    error = np.abs(np.abs(result.voltage[:, picked]) - day[columns].to_numpy()) / grid.node_base_v[picked]
    assert error.max() < 1e-5


def test_hours_repeat_and_loads_without_shape_stay_nominal() -> None:
    feeder = load_feeder("ieee13")
    first, second, *rest = feeder.loads
    shape = LoadShape(name="s", interval_h=1.0, p_mult=(0.5, 1.0), q_mult=(0.25, 2.0))
    actual = LoadShape(name="a", interval_h=1.0, p_mult=(7.0, 8.0), is_actual=True)
    loads = (replace(first, daily="s"), replace(second, daily="a"), *rest)
    feeder = replace(feeder, loads=loads, shapes=(shape, actual))
    kw, kvar = load_series(feeder, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(kw[:, 0], first.kw * np.array([0.5, 1.0, 0.5]))
    np.testing.assert_allclose(kvar[:, 0], first.kvar * np.array([0.25, 2.0, 0.25]))
    np.testing.assert_allclose(kw[:, 1], [7.0, 8.0, 7.0])
    np.testing.assert_allclose(kvar[:, 1], kw[:, 1] * second.kvar / second.kw)
    np.testing.assert_allclose(kw[:, 2:], [[load.kw for load in rest]] * 3)


def test_unknown_shape_is_named() -> None:
    feeder = load_feeder("ieee13")
    feeder = replace(feeder, loads=(replace(feeder.loads[0], daily="gone"), *feeder.loads[1:]))
    with pytest.raises(FeederError, match="shape 'gone'"):
        load_series(feeder, np.arange(3.0))


POWERS = {
    "actual": ("mult=(200 400 800 100) useactual=yes", "kw=300 kvar=100 daily=x"),
    "actual, power factor": ("mult=(200 400 800 100) qmult=(20 50 70 30) useactual=yes", "kw=300 pf=.9 yearly=x"),
    "actual, power factor alone": ("mult=(200 400 800 100) useactual=yes", "kw=300 pf=.9 daily=x"),
    "actual alone": ("mult=(200 400 800 100) useactual=yes", "daily=x"),
    "a column by its short name": (
        "mult=(file=s.csv head=y) qmult=(file=s.csv, col=2, header=yes)",
        "kw=300 kvar=100 daily=x",
    ),
    "yearly without a shape": ("mult=(.2 .4 .8 1)", "kw=300 kvar=100 daily=x"),
}


@pytest.mark.parametrize("kind", ["daily", "yearly"])
@pytest.mark.parametrize("name", POWERS)
def test_powers_hour_by_hour_are_opendss(tmp_path: Path, name: str, kind: str) -> None:
    shape, load = POWERS[name]
    table = tmp_path / "s.csv"
    shape = shape.replace("s.csv", str(table))
    table.write_text("p,q\n.3,.9\n.5,.8\n.9,.7\n1,.6\n")
    (tmp_path / "m.dss").write_text(
        f"new circuit.c basekv=12.47\nnew loadshape.x npts=4 interval=6 {shape}\n"
        f"new load.l bus1=sourcebus kv=12.47 {load}\n"
        "new generator.g bus1=sourcebus kv=12.47 kw=50 kvar=10 daily=x\n"
    )
    feeder = load_feeder(tmp_path / "m.dss")
    DSS.Text.Command = "clear"
    DSS.Text.Commands((tmp_path / "m.dss").read_text())

    def drawn(element: str) -> complex:
        DSS.ActiveCircuit.SetActiveElement(element)
        powers = DSS.ActiveCircuit.ActiveCktElement.Powers
        return complex(sum(powers[0::2]), sum(powers[1::2]))

    DSS.Text.Commands("set mode=snapshot\nsolve")
    assert complex(feeder.loads[0].kw, feeder.loads[0].kvar) == pytest.approx(drawn("load.l"), rel=1e-6)
    assert complex(feeder.generators[0].kw, feeder.generators[0].kvar) == pytest.approx(-drawn("generator.g"), rel=1e-6)
    DSS.Text.Command = f"set mode={kind} number=1 stepsize=1h hour=0"
    kw, kvar = load_series(feeder, np.arange(1.0, 25.0), kind=kind)
    for hour in range(24):
        DSS.Text.Command = "solve"
        assert complex(kw[hour, 0], kvar[hour, 0]) == pytest.approx(drawn("load.l"), rel=1e-5)


@pytest.mark.parametrize(("status", "expected_kw"), [("variable", 100.0), ("fixed", 100.0), ("exempt", 50.0)])
def test_status_says_what_a_load_follows(tmp_path: Path, status: str, expected_kw: float) -> None:
    # Set loadmult=2: OpenDSS gives 100, 100 and 50 kW at the shape's 0.5.
    (tmp_path / "master.dss").write_text(
        "new circuit.c basekv=12.47\n"
        "new loadshape.half npts=2 interval=1 mult=(0.5 0.5)\n"
        f"new load.a bus1=sourcebus kv=12.47 kw=100 status={status} daily=half\n"
        "set loadmult=2\n"
        "set voltagebases=[12.47]\n"
    )
    kw, _ = load_series(load_feeder(tmp_path / "master.dss"), np.array([1.0]))
    assert kw[0, 0] == pytest.approx(expected_kw)
