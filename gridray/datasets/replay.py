"""Replay measured loads and device positions on the twin, and compare its voltages with the meters'."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import DatasetError
from gridray.physics.controls import TAP_STEP
from gridray.physics.measure import power_balance, voltage_magnitudes
from gridray.physics.solver import solve_state
from gridray.physics.state import nominal_state
from gridray.tasks.constraints import voltage_depths
from gridray.tasks.twin import Interval, TwinState
from gridray.tasks.twin_task import TwinTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState
    from gridray.tasks.base import StepResult, Task

    Values = Mapping[str, NDArray[np.float64]]

TOLERANCE = 1e-7
KNOWN_QUANTITIES = frozenset(
    {"tap_operations", "capacitor_operations", "refused_operations", "curtailed_kwh", "cycled_kwh", "injected_kwh"}
)
"""What device states tell; an operation that was refused leaves no trace and counts as none."""


class VoltageError(NamedTuple):
    """Model minus meter at one bus and phase, pu, over the samples of both."""

    bus: str
    phase: str
    num_samples: int
    bias_pu: float
    rms_pu: float
    p95_pu: float
    max_pu: float


def replay_points(feeder: Feeder, grid: CompiledFeeder) -> list[str]:
    """Return the points that a replay reads: loads, generators, taps and capacitors."""
    names = [f"load.{name}.{quantity}" for name in grid.load_names for quantity in ("kw", "kvar")]
    names += [f"{g.kind}.{g.name}.{quantity}" for g in feeder.generators for quantity in ("kw", "kvar")]
    names += [f"regulator.{name}.tap" for name in grid.tap_names]
    return names + [f"capacitor.{name}.state" for name in grid.capacitor_names]


def missing_for_replay(feeder: Feeder, grid: CompiledFeeder, values: Values) -> list[str]:
    """Return the points that a replay needs and `values` lacks."""
    return [name for name in replay_points(feeder, grid) if name not in values]


def replayed_state(feeder: Feeder, grid: CompiledFeeder, values: Values) -> GridState:
    """Solve the power flow of each moment; arguments and errors as of `measured_state`."""
    return solve_state(grid, measured_state(feeder, grid, values), tolerance=TOLERANCE)


def measured_state(feeder: Feeder, grid: CompiledFeeder, values: Values) -> GridState:
    """Return each moment's measured loads, generators, taps and capacitors, with nominal voltages to start from.

    Args:
        feeder: the twin's feeder, for its generators.
        grid: the same, compiled.
        values: float64 [E] by point, in the points' units; no NaN.

    Raises:
        DatasetError: a load or device has no values.
    """
    if missing := missing_for_replay(feeder, grid, values):
        raise DatasetError(
            f"A replay on '{feeder.name}' needs the points {', '.join(missing[:5])}"
            f"{' and others' if len(missing) > 5 else ''}: map them or give constants."
        )
    num = len(next(iter(values.values())))
    state = nominal_state(grid, num)
    for row, name in enumerate(grid.load_names):
        state.items_kw[row], state.items_kvar[row] = values[f"load.{name}.kw"], values[f"load.{name}.kvar"]
    first = len(grid.load_names)
    for row, generator in enumerate(feeder.generators):
        point = f"{generator.kind}.{generator.name}"
        state.items_kw[first + row] = -values[f"{point}.kw"] * generator.kva
        state.items_kvar[first + row] = -values[f"{point}.kvar"] * generator.kva
    for row, name in enumerate(grid.tap_names):
        state.taps[row] = 1.0 + TAP_STEP * np.rint(values[f"regulator.{name}.tap"])
    for row, name in enumerate(grid.capacitor_names):
        state.capacitor_states[row] = np.rint(values[f"capacitor.{name}.state"])
    return state


def twin_state(task: Task, values: Values) -> TwinState:
    """Return the state of a task's twin at each moment.

    Raises:
        DatasetError: the task has no twin, or a load or device has no values.
    """
    if not isinstance(task, TwinTask):
        raise DatasetError(f"Task '{task.name}' has no twin to replay on: map 'reward' and every observation.")
    grid = replayed_state(task.feeder, task.grid, values)
    state: TwinState = task.new_state(len(grid.source_pu))
    state.grid = grid
    state.vmag_pu = state.interval_v = voltage_magnitudes(task.grid, grid)
    return state


def score(task: Task, state: TwinState, measured: Values, values: Values) -> StepResult:
    """Return reward and costs of the interval that ends at each moment but the first, arrays [E - 1].

    Voltages are the meters' where there are any and the twin's elsewhere; operations and energies are told from how the
    devices' positions and powers changed.

    Args:
        task: whose score it is.
        state: from `twin_state`.
        measured: voltages that meters gave, by point.
        values: all values by point, [E].

    Raises:
        DatasetError: the score asks for what the devices' states do not tell.
    """
    if not isinstance(task, TwinTask):
        raise DatasetError(f"Task '{task.name}' has no twin to score on: map 'reward'.")
    if unknown := {name for fleet in task.twin.fleets for name in fleet.quantities} - KNOWN_QUANTITIES:
        raise DatasetError(f"The score of '{task.name}' needs {min(unknown)}, which is not logged: map 'reward'.")
    vmag = state.vmag_pu.copy()
    for row, node in enumerate(task.grid.node_names):
        if (seen := measured.get(f"vmag_pu.{node}")) is not None:
            vmag[row] = np.where(np.isnan(seen), vmag[row], seen)
    quantities, depths = _quantities(task, state.grid, values), voltage_depths(vmag)
    costs = task.twin.constraints.costs(state, quantities["refused_operations"], depths)
    interval = Interval(vmag, power_balance(task.grid, state.grid), quantities, depths, costs)
    scored = task.score(state, interval)
    return type(scored)(
        scored.rewards[1:],
        {name: cost[1:] for name, cost in scored.costs.items()},
        {name: value[1:] for name, value in scored.indicators.items()},
    )


def voltage_errors(grid: CompiledFeeder, model_pu: NDArray[np.float64], measured: Values) -> list[VoltageError]:
    """Compare the model with the meters.

    Args:
        grid: names the nodes.
        model_pu: float64 [num_nodes, E].
        measured: float64 [E] by point "vmag_pu.<bus>.<phase>", NaN where there is none.
    """
    errors = []
    for row, node in enumerate(grid.node_names):
        seen = measured.get(f"vmag_pu.{node}")
        if seen is None or np.isnan(seen).all():
            continue
        difference = (model_pu[row] - seen)[~np.isnan(seen)]
        size = np.abs(difference)
        bus, _, phase = node.rpartition(".")
        errors.append(
            VoltageError(
                bus,
                phase,
                len(difference),
                float(difference.mean()),
                float(np.sqrt(np.square(difference).mean())),
                float(np.quantile(size, 0.95)),
                float(size.max()),
            )
        )
    return errors


def _quantities(task: TwinTask, grid: GridState, values: Values) -> dict[str, NDArray[np.float64]]:
    steps = np.rint((grid.taps - 1.0) / TAP_STEP)
    kva = {generator.name: generator.kva for generator in task.feeder.generators}
    zero = np.zeros(grid.taps.shape[1])
    curtailed, cycled, injected = zero.copy(), zero.copy(), zero.copy()
    for generator in task.feeder.generators:
        point = f"{generator.kind}.{generator.name}"
        kw = values[f"{point}.kw"] * kva[generator.name]
        if generator.kind == "battery":
            cycled += np.abs(kw) * task.twin.step_h
            injected += kw * task.twin.step_h
        elif f"{point}.available" in values:
            available = values[f"{point}.available"] * kva[generator.name]
            curtailed += np.maximum(available - kw, 0.0) * task.twin.step_h
    return {
        "tap_operations": _changes(steps),
        "capacitor_operations": _changes(grid.capacitor_states),
        "curtailed_kwh": curtailed,
        "cycled_kwh": cycled,
        "injected_kwh": injected,
        "refused_operations": zero,
    }


def _changes(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(positions):
        return np.zeros(positions.shape[1])
    changes: NDArray[np.float64] = np.abs(np.diff(positions, axis=1, prepend=positions[:, :1])).sum(axis=0)
    return changes
