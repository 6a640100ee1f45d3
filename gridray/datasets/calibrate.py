"""Fit a feeder model to meters: phase labels of loads and meters, load allocation and line impedances."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from gridray.datasets.candidates import Candidates
from gridray.datasets.replay import missing_for_replay, replay_points
from gridray.errors import ConfigError, DatasetError
from gridray.physics.compiled import compile_feeder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder

DIFFERENCE = 1e-4
"""Step of finite differences in the logarithm of a factor."""
LABEL_GAIN = 0.98
"""A label changes where that leaves less than this share of the error."""


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """How to fit.

    meter_std_pu, power_std: standard deviations of voltages, pu, and of the feeder's power over nominal load.
    load_std, impedance_std: of the logarithms of factors, from 0, before anything was measured; 0 fits none.
    num_samples: moments used, evenly spread; max_rounds: of labels and factors in turn.
    """

    meter_std_pu: float = 0.001
    power_std: float = 0.005
    load_std: float = 0.3
    impedance_std: float = 0.2
    num_samples: int = 48
    max_rounds: int = 5

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("meter_std_pu", "power_std", "num_samples", "max_rounds"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0.")
        for name in ("load_std", "impedance_std"):
            if getattr(self, name) < 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found.

    load_phases: load -> [phase before, phase after] of those that moved; meter_phases: likewise by bus and phase;
    load_scales: factor by load; impedance_scales: by line code; rms_before_pu, rms_after_pu: of model minus meter.
    """

    load_phases: dict[str, tuple[int, int]]
    meter_phases: dict[str, str]
    load_scales: dict[str, float]
    impedance_scales: dict[str, float]
    rms_before_pu: float
    rms_after_pu: float
    num_samples: int
    num_meters: int
    num_rounds: int


def calibrate(
    feeder: Feeder, values: Mapping[str, NDArray[np.float64]], config: CalibrateConfig
) -> tuple[Feeder, Calibration]:
    """Fit a feeder to measured voltages, given load powers and device positions.

    In turn, until no label changes: single-phase loads move or swap phases and meters of a bus swap theirs while that
    helps, and factors of loads and line codes are fitted (least squares in a trust region, with Gaussian priors).
    Without the feeder's power ("feeder.p_kw", "feeder.q_kvar") loads and impedances can hardly be told apart.

    Args:
        feeder: The model to correct.
        values: float64 [E] by point, as `read_measurements` returns; NaN where there is none.
        config: How.

    Raises:
        DatasetError: no voltage was measured, or loads and devices are not known at any moment.
    """
    fit = _Fit(feeder, values, config)
    labels, theta = fit.candidates.first_labels, np.zeros(fit.num_factors)
    before = fit.rms(labels, theta)
    num_rounds = 0
    for _ in range(config.max_rounds):
        num_rounds += 1
        meters, before_labels = fit.meters, labels
        labels = fit.move_labels(labels, theta)
        theta = fit.factors(labels)
        if meters == fit.meters and (labels == before_labels).all():
            break
    scales, impedance = fit.split(theta)
    first = fit.candidates.first_labels
    found = Calibration(
        load_phases={
            load.name: (int(old), int(new))
            for load, old, new in zip(feeder.loads, first, labels, strict=True)
            if old != new
        },
        meter_phases={name: node for name, node in fit.meters.items() if name != node},
        load_scales={load.name: float(s) for load, s in zip(feeder.loads, scales, strict=True)},
        impedance_scales={code.name: float(s) for code, s in zip(feeder.line_codes, impedance, strict=True)},
        rms_before_pu=before,
        rms_after_pu=fit.rms(labels, theta),
        num_samples=fit.candidates.num_moments,
        num_meters=len(fit.meters),
        num_rounds=num_rounds,
    )
    return fit.candidates.corrected(labels, scales, impedance), found


class _Fit:
    """Measured moments, candidates, and which node each meter is at (changes as labels are found)."""

    def __init__(self, feeder: Feeder, values: Mapping[str, NDArray[np.float64]], config: CalibrateConfig) -> None:
        self._config = config
        grid = compile_feeder(feeder)
        if missing := missing_for_replay(feeder, grid, values):
            raise DatasetError(
                f"Calibration needs the points {', '.join(missing[:5])}: import them, or give constants."
            )
        self.meters = {node: node for node in grid.node_names if f"vmag_pu.{node}" in values}
        needed = [values[name] for name in replay_points(feeder, grid)]
        seen = np.array([values[f"vmag_pu.{node}"] for node in self.meters])
        if not len(seen):
            raise DatasetError("No voltage was measured: map points vmag_pu.<bus>.<phase>.")
        is_whole = ~np.isnan(np.stack(needed)).any(axis=0) & ~np.isnan(seen).all(axis=0)
        if not is_whole.any():
            raise DatasetError("At no moment are all loads, devices and a voltage known: allow repairs in the mapping.")
        places = np.flatnonzero(is_whole)
        places = places[np.linspace(0, len(places) - 1, min(config.num_samples, len(places))).astype(np.int64)]
        at = {name: row[places] for name, row in values.items()}
        self.candidates = Candidates(feeder, at)
        self._seen = seen[:, places]
        self._row = {node: row for row, node in enumerate(self.candidates.grid.node_names)}
        self._nominal_kw = max(float(grid.load_kw.sum()), 1e-9)
        head = [at.get(name) for name in ("feeder.p_kw", "feeder.q_kvar")]
        self._head = np.stack([np.full(len(places), np.nan) if row is None else row for row in head])
        self._num_loads, self._num_codes = len(feeder.loads), len(feeder.line_codes)
        stds = [config.load_std] * self._num_loads + [config.impedance_std] * self._num_codes
        self._std = np.array(stds)
        self._free = np.flatnonzero(self._std > 0.0)
        self.num_factors = len(stds)

    def split(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the factors of loads and of line codes."""
        factors = np.exp(theta)
        return factors[: self._num_loads], factors[self._num_loads :]

    def rms(self, labels: NDArray[np.int64], theta: NDArray[np.float64]) -> float:
        scales, impedance = self.split(theta)
        return float(self._errors(self.candidates.solve(labels[None], scales[None], impedance).vmag_pu)[0])

    def move_labels(self, labels: NDArray[np.int64], theta: NDArray[np.float64]) -> NDArray[np.int64]:
        """Move a load, swap two loads or two meters of a bus, while that makes the error smaller; the best first.

        What other factors could explain, to first order, does not count: residuals are taken perpendicular to the
        factors' derivatives. Loads' factors start from 1 again, as a wrong label may have made one vanish. Meters are
        swapped in `meters`; the loads' labels are returned.
        """
        theta = np.where(np.arange(self.num_factors) < self._num_loads, 0.0, theta)
        scales, impedance = self.split(theta)
        least = np.inf
        while True:
            tried, swaps = self._neighbours(labels), self._swaps()
            answer = self.candidates.solve(tried, np.tile(scales, (len(tried), 1)), impedance)
            voltage = np.concatenate(
                [answer.vmag_pu[:, self._rows(self.meters)]]
                + [answer.vmag_pu[:1, self._rows(meters)] for meters in swaps]
            )
            source = np.concatenate((answer.source_kva, np.repeat(answer.source_kva[:1], len(swaps), axis=0)))
            residuals = self._scaled(voltage, source, np.tile(theta, (len(voltage), 1)))
            if len(self._free):
                directions, _ = np.linalg.qr(self._jacobian(labels, theta))
                residuals = residuals - (residuals @ directions) @ directions.T
            errors = np.linalg.norm(residuals, axis=1)
            best, least = int(np.argmin(errors)), min(least, float(errors[0]))
            if errors[best] >= LABEL_GAIN * least:
                return labels
            least = float(errors[best])
            if best < len(tried):
                labels = tried[best]
            else:
                self.meters = swaps[best - len(tried)]

    def factors(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logarithms of the factors that fit best with these labels."""
        if not len(self._free):
            return np.zeros(self.num_factors)

        def whole(free: NDArray[np.float64]) -> NDArray[np.float64]:
            full = np.zeros(self.num_factors)
            full[self._free] = free
            return full

        result = least_squares(
            lambda free: self._residuals(labels, whole(free)[None])[0],
            np.zeros(len(self._free)),
            jac=lambda free: self._jacobian(labels, whole(free)),
            method="trf",
            xtol=1e-5,
            ftol=1e-5,
            max_nfev=12,
        )
        return whole(result.x)

    def _neighbours(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels themselves, all with one load on another phase, and all with two of a bus swapped."""
        tried = [labels]
        choices, loads = self.candidates.choices, self.candidates.feeder.loads
        for load, phases in enumerate(choices):
            others = [phase for phase in phases if phase != labels[load]]
            tried += [np.where(np.arange(len(labels)) == load, phase, labels) for phase in others]
        single = [load for load, phases in enumerate(choices) if len(phases) > 1]
        for one, other in combinations(single, 2):
            if loads[one].bus == loads[other].bus and labels[one] != labels[other]:
                swapped = labels.copy()
                swapped[[one, other]] = labels[[other, one]]
                tried.append(swapped)
        return np.stack(tried)

    def _swaps(self) -> list[dict[str, str]]:
        """Return the meters with the labels of two of one bus exchanged, for every two."""
        return [
            self.meters | {one: self.meters[other], other: self.meters[one]}
            for one, other in combinations(self.meters, 2)
            if one.rpartition(".")[0] == other.rpartition(".")[0]
        ]

    def _rows(self, meters: Mapping[str, str]) -> list[int]:
        return [self._row[node] for node in meters.values()]

    def _errors(self, vmag_pu: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the root mean square of model minus meter of each candidate, pu [K]."""
        rows = self._rows(self.meters)
        errors: NDArray[np.float64] = np.sqrt(np.nanmean(np.square(vmag_pu[:, rows] - self._seen), axis=(1, 2)))
        return errors

    def _residuals(self, labels: NDArray[np.int64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return residuals over their standard deviations, [K, ...], of K labels and factors with equal impedances."""
        scales, impedance = np.exp(theta[:, : self._num_loads]), np.exp(theta[0, self._num_loads :])
        answer = self.candidates.solve(np.broadcast_to(labels, (len(theta), self._num_loads)), scales, impedance)
        return self._scaled(answer.vmag_pu[:, self._rows(self.meters)], answer.source_kva, theta)

    def _scaled(
        self, vmag_pu: NDArray[np.float64], source_kva: NDArray[np.complex128], theta: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return residuals of metered voltages [K, M, S], source power [K, S] and factors, as one row each."""
        voltage = (vmag_pu - self._seen) / self._config.meter_std_pu
        power = np.stack((source_kva.real, source_kva.imag), axis=1) - self._head
        power /= self._config.power_std * self._nominal_kw
        prior = theta[:, self._free] / self._std[self._free]
        parts = [np.nan_to_num(part).reshape(len(theta), -1) for part in (voltage, power, prior)]
        return np.concatenate(parts, axis=1)

    def _jacobian(self, labels: NDArray[np.int64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return forward differences: those of loads in one batch, those of line codes one by one."""
        loads = self._free[self._free < self._num_loads]
        tried = np.tile(theta, (len(loads) + 1, 1))
        tried[np.arange(1, len(loads) + 1), loads] += DIFFERENCE
        residuals = self._residuals(labels, tried)
        columns = list(residuals[1:] - residuals[0])
        for code in self._free[self._free >= self._num_loads]:
            moved = theta.copy()
            moved[code] += DIFFERENCE
            columns.append(self._residuals(labels, moved[None])[0] - residuals[0])
        return np.stack(columns, axis=1) / DIFFERENCE
