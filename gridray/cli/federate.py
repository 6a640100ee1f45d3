"""`gridray federate`: train one policy on the data of several utilities."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridray.cli.output import print_json, print_table, progress
from gridray.config import load_config
from gridray.federated.config import FederateConfig
from gridray.federated.federate import FederationResult, federate

if TYPE_CHECKING:
    from gridray.cli.output import Advance
    from gridray.federated.coordinator import RoundRecord


def command(
    config: Annotated[Path, typer.Argument(help="YAML file of the federation, such as examples/federate.yaml.")],
    out: Annotated[Path, typer.Option(help="Directory for policy, history and the state of the rounds.")] = Path(
        "runs/federate"
    ),
    rounds: Annotated[int | None, typer.Option(help="Rounds in all, instead of those in the file.", min=1)] = None,
    *,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Run all members in this process; equal results.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train one policy on the datasets of several utilities; the data stays where it is.

    A run that was stopped goes on from its last round when it is started again with the same --out.

    Example: gridray federate examples/federate.yaml --out runs/federate --rounds 20
    """
    settings = load_config(FederateConfig, config)
    if rounds is not None:
        settings = replace(settings, rounds=rounds)
    with progress(f"Federating {len(settings.clients)} utilities", settings.rounds) as advance:
        result = federate(settings, out, lambda record: _advance(advance, record), use_ray=not no_ray)
    if as_json:
        history = [asdict(record) for record in result.history]
        print_json({"bundle": result.bundle, "history": history, "evaluation": result.evaluation})
    else:
        _print(result)


def _advance(advance: Advance, record: RoundRecord) -> None:
    """Show the round, who was in it and, where the weights were evaluated, the mean return."""
    returns = [metrics["returns"] for metrics in record.evaluation.values() if "returns" in metrics]
    judged = f", mean return {sum(returns) / len(returns):.4g}" if returns else ""
    missing = f", absent: {', '.join(record.absent)}" if record.absent else ""
    advance(1, f"round {record.round}: {len(record.num_samples)} utilities{judged}{missing}")


def _print(result: FederationResult) -> None:
    names = sorted({name for record in result.history for means in record.metrics.values() for name in means})
    names += sorted({name for record in result.history for name in record.report})
    rows = [
        [record.round, len(record.num_samples), *_means(record, names), _notes(record)] for record in result.history
    ]
    print_table("Rounds (means over clients)", ["round", "clients", *names, "absent"], rows)
    if result.evaluation:
        measured = sorted({name for metrics in result.evaluation.values() for name in metrics})
        rows = [
            [client, *(metrics.get(name, "-") for name in measured)] for client, metrics in result.evaluation.items()
        ]
        print_table("Final policy on each utility's held-out days (means)", ["utility", *measured], rows)
    print_table("Result", ["policy", "weights sha256"], [[result.bundle, result.history[-1].weights_sha256]])


def _means(record: RoundRecord, names: list[str]) -> list[object]:
    """Return each metric's mean over the clients that sent it, counted by their samples; what rules report as it is."""
    means: list[object] = []
    for name in names:
        senders = {client: sent[name] for client, sent in record.metrics.items() if name in sent}
        total = sum(record.num_samples[client] for client in senders)
        if senders:
            means.append(sum(record.num_samples[client] * value for client, value in senders.items()) / total)
        else:
            means.append(record.report.get(name, "-"))
    return means


def _notes(record: RoundRecord) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in record.absent.items())
