"""The messages of a federation, all of them, and the checks that each passes on arrival."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridray.errors import FederationError
from gridray.federated.compression import Compressed

Weights = Mapping[str, NDArray[Any]]
MAX_METRICS = 64
"""Scalars that one message may carry."""
MAX_VALUE = 1e12
"""Largest value report; rewards come scaled to about 1, so that no honest value is near it."""
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Broadcast:
    """What a client gets at the start of a round.

    round: index of the open round.
    weights: global weights by parameter name.
    controls: the server's control variates by parameter name, of the groups that use them.
    run: digest of the run, which clients sign with every message.
    """

    round: int
    weights: dict[str, NDArray[Any]]
    controls: dict[str, NDArray[Any]] = field(default_factory=dict)
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class ClientUpdate:
    """Result of one client's local training in one round: all that leaves the client.

    weights: parameter name -> float32 or float64 array of the shape that was broadcast.
    controls: parameter name -> change of the client's control variate, of the groups that use them.
    metrics: name -> finite scalar, means over the local updates; those that the client agreed to.
    num_samples: transitions the client trained on, the weight of its update in the mean.
    value: what the client thinks its policy is worth on its own data; none where no rule asks for it.
    compressed: change of the weights, made smaller, in place of the weights.
    signature: of the client's identity key, over all the rest.
    """

    client: str
    round: int
    num_samples: int
    weights: dict[str, NDArray[Any]]
    metrics: dict[str, float]
    controls: dict[str, NDArray[Any]] = field(default_factory=dict)
    value: float | None = None
    compressed: Compressed | None = None
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """How the global policy does on a client's own held-out days; metrics: name -> finite scalar, means over days."""

    client: str
    round: int
    num_days: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the coordinator takes from clients in a round.

    weights, controls: arrays whose names, shapes and dtypes an update must have.
    rounds: rounds that an update may be for; the last is the open one.
    max_bytes: limit on the size of all arrays of a message together, bytes.
    has_value: whether a value report must be there; without it, it must not.
    """

    weights: Weights
    controls: Weights = field(default_factory=dict)
    rounds: range
    max_bytes: int
    has_value: bool = False


def check_update(update: ClientUpdate, expected: Expected, *, client: str) -> None:
    """Refuse an update that is not exactly what this client owes in this round.

    Args:
        update: the message.
        expected: what was asked for.
        client: name of the client that the message came from.

    Raises:
        FederationError: names the client, the field, its value and the rule.
    """
    sender = f"Update of client {client!r} in round {expected.rounds[-1]}"
    if not isinstance(update, ClientUpdate):
        raise FederationError(f"{sender} is a {type(update).__name__}: send a ClientUpdate")
    _check_sender(sender, update, expected.rounds, client)
    if type(update.num_samples) is not int or update.num_samples < 1:
        raise FederationError(f"{sender} has num_samples {update.num_samples!r}: give an integer of 1 or more")
    if not expected.has_value and update.value is not None:
        raise FederationError(f"{sender} has a value report, which no rule asks for: leave it out")
    if expected.has_value and not (_is_finite(update.value) and abs(update.value or 0.0) <= MAX_VALUE):
        raise FederationError(f"{sender} has value {update.value!r}: give a float of at most {MAX_VALUE:g} in size")
    _check_metrics(sender, update.metrics)
    _check_arrays(sender, "weight", update.weights, expected.weights)
    _check_arrays(sender, "control", update.controls, expected.controls)
    arrays = [*update.weights.values(), *update.controls.values()]
    if (num_bytes := sum(array.nbytes for array in arrays)) > expected.max_bytes:
        raise FederationError(f"{sender} has {num_bytes} bytes of weights: the limit is {expected.max_bytes}")
    _check_finite(sender, "weight", update.weights)
    _check_finite(sender, "control", update.controls)


def check_report(report: EvaluationReport, *, round_index: int, client: str) -> None:
    """Refuse a report that is not what this client was asked for.

    Raises:
        FederationError: names the client, the field, its value and the rule.
    """
    sender = f"Evaluation of client {client!r} in round {round_index}"
    if not isinstance(report, EvaluationReport):
        raise FederationError(f"{sender} is a {type(report).__name__}: send an EvaluationReport")
    _check_sender(sender, report, range(round_index, round_index + 1), client)
    if type(report.num_days) is not int or report.num_days < 1:
        raise FederationError(f"{sender} has num_days {report.num_days!r}: give an integer of 1 or more")
    _check_metrics(sender, report.metrics)


def digest(weights: Weights) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, in order of name."""
    state = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        state.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _check_sender(sender: str, message: ClientUpdate | EvaluationReport, rounds: range, client: str) -> None:
    if message.client != client:
        raise FederationError(f"{sender} says it is from {message.client!r}: a client speaks for itself only")
    if type(message.round) is not int or message.round not in rounds:
        allowed = f"only round {rounds[-1]} is" if len(rounds) == 1 else f"only rounds {rounds[0]} to {rounds[-1]} are"
        raise FederationError(f"{sender} is for round {message.round!r}: {allowed} open")


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _check_metrics(sender: str, metrics: Mapping[str, float]) -> None:
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS:
        raise FederationError(f"{sender} has no dict of at most {MAX_METRICS} metrics: send fewer")
    for name, value in metrics.items():
        # A free text would be a way out for anything.
        if not isinstance(name, str) or not _METRIC_NAME.fullmatch(name):
            raise FederationError(f"{sender} has a metric named {name!r:.80}: names match {_METRIC_NAME.pattern}")
        if not _is_finite(value):
            raise FederationError(f"{sender} has metric {name!r} = {value!r:.80}: metrics are finite floats")


def _check_arrays(sender: str, kind: str, arrays: Mapping[str, Any], template: Weights) -> None:
    if not isinstance(arrays, dict):
        raise FederationError(f"{sender} has {type(arrays).__name__} instead of a dict of {kind}s")
    if missing := sorted(template.keys() - arrays.keys()):
        raise FederationError(f"{sender} lacks {kind} {missing[0]!r}: send every array that was asked for")
    if extra := sorted(map(str, arrays.keys() - template.keys())):
        raise FederationError(f"{sender} has an unknown {kind} {extra[0]!r:.80}: send only arrays that were asked for")
    for name in sorted(template):
        array, wanted = arrays[name], template[name]
        if type(array) is not np.ndarray or array.dtype != wanted.dtype or array.dtype.kind != "f":
            found = array.dtype if type(array) is np.ndarray else type(array).__name__
            raise FederationError(f"{sender}: {kind} {name!r} is {found}, it must be {wanted.dtype}")
        if array.shape != wanted.shape:
            raise FederationError(f"{sender}: {kind} {name!r} has shape {array.shape}, it must be {wanted.shape}")


def _check_finite(sender: str, kind: str, arrays: Weights) -> None:
    for name, array in sorted(arrays.items()):
        if not np.isfinite(array).all():
            first = int(np.flatnonzero(~np.isfinite(array))[0])
            raise FederationError(
                f"{sender}: {kind} {name!r} is {array.flat[first]} at element {first}, it must be finite"
            )
