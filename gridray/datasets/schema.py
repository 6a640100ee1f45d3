"""Columns of an offline dataset: RLlib's names, tensors of fixed shape, nothing that a reader could run as code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gridray.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

COST_PREFIX = "cost_"
TENSOR_COLUMNS = ("obs", "actions", "new_obs")
TIMESTAMP = pa.timestamp("ms", tz="UTC")
OPTIONAL_COLUMNS = {
    "timestamp": TIMESTAMP,
    "action_logp": pa.float32(),
    "policy_index": pa.int16(),
    "actions_inferred": pa.bool_(),
}
"""Beginning of the interval; log-probability of the action under the behaviour policy (see `behaviour`); which of the
card's policies acted; whether an action was read off the devices' states because nobody had logged it."""


def transition_schema(
    observation_size: int, action_size: int, cost_names: Iterable[str] = (), optional: Iterable[str] = ()
) -> pa.Schema:
    """Return the schema of one transition per row.

    Args:
        observation_size: length of obs and new_obs.
        action_size: length of actions.
        cost_names: without the prefix `cost_`.
        optional: which of OPTIONAL_COLUMNS there are.
    """
    observation = pa.fixed_shape_tensor(pa.float32(), (observation_size,))
    columns = {
        "eps_id": pa.string(),
        "t": pa.int32(),
        "obs": observation,
        "actions": pa.fixed_shape_tensor(pa.float32(), (action_size,)),
        "rewards": pa.float32(),
        "new_obs": observation,
        "terminateds": pa.bool_(),
        "truncateds": pa.bool_(),
    }
    more = {name: OPTIONAL_COLUMNS[name] for name in optional}
    costs = {f"{COST_PREFIX}{name}": pa.float32() for name in cost_names}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in (columns | more | costs).items()])


def check_schema(schema: pa.Schema, observation_size: int, action_size: int, *, where: str) -> None:
    """Refuse a schema that is not that of transitions of this size.

    RLlib unpickles string observations, so a foreign file with such a column could run code: no column but `eps_id` may
    hold text, bytes or objects.

    Raises:
        DatasetError: lists every missing or wrong column.
    """
    required = transition_schema(observation_size, action_size)
    expected = transition_schema(observation_size, action_size, optional=OPTIONAL_COLUMNS)
    problems = [f"column '{name}' is missing" for name in required.names if name not in schema.names]
    problems += [f"column '{name}' is there twice" for name in set(schema.names) if schema.names.count(name) > 1]
    for field in schema:
        if field.name in expected.names:
            wanted = expected.field(field.name).type
            if field.type != wanted:
                problems.append(f"column '{field.name}' is {field.type}, must be {wanted}")
        elif field.name.startswith(COST_PREFIX):
            if field.type != pa.float32():
                problems.append(f"column '{field.name}' is {field.type}, must be float")
        elif not _is_number(field.type):
            problems.append(f"column '{field.name}' is {field.type}, must hold numbers or booleans")
    if problems:
        raise DatasetError(f"{where}: {'; '.join(problems)}. Record the dataset again with `gridray record`.")


def make_table(
    columns: Mapping[str, NDArray[Any] | pa.Array | pa.ChunkedArray], schema: pa.Schema, *, where: str
) -> pa.Table:
    """Turn arrays into a table of exactly this schema.

    Args:
        columns: One array per column, rows first; obs, actions and new_obs are [num_rows, size]. Arrow's are taken
            unchecked.
        schema: From `transition_schema`.
        where: Name of the source, put in front of every error.

    Raises:
        DatasetError: a column is missing, unknown, of another shape or length, or not finite.
    """
    if set(columns) != set(schema.names):
        missing, unknown = sorted(set(schema.names) - set(columns)), sorted(set(columns) - set(schema.names))
        raise DatasetError(f"{where}: columns missing: {missing}, unknown: {unknown}. Give exactly {schema.names}.")
    num_rows = len(columns["eps_id"])
    return pa.Table.from_arrays(
        [_column(field, columns[field.name], num_rows, where) for field in schema], schema=schema
    )


def linked_tensors(observations: NDArray[np.float32]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the columns obs and new_obs, without a copy, of what is seen in episodes [num_episodes, T + 1, size]."""
    num_episodes, num_seen, size = observations.shape
    rows = pa.FixedShapeTensorArray.from_numpy_ndarray(observations.reshape(-1, size))
    starts = range(0, num_episodes * num_seen, num_seen)
    before, after = (pa.chunked_array([rows.slice(start + k, num_seen - 1) for start in starts]) for k in (0, 1))
    return before, after


def to_arrays(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the columns of a table as arrays; tensors are [num_rows, size], timestamps datetime64[ms] in UTC."""
    return {name: _array(table.column(name)) for name in table.column_names}


def _column(field: pa.Field, given: Any, num_rows: int, where: str) -> pa.Array | pa.ChunkedArray:  # noqa: ANN401
    if isinstance(given, pa.Array | pa.ChunkedArray):
        return given
    values = np.asarray(given)
    is_tensor = field.name in TENSOR_COLUMNS
    shape = (num_rows, *field.type.shape) if is_tensor else (num_rows,)
    if values.shape != shape:
        raise DatasetError(f"{where}: column '{field.name}' has shape {values.shape}: give {shape}.")
    if values.dtype.kind in "fM":
        is_good = ~np.isnat(values) if values.dtype.kind == "M" else np.isfinite(values)
        if not is_good.all():
            row = int(np.argwhere(~is_good)[0][0])
            raise DatasetError(f"{where}: column '{field.name}', row {row} is not finite: leave such transitions out.")
    if is_tensor:
        rows = np.ascontiguousarray(values, dtype=np.float32)
        # An empty tensor array has no strides to read the shape from.
        return pa.FixedShapeTensorArray.from_numpy_ndarray(rows) if num_rows else pa.array([], field.type)
    return pa.array(values, field.type)


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    if not isinstance(column.type, pa.FixedShapeTensorType):
        return np.asarray(column.to_numpy())
    chunks = [chunk.to_numpy_ndarray() for chunk in column.chunks if len(chunk)]
    return np.concatenate(chunks) if chunks else np.zeros((0, *column.type.shape), dtype=np.float32)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
