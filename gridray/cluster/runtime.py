"""The one place that starts Ray: private, with a token, one thread per process, and gone afterwards."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray._raylet import Config as RayConfig  # type: ignore[attr-defined]

from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 300 * 2**20
# Unix sockets end at 107 characters; Ray adds "/session_<date>_<time>_<pid>/sockets/plasma_store" to its folder.
MAX_TEMP_DIR_CHARACTERS = 107 - 68
# Ray processes share the cores already: more threads in each made array steps 3 to 5 times slower when measured.
THREAD_PINS = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR")}
# No usage report leaves the machine; a worker without a GPU keeps its device variables (Ray's coming default).
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(
    num_cpus: int | None = None,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    resources: Mapping[str, float] | None = None,
) -> Iterator[None]:
    """Give the block a running Ray and take away what was started for it.

    A Ray that this process already uses is left as it is. With `RAY_ADDRESS` set, the block joins that cluster;
    otherwise it gets a private one on the loopback address, whose token and files are removed at the end.

    Args:
        num_cpus: CPUs that the private Ray offers to tasks; all of the machine's if None.
        object_store_bytes: memory that the private Ray may share between its processes, bytes.
        resources: custom resources that the private Ray offers, by name; what a cluster offers is its nodes' affair.

    Raises:
        GridRayError: if Ray cannot start or the cluster cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.update({name: os.environ.get(name, value) for name, value in (THREAD_PINS | RAY_SETTINGS).items()})
    address = os.environ.get("RAY_ADDRESS")
    with ExitStack() as cleanup:
        if address:
            _check_reachable(address)
            options: dict[str, Any] = {"address": address}
            _enter_token_mode(cleanup, None)
        else:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gr-", dir=_short_root()))
            options = _private_options(folder, os.cpu_count() or 1 if num_cpus is None else num_cpus)
            options |= {"object_store_memory": object_store_bytes, "resources": dict(resources or {})}
            _stay_on_loopback(cleanup)
            _enter_token_mode(cleanup, folder)
        _start(options)
        cleanup.callback(ray.shutdown)
        yield


def _check_reachable(address: str) -> None:
    """Fail within seconds at a dead `host:port`, where Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise GridRayError(_cannot_join(address, error)) from error


def _cannot_join(address: str, reason: object) -> str:
    return (
        f"Cannot join the Ray cluster at RAY_ADDRESS='{address}': {reason}; "
        "check the address and RAY_AUTH_TOKEN_PATH, or unset RAY_ADDRESS to use a private Ray"
    )


def _short_root() -> str:
    root = tempfile.gettempdir()
    # macOS and batch systems give long folders, in which no socket can be made.
    return root if len(root) + len("/gr-12345678") <= MAX_TEMP_DIR_CHARACTERS else "/tmp"  # noqa: S108


def _private_options(folder: str, num_cpus: int) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }


def _stay_on_loopback(cleanup: ExitStack) -> None:
    """Keep Ray from replacing 127.0.0.1 by an address that other machines reach, and from listening there."""
    # Ray reads the setting when it is imported, and so do the processes that it starts.
    cleanup.callback(setattr, ray_constants, "ENABLE_RAY_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER)
    ray_constants.ENABLE_RAY_CLUSTER = False
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    cleanup.callback(_put, {name: os.environ.get(name)})
    _put({name: "0"})


def _enter_token_mode(cleanup: ExitStack, folder: str | None) -> None:
    """Turn token authentication on unless the environment decided; write a fresh token if there is a private folder."""
    settings = {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    has_token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if folder is not None and settings["RAY_AUTH_MODE"] == "token" and not has_token:
        token = Path(folder) / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        settings["RAY_AUTH_TOKEN_PATH"] = str(token)
    before = {name: os.environ.get(name) for name in settings}
    cleanup.callback(_apply, before)
    _apply(settings)


def _put(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _apply(settings: Mapping[str, str | None]) -> None:
    _put(settings)
    # Ray read both when it was imported and would keep the token of an earlier session.
    RayConfig.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _start(options: dict[str, Any]) -> None:
    env_vars = {name: os.environ[name] for name in THREAD_PINS}
    try:
        ray.init(**options, runtime_env={"env_vars": env_vars}, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises the bare class where a node does not start in time
        # A half-started Ray would make the next attempt fail for another reason.
        ray.shutdown()
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"Cannot start a private Ray on 127.0.0.1: {reason}; free memory, or join a cluster by RAY_ADDRESS"
        if options["address"] != "local":
            message = _cannot_join(options["address"], reason)
        raise GridRayError(message) from error
