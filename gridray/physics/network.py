"""The arrays that the power-flow kernels read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Network(NamedTuple):
    """One feeder in per unit (1 MVA per phase, each node's own line-to-neutral base), nodes in elimination order.

    Read-only, shared by all environments. N nodes, E stored admittances, C controlled terms, B load branches.

    start: int64 [N + 1], elimination pattern (see EliminationPattern).
    column: int64 [num_entries], elimination pattern.
    target: int64 [num_updates], elimination pattern.
    y_row: int64 [E], row node of each stored admittance.
    y_column: int64 [E], column node.
    y_block: int64 [E], block of the factorisation that the admittance is added to.
    y_g: float64 [E], constant conductance, pu.
    y_b: float64 [E], constant susceptance, pu.
    term_entry: int64 [C], stored admittance that a controlled term adds to.
    term_control: int64 [C], control u (1/tap of a regulator, then state of a switch) that scales the term.
    term_exponent: int64 [C], power of u, 1 or 2.
    term_g: float64 [C], conductance of the term at u = 1, pu.
    term_b: float64 [C], susceptance of the term at u = 1, pu.
    source_re: float64 [N], Norton current of the source, real part, pu.
    source_im: float64 [N], imaginary part, pu.
    branch_from: int64 [B], node the load branch hangs on.
    branch_to: int64 [B], its other node, -1 for ground.
    branch_blocks: int64 [B, 2], blocks (from, to), (to, from); -1 without a second node.
    branch_item: int64 [B], item (loads, generators, capacitors) whose power the branch carries.
    branch_share: float64 [B], share of the item's power.
    branch_curve: float64 [B, 19], current against voltage (see loads.relative_admittance).
    """

    start: NDArray[np.int64]
    column: NDArray[np.int64]
    target: NDArray[np.int64]
    y_row: NDArray[np.int64]
    y_column: NDArray[np.int64]
    y_block: NDArray[np.int64]
    y_g: NDArray[np.float64]
    y_b: NDArray[np.float64]
    term_entry: NDArray[np.int64]
    term_control: NDArray[np.int64]
    term_exponent: NDArray[np.int64]
    term_g: NDArray[np.float64]
    term_b: NDArray[np.float64]
    source_re: NDArray[np.float64]
    source_im: NDArray[np.float64]
    branch_from: NDArray[np.int64]
    branch_to: NDArray[np.int64]
    branch_blocks: NDArray[np.int64]
    branch_item: NDArray[np.int64]
    branch_share: NDArray[np.float64]
    branch_curve: NDArray[np.float64]


class Chord(NamedTuple):
    """The Jacobian at typical load, factorised once for all environments.

    Places 0..num_passive-1 carry neither branches nor taps and are read once at the end; places first_tail.. are the
    regulators' terminals, whose part of the matrix each environment factorises for its own taps.

    num_passive, first_tail: int64 scalars.
    branch_near, branch_far: int64 [B], the earlier place that a branch hangs on, in whose order they are, and the
    later one, -1 for ground.
    branch_item: int64 [B]; branch_scale, branch_weight: float64 [B], 1/base^2, and that times the share of the item.
    branch_curve: int64 [B], row of curves; curves: float64 [., 19], the different ones.
    branch_v: float64 [B, 2], voltage across each branch at typical load, pu.
    derivative: float64 [B, 4], d current / d voltage of each branch there, pu.
    rhs: float64 [N, 2], the source's current after the elimination of the passive places, pu.
    forward_start: int64 [N + 1], forward_column: int64, forward_block: float64 [., 4]; rows of -L.
    backward_start: int64 [N + 1], backward_column: int64, backward_block: float64 [., 4]; rows of -D^-1 U.
    diagonal: float64 [N, 4], D^-1.
    tail_start, tail_column, tail_target: int64, elimination pattern of the tail.
    tail_blocks: float64 [num_tail_blocks, 4], its matrix without the tap's terms.
    tail_term_block, tail_term_control, tail_term_exponent: int64 [C']; tail_term_g, tail_term_b: float64 [C'].
    """

    num_passive: int
    first_tail: int
    branch_near: NDArray[np.int64]
    branch_far: NDArray[np.int64]
    branch_item: NDArray[np.int64]
    branch_scale: NDArray[np.float64]
    branch_weight: NDArray[np.float64]
    branch_curve: NDArray[np.int64]
    curves: NDArray[np.float64]
    branch_v: NDArray[np.float64]
    derivative: NDArray[np.float64]
    rhs: NDArray[np.float64]
    forward_start: NDArray[np.int64]
    forward_column: NDArray[np.int64]
    forward_block: NDArray[np.float64]
    backward_start: NDArray[np.int64]
    backward_column: NDArray[np.int64]
    backward_block: NDArray[np.float64]
    diagonal: NDArray[np.float64]
    tail_start: NDArray[np.int64]
    tail_column: NDArray[np.int64]
    tail_target: NDArray[np.int64]
    tail_blocks: NDArray[np.float64]
    tail_term_block: NDArray[np.int64]
    tail_term_control: NDArray[np.int64]
    tail_term_exponent: NDArray[np.int64]
    tail_term_g: NDArray[np.float64]
    tail_term_b: NDArray[np.float64]
