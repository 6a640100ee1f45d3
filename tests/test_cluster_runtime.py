"""A Ray session: guarded by a token, one thread per process, and nothing left afterwards."""

from __future__ import annotations

import os
import stat
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray

from gridray.cluster.runtime import THREAD_PINS, ray_session
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Callable


def run_alone(check: Callable[[], None]) -> None:
    """Run a check in a process of its own: this one may hold the Ray that other tests share."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), initializer=fail_on_warnings) as pool:
        pool.submit(check).result(timeout=90)


def fail_on_warnings() -> None:
    warnings.simplefilter("error")


def processes_with(text: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # the process has just ended
        if text in command:
            found.append(process)
    return found


def listening_addresses(processes: list[Path]) -> set[str]:
    """Return the addresses on which these processes listen, as /proc writes them."""
    addresses = {}
    for table in ("tcp", "tcp6"):
        lines = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        addresses |= {f"socket:[{words[9]}]": words[1].partition(":")[0] for words in lines if words[3] == "0A"}
    links = [str(link.readlink()) for process in processes for link in (process / "fd").iterdir() if link.is_symlink()]
    return {addresses[link] for link in links if link in addresses}


@ray.remote
def worker_environment() -> dict[str, str]:
    return dict(os.environ)


def check_session() -> None:
    with ray_session(num_cpus=1):
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        seen = ray.get(worker_environment.remote(), timeout=60)
        assert {name: seen[name] for name in THREAD_PINS} == dict.fromkeys(THREAD_PINS, "1")
        assert ray.cluster_resources()["CPU"] == 1
        own = processes_with(str(token.parent))
        # 127.0.0.1 of IPv4, and the same as IPv6 writes it.
        assert listening_addresses(own) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        assert listening_addresses(own)
        with ray_session(num_cpus=2):
            assert ray.cluster_resources()["CPU"] == 1
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert not token.parent.exists()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    deadline = time.monotonic() + 5
    while processes_with(str(token.parent)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(str(token.parent)) == []


def check_session_with_long_temporary_folder() -> None:
    with tempfile.TemporaryDirectory(prefix="x" * 60) as folder:
        tempfile.tempdir = folder
        with ray_session(num_cpus=1):
            assert ray.get(worker_environment.remote(), timeout=60)["OMP_NUM_THREADS"] == "1"


def check_unreachable_cluster() -> None:
    os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
    started = time.monotonic()
    with pytest.raises(GridRayError, match=r"127\.0\.0\.1:1.*unset RAY_ADDRESS"), ray_session():
        pass
    assert time.monotonic() - started < 10
    assert not ray.is_initialized()


@pytest.mark.parametrize("check", [check_session, check_session_with_long_temporary_folder, check_unreachable_cluster])
def test_ray_session(monkeypatch: pytest.MonkeyPatch, check: Callable[[], None]) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    run_alone(check)
