"""A common normaliser that shows no client's own statistics: secure sums of count, sum and sum of squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.federated.moments import Moments, as_sums, of_sums
from gridray.federated.outbox import Order
from gridray.federated.privacy.quantisation import FixedPoint, widest
from gridray.federated.privacy.secure_aggregation import secure_sum
from gridray.federated.privacy.secure_messages import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.federated.privacy.protection import SecureAggregationConfig
    from gridray.federated.sites import Sites

ROUND = -1
"""The round of a sum of moments: before the first."""
RUN = "moments"
_WORD_BITS = 64
# Steps of 2^-12: sums of squares of a hundred million rows of size 100 still fit.
_LIMIT = 2.0**40


def moments_fixed_point(num_members: int) -> FixedPoint:
    """Return the fixed point of sums of moments."""
    return widest(_LIMIT, num_members, _WORD_BITS)


def packed_moments(found: Mapping[str, Moments]) -> NDArray[np.float64]:
    """Return the moments of all columns, in order of name, as one vector that adds up over clients."""
    return np.concatenate([as_sums(part, np.zeros_like(part.mean)) for _, part in sorted(found.items())])


def unpacked_moments(total: NDArray[np.float64], widths: Mapping[str, int]) -> dict[str, Moments]:
    """Return the moments of all rows together; widths: column -> number of its features."""
    bounds = np.cumsum([1 + 2 * width for _, width in sorted(widths.items())])[:-1]
    parts = zip(sorted(widths.items()), np.split(total, bounds), strict=True)
    return {name: of_sums(part, np.zeros(width)) for (name, width), part in parts}


def sum_moments(
    sites: Sites,
    clients: Mapping[str, Any],
    keys: Mapping[str, str],
    secure: SecureAggregationConfig,
    widths: Mapping[str, int],
) -> dict[str, Moments]:
    """Return the moments of all clients' rows together, by column.

    Args:
        sites: where clients are.
        clients: members by name.
        keys: client -> public identity key.
        secure: threshold.
        widths: column -> number of its features.

    Raises:
        FederationError: fewer clients than the threshold answer.
    """
    session = Session(
        run=RUN,
        round=ROUND,
        members=dict(keys),
        threshold=secure.threshold_of(len(keys)),
        num_words=sum(1 + 2 * width for width in widths.values()),
        word_bits=_WORD_BITS,
    )

    def channel(method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        tickets = {
            name: sites.call(
                clients[name], "take_part", Order(session=session, stage=method, arguments=given, weight=1.0)
            )
            for name, given in arguments.items()
        }
        late = sites.late(tickets)
        return {name: sites.value(ticket).message for name, ticket in tickets.items() if name not in late}

    result = secure_sum(session, channel)
    return unpacked_moments(moments_fixed_point(len(keys)).decode(result.words), widths)
