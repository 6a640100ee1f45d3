"""Start the members of a federation and run its rounds, passing references between coordinator and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gridray.federated.client import ClientDescription, UtilityClient
from gridray.federated.coordinator import Coordinator, RoundRecord
from gridray.federated.membership import check_agreement, client_spec, initial_learner, round_rules
from gridray.federated.sites import Placing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridray.algorithms.base import Learner
    from gridray.federated.config import FederateConfig
    from gridray.federated.sites import Sites

_CLIENT_RESTARTS = 3
_COORDINATOR_CPUS = 0.01


class Federation(NamedTuple):
    """Members of a federation that is ready for its next round.

    coordinator, clients: members of `sites`, clients by name.
    descriptions: what each client said about itself.
    learner: as the first round of all starts.
    """

    sites: Sites
    coordinator: Any
    clients: dict[str, Any]
    descriptions: dict[str, ClientDescription]
    learner: Learner

    def history(self) -> tuple[RoundRecord, ...]:
        """Return the rounds that are closed."""
        return tuple(self.sites.value(self.sites.call(self.coordinator, "history")))


def start_federation(sites: Sites, config: FederateConfig, out: Path) -> Federation:
    """Start coordinator and clients, or take up the run that stopped in out.

    Raises:
        FederationError: clients disagree on channels, or out holds another run.
    """
    arguments: dict[str, Any]
    clients = {}
    for client in config.clients:
        arguments = {"spec": client_spec(config, client, out / "clients" / client.name)}
        resources = {"CPU": client.num_cpus} | ({client.resource: 1.0} if client.resource else {})
        placing = Placing(resources, num_restarts=_CLIENT_RESTARTS)
        clients[client.name] = sites.start(client.name, UtilityClient, arguments, placing)
    descriptions = _ask(sites, clients, "describe")
    check_agreement(descriptions)
    learner = initial_learner(config, descriptions, _ask(sites, clients, "moments"))
    arguments = {
        "rules": round_rules(config, descriptions),
        "initial": learner.get_weights(),
        "folder": out / "rounds",
    }
    # A coordinator that dies ends the run: the updates of the open round are gone, and the next run resumes it.
    placing = Placing({"CPU": _COORDINATOR_CPUS}, num_restarts=0)
    coordinator = sites.start("coordinator", Coordinator, arguments, placing)
    return Federation(sites, coordinator, clients, descriptions, learner)


def run_round(federation: Federation) -> RoundRecord:
    """Broadcast, train, collect, aggregate; weights go between coordinator and clients, not through here.

    Raises:
        FederationError: fewer clients than the quorum sent an update that was accepted.
    """
    sites, coordinator = federation.sites, federation.coordinator
    index = len(federation.history())
    weights = sites.call(coordinator, "weights")
    updates = {name: sites.call(client, "fit", index, weights) for name, client in federation.clients.items()}
    absent = sites.late(updates)
    arrived = {name: update for name, update in updates.items() if name not in absent}
    receipts = {name: sites.call(coordinator, "receive", name, update) for name, update in arrived.items()}
    absent |= sites.refusals(receipts)
    record: RoundRecord = sites.value(sites.call(coordinator, "close_round", absent))
    return record


def _ask(sites: Sites, clients: Mapping[str, Any], method: str) -> dict[str, Any]:
    tickets = {name: sites.call(client, method) for name, client in clients.items()}
    return {name: sites.value(ticket) for name, ticket in tickets.items()}
