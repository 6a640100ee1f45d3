"""Every published feeder has OpenDSS's primitive matrices, voltages, bases, losses and powers at all terminals."""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import gridray
from gridray.physics.admittance import primitive_admittances
from gridray.physics.terminals import terminal_powers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.measure import PowerFlow

REFERENCE = Path(os.environ.get("GRIDRAY_REFERENCE_DIR", Path(__file__).parents[2] / "shared" / "reference"))
SOLUTIONS = REFERENCE / "solutions"
FIXED = ("_frozen", "_taps0", "_published_settings")
CASES = sorted(
    path.stem
    for path in SOLUTIONS.glob("*.json")
    if path.stem.endswith(FIXED) or path.stem.startswith(("4bus_", "eulv_"))
)
MATRICES = sorted(path.name.removesuffix(".yprim.parquet") for path in SOLUTIONS.glob("*.yprim.parquet"))
FLOATING = ("ieee37", "4bus_yd_")
"""Cases without a path to ground: compared line to line (the reference's README)."""
FLOATING_NODES = ("610.",)


class Case:
    """A solved case of the reference folder beside our own solution."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: dict[str, Any] = json.loads((SOLUTIONS / f"{name}.json").read_text())
        master = REFERENCE / "dss" / self.settings["master"]
        self.feeder: Feeder = gridray.load_feeder(master, commands=tuple(self.settings["commands_before_solve"]))

    @cached_property
    def grid(self) -> CompiledFeeder:
        """Compile the feeder."""
        return gridray.compile_feeder(self.feeder)

    @cached_property
    def result(self) -> PowerFlow:
        """Solve the nominal state."""
        return gridray.solve(self.grid, tolerance=1e-9)

    @cached_property
    def nodes(self) -> dict[str, dict[str, str]]:
        """Read the reference's nodes, by name."""
        with (SOLUTIONS / f"{self.name}.nodes.csv").open() as file:
            return {row["node"]: row for row in csv.DictReader(file)}

    @cached_property
    def expected_v(self) -> np.ndarray:
        """Return the reference's voltages in the grid's order, V."""
        rows = (self.nodes[node] for node in self.grid.node_names)
        return np.array([complex(float(row["v_re"]), float(row["v_im"])) for row in rows])

    @property
    def has_floating_nodes(self) -> bool:
        """Tell whether voltages to ground mean little."""
        return self.name.startswith(FLOATING)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def _line_to_line(grid: CompiledFeeder, v: np.ndarray) -> np.ndarray:
    """Return the voltage between every two neighbouring nodes of a bus, pu of the line-to-neutral base."""
    buses = np.array([name.split(".")[0] for name in grid.node_names])
    order = np.argsort(buses, kind="stable")
    near, far = order[:-1], order[1:]
    same = buses[near] == buses[far]
    return (v[near[same]] - v[far[same]]) / grid.node_base_v[near[same]]


def test_nodes_and_bases_are_the_references(case: Case) -> None:
    assert set(case.grid.node_names) == set(case.nodes)
    expected = [float(case.nodes[name]["kv_base_ln"]) * 1e3 for name in case.grid.node_names]
    np.testing.assert_allclose(case.grid.node_base_v, expected, rtol=1e-6)


def test_every_voltage_agrees(case: Case) -> None:
    assert case.result.status.tolist() == ["converged"]
    v, expected = case.result.voltage[0], case.expected_v
    assert np.abs(_line_to_line(case.grid, v) - _line_to_line(case.grid, expected)).max() < 1e-6
    if not case.has_floating_nodes:
        is_compared = [not name.startswith(FLOATING_NODES) for name in case.grid.node_names]
        assert (np.abs(v - expected) / case.grid.node_base_v)[is_compared].max() < 1e-6


def test_source_power_and_losses_agree(case: Case) -> None:
    source, losses, expected = case.result.source_kva[0], case.result.losses_kva[0], case.settings
    assert source.real == pytest.approx(expected["source"]["p_kw"], rel=1e-5)
    assert source.imag == pytest.approx(expected["source"]["q_kvar"], rel=1e-5)
    assert losses.real == pytest.approx(expected["losses_kw"], rel=1e-5)
    assert losses.imag == pytest.approx(expected["losses_kvar"], rel=1e-5)


def test_power_at_every_terminal_agrees(case: Case) -> None:
    path = SOLUTIONS / f"{case.name}.elements.parquet"
    if not path.exists():
        pytest.skip(f"'{path}' is not in the reference: no terminal powers of this case")
    table = pq.read_table(path, columns=["element", "node", "p_kw", "q_kvar", "i_re_a", "i_im_a"]).to_pydict()
    expected: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(2, dtype=complex))
    for element, node, p_kw, q_kvar, i_re_a, i_im_a in zip(*table.values(), strict=True):
        if not node.endswith(".0"):
            expected[element, node] += complex(p_kw, q_kvar), complex(i_re_a, i_im_a)
    found = terminal_powers(case.feeder, case.result)
    keys = list(zip(found.element, found.node, strict=True))
    assert set(keys) == set(expected)
    power_kva, current_a = np.array([expected[key] for key in keys]).T
    volts = case.grid.node_base_v[[case.grid.node_names.index(node) for node in found.node]]
    for seen, reference, one_watt in ((found.power_kva, power_kva, 1e-3), (found.current_a, current_a, 1.0 / volts)):
        error = np.abs(seen[:, 0] - reference)
        wrong = np.flatnonzero(error > np.maximum(1e-4 * np.abs(reference), one_watt))
        assert not len(wrong), [(keys[i], reference[i], seen[i, 0]) for i in wrong]


@pytest.mark.parametrize("name", MATRICES)
def test_every_primitive_matrix_agrees(name: str) -> None:
    candidates = (name, f"{name}_frozen", f"{name}_snapshot")
    case = Case(next(stem for stem in candidates if (SOLUTIONS / f"{stem}.json").exists()))
    taps = {t.name: t.windings for t in case.feeder.transformers}
    regulated = {c.transformer: taps[c.transformer][c.winding - 1].tap for c in case.feeder.regulators}
    on = {f"line.{line.name}": float(not line.is_open) for line in case.feeder.lines}
    u = (
        on
        | {t: 1.0 / tap for t, tap in regulated.items()}
        | {c.name: float(c.is_closed) for c in case.feeder.capacitors}
    )
    expected = dict(_reference_matrices(SOLUTIONS / f"{name}.yprim.parquet"))
    for primitive in primitive_admittances(case.feeder):
        matrix: dict[tuple[str, str], complex] = defaultdict(complex)
        names = [f"{bus}.{node}" for bus, node in primitive.nodes]
        for row, values in zip(names, primitive.at(u.get(primitive.control or "", 1.0)), strict=True):
            for column, value in zip(names, values, strict=True):
                matrix[row, column] += value
        reference = expected.pop(primitive.name)
        size = max(abs(value) for value in reference.values())
        for key in matrix.keys() | reference.keys():
            assert abs(matrix[key] - reference[key]) <= 1e-12 * size, (primitive.name, key)
    assert not expected, f"elements of the reference that the feeder has not: {sorted(expected)}"


def _reference_matrices(path: Path) -> Iterator[tuple[str, dict[tuple[str, str], complex]]]:
    """Yield each element's matrix, conductors at one node summed, ground left out."""
    columns = pq.read_table(path, columns=["element", "row_node", "col_node", "g_s", "b_s"]).to_pydict()
    matrices: dict[str, dict[tuple[str, str], complex]] = {}
    for element, row, column, g_s, b_s in zip(*columns.values(), strict=True):
        matrix = matrices.setdefault(element, defaultdict(complex))
        if not row.endswith(".0") and not column.endswith(".0"):
            matrix[row, column] += complex(g_s, b_s)
    yield from matrices.items()
