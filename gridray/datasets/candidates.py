"""Many versions of a feeder at the same measured moments, solved in one batch: what calibration compares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.datasets.replay import TOLERANCE, measured_state
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import power_balance, voltage_magnitudes
from gridray.physics.solver import solve_state
from gridray.physics.state import nominal_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.feeders.components import Load, Matrix
    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState


class Answer(NamedTuple):
    """vmag_pu: float64 [K, num_nodes, S]; source_kva: complex128 [K, S]; of K candidates at S moments."""

    vmag_pu: NDArray[np.float64]
    source_kva: NDArray[np.complex128]


class Candidates:
    """A feeder whose loads may lie on other phases, be larger or smaller, and whose lines may be longer or shorter.

    A single-phase load is there once for each phase that its bus has, and the label says which one draws: labels are
    power values, so that a batch of them is one solve. Line impedances need a compiled feeder of their own.
    """

    def __init__(self, feeder: Feeder, values: Mapping[str, NDArray[np.float64]]) -> None:
        """Take the measured moments; values: float64 [S] by point, without NaN."""
        self.feeder = feeder
        plain = compile_feeder(feeder)
        state = measured_state(feeder, plain, values)
        phases: dict[str, list[int]] = {}
        for node in plain.node_names:
            bus, _, phase = node.rpartition(".")
            phases.setdefault(bus, []).append(int(phase))
        self.choices = [_choices(load, phases) for load in feeder.loads]
        self._row_load = np.array([i for i, choices in enumerate(self.choices) for _ in choices])
        self._row_phase = np.array([phase for choices in self.choices for phase in choices])
        self._copies = tuple(
            load if len(choices) == 1 else replace(load, name=f"{load.name}@{phase}", phases=(phase,))
            for load, choices in zip(feeder.loads, self.choices, strict=True)
            for phase in choices
        )
        num_loads = len(feeder.loads)
        self._kw, self._kvar = state.items_kw[:num_loads], state.items_kvar[:num_loads]
        self._rest_kw, self._rest_kvar = state.items_kw[num_loads:], state.items_kvar[num_loads:]
        self._state = state
        self.num_moments = state.items_kw.shape[1]
        self.first_labels = np.array([choices[0] for choices in self.choices])
        self.grid = self._compiled(np.ones(len(feeder.line_codes)))

    def solve(
        self, labels: NDArray[np.int64], scales: NDArray[np.float64], impedance: NDArray[np.float64] | None = None
    ) -> Answer:
        """Solve all candidates at all moments.

        Args:
            labels: int64 [K, num_loads], phase of each single-phase load; of other loads their first choice.
            scales: float64 [K, num_loads], factor of each load.
            impedance: float64 [num_line_codes], factor of each line code, the same in all candidates; None: 1.
        """
        grid = self.grid if impedance is None else self._compiled(impedance)
        draws = (labels[:, self._row_load] == self._row_phase) * scales[:, self._row_load]
        num = len(labels) * self.num_moments
        state: GridState = nominal_state(grid, num)
        first = len(self._row_load)
        for items, own, rest in (
            (state.items_kw, self._kw, self._rest_kw),
            (state.items_kvar, self._kvar, self._rest_kvar),
        ):
            items[:first] = (draws.T[:, :, None] * own[self._row_load][:, None, :]).reshape(first, num)
            items[first:] = np.tile(rest, len(labels))
        state.taps[:] = np.tile(self._state.taps, len(labels))
        state.capacitor_states[:] = np.tile(self._state.capacitor_states, len(labels))
        solved = solve_state(grid, state, tolerance=TOLERANCE)
        magnitude = voltage_magnitudes(grid, solved).reshape(grid.num_nodes, len(labels), self.num_moments)
        source = power_balance(grid, solved).source.reshape(len(labels), self.num_moments)
        return Answer(magnitude.swapaxes(0, 1), source)

    def corrected(
        self, labels: NDArray[np.int64], scales: NDArray[np.float64], impedance: NDArray[np.float64]
    ) -> Feeder:
        """Return the feeder with these labels [num_loads], load factors [num_loads] and impedance factors."""
        loads = tuple(
            replace(
                load,
                phases=(int(label),) if len(load.phases) == 1 else load.phases,
                kw=load.kw * float(scale),
                kvar=load.kvar * float(scale),
            )
            for load, label, scale in zip(self.feeder.loads, labels, scales, strict=True)
        )
        return replace(_scaled(self.feeder, impedance), loads=loads)

    def _compiled(self, impedance: NDArray[np.float64]) -> CompiledFeeder:
        return compile_feeder(replace(_scaled(self.feeder, impedance), loads=self._copies))


def _choices(load: Load, phases: dict[str, list[int]]) -> list[int]:
    """Return the phases that a load may lie on, its own first."""
    own = load.phases[0]
    if len(load.phases) > 1 or load.connection != "wye" or load.neutral != 0:
        return [own]
    return [own, *(phase for phase in phases[load.bus] if phase != own and phase <= 3)]


def _scaled(feeder: Feeder, impedance: NDArray[np.float64]) -> Feeder:
    def times(matrix: Matrix, factor: float) -> Matrix:
        return tuple(tuple(value * factor for value in row) for row in matrix)

    codes = tuple(
        replace(code, r_ohm_per_km=times(code.r_ohm_per_km, f), x_ohm_per_km=times(code.x_ohm_per_km, f))
        for code, f in zip(feeder.line_codes, impedance.tolist(), strict=True)
    )
    return replace(feeder, line_codes=codes)
