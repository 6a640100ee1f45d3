"""Where a learner's batches come from: tensors on its device, or a Ray Data stream for data that does not fit."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import torch

from gridray.algorithms.base import HAS_NEXT_ACTIONS, NEXT_ACTIONS, Normaliser, normaliser_of
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import ray.data
    from numpy.typing import NDArray

    from gridray.datasets.dataset import OfflineDataset

    RowsOf = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_STATISTICS_ROWS = 65_536
# Blocks of this many batches are shuffled together while they stream.
_SHUFFLED_BATCHES = 64


class Batches(Protocol):
    """Endless source of random batches."""

    def draw(self) -> dict[str, torch.Tensor]:
        """Return the next batch, rows first."""
        ...

    def get_state(self) -> NDArray[np.uint8]:
        """Return what makes the next batches the same again."""
        ...

    def set_state(self, state: NDArray[np.uint8]) -> None:
        """Go on from a state that `get_state` returned."""
        ...


class InMemoryBatches:
    """Rows drawn with replacement from one tensor of all columns, which lies on the learner's device.

    part: which of how many parts of each batch is returned; equal seeds draw equal batches, whatever the part.
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[Any]],
        *,
        batch_size: int,
        seed: int,
        device: str,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._shapes = {name: column.shape[1:] for name, column in columns.items()}
        self._widths = [int(np.prod(shape)) for shape in self._shapes.values()]
        num_rows = len(next(iter(columns.values())))
        rows = np.empty((num_rows, sum(self._widths)), dtype=np.float32)
        first = 0
        for column, width in zip(columns.values(), self._widths, strict=True):
            rows[:, first : first + width] = column.reshape(num_rows, width)
            first += width
        self._rows = torch.from_numpy(rows).to(device)
        self._batch_size = batch_size
        self._part = part
        self._generator = torch.Generator(device).manual_seed(seed)

    def draw(self) -> dict[str, torch.Tensor]:
        """Return the next batch."""
        indices = torch.randint(
            len(self._rows), (self._batch_size,), generator=self._generator, device=self._generator.device
        )
        first, step = self._part
        parts = torch.split(self._rows.index_select(0, indices[first::step]), self._widths, dim=1)
        return {
            name: part if shape else part.squeeze(1)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def get_state(self) -> NDArray[np.uint8]:
        """Return the generator's state."""
        state: NDArray[np.uint8] = self._generator.get_state().numpy().copy()
        return state

    def set_state(self, state: NDArray[np.uint8]) -> None:
        """Set the generator's state."""
        self._generator.set_state(torch.tensor(state))


class StreamedBatches:
    """Passes over a Ray dataset, shuffled within a window; needs a running Ray.

    A run that is continued begins a new pass: it is not the same bit for bit as one that was never stopped.
    """

    def __init__(
        self, dataset: OfflineDataset, columns: Sequence[str], *, batch_size: int, seed: int, device: str
    ) -> None:
        self._data = _stream_columns(dataset, columns)
        self._batch_size = min(batch_size, dataset.num_transitions)
        self._seed = seed
        self._device = device
        self._pass = 0
        self._batches: Iterator[dict[str, torch.Tensor]] = iter(())

    def draw(self) -> dict[str, torch.Tensor]:
        """Return the next batch of this pass, or the first of the next."""
        while (batch := next(self._batches, None)) is None:
            self._batches = iter(
                self._data.iter_torch_batches(
                    batch_size=self._batch_size,
                    drop_last=True,
                    local_shuffle_buffer_size=_SHUFFLED_BATCHES * self._batch_size,
                    local_shuffle_seed=self._seed + self._pass,
                    device=self._device,
                )
            )
            self._pass += 1
        return batch

    def get_state(self) -> NDArray[np.uint8]:
        """Return the number of the present pass."""
        return np.frombuffer(self._pass.to_bytes(8, "little"), dtype=np.uint8)

    def set_state(self, state: NDArray[np.uint8]) -> None:
        """Begin the pass after the one that was under way."""
        self._pass = int.from_bytes(state.tobytes(), "little")
        self._batches = iter(())


def fits_in_memory(dataset: OfflineDataset) -> bool:
    """Tell whether the columns take at most a quarter of the machine's memory."""
    width = 2 * len(dataset.card.observation_names) + len(dataset.card.action_names) + 3
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 4 * width * dataset.num_transitions <= physical // 4


def load_columns(dataset: OfflineDataset, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return a learner's columns as arrays, those of the next action included.

    Raises:
        DatasetError: the dataset lacks a column.
    """
    stored = dataset.load(_stored(columns))
    return _derived(stored, columns)


def dataset_normaliser(
    dataset: OfflineDataset, *, stream: bool, cost_column: str | None = None, rows_of: RowsOf | None = None
) -> Normaliser:
    """Return the normaliser of a dataset, read in one pass; see `normaliser_of_rows`."""
    names = ["obs", "rewards", "terminateds", *([cost_column] if cost_column else [])]
    if not stream:
        return normaliser_of_rows([dataset.load(names)], cost_column, rows_of)
    data = _stream_columns(dataset, names)
    parts = data.iter_batches(batch_size=_STATISTICS_ROWS, batch_format="numpy")
    return normaliser_of_rows(parts, cost_column, rows_of)


def normaliser_of_rows(
    parts: Iterable[Mapping[str, NDArray[Any]]], cost_column: str | None = None, rows_of: RowsOf | None = None
) -> Normaliser:
    """Return the normaliser of transitions that come in parts with the columns obs, rewards and terminateds.

    rows_of gives the rows that the observations' statistics are of, see `Learner.observation_rows`; else they are the
    observations.

    Raises:
        DatasetError: there are no rows, or a value is NaN or infinite.
    """
    num_rows, num_terminal = 0, 0
    total, squares = np.zeros(1), np.zeros(1)
    for part in _slices(parts):
        costs = part[cost_column] if cost_column else np.zeros(len(part["rewards"]))
        others = np.column_stack((costs, part["rewards"])).astype(np.float64)
        rows = (part["obs"] if rows_of is None else rows_of(part["obs"])).astype(np.float64)
        share = len(others) / max(len(rows), 1)
        num_rows += len(others)
        num_terminal += int(np.count_nonzero(part["terminateds"]))
        total = total + np.concatenate((share * rows.sum(axis=0), others.sum(axis=0)))
        squares = squares + np.concatenate((share * np.square(rows).sum(axis=0), np.square(others).sum(axis=0)))
    if num_rows == 0:
        raise DatasetError("The dataset has no transition: record at least one episode")
    if not np.isfinite(squares).all():
        column = int(np.argmin(np.isfinite(squares)))
        names = {len(squares) - 1: "rewards", len(squares) - 2: cost_column}
        where = names.get(column, f"obs, component {column},")
        raise DatasetError(f"The dataset's column {where} has NaN or infinite values: record it anew")
    mean = total / num_rows
    std = np.sqrt(np.maximum(squares / num_rows - np.square(mean), 0.0))
    # Where episodes terminate a shift of all rewards would change how long an episode should last.
    return normaliser_of(mean[:-2], std[:-2], 0.0 if num_terminal else mean[-1], std[-1], std[-2])


def with_next_actions(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Add the columns of the next action to rows in the order of recording; they need t, obs, new_obs and actions.

    An episode goes on in the next row where that is the next step and begins with the observation that this one ends
    with. Where it does not, the action is the row's own.
    """
    goes_on = np.zeros(len(columns["t"]), dtype=np.float32)
    is_next_step = np.diff(columns["t"]) == 1
    goes_on[:-1] = is_next_step & (columns["new_obs"][:-1] == columns["obs"][1:]).all(axis=1)
    actions = columns["actions"]
    following = np.where(goes_on[:, None] > 0.0, np.roll(actions, -1, axis=0), actions)
    return {**columns, NEXT_ACTIONS: following, HAS_NEXT_ACTIONS: goes_on}


def _slices(parts: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the rows a few at a time."""
    for part in parts:
        for first in range(0, len(part["rewards"]), _STATISTICS_ROWS):
            yield {name: column[first : first + _STATISTICS_ROWS] for name, column in part.items()}


def _stored(columns: Sequence[str]) -> list[str]:
    """Return the columns of the dataset that these are made of."""
    needed = ["t", "obs", "new_obs", "actions"] if NEXT_ACTIONS in columns else []
    return list(dict.fromkeys([*(name for name in columns if name not in {NEXT_ACTIONS, HAS_NEXT_ACTIONS}), *needed]))


def _derived(stored: Mapping[str, NDArray[Any]], columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    rows = with_next_actions(stored) if NEXT_ACTIONS in columns else stored
    return {name: rows[name] for name in columns}


def _stream_columns(dataset: OfflineDataset, columns: Sequence[str]) -> ray.data.Dataset:
    """Return the columns as a stream; the last row of a block knows no next action."""
    if unknown := sorted(set(_stored(columns)) - set(pq.read_schema(dataset.files[0]).names)):
        raise DatasetError(f"The dataset '{dataset.path}' has no column '{unknown[0]}': record it with that cost")
    data = dataset.to_ray().select_columns(_stored(columns))
    if NEXT_ACTIONS in columns:
        data = data.map_batches(partial(_derived, columns=columns), batch_size=None, batch_format="numpy")
    # A seed decides the batches, whichever file is read first.
    data.context.execution_options.preserve_order = True
    return data
