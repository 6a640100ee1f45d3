"""A linear or mixed-integer programme written down block by block, solved by HiGHS through SciPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Term = tuple[ArrayLike, NDArray[np.int64]]


class Solution(NamedTuple):
    """x: float64 [num_variables]; value: of the objective; bound: no feasible point has a smaller value than this."""

    x: NDArray[np.float64]
    value: float
    bound: float


class BestDay(NamedTuple):
    """bound: of the day's return; set_points: by channel, float64 [T]; "<regulator>.tap" is a position."""

    bound: float
    set_points: dict[str, NDArray[np.float64]]


class Programme:
    """Minimise cost @ x with low <= x <= high and low <= A x <= high."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._low: list[NDArray[np.float64]] = []
        self._high: list[NDArray[np.float64]] = []
        self._cost: list[NDArray[np.float64]] = []
        self._is_whole: list[NDArray[np.bool_]] = []
        self._rows: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._row_low: list[NDArray[np.float64]] = []
        self._row_high: list[NDArray[np.float64]] = []
        self.num_variables = self.num_rows = 0

    def variables(
        self,
        shape: tuple[int, ...],
        low: ArrayLike = -np.inf,
        high: ArrayLike = np.inf,
        *,
        cost: ArrayLike = 0.0,
        is_whole: bool = False,
    ) -> NDArray[np.int64]:
        """Add variables and return their numbers, int64 [*shape]."""
        size = int(np.prod(shape))
        for to, value in ((self._low, low), (self._high, high), (self._cost, cost)):
            to.append(np.broadcast_to(np.asarray(value, dtype=np.float64), shape).ravel())
        self._is_whole.append(np.full(size, is_whole))
        numbers = self.num_variables + np.arange(size).reshape(shape)
        self.num_variables += size
        return numbers

    def limits(self, variables: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the least and the largest values that variables may take, in their shape."""
        return np.concatenate(self._low)[variables], np.concatenate(self._high)[variables]

    def rows(self, terms: Sequence[Term], low: ArrayLike = -np.inf, high: ArrayLike = np.inf) -> None:
        """Add rows low <= sum of coefficient * variable <= high.

        Args:
            terms: coefficients, broadcast to their variables, and these, int64 [num_rows] or [num_rows, num_summands].
            low: float64 [num_rows] or a number.
            high: likewise.
        """
        num_rows = len(terms[0][1])
        numbers = self.num_rows + np.arange(num_rows)
        for coefficient, variables in terms:
            columns = variables.reshape(num_rows, variables.size // max(num_rows, 1))
            values = np.broadcast_to(np.asarray(coefficient, dtype=np.float64), variables.shape)
            self._rows.append((np.repeat(numbers, columns.shape[1]), columns.ravel(), values.ravel()))
        self._row_low.append(np.broadcast_to(np.asarray(low, dtype=np.float64), (num_rows,)))
        self._row_high.append(np.broadcast_to(np.asarray(high, dtype=np.float64), (num_rows,)))
        self.num_rows += num_rows

    def columns(
        self,
        parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]],
        num: int,
        *,
        low: ArrayLike,
        high: ArrayLike = np.inf,
    ) -> None:
        """Add `num` rows low <= sum <= high, given as variables, rows (from 0) and coefficients, [num_summands]."""
        for variables, row, value in parts:
            self._rows.append((self.num_rows + row, variables, value))
        self._row_low.append(np.broadcast_to(np.asarray(low, dtype=np.float64), (num,)))
        self._row_high.append(np.broadcast_to(np.asarray(high, dtype=np.float64), (num,)))
        self.num_rows += num

    def solve(self, *, time_limit_s: float = 60.0, gap: float = 1e-4) -> Solution:
        """Return a solution; with whole numbers, within the relative gap or what the time allows.

        Raises:
            GridRayError: there is none, or none was found in time.
        """
        row, column, value = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        matrix = csr_array((value, (row, column)), shape=(self.num_rows, self.num_variables))
        is_whole = np.concatenate(self._is_whole)
        result = milp(
            np.concatenate(self._cost),
            integrality=is_whole.astype(np.int64),
            bounds=Bounds(np.concatenate(self._low), np.concatenate(self._high)),
            constraints=LinearConstraint(matrix, np.concatenate(self._row_low), np.concatenate(self._row_high)),
            options={"time_limit": time_limit_s, "mip_rel_gap": gap},
        )
        if result.x is None:
            raise GridRayError(f"The programme has no solution ({result.message}): give more time or wider limits.")
        bound = result.mip_dual_bound if is_whole.any() else result.fun
        return Solution(result.x, float(result.fun), float(bound))
