"""`gridray ledger`: show what a federation did, and check that nobody changed it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gridray.cli.output import print_json, print_table
from gridray.federated.ledger import Entry, RoundClosed, RunStarted, read_head, verify
from gridray.federated.ledger import head_file as head_beside


def command(
    action: Annotated[
        Literal["verify", "show"], typer.Argument(help="verify: find any change; show: verify, then print the lines.")
    ],
    path: Annotated[Path, typer.Argument(help="Ledger, such as runs/federate/ledger.jsonl.")],
    head: Annotated[
        Path | None, typer.Option(help="Head that was kept elsewhere; finds lines removed together with their head.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Coordinator's public key, in hexadecimal, as it was agreed.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Check a federation's ledger, and print it: who took part, what crossed, what privacy was spent.

    Example: gridray ledger verify runs/federate/ledger.jsonl --head kept/ledger.jsonl.head
    """
    entries = verify(path, head=head, key=key)
    found = read_head(head_beside(path))
    if action == "verify" and as_json:
        print_json({"num_lines": found.num_lines, "last": found.last, "coordinator": found.key, "is_unchanged": True})
    elif action == "verify":
        rows = [[found.num_lines, found.last, found.key]]
        print_table("Ledger is unchanged", ["lines", "last hash", "coordinator"], rows)
    else:
        _show(entries, as_json=as_json)


def _show(entries: tuple[Entry, ...], *, as_json: bool) -> None:
    from pydantic import TypeAdapter  # noqa: PLC0415

    if as_json:
        print_json(TypeAdapter(tuple[Entry, ...]).dump_python(entries, mode="json"))
        return
    bodies = [entry.body for entry in entries]
    for body in bodies:
        if isinstance(body, RunStarted):
            print_table(
                "Run",
                ["run", "aggregator", "protection", "members"],
                [[body.run, body.aggregator, body.protection, ", ".join(body.members)]],
            )
    rounds = [body for body in bodies if isinstance(body, RoundClosed)]
    rows = [
        [body.round, crossing.client, crossing.message, crossing.num_bytes, _norm(crossing.norm)]
        for body in rounds
        for crossing in body.crossings
    ]
    print_table("What crossed", ["round", "client", "message", "bytes", "norm"], rows)
    if absent := [[body.round, name, reason] for body in rounds for name, reason in body.absent.items()]:
        print_table("Left out", ["round", "client", "why"], absent)
    if rounds and rounds[-1].privacy:
        spent = [[part.scope, part.unit, part.epsilon, part.budget_epsilon, part.delta] for part in rounds[-1].privacy]
        print_table("Privacy spent", ["whose", "unit", "epsilon", "budget", "delta"], spent)


def _norm(norm: float | None) -> str:
    return "masked" if norm is None else f"{norm:.6g}"
