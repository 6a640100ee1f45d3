"""The Ray Serve application: `gridray serve` runs it, and `serve run` through `gridray.serving.app:build`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve

from gridray.config import parse_config
from gridray.errors import ConfigError
from gridray.serving.access import KEY_VARIABLE, find_key, key_digest
from gridray.serving.api import make_api
from gridray.serving.served import load_served

if TYPE_CHECKING:
    from fastapi import FastAPI
    from numpy.typing import NDArray

MAX_BATCH_REQUESTS = 64
BATCH_WAIT_S = 0.001


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Arguments of the application, under `args` in serve/policy.yaml; the API key is never one of them.

    bundle: folder of the policy bundle, readable where replicas run. api_key_file: text file of mode 600; the key is
    taken from GRIDRAY_API_KEY where none is given. decision_log: file that gets one JSON line per request.
    """

    bundle: str
    replicas: int = 1
    max_rows: int = 1024
    require_api_key: bool = True
    api_key_file: str | None = None
    decision_log: str | None = None

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        for name in ("replicas", "max_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")


def build(args: dict[str, Any]) -> serve.Application:
    """Return the application for `serve run`.

    Raises:
        ConfigError: An argument is unknown or wrong, or no API key is found though one is required.
        BundleError: The bundle is missing or damaged.
    """
    config = parse_config(ServingConfig, args, where="arguments of gridray.serving.app:build")
    key = find_key(None if config.api_key_file is None else Path(config.api_key_file))
    if config.require_api_key and key is None:
        raise ConfigError(f"No API key: set {KEY_VARIABLE} or api_key_file, or set require_api_key: false")
    return bind(config, key)


def bind(config: ServingConfig, key: str | None) -> serve.Application:
    """Return the application; `key` is the API key, which is not asked for if the configuration says so.

    Raises:
        BundleError: The bundle is missing or damaged: better known here than from a replica that does not start.
    """
    load_served(Path(config.bundle))
    digest = key_digest(key) if config.require_api_key and key is not None else None
    deployment = serve.deployment(
        name="Policy",
        num_replicas=config.replicas,
        max_ongoing_requests=4 * MAX_BATCH_REQUESTS,
        logging_config={"enable_access_log": False},
    )(PolicyReplica)
    application: serve.Application = deployment.bind(config, digest)
    return application


@serve.ingress()
class PolicyReplica:
    """One process that answers requests; those that arrive together go through the network as one batch."""

    def __init__(self, config: ServingConfig, digest: str | None) -> None:
        self._config = config
        self._digest = digest
        self._served = load_served(Path(config.bundle))
        # Served policies are deterministic: the generator is only there because every policy takes one.
        self._rng = np.random.default_rng(0)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the HTTP interface; Serve calls this after the constructor."""
        log = self._config.decision_log
        return make_api(
            self._served,
            self._decide,
            max_rows=self._config.max_rows,
            digest=self._digest,
            decision_log=None if log is None else Path(log),
        )

    @serve.batch(max_batch_size=MAX_BATCH_REQUESTS, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _decide(self, requests: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        actions = self._served.policy.act(np.concatenate(requests), self._rng)
        return np.split(actions, np.cumsum([len(rows) for rows in requests])[:-1])
