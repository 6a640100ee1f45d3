"""The ledger: every change is found, and nothing but what is listed can be written."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridray.cli import main
from gridray.errors import FederationError
from gridray.federated.identity import public_key, secret_key, sign
from gridray.federated.ledger import (
    Crossing,
    Ledger,
    PrivacySpent,
    RoundClosed,
    RunEnded,
    RunStarted,
    crossing_statement,
    head_file,
    read,
    verify,
)

if TYPE_CHECKING:
    from pathlib import Path

COORDINATOR = bytes(range(32))
CLIENTS = {"north": bytes([1] * 32), "south": bytes([2] * 32)}
START = RunStarted(
    run="r1",
    coordinator=public_key(COORDINATOR),
    members={name: public_key(secret) for name, secret in CLIENTS.items()},
    data_sha256=dict.fromkeys(CLIENTS, "ab" * 32),
    aggregator="fedavg",
    protection="secure aggregation",
    versions={"gridray": "0.1.0"},
)


def crossing(client: str, round_index: int, *, norm: float | None = 0.5) -> Crossing:
    content = hashlib.sha256(f"{client}{round_index}".encode()).hexdigest()
    unsigned = Crossing(
        client=client, round=round_index, message="MaskedInput", num_bytes=4096, sha256=content, norm=norm
    )
    signature = sign(CLIENTS[client], crossing_statement("r1", unsigned))
    return replace(unsigned, signature=signature)


def closed(round_index: int, *clients: str) -> RoundClosed:
    return RoundClosed(
        round=round_index,
        crossings=tuple(crossing(client, round_index) for client in clients),
        absent=dict.fromkeys(sorted(CLIENTS.keys() - set(clients)), "no update within 5 s"),
        weights_sha256="ef" * 32,
        privacy=(PrivacySpent(scope="north", unit="day", epsilon=0.5, delta=1e-5, budget_epsilon=2.0),),
        report={"effective_clients": 2.0},
    )


def write(path: Path) -> Path:
    ledger = Ledger(path, COORDINATOR)
    for body in (START, closed(0, "north", "south"), closed(1, "north"), closed(2, "south", "north")):
        ledger.append(body)
    ledger.append(RunEnded(num_rounds=3, reason="all rounds", weights_sha256="ef" * 32))
    return path


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("run") / "ledger.jsonl")


@pytest.fixture
def copied(ledger: Path, tmp_path: Path) -> Path:
    for file in (ledger, head_file(ledger)):
        shutil.copy(file, tmp_path / file.name)
    return tmp_path / ledger.name


def assert_refused(path: Path, content: bytes, *, head: Path | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(FederationError):
        verify(path, head=head)


def test_untouched_ledger_is_whole(ledger: Path) -> None:
    entries = verify(ledger, key=public_key(COORDINATOR))
    assert [entry.body.kind for entry in entries] == ["run_started", *["round_closed"] * 3, "run_ended"]
    assert entries[0].body == START
    assert entries[2].body == closed(1, "north")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_change_of_one_byte_is_found(copied: Path, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from([copied, head_file(copied)]))
    whole = victim.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    victim.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    try:
        with pytest.raises(FederationError):
            verify(copied)
    finally:
        victim.write_bytes(whole)
    assert len(verify(copied)) == 5


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_removed_or_added_byte_is_found(copied: Path, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from([copied, head_file(copied)]))
    whole = victim.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.one_of(st.just(b""), st.sampled_from([b" ", b"\n", b"0", b"\x00"])))
    victim.write_bytes(whole[:place] + more + whole[place + (not more) :])
    try:
        with pytest.raises(FederationError):
            verify(copied)
    finally:
        victim.write_bytes(whole)


@pytest.mark.parametrize("kept", range(5))
def test_removed_last_lines_are_found(copied: Path, kept: int) -> None:
    lines = copied.read_bytes().splitlines(keepends=True)
    assert_refused(copied, b"".join(lines[:kept]))


@pytest.mark.parametrize("removed", range(5))
def test_removed_and_repeated_lines_are_found(copied: Path, removed: int) -> None:
    lines = copied.read_bytes().splitlines(keepends=True)
    assert_refused(copied, b"".join(lines[:removed] + lines[removed + 1 :]))
    assert_refused(copied, b"".join([*lines[: removed + 1], *lines[removed:]]))


@pytest.mark.parametrize("first", range(4))
def test_reordered_lines_are_found(copied: Path, first: int) -> None:
    lines = copied.read_bytes().splitlines(keepends=True)
    lines[first], lines[first + 1] = lines[first + 1], lines[first]
    assert_refused(copied, b"".join(lines))


def test_coordinator_that_removes_lines_and_signs_a_new_head_is_found_by_a_kept_head(
    ledger: Path, tmp_path: Path
) -> None:
    kept = shutil.copy(head_file(ledger), tmp_path / "kept.head")
    shorter = Ledger(tmp_path / "ledger.jsonl", COORDINATOR)
    for body in (START, closed(0, "north", "south")):
        shorter.append(body)
    path = tmp_path / "ledger.jsonl"
    assert len(verify(path)) == 2
    with pytest.raises(FederationError, match="does not hold the 5 lines"):
        verify(path, head=kept)


def test_kept_head_of_an_earlier_day_still_fits(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", COORDINATOR)
    ledger.append(START)
    kept = shutil.copy(head_file(tmp_path / "ledger.jsonl"), tmp_path / "kept.head")
    ledger.append(closed(0, "north"))
    assert len(verify(tmp_path / "ledger.jsonl", head=kept)) == 2


def test_ledger_written_anew_by_another_coordinator_is_found_by_the_key(tmp_path: Path) -> None:
    other = bytes([9] * 32)
    Ledger(tmp_path / "ledger.jsonl", other).append(replace(START, coordinator=public_key(other)))
    assert len(verify(tmp_path / "ledger.jsonl")) == 1
    with pytest.raises(FederationError, match="is of another coordinator"):
        verify(tmp_path / "ledger.jsonl", key=public_key(COORDINATOR))


@pytest.mark.parametrize("field", ["client", "message", "num_bytes", "sha256", "signature"])
def test_coordinator_cannot_change_what_a_client_signed(tmp_path: Path, field: str) -> None:
    good = crossing("north", 0)
    forged = replace(good, **{field: {"client": "south", "num_bytes": 1}.get(field, "00" * 32)})
    ledger = Ledger(tmp_path / "ledger.jsonl", COORDINATOR)
    ledger.append(START)
    ledger.append(replace(closed(0), crossings=(forged,)))
    with pytest.raises(FederationError, match=r"signature of '(north|south)' does not fit"):
        verify(tmp_path / "ledger.jsonl")


def test_message_of_another_round_cannot_be_counted_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", COORDINATOR)
    ledger.append(START)
    ledger.append(replace(closed(1), crossings=(crossing("north", 0),)))
    with pytest.raises(FederationError, match="message of 'north' is of round 0: it was moved"):
        verify(tmp_path / "ledger.jsonl")
    other = Ledger(tmp_path / "other.jsonl", COORDINATOR)
    other.append(START)
    other.append(replace(closed(1), crossings=(replace(crossing("north", 0), round=1),)))
    with pytest.raises(FederationError, match="signature of 'north' does not fit"):
        verify(tmp_path / "other.jsonl")


def test_late_message_counts_where_the_rule_takes_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", COORDINATOR)
    ledger.append(replace(START, aggregator="fedbuff, fixed"))
    ledger.append(replace(closed(1), crossings=(crossing("north", 0),)))
    assert len(verify(tmp_path / "ledger.jsonl")) == 2
    ledger.append(replace(closed(0), crossings=(crossing("north", 1),)))
    with pytest.raises(FederationError, match="message of 'north' is of round 1: it was moved"):
        verify(tmp_path / "ledger.jsonl")


def test_message_of_a_stranger_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", COORDINATOR)
    ledger.append(START)
    ledger.append(replace(closed(0), crossings=(replace(crossing("north", 0), client="stranger"),)))
    with pytest.raises(FederationError, match="'stranger' is no member"):
        verify(tmp_path / "ledger.jsonl")


def test_nothing_but_the_listed_fields_can_be_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path, COORDINATOR).append(START)
    content = json.loads(path.read_bytes())
    content["body"]["rewards"] = [1.0, 2.0]
    path.write_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(FederationError, match=r"line 1 is not valid .Unexpected keyword argument"):
        list(read(path))


def test_line_that_was_being_written_when_the_machine_stopped_is_dropped(copied: Path) -> None:
    whole = copied.read_bytes()
    for torn in (b'{"body":{"kind":"round_cl', closed_line(whole)):
        copied.write_bytes(whole + torn)
        reopened = Ledger(copied, COORDINATOR)
        assert copied.read_bytes() == whole
    reopened.append(closed(3, "north"))
    assert len(verify(copied)) == 6


def closed_line(whole: bytes) -> bytes:
    return whole.splitlines(keepends=True)[1]


def test_changed_ledger_is_not_continued(copied: Path) -> None:
    whole = copied.read_bytes()
    copied.write_bytes(whole.replace(b"fedavg", b"fedavh"))
    with pytest.raises(FederationError, match="line 2 does not follow"):
        Ledger(copied, COORDINATOR)
    with pytest.raises(FederationError, match="of another coordinator"):
        Ledger(copied, bytes([7] * 32))
    head_file(copied).unlink()
    with pytest.raises(FederationError, match=r"has no head ledger\.jsonl\.head"):
        Ledger(copied, COORDINATOR)


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def test_command_verifies_and_shows(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("ledger", "verify", str(copied), "--key", public_key(COORDINATOR), "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_lines"] == 5
    assert exit_code("ledger", "verify", str(copied)) == 0
    assert "unchanged" in capsys.readouterr().out
    assert exit_code("ledger", "show", str(copied)) == 0
    shown = capsys.readouterr().out
    assert "no update within 5 s" in shown
    assert "fedavg" in shown
    assert "day" in shown.split("Privacy spent")[1]
    assert exit_code("ledger", "show", str(copied), "--json") == 0
    assert json.loads(capsys.readouterr().out)[4]["body"]["reason"] == "all rounds"


def test_command_fails_on_a_change_and_on_a_wrong_action(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied.write_bytes(copied.read_bytes().replace(b"4096", b"4097", 1))
    assert exit_code("ledger", "verify", str(copied)) == 1
    assert "line 2: the signature of 'north' does not fit" in capsys.readouterr().err
    assert exit_code("ledger", "verify", str(copied.with_name("none"))) == 1
    assert exit_code("ledger", "sign", str(copied)) == 2


def test_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "identity.key"
    key = secret_key(file)
    assert secret_key(file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret_key(tmp_path / "other.key") != key
    file.chmod(0o644)
    with pytest.raises(FederationError, match="has mode 644, others may read it"):
        secret_key(file)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(FederationError, match="has 5 bytes, a key has 32"):
        secret_key(file)
