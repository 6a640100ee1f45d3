"""Actions that are choices: which components of an action take a few values only, and which values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.tasks.base import scaled_actions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel

MAX_CHOICES = 1024


class ActionGrid(NamedTuple):
    """How the components of an action divide into real numbers and choices.

    A choice is number clip(trunc(offset + scale * action), first, first + num_choices - 1) - first.

    continuous: int64 [C], indices of the components that are real numbers.
    discrete: int64 [D], indices of the components that are choices.
    offset, scale, first: float32 [D].
    num_choices: int64 [D].
    values: float32 [D, K], the action that stands for each choice; 0 beyond num_choices.
    """

    continuous: NDArray[np.int64]
    discrete: NDArray[np.int64]
    offset: NDArray[np.float32]
    scale: NDArray[np.float32]
    first: NDArray[np.float32]
    num_choices: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def num_outputs(self) -> int:
        """Number of a network's outputs: a mean per real number, then K logits per choice."""
        return len(self.continuous) + self.values.size


def action_grid(channels: Sequence[ActionChannel]) -> ActionGrid:
    """Return which components of a task's actions are choices: all kinds but continuous.

    Raises:
        ConfigError: a channel has more choices than a network should have outputs.
    """
    discrete = [index for index, channel in enumerate(channels) if channel.kind != "continuous"]
    continuous = [index for index, channel in enumerate(channels) if channel.kind == "continuous"]
    # Offset, scale, first step and number of choices, [D, 4].
    codes = np.array([_code(channels[index]) for index in discrete], dtype=np.float64).reshape(-1, 4)
    num_choices = codes[:, 3].astype(np.int64)
    values = np.zeros((len(discrete), num_choices.max(initial=1)), dtype=np.float32)
    for row, index in enumerate(discrete):
        values[row, : num_choices[row]] = _values(channels[index], int(codes[row, 2]), num_choices[row])
    offset, scale, first = codes[:, :3].T.astype(np.float32)
    real, chosen = np.array(continuous, dtype=np.int64), np.array(discrete, dtype=np.int64)
    return ActionGrid(real, chosen, offset, scale, first, num_choices, values)


def _code(channel: ActionChannel) -> tuple[float, float, int, int]:
    """Return offset, scale, first step and number of choices of a channel."""
    if channel.kind == "switch":
        # Below -1/3 opens, above 1/3 closes, between keeps.
        return 0.0, 3.0, -1, 3
    first, last = int(channel.low), int(channel.high)
    if last - first >= MAX_CHOICES:
        raise ConfigError(
            f"Action '{channel.name}' has {last - first + 1} choices, the most is {MAX_CHOICES}: "
            "use action_head: continuous"
        )
    half = 0.5 * (channel.high - channel.low)
    offset, scale = (0.0, 1.0) if channel.kind == "level" else (channel.low + half, half)
    return offset, scale, first, last - first + 1


def _values(channel: ActionChannel, first: int, num_choices: int) -> NDArray[np.float32]:
    if channel.kind == "switch":
        return np.array([-1.0, 0.0, 1.0], dtype=np.float32)
    steps = np.arange(first, first + num_choices, dtype=np.float64)
    return scaled_actions([channel], {channel.name: steps})[:, 0]
