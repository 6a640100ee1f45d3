"""pandapower nets give pandapower's voltages; what cannot be represented is named; files are read as data.

The nets and pandapower's own solutions come from tests/data/pandapower/make_nets.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import gridray
from gridray.errors import FeederError
from gridray.feeders.pandapower import from_pandapower, load_pandapower

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridray.feeders.feeder import Feeder

DATA = Path(__file__).parent / "data" / "pandapower"
NETS = sorted(path.name.removesuffix(".solution.json") for path in DATA.glob("*.solution.json"))
CASES = ("case33bw", "case33mg", "case69", "case141")


def frames(name: str) -> dict[str, Any]:
    """Return a net's tables as a pandapowerNet has them."""
    content = json.loads((DATA / f"{name}.json").read_text())["_object"]
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    net: dict[str, Any] = {key: value for key, value in content.items() if key not in tables}
    net["name"] = net["name"] or name
    for key, value in tables.items():
        table = json.loads(value["_object"])
        net[key] = pd.DataFrame(table["data"], index=table["index"], columns=table["columns"])
    return net


def largest_difference(
    feeder: Feeder, expected_pu: Mapping[tuple[str, int], complex], kv: Mapping[str, float]
) -> float:
    """Solve and return the largest difference of a voltage phasor, pu."""
    grid = gridray.compile_feeder(feeder)
    result = gridray.solve(grid, tolerance=1e-10)
    assert result.converged.all()
    volts = dict(zip(grid.node_names, result.voltage[0], strict=True))
    base = {bus: value * 1e3 / 3.0**0.5 for bus, value in kv.items()}
    return max(abs(volts[f"{bus}.{phase}"] / base[bus] - v) for (bus, phase), v in expected_pu.items())


def phasors(magnitudes_and_degrees: Mapping[str, list[list[float]]]) -> dict[tuple[str, int], complex]:
    """Return the voltage of every phase; where one is given the others follow 120 degrees apart."""
    turn = np.exp(-2j * np.pi / 3.0)
    found: dict[tuple[str, int], complex] = {}
    for bus, rows in magnitudes_and_degrees.items():
        values = [m * np.exp(1j * np.deg2rad(angle)) for m, angle in rows]
        for phase in range(3):
            found[bus, phase + 1] = values[phase] if len(values) == 3 else values[0] * turn**phase
    return found


@pytest.mark.parametrize("name", NETS)
def test_voltages_are_pandapowers(name: str) -> None:
    solution = json.loads((DATA / f"{name}.solution.json").read_text())["bus"]
    kv = {str(index): value for index, value in frames(name)["bus"]["vn_kv"].items()}
    assert largest_difference(load_pandapower(DATA / f"{name}.json"), phasors(solution), kv) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_voltages_are_matpowers(reference_dir: Path, name: str) -> None:
    bus = pd.read_csv(reference_dir / f"matpower/{name}_bus.csv", index_col="bus")
    branch = pd.read_csv(reference_dir / f"matpower/{name}_branch.csv")
    assert not branch[["b_pu", "tap", "shift_deg"]].any(axis=None)
    slack = bus.index[bus["type"] == 3][0]
    load = pd.DataFrame({"bus": bus.index, "p_mw": bus["p_kw"] / 1e3, "q_mvar": bus["q_kvar"] / 1e3})
    line = branch.rename(columns={"from": "from_bus", "to": "to_bus", "r_ohm": "r_ohm_per_km", "x_ohm": "x_ohm_per_km"})
    net = {
        "bus": bus.rename(columns={"base_kv": "vn_kv"}),
        "ext_grid": pd.DataFrame({"bus": [slack], "vm_pu": bus.loc[slack, "vm_pu"]}),
        "line": line.assign(length_km=1.0, in_service=branch["status"] == 1),
        "load": load.reset_index(drop=True),
    }
    expected = {str(i): [[row["vm_pu"], row["va_deg"]]] for i, row in bus.iterrows()}
    kv = {str(i): value for i, value in bus["base_kv"].items()}
    assert largest_difference(from_pandapower(net), phasors(expected), kv) < 1e-6


@pytest.mark.parametrize("has_sgen", [False, True])
def test_voltages_of_the_322_bus_grid_are_the_references(reference_dir: Path, has_sgen: bool) -> None:  # noqa: FBT001
    folder = reference_dir / "matpower" / "bus322"
    tables = ("bus", "ext_grid", "line", "trafo", "load", *(("sgen",) if has_sgen else ()))
    net = {table: pd.read_csv(folder / f"{table}.csv", index_col="index") for table in tables}
    result = pd.read_csv(folder / f"res_bus_with{'' if has_sgen else 'out'}_sgen.csv", index_col="index")
    expected = {str(i): [[row["vm_pu"], row["va_degree"]]] for i, row in result.iterrows()}
    kv = {str(i): value for i, value in net["bus"]["vn_kv"].items()}
    assert largest_difference(from_pandapower(net), phasors(expected), kv) < 1e-6


@pytest.mark.parametrize("name", NETS)
def test_net_in_memory_and_its_file_give_the_same_feeder(name: str) -> None:
    assert from_pandapower(frames(name)).content_hash() == load_pandapower(DATA / f"{name}.json").content_hash()


def test_all_that_cannot_be_represented_is_named() -> None:
    net = frames("features")
    net["gen"] = pd.DataFrame({"bus": [1], "p_mw": [1.0], "vm_pu": [1.0], "in_service": [True]})
    net["impedance"] = pd.DataFrame({"from_bus": [1], "to_bus": [2]}, index=[7])
    net["trafo3w"] = pd.DataFrame({"hv_bus": [0]})
    net["flux_capacitor"] = pd.DataFrame({"bus": [0]})
    net["trafo"].loc[1, "shift_degree"] = 180.0
    net["line"].loc[2, "r_ohm_per_km"] = float("nan")
    net["line"].loc[3, "to_bus"] = 99
    with pytest.raises(FeederError) as caught:
        from_pandapower(net)
    message = str(caught.value)
    assert "Net 'features' has 7 problem(s)" in message
    for part in (
        "gen 0: it cannot be represented: make it an sgen",
        "impedance 7: it cannot be represented: give it as a line.",
        "trafo3w 0: it cannot be represented: give two two-winding trafos.",
        "flux_capacitor 0: it cannot be represented",
        "trafo 1: shift_degree is 180.0: give 0, 120, 240 or an odd multiple of 30.",
        "line 2: r_ohm_per_km is None: give a number.",
        "line 3: to_bus 99 is not in the bus table: add the bus.",
    ):
        assert part in message


def test_what_is_out_of_service_or_dead_is_noted() -> None:
    net = frames("features")
    net["gen"] = pd.DataFrame({"bus": [1], "p_mw": [1.0], "vm_pu": [1.0], "in_service": [False]})
    net["load"].loc[0, "in_service"] = False
    net["trafo"].loc[2, "in_service"] = False
    feeder = from_pandapower(net)
    assert "load 0 is out of service: left out." in feeder.notes
    assert "trafo 2 is out of service: left out." in feeder.notes
    assert any(note.startswith("bus 8 has no path to the ext_grid") for note in feeder.notes)
    assert {load.name for load in feeder.loads} == {"load_2", "ward_0"}


def test_branches_at_a_bus_out_of_service_are_left_out() -> None:
    net = frames("case33bw")
    net["bus"].loc[17, "in_service"] = False
    feeder = from_pandapower(net)
    assert "bus 17 is out of service: left out." in feeder.notes
    assert "17" not in {bus for line in feeder.lines for bus in (line.from_bus, line.to_bus)}
    assert "load_16" not in {load.name for load in feeder.loads}


def test_bus_that_mixes_voltage_dependent_and_other_power_is_noted() -> None:
    net = frames("features")
    net["load"]["const_i_p_percent"] = [50.0, 0.0, 0.0]
    assert [note for note in from_pandapower(net).notes if note.startswith("bus 6: its loads keep")]


def test_line_with_an_open_switch_keeps_its_charging_and_one_out_of_service_is_open() -> None:
    lines = {line.name: line for line in load_pandapower(DATA / "features.json").lines}
    assert lines["line_3_end1"].is_open
    assert lines["line_3_end1"].from_bus == "7"
    assert lines["line_3"].from_bus == lines["line_3_end1"].to_bus
    assert lines["line_2"].is_switch
    assert not lines["line_2"].is_open
    ties = [line for line in load_pandapower(DATA / "case33bw.json").lines if line.is_open]
    assert len(ties) == 5


def test_asymmetric_loads_need_zero_sequence_lines() -> None:
    net = frames("dyn1_3ph")
    del net["line"]["r0_ohm_per_km"]
    with pytest.raises(FeederError, match="give r0_ohm_per_km and x0_ohm_per_km"):
        from_pandapower(net)


def test_tap_without_a_type_does_not_act_as_in_pandapower() -> None:
    net = frames("features")
    net["trafo"].loc[0, "tap_changer_type"] = None
    feeder = from_pandapower(net)
    assert feeder.transformers[0].windings[0].tap == 1.0
    assert any("tap does not act" in note for note in feeder.notes)
    with_tap = from_pandapower(frames("features")).transformers[0].windings[0]
    # Position -3 of 1.5 percent a step.
    assert with_tap.tap == pytest.approx(0.955)


def test_classes_named_in_a_file_are_never_called(tmp_path: Path) -> None:
    content = json.loads((DATA / "case33bw.json").read_text())
    trace = tmp_path / "trace"
    content["_object"]["controller"] = {"_module": "pathlib", "_class": "Path.touch", "_object": str(trace)}
    content["_object"]["profiles"] = {"_module": "os", "_class": "system", "_object": f"touch {trace}"}
    path = tmp_path / "net.json"
    path.write_text(json.dumps(content))
    assert load_pandapower(path).content_hash() == load_pandapower(DATA / "case33bw.json").content_hash()
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.p", b"{}", "is a pickle"),
        ("net.json", b"\x80\x04N.", "is a pickle"),
        ("net.json", b'{"bus": ', "is not a net written by pandapower.to_json"),
        ("net.json", b"[" * 100_000, "is not a net written by pandapower.to_json"),
        ("net.json", b"[1, 2]", "has no bus table"),
        ("net.json", b'{"bus": {"_class": "DataFrame", "_object": "{}"}}', "a table has the keys"),
        ("net.json", b'{"bus": {"_class": "DataFrame"}}', "is not a net written by pandapower.to_json"),
        ("net.json", b"\xff\xfe\x00", "is not a net written by pandapower.to_json"),
    ],
)
def test_damaged_and_hostile_files_get_one_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FeederError, match=message):
        load_pandapower(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeederError, match="There is no file"):
        load_pandapower(tmp_path / "none.json")
