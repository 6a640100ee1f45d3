"""The control room's link to devices: set-points act late, and some commands never arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.checks import check_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.devices.random_streams import EnvStreams


class Link(NamedTuple):
    """Links to N devices.

    delay: int64 [N, 1 or E], steps from sending to acting, 0 acts in the same step.
    loss: float64 [N, 1 or E], probability that a command never arrives.
    """

    delay: NDArray[np.int64]
    loss: NDArray[np.float64]


class LinkState(NamedTuple):
    """Commands of N devices.

    sent: float64 [depth, N, E], set-points by age in steps, NaN where lost.
    acting: float64 [N, E], set-point that the device follows, in its unit.
    """

    sent: NDArray[np.float64]
    acting: NDArray[np.float64]


def start_link(link: Link, set_point: NDArray[np.float64], *, depth: int | None = None) -> LinkState:
    """Return links whose devices have followed `set_point`, [N, E], for long.

    Args:
        link: the links.
        set_point: in the devices' unit.
        depth: commands kept per link; by default the longest delay and one.

    Raises:
        ConfigError: a delay is longer than what is kept, or a loss is no probability.
    """
    depth = int(link.delay.max(initial=0)) + 1 if depth is None else depth
    check_within("Link", "delay", link.delay, 0.0, depth - 1.0)
    check_within("Link", "loss", link.loss, 0.0, 1.0)
    return LinkState(np.repeat(set_point[None], depth, axis=0), set_point.copy())


def send(link: Link, state: LinkState, set_point: NDArray[np.float64], streams: EnvStreams) -> LinkState:
    """Return the state after sending these set-points, [N, E]: `acting` holds in this step.

    A set-point sent now acts `delay` steps later; where it is lost, the device keeps the last one that arrived.
    """
    is_lost = streams.uniform(len(set_point)) < link.loss
    sent = np.concatenate((np.where(is_lost, np.nan, set_point)[None], state.sent[:-1]))
    delay = np.broadcast_to(link.delay, set_point.shape)
    arrived = np.take_along_axis(sent, delay[None], axis=0)[0]
    return LinkState(sent, np.where(np.isnan(arrived), state.acting, arrived))
