"""What every rebuilt benchmark offers: a rollout of one of its episodes, and a comparison with published scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class Run(NamedTuple):
    """Which episode to play: a system of the benchmark, a policy, a profile (day) and a seed for what is drawn."""

    system: str
    policy: str
    profile: int
    seed: int


class Played(NamedTuple):
    """An episode's rewards, float64 [num_steps], and what else its authors publish of one, by name."""

    rewards: NDArray[np.float64]
    metrics: Mapping[str, float]


class Comparison(NamedTuple):
    """One published score beside ours; original is NaN where nothing is published."""

    system: str
    quantity: str
    original: float
    ours: float
    remark: str = ""


class Anchor(NamedTuple):
    """A benchmark of others rebuilt here.

    discount: of rewards from step to step in the returns that its authors publish.
    play: an episode; compare: its table. Both take the folder of the original's data,
    None where it needs none or none is given.
    """

    systems: tuple[str, ...]
    policies: str
    play: Callable[[Run, Path | None], Played]
    compare: Callable[[Path | None], list[Comparison]]
    discount: float = 1.0
