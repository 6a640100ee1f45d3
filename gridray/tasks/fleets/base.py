"""What a fleet is: devices of one kind, what they show, what they can be told and what they do to the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel, ObservationChannel
    from gridray.tasks.twin import TwinState


class Fleet(Protocol):
    """Devices of one kind, over a batch of environments.

    Its own state is a named tuple of arrays [..., E] in `TwinState.fleets[kind]`; methods read the twin's state and
    return the new own one. Channels are named "<kind>.<device>.<quantity>".
    """

    @property
    def kind(self) -> str:
        """Name of the kind."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the devices."""
        ...

    @property
    def buses(self) -> tuple[str, ...]:
        """Bus of each device."""
        ...

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what `act` reports."""
        ...

    @property
    def action_channels(self) -> tuple[ActionChannel, ...]:
        """Set-points, device after device."""
        ...

    @property
    def observation_channels(self) -> tuple[ObservationChannel, ...]:
        """Observed quantities, device after device."""
        ...

    def new_state(self, num_envs: int) -> Any:  # noqa: ANN401
        """Return the devices at the start of an episode."""
        ...

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> Any:  # noqa: ANN401
        """Take what a new interval brings (sun, arrivals); step: int64 [E], of the series. Write powers to the grid."""
        ...

    def act(self, state: TwinState, set_points: NDArray[np.float64]) -> tuple[Any, dict[str, NDArray[np.float64]]]:
        """Follow set-points [num_actions, E]; return the own state and quantities by name, float64 [E].

        Powers and positions go into the twin's grid; the interval is solved afterwards.
        """
        ...

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return the observed quantities in physical units, [num_observations, E]."""
        ...
