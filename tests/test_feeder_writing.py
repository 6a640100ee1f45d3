"""A feeder that is written and read back is the same, and what a file cannot say is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.errors import FeederError
from gridray.feeders.library import feeder_names, load_feeder
from gridray.feeders.writing import write_feeder
from gridray.physics.compiled import compile_feeder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", [*feeder_names(), "synthetic-60-3"])
def test_written_feeder_compiles_to_the_same_arrays(name: str, tmp_path: Path) -> None:
    feeder = load_feeder(name)
    write_feeder(feeder, tmp_path / "feeder.yaml")
    ours, read = compile_feeder(feeder), compile_feeder(load_feeder(tmp_path / "feeder.yaml"))
    for field in ("node_names", "load_names", "tap_names", "capacitor_names"):
        assert getattr(ours, field) == getattr(read, field)
    for field in ("load_kw", "load_kvar", "nominal_taps"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(read, field))
    assert [file.name for file in tmp_path.iterdir()] == ["feeder.yaml"]


def test_what_a_file_cannot_say_is_named(tmp_path: Path) -> None:
    feeder = load_feeder("ieee13")
    loads = (replace(feeder.loads[0], vlow_pu=0.4), *feeder.loads[1:])
    with pytest.raises(FeederError, match=r"loads\[0\]\.vlow_pu is 0\.4, the file would give 0\.5"):
        write_feeder(replace(feeder, loads=loads), tmp_path / "feeder.yaml")
    assert not list(tmp_path.iterdir())
