"""Where coordinator and clients live: all in this process, or as actors in placement groups of their own."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gridray.errors import FederationError, GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.util.placement_group import PlacementGroup

_MAX_REASON = 200


class MemberLostError(FederationError):
    """A member died, or its node did; if it may be started again, that is under way."""


class Placing(NamedTuple):
    """How a member is placed.

    resources: Ray resource -> amount that its group holds, at least one above 0.
    num_restarts: how often Ray may start it again after it died.
    repeats_calls: whether a call that it died over is made again; only for calls that give the same result twice.
    """

    resources: dict[str, float]
    num_restarts: int
    repeats_calls: bool = False


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

    def first(self, tickets: Mapping[str, Any], timeout_s: float) -> str | None:
        """Return the name of a call that is over, waiting for one up to timeout_s; none if there is none."""
        ...

    def late(self, tickets: Mapping[str, Any]) -> dict[str, str]:
        """Wait for all tickets up to the time-out; return, by name, what to note where none came."""
        ...

    def refusals(self, receipts: Mapping[str, Any]) -> dict[str, str]:
        """Return, by name, why the coordinator has no update: it refused it, or the client failed on the way."""
        ...

    def stop(self) -> None:
        """End all members."""
        ...


class _Failure(NamedTuple):
    """Ticket of a call that raised."""

    error: GridRayError


class InProcess:
    """Members are plain objects and calls are made at once, one after the other."""

    def start(self, name: str, kind: type, arguments: Mapping[str, Any], placing: Placing) -> Any:  # noqa: ANN401, ARG002
        """Return an instance of kind."""
        return kind(**arguments)

    def call(self, member: Any, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return the result itself, or what stands for its failure."""
        if failed := [argument for argument in arguments if isinstance(argument, _Failure)]:
            return failed[0]
        try:
            return getattr(member, method)(*arguments)
        except GridRayError as error:
            return _Failure(error)

    def value(self, ticket: Any) -> Any:  # noqa: ANN401
        """Return the ticket: it is the result."""
        if isinstance(ticket, _Failure):
            raise ticket.error
        return ticket

    def first(self, tickets: Mapping[str, Any], timeout_s: float) -> str | None:  # noqa: ARG002
        """Return the first name: every call has been made."""
        return next(iter(tickets), None)

    def late(self, tickets: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        """Return nothing: every call has been made."""
        return {}

    def refusals(self, receipts: Mapping[str, Any]) -> dict[str, str]:
        """Return the receipts that give a reason."""
        reasons = {
            name: _failed(receipt.error) if isinstance(receipt, _Failure) else receipt
            for name, receipt in receipts.items()
        }
        return {name: reason for name, reason in reasons.items() if reason is not None}

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
                max_task_retries=placing.num_restarts if placing.repeats_calls else 0,
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
            MemberLostError: the member died.
            FederationError: the time-out passed.
        """
        try:
            return ray.get(ticket, timeout=self._timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, GridRayError):
                raise error.cause from None
            raise
        except GetTimeoutError as error:
            raise FederationError(
                f"A member of the federation does not answer within {self._timeout_s:g} s: "
                "run again to go on from the last round"
            ) from error
        except RayError as error:
            # An actor, or with its node what it had answered.
            raise MemberLostError(
                f"A member of the federation was lost ({type(error).__name__}): run again to go on from the last round"
            ) from error

    def first(self, tickets: Mapping[str, Any], timeout_s: float) -> str | None:
        """Wait for any of the results without fetching it."""
        names = {ticket: name for name, ticket in tickets.items()}
        if not names:
            return None
        ready, _ = ray.wait(list(names), num_returns=1, timeout=timeout_s, fetch_local=False)
        return names[ready[0]] if ready else None

    def late(self, tickets: Mapping[str, Any]) -> dict[str, str]:
        """Wait for all results without fetching them; name those that did not come."""
        names = {ticket: name for name, ticket in tickets.items()}
        if not names:
            return {}
        _, late = ray.wait(list(names), num_returns=len(names), timeout=self._timeout_s, fetch_local=False)
        return {names[ticket]: f"no update within {self._timeout_s:g} s" for ticket in late}

    def refusals(self, receipts: Mapping[str, Any]) -> dict[str, str]:
        """Collect the receipts; an update that its client died or failed over counts as absent."""
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
            reason: str | None = ray.get(receipt, timeout=self._timeout_s)
        except RayTaskError as error:
            # The receipt of an update whose client died carries that death; the coordinator's own is no RayTaskError.
            if isinstance(error.cause, ActorUnavailableError):
                # It is being started again, here or on another node: the round is worth repeating.
                raise MemberLostError("A client is being started again") from error
            if isinstance(error.cause, RayActorError):
                return f"its actor failed ({type(error.cause).__name__})"
            return _failed(error.cause)
        except GetTimeoutError as error:
            raise FederationError(f"The coordinator does not answer within {self._timeout_s:g} s") from error
        except RayError as error:
            raise MemberLostError(f"The coordinator or an update was lost ({type(error).__name__})") from error
        return reason


class PooledActors(RayActors):
    """Simulated clients, many to an actor: a thousand of them fit where a thousand processes would not.

    Their data is not kept apart: for experiments on one's own data, not for utilities.
    """

    def __init__(self, timeout_s: float, num_actors: int, shared: tuple[type, ...]) -> None:
        """Put members of the shared kinds on num_actors actors in turn; others get an actor of their own."""
        super().__init__(timeout_s)
        self._shared = shared
        self._num_actors = num_actors
        self._hosts: Any = None

    def start(self, name: str, kind: type, arguments: Mapping[str, Any], placing: Placing) -> Any:  # noqa: ANN401
        """Return a member on the next actor in turn, or an actor's handle."""
        if kind not in self._shared:
            return super().start(name, kind, arguments, placing)
        if self._hosts is None:
            one = Placing(placing.resources, num_restarts=0)
            self._hosts = cycle(
                [super(PooledActors, self).start(name, _Host, {}, one) for _ in range(self._num_actors)]
            )
        host = next(self._hosts)
        host.add.remote(name, kind, dict(arguments))
        return _Guest(host, name)

    def call(self, member: Any, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return the object reference of the result."""
        if isinstance(member, _Guest):
            return member.host.call.remote(member.name, method, *arguments)
        return super().call(member, method, *arguments)


class _Guest(NamedTuple):
    """Member of a pool."""

    host: Any
    name: str


class _Host:
    """Actor of a pool: plain objects by name."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}

    def add(self, name: str, kind: type, arguments: dict[str, Any]) -> None:
        self._members[name] = kind(**arguments)

    def call(self, name: str, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        return getattr(self._members[name], method)(*arguments)


def _failed(error: BaseException | None) -> str:
    return f"it failed ({type(error).__name__}: {error})"[:_MAX_REASON]
