"""The lane LU solves what NumPy's dense solver solves."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from gridray.physics.buffers import aligned_empty
from gridray.physics.factorization import factorize, substitute
from gridray.physics.lanes import LANE
from gridray.physics.ordering import eliminate


def _dense_and_blocks(graph: nx.Graph, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, object]:
    n = graph.number_of_nodes()
    pattern = eliminate(n, graph.edges)
    place = np.argsort(pattern.order)
    num_entries = len(pattern.column)
    owner = np.repeat(np.arange(n), np.diff(pattern.start))
    blocks = aligned_empty((n + 2 * num_entries, 4, LANE))
    blocks[:] = 0.0
    dense = np.zeros((LANE, 2 * n, 2 * n))

    def put(block: int, i: int, j: int, value: np.ndarray) -> None:
        blocks[block] = value
        dense[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = value.reshape(2, 2, LANE).transpose(2, 0, 1)

    for k in range(n):
        put(k, k, k, rng.normal(size=(4, LANE)) + 10.0 * np.array([1.0, 0.0, 0.0, 1.0])[:, None])
    edges = {(int(place[a]), int(place[b])) for a, b in graph.edges}
    edges |= {(b, a) for a, b in edges}
    for q, (k, j) in enumerate(zip(owner.tolist(), pattern.column.tolist(), strict=True)):
        if (k, j) in edges:
            put(n + q, k, j, rng.normal(size=(4, LANE)))
            put(n + num_entries + q, j, k, rng.normal(size=(4, LANE)))
    return dense, blocks.reshape(-1, LANE), pattern


@pytest.mark.parametrize("graph", [nx.path_graph(7), nx.random_labeled_tree(30, seed=1), nx.grid_2d_graph(4, 5)])
def test_lane_solution_equals_dense_solution(graph: nx.Graph) -> None:
    graph = nx.convert_node_labels_to_integers(graph)
    rng = np.random.default_rng(0)
    dense, blocks, pattern = _dense_and_blocks(graph, rng)
    x = aligned_empty((2 * graph.number_of_nodes(), LANE))
    x[:] = rng.normal(size=x.shape)
    expected = np.linalg.solve(dense, x.T[..., None])[..., 0]
    factorize(blocks, pattern.start, pattern.column, pattern.target)
    substitute(blocks, pattern.start, pattern.column, x, 0)
    np.testing.assert_allclose(x.T, expected, rtol=1e-10, atol=1e-12)


def test_tree_elimination_makes_no_fill() -> None:
    graph = nx.random_labeled_tree(200, seed=3)
    assert len(eliminate(200, graph.edges).column) == 199
