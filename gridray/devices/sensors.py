"""Meters: noise, bias, delay, lost samples, and only where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.checks import check_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.devices.random_streams import EnvStreams

CLASS_LIMIT_STD = 3.0
"""Standard deviations within the error limit of a class, as state estimation takes it (Abur and Exposito, 2004)."""


class Sensors(NamedTuple):
    """M meters among the N items of a quantity.

    metered: int64 [M], number of the item that each meter measures.
    std: float64 [M, 1 or E], standard deviation of the noise, share of the reading; see `class_std`.
    bias_std: float64 [M, 1 or E], standard deviation of the constant error drawn per meter and environment, share.
    delay: int64 [M, 1 or E], steps until a sample arrives, 0 to depth - 1 of the state.
    loss: float64 [M, 1 or E], probability that a sample never arrives.
    """

    metered: NDArray[np.int64]
    std: NDArray[np.float64]
    bias_std: NDArray[np.float64]
    delay: NDArray[np.int64]
    loss: NDArray[np.float64]


class SensorState(NamedTuple):
    """What is on its way and what was received.

    sent: float64 [depth, M, E], samples by age in steps, NaN where lost.
    bias: float64 [M, E], constant error, share of the reading.
    value: float64 [M, E], last value received, in the quantity's unit.
    age: int64 [M, E], steps since that value was measured.
    """

    sent: NDArray[np.float64]
    bias: NDArray[np.float64]
    value: NDArray[np.float64]
    age: NDArray[np.int64]


def class_std(meter_class: float) -> float:
    """Return the noise of a meter of this accuracy class (percent error limit of IEC 62053), share of the reading."""
    return meter_class / 100.0 / CLASS_LIMIT_STD


def start_sensors(
    sensors: Sensors, truth: NDArray[np.float64], streams: EnvStreams, *, depth: int | None = None
) -> SensorState:
    """Return meters that have sampled `truth`, [N, E], for long and without loss, with biases drawn anew.

    Args:
        sensors: the meters.
        truth: the quantity at all N items.
        streams: random numbers of these environments.
        depth: samples kept per meter; by default the longest delay and one.

    Raises:
        ConfigError: a delay is longer than what is kept, or a loss is no probability.
    """
    depth = int(sensors.delay.max(initial=0)) + 1 if depth is None else depth
    check_within("Sensors", "delay", sensors.delay, 0.0, depth - 1.0)
    check_within("Sensors", "loss", sensors.loss, 0.0, 1.0)
    seen = truth[sensors.metered]
    bias = sensors.bias_std * streams.normal(len(seen))
    noise = streams.normal(depth * len(seen)).reshape(depth, *seen.shape)
    sent = seen * (1.0 + bias + sensors.std * noise)
    delay = np.broadcast_to(sensors.delay, seen.shape).astype(np.int64)
    return SensorState(sent, bias, np.take_along_axis(sent, delay[None], axis=0)[0], delay)


def measure(sensors: Sensors, state: SensorState, truth: NDArray[np.float64], streams: EnvStreams) -> SensorState:
    """Return the state after one step in which `truth`, [N, E], was measured.

    A sample is truth (1 + bias + std normal); it arrives `delay` steps later or is lost, and the last value received
    is held, its age growing.
    """
    seen = truth[sensors.metered]
    num_meters = len(seen)
    sample = seen * (1.0 + state.bias + sensors.std * streams.normal(num_meters))
    sample = np.where(streams.uniform(num_meters) < sensors.loss, np.nan, sample)
    sent = np.concatenate((sample[None], state.sent[:-1]))
    delay = np.broadcast_to(sensors.delay, seen.shape)
    arrived = np.take_along_axis(sent, delay[None], axis=0)[0]
    is_lost = np.isnan(arrived)
    return SensorState(
        sent, state.bias, np.where(is_lost, state.value, arrived), np.where(is_lost, state.age + 1, delay)
    )
