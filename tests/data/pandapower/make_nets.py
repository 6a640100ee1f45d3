"""Write the nets beside this file with pandapower's own solutions, in an environment of its own.

pandapower 3.5.6 does not run with pandas 3: `pip install pandapower==3.5.6 simbench==1.6.3 numba`, then run this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as pn
import simbench

FOLDER = Path(__file__).parent
SCALARS = {"name", "f_hz", "sn_mva", "version", "format_version"}
LEFT_OUT = {"geo", "coords", "substation", "subnet", "voltLvl", "profile"}


def slim(net: pp.pandapowerNet) -> dict[str, Any]:
    """Return to_json's content without results, profiles, empty tables and drawing columns."""
    kept: dict[str, Any] = {}
    for key, value in json.loads(pp.to_json(net))["_object"].items():
        if key in SCALARS:
            kept[key] = value
        elif isinstance(value, dict) and value.get("_class") == "DataFrame" and not key.startswith(("res_", "_")):
            table = json.loads(value["_object"])
            if not table.get("data") or key == "loadcases":
                continue
            columns = [i for i, column in enumerate(table["columns"]) if column not in LEFT_OUT]
            table["columns"] = [table["columns"][i] for i in columns]
            table["data"] = [[row[i] for i in columns] for row in table["data"]]
            text = json.dumps(table, separators=(",", ":"))
            kept[key] = {"_module": "pandas.core.frame", "_class": "DataFrame", "_object": text, "orient": "split"}
    return {"_module": "pandapower.auxiliary", "_class": "pandapowerNet", "_object": kept}


def write(name: str, net: pp.pandapowerNet, *, is_unbalanced: bool = False) -> None:
    """Solve the net and write it and its voltages (pu, degrees; three a bus if unbalanced)."""
    method = pp.runpp_3ph if is_unbalanced else pp.runpp
    method(net, tolerance_mva=1e-12, max_iteration=100, calculate_voltage_angles=True)
    result = net.res_bus_3ph if is_unbalanced else net.res_bus
    letters = ("_a", "_b", "_c") if is_unbalanced else ("",)
    voltages = {
        str(bus): [[row[f"vm{letter}_pu"], row[f"va{letter}_degree"]] for letter in letters]
        for bus, row in result.iterrows()
        if np.isfinite(row[f"vm{letters[0]}_pu"])
    }
    solution = {"pandapower": pp.__version__, "method": method.__name__, "bus": voltages}
    for suffix, content in (("", slim(net)), (".solution", solution)):
        (FOLDER / f"{name}{suffix}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


def zip_net() -> pp.pandapowerNet:
    """Return a Kerber net whose loads are part impedance, part constant current."""
    net = pn.create_kerber_landnetz_kabel_2()
    for column, percent in (("z_p", 30.0), ("i_p", 20.0), ("z_q", 10.0), ("i_q", 40.0)):
        net.load[f"const_{column}_percent"] = percent
    return net


def features_net() -> pp.pandapowerNet:
    """Return a net with taps on both sides, units in parallel, four vector groups, switches, shunts and a loop."""
    net = pp.create_empty_network(f_hz=60.0, name="features")
    bus = [pp.create_bus(net, kv) for kv in (110, 20, 20, 20, 20, 0.4, 0.4, 20, 10)]
    pp.create_ext_grid(net, bus[0], vm_pu=1.02, va_degree=10.0)
    tap = {"tap_neutral": 0, "tap_min": -9, "tap_max": 9, "tap_step_degree": 0, "tap_changer_type": "Ratio"}
    large = {"sn_mva": 25, "vn_hv_kv": 110, "vn_lv_kv": 20, "vkr_percent": 0.4, "vk_percent": 11, "pfe_kw": 14}
    pp.create_transformer_from_parameters(
        net, bus[0], bus[1], **large, i0_percent=0.7, shift_degree=150, parallel=2,
        tap_side="hv", tap_step_percent=1.5, tap_pos=-3, **tap,
    )  # fmt: skip
    small = {"sn_mva": 0.63, "vn_hv_kv": 20.5, "vn_lv_kv": 0.4, "vkr_percent": 1.2, "vk_percent": 6, "pfe_kw": 1.2}
    pp.create_transformer_from_parameters(
        net, bus[4], bus[5], **small, i0_percent=0.3, shift_degree=330,
        tap_side="lv", tap_step_percent=2.5, tap_pos=2, **tap,
    )  # fmt: skip
    medium = {"sn_mva": 5, "vn_hv_kv": 20, "vn_lv_kv": 10.2, "vkr_percent": 0.8, "vk_percent": 7, "pfe_kw": 5}
    pp.create_transformer_from_parameters(net, bus[2], bus[8], **medium, i0_percent=0.5, shift_degree=0)
    pp.create_line_from_parameters(net, bus[1], bus[2], 4, 0.4, 0.3, 200, 0.3, g_us_per_km=2.0)
    pp.create_line_from_parameters(net, bus[2], bus[3], 6, 0.4, 0.3, 210, 0.3, parallel=2)
    pp.create_line_from_parameters(net, bus[3], bus[7], 5, 0.3, 0.35, 220, 0.3)
    pp.create_line_from_parameters(net, bus[7], bus[1], 7, 0.3, 0.35, 230, 0.3)
    pp.create_line_from_parameters(net, bus[5], bus[6], 0.15, 0.2, 0.08, 200, 0.3)
    pp.create_switch(net, bus[3], bus[4], "b", closed=True)
    pp.create_switch(net, bus[7], 3, "l", closed=False)
    pp.create_switch(net, bus[3], 2, "l", closed=True)
    pp.create_load(net, bus[6], 0.2, 0.07)
    pp.create_load(net, bus[8], 2.0, 0.6)
    pp.create_load(net, bus[7], 3.0, 1.0, scaling=0.9)
    pp.create_sgen(net, bus[6], 0.05, -0.01, type="PV")
    pp.create_storage(net, bus[5], 0.03, 0.02, q_mvar=0.004)
    pp.create_shunt(net, bus[8], -0.6, p_mw=0.02)
    pp.create_shunt(net, bus[3], 0.3, vn_kv=21.0)
    pp.create_ward(net, bus[2], 0.4, 0.1, 0.2, -0.1)
    return net


def unbalanced_net(group: str, shift_degree: float, vk0_percent: float, vkr0_percent: float) -> pp.pandapowerNet:
    """Return a small LV net with zero-sequence data and loads in wye and delta."""
    net = pp.create_empty_network(f_hz=50.0, name=f"{group.lower()}{shift_degree:.0f}_3ph")
    bus = [pp.create_bus(net, kv) for kv in (20, 0.4, 0.4, 0.4)]
    grid = {"s_sc_max_mva": 1e9, "s_sc_min_mva": 1e9, "rx_max": 0.1, "rx_min": 0.1, "x0x_max": 1.0, "r0x0_max": 0.1}
    pp.create_ext_grid(net, bus[0], **grid)
    pp.create_transformer_from_parameters(
        net, bus[0], bus[1], sn_mva=0.25, vn_hv_kv=20, vn_lv_kv=0.4, vkr_percent=1.3, vk_percent=4, pfe_kw=0.6,
        i0_percent=0.4, shift_degree=shift_degree, vector_group=group, vk0_percent=vk0_percent,
        vkr0_percent=vkr0_percent, mag0_percent=100, mag0_rx=0.2, si0_hv_partial=0.9,
    )  # fmt: skip
    zero = {"r0_ohm_per_km": 1.1, "x0_ohm_per_km": 0.3, "c0_nf_per_km": 180}
    pp.create_line_from_parameters(net, bus[1], bus[2], 0.2, 0.3, 0.08, 250, 0.3, **zero)
    pp.create_line_from_parameters(net, bus[2], bus[3], 0.3, 0.3, 0.08, 250, 0.3, **zero)
    pp.create_asymmetric_load(net, bus[3], 0.02, 0.01, 0.005, 0.03, 0.005, 0.004, 0.001)
    pp.create_asymmetric_load(net, bus[2], 0.01, 0.004, 0.015, 0.002, 0.003, 0.001, type="delta")
    pp.create_asymmetric_sgen(net, bus[2], 0.004, 0, 0.006, 0, 0, 0)
    pp.create_load(net, bus[3], 0.012, 0.004)
    return net


if __name__ == "__main__":
    write("case33bw", pn.case33bw())
    write("cigre_mv", pn.create_cigre_network_mv(with_der="pv_wind"))
    write("cigre_lv", pn.create_cigre_network_lv())
    write("kerber", pn.create_kerber_landnetz_kabel_1())
    write("kerber_zip", zip_net())
    write("simbench_lv", simbench.get_simbench_net("1-LV-rural1--0-sw"))
    write("features", features_net())
    write("dyn1_3ph", unbalanced_net("Dyn", 30.0, 4.0, 1.3), is_unbalanced=True)
    write("dyn5_3ph", unbalanced_net("Dyn", 150.0, 3.6, 1.1), is_unbalanced=True)
    write("ynyn0_3ph", unbalanced_net("YNyn", 0.0, 3.6, 1.1), is_unbalanced=True)
