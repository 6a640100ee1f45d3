"""A Ray session: guarded by a token, one thread per process, and nothing left afterwards."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

import pytest
import ray

from gridray.cluster.runtime import THREAD_PINS, ray_session
from gridray.errors import GridRayError


@pytest.fixture
def no_ray() -> None:
    if ray.is_initialized():
        ray.shutdown()


def commands_with(text: str) -> list[str]:
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # the process has just ended
        if text in command:
            lines.append(command)
    return lines


@ray.remote
def worker_environment() -> dict[str, str]:
    return dict(os.environ)


@pytest.mark.usefixtures("no_ray")
def test_session_is_private_pinned_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with ray_session(num_cpus=1):
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        seen = ray.get(worker_environment.remote(), timeout=60)
        assert {name: seen[name] for name in THREAD_PINS} == dict.fromkeys(THREAD_PINS, "1")
        assert ray.cluster_resources()["CPU"] == 1
        assert commands_with(str(token.parent))
        with ray_session(num_cpus=2):
            assert ray.cluster_resources()["CPU"] == 1
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert not token.parent.exists()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    deadline = time.monotonic() + 5
    while commands_with(str(token.parent)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert commands_with(str(token.parent)) == []


@pytest.mark.usefixtures("no_ray")
def test_unreachable_cluster_is_a_plain_error_within_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(GridRayError, match=r"127\.0\.0\.1:1.*unset RAY_ADDRESS"), ray_session():
        pass
    assert time.monotonic() - started < 30
    assert not ray.is_initialized()


@pytest.mark.usefixtures("no_ray")
def test_long_temporary_folder_still_gives_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    long_folder = tmp_path / ("x" * 60)
    long_folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long_folder))
    with ray_session(num_cpus=1):
        assert ray.get(worker_environment.remote(), timeout=60)["OMP_NUM_THREADS"] == "1"
