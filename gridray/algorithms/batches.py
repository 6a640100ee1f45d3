"""Where a learner's batches come from: tensors on its device, or a Ray Data stream for data that does not fit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from gridray.algorithms.base import BATCH_COLUMNS, Normaliser, normaliser_of
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from gridray.datasets.dataset import OfflineDataset

_STATISTICS_ROWS = 65_536
# Blocks of this many batches are shuffled together while they stream.
_SHUFFLED_BATCHES = 64


class Batches(Protocol):
    """Endless source of random batches."""

    def draw(self) -> dict[str, torch.Tensor]:
        """Return the next batch: the columns of `BATCH_COLUMNS`, rows first."""
        ...

    def get_state(self) -> NDArray[np.uint8]:
        """Return what makes the next batches the same again."""
        ...

    def set_state(self, state: NDArray[np.uint8]) -> None:
        """Go on from a state that `get_state` returned."""
        ...


class InMemoryBatches:
    """Rows drawn with replacement from tensors that lie on the learner's device."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], *, batch_size: int, seed: int, device: str) -> None:
        self._columns = {
            name: torch.from_numpy(np.array(columns[name], dtype=np.float32)).to(device) for name in BATCH_COLUMNS
        }
        self._num_rows = len(self._columns["rewards"])
        self._batch_size = batch_size
        self._generator = torch.Generator(device).manual_seed(seed)

    def draw(self) -> dict[str, torch.Tensor]:
        """Return the next batch."""
        rows = torch.randint(
            self._num_rows, (self._batch_size,), generator=self._generator, device=self._generator.device
        )
        return {name: column.index_select(0, rows) for name, column in self._columns.items()}

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

    def __init__(self, dataset: OfflineDataset, *, batch_size: int, seed: int, device: str) -> None:
        self._data = dataset.to_ray().select_columns(list(BATCH_COLUMNS))
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


def dataset_normaliser(dataset: OfflineDataset, *, stream: bool) -> Normaliser:
    """Return the normaliser of a dataset, read in one pass."""
    if not stream:
        return normaliser_of_rows([dataset.load(["obs", "rewards", "terminateds"])])
    data = dataset.to_ray().select_columns(["obs", "rewards", "terminateds"])
    return normaliser_of_rows(data.iter_batches(batch_size=_STATISTICS_ROWS, batch_format="numpy"))


def normaliser_of_rows(parts: Iterable[Mapping[str, NDArray[Any]]]) -> Normaliser:
    """Return the normaliser of transitions that come in parts with the columns obs, rewards and terminateds.

    Raises:
        DatasetError: there are no rows, or a value is NaN or infinite.
    """
    num_rows, num_terminal = 0, 0
    total, squares = np.zeros(1), np.zeros(1)
    for part in parts:
        values = np.column_stack((part["obs"], part["rewards"])).astype(np.float64)
        num_rows += len(values)
        num_terminal += int(np.count_nonzero(part["terminateds"]))
        total = total + values.sum(axis=0)
        squares = squares + np.square(values).sum(axis=0)
    if num_rows == 0:
        raise DatasetError("The dataset has no transition: record at least one episode")
    if not np.isfinite(squares).all():
        column = int(np.argmin(np.isfinite(squares)))
        where = "rewards" if column == len(squares) - 1 else f"obs, component {column},"
        raise DatasetError(f"The dataset's column {where} has NaN or infinite values: record it anew")
    mean = total / num_rows
    std = np.sqrt(np.maximum(squares / num_rows - np.square(mean), 0.0))
    # Where episodes terminate a shift of all rewards would change how long an episode should last.
    return normaliser_of(mean[:-1], std[:-1], 0.0 if num_terminal else mean[-1], std[-1])
