"""What a task is: the meaning of actions, observations, reward and costs on a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from gridray.errors import ConfigError
from gridray.tasks.scaling import action_ranges, decode_rows, encode_rows, observation_scales, physical_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder


class ObservationChannel(NamedTuple):
    """One observed quantity; what a network sees is (physical - offset) * scale."""

    name: str
    unit: str
    offset: float
    scale: float


class ActionChannel(NamedTuple):
    """One controlled quantity; an action in [-1, 1] spans low..high in `unit`.

    kind: continuous; integer (whole steps, rounded towards zero, so that small actions move nothing);
    switch (above 1/3 closes, below -1/3 opens, else keeps); level (the action is the whole number from low to high
    itself; a task has only levels, and a MultiDiscrete action space, or none).
    neutral: the set-point of a device that nobody commands, in `unit`: full power where power is limited, nothing to
    shed, no kvar, a thermostat's own set-point, None (keep) for a switch.
    """

    name: str
    unit: str
    low: float
    high: float
    kind: Literal["continuous", "integer", "switch", "level"]
    neutral: float | None = 0.0


class StepResult(NamedTuple):
    """Outcome of one interval, arrays over environments.

    rewards: float64 [num_envs]; costs: name -> float64 [num_envs], each >= 0, in the unit its name ends with;
    indicators: name -> float64 [num_envs], quantities to report that are not constraints.
    """

    rewards: NDArray[np.float64]
    costs: dict[str, NDArray[np.float64]]
    indicators: dict[str, NDArray[np.float64]]


class Task(Protocol):
    """A control problem on one feeder, over a batch of environments."""

    name: str
    config: Any
    feeder: Feeder
    grid: CompiledFeeder
    observation_channels: tuple[ObservationChannel, ...]
    action_channels: tuple[ActionChannel, ...]
    cost_names: tuple[str, ...]
    num_steps: int

    def config_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values that `make_task` takes back."""
        ...

    def allowed_days(self) -> NDArray[np.int64]:
        """Return the days of the year that episodes may be drawn from."""
        ...

    def new_state(self, num_envs: int) -> Any:  # noqa: ANN401
        """Return a state for num_envs environments, to be filled by `reset`."""
        ...

    def reset(
        self,
        state: Any,  # noqa: ANN401
        rows: NDArray[np.int64],
        days: NDArray[np.int64],
        seeds: NDArray[np.uint64],
    ) -> None:
        """Start the days' episodes in these rows of the state; seeds: uint64 [len(rows)], of their random numbers."""
        ...

    def step(self, state: Any, actions: NDArray[Any]) -> StepResult:  # noqa: ANN401
        """Apply actions [num_envs, num_actions], float32 or int64 levels, for one interval and move the time on."""
        ...

    def observe(self, state: Any) -> NDArray[np.float32]:  # noqa: ANN401
        """Return the observations, float32 [num_envs, num_observations]."""
        ...

    def voltages(self, state: Any) -> NDArray[np.float64]:  # noqa: ANN401
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        ...


def has_levels(channels: Sequence[ActionChannel]) -> bool:
    """Tell whether actions are levels (all channels are).

    Raises:
        ConfigError: only some are.
    """
    levels = [channel.name for channel in channels if channel.kind == "level"]
    if levels and len(levels) < len(channels):
        raise ConfigError(f"Action '{levels[0]}' is a level but others are not: make all of a task's actions levels.")
    return bool(levels)


def set_points(channels: Sequence[ActionChannel], actions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Decode actions in [-1, 1] into physical set-points.

    Args:
        channels: the task's action channels.
        actions: [num_rows, num_channels], clipped to [-1, 1]; levels as they are.

    Returns:
        float64 [num_rows, num_channels] in the channels' units; a switch is 1 (close), 0 (open) or NaN (keep).
    """
    has_levels(channels)
    decoded: NDArray[np.float64] = decode_rows(action_ranges(channels), actions).T
    return decoded


def physical_observations(
    channels: Sequence[ObservationChannel], observations: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Turn scaled observations [num_rows, num_channels] back into physical units."""
    return physical_rows(observation_scales(channels), observations)


def device_kinds(channels: Sequence[ActionChannel]) -> list[str]:
    """Return the kind of device that each channel commands: what its name begins with, such as "pv"."""
    return [channel.name.partition(".")[0] for channel in channels]


def scaled_observations(channels: Sequence[ObservationChannel], physical: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale physical observations [num_rows, num_channels] to what a policy sees, float32."""
    scales = observation_scales(channels)
    scaled: NDArray[np.float32] = ((np.asarray(physical, dtype=np.float64) - scales.offset) * scales.scale).astype(
        np.float32
    )
    return scaled


def neutral_set_points(channels: Sequence[ActionChannel], num_rows: int) -> dict[str, NDArray[np.float64]]:
    """Return what devices do if left alone, by channel name, float64 [num_rows]."""
    neutral = action_ranges(channels).neutral
    return {channel.name: np.full(num_rows, value) for channel, value in zip(channels, neutral, strict=True)}


def scaled_actions(channels: Sequence[ActionChannel], values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Encode set-points by channel name, each [num_rows], as actions; a channel without one gets its neutral one."""
    num_rows = max((len(value) for value in values.values()), default=1)
    ranges = action_ranges(channels)
    rows = np.repeat(ranges.neutral[:, None], num_rows, axis=1)
    for row, channel in enumerate(channels):
        if channel.name in values:
            rows[row] = values[channel.name]
    return encode_rows(ranges, rows)
