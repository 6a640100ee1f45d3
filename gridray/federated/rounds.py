"""Start the members of a federation and run its rounds, passing references between coordinator and clients."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.algorithms.base import Learner
from gridray.federated.client import ClientDescription, UtilityClient
from gridray.federated.config import FederateConfig
from gridray.federated.coordinator import Coordinator, LostUpdatesError, OpenRound, RoundRecord
from gridray.federated.masked_moments import sum_moments
from gridray.federated.masked_round import sum_under_masks
from gridray.federated.membership import check_agreement, client_spec, initial_learner, signed_rules
from gridray.federated.sites import MemberLostError, Placing, Sites

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridray.federated.moments import Moments

_RESTARTS = 3
COORDINATOR_CPUS = 0.01
_ROUND_ATTEMPTS = 3
_REVIVE_S = 60.0
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Members of a federation that is ready for its next round.

    coordinator, clients: members of `sites`, clients by name.
    descriptions: what each client said about itself.
    learner: as the first round of all starts.
    in_flight: client name -> ticket of its training, where that has not come in yet.
    """

    sites: Sites
    config: FederateConfig
    coordinator: Any
    clients: dict[str, Any]
    descriptions: dict[str, ClientDescription]
    learner: Learner
    in_flight: dict[str, Any] = field(default_factory=dict)

    def ask(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return what the coordinator answers."""
        return self.sites.value(self.sites.call(self.coordinator, method, *arguments))

    def ask_patiently(self, method: str) -> Any:  # noqa: ANN401
        """Return what the coordinator answers; one that is being started again is waited for.

        Raises:
            MemberLostError: it did not come back.
        """
        deadline = time.monotonic() + _REVIVE_S
        while time.monotonic() < deadline:
            try:
                return self.ask(method)
            except MemberLostError:
                time.sleep(_POLL_S)
        return self.ask(method)

    def history(self) -> tuple[RoundRecord, ...]:
        """Return the rounds that are closed."""
        return tuple(self.ask_patiently("history"))


def start_federation(sites: Sites, config: FederateConfig, out: Path) -> Federation:
    """Start coordinator and clients, or take up the run that stopped in out.

    Raises:
        FederationError: clients disagree on channels, or out holds another run.
    """
    arguments: dict[str, Any]
    clients = start_clients(sites, config, out)
    descriptions = _ask_all(sites, clients, "describe")
    check_agreement(descriptions, config.learner.get("policy", "flat"))
    learner = initial_learner(config, descriptions, _moments(sites, config, clients, descriptions))
    arguments = {
        "rules": signed_rules(config, descriptions, learner),
        "initial": learner.get_weights(),
        "folder": out / "rounds",
    }
    # A coordinator that is started again knows the rounds on disk and has lost what came in since: rounds are repeated.
    placing = Placing({"CPU": COORDINATOR_CPUS}, num_restarts=_RESTARTS)
    coordinator = sites.start("coordinator", Coordinator, arguments, placing)
    return Federation(
        sites=sites,
        config=config,
        coordinator=coordinator,
        clients=clients,
        descriptions=descriptions,
        learner=learner,
    )


def start_clients(sites: Sites, config: FederateConfig, out: Path) -> dict[str, Any]:
    """Start the clients, or take them up where a run in out left them; return them by name."""
    clients = {}
    for client in config.clients:
        arguments = {"spec": client_spec(config, client, out / "clients" / client.name)}
        resources = {"CPU": client.num_cpus} | ({client.resource: 1.0} if client.resource else {})
        # Every call of a client gives the same result twice, also by a client that was started again in between.
        placing = Placing(resources, num_restarts=_RESTARTS, repeats_calls=True)
        clients[client.name] = sites.start(client.name, UtilityClient, arguments, placing)
    return clients


def run_round(federation: Federation) -> RoundRecord:
    """Broadcast, train, collect, aggregate; weights go between coordinator and clients, not through here.

    A round whose coordinator was lost is repeated, with equal results.

    Raises:
        FederationError: fewer clients than the quorum sent an update that was accepted.
    """
    index, num_failures = None, 0
    while True:
        opened: OpenRound = federation.ask_patiently("open_round")
        if index is not None and opened.round > index:
            # The coordinator had closed the round and died over the answer.
            return federation.history()[index]
        index = opened.round
        try:
            return _attempt(federation, opened)
        except (MemberLostError, LostUpdatesError):
            num_failures += 1
            if num_failures == _ROUND_ATTEMPTS:
                raise


def drawn_clients(config: FederateConfig, round_index: int) -> list[str]:
    """Return the names of the clients of a round, a draw of those that are not away; it depends on the seed alone."""
    names = sorted(client.name for client in config.clients if not client.is_away(round_index))
    if config.clients_per_round is None or len(names) <= config.clients_per_round:
        return names
    rng = np.random.default_rng([config.seed, round_index])
    return sorted(rng.choice(names, size=config.clients_per_round, replace=False).tolist())


def evaluate_weights(federation: Federation, broadcast: Any) -> dict[str, str]:  # noqa: ANN401  # a ticket
    """Let every client evaluate the weights of a broadcast; return, by name, why there is no evaluation of it."""
    sites, evaluation = federation.sites, federation.config.evaluation
    if evaluation is None:
        return {}
    idle = {name: client for name, client in federation.clients.items() if name not in federation.in_flight}
    reports = {name: sites.call(client, "evaluate", broadcast, evaluation.num_days) for name, client in idle.items()}
    return _deliver(federation, "receive_report", reports, sites.late(reports))


def _attempt(federation: Federation, opened: OpenRound) -> RoundRecord:
    config, sites, index = federation.config, federation.sites, opened.round
    broadcast = sites.call(federation.coordinator, "broadcast")
    if config.evaluation is not None and index % config.evaluation.every == 0:
        evaluate_weights(federation, broadcast)
    absent = {client.name: "away" for client in config.clients if client.is_away(index)}
    if config.asynchronous is None:
        _all_of_round(federation, index, broadcast, absent)
    else:
        _until_full(federation, index, broadcast, absent)
    if config.protection.secure_aggregation is not None:
        absent |= sum_under_masks(sites, federation.coordinator, federation.clients)
    record: RoundRecord = federation.ask("close_round", absent, opened.token)
    return record


def _all_of_round(federation: Federation, index: int, broadcast: Any, absent: dict[str, str]) -> None:  # noqa: ANN401
    """Wait for all clients that were drawn and are idle, up to the time-out."""
    sites = federation.sites
    _land(federation)
    updates = {}
    for name in drawn_clients(federation.config, index):
        if name in federation.in_flight:
            absent[name] = "still busy with an earlier round"
        else:
            updates[name] = sites.call(federation.clients[name], "fit", broadcast)
    late = sites.late(updates)
    federation.in_flight.update({name: updates[name] for name in late})
    absent |= _deliver(federation, "receive", updates, late)


def _until_full(federation: Federation, index: int, broadcast: Any, absent: dict[str, str]) -> None:  # noqa: ANN401
    """Keep all clients busy and take what comes first, until the buffer is full; the rest stays in flight."""
    sites, config, flights = federation.sites, federation.config, federation.in_flight
    for name in drawn_clients(config, index):
        if name not in flights:
            flights[name] = sites.call(federation.clients[name], "fit", broadcast)
    num_accepted = 0
    deadline = time.monotonic() + config.timeout_s
    while num_accepted < config.quorum:
        arrived = sites.first(flights, max(0.0, deadline - time.monotonic()))
        if arrived is None:
            absent |= dict.fromkeys(flights, f"no update within {config.timeout_s:g} s")
            break
        missing = _deliver(federation, "receive", {arrived: flights.pop(arrived)}, {})
        absent |= missing
        num_accepted += not missing


def _land(federation: Federation) -> None:
    """Forget the trainings of earlier rounds that are over: their clients are idle again."""
    flights = federation.in_flight
    while (name := federation.sites.first(flights, 0.0)) is not None:
        del flights[name]


def _deliver(
    federation: Federation, method: str, messages: Mapping[str, Any], late: Mapping[str, str]
) -> dict[str, str]:
    """Hand the messages that are there to the coordinator; return, by name, why one is missing."""
    sites = federation.sites
    receipts = {
        name: sites.call(federation.coordinator, method, name, message)
        for name, message in messages.items()
        if name not in late
    }
    return dict(late) | sites.refusals(receipts)


def _moments(
    sites: Sites, config: FederateConfig, clients: Mapping[str, Any], descriptions: Mapping[str, ClientDescription]
) -> Mapping[str, Mapping[str, Moments]]:
    """Return moments of each client's data, or under masks of all; none where they would be a leak."""
    if config.protection.reward_std is not None:
        return {}
    if config.protection.secure_aggregation is None:
        return _ask_all(sites, clients, "moments")
    keys = {name: description.public_key for name, description in descriptions.items()}
    description = next(iter(descriptions.values()))
    widths = {"obs": description.num_features, "rewards": 1, "terminateds": 1}
    if description.has_cost:
        widths["costs"] = 1
    return {"all": sum_moments(sites, clients, keys, config.protection.secure_aggregation, widths)}


def _ask_all(sites: Sites, clients: Mapping[str, Any], method: str) -> dict[str, Any]:
    tickets = {name: sites.call(client, method) for name, client in clients.items()}
    return {name: sites.value(ticket) for name, ticket in tickets.items()}
