"""Where coordinator and clients live: all in this process, or each as an actor in a placement group of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gridray.errors import FederationError, GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.util.placement_group import PlacementGroup


class Placing(NamedTuple):
    """How a member is placed.

    resources: Ray resource -> amount that its group holds, at least one above 0.
    num_restarts: how often Ray may start it again after it died.
    """

    resources: dict[str, float]
    num_restarts: int


class Sites(Protocol):
    """Starts members and calls them. A ticket stands for the result of a call, which need not have come in yet."""

    def start(self, name: str, kind: type, arguments: Mapping[str, Any], placing: Placing) -> Any:  # noqa: ANN401
        """Return a member: an instance of kind, made from arguments."""
        ...

    def call(self, member: Any, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return a ticket; arguments may be tickets, which travel from member to member without passing here."""
        ...

    def value(self, ticket: Any) -> Any:  # noqa: ANN401
        """Return the result of a call."""
        ...

    def late(self, tickets: Mapping[str, Any]) -> dict[str, str]:
        """Wait for all tickets up to the time-out; return, by name, what to note where none came."""
        ...

    def refusals(self, receipts: Mapping[str, Any]) -> dict[str, str]:
        """Return, by name, why the coordinator has no update: it refused it, or the client died on the way."""
        ...

    def stop(self) -> None:
        """End all members."""
        ...


class InProcess:
    """Members are plain objects and calls are made at once, one after the other."""

    def start(self, name: str, kind: type, arguments: Mapping[str, Any], placing: Placing) -> Any:  # noqa: ANN401, ARG002
        """Return an instance of kind."""
        return kind(**arguments)

    def call(self, member: Any, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return the result itself."""
        return getattr(member, method)(*arguments)

    def value(self, ticket: Any) -> Any:  # noqa: ANN401
        """Return the ticket: it is the result."""
        return ticket

    def late(self, tickets: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        """Return nothing: every call has been made."""
        return {}

    def refusals(self, receipts: Mapping[str, Any]) -> dict[str, str]:
        """Return the receipts that give a reason."""
        return {name: reason for name, reason in receipts.items() if reason is not None}

    def stop(self) -> None:
        """Leave the objects to the garbage collector."""


class RayActors:
    """Members are actors; each has a placement group of its own, so that a utility's work stays on its node."""

    def __init__(self, timeout_s: float) -> None:
        """Wait at most timeout_s for any call or placement, seconds."""
        self._timeout_s = timeout_s
        self._groups: list[PlacementGroup] = []
        self._actors: list[Any] = []

    def start(self, name: str, kind: type, arguments: Mapping[str, Any], placing: Placing) -> Any:  # noqa: ANN401
        """Return the handle of a new actor.

        Raises:
            FederationError: no node has the resources free within the time-out.
        """
        wanted = {key: amount for key, amount in placing.resources.items() if amount > 0}
        group = placement_group([wanted], strategy="STRICT_PACK")
        self._groups.append(group)
        if not group.wait(self._timeout_s):
            raise FederationError(
                f"Member {name!r} needs {wanted} and no node has it free within {self._timeout_s:g} s: "
                "start a node that has it, or ask for less"
            )
        custom = {key: amount for key, amount in wanted.items() if key != "CPU"}
        actor: Any = (
            ray.remote(kind)
            .options(
                num_cpus=wanted.get("CPU", 0),
                resources=custom,
                max_restarts=placing.num_restarts,
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=group),
            )
            .remote(**arguments)
        )
        self._actors.append(actor)
        return actor

    def call(self, member: Any, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return the object reference of the result."""
        return getattr(member, method).remote(*arguments)

    def value(self, ticket: Any) -> Any:  # noqa: ANN401
        """Return the result.

        Raises:
            GridRayError: as the member raised it.
            FederationError: the member died, or the time-out passed.
        """
        try:
            return ray.get(ticket, timeout=self._timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, GridRayError):
                raise error.cause from None
            raise
        except (RayActorError, GetTimeoutError) as error:
            raise FederationError(
                f"A member of the federation does not answer within {self._timeout_s:g} s ({type(error).__name__}): "
                "run again to go on from the last round"
            ) from error

    def late(self, tickets: Mapping[str, Any]) -> dict[str, str]:
        """Wait for all results without fetching them; name those that did not come."""
        names = {ticket: name for name, ticket in tickets.items()}
        _, late = ray.wait(list(names), num_returns=len(names), timeout=self._timeout_s, fetch_local=False)
        return {names[ticket]: f"no update within {self._timeout_s:g} s" for ticket in late}

    def refusals(self, receipts: Mapping[str, Any]) -> dict[str, str]:
        """Collect the receipts; an update that its client died over counts as absent."""
        reasons = {}
        for name, receipt in receipts.items():
            reason = self._reason(receipt)
            if reason is not None:
                reasons[name] = reason
        return reasons

    def stop(self) -> None:
        """Kill the actors and give their placement groups back."""
        for actor in self._actors:
            ray.kill(actor)
        for group in self._groups:
            remove_placement_group(group)

    def _reason(self, receipt: Any) -> str | None:  # noqa: ANN401
        try:
            reason: str | None = self.value(receipt)
        except RayTaskError as error:
            # The receipt of an update whose client died carries that death; the coordinator's own is no RayTaskError.
            if not isinstance(error.cause, RayActorError):
                raise
            return f"its actor failed ({type(error.cause).__name__})"
        return reason
