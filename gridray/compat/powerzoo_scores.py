"""Days of PowerZoo's DSO task under its own simple policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.compat.base import Anchor, Comparison, Played, Run
from gridray.compat.powerzoo_dso import FLEXIBLE_MW, HOURS, PowerZooDso, PowerZooDsoConfig
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SYSTEMS = {"33": 0.0, "33-priced": 1.0}
"""System -> reward lost per MWh unserved; losses cost 0.2 per MWh."""
POLICIES = ("hold", "curtail", "tou", "random")
PEAK_STEPS = range(16, 21)
"""Steps of the original's time-of-use policy, which curtails 80 % and shifts 50 %."""
NUM_DAYS = 30


def daily_results(
    task: PowerZooDso, policy: str, days: Sequence[int], *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return rewards and losses in MW, float64 [num_days, 48] each, and the energy unserved, MWh, [num_days].

    Raises:
        ConfigError: no such policy or day.
    """
    if policy not in POLICIES:
        raise ConfigError(f"There is no policy '{policy}': give one of {', '.join(POLICIES)}.")
    if max(days) >= task.config.num_days:
        raise ConfigError(f"There is no day {max(days)}: give one of 0..{task.config.num_days - 1}.")
    rng = np.random.default_rng(seed)
    shape = (len(days), 2 * len(FLEXIBLE_MW))
    state = task.new_state(len(days))
    task.reset(state, np.arange(len(days)), np.asarray(days, dtype=np.int64))
    rewards, losses, unserved = [], [], np.zeros(len(days))
    for t in range(task.num_steps):
        shares = np.zeros(shape)
        if policy == "random":
            shares = rng.uniform(0.0, 1.0, shape)
        elif policy == "curtail":
            shares[:, ::2] = 1.0
        elif policy == "tou" and t in PEAK_STEPS:
            shares[:, ::2], shares[:, 1::2] = 0.8, 0.5
        result = task.step(state, (2.0 * shares - 1.0).astype(np.float32))
        rewards.append(result.rewards)
        losses.append(result.indicators["losses_mw"])
        unserved += result.costs["unserved_mwh"]
    return np.stack(rewards, axis=1), np.stack(losses, axis=1), unserved


def play(run: Run, data: Path | None) -> Played:
    """Return one day, 48 rewards, its losses and the energy unserved."""
    rewards, losses, unserved = daily_results(_task(run.system, data), run.policy, [run.profile], seed=run.seed)
    return Played(rewards[0], {"losses_mwh": HOURS * float(losses[0].sum()), "unserved_mwh": float(unserved[0])})


def compare(data: Path | None) -> list[Comparison]:
    """Return mean daily returns, losses and unserved energy; the original's are of its own load shapes."""
    rows = []
    for system in SYSTEMS:
        task = _task(system, data)
        for policy in POLICIES:
            rewards, losses, unserved = daily_results(task, policy, range(NUM_DAYS))
            for quantity, value in (
                ("daily return", rewards.sum(axis=1).mean()),
                ("losses, MWh", HOURS * losses.sum(axis=1).mean()),
                ("unserved, MWh", unserved.mean()),
            ):
                rows.append(Comparison(system, f"{quantity}, {policy}", np.nan, float(value), "our load shapes"))
    return rows


def _task(system: str, data: Path | None) -> PowerZooDso:
    if data is None:
        raise ConfigError("The 33-bus grid is not part of GridRay: give --data, the folder with case33bw_*.csv.")
    return PowerZooDso(PowerZooDsoConfig(data=str(data), unserved_weight=SYSTEMS[system], num_days=NUM_DAYS))


ANCHOR = Anchor(tuple(SYSTEMS), ", ".join(POLICIES), play, compare)
