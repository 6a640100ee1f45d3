"""What a federation did, line by line: nobody can change, remove, add or reorder a line without being found out.

Each line is one JSON document in a canonical form with the SHA-256 of the line before; the file `<name>.head` beside
it has the number of lines and the last hash, signed by the coordinator. Who keeps a copy of a head can prove later that
lines were removed. Clients sign what they sent. Only the fields below can be written, and none holds an observation, a
reward or the name of anything on a feeder.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from gridray.errors import FederationError
from gridray.federated.identity import is_signed, public_key, sign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_HASH = "0" * 64
_PURPOSE = b"gridray ledger head"


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """First line of a run.

    run: digest of all that decides the numbers.
    coordinator, members: public Ed25519 keys in hexadecimal, members' by name.
    data_sha256: member -> digest over its dataset's digests.
    aggregator: rule that joins updates; protection: what protects them, in words.
    versions: package -> version.
    """

    kind: Literal["run_started"] = "run_started"
    run: str
    coordinator: str
    members: dict[str, str]
    data_sha256: dict[str, str]
    aggregator: str
    protection: str
    versions: dict[str, str]


TAKES_LATE = "fedbuff"
"""The rule under which updates of earlier rounds count."""


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """One message that left a client.

    round: round that the message is of; an earlier one than its line's where late updates count.
    message: type of the message; sha256: digest of its content; num_bytes: of its arrays.
    norm: Euclidean norm of the update, where the coordinator can see it.
    signature: the client's, over run, round, client, message, num_bytes and sha256; empty where it has no key.
    """

    client: str
    round: int
    message: str
    num_bytes: int
    sha256: str
    norm: float | None = None
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """What one unit has lost since the run began; never an epsilon without its unit.

    scope: name of the client whose units these are, or "all" for utilities.
    """

    scope: str
    unit: str
    epsilon: float
    delta: float
    budget_epsilon: float


@dataclass(frozen=True, kw_only=True)
class RoundClosed:
    """A round.

    crossings: what came in, by client; absent: client -> why nothing of it is in the mean.
    weights_sha256: digest of the global weights after the round.
    report: figures of the aggregator, such as the effective number of clients.
    """

    kind: Literal["round_closed"] = "round_closed"
    round: int
    crossings: tuple[Crossing, ...]
    absent: dict[str, str]
    weights_sha256: str
    privacy: tuple[PrivacySpent, ...] = ()
    report: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """Last line of a run that came to its end; reason: all rounds, a stop on no progress, or a spent budget."""

    kind: Literal["run_ended"] = "run_ended"
    num_rounds: int
    reason: str
    weights_sha256: str


Body = RunStarted | RoundClosed | RunEnded


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line: number from 0, hash of the line before, and what happened."""

    number: int
    previous: str
    body: Body


@dataclass(frozen=True, kw_only=True)
class Head:
    """State of a ledger: number of lines, hash of the last, and the coordinator's signature of both."""

    num_lines: int
    last: str
    key: str
    signature: str


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
_HEAD: TypeAdapter[Head] = TypeAdapter(Head)


class Ledger:
    """Appends to a ledger file; the lines that are there stay as they are."""

    def __init__(self, path: Path, secret: bytes) -> None:
        """Open a ledger, or begin one.

        A line that was being written when the machine stopped, and that no head counts, is removed.

        Args:
            path: file of JSON lines.
            secret: the coordinator's identity key, 32 bytes.

        Raises:
            FederationError: the ledger was changed, or belongs to another coordinator.
        """
        self._path, self._secret = path, secret
        self._num_lines, self._last, self._size = 0, NO_HASH, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or not head_file(path).exists():
            if path.exists() and path.read_bytes().count(b"\n"):
                raise FederationError(
                    f"Ledger {path} has no head {head_file(path).name}: restore it, or move both away"
                )
            path.write_bytes(b"")
            self._write_head()
        head = read_head(head_file(path), key=public_key(secret))
        lines = path.read_bytes().splitlines(keepends=True)
        self._size = sum(len(line) for line in lines[: head.num_lines])
        os.truncate(path, self._size)
        verify(path, key=public_key(secret))
        self._num_lines, self._last = head.num_lines, head.last

    @property
    def num_lines(self) -> int:
        """Lines written so far."""
        return self._num_lines

    def append(self, body: Body) -> str:
        """Write a line to disk, then the head; return the line's hash.

        Raises:
            FederationError: the disk is full or cannot be written; the lines that were there stay.
        """
        line = _line(Entry(number=self._num_lines, previous=self._last, body=body))
        try:
            # What a write that failed may have left behind the last whole line is overwritten.
            os.truncate(self._path, self._size)
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FederationError(f"Ledger {self._path} cannot be written ({error}): make room, run again") from error
        self._num_lines, self._last = self._num_lines + 1, hashlib.sha256(line).hexdigest()
        self._size += len(line)
        self._write_head()
        return self._last

    def _write_head(self) -> None:
        text = f"{self._num_lines} {self._last}"
        head = Head(
            num_lines=self._num_lines,
            last=self._last,
            key=public_key(self._secret),
            signature=sign(self._secret, _PURPOSE, text.encode()),
        )
        aside = head_file(self._path).with_name(f".partial-{head_file(self._path).name}-{os.getpid()}")
        aside.write_bytes(_head_line(head))
        aside.rename(head_file(self._path))


def head_file(path: Path) -> Path:
    """Return where the head of a ledger is."""
    return path.with_name(f"{path.name}.head")


def read_head(path: Path, *, key: str | None = None) -> Head:
    """Read a head and check its signature.

    Raises:
        FederationError: it is missing, changed, or signed with another key than the one given.
    """
    content = _read(path)
    head: Head = _parse(_HEAD, content, f"Head {path}")
    if _head_line(head) != content:
        raise FederationError(f"Head {path} is not in the form that GridRay writes: it was changed")
    if key is not None and head.key != key:
        raise FederationError(
            f"Head {path} is signed with key {head.key}, expected {key}: it is of another coordinator"
        )
    if not is_signed(head.key, head.signature, _PURPOSE, f"{head.num_lines} {head.last}".encode()):
        raise FederationError(f"Head {path} does not fit its signature: it was changed")
    return head


def read(path: Path) -> Iterator[Entry]:
    """Yield the lines of a ledger after checking form, number, chain and the clients' signatures.

    Raises:
        FederationError: names the first line that was changed.
    """
    previous, run = NO_HASH, None
    for number, line in enumerate(_read(path).splitlines(keepends=True)):
        where = f"Ledger {path}, line {number + 1}"
        entry: Entry = _parse(_ENTRY, line, where)
        if _line(entry) != line:
            raise FederationError(f"{where} is not in the form that GridRay writes: it was changed")
        if entry.number != number or entry.previous != previous:
            raise FederationError(f"{where} does not follow the line before: lines were changed, moved or removed")
        if (number == 0) != isinstance(entry.body, RunStarted):
            raise FederationError(f"{where}: a ledger begins with run_started, and has it once")
        if isinstance(entry.body, RunStarted):
            run = entry.body
        elif run is not None and isinstance(entry.body, RoundClosed):
            _check_signatures(where, run, entry.body)
        previous = hashlib.sha256(line).hexdigest()
        yield entry


def verify(path: Path, *, head: Path | None = None, key: str | None = None) -> tuple[Entry, ...]:
    """Return the lines of a ledger in which nothing was changed.

    Args:
        path: the ledger.
        head: a head that was kept elsewhere: the ledger must still begin with the lines that it counts. The head beside
            the ledger is checked in any case, and must count all lines.
        key: the coordinator's public key; without it, who can write the files can sign anew what they changed.

    Raises:
        FederationError: names the file and line where something was changed, added or removed.
    """
    entries = tuple(read(path))
    lines = _read(path).splitlines(keepends=True)
    own = read_head(head_file(path), key=key)
    if own.num_lines != len(lines):
        raise FederationError(
            f"Ledger {path} has {len(lines)} lines, its head counts {own.num_lines}: lines are missing"
        )
    for found in (own, *(() if head is None else (read_head(head, key=key),))):
        known = NO_HASH if found.num_lines == 0 else _hash_of(lines, found.num_lines)
        if known != found.last:
            raise FederationError(
                f"Ledger {path} does not hold the {found.num_lines} lines that its head was signed for: lines were "
                "changed or removed"
            )
    if entries and isinstance(entries[0].body, RunStarted) and entries[0].body.coordinator != own.key:
        raise FederationError(f"Ledger {path} was begun by coordinator {entries[0].body.coordinator}, not {own.key}")
    return entries


def crossing_statement(run: str, crossing: Crossing) -> bytes:
    """Return the bytes that a client signs about a message of its own."""
    fields = [run, crossing.round, crossing.client, crossing.message, crossing.num_bytes, crossing.sha256]
    return json.dumps(fields).encode()


def _check_signatures(where: str, run: RunStarted, body: RoundClosed) -> None:
    for crossing in body.crossings:
        key = run.members.get(crossing.client)
        if key is None:
            raise FederationError(f"{where}: {crossing.client!r} is no member of this run")
        is_late = crossing.round < body.round and TAKES_LATE in run.aggregator.split(", ")
        if crossing.round != body.round and not is_late:
            raise FederationError(
                f"{where}: a message of {crossing.client!r} is of round {crossing.round}: it was moved"
            )
        if not is_signed(key, crossing.signature, crossing_statement(run.run, crossing)):
            raise FederationError(f"{where}: the signature of {crossing.client!r} does not fit: the line was changed")


def _hash_of(lines: list[bytes], num_lines: int) -> str:
    return hashlib.sha256(lines[num_lines - 1]).hexdigest() if num_lines <= len(lines) else ""


def _line(entry: Entry) -> bytes:
    content = _ENTRY.dump_python(entry, mode="json")
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _head_line(head: Head) -> bytes:
    return _HEAD.dump_json(head) + b"\n"


def _parse(adapter: TypeAdapter[Any], content: bytes, where: str) -> Any:  # noqa: ANN401  # as the adapter's type
    try:
        return adapter.validate_json(content, strict=True, extra="forbid")
    except ValidationError as error:
        raise FederationError(f"{where} is not valid ({error.errors()[0]['msg']}): it was changed") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FederationError(f"'{path}' cannot be read ({error.strerror}): give the path of a ledger") from error
