"""Attacks on a federation, to rehearse what a rule withstands; each makes an attacker's weights from honest ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.federated.aggregators.stacking import flattened, unstacked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import Weights

    Vectors = NDArray[np.floating[Any]]
    Attack = Callable[[Vectors, Vectors, np.random.Generator], Vectors]

FLIP, SCALE, NOISE = 5.0, 100.0, 10.0
# Baruch et al.: far enough to matter, near enough to pass for an honest client among ten or so.
COLLUSION = 1.5


def sign_flip(current: Vectors, rows: Vectors, rng: np.random.Generator) -> Vectors:
    """Go the other way, FLIP times as far: current [num_values], rows [num_attackers, num_values]."""
    del rng
    return current - FLIP * (rows - current)


def scaled(current: Vectors, rows: Vectors, rng: np.random.Generator) -> Vectors:
    """Go the same way SCALE times as far, so that an unguarded mean takes the attacker's weights alone."""
    del rng
    return current + SCALE * (rows - current)


def gaussian(current: Vectors, rows: Vectors, rng: np.random.Generator) -> Vectors:
    """Go anywhere: noise of NOISE times the root mean square of the honest change."""
    size = NOISE * np.sqrt(np.square(rows - current).mean())
    sent: Vectors = current + size * rng.normal(size=rows.shape)
    return sent


def colluding(current: Vectors, rows: Vectors, rng: np.random.Generator) -> Vectors:
    """Agree on one point a little off the attackers' own honest mean, against the direction of their change.

    Baruch, Baruch and Goldberg, "A little is enough", NeurIPS 2019.
    """
    del rng
    mean = rows.mean(axis=0)
    spread = rows.std(axis=0) if len(rows) > 1 else np.abs(mean - current)
    point = mean - COLLUSION * spread * np.sign(mean - current)
    return np.repeat(point[None], len(rows), axis=0)


ATTACKS: dict[str, Attack] = {
    "sign_flip": sign_flip,
    "scaled": scaled,
    "gaussian": gaussian,
    "colluding": colluding,
}
"""Attacks on weights by name; label inversion is one on data, see `inverted_rewards`."""


def attacked(
    attack: str, current: Weights, honest: Sequence[Weights], rng: np.random.Generator
) -> list[dict[str, NDArray[Any]]]:
    """Return what attackers send in place of the weights that they would have sent honestly."""
    rows = np.stack([flattened(weights, current) for weights in honest])
    return [unstacked(row, current) for row in ATTACKS[attack](flattened(current, current), rows, rng)]


def inverted_rewards(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return transitions whose rewards have the other sign about their mean: the worst looks best."""
    rewards = columns["rewards"]
    return {**columns, "rewards": 2.0 * rewards.mean() - rewards}
