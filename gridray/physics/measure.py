"""Quantities read off a solved state."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.physics.buffers import aligned_empty
from gridray.physics.compiled import KW_PER_PU, CompiledFeeder
from gridray.physics.loads import branch_currents, drawn_powers, relative_admittance
from gridray.physics.state import STATUSES, GridState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Network
    from gridray.physics.sensing import Sensing


class PowerBalance(NamedTuple):
    """Complex powers of E environments, kW + j kvar, complex128 [E].

    source: into the feeder; items: drawn by loads and generators; losses: in lines, transformers and series reactors.
    """

    source: NDArray[np.complex128]
    items: NDArray[np.complex128]
    losses: NDArray[np.complex128]


@dataclass(frozen=True)
class PowerFlow:
    """A solved power flow of E environments; what is not asked for is not computed."""

    grid: CompiledFeeder
    state: GridState

    @cached_property
    def voltage(self) -> NDArray[np.complex128]:
        """Node voltages, V, complex128 [E, num_nodes], in the order of grid.node_names."""
        volts = np.empty((len(self.converged), self.grid.num_nodes), dtype=np.complex128)
        _read_volts(self.state.v, self.grid.place, self.grid.node_base_v, volts)
        return volts

    @cached_property
    def vmag_pu(self) -> NDArray[np.float64]:
        """Voltage magnitudes over the nodes' line-to-neutral bases, float64 [E, num_nodes]."""
        magnitude = np.empty((len(self.converged), self.grid.num_nodes))
        _read_magnitudes(self.state.v, self.grid.place, magnitude)
        return magnitude

    @property
    def source_kva(self) -> NDArray[np.complex128]:
        """Power that the source feeds in, kW + j kvar, complex128 [E]."""
        return self._balance.source

    @property
    def losses_kva(self) -> NDArray[np.complex128]:
        """Losses in lines, transformers and series reactors, kW + j kvar, complex128 [E].

        As OpenDSS's: what shunt capacitors and reactors take counts as drawn.
        """
        return self._balance.losses

    @property
    def taps(self) -> NDArray[np.float64]:
        """Tap of every regulated transformer, pu, float64 [E, num_taps], in the order of grid.tap_names."""
        return self.state.taps.T

    @property
    def capacitor_states(self) -> NDArray[np.float64]:
        """1 closed, 0 open, float64 [E, num_capacitors], in the order of grid.capacitor_names."""
        return self.state.capacitor_states.T

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Whether each environment is solved, bool [E]."""
        return self.state.converged

    @property
    def iterations(self) -> NDArray[np.int64]:
        """Iterations of each environment, int64 [E]."""
        return self.state.iterations

    @property
    def status(self) -> NDArray[np.str_]:
        """One of state.STATUSES for each environment, str [E]."""
        return np.array(STATUSES)[self.state.status]

    @cached_property
    def _balance(self) -> PowerBalance:
        return power_balance(self.grid, self.state)


def node_voltages(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    """Return node voltages, pu, complex128 [num_nodes, E], in the order of node_names."""
    return voltages_at(grid, state, np.arange(grid.num_nodes))


def voltages_at(grid: CompiledFeeder, state: GridState, nodes: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Return the voltages of nodes by their number in node_names, pu, complex128 [*nodes.shape, E]."""
    places = grid.place[nodes]
    v = np.empty((places.size, state.v.shape[2]), dtype=np.complex128)
    _read_nodes(state.v, places.ravel(), v)
    return v.reshape(*places.shape, state.v.shape[2])


def voltage_magnitudes(grid: CompiledFeeder, state: GridState) -> NDArray[np.float64]:
    """Return the magnitudes of node voltages, pu, float64 [num_nodes, E], in the order of node_names."""
    magnitude = aligned_empty((grid.num_nodes, state.v.shape[2]))
    _read_node_magnitudes(state.v, grid.place, magnitude)
    return magnitude


def generators_kw(grid: CompiledFeeder, state: GridState) -> NDArray[np.float64]:
    """Return the power that each generator draws at the solved voltages, negative where it feeds in, kW, [., E]."""
    first = len(grid.load_names)
    kw = np.zeros((len(state.items_kw) - first, state.v.shape[2]))
    _generate(grid.network, state.items_kw[first:], first, state.v, kw)
    return kw


def source_power(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    """Return the power that the source feeds in, kW + j kvar, complex128 [E]."""
    terminal = voltages_at(grid, state, grid.source_node)
    current = (grid.source_y[:, :, None] * (grid.source_e[:, None] * state.source_pu - terminal)).sum(axis=1)
    result: NDArray[np.complex128] = (terminal * current.conj()).sum(axis=0) * KW_PER_PU
    return result


def branch_powers(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    """Return the power drawn by every load branch, kW + j kvar, complex128 [B, E]."""
    net, v = grid.network, state.v[:, 0] + 1j * state.v[:, 1]
    across = v[net.branch_from] - np.where(net.branch_to[:, None] >= 0, v[net.branch_to], 0.0)
    power: NDArray[np.complex128] = across * _currents(grid, state).conj() * KW_PER_PU
    return power


def power_balance(grid: CompiledFeeder, state: GridState) -> PowerBalance:
    """Return source, load and loss power; the losses are what does not arrive, shunts counted as loads."""
    source = source_power(grid, state)
    capacitors_kvar = -grid.capacitor_kvar[:, None] * state.capacitor_states
    items, capacitors = drawn_powers(grid.network, (state.items_kw, state.items_kvar), capacitors_kvar, state.v)
    return PowerBalance(source, items, source - (items + capacitors + _shunt_power(grid, state)))


def _shunt_power(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    """Return the power drawn by shunt reactors, kW + j kvar, complex128 [E]."""
    if not len(grid.shunt_row):
        return np.zeros(state.v.shape[2], dtype=np.complex128)
    v_row, v_column = (state.v[place, 0] + 1j * state.v[place, 1] for place in (grid.shunt_row, grid.shunt_column))
    power: NDArray[np.complex128] = (v_row * (grid.shunt_y[:, None] * v_column).conj()).sum(axis=0) * KW_PER_PU
    return power


def _currents(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    capacitors = -grid.capacitor_kvar[:, None] * state.capacitor_states
    p = np.concatenate((state.items_kw, np.zeros_like(capacitors))) / KW_PER_PU
    q = np.concatenate((state.items_kvar, capacitors)) / KW_PER_PU
    return branch_currents(grid.network, p, q, state.v)


def control_voltages(grid: CompiledFeeder, state: GridState) -> NDArray[np.float64]:
    """Return what each regulator's control sees, V on the 120 V base, line drop compensated, [num_taps, E].

    |V/PT - (R + jX) I/CT| with I the current towards the load (Kersting, Distribution System Modeling, ch. 7).
    """
    seen = np.empty((len(grid.sensing.node), state.v.shape[2]))
    _control_voltages(grid.sensing, grid.place, state.taps, state.v, seen)
    return seen


BLOCK = 16
"""Environments read at once, so that what is written to stays in cache."""


@njit(cache=True, nogil=True, error_model="numpy")
def _read_volts(
    v: NDArray[np.float64], place: NDArray[np.int64], base_v: NDArray[np.float64], volts: NDArray[np.complex128]
) -> None:
    """Write voltages [N, 2, E] into rows of environments, V, [E, N]."""
    for first in range(0, v.shape[2], BLOCK):
        for k in range(place.size):
            row, base = place[k], base_v[k]
            for e in range(first, min(first + BLOCK, v.shape[2])):
                volts[e, k] = complex(v[row, 0, e] * base, v[row, 1, e] * base)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _read_magnitudes(v: NDArray[np.float64], place: NDArray[np.int64], magnitude: NDArray[np.float64]) -> None:
    """Write magnitudes of voltages [N, 2, E] into rows of environments, pu, [E, N]."""
    for first in range(0, v.shape[2], BLOCK):
        for k in range(place.size):
            row = place[k]
            for e in range(first, min(first + BLOCK, v.shape[2])):
                re, im = v[row, 0, e], v[row, 1, e]
                magnitude[e, k] = np.sqrt(re * re + im * im)


@njit(cache=True, nogil=True, error_model="numpy")
def _read_nodes(solved: NDArray[np.float64], place: NDArray[np.int64], v: NDArray[np.complex128]) -> None:
    """Write voltages [num_nodes, E] from the solver's [num_nodes, 2, E]."""
    for node in range(len(place)):
        row = place[node]
        for env in range(solved.shape[2]):
            v[node, env] = complex(solved[row, 0, env], solved[row, 1, env])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _read_node_magnitudes(
    solved: NDArray[np.float64], place: NDArray[np.int64], magnitude: NDArray[np.float64]
) -> None:
    """Write magnitudes [num_nodes, E] of the solver's voltages [num_nodes, 2, E]."""
    for node in range(len(place)):
        row = place[node]
        for env in range(solved.shape[2]):
            re, im = solved[row, 0, env], solved[row, 1, env]
            magnitude[node, env] = np.sqrt(re * re + im * im)


@njit(cache=True, nogil=True, error_model="numpy")
def _control_voltages(
    sensing: Sensing,
    place: NDArray[np.int64],
    taps: NDArray[np.float64],
    v: NDArray[np.float64],
    seen: NDArray[np.float64],
) -> None:
    for r in range(len(sensing.node)):
        near, far = place[sensing.node[r]], sensing.node_to[r]
        for env in range(v.shape[2]):
            u = 1.0 / taps[r, env]
            into = 0.0j
            for w in range(sensing.conductor.shape[1]):
                k = place[sensing.conductor[r, w]]
                y = sensing.y[r, 0, w] + u * (sensing.y[r, 1, w] + u * sensing.y[r, 2, w])
                into += y * complex(v[k, 0, env], v[k, 1, env])
            across = complex(v[near, 0, env], v[near, 1, env]) * sensing.volts_per_pu[r]
            if far >= 0:
                across -= complex(v[place[far], 0, env], v[place[far], 1, env]) * sensing.volts_per_pu_to[r]
            across += into * sensing.amps_per_pu[r] * sensing.drop[r]
            seen[r, env] = np.sqrt(across.real * across.real + across.imag * across.imag)


@njit(cache=True, nogil=True, error_model="numpy")
def _generate(
    net: Network,
    p: NDArray[np.float64],
    first: int,
    v: NDArray[np.float64],
    kw: NDArray[np.float64],
) -> None:
    """Add up the powers of the branches of items first..first + len(p) - 1, [num_generators, E]."""
    for m in range(net.branch_from.size):
        row = net.branch_item[m] - first
        if row < 0 or row >= len(p):
            continue
        near, far, curve = net.branch_from[m], net.branch_to[m], net.branch_curve[m]
        for env in range(kw.shape[1]):
            re, im = v[near, 0, env], v[near, 1, env]
            if far >= 0:
                re -= v[far, 0, env]
                im -= v[far, 1, env]
            square = (re * re + im * im) * curve[0]
            kw[row, env] += (
                p[row, env] * net.branch_share[m] * relative_admittance(curve, 5, np.sqrt(square))[0] * square
            )
