# SPDX-License-Identifier: Apache-2.0
"""The run folder over HTTP: ranges that browsers ask for, byte by byte, and what starting and ending the server does."""

from __future__ import annotations

import http.client
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retake.core.report import serve as module
from retake.core.report.serve import _Handler, make_server, serve

BODY = bytes(range(256)) * 2


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "take.mp4").write_bytes(BODY)
    with make_server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_address[:2]  # type: ignore[misc]
        server.shutdown()
        thread.join()


def asked(address: tuple[str, int], path: str, wanted: str | None) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("GET", path, headers={"Range": wanted} if wanted else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


LAST = len(BODY) - 1


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=3-9", 3, 9), ("bytes=0-0", 0, 0), (f"bytes={LAST}-{LAST}", LAST, LAST), (f"bytes={LAST}-", LAST, LAST),
        ("bytes=500-9999", 500, LAST), ("bytes=0-", 0, LAST), ("bytes=-7", LAST - 6, LAST), ("bytes=-9999", 0, LAST),
    ],
)  # fmt: skip
def test_a_range_is_answered_with_its_own_bytes_and_says_where_they_are(
    address: tuple[str, int], wanted: str, first: int, last: int
) -> None:
    status, headers, body = asked(address, "/take.mp4", wanted)
    assert status == 206
    assert body == BODY[first : last + 1]
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Content-Range"] == f"bytes {first}-{last}/{len(BODY)}"
    assert headers["Content-Length"] == str(last - first + 1)
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("wanted", [None, "bytes=-", "bytes=0-3,5-6", "lines=0-3"])
def test_without_a_single_range_all_of_a_file_is_sent(address: tuple[str, int], wanted: str | None) -> None:
    assert asked(address, "/take.mp4", wanted)[::2] == (200, BODY)


def test_a_range_of_nothing_is_refused(address: tuple[str, int]) -> None:
    assert asked(address, "/take.mp4", "bytes=9-8")[0] == 416
    assert asked(address, "/gone.mp4", "bytes=0-3")[0] == 404
    assert asked(address, "/", "bytes=0-3")[0] == 200, "a folder is listed as ever"


def handler(left: int | None) -> Any:
    made = _Handler.__new__(_Handler)
    made._left, made.close_connection = left, False
    return made


class Short(io.BytesIO):
    """A file; reading on at its end is counted."""

    ended = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.ended += not found
        assert self.ended < 3, "it is asked on and on"
        return found


@pytest.mark.parametrize(("left", "sent"), [(0, 0), (5, 5), (70_000, 70_000), (150_000, 100_000), (None, 100_000)])
def test_no_more_is_copied_than_was_asked_for_nor_than_there_is(left: int | None, sent: int) -> None:
    """A file that was cut since its size was told ends the answer."""
    body, target = bytes(range(250)) * 400, io.BytesIO()
    handler(left).copyfile(Short(body), target)
    assert target.getvalue() == body[:sent]


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
@pytest.mark.parametrize("left", [None, 5])
def test_a_browser_that_hangs_up_ends_its_connection(error: type[OSError], left: int | None) -> None:
    class Gone(io.BytesIO):
        def write(self, data: Any) -> int:
            raise error

    made = handler(left)
    made.copyfile(io.BytesIO(BODY), Gone())
    assert made.close_connection


def test_the_server_is_reached_from_this_machine_only_at_any_free_port(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        host, port = server.server_address[:2]
        assert (host, port >= 1024) == ("127.0.0.1", True)


class Server:
    """Serves until the first Ctrl-C, at once."""

    server_address = ("127.0.0.1", 4321)

    def __init__(self, folder: Path, port: int) -> None:
        self.said, self.steps = (folder, port), list[str]()

    def __enter__(self) -> Server:
        self.steps.append("open")
        return self

    def __exit__(self, *error: Any) -> None:
        self.steps.append("closed")

    def serve_forever(self) -> None:
        self.steps.append("serves")
        raise KeyboardInterrupt


@pytest.mark.parametrize(("options", "port"), [({}, 0), ({"port": 80}, 80), ({"browser": False}, 0)])
def test_serving_says_where_opens_a_browser_and_ends_with_ctrl_c(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    port: int,
) -> None:
    made: list[Server] = []
    opened: list[str] = []
    monkeypatch.setattr(module, "make_server", lambda *where: made.append(Server(*where)) or made[-1])
    monkeypatch.setattr(module.webbrowser, "open", opened.append)
    assert serve(tmp_path, **options) == 0
    (server,) = made
    assert server.said == (tmp_path, port)
    assert server.steps == ["open", "serves", "closed"]
    page = "http://127.0.0.1:4321/report.html"
    assert opened == ([page] if options.get("browser", True) else [])
    out, err = capsys.readouterr()
    assert out == f"{page}\nCtrl-C ends\n"
    assert err == "\n", "the shell's prompt begins a line of its own"
