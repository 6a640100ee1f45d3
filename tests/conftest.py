"""Fixtures for all tests; process settings come first: libraries read them while they are imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# One thread per process (Ray does the parallel work), Serve behind HAProxy as in production, plots without a screen.
for _library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of published feeders and solved cases; it lies beside the checkout, not in it."""
    path = Path(os.environ.get("GRIDRAY_REFERENCE_DIR", REPOSITORY.parent / "shared" / "reference"))
    if not path.is_dir():
        pytest.skip(f"no reference data at '{path}': set GRIDRAY_REFERENCE_DIR to the folder that has it")
    return path


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Private local Ray of four CPUs, started once for all tests that need one."""
    # Ray takes seconds to start and half a second to import: only tests that ask for it pay.
    from gridray.cluster.runtime import ray_session  # noqa: PLC0415

    with ray_session(num_cpus=4):
        yield
