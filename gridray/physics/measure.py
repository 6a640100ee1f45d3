"""Quantities read off a solved state."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.loads import items_power
from gridray.physics.powerflow import KW_PER_PU

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.powerflow import GridState


class PowerBalance(NamedTuple):
    """Complex powers of E environments, kW + j kvar, complex128 [E].

    source: into the feeder; items: drawn by loads and generators; losses: in lines and transformers.
    """

    source: NDArray[np.complex128]
    items: NDArray[np.complex128]
    losses: NDArray[np.complex128]


def voltages(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    """Return node voltages, pu, complex128 [num_nodes, E], in the order of node_names."""
    v = state.v[grid.place]
    result: NDArray[np.complex128] = v[:, 0] + 1j * v[:, 1]
    return result


def source_power(grid: CompiledFeeder, v: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return the power that the source feeds in, kW + j kvar, [E]; v from `voltages`."""
    terminal = v[grid.source_node]
    current = (grid.source_y[:, :, None] * (grid.source_e[:, None] - terminal)).sum(axis=1)
    result: NDArray[np.complex128] = (terminal * current.conj()).sum(axis=0) * KW_PER_PU
    return result


def power_balance(grid: CompiledFeeder, state: GridState) -> PowerBalance:
    """Return source, load and loss power; the losses are what does not arrive, capacitors' kvar counted as supply."""
    v = voltages(grid, state)
    source = source_power(grid, v)
    active, reactive = items_power(grid.network, state.items_kw / KW_PER_PU, state.items_kvar / KW_PER_PU, state.v)
    items = ((active + 1j * reactive) * KW_PER_PU).astype(np.complex128)
    term = grid.capacitor_term
    net = grid.network
    entry = net.term_entry[term]
    place_v = np.empty_like(v)
    place_v[grid.place] = v
    factor = state.capacitor_states[net.term_control[term] - len(grid.tap_names)]
    y = (net.term_g[term] + 1j * net.term_b[term])[:, None] * factor
    current = y * place_v[net.y_column[entry]]
    capacitors = (place_v[net.y_row[entry]] * current.conj()).sum(axis=0) * KW_PER_PU
    return PowerBalance(source, items, source - items - capacitors)


def control_voltages(grid: CompiledFeeder, state: GridState, v: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return what each regulator's control sees, V on the 120 V base, line drop compensated, [num_taps, E].

    |V/PT - (R + jX) I/CT| with I the current towards the load (Kersting, Distribution System Modeling, ch. 7).
    """
    sensing = grid.sensing
    u = 1.0 / state.taps
    factor = u[:, None, :] ** sensing.exponent[:, :, None]
    into = ((sensing.y[:, :, None] * factor + sensing.y_fixed[:, :, None]) * v[sensing.conductor]).sum(axis=1)
    drop = -into * sensing.amps_per_pu[:, None] * sensing.drop[:, None]
    result: NDArray[np.float64] = np.abs(v[sensing.node] * sensing.volts_per_pu[:, None] - drop)
    return result
