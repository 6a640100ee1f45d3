"""EV charging with perfect foresight of cars, prices and load: a day as a linear programme over sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.policies.optimal.network import Weights, best_network_day
from gridray.policies.optimal.sensitivities import Controls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.policies.optimal.network import Followed
    from gridray.policies.optimal.programme import BestDay, Programme
    from gridray.tasks.ev_charging import EvCharging


def best_ev_day(task: EvCharging, number: int, seed: int = 0) -> BestDay:  # noqa: ARG001  # nothing is drawn
    """Return bound and plan of a day; see `best_network_day`.

    Every car is charged as is best, which is more than a site's command can ask for: it gives its power by laxity.
    """
    return best_network_day(_EvModel(task, number), number)


class _EvModel:
    """Power of each session in each step of its stay, energy missing when it ends, and power of the sites."""

    def __init__(self, task: EvCharging, number: int) -> None:
        self.task = task
        config = task.config
        self.weights = Weights(100.0 * config.voltage_weight, 100.0 * config.overload_weight, 0.0)
        self._number = number
        chargers = task.chargers
        day = [array[number % len(chargers.table.arrival)] for array in chargers.table]
        slot, point = np.nonzero(day[1] > day[0])
        arrival, departure, self._wanted_kwh, _ = (array[slot, point] for array in day)
        stay = departure - arrival
        self._session = np.repeat(np.arange(len(stay)), stay)
        self._time = np.arange(stay.sum()) + np.repeat(arrival - np.cumsum(stay) + stay, stay)
        self._site = (point * len(chargers.names) // chargers.charger.charge_kw.shape[0])[self._session]
        self._most_kw = chargers.charger.charge_kw[point, 0][self._session]
        self._efficiency = chargers.charger.efficiency[point, 0][self._session]
        self._drawn = np.empty((task.num_steps, len(chargers.names)), dtype=np.int64)

    def controls(self, followed: Followed) -> Controls:  # noqa: ARG002
        grid, names = self.task.grid, self.task.chargers.names
        item = np.array([len(grid.load_names) + grid.generator_names.index(name) for name in names])
        return Controls(item, np.zeros(len(item), dtype=np.bool_), np.zeros(self._drawn.shape))

    def write(self, programme: Programme) -> tuple[NDArray[np.int64], float]:
        task, step_h = self.task, self.task.twin.step_h
        percent = 100.0 / task.sites_kw
        price = task.config.price_weight * task.price_shares(self._number) * step_h * percent
        shape = self._drawn.shape
        most = np.array([channel.high for channel in task.action_channels])
        self._drawn = programme.variables(shape, 0.0, most, cost=price[:, None])
        power = programme.variables(self._time.shape, 0.0, self._most_kw)
        unmet = programme.variables(self._wanted_kwh.shape, 0.0, cost=task.config.unmet_weight * percent)
        number = len(self._wanted_kwh)
        stored = (power, self._session, self._efficiency * step_h)
        missing = (unmet, np.arange(number), np.ones(number))
        programme.columns([stored, missing], number, low=self._wanted_kwh, high=self._wanted_kwh)
        at = self._time * shape[1] + self._site
        total = (self._drawn.ravel(), np.arange(self._drawn.size), np.ones(self._drawn.size))
        programme.columns([total, (power, at, -np.ones(len(at)))], self._drawn.size, low=0.0, high=0.0)
        return self._drawn, 0.0

    def set_points(self, x: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        kw = x[self._drawn]
        return {f"ev.{name}.charge_kw": kw[:, i] for i, name in enumerate(self.task.chargers.names)}
