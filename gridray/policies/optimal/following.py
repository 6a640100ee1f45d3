"""Actions that follow a plan of whole days on the twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.physics.controls import TAP_STEP
from gridray.tasks.base import neutral_set_points, scaled_actions
from gridray.tasks.fleets.ev_chargers import EvChargers
from gridray.tasks.fleets.regulators import MAX_TAP_CHANGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.tasks.twin import TwinState


def following(
    task: Any,  # noqa: ANN401  # a task on a twin
    state: TwinState,
    plans: Sequence[Mapping[str, NDArray[np.float64]]],
) -> NDArray[np.float32]:
    """Return actions, float32 [num_envs, num_actions], of a plan for each environment; what a plan lacks is neutral.

    plans: set-points by channel, float64 [T]; "<regulator>.tap" is a position, in all or none. A charging site gets
    what its most urgent cars need at least, as it gives power by laxity and not car by car as planned.
    """
    left_alone = neutral_set_points(task.action_channels, task.num_steps)
    names = dict.fromkeys(name for plan in plans for name in plan)
    full = [left_alone | dict(plan) for plan in plans]
    values = {name: np.array([plan[name][t] for plan, t in zip(full, state.t, strict=True)]) for name in names}
    steps = np.rint((state.grid.taps - 1.0) / TAP_STEP)
    for row, name in enumerate(task.grid.tap_names):
        if f"regulator.{name}.tap" in values:
            change = values[f"regulator.{name}.tap"] - steps[row]
            values[f"regulator.{name}.tap_change"] = np.clip(change, -MAX_TAP_CHANGE, MAX_TAP_CHANGE)
    for fleet in task.twin.fleets:
        if isinstance(fleet, EvChargers):
            for name, urgent_kw in zip(fleet.names, fleet.urgent_kw(state), strict=True):
                if f"ev.{name}.charge_kw" in values:
                    values[f"ev.{name}.charge_kw"] = np.maximum(values[f"ev.{name}.charge_kw"], urgent_kw)
    actions = scaled_actions(task.action_channels, values)
    return np.broadcast_to(actions, (len(plans), actions.shape[1]))
