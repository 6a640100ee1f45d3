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
    term_control: int64 [C], control u (1/tap of a regulator, state of a capacitor) that scales the term.
    term_exponent: int64 [C], power of u, 1 or 2.
    term_g: float64 [C], conductance of the term at u = 1, pu.
    term_b: float64 [C], susceptance of the term at u = 1, pu.
    source_re: float64 [N], Norton current of the source, real part, pu.
    source_im: float64 [N], imaginary part, pu.
    branch_from: int64 [B], node the load branch hangs on.
    branch_to: int64 [B], its other node, -1 for ground.
    branch_blocks: int64 [B, 3], blocks (to, to), (from, to), (to, from); -1 without a second node.
    branch_item: int64 [B], load or generator (generators after loads) whose power the branch carries.
    branch_share: float64 [B], share of the item's power.
    branch_base: float64 [B], rated voltage of the branch, pu.
    branch_exponent_p: int64 [B], P varies as v to this power within the limits.
    branch_exponent_q: int64 [B], Q likewise.
    branch_vmin: float64 [B], lower voltage limit of the model, pu of branch_base; 0 if none.
    branch_vmax: float64 [B], upper limit; infinite if none.
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
    branch_base: NDArray[np.float64]
    branch_exponent_p: NDArray[np.int64]
    branch_exponent_q: NDArray[np.int64]
    branch_vmin: NDArray[np.float64]
    branch_vmax: NDArray[np.float64]
