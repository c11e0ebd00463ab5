# SPDX-License-Identifier: Apache-2.0
"""Paired frames to an Episode on disk, off the simulation thread, in bounded memory.

`submit` costs the simulation a queue insertion. When the disk is slower than the simulation the queue fills and
`submit` waits (the simulation slows down) or refuses, as asked; a frame is never dropped.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from retake.core.capture.pairing import PairedFrame, PairingCounts, StageReader
from retake.core.episode import Episode, EpisodeWriter, Frame, open_episode
from retake.core.errors import EpisodeError
from retake.core.files import write_json

WhenFull = Literal["wait", "refuse"]
REPORT = "capture.json"
"""Beside the episode's own files, outside its content hash: how the capture went."""


@dataclass(frozen=True)
class RecorderStatus:
    """A snapshot for a panel or a progress line."""

    submitted: int
    written: int
    queued: int
    bytes_written: int
    waited_s: float
    """Time the simulation was slowed down by a full queue."""
    error: str = ""
    """What stopped the writing; empty while all is well."""


class Recorder:
    """Writes one episode on its own thread. `submit` and `finish` belong to one thread, `status` to any."""

    def __init__(
        self,
        path: Path,
        reader: StageReader,
        *,
        queue_frames: int = 8,
        when_full: WhenFull = "wait",
        patience_s: float = 60.0,
        on_frame: Callable[[int, Frame], None] | None = None,
    ) -> None:
        """Raises EpisodeError or OSError at once when the folder cannot take an episode.

        `on_frame(index, frame)` is called on the writer's thread after each frame was accepted (live preview); what it
        raises stops nothing. `patience_s` bounds how long a full queue may block: a dead disk must not hang a simulator.
        """
        self.path, self.reader = Path(path), reader
        self._writer = EpisodeWriter(self.path, reader.header, queue_frames=4, threads=2)
        self._queue: queue.Queue[PairedFrame | None] = queue.Queue(queue_frames)
        self._when_full, self._patience_s, self._on_frame = when_full, patience_s, on_frame
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._submitted = self._written = self._bytes = 0
        self.waited_s = 0.0
        """Time the simulation was slowed down by a full queue."""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="retake-recorder", daemon=True)
        self._thread.start()

    @property
    def status(self) -> RecorderStatus:
        """Where the writing stands."""
        with self._lock:
            error = "" if self._error is None else _text(self._error)
            return RecorderStatus(
                self._submitted, self._written, self._queue.qsize(), self._bytes, self.waited_s, error
            )

    def submit(self, paired: PairedFrame) -> None:
        """Hand over one frame. Raises EpisodeError when writing has failed, or the queue stays full beyond patience."""
        self._raise_failure()
        try:
            self._queue.put_nowait(paired)
        except queue.Full:
            if self._when_full == "refuse":
                raise EpisodeError(
                    f"{self.path}: the disk is slower than the simulation: {self._queue.maxsize} frames are waiting. "
                    "Record to a faster disk, with fewer cameras or a lower frame rate, or let capture slow it down"
                ) from None
            self._wait(paired)
        with self._lock:
            self._submitted += 1

    def finish(self, *, reason: str = "finished", counts: PairingCounts | None = None, **extra: Any) -> Episode:
        """Write what is queued and complete the episode. Raises what stopped the writing, or EpisodeError without frames.

        After a failure the folder keeps every committed frame and opens with `allow_incomplete=True`.
        """
        self._stop_thread()
        report: dict[str, Any] = {
            "reason": reason,
            "frames": self._written,
            "waited_s": round(self.waited_s, 6),
            **extra,
        }
        report["pairing"] = asdict(counts) if counts is not None else {}
        if self._error is not None:
            self._abandon({**report, "reason": _text(self._error)})
            self._raise_failure()
        if self._written == 0:
            self._abandon(report)
            self._empty()
            raise EpisodeError(
                f"{self.path}: no frame was captured ({reason}); is the simulation playing and rendering?"
            )
        episode = self._writer.finish()
        write_json(self.path / REPORT, report)
        return episode

    def _wait(self, paired: PairedFrame) -> None:
        started = time.perf_counter()
        while True:
            self._raise_failure()
            try:
                self._queue.put(paired, timeout=0.25)
                break
            except queue.Full:
                if time.perf_counter() - started > self._patience_s:
                    raise EpisodeError(
                        f"{self.path}: no frame could be written for {self._patience_s:g} s; is the disk still there?"
                    ) from None
        with self._lock:
            self.waited_s += time.perf_counter() - started

    def _stop_thread(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.25)
                break
            except queue.Full:
                continue
        self._thread.join()

    def _run(self) -> None:
        while (paired := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep the producer from blocking; it sees the error at its next call
            try:
                frame = self.reader.decode(paired)
                self._writer.append(frame)
            except BaseException as error:
                with self._lock:
                    self._error = error
                continue
            with self._lock:
                self._written += 1
                self._bytes += sum(
                    getattr(getattr(view, name), "nbytes", 0)
                    for view in frame.cameras
                    for name in ("rgb", "depth_m", "normals", "instance_ids")
                )
            if self._on_frame is not None:
                try:
                    self._on_frame(paired.index, frame)
                except Exception as error:  # a preview is a courtesy: capture goes on without it
                    self._on_frame = None
                    self.preview_error = _text(error)

    preview_error: str = ""
    """Why the live preview stopped; empty while it works."""

    def _abandon(self, report: dict[str, Any]) -> None:
        """Close the files; what was committed stays readable."""
        try:
            self._writer.__exit__(EpisodeError, None, None)
            write_json(self.path / REPORT, report)
        except OSError:
            return  # the failure being reported is the one that matters

    def _empty(self) -> None:
        """Leave the folder as it was found, empty, so that it can be recorded into."""
        for child in self.path.iterdir():
            if child.is_dir():
                shutil.rmtree(child, ignore_errors=True)
            else:
                child.unlink(missing_ok=True)

    def _raise_failure(self) -> None:
        if self._error is None:
            return
        if isinstance(self._error, EpisodeError):
            raise self._error
        kept = _frames_on_disk(self.path)
        raise EpisodeError(
            f"{self.path}: writing stopped: {_text(self._error)}. {kept} complete frames are kept "
            "(open_episode(path, allow_incomplete=True)); free space or choose another folder and record again"
        ) from self._error


def _frames_on_disk(path: Path) -> int:
    try:
        return len(open_episode(path, allow_incomplete=True))
    except EpisodeError:
        return 0


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, EpisodeError) else f"{type(error).__name__}: {error}"
