"""Laws that every solved state keeps, whatever the feeder: hypothesis looks for one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import gridray
from gridray.feeders.components import Transformer, Winding
from gridray.feeders.synthetic import synthetic_feeder
from gridray.physics.chord import LARGE
from gridray.physics.lanes import LANE
from gridray.physics.state import STATUSES
from gridray.physics.terminals import terminal_powers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.measure import PowerFlow

FEEDERS = {
    "ieee13": gridray.load_feeder("ieee13").with_pv(name="roof", bus="675", phases=3, kv=4.16, kw=900.0),
    "meshed": synthetic_feeder(150, seed=4, meshed=True),
}
GRIDS = {name: gridray.compile_feeder(feeder) for name, feeder in FEEDERS.items()}
TAP_STEP = 0.00625
NUM_ENVS = 5
ROUNDING_PU = 5e-9
"""IEEE 13's switch has 1e-7 ohm: the last bit of the 2400 V at its ends is 3e-6 A, about 1e-9 pu behind the feeder."""
FEW = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
)

on_feeders = pytest.mark.parametrize("name", sorted(FEEDERS))


@st.composite
def states(draw: Callable[..., Any], grid: CompiledFeeder, num_envs: int = NUM_ENVS) -> dict[str, np.ndarray]:
    """Draw random loads, taps, capacitor states, switches and source voltages of a batch."""

    def column(names: tuple[str, ...], elements: st.SearchStrategy[Any], dtype: type = float) -> np.ndarray:
        drawn: np.ndarray = draw(arrays(dtype, (num_envs, len(names)), elements=elements))
        return drawn.astype(float)

    # With next to no load the last bit at ieee13's switch (see ROUNDING_PU) is no longer small beside the current.
    share = st.floats(0.1, 1.5)
    return {
        "load_kw": grid.load_kw * column(grid.load_names, share),
        "load_kvar": grid.load_kvar * column(grid.load_names, share),
        "generator_kw": grid.generator_kw * column(grid.generator_names, share),
        "taps": 1.0 + TAP_STEP * column(grid.tap_names, st.integers(-16, 16), int),
        "capacitor_states": column(grid.capacitor_names, st.booleans(), bool),
        "switch_closed": column(grid.switch_names, st.booleans(), bool),
        "source_pu": column(("source",), st.floats(0.9, 1.1))[:, 0],
    }


def _mixed(grid: CompiledFeeder, num_envs: int) -> dict[str, np.ndarray]:
    """Return a batch wider than a lane: loads, taps, capacitors, in a quarter of the rows switches too."""
    rng = np.random.default_rng(7)
    closed = np.tile(grid.nominal_switch_closed, (num_envs, 1))
    rows = np.flatnonzero(rng.random(num_envs) < 0.25)
    closed[rows] = rng.integers(0, 2, (len(rows), closed.shape[1]))
    return {
        "load_kw": grid.load_kw * rng.uniform(0.0, 1.4, (num_envs, len(grid.load_kw))),
        "load_kvar": grid.load_kvar * rng.uniform(0.0, 1.4, (num_envs, len(grid.load_kw))),
        "generator_kw": grid.generator_kw * rng.uniform(0.0, 1.4, (num_envs, len(grid.generator_kw))),
        "taps": 1.0 + TAP_STEP * rng.integers(-16, 17, (num_envs, len(grid.tap_names))),
        "capacitor_states": rng.integers(0, 2, (num_envs, len(grid.capacitor_names))).astype(float),
        "switch_closed": closed,
        "source_pu": rng.uniform(0.95, 1.05, num_envs),
    }


def kirchhoff_residual(feeder: Feeder, result: PowerFlow) -> np.ndarray:
    """Return the largest sum of currents at a node over the largest current at any node, float64 [E]."""
    terminals = terminal_powers(feeder, result)
    rows = [result.grid.node_names.index(node) for node in terminals.node]
    # On the nodes' voltage bases, so that the sides of a transformer count alike.
    current = terminals.current_a * result.grid.node_base_v[rows][:, None]
    total, largest = (np.zeros((result.grid.num_nodes, current.shape[1]), dtype) for dtype in (complex, float))
    np.add.at(total, rows, current)
    np.maximum.at(largest, rows, np.abs(current))
    residual: np.ndarray = np.abs(total).max(axis=0) / largest.max(axis=0)
    return residual


@on_feeders
@given(data=st.data())
@FEW
def test_currents_at_every_node_sum_to_zero(name: str, data: st.DataObject) -> None:
    result = gridray.solve(GRIDS[name], **data.draw(states(GRIDS[name])))
    assert result.converged.all()
    assert kirchhoff_residual(FEEDERS[name], result).max() < 1e-6


@on_feeders
@given(data=st.data())
@FEW
def test_source_feeds_items_and_losses(name: str, data: st.DataObject) -> None:
    result = gridray.solve(GRIDS[name], **data.draw(states(GRIDS[name])))
    terminals = terminal_powers(FEEDERS[name], result)
    kinds = np.array([element.split(".")[0] for element in terminals.element])
    power = {kind: terminals.power_kva[kinds == kind].sum(axis=0) for kind in set(kinds)}
    losses = power["line"] + power["transformer"]
    drawn = losses + power["load"] + power["capacitor"] + power.get("pv", 0.0)
    scale = np.abs(terminals.power_kva).max()
    np.testing.assert_allclose(-power["vsource"], result.source_kva, atol=1e-6 * scale)
    np.testing.assert_allclose(-power["vsource"], drawn, atol=1e-6 * scale)
    np.testing.assert_allclose(losses, result.losses_kva, atol=1e-6 * scale)
    assert (result.losses_kva.real > -1e-9 * scale).all()


@on_feeders
def test_row_of_a_mixed_batch_equals_the_environment_alone(name: str) -> None:
    grid, num_envs = GRIDS[name], LANE + 9
    batch = _mixed(grid, num_envs)
    together = gridray.solve(grid, **batch)
    for row in range(0, num_envs, 6):
        alone = gridray.solve(grid, **{key: array[row] for key, array in batch.items()})
        np.testing.assert_array_equal(alone.voltage[0], together.voltage[row])
        assert alone.iterations[0] == together.iterations[row]
        assert alone.status[0] == together.status[row]


@on_feeders
@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_permuting_environments_permutes_results(name: str, seed: int) -> None:
    grid, num_envs = GRIDS[name], LANE + 9
    batch, order = _mixed(grid, num_envs), np.random.default_rng(seed).permutation(num_envs)
    permuted = gridray.solve(grid, **{key: array[order] for key, array in batch.items()})
    np.testing.assert_array_equal(permuted.voltage, gridray.solve(grid, **batch).voltage[order])


def test_large_batch_that_is_written_past_the_caches_equals_small_ones() -> None:
    grid = GRIDS["ieee13"]
    num_envs = -(-LARGE // (2 * grid.num_nodes * LANE)) * LANE + LANE
    batch = {key: array[np.arange(num_envs) % len(array)] for key, array in _mixed(grid, 3 * LANE).items()}
    large = gridray.solve(grid, **batch)
    small = gridray.solve(grid, **{key: array[: 3 * LANE] for key, array in batch.items()})
    np.testing.assert_array_equal(large.voltage, small.voltage[np.arange(num_envs) % (3 * LANE)])


@on_feeders
def test_two_threads_equal_one(name: str) -> None:
    grid = GRIDS[name]
    batch = _mixed(grid, 3 * LANE + 5)
    one, two = (gridray.solve(grid, **batch, num_threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.voltage, two.voltage)
    np.testing.assert_array_equal(one.iterations, two.iterations)
    np.testing.assert_array_equal(one.status, two.status)


@on_feeders
def test_values_by_name_equal_values_by_position(name: str) -> None:
    grid = GRIDS[name]
    batch = _mixed(grid, NUM_ENVS)
    names = {
        "load_kw": grid.load_names,
        "load_kvar": grid.load_names,
        "generator_kw": grid.generator_names,
        "taps": grid.tap_names,
        "capacitor_states": grid.capacitor_names,
        "switch_closed": grid.switch_names,
    }
    by_name: dict[str, Any] = {key: dict(zip(names[key], batch[key].T, strict=True)) for key in names}
    by_name["source_pu"] = batch["source_pu"]
    np.testing.assert_array_equal(gridray.solve(grid, **by_name).voltage, gridray.solve(grid, **batch).voltage)


def _renamed(feeder: Feeder, rng: np.random.Generator) -> Feeder:
    """Return the same network with other bus names, every list shuffled and every second line turned round."""

    def bus(name: str) -> str:
        return f"z{name[::-1]}"

    def shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(items[i] for i in rng.permutation(len(items)))

    lines = tuple(replace(line, from_bus=bus(line.from_bus), to_bus=bus(line.to_bus)) for line in feeder.lines)
    turned = tuple(
        replace(line, from_bus=line.to_bus, to_bus=line.from_bus, to_phases=line.phases, phases=line.to_phases)
        if line.to_phases is not None
        else replace(line, from_bus=line.to_bus, to_bus=line.from_bus)
        for line in lines[::2]
    )
    return replace(
        feeder,
        source=replace(feeder.source, bus=bus(feeder.source.bus)),
        lines=shuffled(turned + lines[1::2]),
        transformers=shuffled(
            tuple(
                replace(t, windings=tuple(replace(w, bus=bus(w.bus)) for w in t.windings)) for t in feeder.transformers
            )
        ),
        regulators=shuffled(feeder.regulators),
        capacitors=shuffled(tuple(replace(item, bus=bus(item.bus)) for item in feeder.capacitors)),
        loads=shuffled(tuple(replace(item, bus=bus(item.bus)) for item in feeder.loads)),
        generators=shuffled(tuple(replace(item, bus=bus(item.bus)) for item in feeder.generators)),
        bus_xy=(),
    )


@on_feeders
@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_renaming_and_reordering_changes_nothing(name: str, seed: int) -> None:
    feeder, grid = FEEDERS[name], GRIDS[name]
    other = gridray.compile_feeder(_renamed(feeder, np.random.default_rng(seed)))
    picked = []
    for node in grid.node_names:
        bus, phase = node.split(".")
        picked.append(other.node_names.index(f"z{bus[::-1]}.{phase}"))
    share = np.array([0.4, 1.3])[:, None]
    results = [
        gridray.solve(
            each,
            load_kw=share * each.load_kw,
            taps={tap: [1.0 + TAP_STEP * n, 1.0 - TAP_STEP * n] for n, tap in enumerate(grid.tap_names)},
            tolerance=1e-11,
        )
        for each in (grid, other)
    ]
    assert all(result.converged.all() for result in results)
    before, after = (result.voltage / result.grid.node_base_v for result in results)
    np.testing.assert_allclose(after[:, picked], before, rtol=0.0, atol=ROUNDING_PU)


@on_feeders
def test_neutral_taps_equal_a_feeder_without_regulators(name: str) -> None:
    feeder, grid = FEEDERS[name], GRIDS[name]
    plain = gridray.compile_feeder(replace(feeder, regulators=()))
    assert plain.tap_names == ()
    fixed = gridray.solve(plain, tolerance=1e-11)
    neutral = gridray.solve(grid, taps=np.ones(len(grid.tap_names)), tolerance=1e-11)
    by_node = dict(zip(plain.node_names, fixed.voltage[0] / plain.node_base_v, strict=True))
    expected = [by_node[node] for node in grid.node_names]
    np.testing.assert_allclose(neutral.voltage[0] / grid.node_base_v, expected, rtol=0.0, atol=ROUNDING_PU)


@on_feeders
@given(data=st.data())
@FEW
def test_ideal_one_to_one_transformer_is_invisible(name: str, data: st.DataObject) -> None:
    feeder, grid = FEEDERS[name], GRIDS[name]
    line = data.draw(st.sampled_from([line for line in feeder.lines if not line.is_switch]))
    base_kv = grid.node_base_v[grid.node_names.index(f"{line.from_bus}.{line.phases[0]}")] / 1e3
    kv = base_kv * (3.0**0.5 if len(line.phases) > 1 else 1.0)
    windings = tuple(
        Winding(bus=bus, phases=line.phases, connection="wye", kv=kv, kva=5000.0, r_percent=1e-6)
        for bus in (line.from_bus, "behind")
    )
    ideal = Transformer(name="ideal", windings=windings, xhl_percent=1e-5, antifloat_ppm=0.0)
    lines = tuple(replace(item, from_bus="behind") if item is line else item for item in feeder.lines)
    more = gridray.compile_feeder(replace(feeder, lines=lines, transformers=(*feeder.transformers, ideal)))
    by_node = dict(zip(more.node_names, gridray.solve(more).voltage[0], strict=True))
    expected = gridray.solve(grid).voltage[0] / grid.node_base_v
    found = np.array([by_node[node] for node in grid.node_names]) / grid.node_base_v
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_island_is_dead_where_no_path_leads_to_the_source(seed: int) -> None:
    feeder, grid = FEEDERS["meshed"], GRIDS["meshed"]
    closed = np.random.default_rng(seed).integers(0, 2, (NUM_ENVS, len(grid.switch_names))).astype(float)
    result = gridray.solve(grid, switch_closed=closed)
    buses = np.array([node.split(".")[0] for node in grid.node_names])
    for row in range(NUM_ENVS):
        is_open = {switch for switch, on in zip(grid.switch_names, closed[row], strict=True) if not on}
        is_dead = ~np.isin(buses, list(_reached(feeder, is_open)))
        np.testing.assert_array_equal(result.voltage[row] == 0.0, is_dead)
        assert result.status[row] == ("dead island" if is_dead.any() else "converged")
    terminals = terminal_powers(feeder, result)
    is_dead = result.voltage.T[[grid.node_names.index(node) for node in terminals.node]] == 0.0
    assert not terminals.power_kva[is_dead].any()


def _reached(feeder: Feeder, is_open: set[str]) -> set[str]:
    edges = [{line.from_bus, line.to_bus} for line in feeder.lines if line.name not in is_open]
    edges += [{winding.bus for winding in transformer.windings} for transformer in feeder.transformers]
    reached, size = {feeder.source.bus}, 0
    while size < len(reached):
        size = len(reached)
        reached = reached.union(*(edge for edge in edges if edge & reached))
    return reached


def test_open_switch_kills_ieee13_behind_it() -> None:
    grid = GRIDS["ieee13"]
    result = gridray.solve(grid, switch_closed={"671692": [1.0, 0.0]})
    assert result.status.tolist() == ["converged", "dead island"]
    assert result.converged.all()
    is_behind = np.array([node.startswith(("692.", "675.")) for node in grid.node_names])
    assert (result.voltage[1, is_behind] == 0.0).all()
    assert (result.vmag_pu[1, ~is_behind] > 0.9).all()


@on_feeders
@given(share=arrays(float, 4, elements=st.floats(1.0, 40.0)), low_pu=st.sampled_from([0.1, 0.5, 0.9]))
@FEW
def test_overload_is_solved_or_called_beyond_loadability(name: str, share: np.ndarray, low_pu: float) -> None:
    loads = tuple(replace(load, model=1, vmin_pu=low_pu, vlow_pu=0.5 * low_pu) for load in FEEDERS[name].loads)
    feeder = replace(FEEDERS[name], loads=loads)
    grid = gridray.compile_feeder(feeder)
    result = gridray.solve(grid, load_kw=share[:, None] * grid.load_kw, load_kvar=share[:, None] * grid.load_kvar)
    assert set(result.status) <= {"converged", "beyond loadability"} < set(STATUSES)
    np.testing.assert_array_equal(result.status == "converged", result.converged)
    assert np.isfinite(result.voltage).all()
    assert np.isfinite(result.losses_kva).all()
    assert kirchhoff_residual(feeder, result)[result.converged].max(initial=0.0) < 1e-6


@on_feeders
@given(source_pu=st.floats(0.1, 2.0), angle_deg=st.floats(-180.0, 180.0))
@FEW
def test_impedance_loads_scale_and_turn_with_the_source(name: str, source_pu: float, angle_deg: float) -> None:
    loads = tuple(replace(load, model=2) for load in FEEDERS[name].loads)
    feeder = replace(FEEDERS[name], loads=loads, generators=())
    turned = replace(feeder.source, angle_deg=feeder.source.angle_deg + angle_deg)
    base = gridray.solve(gridray.compile_feeder(feeder), tolerance=1e-11)
    grid = gridray.compile_feeder(replace(feeder, source=turned))
    result = gridray.solve(grid, source_pu=source_pu, tolerance=1e-11)
    expected = base.voltage * source_pu * np.exp(1j * np.deg2rad(angle_deg)) / grid.node_base_v
    np.testing.assert_allclose(result.voltage / grid.node_base_v, expected, rtol=0.0, atol=ROUNDING_PU)
