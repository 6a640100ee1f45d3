"""Currents over ratings agree with the terminal powers of a solved feeder, whatever taps and switches do."""

from __future__ import annotations

import numpy as np
import pytest

from gridray.feeders.library import feeder_names, load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.physics.flows import element_ratings, flows, loadings
from gridray.physics.powerflow import solve
from gridray.physics.terminals import terminal_powers


@pytest.mark.parametrize("name", feeder_names())
def test_loading_is_the_terminal_current_over_the_rating(name: str) -> None:
    feeder = load_feeder(name)
    grid = compile_feeder(feeder)
    rng = np.random.default_rng(0)
    result = solve(
        grid,
        load_kw=grid.load_kw * rng.uniform(0.3, 1.0, (3, len(grid.load_kw))),
        taps=1.0 + 0.00625 * rng.integers(-4, 8, (3, len(grid.tap_names))),
    )
    ratings = element_ratings(feeder)
    seen = dict(zip(ratings, loadings(flows(feeder, grid, ratings), result.state), strict=True))
    terminals = terminal_powers(feeder, result)
    first_bus = {f"line.{line.name}": line.from_bus for line in feeder.lines}
    first_bus |= {f"transformer.{t.name}": t.windings[0].bus for t in feeder.transformers}
    for element, rating_a in ratings.items():
        rows = [
            k
            for k, (owner, node) in enumerate(zip(terminals.element, terminals.node, strict=True))
            if owner == element and node.rpartition(".")[0] == first_bus[element]
        ]
        expected = np.abs(terminals.current_a[rows]).max(axis=0) / rating_a
        np.testing.assert_allclose(seen[element], expected, rtol=1e-6, atol=1e-9)


def test_open_switch_carries_no_current() -> None:
    feeder = load_feeder("ieee13")
    grid = compile_feeder(feeder)
    watched = flows(feeder, grid, {"line.671692": 100.0})
    result = solve(grid, switch_closed=[[1.0], [0.0]])
    loading = loadings(watched, result.state)[0]
    assert loading[0] > 1.0
    assert loading[1] == 0.0
