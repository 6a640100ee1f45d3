"""What commands print: progress while they work, a table or JSON at the end."""

from __future__ import annotations

import json
import math
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Advance(Protocol):
    """Moves a progress bar on by an amount of work, and shows what came of it behind the bar."""

    def __call__(self, amount: float, status: str = "") -> None:
        """Note the work done since the last call."""
        ...


@contextmanager
def progress(description: str, total: float) -> Iterator[Advance]:
    """Show a progress bar on a terminal's standard error, and nothing where there is no terminal.

    What libraries print meanwhile, as Ray does when a worker dies, goes to standard error: results alone are output.

    Args:
        description: Text in front of the bar.
        total: Amount of work, in any unit.

    Yields:
        A function that takes the amount of work done since its last call, and a text to show.
    """
    if not sys.stderr.isatty():
        with redirect_stdout(sys.stderr):
            yield lambda _amount, _status="": None
        return
    # Rich takes 0.2 s to import: only a terminal pays for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415

    status = TextColumn("{task.fields[status]}")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), status)
    with redirect_stdout(sys.stderr), Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, status="")
        yield lambda amount, status="": bar.update(task, advance=amount, status=status)


def print_json(value: object) -> None:
    """Print one JSON document on standard output; NumPy numbers and arrays, paths and NaN (as null) are allowed."""
    sys.stdout.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under column headings; columns of numbers are aligned to the right, others to the left.

    Args:
        title: Line above the table; none where empty.
        columns: Heading of each column.
        rows: Cells, one sequence per row, each as long as `columns`; floats are shown with six significant digits.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    table = list(zip(columns, *texts, strict=True))
    widths = [max(map(len, column)) for column in table]
    aligns = [">" if all(map(_is_number, column[1:])) else "<" for column in table]
    lines = [title] if title else []
    for line in (columns, ["-" * width for width in widths], *texts):
        cells = (f"{cell:{align}{width}}" for cell, align, width in zip(line, aligns, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n\n")


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def plain(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Reduce mappings, sequences, NumPy values and paths to what the JSON standard can say."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)
