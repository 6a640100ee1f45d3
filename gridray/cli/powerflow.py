"""`gridray powerflow`: solve a feeder once and show what comes out."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import numpy as np
import typer

from gridray.cli.output import print_json, print_table
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import CompiledFeeder, compile_feeder
from gridray.physics.measure import node_voltages, power_balance
from gridray.physics.powerflow import solve
from gridray.physics.state import STATUSES, GridState


class Controls(StrEnum):
    """What the regulators do."""

    FREE = "free"
    FROZEN = "frozen"


def command(
    feeder: Annotated[
        str,
        typer.Argument(
            help="Feeder name (ieee13, ieee34, ieee123, synthetic-1000-7) or path of a .dss, .json or .yaml file."
        ),
    ],
    controls: Annotated[
        Controls, typer.Option(help="free: regulator controls act until they rest; frozen: taps as in the file.")
    ] = Controls.FROZEN,
    load_scale: Annotated[float, typer.Option(help="Multiply all loads.", min=0.0)] = 1.0,
    tolerance: Annotated[float, typer.Option(help="Largest last correction of a voltage, pu.", min=1e-12)] = 1e-8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,  # noqa: FBT002
) -> None:
    """Solve the three-phase power flow of a feeder.

    Example: gridray powerflow ieee123 --controls free
    """
    grid = compile_feeder(load_feeder(feeder))
    kw, kvar = grid.load_kw * load_scale, grid.load_kvar * load_scale
    state = solve(grid, load_kw=kw, load_kvar=kvar, controls=controls.value, tolerance=tolerance).state
    result = describe(grid, state)
    if as_json:
        print_json(result)
    else:
        _print(feeder, result)
    if not result["converged"]:
        raise typer.Exit(1)


def describe(grid: CompiledFeeder, state: GridState) -> dict[str, Any]:
    """Return the solution of environment 0 as plain values; voltages v_re, v_im in V."""
    v = node_voltages(grid, state)[:, 0]
    balance = power_balance(grid, state)
    volts = v * grid.node_base_v
    return {
        "converged": bool(state.converged[0]),
        "status": STATUSES[state.status[0]],
        "iterations": int(state.iterations[0]),
        "source_kw": float(balance.source[0].real),
        "source_kvar": float(balance.source[0].imag),
        "losses_kw": float(balance.losses[0].real),
        "losses_kvar": float(balance.losses[0].imag),
        "taps": {name: float(tap) for name, tap in zip(grid.tap_names, state.taps[:, 0], strict=True)},
        "capacitors": {
            name: int(closed) for name, closed in zip(grid.capacitor_names, state.capacitor_states[:, 0], strict=True)
        },
        "nodes": {
            name: {
                "vmag_pu": float(abs(v[i])),
                "angle_deg": float(np.degrees(np.angle(v[i]))),
                "v_re": float(volts[i].real),
                "v_im": float(volts[i].imag),
            }
            for i, name in enumerate(grid.node_names)
        },
    }


def _print(feeder: str, result: dict[str, Any]) -> None:
    rows = [
        [name, f"{node['vmag_pu']:.5f}", f"{node['angle_deg']:.3f}", f"{np.hypot(node['v_re'], node['v_im']):.2f}"]
        for name, node in result["nodes"].items()
    ]
    print_table(f"Node voltages of {feeder}", ["node", "pu", "degrees", "V"], rows)
    taps = [[name, f"{tap:.5f}", f"{(tap - 1.0) / 0.00625:+.0f}"] for name, tap in result["taps"].items()]
    print_table("Regulators", ["regulator", "tap pu", "step"], taps)
    power = [
        ["source", f"{result['source_kw']:.3f}", f"{result['source_kvar']:.3f}"],
        ["losses", f"{result['losses_kw']:.3f}", f"{result['losses_kvar']:.3f}"],
    ]
    word = "" if result["converged"] else "did NOT converge: "
    print_table(f"Power ({word}{result['status']}, {result['iterations']} iterations)", ["", "kW", "kvar"], power)
