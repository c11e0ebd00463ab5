# SPDX-License-Identifier: Apache-2.0
"""`retake worker serve` in this process, with a server that a test plays: where it listens, when it says so, how it stops. Of
retake.worker.serve."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from worker_support import settings_for

from retake.core.errors import InputError, WorkerError
from retake.core.host import stop_signals
from retake.worker import serve as serving
from retake.worker import service


class Config:
    """What a server is told."""

    made: list[Config]

    def __init__(self, app: Any, **told: Any) -> None:
        self.app, self.told = app, told
        Config.made.append(self)


class Server:
    """Starts, is stopped by a signal, and ends."""

    story: list[Any]
    fails = False

    def __init__(self, config: Config) -> None:
        self.config = config

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        Server.story.append(("listens on", sockets))

    def handle_exit(self, number: int, frame: Any) -> None:
        Server.story.append(("stops", number, self.hub_is_closed()))

    def hub_is_closed(self) -> bool:
        return Server.story[0].hub.closed

    def run(self, sockets: list[socket.socket]) -> None:
        if Server.fails:
            raise RuntimeError("no loop")
        for number in stop_signals():
            signal.raise_signal(number)  # of the shell's: nothing ends here by itself
        asyncio.run(self.startup(sockets))
        assert Server.story[0].dispatcher.is_alive()
        self.handle_exit(15, None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    Config.made, Server.story, Server.fails = [], [], False
    made, plain = service.Service.__init__, [(number, signal.getsignal(number)) for number in stop_signals()]

    def remembered(self: Any, *given: Any, **more: Any) -> None:
        made(self, *given, **more)
        Server.story.append(self)

    monkeypatch.setattr(service.Service, "__init__", remembered)
    monkeypatch.setattr(uvicorn, "Config", Config)
    monkeypatch.setattr(uvicorn, "Server", Server)
    monkeypatch.setattr(logging, "basicConfig", lambda **told: None)
    yield Server
    for number, before in plain:
        signal.signal(number, before)


def free(port: int) -> bool:
    try:
        serving.bind(port).close()
    except InputError:
        return False
    return True


def test_a_service_says_where_it_is_once_it_listens_and_gives_everything_back(tmp_path: Path, server, capsys):
    settings, _ = settings_for(tmp_path)
    assert serving.serve(0, tmp_path / "state", [tmp_path], settings) == 0
    (own, (word, (listener,)), stopped) = server.story
    told = json.loads(capsys.readouterr().out)
    assert (word, stopped) == ("listens on", ("stops", 15, True)), "event streams end before connections are waited for"
    port = int(told["url"].rpartition(":")[2])
    assert told["url"] == f"http://127.0.0.1:{port}"
    assert told["token_file"] == str(tmp_path / "state" / "token")
    assert listener.fileno() == -1
    assert not own.dispatcher.is_alive()
    assert free(port)
    (config,) = Config.made
    assert config.told == {
        "log_config": None, "log_level": "warning", "access_log": False, "ws": "none", "lifespan": "off",
        "timeout_graceful_shutdown": 3, "timeout_keep_alive": 30, "limit_concurrency": 200, "server_header": False,
        "date_header": False,
    }  # fmt: skip


def test_a_server_that_fails_stops_its_service_and_one_that_cannot_be_made_holds_no_port(
    tmp_path: Path, server, monkeypatch
):
    settings, _ = settings_for(tmp_path)
    server.fails = True
    with pytest.raises(RuntimeError, match="no loop"):
        serving.serve(0, tmp_path / "state", [tmp_path], settings)
    assert not server.story[0].dispatcher.is_alive()
    taken: list[Any] = []
    bind = serving.bind
    monkeypatch.setattr(serving, "bind", lambda port: taken.append(bind(port)) or taken[-1])
    with service.Service(tmp_path / "state", [tmp_path], settings), pytest.raises(WorkerError, match="another worker"):
        serving.serve(0, tmp_path / "state", [tmp_path], settings)
    assert taken[0].fileno() == -1


def test_a_port_is_of_this_machine_alone_and_one_that_is_taken_is_told(tmp_path: Path):
    with serving.bind(0) as one:
        host, port = one.getsockname()
        assert host == "127.0.0.1"
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR), "a service may start where one has just ended"
        with socket.create_connection((host, port), 5):
            pass
        for wrong in (port, 70_000, -1):
            with pytest.raises(InputError, match=rf"port {wrong} on 127\.0\.0\.1 cannot be used .* choose another"):
                serving.bind(wrong)
    assert free(port)
