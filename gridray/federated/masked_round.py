"""Take the members of a round through its secure sums; what they send goes to the coordinator, not through here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.federated.masked_sums import STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gridray.federated.sites import Sites


def sum_under_masks(sites: Sites, coordinator: Any, clients: Mapping[str, Any]) -> dict[str, str]:  # noqa: ANN401
    """Run all secure sums of the open round; return, by name, why a client's update is in none of them.

    Raises:
        FederationError: fewer members than the threshold are left in a sum.
    """
    absent: dict[str, str] = {}
    num_sums: int = sites.value(sites.call(coordinator, "open_sums"))
    for number in range(num_sums):
        for stage in STAGES:
            orders = sites.value(sites.call(coordinator, "orders", number))
            parts = {name: sites.call(clients[name], "take_part", order) for name, order in orders.items()}
            missing = sites.late(parts)
            receipts = {
                name: sites.call(coordinator, "receive_part", number, name, part)
                for name, part in parts.items()
                if name not in missing
            }
            missing |= sites.refusals(receipts)
            # Who stays away after its masked input arrived is in the sum all the same.
            if stage in STAGES[:3]:
                absent |= missing
            sites.value(sites.call(coordinator, "close_stage", number))
    return absent
