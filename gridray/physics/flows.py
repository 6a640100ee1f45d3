"""Currents through rated lines and transformers, over their ratings, for all environments at once."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.physics.admittance import primitive_admittances
from gridray.physics.lanes import LANE, empty_lanes, fill, get, lane_of, less_product, plus_product, square_root, store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.feeders.components import Transformer
    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState

SQRT3 = 3.0**0.5


class Flows(NamedTuple):
    """Conductors whose currents are watched; M elements, K conductors, T terms.

    element: int64 [K], element of each conductor, in order; base_a: float64 [M], current that counts as 1.
    start: int64 [K + 1], terms of each conductor; place: int64 [T], node, elimination order.
    g, b: float64 [T], admittance over base_a; exponent: int64 [T], power of the control that scales it, 0 if none;
    control: int64 [T], number of the control, taps first, then switches.
    """

    element: NDArray[np.int64]
    base_a: NDArray[np.float64]
    start: NDArray[np.int64]
    place: NDArray[np.int64]
    g: NDArray[np.float64]
    b: NDArray[np.float64]
    exponent: NDArray[np.int64]
    control: NDArray[np.int64]


def element_ratings(feeder: Feeder) -> dict[str, float]:
    """Return the current ratings of lines that have one and of all transformers' first windings, A.

    A transformer's is kVA / (sqrt(3) kV) for three phases and kVA / kV for one.
    """
    ratings = {f"line.{line.name}": line.rating_a for line in feeder.lines if line.rating_a is not None}
    return ratings | {f"transformer.{t.name}": _transformer_rating(t) for t in feeder.transformers}


def flows(feeder: Feeder, grid: CompiledFeeder, bases_a: Mapping[str, float]) -> Flows:
    """Return what `loadings` reads, for the elements that `bases_a` names ("line.l1"), in its order.

    Of an element with phases a current into its first end is watched; `grid` is compiled from `feeder`. An element
    that is open for good has none and is left out.
    """
    primitives = {primitive.name: primitive for primitive in primitive_admittances(feeder)}
    ends = {f"line.{line.name}": (line.from_bus, len(line.phases)) for line in feeder.lines}
    ends |= {f"transformer.{t.name}": (t.windings[0].bus, len(t.windings[0].phases)) for t in feeder.transformers}
    row = {name: n for n, name in enumerate(grid.node_names)}
    names = [f"transformer.{name}" for name in grid.tap_names] + list(_switch_controls(grid))
    control = {name: number for number, name in enumerate(names)}
    element, start = [], [0]
    terms: list[tuple[int, complex, int, int]] = []
    for number, (name, base_a) in enumerate(bases_a.items()):
        if name not in primitives:
            continue
        primitive, (bus, num_phases) = primitives[name], ends[name]
        nodes = np.array([row[f"{b}.{n}"] for b, n in primitive.nodes])
        watched = [k for k, node in enumerate(primitive.nodes) if node[0] == bus][:num_phases]
        for k in watched:
            for exponent in range(3):
                for column in np.flatnonzero(primitive.y_siemens[exponent, k]):
                    y = primitive.y_siemens[exponent, k, column] * grid.node_base_v[nodes[column]] / base_a
                    terms.append((int(grid.place[nodes[column]]), complex(y), exponent, control.get(name, 0)))
            element.append(number)
            start.append(len(terms))
    place, y_over_base, exponents, controls = zip(*terms, strict=True) if terms else ((), (), (), ())
    y_array = np.array(y_over_base, dtype=np.complex128)
    return Flows(
        element=np.array(element, dtype=np.int64),
        base_a=np.array(list(bases_a.values()), dtype=np.float64),
        start=np.array(start, dtype=np.int64),
        place=np.array(place, dtype=np.int64),
        g=y_array.real.copy(),
        b=y_array.imag.copy(),
        exponent=np.array(exponents, dtype=np.int64),
        control=np.array(controls, dtype=np.int64),
    )


def loadings(watched: Flows, state: GridState) -> NDArray[np.float64]:
    """Return the highest conductor current of each element over its base, float64 [M, E], of a solved state."""
    controls = np.concatenate((1.0 / state.taps, state.switch_closed))
    result = np.zeros((len(watched.base_a), state.v.shape[2]))
    _loadings(watched, controls, state.v, result)
    return result


def _switch_controls(grid: CompiledFeeder) -> tuple[str, ...]:
    return tuple(f"line.{name}" for name in grid.switch_names)


def _transformer_rating(transformer: Transformer) -> float:
    winding = transformer.windings[0]
    return winding.kva / winding.kv / (SQRT3 if len(winding.phases) > 2 else 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _loadings(watched: Flows, u: NDArray[np.float64], v: NDArray[np.float64], result: NDArray[np.float64]) -> None:
    """I = sum of u^exponent y V over the conductor's terms; the largest |I| of an element counts."""
    lane = empty_lanes(1)
    for first in range(0, v.shape[2], LANE):
        width = min(LANE, v.shape[2] - first)
        for k in range(watched.element.size):
            re, im = fill(0.0), fill(0.0)
            for term in range(watched.start[k], watched.start[k + 1]):
                place, exponent = get(watched.place, term), get(watched.exponent, term)
                g, b = get(watched.g, term), get(watched.b, term)
                vr, vi = lane_of(v[place, 0], first), lane_of(v[place, 1], first)
                if exponent > 0:
                    scale = lane_of(u[get(watched.control, term)], first)
                    if exponent == 2:
                        scale = scale * scale
                    vr, vi = vr * scale, vi * scale
                re = less_product(plus_product(re, g, vr), b, vi)
                im = plus_product(plus_product(im, g, vi), b, vr)
            store(lane, 0, square_root(plus_product(re * re, im, im)))
            element = watched.element[k]
            for e in range(width):
                result[element, first + e] = max(result[element, first + e], lane[0, e])
