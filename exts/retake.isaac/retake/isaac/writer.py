# SPDX-License-Identifier: Apache-2.0
"""RetakeWriter: an Episode from any Replicator script, and from the Synthetic Data Recorder's custom-writer field.

    writer = rep.WriterRegistry.get("RetakeWriter")
    writer.initialize(output_dir="/data/episode_0", robot="/World/Panda", task="pick up the packet")
    writer.attach(render_products)
    ...                                   # play, or rep.orchestrator.step(): physics must move between frames
    rep.orchestrator.wait_until_complete()
    writer.detach()

Replicator's base class exists only inside Kit, so the class is built on first use (`writer_class`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from retake.core.episode import CHANNELS
from retake.core.errors import RetakeError
from retake.isaac.kit import require
from retake.isaac.payload import ANNOTATORS, CAMERA
from retake.isaac.request import CaptureStatus, request_from

NAME = "RetakeWriter"
VERSION = "0.1.0"


@cache
def writer_class() -> Any:
    """The writer class (one per process). Raises MissingDependencyError outside Kit."""
    replicator = require("omni.replicator.core")

    class RetakeWriter(replicator.Writer):  # the registry knows writers by class name
        """Records an Episode; see retake.isaac.writer."""

        def __init__(
            self,
            output_dir: str = "",
            robot: str | Sequence[str] = (),
            objects: str | Sequence[str] = (),
            task: str = "",
            fps: float = 15.0,
            frames: int = 0,
            contacts: bool = True,
            seed: int = 0,
            settings: Mapping[str, Any] | None = None,
            capture: Any = None,
        ) -> None:
            """`output_dir`: empty folder for the episode. `robot`, `objects`: prim paths; empty = found on the stage.

            `fps` must divide the physics rate. `capture`: an existing LiveCapture to deliver to (panel, headless runs).
            """
            self.version = VERSION
            self.data_structure = "renderProduct"
            self.annotators = [*(replicator.AnnotatorRegistry.get_annotator(ANNOTATORS[c]) for c in CHANNELS), CAMERA]
            self._owned = capture is None
            self._capture = capture
            self._settings = settings
            self._request = None
            if capture is None and output_dir:
                self._request = request_from(
                    {
                        "output": str(Path(output_dir).absolute()), "robots": robot, "objects": objects, "task": task,
                        "fps": fps, "frames": frames, "contacts": contacts, "seed": seed, "mode": "live",
                    }
                ).checked()  # fmt: skip

        def attach(self, render_products: Any, *args: Any, **kwargs: Any) -> None:
            """Attach to render products; recording begins with the next physics step."""
            many = list(render_products) if isinstance(render_products, list | tuple) else [render_products]
            if self._owned:
                self._start(many)
            super().attach([getattr(p, "path", p) if isinstance(p, str) else p for p in many], *args, **kwargs)

        def write(self, data: dict[str, Any]) -> None:
            """One rendered frame."""
            if self._capture is not None:
                self._capture.deliver(data)

        def write_metadata(self) -> None:
            """The episode's header is the metadata."""

        def on_final_frame(self) -> None:
            """Complete the episode's files."""
            self.finish("final frame")
            super().on_final_frame()

        def detach(self) -> None:
            """Detach; completes the episode where on_final_frame was not called (Isaac Sim 5.0, standalone)."""
            super().detach()
            self.finish("detached")

        def finish(self, reason: str = "finished") -> None:
            """End an owned recording and wait for its files. Raises what went wrong while recording."""
            if self._owned and self._capture is not None:
                capture, self._capture = self._capture, None
                capture.close(reason)
                self.last = capture
                if capture.status.phase.value == "failed":
                    raise capture._error or RetakeError(capture.status.message)

        @property
        def status(self) -> CaptureStatus:
            """Where the recording stands."""
            return CaptureStatus() if self._capture is None else self._capture.status

        def _start(self, products: list[Any]) -> None:
            from retake.core.errors import InputError
            from retake.isaac.live_capture import LiveCapture

            if self._request is None:
                raise InputError(f"{NAME}: call initialize(output_dir=…) before attach(); Replicator's get() does not")
            self._capture = LiveCapture(self._request, settings=self._settings)
            self._capture.start(products)

    RetakeWriter.__qualname__ = NAME
    return RetakeWriter


def delivering(capture: Any) -> Any:
    """A writer that only hands frames to an existing recording."""
    return writer_class()(capture=capture)


def register() -> Callable[[], None]:
    """Register RetakeWriter with Replicator; returns what undoes it."""
    registry = require("omni.replicator.core").WriterRegistry
    registry.register(writer_class(), category="Retake")

    def undo() -> None:
        registry.unregister(NAME)

    return undo


__all__ = ["NAME", "delivering", "register", "writer_class"]
