# SPDX-License-Identifier: Apache-2.0
"""Run the service in this process: bind 127.0.0.1, print one JSON line when ready, stop cleanly on SIGTERM or Ctrl-C."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from retake.core.errors import InputError, MissingDependencyError, install_hint
from retake.core.host import is_windows, stop_signals
from retake.worker.settings import WorkerSettings


def bind(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1. Raises InputError when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if not is_windows():
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(
            f"port {port} on 127.0.0.1 cannot be used ({error}); choose another, or 0 for any free one"
        ) from error
    return listener


def serve(port: int, state: Path, roots: list[Path], settings: WorkerSettings) -> int:
    """Until told to stop. Raises InputError, WorkerError before anything is started."""
    try:
        import uvicorn

        from retake.worker.app import create_app
        from retake.worker.service import Service
    except ImportError as error:
        raise MissingDependencyError(f"the worker service needs {error.name!r}: {install_hint('worker')}") from error
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listener = bind(port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        service = Service(state, roots, settings)
    except BaseException:
        listener.close()
        raise

    class Server(uvicorn.Server):
        """uvicorn, saying when it is ready and ending event streams before it waits for connections to close."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            print(json.dumps(service.announce(url)), flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            service.hub.close()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        create_app(service), log_config=None, log_level="warning", access_log=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=3, timeout_keep_alive=30, limit_concurrency=200, server_header=False, date_header=False,
    )  # fmt: skip
    # uvicorn raises a caught signal again when it has shut down; the queue must be closed before anything else happens.
    for number in stop_signals():
        signal.signal(number, lambda *_: None)
    try:
        service.start()
        Server(config).run(sockets=[listener])
    finally:
        service.stop()
        listener.close()
    return 0
