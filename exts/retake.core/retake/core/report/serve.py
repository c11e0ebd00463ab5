# SPDX-License-Identifier: Apache-2.0
"""`retake open`: the run folder over HTTP on this machine only, with byte ranges so that browsers can seek."""

from __future__ import annotations

import http.server
import os
import re
import sys
import webbrowser
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from retake.core.errors import InputError


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Static files with single byte ranges (the standard handler has none and Chromium then cannot scrub)."""

    _left: int | None = None

    def send_head(self) -> Any:
        """Answer a range request with 206; everything else as the standard handler does."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file() or wanted.groups() == ("", ""):
            self._left = None
            return super().send_head()
        size = path.stat().st_size
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start > end:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return None
        stream = path.open("rb")
        stream.seek(start)
        self._left = end - start + 1
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(self._left))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        return stream

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Copy the whole file or just the asked range; a browser that hangs up is no error."""
        try:
            if self._left is None:
                super().copyfile(source, outputfile)
            else:
                self._copy_range(source, outputfile)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _copy_range(self, source: BinaryIO, target: BinaryIO) -> None:
        left = self._left or 0
        while left > 0 and (block := source.read(min(left, 1 << 16))):
            target.write(block)
            left -= len(block)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the terminal shows the address only."""


def make_server(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of `folder` on 127.0.0.1; port 0 takes any free one."""
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=os.fspath(folder)))


def serve(folder: Path, *, port: int = 0, browser: bool = True) -> int:
    """Serve until Ctrl-C. Returns exit code 0. Raises InputError for a port that cannot be had."""
    try:
        server = make_server(folder, port)
    except (OverflowError, OSError) as error:
        raise InputError(f"port {port} cannot be opened ({error}); 0 takes any free one") from error
    with server:
        address = f"http://127.0.0.1:{server.server_address[1]}/report.html"
        print(f"{address}\nCtrl-C ends", flush=True)
        if browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0
