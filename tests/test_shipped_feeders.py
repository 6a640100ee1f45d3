"""The feeders that come with the package, solved by OpenDSS itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dss import DSS

import gridray
from gridray.feeders.library import feeder_names, load_feeder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridray.feeders.components import Matrix
    from gridray.feeders.feeder import Feeder


def _at(bus: str, nodes: tuple[int, ...]) -> str:
    return ".".join([bus, *(str(node) for node in nodes)])


def _rows(matrix: Matrix) -> str:
    return "(" + " | ".join(" ".join(f"{value:.17g}" for value in row) for row in matrix) + ")"


def _script(feeder: Feeder) -> Iterator[str]:
    """Write a feeder's parts as OpenDSS commands."""
    source = feeder.source
    yield "clear"
    yield f"set defaultbasefrequency={feeder.frequency_hz}"
    yield (
        f"new circuit.c bus1={source.bus} basekv={source.kv} pu={source.pu} angle={source.angle_deg} "
        f"z1=({source.r1_ohm!r} {source.x1_ohm!r}) z0=({source.r0_ohm!r} {source.x0_ohm!r})"
    )
    for code in feeder.line_codes:
        yield (
            f"new linecode.{code.name} nphases={len(code.r_ohm_per_km)} units=km rmatrix={_rows(code.r_ohm_per_km)} "
            f"xmatrix={_rows(code.x_ohm_per_km)} cmatrix={_rows(code.c_nf_per_km)}"
        )
    for line in feeder.lines:
        yield (
            f"new line.{line.name} phases={len(line.phases)} bus1={_at(line.from_bus, line.phases)} "
            f"bus2={_at(line.to_bus, line.phases)} linecode={line.line_code} length={line.length_km!r} units=km"
        )
        if line.is_open:
            yield f"open line.{line.name} 1"
    for t in feeder.transformers:
        yield (
            f"new transformer.{t.name} phases={len(t.windings[0].phases)} windings=2 xhl={t.xhl_percent} "
            f"ppm_antifloat={t.antifloat_ppm}"
        )
        for number, w in enumerate(t.windings, 1):
            yield (
                f"~ wdg={number} bus={_at(w.bus, w.phases)} conn={w.connection} kv={w.kv} kva={w.kva} %r={w.r_percent} "
                f"tap={w.tap!r}"
            )
    for c in feeder.capacitors:
        yield (
            f"new capacitor.{c.name} phases={len(c.phases)} bus1={_at(c.bus, c.phases)} conn={c.connection} kv={c.kv} "
            f"kvar={c.kvar} states={int(c.is_closed)}"
        )
    for load in feeder.loads:
        phases = 1 if load.connection == "delta" and len(load.phases) == 2 else len(load.phases)
        yield (
            f"new load.{load.name} phases={phases} bus1={_at(load.bus, load.phases)} conn={load.connection} "
            f"model={load.model} kv={load.kv} kw={load.kw} kvar={load.kvar} vminpu={load.vmin_pu} vmaxpu={load.vmax_pu}"
        )
    yield f"set voltagebases={list(feeder.base_kv)}"
    yield "calcvoltagebases"
    yield "set controlmode=off tolerance=1e-10 maxiterations=500"
    yield "solve"


@pytest.mark.parametrize("name", feeder_names())
def test_opendss_solves_the_shipped_feeder_alike(name: str) -> None:
    feeder = load_feeder(name)
    for command in _script(feeder):
        DSS.Text.Command = command
    circuit = DSS.ActiveCircuit
    assert circuit.Solution.Converged
    pairs = np.reshape(circuit.AllBusVolts, (-1, 2))
    theirs = dict(zip(circuit.AllNodeNames, pairs[:, 0] + 1j * pairs[:, 1], strict=True))
    grid = gridray.compile_feeder(feeder)
    result = gridray.solve(grid, tolerance=1e-9)
    assert result.converged.all()
    # Node 610 of ieee123 floats: line to line.
    compared = [n for n in grid.node_names if not n.startswith("610.")]
    assert set(theirs) == set(grid.node_names)
    ours = dict(zip(grid.node_names, result.voltage[0], strict=True))
    base_v = dict(zip(grid.node_names, grid.node_base_v, strict=True))
    worst = max(abs(ours[n] - theirs[n]) / base_v[n] for n in compared)
    assert worst < 1e-6, f"{worst:.2e} pu"
    assert result.losses_kva[0].real == pytest.approx(circuit.Losses[0] / 1e3, rel=1e-5)
