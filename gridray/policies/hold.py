"""Do nothing: what happens where nobody sends a set-point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.tasks.base import scaled_actions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel, Task


class Hold:
    """Taps and switches stay, storage rests, and whatever has a limit of its power runs without it."""

    name = "hold"

    def __init__(self, task: Task) -> None:
        """Act on this task."""
        values = {channel.name: np.array([unlimited(channel)]) for channel in task.action_channels}
        self._action = scaled_actions(task.action_channels, values)[0]

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the same action for all, float32 [num_envs, num_actions]."""
        return np.repeat(self._action[None, :], len(observations), axis=0)


def unlimited(channel: ActionChannel) -> float:
    """Return the set-point of a device left alone: full power where power is limited, NaN (keep) for a switch, else 0.

    A device's own kW that does not go below 0 is such a limit: of what the sun gives, or a charger takes. What is asked
    of it beyond, such as kW to shed, is nothing when nobody asks.
    """
    if channel.kind == "switch":
        return float("nan")
    is_own_power = channel.name.rpartition(".")[2] in {"kw", "charge_kw"} and channel.low >= 0.0
    if channel.kind == "continuous" and is_own_power:
        return channel.high
    return 0.0
