"""Active network management with perfect foresight of weather and load: a day as a linear programme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.devices.heat_pump import step_house
from gridray.policies.optimal.network import Weights, best_network_day
from gridray.policies.optimal.sensitivities import Controls
from gridray.tasks.fleets.batteries import EFFICIENCY, FIRST_SOC
from gridray.tasks.fleets.heat_pumps import GAIN_KW, HIGH_C, HOUSE_KW, LOW_C, SET_POINT_C
from gridray.tasks.fleets.inverters import REACTIVE_SHARE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.policies.optimal.network import Followed
    from gridray.policies.optimal.programme import BestDay, Programme
    from gridray.tasks.curtailment import Curtailment

    Series = NDArray[np.float64]


def best_curtailment_day(task: Curtailment, number: int, seed: int = 0) -> BestDay:  # noqa: ARG001  # nothing is drawn
    """Return bound and plan of a day; see `best_network_day`.

    Relaxed: an inverter's kVA circle is left out, and its reactive power is free even where it sets it by itself; what
    customers owe comes back when it suits; rooms may be cold without all heat pumps running.
    """
    return best_network_day(_CurtailmentModel(task), number)


class _CurtailmentModel:
    """Powers of PV, wind and batteries, load left out and coming back, duty of heat pumps, and what they store."""

    def __init__(self, task: Curtailment) -> None:
        self.task = task
        config = task.config
        self._per_kw = config.energy_weight * 100.0 / task.twin.nominal_kw
        self.weights = Weights(100.0 * config.voltage_weight, 100.0 * config.overload_weight, self._per_kw)
        self._fleets: dict[str, Any] = {fleet.kind: fleet for fleet in task.twin.fleets}
        self._generators = [(kind, name) for kind in ("pv", "wind", "battery") for name in self._fleets[kind].names]
        kva = {generator.name: generator.kva for generator in task.feeder.generators}
        self._most_kvar = REACTIVE_SHARE * np.array([kva[name] for _, name in self._generators])
        self._day: dict[str, Any] = {}
        self._variables: dict[str, NDArray[np.int64]] = {}

    def controls(self, followed: Followed) -> Controls:
        """Take the day's weather and demand, and return the powers: generators' kW, loads' kW, generators' kvar."""
        fleets, step_h = followed.fleets, self.task.twin.step_h

        def series(kind: str, field: str) -> Series:
            return np.stack([getattr(one[kind], field)[:, 0] for one in fleets])

        self._day = {f"{kind}.available": series(kind, "available_kw") for kind in ("pv", "wind")}
        self._day |= {"base_kw": series("flexible_load", "base_kw"), "base_kvar": series("flexible_load", "base_kvar")}
        pumps = self._fleets["heat_pump"].heat_pump
        outdoor = series("heat_pump", "outdoor_c").T
        gain_kw = GAIN_KW * pumps.kw / HOUSE_KW
        at = [np.full_like(outdoor, value) for value in (0.0, 1.0)]
        # Rooms after a step are linear in the temperature before it and in the duty.
        rest = step_house(pumps, at[0], outdoor, gain_kw, at[0], step_h)
        self._day["rooms"] = [
            part.T
            for part in (
                step_house(pumps, at[1], outdoor, gain_kw, at[0], step_h) - rest,
                step_house(pumps, at[0], outdoor, gain_kw, at[1], step_h) - rest,
                rest,
            )
        ]
        grid = self.task.grid
        items = (*grid.load_names, *grid.generator_names)
        loads = (*self._fleets["flexible_load"].names, *self._fleets["heat_pump"].names)
        generators = [name for _, name in self._generators]
        item = np.array([items.index(name) for name in (*generators, *loads, *generators)], dtype=np.int64)
        is_kvar = np.arange(len(item)) >= len(generators) + len(loads)
        tangent = np.zeros((self.task.num_steps, len(item)))
        first = len(self._generators)
        base_kw, base_kvar = self._day["base_kw"], self._day["base_kvar"]
        last = first + base_kw.shape[1]
        tangent[:, first:last] = np.divide(base_kvar, base_kw, out=np.zeros_like(base_kw), where=base_kw > 0.0)
        factor = pumps.power_factor[:, 0]
        tangent[:, last : last + len(factor)] = np.sqrt(1.0 - factor**2) / factor
        return Controls(item, is_kvar, tangent)

    def write(self, programme: Programme) -> tuple[NDArray[np.int64], float]:
        """Add the devices, side by side as the controls are."""
        num_steps, parts = self.task.num_steps, []
        constant = 0.0
        for kind in ("pv", "wind"):
            available = self._day[f"{kind}.available"]
            drawn = programme.variables(available.shape, -available, 0.0, cost=self._per_kw)
            constant += self._per_kw * float(available.sum())
            self._variables[kind] = drawn
            parts.append(drawn)
        parts += [self._batteries(programme), self._flexible(programme), self._heat_pumps(programme)]
        kvar = self._most_kvar
        self._variables["kvar"] = programme.variables((num_steps, len(kvar)), -kvar, kvar)
        return np.concatenate([*parts, self._variables["kvar"]], axis=1), constant

    def set_points(self, x: Series) -> dict[str, Series]:
        """Return the plan by channel; generators' powers are injected."""
        values = {}
        for kind in ("pv", "wind", "battery"):
            for i, name in enumerate(self._fleets[kind].names):
                values[f"{kind}.{name}.kw"] = -x[self._variables[kind][:, i]]
        for i, (kind, name) in enumerate(self._generators):
            values[f"{kind}.{name}.kvar"] = -x[self._variables["kvar"][:, i]]
        for kind, quantity in (("flexible_load", "shed_kw"), ("heat_pump", "set_point_c")):
            for i, name in enumerate(self._fleets[kind].names):
                values[f"{kind}.{name}.{quantity}"] = x[self._variables[kind][:, i]]
        return values

    def _batteries(self, programme: Programme) -> NDArray[np.int64]:
        battery, step_h = self._fleets["battery"].battery, self.task.twin.step_h
        kw, kwh = battery.discharge_kw[:, 0], battery.kwh[:, 0]
        shape = (self.task.num_steps, len(kw))
        drawn = programme.variables(shape, -kw, kw)
        charge, discharge = (programme.variables(shape, 0.0, kw) for _ in range(2))
        programme.rows([(1.0, drawn.ravel()), (-1.0, charge.ravel()), (1.0, discharge.ravel())], 0.0, 0.0)
        soc = programme.variables(shape, 0.0, 1.0)
        flows = [(-EFFICIENCY * step_h / kwh, charge), (step_h / EFFICIENCY / kwh, discharge)]
        _recursion(programme, soc, np.ones(shape), FIRST_SOC, flows)
        self._variables["battery"] = drawn
        return drawn

    def _flexible(self, programme: Programme) -> NDArray[np.int64]:
        load, step_h, base_kw = self._fleets["flexible_load"].load, self.task.twin.step_h, self._day["base_kw"]
        share, rebound, payback_kw, most_kwh = (array[:, 0] for array in load)
        shed = programme.variables(base_kw.shape, 0.0, share * base_kw, cost=self._per_kw)
        back = programme.variables(base_kw.shape, 0.0, payback_kw)
        owed = programme.variables(base_kw.shape, 0.0, most_kwh)
        _recursion(programme, owed, np.ones(base_kw.shape), 0.0, [(-rebound * step_h, shed), (step_h, back)])
        drawn = programme.variables(base_kw.shape, (1.0 - share) * base_kw, base_kw + payback_kw)
        kept = base_kw.ravel()
        programme.rows([(1.0, drawn.ravel()), (1.0, shed.ravel()), (-1.0, back.ravel())], kept, kept)
        self._variables["flexible_load"] = shed
        return drawn

    def _heat_pumps(self, programme: Programme) -> NDArray[np.int64]:
        kw = self._fleets["heat_pump"].heat_pump.kw[:, 0]
        kept, heated, rest = self._day["rooms"]
        drawn = programme.variables(kept.shape, 0.0, kw)
        warmest = np.full(len(kw), SET_POINT_C)
        highest = np.empty(kept.shape)
        for t in range(len(kept)):
            warmest = np.maximum(HIGH_C, kept[t] * warmest + rest[t])
            highest[t] = warmest
        rooms = programme.variables(kept.shape, -np.inf, highest)
        _recursion(programme, rooms, kept, SET_POINT_C, [(-heated / np.maximum(kw, 1e-9), drawn)], rest)
        share = kw / max(float(kw.sum()), 1e-9)
        cost = self.task.config.comfort_weight * self.task.twin.step_h * share
        cold = programme.variables(kept.shape, 0.0, cost=cost)
        programme.rows([(1.0, cold.ravel()), (1.0, rooms.ravel())], LOW_C)
        self._variables["heat_pump"] = rooms
        return drawn


def _recursion(
    programme: Programme,
    stored: NDArray[np.int64],
    kept: Series,
    first: float,
    flows: list[tuple[Any, NDArray[np.int64]]],
    rest: Series | float = 0.0,
) -> None:
    """Add stored[t] - kept[t] stored[t - 1] + sum of coefficient x flow[t] = rest[t], from `first` on; all [T, N]."""
    shape = stored.shape
    terms = [(np.broadcast_to(coefficient, shape), variables) for coefficient, variables in flows]
    right = np.broadcast_to(rest, shape) + np.concatenate((first * kept[:1], np.zeros_like(kept[1:])))
    programme.rows([(1.0, stored[0]), *((c[0], v[0]) for c, v in terms)], right[0], right[0])
    later = [(c[1:].ravel(), v[1:].ravel()) for c, v in terms]
    before = (-kept[1:].ravel(), stored[:-1].ravel())
    programme.rows([(1.0, stored[1:].ravel()), before, *later], right[1:].ravel(), right[1:].ravel())
