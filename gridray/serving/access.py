"""The API key: where it comes from, and the gate that asks for it before a request is even read."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fastapi import FastAPI, Request, Response

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


def ask_for_key(api: FastAPI, *, digest: str) -> None:
    """Let `api` answer 401 without the key, except for health and documentation, before it reads a request's body."""

    async def gate(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        # Serve puts the route prefix in front of the path.
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path in OPEN_PATHS or _has_key(request, digest):
            return await answer(request)
        error = "API key is missing or wrong: send it in the header X-API-Key or as Authorization: Bearer KEY"
        return JSONResponse({"error": error}, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    api.middleware("http")(gate)


def _has_key(request: Request, digest: str) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = request.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    return hmac.compare_digest(key_digest(given), digest)


def _read_private(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"API key file '{path}' cannot be read ({error}): give a text file with the key") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"API key file '{path}' is open to others (mode {mode & 0o777:o}): chmod 600 it")
    return text.strip()
