"""`gridray federate`: train one policy on the data of several utilities."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridray.cli.output import print_json, print_table, progress
from gridray.config import load_config
from gridray.federated.client import FEDERATED
from gridray.federated.comparison import compare as compare_methods
from gridray.federated.config import FederateConfig
from gridray.federated.federate import FederationResult, federate

if TYPE_CHECKING:
    from gridray.cli.output import Advance
    from gridray.federated.comparison import Comparison
    from gridray.federated.coordinator import RoundRecord


def command(
    config: Annotated[Path, typer.Argument(help="YAML file of the federation, such as examples/federate.yaml.")],
    out: Annotated[Path, typer.Option(help="Directory for policy, history and the state of the rounds.")] = Path(
        "runs/federate"
    ),
    rounds: Annotated[int | None, typer.Option(help="Rounds in all, instead of those in the file.", min=1)] = None,
    *,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare with utility controls, training alone and plain averaging.")
    ] = False,
    pooled: Annotated[
        bool, typer.Option("--pooled", help="With --compare: train on all data together too; it must be readable here.")
    ] = False,
    days: Annotated[int, typer.Option(help="With --compare: held-out days of each utility.", min=2)] = 24,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Run all members in this process; equal results.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train one policy on the datasets of several utilities; the data stays where it is.

    A run that was stopped goes on from its last round when it is started again with the same --out.

    Example: gridray federate examples/federate.yaml --out runs/federate --rounds 20 --compare
    """
    if pooled and not compare:
        raise typer.BadParameter("it is a part of --compare: give that too", param_hint="'--pooled'")
    settings = load_config(FederateConfig, config)
    if rounds is not None:
        settings = replace(settings, rounds=rounds)
    comparison = None
    # Plain averaging is a second federation.
    with progress(f"Federating {len(settings.clients)} utilities", settings.rounds * (1 + compare)) as advance:
        options: dict[str, Any] = {"on_progress": lambda record: _advance(advance, record), "use_ray": not no_ray}
        if compare:
            comparison = compare_methods(settings, out, num_days=days, is_pooled=pooled, **options)
            result = comparison.federation
        else:
            result = federate(settings, out, **options)
    if as_json:
        report = {"bundle": result.bundle, "history": [asdict(record) for record in result.history]}
        report |= {"evaluation": result.evaluation, "ended": result.ended}
        report["privacy"] = [asdict(part) for part in result.privacy]
        print_json(report if comparison is None else report | {"comparison": comparison.metrics})
    else:
        _print(result)
        if comparison is not None:
            _print_comparison(comparison)


def _print_comparison(comparison: Comparison) -> None:
    """Print the methods' mean returns, and whether sharing helps each utility."""
    means = comparison.means("returns")
    clients = [*comparison.metrics, "all"]
    rows = [[method, *(row.get(client, "-") for client in clients)] for method, row in means.items()]
    print_table("Mean return on held-out days", ["method", *clients], rows)
    helped = []
    for client, (gain, low, high) in comparison.gains(FEDERATED).items():
        answer = "yes" if low > 0.0 else "no" if high < 0.0 else "not clear"
        helped.append([client, answer, gain, low, high])
    print_table("Does sharing help? (return more than alone)", ["utility", "answer", "gain", "low", "high"], helped)


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
    if result.privacy:
        spent = [[part.scope, part.unit, part.epsilon, part.delta, part.budget_epsilon] for part in result.privacy]
        print_table("Privacy spent", ["whose", "unit", "epsilon", "delta", "budget"], spent)
    last = result.history[-1].weights_sha256
    print_table("Result", ["policy", "weights sha256", "ended"], [[result.bundle, last, result.ended]])


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
