# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the worker, header by header, and how much at once: the guard by itself, without a server."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from retake.core.errors import WorkerError
from retake.worker.security import POLICY, Guard, read_or_make_token

TOKEN, MOST = "t" * 40, 1000
RIGHT = {"host": "127.0.0.1:8000", "authorization": f"Bearer {TOKEN}"}


class Spoken:
    """A request to a guarded application that reads its whole body and says it."""

    def __init__(
        self, headers: Any, path: str = "/api/jobs", body: tuple[bytes, ...] = (b"",), kind: str = "http"
    ) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reached, self.body, self.taken = False, b"", 0
        pairs = headers.items() if isinstance(headers, dict) else headers
        self.scope = {
            "type": kind, "path": path, "method": "POST", "query_string": b"",
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in pairs],
        }  # fmt: skip
        self.parts = list(body)
        asyncio.run(Guard(self.app, TOKEN, MOST)(self.scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        self.taken += 1
        part = self.parts.pop(0) if self.parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached = True
        more = scope["type"] == "http"
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"own")]})
        await send({"type": "http.response.body", "body": b"ok"})

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.sent[0]["headers"]}

    @property
    def error(self) -> str:
        return json.loads(self.sent[1]["body"])["error"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]", "[::1]:8000", "127.0.0.1:1"])
def test_a_name_of_this_machine_is_let_in(host):
    assert Spoken({**RIGHT, "host": host}).status == 200
    assert Spoken({**RIGHT, "host": host, "origin": f"http://{host}"}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil", "localhost:x", "localhost:80:80", "", "::1", "[::1]x:5", "127.0.0.2"]
)
def test_any_other_host_is_not(host):
    spoken = Spoken({**RIGHT, "host": host})
    assert (spoken.status, spoken.reached) == (403, False)
    assert "is not this machine" in spoken.error


def test_no_host_and_two_hosts_are_refused():
    token = ("authorization", RIGHT["authorization"])
    assert Spoken([token]).status == 403
    assert Spoken([token, ("host", "localhost"), ("host", "localhost")]).status == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1:8000", "http://127.0.0.1", "null", "http://127.0.0.1:8001"]
)
def test_an_origin_is_the_service_s_own(origin):
    spoken = Spoken({**RIGHT, "origin": origin})
    assert spoken.status == 403
    assert "web pages cannot drive the worker" in spoken.error
    own = [*RIGHT.items(), ("origin", "HTTP://127.0.0.1:8000")]
    assert Spoken(own).status == 200
    assert Spoken([*own, ("origin", origin)]).status == 403


@pytest.mark.parametrize(
    ("site", "status"), [("none", 200), ("same-origin", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_a_request_of_another_site_is_refused(site, status):
    for path in ("/api", "/api/jobs"):
        assert Spoken({**RIGHT, "sec-fetch-site": site}, path).status == status
    assert Spoken({**RIGHT, "sec-fetch-site": site}, "/page.js").status == 200  # the page's own files
    assert Spoken({**RIGHT, "sec-fetch-site": site}, "/apix").status == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [(f"Bearer {TOKEN}", 200), (f"bearer   {TOKEN} ", 200), (f"Basic {TOKEN}", 401), (TOKEN, 401), ("Bearer", 401),
     (f"Bearer {TOKEN}x", 401), (f"Bearer {TOKEN[:-1]}", 401), ("Bearer \xff", 401), ("", 401)],
)  # fmt: skip
def test_every_call_needs_the_token(given, status):
    spoken = Spoken({**RIGHT, "authorization": given})
    assert (spoken.status, spoken.reached) == (status, status == 200)
    assert ("www-authenticate" in spoken.headers) == (status == 401)
    assert Spoken({"host": "localhost", "authorization": given}, "/api/health").status == 200
    assert Spoken({"host": "localhost", "authorization": given}, "/index.html").status == 200
    assert Spoken({"host": "localhost"}, "/api").status == 401


@pytest.mark.parametrize(
    ("length", "status"),
    [("0", 200), (str(MOST), 200), (str(MOST + 1), 413), ("x", 400), ("-1", 400), ("9" * 18, 413), ("9" * 19, 400)],
)
def test_a_body_is_measured_before_it_is_read(length, status):
    assert Spoken({**RIGHT, "content-length": length}).status == status


def test_a_body_is_measured_while_it_is_read():
    whole = Spoken(RIGHT, body=(b"a" * 600, b"b" * 400))
    assert (whole.status, len(whole.body)) == (200, 1000)
    with pytest.raises(HTTPException) as error:
        Spoken(RIGHT, body=(b"a" * 600, b"b" * 401))
    assert error.value.status_code == 413
    assert "larger than 1000 bytes" in error.value.detail


@pytest.mark.parametrize(
    ("length", "parts", "taken"),
    [("0", (b"x",), 0), ("6", (b"abc", b"def"), 2), (str(1 << 20), (b"a" * (1 << 19),) * 2, 2), (str((1 << 20) + 1), (b"x",), 0),
     ("123456789", (b"x",), 0), ("x", (b"x",), 0), ("9", (b"a" * (1 << 20), b"b", b"c", b"d"), 2)],
)  # fmt: skip
def test_a_small_refused_body_is_read_so_that_the_answer_arrives(length, parts, taken):
    spoken = Spoken({"host": "evil", "content-length": length}, body=parts)
    assert (spoken.status, spoken.taken) == (403, taken)


def test_answers_may_be_used_by_no_other_page_and_keep_what_they_say_themselves():
    good, bad = Spoken(RIGHT), Spoken({"host": "evil"})
    for spoken in (good, bad):
        headers = spoken.headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    assert (good.headers["cache-control"], bad.headers["cache-control"]) == ("own", "no-store")
    assert [k for k, _ in good.sent[0]["headers"]].count(b"cache-control") == 1


def test_other_kinds_of_connection():
    assert Spoken({}, kind="lifespan").reached
    socket = Spoken(RIGHT, kind="websocket")
    assert (socket.reached, socket.sent) == (False, [])


def test_a_token_is_made_once_and_is_its_owner_s_alone(tmp_path: Path):
    path = tmp_path / "token"
    token = read_or_make_token(path)
    assert len(token) >= 32
    assert read_or_make_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    read_or_make_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for text, fine in (("y" * 32, True), ("y" * 31, False), ("y" * 31 + "\xe9", False)):
        path.write_bytes(text.encode("latin-1"))
        if fine:
            assert read_or_make_token(path) == text
        else:
            with pytest.raises(WorkerError, match="holds no token"):
                read_or_make_token(path)
    os.symlink(path, tmp_path / "link")
    path.write_text("y" * 32)
    with pytest.raises(WorkerError, match="is a link or belongs to another user"):
        read_or_make_token(tmp_path / "link")
    assert read_or_make_token(tmp_path / "other") != token
