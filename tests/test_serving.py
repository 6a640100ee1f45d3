"""A policy behind `gridray serve`: real Ray Serve, real HAProxy, real HTTP on the loopback address."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import yaml

from gridray.algorithms.bundle import load_bundle, save_bundle
from gridray.algorithms.registry import make_learner
from gridray.errors import BundleError, ConfigError
from gridray.serving.access import find_key
from gridray.serving.ingress import check_port_is_free
from gridray.serving.observations import RequestError, read_rows
from gridray.serving.schemas import InferResponse, ModelMetadata
from gridray.tasks.base import scaled_observations, set_points
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridray.algorithms.bundle import Bundle

REPOSITORY = Path(__file__).parents[1]
GRIDRAY = str(Path(sys.executable).with_name("gridray"))
START_S = 90.0
HEADERS = {"Content-Type": "application/json"}


class Server(NamedTuple):
    """A running server: where it is, its key and what it printed."""

    port: int
    key: str
    info: dict[str, Any]
    process: subprocess.Popen[str]

    def ask(self, path: str, body: object = None, *, key: str | None = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of a request; body may be text that is no JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        given = self.key if key is None else key
        connection.request("GET" if body is None else "POST", path, data, HEADERS | {"X-API-Key": given} | headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    task = make_task("volt_var", {"feeder": "ieee13", "num_days": 5})
    sizes = {"observation_size": len(task.observation_channels), "action_size": len(task.action_channels)}
    learner = make_learner("bc", **sizes, seed=3)
    return save_bundle(tmp_path_factory.mktemp("serving") / "policy", learner=learner, task=task, provenance={})


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The command has a Ray of its own: its ingress settings must be there before Ray starts.
    key_file = tmp_path_factory.mktemp("key") / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(secrets.token_hex())
    port = free_port()
    log = bundle.path.with_name("decisions.jsonl")
    options = ["--port", str(port), "--api-key-file", str(key_file), "--decision-log", str(log), "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(  # noqa: S603  # fixed command
        [GRIDRAY, "serve", str(bundle.path), *options], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        info = read_announcement(process)
        yield Server(port, key_file.read_text(), info, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def read_announcement(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON document that the command prints when it is ready."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_S)
    assert readable, f"gridray serve printed nothing within {START_S} s"
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip() == "}":
            break
    info: dict[str, Any] = json.loads("".join(lines))
    return info


def nominal(bundle: Bundle) -> dict[str, float]:
    """Observations in physical units that differ from each other."""
    return {
        channel.name: channel.offset + 0.01 * index / channel.scale
        for index, channel in enumerate(bundle.manifest.observation_channels)
    }


def test_server_is_ready_behind_haproxy(server: Server, bundle: Bundle) -> None:
    assert server.info["ingress"] == "haproxy"
    assert server.ask("/v2/health/ready", key="none") == (200, {"ready": True})
    assert server.ask("/v2/health/live", key="none") == (200, {"live": True})
    status, answer = server.ask(f"/v2/models/{server.info['model']}")
    assert status == 200
    metadata = ModelMetadata.model_validate(answer)
    assert (metadata.platform, metadata.versions) == ("gridray", [server.info["policy_id"]])
    assert metadata.inputs[0].shape == [-1, len(bundle.manifest.observation_channels)]
    assert metadata.outputs[0].shape == [-1, len(bundle.manifest.action_channels)]


def test_set_points_equal_those_of_the_local_policy(server: Server, bundle: Bundle) -> None:
    named = nominal(bundle)
    body = {"feeder": "ieee13", "observations": [named, list(named.values())]}
    status, answer = server.ask("/v1/setpoints", body, **{"X-Request-ID": "shift-7"})
    assert status == 200
    manifest = bundle.manifest
    scaled = scaled_observations(manifest.observation_channels, np.array([list(named.values())]))
    actions = bundle.policy.act(scaled, np.random.default_rng(0))
    values = set_points(manifest.action_channels, actions)[0]
    assert (answer["request_id"], answer["policy_id"]) == ("shift-7", server.info["policy_id"])
    for decision in answer["decisions"]:
        # A batch of two rows may be summed in another order than one row.
        np.testing.assert_allclose(decision["actions"], actions[0], atol=1e-6)
        given = [np.nan if point["value"] is None else point["value"] for point in decision["set_points"]]
        np.testing.assert_allclose(given, values, atol=1e-2)
        names = [f"{point['device']}.{point['quantity']}" for point in decision["set_points"]]
        assert names == [channel.name for channel in manifest.action_channels]
        assert [point["unit"] for point in decision["set_points"]] == [c.unit for c in manifest.action_channels]
    last = json.loads(bundle.path.with_name("decisions.jsonl").read_text().splitlines()[-1])
    assert last["request_id"] == "shift-7"
    np.testing.assert_allclose(last["actions"][0], actions[0], atol=1e-6)


def test_tensors_of_the_open_inference_protocol_give_the_same_actions(server: Server, bundle: Bundle) -> None:
    values = list(nominal(bundle).values())
    _, set_point_answer = server.ask("/v1/setpoints", {"feeder": "ieee13", "observations": [values]})
    tensor = {"name": "observations", "shape": [2, len(values)], "datatype": "FP64"}
    for data in ([*values, *values], [values, values]):
        body = {"id": "a", "inputs": [tensor | {"data": data}], "parameters": {"feeder": "ieee13"}}
        status, answer = server.ask(f"/v2/models/{server.info['model']}/infer", body)
        assert status == 200
        reply = InferResponse.model_validate(answer)
        assert (reply.id, reply.model_name, reply.model_version) == (
            "a",
            server.info["model"],
            server.info["policy_id"],
        )
        expected = set_point_answer["decisions"][0]["actions"]
        assert (reply.outputs[0].datatype, reply.outputs[0].shape) == ("FP32", [2, len(expected)])
        np.testing.assert_allclose(reply.outputs[0].data, [*expected, *expected], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "field", "hint"),
    [
        ({"feeder": "ieee34"}, "feeder", "ieee13"),
        ({"feeder": None}, "feeder", "string"),
        ({"observations": []}, "observations", "at least 1"),
        ({"observations": [[1.0, 2.0]]}, "observations[0]", "has 2 values"),
        ({"observations": ["all"]}, "observations[0]", "list of values"),
        ({"vmag_pu.650.1": float("nan")}, "observations[0].vmag_pu.650.1", "finite"),
        ({"vmag_pu.650.1": float("-inf")}, "observations[0].vmag_pu.650.1", "finite"),
        ({"vmag_pu.650.1": 1e300}, "observations[0].vmag_pu.650.1", "no possible value"),
        ({"vmag_pu.650.1": "1.0"}, "observations[0].vmag_pu.650.1", "number"),
        ({"observations": [[0.0]] * 1025}, "observations", "at most 1024"),
        ({"feedr": "ieee13"}, "feedr", "not permitted"),
    ],
)
def test_wrong_request_is_refused_with_its_field_named(
    server: Server, bundle: Bundle, change: dict[str, Any], field: str, hint: str
) -> None:
    body: dict[str, Any] = {"feeder": "ieee13", "observations": [nominal(bundle)]}
    for key, value in change.items():
        target = body["observations"][0] if key.startswith("vmag_pu") else body
        target[key] = value
    status, answer = server.ask("/v1/setpoints", body)
    assert status == 422
    problem = answer["detail"][0]
    assert problem["field"] == field
    assert hint in problem["message"]


def test_misspelt_observation_gets_the_nearest_name(server: Server, bundle: Bundle) -> None:
    row = nominal(bundle)
    row["vmag_pu.65O.1"] = row.pop("vmag_pu.650.1")
    status, answer = server.ask("/v1/setpoints", {"feeder": "ieee13", "observations": [row]})
    assert status == 422
    unknown, missing = answer["detail"]
    assert unknown["field"] == "observations[0].vmag_pu.65O.1"
    assert "did you mean 'vmag_pu.650.1'" in unknown["message"]
    assert missing["field"] == "observations[0].vmag_pu.650.1"


def test_request_without_feeder_or_json_is_refused(server: Server, bundle: Bundle) -> None:
    status, answer = server.ask("/v1/setpoints", {"observations": [nominal(bundle)]})
    assert (status, answer["detail"][0]["field"]) == (422, "feeder")
    assert server.ask("/v1/setpoints", "{not json")[0] == 422
    assert server.ask("/v2/models/other")[0] == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"shape": [1, 3], "data": [1.0, 2.0, 3.0]}, "inputs[0].shape"),
        ({"data": [1.0]}, "inputs[0].data"),
        ({"data": [[1.0], [2.0]]}, "inputs[0].data"),
        ({"datatype": "INT8"}, "inputs[0].datatype"),
        ({"name": "obs"}, "inputs[0].name"),
    ],
)
def test_wrong_tensor_is_refused_with_its_field_named(
    server: Server, bundle: Bundle, change: dict[str, Any], field: str
) -> None:
    values = list(nominal(bundle).values())
    tensor = {"name": "observations", "shape": [1, len(values)], "datatype": "FP64", "data": values} | change
    status, answer = server.ask(f"/v2/models/{server.info['model']}/infer", {"inputs": [tensor]})
    assert (status, answer["detail"][0]["field"]) == (422, field)


@pytest.mark.parametrize("path", ["/v1/setpoints", "/v1/policy", "/v2/models/any", "/v2/models/any/infer"])
def test_no_answer_without_the_key(server: Server, path: str) -> None:
    # Even a body that is no JSON is not looked at.
    assert server.ask(path, "{" if path.endswith(("setpoints", "infer")) else None, key="wrong")[0] == 401
    assert server.ask(path, key="")[0] == 401


def test_bearer_token_is_the_key_too(server: Server) -> None:
    status, policy = server.ask("/v1/policy", key="", Authorization=f"Bearer {server.key}")
    assert (status, policy["policy_id"]) == (200, server.info["policy_id"])


def test_openapi_document_has_examples_and_the_key(server: Server) -> None:
    status, document = server.ask("/openapi.json", key="")
    assert status == 200
    assert document["openapi"].startswith("3.")
    assert {"/v1/setpoints", "/v2/health/ready", "/v2/models/{name}/infer"} <= set(document["paths"])
    assert document["components"]["schemas"]["SetPointRequest"]["examples"]
    assert document["paths"]["/v1/setpoints"]["post"]["security"]
    assert {"401", "422"} <= set(document["paths"]["/v1/setpoints"]["post"]["responses"])


def test_statistics_of_haproxy_are_on_loopback_only(server: Server) -> None:
    assert server.info["ingress"] == "haproxy"
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9]: line.split()[1] for line in listening if line.split()[3] == "0A"}
    addresses = [inodes[inode] for inode in haproxy_sockets(server.port) if inode in inodes]
    # 127.0.0.1 as /proc writes it: HTTP, statistics and metrics.
    assert len(addresses) >= 3
    assert all(address.startswith("0100007F:") for address in addresses)


def haproxy_sockets(port: int) -> set[str]:
    """Return inodes of the sockets of the HAProxy that listens on this port."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() != "haproxy":
                continue
            config = next(word for word in (process / "cmdline").read_text().split("\0") if word.endswith(".cfg"))
            if f"127.0.0.1:{port}" not in Path(config).read_text():
                continue
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except (OSError, StopIteration):
            continue
        return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    return set()


def test_example_prints_a_line_for_each_set_point(server: Server, bundle: Bundle) -> None:
    example = str(REPOSITORY / "examples" / "query_policy.py")
    done = run(sys.executable, example, f"127.0.0.1:{server.port}", GRIDRAY_API_KEY=server.key)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(bundle.manifest.action_channels)


def test_port_in_use_is_refused(server: Server, bundle: Bundle) -> None:
    done = run(GRIDRAY, "serve", str(bundle.path), "--port", str(server.port))
    assert done.returncode == 1
    assert str(server.port) in done.stderr


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(  # noqa: S603  # fixed commands
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_server_stops_cleanly_on_sigterm(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0
    check_port_is_free("127.0.0.1", server.port)


def test_tampered_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "policy"
    shutil.copytree(bundle.path, copy)
    weights = bytearray((copy / "policy.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "policy.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
    done = run(GRIDRAY, "serve", str(copy), "--port", str(free_port()))
    assert (done.returncode, done.stdout) == (1, "")
    assert "policy.safetensors" in done.stderr


def test_serve_file_has_valid_arguments_and_no_key(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # Serve reads its settings at import: only this test needs the application in the test process.
    from gridray.serving.app import build  # noqa: PLC0415

    application = yaml.safe_load((REPOSITORY / "serve" / "policy.yaml").read_text())["applications"][0]
    assert application["import_path"] == "gridray.serving.app:build"
    arguments = application["args"] | {"bundle": str(bundle.path)}
    monkeypatch.delenv("GRIDRAY_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="GRIDRAY_API_KEY"):
        build(arguments)
    monkeypatch.setenv("GRIDRAY_API_KEY", "k" * 32)
    assert build(arguments) is not None
    with pytest.raises(ConfigError, match="did you mean 'replicas'"):
        build({"bundle": str(bundle.path), "replica": 2})


def test_key_file_must_be_private_and_long(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k" * 32)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        find_key(file)
    file.chmod(0o600)
    assert find_key(file) == "k" * 32
    file.write_text("short")
    with pytest.raises(ConfigError, match="5 characters"):
        find_key(file)


def test_all_problems_of_a_row_are_listed(bundle: Bundle) -> None:
    row = nominal(bundle)
    del row["vmag_pu.650.1"]
    with pytest.raises(RequestError) as caught:
        read_rows(bundle.manifest.observation_channels, [row | {"other": 1.0}, [1.0]])
    fields = [field for field, _ in caught.value.problems]
    assert fields == ["observations[0].other", "observations[0].vmag_pu.650.1", "observations[1]"]
