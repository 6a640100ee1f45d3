"""The API key: where it comes from, and the gate that asks for it before a request is even read."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

KEY_VARIABLE = "GRIDRAY_API_KEY"
MIN_KEY_CHARACTERS = 16
OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready", "/openapi.json", "/docs"})
"""Health for load balancers, and documentation, which tells nothing about the policy."""


def find_key(key_file: Path | None) -> str | None:
    """Return the API key from the file, else from GRIDRAY_API_KEY, else None.

    Raises:
        ConfigError: The file cannot be read or others may read it, or the key is too short.
    """
    key = os.environ.get(KEY_VARIABLE) if key_file is None else _read_private(key_file)
    if key is not None and len(key) < MIN_KEY_CHARACTERS:
        source = KEY_VARIABLE if key_file is None else f"file '{key_file}'"
        raise ConfigError(f"API key in {source} has {len(key)} characters: give at least {MIN_KEY_CHARACTERS}")
    return key


def key_digest(key: str) -> str:
    """Return the SHA-256 of a key: replicas get this, so that no key stands in Ray's state."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeyGate:
    """ASGI middleware: 401 without the key, except for health and documentation."""

    def __init__(self, app: ASGIApp, *, digest: str) -> None:
        self._app = app
        self._digest = digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it may be answered."""
        # Serve puts the route prefix in front of the path.
        is_open = scope["type"] == "lifespan" or scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS
        if is_open or self._has_key(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        error = "API key is missing or wrong: send it in the header X-API-Key or as Authorization: Bearer KEY"
        response = JSONResponse({"error": error}, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        return hmac.compare_digest(key_digest(given), self._digest)


def _read_private(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"API key file '{path}' cannot be read ({error}): give a text file with the key") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"API key file '{path}' is open to others (mode {mode & 0o777:o}): chmod 600 it")
    return text.strip()
