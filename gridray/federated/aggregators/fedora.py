"""FEDORA's ensemble: clients count by how good they say their policies are, as far as others bear them out.

Rengarajan et al., "Federated ensemble-directed offline reinforcement learning", NeurIPS 2024: shares are proportional
to samples * exp(temperature * value). Three things differ. Values are standardised over the cohort, so that a
temperature means the same in volts and in dollars, and shares are computed in log space. No client has more than
max_share. And a value that is far above all others is no reason to follow its client but to leave it out. Under masks
no client has more than 1 / MIN_COHORT, or the sum would be little else than its update.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError, FederationError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State, no_state
from gridray.federated.aggregators.stacking import in_order, stacked, unstacked, weighted_mean
from gridray.federated.privacy.secure_messages import MIN_COHORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights

_SMALL = 1e-9


@dataclass(frozen=True, kw_only=True)
class FedoraConfig:
    """Settings of the ensemble.

    temperature: log of how much more a client counts per standard deviation of the cohort's values.
    max_share: most that one client counts, of 1; the rest of its share goes to the others.
    num_liars: so many clients' values may be made up; a value counts at most as the (num_liars + 1)-th highest.
    tolerance: a value more than so many of the cohort's standard deviations above that is taken for made up, and its
        client is left out; fewer than 2 num_liars + 3 clients cannot tell a liar from the best of them.
    """

    temperature: float = 3.0
    max_share: float = 0.5
    num_liars: int = 1
    tolerance: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.max_share <= 1:
            raise ConfigError(f"max_share is {self.max_share}: give a number above 0, up to 1")
        if self.num_liars < 0:
            raise ConfigError(f"num_liars is {self.num_liars}: give 0 or more")
        for name in ("temperature", "tolerance"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 0 or more")


def fedora(config: FedoraConfig) -> Aggregator:
    """Return the value-weighted mean; it reports the effective number of clients and how many were left out."""

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        _, rows, samples = stacked(weights, updates)
        if len(updates) == 1:
            return Aggregate(unstacked(rows[0], weights), dict(state), {})
        shares = ensemble_shares(_values(updates), samples, config)
        report = {
            "effective_clients": 1.0 / float(np.square(shares).sum()),
            "largest_share": float(shares.max()),
            "left_out_for_value": float(np.count_nonzero(shares == 0.0)),
        }
        return Aggregate(unstacked(weighted_mean(rows, shares), weights), dict(state), report)

    def weigh(updates: Sequence[ClientUpdate]) -> dict[str, float]:
        samples = np.array([update.num_samples for update in in_order(updates)], dtype=np.float64)
        shares = ensemble_shares(_values(updates), samples, replace(config, max_share=hidden))
        return {update.client: float(share) for update, share in zip(in_order(updates), shares, strict=True)}

    hidden = min(config.max_share, 1.0 / MIN_COHORT)
    return Aggregator(init=no_state, update=update, needs_value=True, weigh=weigh)


def ensemble_shares(
    values: NDArray[np.float64], samples: NDArray[np.float64], config: FedoraConfig
) -> NDArray[np.float64]:
    """Return each client's share [num_clients] of values and samples [num_clients]; they sum to 1."""
    supported = np.minimum(values, np.sort(values)[-1 - min(config.num_liars, len(values) - 1)])
    spread = supported.std()
    floor = _SMALL * (1.0 + np.abs(supported).max())
    can_tell = config.num_liars > 0 and len(values) >= 2 * config.num_liars + 3
    is_made_up = can_tell & (values - supported > config.tolerance * spread + floor)
    standardised = (supported - supported.mean()) / spread if spread > floor else np.zeros_like(supported)
    logs = np.where(is_made_up, -np.inf, config.temperature * standardised + np.log(samples))
    shares = np.exp(logs - logs.max())
    return _capped(shares / shares.sum(), config.max_share)


def _capped(shares: NDArray[np.float64], max_share: float) -> NDArray[np.float64]:
    """Return shares of at most max_share; what is cut off goes to the others in proportion."""
    counts = shares > 0.0
    cap = max(max_share, 1.0 / np.count_nonzero(counts))
    capped = np.zeros(len(shares), dtype=bool)
    for _ in range(len(shares)):
        over = (shares > cap * (1.0 + _SMALL)) & ~capped
        if not over.any():
            break
        capped |= over
        others = counts & ~capped
        shares = np.where(capped, cap, shares)
        if others.any():
            shares = np.where(others, shares * ((1.0 - cap * capped.sum()) / shares[others].sum()), shares)
    normal: NDArray[np.float64] = shares / shares.sum()
    return normal


def _values(updates: Sequence[ClientUpdate]) -> NDArray[np.float64]:
    for update in updates:
        if update.value is None:
            raise FederationError(
                f"Update of client {update.client!r} has no value report, which rule 'fedora' weighs by: "
                "use an algorithm with critics at every client"
            )
    return np.array([update.value for update in in_order(updates)], dtype=np.float64)
