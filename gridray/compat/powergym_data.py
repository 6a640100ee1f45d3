"""Feeders, profiles and batteries of PowerGym (siemens/powergym), read from its own `systems` folder."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder

STEPS_PER_DAY = 24
NUM_REBUILT_PROFILES = 16
"""Days of a system whose own load shapes are missing."""
MODEL_FILES = {".dss", ".csv", ".txt"}


class System(NamedTuple):
    """One of PowerGym's systems (env_register.py): where it lies and what it weighs.

    loss_weight: of losses over total power; discharge_weight: of discharged over rated battery power; soc_weight: of
    the charge's distance from its first value at the end of the day. shape_files: the order in which the load shapes
    are concatenated, sorted by name if empty.
    """

    folder: str
    master: str
    loss_weight: float
    discharge_weight: float
    soc_weight: float = 0.0
    shape_files: tuple[str, ...] = ()


# The original concatenates in the order of os.listdir; this is the one behind its published figures.
_SHAPES_123 = ("LoadShape1.CSV", "PaperLoadShape.csv", "LoadShape2.CSV", "LoadShape3.CSV")
SYSTEMS = {
    "13Bus": System("13Bus", "IEEE13Nodeckt_daily.dss", 10.0, 6.0 / 33.0),
    "34Bus": System("34Bus", "ieee34Mod1_daily.dss", 1.0, 10.0 / 33.0),
    "123Bus": System("123Bus", "IEEE123Master_daily.dss", 10.0, 7.0 / 33.0, 0.0, _SHAPES_123),
    "8500Node": System("8500-Node", "Master_daily.dss", 1.0, 200.0 / 33.0),
    "13Bus_soc": System("13Bus", "IEEE13Nodeckt_daily.dss", 10.0, 1.0 / 33.0, 20.0 / 33.0),
    "34Bus_soc": System("34Bus", "ieee34Mod1_daily.dss", 1.0, 4.0 / 33.0, 500.0 / 33.0),
    "123Bus_soc": System("123Bus", "IEEE123Master_daily.dss", 10.0, 5.0 / 33.0, 500.0 / 33.0, _SHAPES_123),
    "8500Node_soc": System("8500-Node", "Master_daily.dss", 1.0, 100.0 / 33.0, 10000.0 / 33.0),
}
"""Name of a system -> its files and weights."""


class PowerGymData(NamedTuple):
    """A system as arrays.

    buses: names in the order of OpenDSS's AllBusNames. load_pu: float64 [num_profiles, 24, num_loads], multipliers in
    the order of feeder.loads. Batteries, each float64 [num_batteries] in the order of feeder.generators: rated_kw,
    power_factor, capacity_kwh, initial_kwh.
    """

    feeder: Feeder
    buses: tuple[str, ...]
    load_pu: NDArray[np.float64]
    rated_kw: NDArray[np.float64]
    power_factor: NDArray[np.float64]
    capacity_kwh: NDArray[np.float64]
    initial_kwh: NDArray[np.float64]


class _Element(NamedTuple):
    """An element as its script defines it."""

    cls: str
    name: str
    is_fixed: bool


def read_system(name: str, data: str | Path) -> PowerGymData:
    """Read a system from PowerGym's folder, its `systems`, or the system's own folder.

    8500Node: files that its folder lacks are taken from `dss/8500-Node` beside PowerGym's folder, and without load
    shapes of its own it takes 13Bus's, repeated.

    Raises:
        ConfigError: no such system, or a file is missing.
        FeederError: the model is damaged.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"PowerGym has no system '{name}': give one of {', '.join(SYSTEMS)}.")
    system = SYSTEMS[name]
    folder = _folder(system, Path(data))
    elements = list(_elements(folder, _lacking(folder), system.master))
    load_names = [element.name for element in elements if element.cls == "load"]
    feeder = _feeder(folder, system.master, load_names)
    by_load = dict(zip(load_names, _load_pu(folder, system, len(load_names)), strict=True))
    # OpenDSS: a load of fixed status follows no shape.
    by_load |= {element.name: np.ones_like(by_load[element.name]) for element in elements if element.is_fixed}
    missing = [load.name for load in feeder.loads if load.name not in by_load]
    if missing:
        raise ConfigError(f"Load '{missing[0]}' of '{folder}' has no daily shape: give it one in the script.")
    load_pu = np.stack([by_load[load.name] for load in feeder.loads], axis=-1)
    batteries = _batteries(folder / "Battery.csv", [generator.name for generator in feeder.generators])
    return PowerGymData(feeder, _buses(feeder, elements), load_pu, *batteries)


def _folder(system: System, data: Path) -> Path:
    candidates = [data / "systems" / system.folder, data / system.folder, data]
    for candidate in candidates:
        if (candidate / system.master).is_file():
            return candidate
    raise ConfigError(
        f"'{data}' has no '{system.folder}/{system.master}': give PowerGym's folder or its `systems` folder "
        "(github.com/siemens/powergym)."
    )


def _lacking(folder: Path) -> tuple[Path, ...]:
    """Return where files may lie that the folder lacks: the published model in `dss` beside PowerGym's folder."""
    return tuple(place for parent in folder.resolve().parents[:4] if (place := parent / "dss" / folder.name).is_dir())


def _feeder(folder: Path, master: str, load_names: list[str]) -> Feeder:
    """Read the model from a copy with what PowerGym writes into its folder when it starts: the shapes' file."""
    with TemporaryDirectory(prefix="gridray-powergym-") as temporary:
        home = Path(temporary) / folder.name
        home.mkdir()
        for source in (*_lacking(folder)[::-1], folder):
            for path in sorted(source.iterdir()):
                if path.is_file() and path.suffix.lower() in MODEL_FILES:
                    shutil.copyfile(path, home / path.name.lower())
        shapes = "".join(f"New Loadshape.loadshape_{load} npts=1 interval=1 mult=(1)\n" for load in load_names)
        (home / "loadshape.dss").write_text(shapes, encoding="utf-8")
        if not (home / "buscoords.csv").exists():
            (home / "buscoords.csv").write_text("", encoding="utf-8")
        # Their scripts end in the mode that steps through a day; the hours' loads are set here.
        return load_feeder(home / master.lower(), commands=("set mode=snapshot",))


def _elements(folder: Path, elsewhere: tuple[Path, ...], name: str) -> Iterator[_Element]:
    """Yield every element in the order of its script, following redirects."""
    names = {path.name.lower(): path for place in (*elsewhere[::-1], folder) for path in place.iterdir()}
    path = names.get(name.lower())
    if path is None:
        return
    for line in path.read_text(encoding="latin-1").splitlines():
        redirect = re.match(r"\s*redirect\s+(\S+)", line, re.IGNORECASE)
        if redirect:
            yield from _elements(folder, elsewhere, redirect[1])
        made = re.match(r"""\s*new\s+(?:object=)?["']?(\w+)\.([^\s"',]+)""", line, re.IGNORECASE)
        if made:
            cls, is_fixed = made[1].lower(), "status=fixed" in line.lower()
            yield _Element(cls, made[2].lower(), is_fixed and cls == "load")


def _buses(feeder: Feeder, elements: list[_Element]) -> tuple[str, ...]:
    """Return the buses as OpenDSS lists them: by the first element that names them, each terminal in turn."""
    terminals = {("circuit", feeder.name): [feeder.source.bus]}
    terminals |= {("line", line.name): [line.from_bus, line.to_bus] for line in feeder.lines}
    terminals |= {("transformer", t.name): [winding.bus for winding in t.windings] for t in feeder.transformers}
    terminals |= {("load", load.name): [load.bus] for load in feeder.loads}
    terminals |= {("capacitor", capacitor.name): [capacitor.bus] for capacitor in feeder.capacitors}
    terminals |= {("generator", generator.name): [generator.bus] for generator in feeder.generators}
    terminals |= {
        ("reactor", reactor.name): [bus for bus in (reactor.bus, reactor.to_bus) if bus] for reactor in feeder.reactors
    }
    listed = dict.fromkeys(bus for e in elements for bus in terminals.get((e.cls, e.name), ()))
    return tuple({feeder.source.bus: None} | listed)


def _load_pu(folder: Path, system: System, num_loads: int) -> NDArray[np.float64]:
    """Return multipliers [num_loads, num_profiles, 24]: the files in one row, cut load by load (loadprofile.py)."""
    place = folder / "loadshape"
    is_own = place.is_dir()
    if not is_own:
        place = folder.parent / "13Bus" / "loadshape"
    found = sorted(path for path in place.glob("*") if re.search(r"loadshape.*\.csv$", path.name, re.IGNORECASE))
    files = [place / name for name in system.shape_files] or found
    if not found or not all(path.is_file() for path in files):
        raise ConfigError(f"'{place}' lacks the load shapes {[path.name for path in files]}: add PowerGym's CSV files.")
    values = np.concatenate([np.loadtxt(path) for path in files])
    per_profile = num_loads * STEPS_PER_DAY
    if not is_own:
        values = np.resize(values, NUM_REBUILT_PROFILES * per_profile)
    num_profiles = len(values) // per_profile
    if num_profiles == 0:
        raise ConfigError(f"'{place}' has {len(values)} values: give at least {per_profile}, a day for each load.")
    return values[: num_profiles * per_profile].reshape(num_loads, num_profiles, STEPS_PER_DAY)


def _batteries(path: Path, generators: list[str]) -> list[NDArray[np.float64]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["name"].lower(): row for row in csv.DictReader(file)}
    if sorted(rows) != sorted(generators):
        raise ConfigError(f"'{path}' lists {sorted(rows)} but the model's generators are {sorted(generators)}.")
    columns = ("max_kw", "pf", "max_kwh", "initial_kwh")
    return [np.array([float(rows[name][column]) for name in generators]) for column in columns]
