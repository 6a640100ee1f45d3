"""The cluster files hold to Ray's own schema, start no open Ray, and carry no secret."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from gridray.cluster.runtime import THREAD_PINS

REPOSITORY = Path(__file__).parents[1]
CLUSTERS = sorted((REPOSITORY / "clusters").glob("*.yaml"))
UTILITIES = {"utility_north", "utility_south", "utility_east"}


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def test_four_kinds_of_cluster_are_there() -> None:
    assert [path.stem for path in CLUSTERS] == ["aws", "azure", "gcp", "local"]


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_cluster_holds_to_rays_schema(path: Path) -> None:
    config = prepare_config(read(path))
    validate_config(config)
    assert config["provider"]["type"] == path.stem


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_every_ray_command_runs_in_the_token_environment(path: Path) -> None:
    config = read(path)
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert len(commands) == 4
    assert all(command.startswith(". ~/gridray/clusters/node_environment.sh; ") for command in commands)
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert any("-c ~/gridray/constraints.txt" in command for command in config["setup_commands"])


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_what_is_sent_to_the_nodes_exists(path: Path) -> None:
    sources = [source for source in read(path)["file_mounts"].values() if not source.startswith("~")]
    assert sources
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []


@pytest.mark.parametrize("path", [path for path in CLUSTERS if path.stem != "local"], ids=lambda path: path.stem)
def test_each_utility_has_its_own_machine(path: Path) -> None:
    workers = {name: kind for name, kind in read(path)["available_node_types"].items() if name != "head"}
    assert {resource for kind in workers.values() for resource in kind["resources"]} == UTILITIES
    assert {kind["max_workers"] for kind in workers.values()} == {1}


def test_node_environment_sets_token_and_thread_pins(tmp_path: Path) -> None:
    script = f". {REPOSITORY / 'clusters' / 'node_environment.sh'}; env"
    shown = subprocess.run(  # noqa: S603 - our own file
        ["/bin/sh", "-euc", script],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
    seen = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    assert seen["RAY_AUTH_MODE"] == "token"
    assert seen["RAY_AUTH_TOKEN_PATH"] == f"{tmp_path}/.ray/auth_token"
    assert {name: seen[name] for name in THREAD_PINS} == THREAD_PINS


@pytest.mark.timeout(400)
@pytest.mark.skipif("GRIDRAY_TEST_RAY_UP" not in os.environ, reason="set GRIDRAY_TEST_RAY_UP=1 (root, dropbear, rsync)")
def test_local_cluster_comes_up_over_ssh_runs_a_job_and_goes() -> None:
    before = set(Path(tempfile.gettempdir()).glob("grl.*"))
    run = subprocess.run(  # noqa: S603 - our own file
        [str(REPOSITORY / "clusters" / "loopback.sh")], capture_output=True, text=True, check=False, timeout=380
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for utility in UTILITIES:
        assert f'{{"resource": "{utility}", "converged": true' in run.stdout
    assert set(Path(tempfile.gettempdir()).glob("grl.*")) == before
