# SPDX-License-Identifier: Apache-2.0
"""A renderer in a process of another environment: pickled requests in, pickled answers out. Both ends; the far end is run by
the renderer's own interpreter, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol


class Pipe:
    """This end: a process that answers one request after another."""

    def __init__(self, python: Path, program: str, advice: str, **environment: str) -> None:
        """`program` lies beside this file. Raises RuntimeError with `advice` where `python` is missing."""
        if not python.exists():
            raise RuntimeError(f"{python} is missing; {advice}")
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name(program))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        there, back = self._process.stdin, self._process.stdout
        assert there is not None
        assert back is not None
        pickle.dump(request, there)
        there.flush()
        return pickle.load(back)

    def close(self) -> None:
        """End the other process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait(timeout=60)


class Stage(Protocol):
    """What a renderer keeps of a film."""

    def picture(self, request: dict[str, Any]) -> dict[str, Any]:
        """What one frame asks for."""
        ...


def take_answers() -> BinaryIO:
    """The far end's standard output, for answers alone; what libraries print goes to the terminal from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def serve(answers: BinaryIO, stage_of: Callable[[dict[str, Any]], Stage]) -> None:
    """The far end: a request with `items` makes a stage anew, any other asks the present one for a picture."""
    stage = None
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if "items" in request:
            stage, answer = stage_of(request), {"ready": True}
        else:
            assert stage is not None
            answer = stage.picture(request)
        pickle.dump(answer, answers)
        answers.flush()
