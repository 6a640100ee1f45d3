"""Fewer bytes per update: the largest changes only, a common random choice of them, or 8 bits for each.

What is left out is kept at the client and added to its next update (error feedback: Karimireddy et al., "Error
feedback fixes SignSGD and other gradient compression schemes", ICML 2019). Levels of 8 bits are drawn so that their
mean is exact (QSGD: Alistarh et al., NeurIPS 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gridray.errors import ConfigError, FederationError
from gridray.federated.privacy.quantisation import FixedPoint, widest

Kind = Literal["none", "top_k", "random_k", "int8"]
_INT8_LEVELS = 127


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """How updates are made smaller.

    kind: `none`; `top_k`: each client's own largest changes; `random_k`: changes at places that a public seed draws
        for each round, the same for all clients; `int8`: all changes, 8 bits each.
    share: part of the values that top_k and random_k send.
    """

    kind: Kind = "none"
    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"Compression has share {self.share}: give a number above 0, up to 1")

    def num_sent(self, num_values: int) -> int:
        """Return how many values of an update are sent."""
        is_sparse = self.kind in {"top_k", "random_k"}
        return max(1, round(self.share * num_values)) if is_sparse else num_values

    def check_masked(self) -> None:
        """Refuse what cannot be added up under masks.

        Raises:
            ConfigError: says why, and what does the same under masks.
        """
        if self.kind == "top_k":
            raise ConfigError(
                "top_k does not work under secure aggregation: each client would send other places, which neither add "
                "up nor may be seen, as they tell about its data; use random_k, whose places are the same for all"
            )


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """An update on its way.

    kind: how it was compressed.
    num_values: length of the update.
    values: float32 [k], or int8 levels [num_values].
    places: int32 [k], ascending, where the values belong (top_k only; those of random_k follow from the seed).
    scale: what one level of int8 is worth.
    """

    kind: Kind
    num_values: int
    values: NDArray[Any] = field(repr=False)
    places: NDArray[np.int32] | None = field(default=None, repr=False)
    scale: float = 1.0

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        return self.values.nbytes + (0 if self.places is None else self.places.nbytes)


class Sent(NamedTuple):
    """A compressed update, and what it leaves for the next one: float64 [num_values]."""

    message: Compressed
    residual: NDArray[np.float64]


def compress(
    config: CompressionConfig,
    update: NDArray[np.floating],
    residual: NDArray[np.float64] | None,
    *,
    rng: np.random.Generator,
    common_seed: int,
) -> Sent:
    """Compress an update [num_values] together with what earlier ones left.

    Args:
        config: how.
        update: change of the weights.
        residual: of the client's last update; none in its first round.
        rng: the client's own, for rounding.
        common_seed: public, of this round, for the places of random_k.
    """
    wanted = np.asarray(update, dtype=np.float64) + (0.0 if residual is None else residual)
    num_values = len(wanted)
    if config.kind == "none":
        message = Compressed(kind="none", num_values=num_values, values=wanted.astype(np.float32))
    elif config.kind == "int8":
        message = _int8(wanted, rng)
    else:
        num_sent = config.num_sent(num_values)
        if config.kind == "top_k":
            places = np.sort(np.argpartition(np.abs(wanted), num_values - num_sent)[num_values - num_sent :])
            message = Compressed(
                kind="top_k",
                num_values=num_values,
                values=wanted[places].astype(np.float32),
                places=places.astype(np.int32),
            )
        else:
            places = common_places(num_values, num_sent, common_seed)
            message = Compressed(kind="random_k", num_values=num_values, values=wanted[places].astype(np.float32))
    return Sent(message, wanted - decompress(message, common_seed=common_seed))


def decompress(message: Compressed, *, common_seed: int) -> NDArray[np.float64]:
    """Return the update [num_values] that the message stands for, zero where nothing was sent.

    Raises:
        FederationError: values or places are not finite, ascending and within the update.
    """
    if message.values.ndim != 1 or not np.isfinite(message.values).all():
        raise FederationError(f"Compressed update ({message.kind}) has values that are not finite, or no vector")
    if message.kind in {"none", "int8"}:
        if len(message.values) != message.num_values:
            raise FederationError(f"Compressed update has {len(message.values)} values, not {message.num_values}")
        return message.values.astype(np.float64) * message.scale
    places = (
        common_places(message.num_values, len(message.values), common_seed)
        if message.places is None
        else message.places
    )
    is_ascending = (
        len(places) > 0 and places[0] >= 0 and places[-1] < message.num_values and (np.diff(places) > 0).all()
    )
    if len(places) != len(message.values) or not is_ascending:
        raise FederationError(
            f"Compressed update has {len(places)} places for {len(message.values)} values: places ascend from 0 to "
            f"below {message.num_values}, one for each value"
        )
    update = np.zeros(message.num_values)
    update[places] = message.values
    return update


def common_places(num_values: int, num_sent: int, common_seed: int) -> NDArray[np.int64]:
    """Return the ascending places [num_sent] that all clients send in a round."""
    rng = np.random.default_rng(common_seed)
    return np.sort(rng.choice(num_values, size=num_sent, replace=False, shuffle=False))


def sent_places(config: CompressionConfig, num_values: int, common_seed: int) -> NDArray[np.int64]:
    """Return the ascending places that leave under masks: all, or those of random_k."""
    if config.kind == "random_k":
        return common_places(num_values, config.num_sent(num_values), common_seed)
    return np.arange(num_values)


def masked_fixed_point(config: CompressionConfig, *, limit: float, num_clients: int) -> FixedPoint:
    """Return the fixed point that adds up under masks: words of 16 bits with levels of 8 for int8, else of 32.

    All clients have one scale, the public limit: one of its own for each would tell about it, and would not add up.

    Raises:
        ConfigError: top_k, or more clients than 16-bit words can add.
    """
    config.check_masked()
    if config.kind == "int8":
        return FixedPoint(limit=limit, num_terms=num_clients, level_bits=8, word_bits=16)
    return widest(limit, num_clients, 32)


def _int8(wanted: NDArray[np.float64], rng: np.random.Generator) -> Compressed:
    scale = float(np.abs(wanted).max(initial=0.0)) / _INT8_LEVELS or 1.0
    levels = np.floor(wanted / scale + rng.random(len(wanted)))
    values = np.clip(levels, -_INT8_LEVELS, _INT8_LEVELS).astype(np.int8)
    return Compressed(kind="int8", num_values=len(wanted), values=values, scale=scale)
