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

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from retake.core.episode import CHANNELS
from retake.core.errors import InputError
from retake.core.files import user_path
from retake.isaac.delivery import delivery_class
from retake.isaac.kit import require
from retake.isaac.live_capture import LiveCapture
from retake.isaac.options import request_from_settings
from retake.isaac.request import CaptureStatus, Phase

log = logging.getLogger(__name__)

NAME = "RetakeWriter"
SETTABLE = ("robot_file", "rt_subframes", "antialiasing", "undistort", "queue_frames", "when_full")
"""Settings that the writer takes by name beside those of its signature."""
NAMES = ("robot", "objects", "task", "fps", "frames", "contacts", "channels", "seed", *SETTABLE)
"""What a script may give beside `output_dir`."""


@cache
def writer_class() -> Any:
    """The writer class (one per process). Raises MissingDependencyError outside Kit."""

    class RetakeWriter(delivery_class()):  # the registry knows writers by class name
        """Records an Episode; see retake.isaac.writer."""

        def __init__(
            self,
            output_dir: str = "",
            robot: str | Sequence[str] = (),
            objects: str | Sequence[str] = (),
            task: str | None = None,
            fps: float | None = None,
            frames: int | None = None,
            contacts: str | bool | None = None,
            channels: str | Sequence[str] | None = None,
            seed: int | None = None,
            settings: Mapping[str, Any] | None = None,
            **others: Any,
        ) -> None:
            """`output_dir`: empty folder for the episode. `robot`, `objects`: prim paths; empty = found on the stage.

            `fps` must divide the physics rate. `others`: settings of /exts/retake.isaac by name (SETTABLE); `robots` is
            `robot`, and what is unknown is told in the log, for later recorders pass more. What is not given is what the
            settings say; sizes and cameras are those of the render products.
            """
            self._settings = settings
            robot = robot or others.pop("robots", ())
            unused = sorted(set(others) - {*SETTABLE, "backend"})
            if unused:
                log.warning(
                    "%s does not use %s; it takes output_dir, %s, and sizes and cameras are those of the render products",
                    NAME, ", ".join(unused), ", ".join(NAMES),
                )  # fmt: skip
            self._request = None
            if output_dir:
                values = {
                    "robots": robot or None, "objects": objects or None, "task": task, "fps": fps, "frames": frames,
                    "contacts": contacts, "channels": channels, "seed": seed,
                    **{name: value for name, value in others.items() if name in SETTABLE},
                }  # fmt: skip
                self._request = request_from_settings(
                    output=str(user_path(output_dir).absolute()), mode="live", cameras=(),
                    **{name: value for name, value in values.items() if value is not None},
                ).checked()  # fmt: skip
            super().__init__(channels=CHANNELS if self._request is None else self._request.channels)

        def attach(self, render_products: Any, *args: Any, **kwargs: Any) -> None:
            """Attach to render products; recording begins with the next physics step."""
            many = list(render_products) if isinstance(render_products, list | tuple) else [render_products]
            if self._request is None:
                raise InputError(f"{NAME}: call initialize(output_dir=…) before attach(); Replicator's get() does not")
            plain = [getattr(p, "path", p) if isinstance(p, str) else p for p in many]
            base, capture = super(), LiveCapture(self._request, settings=self._settings)
            try:
                capture.start(many, attach=lambda: base.attach(plain, *args, **kwargs))
            except BaseException:
                base.detach()  # what is refused leaves no trace
                raise
            self._receiver = capture

        def on_final_frame(self) -> None:
            """Complete the episode's files."""
            self.finish("final frame")
            super().on_final_frame()

        def detach(self) -> None:
            """Detach; completes the episode where on_final_frame was not called (Isaac Sim 5.0, standalone)."""
            super().detach()
            self.finish("detached")

        def finish(self, reason: str = "finished") -> None:
            """End the recording and wait for its files. Raises what went wrong while recording."""
            if self._receiver is not None:
                capture, self._receiver = self._receiver, None
                capture.close(reason)
                if capture.status.phase is Phase.FAILED:
                    raise capture.failure

        @property
        def status(self) -> CaptureStatus:
            """Where the recording stands."""
            return CaptureStatus() if self._receiver is None else self._receiver.status

    RetakeWriter.__qualname__ = NAME
    return RetakeWriter


def register() -> Callable[[], None]:
    """Register RetakeWriter with Replicator; returns what undoes it."""
    registry = require("omni.replicator.core").WriterRegistry
    registry.register(writer_class(), category="Retake")

    def undo() -> None:
        registry.unregister(NAME)

    return undo
