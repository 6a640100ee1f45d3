"""The Jacobian at typical load, factorised once when a feeder is compiled."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from gridray.physics.factorization import factorize_shared, multiply
from gridray.physics.loads import linearise
from gridray.physics.network import Chord
from gridray.physics.ordering import update_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Network
    from gridray.physics.ordering import EliminationPattern


def linearisation(
    net: Network,
    pattern: EliminationPattern,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    switches: NDArray[np.float64],
    alive: NDArray[np.bool_],
    v: NDArray[np.float64],
) -> Chord:
    """Return the factors that all environments share.

    Args:
        net: the feeder.
        pattern: its elimination pattern.
        p: typical active power of the items, pu, [num_items].
        q: reactive power likewise.
        switches: per control its value if it is a switch, NaN if a tap, [num_controls].
        alive: nodes connected to the source, elimination order, [N].
        v: voltages there, pu, elimination order, [N, 2].
    """
    derivative = np.empty((len(net.branch_from), 4))
    branch_v = np.empty((len(net.branch_from), 2))
    _branch_derivatives(net, p, q, v, derivative, branch_v)
    blocks = _jacobian(net, switches, alive, derivative)
    factorize_shared(blocks, net.start, net.column, net.target, pattern.first_tail)
    n, num_entries = len(v), len(net.column)
    rhs = np.stack((net.source_re, net.source_im), axis=1)
    _forward(blocks, net.start, net.column, pattern.num_passive, rhs)
    owner = np.repeat(np.arange(n), np.diff(net.start))
    (lower,) = np.nonzero((owner >= pattern.num_passive) & (owner < pattern.first_tail))
    lower = lower[np.lexsort((owner[lower], net.column[lower]))]
    (upper,) = np.nonzero(owner < pattern.first_tail)
    return Chord(
        num_passive=pattern.num_passive,
        first_tail=pattern.first_tail,
        **_branches(net, branch_v, derivative),
        rhs=rhs,
        forward_start=np.searchsorted(net.column[lower], np.arange(n + 1)),
        forward_column=owner[lower],
        forward_block=-blocks[n + num_entries + lower],
        backward_start=net.start.copy(),
        backward_column=net.column[upper],
        backward_block=-_products(blocks[owner[upper]], blocks[n + upper]),
        diagonal=blocks[:n].copy(),
        **_tail(net, pattern, switches, blocks),
    )


def _branches(net: Network, branch_v: NDArray[np.float64], derivative: NDArray[np.float64]) -> dict[str, Any]:
    """Return the branches in the order of their earlier places; a current turns round with its voltage."""
    has_two = net.branch_to >= 0
    near = np.where(has_two, np.minimum(net.branch_from, net.branch_to), net.branch_from)
    far = np.where(has_two, np.maximum(net.branch_from, net.branch_to), -1)
    order = np.argsort(near, kind="stable")
    curves, kind = np.unique(net.branch_curve[:, 1:], axis=0, return_inverse=True)
    direction = np.where(near == net.branch_from, 1.0, -1.0)[:, None]
    return {
        "branch_near": near[order],
        "branch_far": far[order],
        "branch_item": net.branch_item[order],
        "branch_scale": net.branch_curve[order, 0],
        "branch_weight": (net.branch_share * net.branch_curve[:, 0])[order],
        "branch_curve": kind.reshape(-1)[order],
        "curves": np.concatenate((np.ones((len(curves), 1)), curves), axis=1),
        "branch_v": (direction * branch_v)[order],
        "derivative": derivative[order],
    }


def _jacobian(
    net: Network, switches: NDArray[np.float64], alive: NDArray[np.bool_], derivative: NDArray[np.float64]
) -> NDArray[np.float64]:
    """J = Y + G without the taps' terms; the row and column of a dead node are the identity's."""
    n, num_entries = len(alive), len(net.column)
    g, b = net.y_g.copy(), net.y_b.copy()
    u = switches[net.term_control]
    is_switch = ~np.isnan(u)
    for to, values in ((g, net.term_g), (b, net.term_b)):
        np.add.at(to, net.term_entry[is_switch], (values * u)[is_switch])
    blocks = np.zeros((n + 2 * num_entries, 4))
    np.add.at(blocks, net.y_block, np.stack((g, -b, b, g), axis=1))
    np.add.at(blocks, net.branch_from, derivative)
    two = net.branch_to >= 0
    np.add.at(blocks, net.branch_to[two], derivative[two])
    for column in (0, 1):
        np.add.at(blocks, net.branch_blocks[two, column], -derivative[two])
    owner = np.repeat(np.arange(n), np.diff(net.start))
    cut = np.flatnonzero(~(alive[owner] & alive[net.column]))
    blocks[n + cut] = 0.0
    blocks[n + num_entries + cut] = 0.0
    blocks[:n][~alive] = (1.0, 0.0, 0.0, 1.0)
    return blocks


def _tail(
    net: Network, pattern: EliminationPattern, switches: NDArray[np.float64], blocks: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the pattern and the values of the part that environments factorise themselves."""
    n, num_entries, first = len(pattern.order), len(net.column), pattern.first_tail
    entries = np.arange(net.start[first], num_entries)
    start = net.start[first:] - net.start[first]
    column = net.column[entries] - first
    kept = np.concatenate((np.arange(first, n), n + entries, n + num_entries + entries))
    new_number = np.full(n + 2 * num_entries, -1, dtype=np.int64)
    new_number[kept] = np.arange(len(kept))
    is_tap = np.isnan(switches[net.term_control])
    return {
        "tail_start": start,
        "tail_column": column,
        "tail_target": update_targets(start, column),
        "tail_blocks": blocks[kept],
        "tail_term_block": new_number[net.y_block[net.term_entry[is_tap]]],
        "tail_term_control": net.term_control[is_tap],
        "tail_term_exponent": net.term_exponent[is_tap],
        "tail_term_g": net.term_g[is_tap],
        "tail_term_b": net.term_b[is_tap],
    }


@njit(cache=True, error_model="numpy")
def _branch_derivatives(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    v: NDArray[np.float64],
    derivative: NDArray[np.float64],
    branch_v: NDArray[np.float64],
) -> None:
    for m in range(net.branch_from.size):
        i, j, item, share = net.branch_from[m], net.branch_to[m], net.branch_item[m], net.branch_share[m]
        vr, vi = v[i, 0], v[i, 1]
        if j >= 0:
            vr -= v[j, 0]
            vi -= v[j, 1]
        branch_v[m, 0], branch_v[m, 1] = vr, vi
        values = linearise(net.branch_curve[m], p[item] * share, q[item] * share, vr, vi)
        derivative[m, 0], derivative[m, 1], derivative[m, 2], derivative[m, 3] = values


@njit(cache=True, error_model="numpy")
def _forward(
    blocks: NDArray[np.float64],
    start: NDArray[np.int64],
    column: NDArray[np.int64],
    num_places: int,
    x: NDArray[np.float64],
) -> None:
    first_lower = start.size - 1 + column.size
    for k in range(num_places):
        for s in range(start[k], start[k + 1]):
            a = blocks[first_lower + s]
            x[column[s], 0] -= a[0] * x[k, 0] + a[1] * x[k, 1]
            x[column[s], 1] -= a[2] * x[k, 0] + a[3] * x[k, 1]


@njit(cache=True, error_model="numpy")
def _products(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    product = np.empty_like(a)
    for k in range(a.shape[0]):
        multiply(a[k], b[k], product[k])
    return product
