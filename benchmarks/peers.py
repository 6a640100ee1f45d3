"""OpenDSS and power-grid-model beside us, on the cases of the reference folder and on a radial grid of three phases."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dss import DSS
from power_grid_model import CalculationMethod, LoadGenType, PowerGridModel, initialize_array

import gridray
from gridray.feeders.components import Line, LineCode, Load, Source
from gridray.feeders.feeder import Feeder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder

REFERENCE = Path(os.environ.get("GRIDRAY_REFERENCE_DIR", Path(__file__).parents[2] / "shared" / "reference")).absolute()
KV, SOURCE_OHM, Z1, Z0, C1_NF, C0_NF, HZ = 12.47, 0.5, 0.3 + 0.4j, 0.7 + 1.2j, 10.0, 5.0, 50.0
SECTION_KM = 0.2
METHODS = ("newton_raphson", "iterative_current", "linear_current")


def settings_of(case: str) -> dict[str, Any]:
    """Return the settings of a solved case of the reference folder, its taps frozen."""
    return dict(json.loads((REFERENCE / "solutions" / f"{case}_frozen.json").read_text()))


def feeder_of(case: str) -> Feeder:
    """Return our feeder of the case."""
    settings = settings_of(case)
    return gridray.load_feeder(
        REFERENCE / "dss" / settings["master"], commands=tuple(settings["commands_before_solve"])
    )


class OpenDss:
    """OpenDSS on the same case, controls off; arrays come and go in the order of our grid's names."""

    def __init__(self, case: str, grid: CompiledFeeder, windings: dict[str, int]) -> None:
        settings = settings_of(case)
        DSS.AllowForms = False
        DSS.AllowChangeDir = False
        self.text(f"compile [{REFERENCE / 'dss' / settings['master']}]")
        for command in settings["commands_before_solve"]:
            self.text(command)
        self.text("set mode=snapshot controlmode=off algorithm=normal maxiterations=500")
        self.circuit = DSS.ActiveCircuit
        self.windings = windings
        self.grid = grid
        for name, state in zip(grid.capacitor_names, grid.nominal_capacitor_states, strict=True):
            self.text(f"edit capacitor.{name} states={int(state)}")
        self.index_again()

    @staticmethod
    def text(command: str) -> None:
        """Run one command."""
        DSS.Text.Command = command

    def index_again(self) -> None:
        """Map names to places after an element was added."""
        loads = {name: i for i, name in enumerate(self.grid.load_names)}
        self.load_order = np.array([loads[name.lower()] for name in self.circuit.Loads.AllNames], dtype=np.int64)
        self.solve()
        nodes = {name.lower(): i for i, name in enumerate(self.circuit.AllNodeNames)}
        self.node_order = np.array([nodes[name] for name in self.grid.node_names], dtype=np.int64)

    def set_loads(self, kw: NDArray[np.float64], kvar: NDArray[np.float64]) -> None:
        """Set every load through the fast iterator, which leaves the admittance matrix as it is."""
        loads = self.circuit.Loads
        kws, kvars = kw[self.load_order].tolist(), kvar[self.load_order].tolist()
        more = loads.First
        for p, q in zip(kws, kvars, strict=True):
            loads.kW = p
            loads.kvar = q
            more = loads.Next
        if more:
            message = "OpenDSS has more loads enabled than it names"
            raise RuntimeError(message)

    def set_taps(self, taps: NDArray[np.float64]) -> None:
        """Set the regulators' taps, pu."""
        transformers = self.circuit.Transformers
        for name, tap in zip(self.grid.tap_names, taps.tolist(), strict=True):
            transformers.Name = name
            if transformers.Wdg != self.windings[name]:
                transformers.Wdg = self.windings[name]
            transformers.Tap = tap

    def set_tolerance(self, tolerance: float) -> None:
        """Set the largest last relative change of a voltage."""
        self.text(f"set tolerance={tolerance}")

    def solve(self) -> None:
        """Solve from the last state's voltages."""
        self.circuit.Solution.Solve()

    def voltages(self) -> NDArray[np.complex128]:
        """Return all node voltages, V."""
        volts: NDArray[np.complex128] = np.asarray(self.circuit.AllBusVolts).view(np.complex128)[self.node_order]
        return volts


def radial_tree(num_buses: int) -> NDArray[np.int64]:
    """Return the parent of each bus but the first: mostly the one before, so that laterals are long."""
    rng = np.random.default_rng(1)
    back = np.minimum(rng.geometric(0.8, num_buses - 1), np.arange(1, num_buses))
    return np.arange(1, num_buses) - back


def radial_feeder(num_buses: int) -> Feeder:
    """Return the radial grid as ours: three one-phase loads of constant power at every bus but the first."""
    z_self, z_mutual = (Z0 + 2 * Z1) / 3, (Z0 - Z1) / 3
    c_self, c_mutual = (C0_NF + 2 * C1_NF) / 3, (C0_NF - C1_NF) / 3
    matrices = [
        tuple(tuple(float(own if i == j else other) for j in range(3)) for i in range(3))
        for own, other in ((z_self.real, z_mutual.real), (z_self.imag, z_mutual.imag), (c_self, c_mutual))
    ]
    code = LineCode(name="cable", r_ohm_per_km=matrices[0], x_ohm_per_km=matrices[1], c_nf_per_km=matrices[2])
    lines = tuple(
        Line(name=f"l{b}", from_bus=f"b{a}", to_bus=f"b{b}", phases=(1, 2, 3), line_code="cable", length_km=SECTION_KM)
        for b, a in enumerate(radial_tree(num_buses).tolist(), 1)
    )
    kw = _load_kw(num_buses)
    common = {"connection": "wye", "model": 1, "kv": KV / 3**0.5, "vmin_pu": 0.3, "vmax_pu": 2.0, "vlow_pu": 0.1}
    loads = tuple(
        Load(name=f"d{b}{p}", bus=f"b{b}", phases=(p,), kw=kw, kvar=0.3 * kw, **common)
        for b in range(1, num_buses)
        for p in (1, 2, 3)
    )
    source = Source(
        bus="b0", phases=(1, 2, 3), kv=KV, pu=1.0, angle_deg=0.0,
        r1_ohm=0.0, x1_ohm=SOURCE_OHM, r0_ohm=0.0, x0_ohm=SOURCE_OHM,
    )  # fmt: skip
    return Feeder(
        name="radial", frequency_hz=HZ, base_kv=(KV,), source=source, line_codes=(code,), lines=lines,
        transformers=(), regulators=(), capacitors=(), loads=loads,
    )  # fmt: skip


def _load_kw(num_buses: int) -> float:
    """Return a load that lets the voltage fall by some percent whatever the size."""
    depth = np.zeros(num_buses)
    for bus, parent in enumerate(radial_tree(num_buses).tolist(), 1):
        depth[bus] = depth[parent] + 1.0
    return float(20000.0 / (num_buses * depth.mean()))


def pgm_model(num_buses: int) -> PowerGridModel:
    """Return the radial grid as power-grid-model's."""
    n, volts = num_buses, KV * 1e3
    node = initialize_array("input", "node", n)
    node["id"], node["u_rated"] = np.arange(n), volts
    line = initialize_array("input", "line", n - 1)
    line["id"], line["to_node"], line["from_node"] = np.arange(n, 2 * n - 1), np.arange(1, n), radial_tree(n)
    line["from_status"] = line["to_status"] = 1
    for name, z, c in (("1", Z1, C1_NF), ("0", Z0, C0_NF)):
        line[f"r{name}"], line[f"x{name}"] = z.real * SECTION_KM, z.imag * SECTION_KM
        line[f"c{name}"], line[f"tan{name}"] = c * 1e-9 * SECTION_KM, 0.0
    line["i_n"] = 1e4
    load = initialize_array("input", "asym_load", n - 1)
    load["id"], load["node"], load["status"] = np.arange(2 * n, 3 * n - 1), np.arange(1, n), 1
    load["type"] = LoadGenType.const_power
    load["p_specified"], load["q_specified"] = _load_kw(n) * 1e3, 0.3 * _load_kw(n) * 1e3
    source = initialize_array("input", "source", 1)
    source["id"], source["node"], source["status"], source["u_ref"] = 4 * n, 0, 1, 1.0
    source["sk"], source["rx_ratio"], source["z01_ratio"] = volts**2 / SOURCE_OHM, 0.0, 1.0
    return PowerGridModel({"node": node, "line": line, "asym_load": load, "source": source}, system_frequency=HZ)


def pgm_update(num_buses: int, kw: NDArray[np.float64], kvar: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return the batch of load changes; kw, kvar: [E, 3 (num_buses - 1)]."""
    update = initialize_array("update", "asym_load", (len(kw), num_buses - 1))
    update["id"] = np.arange(2 * num_buses, 3 * num_buses - 1)
    update["p_specified"] = kw.reshape(len(kw), -1, 3) * 1e3
    update["q_specified"] = kvar.reshape(len(kvar), -1, 3) * 1e3
    return {"asym_load": update}


def pgm_solve(model: PowerGridModel, update: dict[str, NDArray[Any]], method: str, tolerance: float) -> NDArray[Any]:
    """Return voltage magnitudes, pu, [E, num_buses, 3], from an asymmetric batch on one thread."""
    result = model.calculate_power_flow(
        symmetric=False, update_data=update, calculation_method=CalculationMethod[method],
        error_tolerance=tolerance, max_iterations=100, threading=-1, output_component_types=["node"],
    )  # fmt: skip
    magnitudes: NDArray[Any] = result["node"]["u_pu"]
    return magnitudes
