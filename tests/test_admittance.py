"""Primitive admittances agree with OpenDSS's, element by element."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from gridray.feeders.components import Capacitor, Transformer, Winding
from gridray.feeders.library import load_feeder
from gridray.physics.admittance import Primitive, primitive_admittances

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.feeders.components import Connection

CASES = [("ieee13", "ieee13"), ("ieee34", "ieee34mod2"), ("ieee123", "ieee123")]
# Line codes stand in the feeder files as published: six or seven digits per mile. The reference has them per 1000 ft.
TOLERANCE = {"line": 5e-7, "vsource": 1e-9, "transformer": 1e-12, "capacitor": 1e-12}


def _reference(path: Path, element: str, nodes: tuple[tuple[str, int], ...]) -> NDArray[np.complex128]:
    table = pq.read_table(path).to_pylist()
    index = {f"{bus}.{phase}": i for i, (bus, phase) in enumerate(nodes)}
    y = np.zeros((len(nodes), len(nodes)), dtype=np.complex128)
    for row in table:
        if row["element"] == element and row["row_node"] in index and row["col_node"] in index:
            y[index[row["row_node"]], index[row["col_node"]]] += complex(row["g_s"], row["b_s"])
    return y


def _total(primitive: Primitive, taps: dict[str, float]) -> NDArray[np.complex128]:
    return primitive.at(1.0 / taps.get(primitive.control or "", 1.0))


@pytest.mark.parametrize(("feeder", "case"), CASES)
def test_every_element_agrees_with_reference(reference_dir: Path, feeder: str, case: str) -> None:
    path = reference_dir / f"solutions/{case}.yprim.parquet"
    solution = json.loads((reference_dir / f"solutions/{case}_frozen.json").read_text())
    taps = {r["transformer"]: r["tap_pu"] for r in solution["regulators"].values()}
    rows: dict[str, list[dict]] = {}
    for row in pq.read_table(path).to_pylist():
        rows.setdefault(row["element"], []).append(row)
    primitives = primitive_admittances(load_feeder(feeder))
    assert {p.name for p in primitives} == set(rows)
    # The reference's open switches end at dummy buses, ours where they lead when closed.
    ties = {name for name, r in rows.items() if any("_open" in entry["row_node"] for entry in r)}
    assert len(ties) == (2 if feeder == "ieee123" else 0)
    for primitive in primitives:
        if primitive.name in ties:
            continue
        index = {f"{bus}.{phase}": i for i, (bus, phase) in enumerate(primitive.nodes)}
        expected = np.zeros(primitive.y_siemens.shape[1:], dtype=np.complex128)
        for row in rows[primitive.name]:
            if row["row_node"] in index and row["col_node"] in index:
                expected[index[row["row_node"]], index[row["col_node"]]] += complex(row["g_s"], row["b_s"])
        error = np.abs(_total(primitive, taps) - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[primitive.name.split(".")[0]], primitive.name


@pytest.mark.parametrize(
    ("case", "high", "low"),
    [
        ("4bus_dy_bal", "delta", "wye"),
        ("4bus_grdyd_bal", "wye", "delta"),
        ("4bus_yd_bal", "wye", "delta"),
        ("4bus_yy_bal", "wye", "wye"),
    ],
)
def test_transformer_connections_agree_with_reference(
    reference_dir: Path, case: str, high: Connection, low: Connection
) -> None:
    # The IEEE 4-node step-down bank: 6 MVA, 12.47/4.16 kV, 1 + j6 %.
    phases = (1, 2, 3)
    bank = Transformer(
        name="t1",
        windings=(
            Winding(bus="n2", phases=phases, connection=high, kv=12.47, kva=6000.0, r_percent=0.5),
            Winding(bus="n3", phases=phases, connection=low, kv=4.16, kva=6000.0, r_percent=0.5),
        ),
        xhl_percent=6.0,
    )
    primitive = _one("transformer.t1", transformers=(bank,))
    expected = _reference(reference_dir / f"solutions/{case}.yprim.parquet", "transformer.t1", primitive.nodes)
    np.testing.assert_allclose(_total(primitive, {}), expected, rtol=0.0, atol=1e-10 * np.abs(expected).max())


def test_tap_of_either_winding_raises_its_voltage() -> None:
    # At no load v1 / tap1 = v2 / tap2 in per unit: the open-circuit ratio is -y12 / y22.
    for taps in ((1.0, 1.05), (1.05, 1.0), (0.975, 1.025)):
        windings = tuple(
            Winding(bus=bus, phases=(1,), connection="wye", kv=2.4, kva=500.0, r_percent=0.5, tap=tap)
            for bus, tap in zip(("650", "x"), taps, strict=True)
        )
        unit = Transformer(name="t", windings=(windings[0], windings[1]), xhl_percent=2.0, antifloat_ppm=0.0)
        y = _one("transformer.t", transformers=(unit,)).at()
        assert -y[1, 0] / y[1, 1] == pytest.approx(taps[1] / taps[0])


@pytest.mark.parametrize(
    ("phases", "connection"),
    [((2,), "wye"), ((1, 3), "wye"), ((1, 2, 3), "wye"), ((1, 2), "delta"), ((1, 2, 3), "delta")],
)
def test_capacitor_gives_its_rating_at_rated_voltage(phases: tuple[int, ...], connection: Connection) -> None:
    kv_line = 4.16
    kv = kv_line / 3**0.5 if len(phases) == 1 else kv_line
    bank = Capacitor(name="c", bus="671", phases=phases, connection=connection, kv=kv, kvar=300.0)
    primitive = _one("capacitor.c", capacitors=(bank,))
    v = kv_line * 1e3 / 3**0.5 * np.exp(-2j / 3 * np.pi * (np.array(phases) - 1))
    power = np.sum(v * np.conj(primitive.at() @ v))
    assert power == pytest.approx(-300e3j)
    assert primitive.control == "c"
    assert not primitive.at(0.0).any()


@pytest.mark.parametrize("feeder", ["ieee13", "ieee34", "ieee123"])
def test_matrices_are_symmetric_and_passive(feeder: str) -> None:
    for primitive in primitive_admittances(load_feeder(feeder)):
        y = primitive.at()
        np.testing.assert_allclose(y, y.T, rtol=0.0, atol=1e-12 * np.abs(y).max(), err_msg=primitive.name)
        assert np.linalg.eigvalsh((y + y.conj().T) / 2.0).min() > -1e-9 * np.abs(y).max(), primitive.name


def _one(name: str, **parts: tuple[Transformer, ...] | tuple[Capacitor, ...]) -> Primitive:
    """Return the admittance of one element put in place of the feeder's own."""
    feeder = replace(load_feeder("ieee13"), **{"regulators": (), **parts})
    (found,) = (primitive for primitive in primitive_admittances(feeder) if primitive.name == name)
    return found
