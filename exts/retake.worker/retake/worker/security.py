# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the service: programs of this user on this machine that know the token. Nobody else.

A page on the web can make the user's browser send requests to 127.0.0.1. Three things stop it: the Host must be a name
of this machine (DNS rebinding), an Origin must be our own, and every call needs the token from a file only the user can
read, sent in a header (there are no cookies a browser would attach by itself).
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retake.core.errors import WorkerError

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
OPEN_PATHS = frozenset({"/api/health"})
# Everything the page needs is its own file; blobs are the videos it fetched with the token.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def read_or_make_token(path: Path) -> str:
    """The token of a state folder; made on first use, readable by its owner only. Raises WorkerError otherwise."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    if os.name == "posix":
        if path.is_symlink() or path.stat().st_uid != os.getuid():
            raise WorkerError(f"token file {path} is a link or belongs to another user; remove it and start again")
        path.chmod(0o600)
    token = path.read_text("ascii", "replace").strip()
    if len(token) < 32 or not token.isascii():
        raise WorkerError(f"token file {path} holds no token; remove it and start again")
    return token


class Guard:
    """ASGI middleware: Host, Origin, token, size of the body; security headers on every answer."""

    def __init__(self, app: ASGIApp, token: str, max_body_bytes: int) -> None:
        self.app, self._token, self._max = app, token.encode(), max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets here
        refusal = self._refuse(scope)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        if refusal is not None:
            await _drain(receive, scope)
            await refusal(scope, receive, guarded_send)
            return
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max:
                # The one exception that FastAPI lets through from reading a body.
                raise HTTPException(413, self._too_large_text)
            return message

        await self.app(scope, bounded_receive, guarded_send)

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        headers, path = Headers(scope=scope), scope["path"]
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if name not in LOCAL_NAMES or (port and not port.isdigit()):
            return _error(403, f"Host {host[:100]!r} is not this machine; use http://127.0.0.1:<port>")
        for origin in headers.getlist("origin"):
            if origin.lower() != f"http://{host}":
                return _error(403, f"Origin {origin[:100]!r} is not this service; web pages cannot drive the worker")
        api = path == "/api" or path.startswith("/api/")
        if api and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _error(403, "a request from another site; web pages cannot drive the worker")
        length = headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 18:
            return _error(400, "Content-Length is not a number")
        if int(length) > self._max:
            return self._too_large()
        if api and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                given.strip().encode("utf-8", "replace"), self._token
            ):
                answer = _error(401, "missing or wrong token; send 'Authorization: Bearer <content of the token file>'")
                answer.headers["WWW-Authenticate"] = "Bearer"
                return answer
        return None

    def _too_large(self) -> JSONResponse:
        return _error(413, self._too_large_text)

    @property
    def _too_large_text(self) -> str:
        return f"the body is larger than {self._max} bytes; send fewer jobs per request"


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text.encode("ascii", "replace").decode()}, status)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    headers = list(message.get("headers", []))
    have = {name.lower() for name, _ in headers}
    for name, value in (
        (b"content-security-policy", POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ):
        if name not in have:
            headers.append((name, value))
    message["headers"] = headers


async def _drain(receive: Receive, scope: Scope) -> None:
    """Read a small refused body, so that the client sees the answer and not a broken pipe."""
    length = Headers(scope=scope).get("content-length", "0")
    if length.isdigit() and len(length) < 8 and int(length) <= 1 << 20:
        seen, more = 0, int(length) > 0
        while more and seen <= 1 << 20:
            message = await receive()
            seen += len(message.get("body", b""))
            more = message.get("more_body", False)
