"""What a client may send to the coordinator, and the checks every message passes on arrival."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridray.errors import FederationError

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class ClientUpdate:
    """Result of one client's local training in one round: all that leaves the client.

    weights: parameter name -> float32 or float64 array of the shape that was broadcast.
    metrics: name -> finite scalar, means over the local updates.
    num_samples: transitions the client trained on, the weight of its update in the mean.
    """

    client: str
    round: int
    num_samples: int
    weights: dict[str, NDArray[Any]]
    metrics: dict[str, float]


def check_update(update: ClientUpdate, template: Weights, *, round_index: int, client: str, max_bytes: int) -> None:
    """Refuse an update that is not exactly what this client owes in this round.

    Args:
        update: the message.
        template: the weights that were broadcast; names, shapes and dtypes must be the same.
        round_index: the round that is open.
        client: name of the client that the message came from.
        max_bytes: limit on the size of all arrays together, bytes.

    Raises:
        FederationError: names the client, the field, its value and the rule.
    """
    sender = f"Update of client {client!r} in round {round_index}"
    if not isinstance(update, ClientUpdate):
        raise FederationError(f"{sender} is a {type(update).__name__}: send a ClientUpdate")
    if update.client != client:
        raise FederationError(f"{sender} says it is from {update.client!r}: a client speaks for itself only")
    if update.round != round_index:
        raise FederationError(f"{sender} is for round {update.round!r}: only round {round_index} is open")
    if type(update.num_samples) is not int or update.num_samples < 1:
        raise FederationError(f"{sender} has num_samples {update.num_samples!r}: give an integer of 1 or more")
    _check_metrics(sender, update.metrics)
    _check_weights(sender, update.weights, template, max_bytes)


def digest(weights: Weights) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, in order of name."""
    state = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        state.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _check_metrics(sender: str, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if type(value) is not float or not math.isfinite(value):
            raise FederationError(f"{sender} has metric {name!r} = {value!r}: metrics are finite floats")


def _check_weights(sender: str, weights: Mapping[str, Any], template: Weights, max_bytes: int) -> None:
    if missing := sorted(template.keys() - weights.keys()):
        raise FederationError(f"{sender} lacks weight {missing[0]!r}: send every array that was broadcast")
    if extra := sorted(weights.keys() - template.keys()):
        raise FederationError(f"{sender} has an unknown weight {extra[0]!r}: send only arrays that were broadcast")
    for name in sorted(template):
        array, expected = weights[name], template[name]
        if not isinstance(array, np.ndarray) or array.dtype != expected.dtype or array.dtype.kind != "f":
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise FederationError(f"{sender}: weight {name!r} is {found}, it must be {expected.dtype}")
        if array.shape != expected.shape:
            raise FederationError(f"{sender}: weight {name!r} has shape {array.shape}, it must be {expected.shape}")
    if (num_bytes := sum(array.nbytes for array in weights.values())) > max_bytes:
        raise FederationError(f"{sender} has {num_bytes} bytes of weights: the limit is {max_bytes}")
    for name in sorted(template):
        if not np.isfinite(weights[name]).all():
            first = int(np.flatnonzero(~np.isfinite(weights[name]))[0])
            value = weights[name].flat[first]
            raise FederationError(f"{sender}: weight {name!r} is {value} at element {first}, it must be finite")
