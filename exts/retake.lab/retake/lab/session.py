# SPDX-License-Identifier: Apache-2.0
"""One episode of one clone on its way to disk, in a run folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core.capture import PairedFrame, Recorder, StateSample, key_of_seconds
from retake.core.config import RunConfig
from retake.core.episode import Episode
from retake.core.episode.extra import ExtraWriter
from retake.core.errors import RetakeError, RunError
from retake.core.host import lock
from retake.core.run_store import create_run
from retake.lab.content import LabContent
from retake.lab.pictures import SAME_TIME_S, RawView, not_due
from retake.lab.reader import LabStageReader, RawState, make_header
from retake.lab.request import RecordRequest

LOCK = ".retake-lab.lock"


class OutFolder:
    """The folder that one recorder writes run folders to."""

    def __init__(self, path: Path) -> None:
        """Raises RunError when another recorder, of this process or another, has it."""
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; episodes are recorded into a folder: choose another one")
        self.path.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(self._handle)
        except OSError as error:
            os.close(self._handle)
            raise RunError(
                f"{self.path} is being recorded to by another recorder; close that one, or choose another folder"
            ) from error

    def next(self, env_id: int) -> Path:
        """A run folder that does not exist yet."""
        number = 0
        while (path := self.path / f"env{env_id:03d}_{number:04d}").exists():
            number += 1
        return path

    def close(self) -> None:
        """Let another recorder have it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class EpisodeSession:
    """Frames of one clone from a reset to the next. `step` counts its control steps."""

    def __init__(
        self, folder: OutFolder, content: LabContent, request: RecordRequest, env: Any, stride: int,
        action_names: tuple[str, ...],
    ) -> None:  # fmt: skip
        step_s = float(env.step_dt)
        header = make_header(content, request, env, stride, action_names)
        self.content, self.stride, self._step_s = content, stride, step_s
        config = RunConfig().to_json()
        self.run = create_run(folder.next(content.env_id), config)
        self._reader = LabStageReader(header, content)
        self._reader.action_names = action_names
        self._recorder = Recorder(self.run.episode, self._reader, queue_frames=request.queue_frames)
        self._reader.extra = ExtraWriter(self.run.episode, self._reader.extra_groups())
        self.step = 0
        self.frames = 0
        self.between = 0
        """Control steps without a frame: the cameras' rate is lower, or their first picture after the reset was old."""
        self.success: bool | None = None
        self.reason = "recording"
        self._first = -1
        self._pending: tuple[RawState, dict[str, RawView], float] | None = None
        self._outbox: PairedFrame | None = None
        """A whole frame that the writer has not been given yet."""
        self._track: list[StateSample] = []
        """Physics steps since the last frame, where they are recorded: as many as a frame has."""
        self._ready: list[StateSample] = []
        """Those that led to the pending frame."""
        self._since_frame_s = 0.0

    def physics_step(self, dt_s: float, objects: dict[str, Any]) -> None:
        """Object poses after `dt_s` more of physics."""
        if self._first < 0:
            return
        self._since_frame_s += dt_s
        time_s = (self.frames - 1 + (self._pending is not None)) * self.stride * self._step_s + self._since_frame_s
        state = RawState({}, objects, {})
        self._track.append(StateSample(key_of_seconds(time_s), time_s, self.frames, state))

    def offer(self, state: RawState, views: dict[str, RawView] | None, stale: str) -> None:
        """The state at the present control step, with pictures if every camera's shows it (`stale` names one that does
        not). Raises PairingError where a frame is due and has no picture."""
        due = self._first >= 0 and (self.step - self._first) % self.stride == 0
        if views is None or (self._first >= 0 and not due):
            if due:
                raise not_due(stale, self.step, self.stride)
            self.between += 1
            return
        if self._first < 0:
            self._first = self.step
        self._pending = (state, views, (self.step - self._first) * self._step_s)
        self._ready, self._track, self._since_frame_s = self._track, [], 0.0

    def command(self, targets: dict[str, Any] | None, action: Any) -> None:
        """What was commanded after the frame offered last: it is whole now."""
        self.step += 1
        if self._pending is None:
            return
        state, views, time_s = self._pending
        self._pending = None
        self._put_out(replace(state, targets=targets, action=action), views, time_s)

    def finish_frame(self, targets: dict[str, Any] | None) -> None:
        """The last frame, after which nothing was commanded: the targets that held stay."""
        if self._pending is not None:
            state, views, time_s = self._pending
            self._pending = None
            self._put_out(replace(state, targets=targets), views, time_s)

    def hand_over(self) -> None:
        """Give the writer the frame that is whole. Called before cameras are read: while a renderer draws, the interpreter
        is free for the writer, which the step would otherwise wait for. Raises what stopped the writer."""
        if self._outbox is not None:
            frame, self._outbox = self._outbox, None
            self._recorder.submit(frame)

    def _put_out(self, state: RawState, views: dict[str, RawView], time_s: float) -> None:
        sample = StateSample(key_of_seconds(time_s), time_s, self.frames, state)
        # What led to the frame, and the frame itself in place of the physics step that ended at it.
        before = [s for s in self._ready if s.time_s < time_s - SAME_TIME_S]
        self.hand_over()
        self._outbox = PairedFrame(self.frames, sample, None, views, (*before, sample))
        self.frames += 1

    @property
    def stopped(self) -> bool:
        """Whether the writer has failed."""
        return bool(self._recorder.status.error)

    @property
    def waited_s(self) -> float:
        """Time that steps waited for the disk."""
        return self._recorder.waited_s

    def finish(self, **report: Any) -> Episode | None:
        """Write what is queued; None for an episode without frames, whose folder is removed. Raises what stopped it."""
        extra = self._reader.extra
        if self.frames == 0:
            self.drop()
            return None
        with contextlib.suppress(RetakeError):  # what stopped the writer is said below, after what it has is on disk
            self.hand_over()
        try:
            episode = self._recorder.finish(
                reason=self.reason, success=self.success, env_id=self.content.env_id, between=self.between, **report
            )
        except RetakeError:
            if extra is not None:
                extra.abandon()
            raise
        if extra is not None:
            extra.finish()
        return episode

    def drop(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(RetakeError):
            self._recorder.finish(reason="dropped")
        if self._reader.extra is not None:
            self._reader.extra.abandon()
        shutil.rmtree(self.run.path, ignore_errors=True)
