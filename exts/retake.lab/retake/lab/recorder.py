# SPDX-License-Identifier: Apache-2.0
"""LabRecorder: one object behind recorder terms (manager-based environments) and the wrapper (Direct ones).

A control step goes state → action → physics → next state. `before_step` takes the state and the pictures of before it,
`after_step` the targets that were commanded; `before_reset` takes the last state and ends the episode, `after_reset` lets
the next one begin. So frame k holds state k, the pictures that show it, and what was commanded after it.
"""

from __future__ import annotations

import atexit
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from retake.core.errors import EpisodeError, RetakeError
from retake.core.files import write_json
from retake.core.run_store import RunDirectory
from retake.lab import host
from retake.lab.content import LabContent, read_content
from retake.lab.pictures import RawView, is_fresh, read_view, stride_of
from retake.lab.reader import RawState
from retake.lab.request import RecordRequest
from retake.lab.session import EpisodeSession, OutFolder
from retake.lab.states import read_objects, read_state, read_targets

LOG = logging.getLogger("retake.lab")
SUMMARY = "session.json"


class LabRecorder:
    """Records chosen clones of one environment. All calls belong to the thread that steps it."""

    def __init__(self, env: Any, request: RecordRequest) -> None:
        """Raises RunError when the folder is another recorder's, InputError for clones that the environment lacks.

        What the scene lacks (cameras, robots) is said at the first step: only then is the scene complete.
        """
        self.env, self.request = env, request
        host.rate_of(env)
        self._ids = request.chosen(int(env.num_envs))
        self._folder = OutFolder(request.out)
        self._content: dict[int, LabContent] = {}
        self._open: dict[int, EpisodeSession] = {}
        self._ended: dict[int, EpisodeSession] = {}
        """Episodes whose end was seen and whose success may still be said."""
        self._since_reset = dict.fromkeys(self._ids, 0)
        self._counts: dict[tuple[int, str], int] = {}
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="retake-finish")
        self._finishing: deque[Future[Any]] = deque()
        self._actions: dict[int, np.ndarray] = {}
        self._stride = 0
        self._closed = False
        self._accepted = 0
        self.kept: list[RunDirectory] = []
        """Run folders of the episodes that were kept, in order."""
        self.left_out: list[str] = []
        """Why others were not, a sentence each."""
        self.steps = 0
        self.cost_s = 0.0
        """Time in the recorder so far, without what cameras took to draw."""
        self.render_s = 0.0
        """Time that reading cameras took: drawing, where nobody had read them before in the step."""
        self._unwatch: Callable[[], None] | None = None
        self._began = time.perf_counter()
        atexit.register(_close_at_exit, weakref.ref(self))

    @property
    def done(self) -> bool:
        """Whether as many episodes were kept as asked for (those still being written count)."""
        return 0 < self.request.episodes <= self._accepted

    def before_step(self, action: Any = None) -> None:
        """State, pictures and action (N, A) of before a control step. Raises EpisodeError where they cannot be recorded."""
        started = time.perf_counter()
        drawn = self.render_s
        states: dict[int, RawState] = {}
        for env_id in self._ids:
            if self._closed or env_id in self._ended or (env_id not in self._open and self.done):
                continue
            if env_id not in self._open:
                self._begin(env_id, action)
            states[env_id] = read_state(self.env.scene, self._open[env_id].content)
        for env_id in states:
            self._open[env_id].hand_over()
        for env_id, state in states.items():
            self._offer(env_id, self._open[env_id], state)
        # Copies: an environment may clip its actions in place.
        self._actions = {} if action is None else {i: host.row(action, i).astype(np.float32) for i in states}
        self.cost_s += time.perf_counter() - started - (self.render_s - drawn)

    def after_step(self, skip: Iterable[int] = ()) -> None:
        """What was commanded in the control step just made; `skip`: clones that were reset within it."""
        started = time.perf_counter()
        self.steps += not self._closed
        for env_id, session in self._open.items():
            if env_id not in skip:
                self._command(env_id, session)
        self.cost_s += time.perf_counter() - started

    def before_reset(self, env_ids: Iterable[int] | None, *, stepped: bool = True, reason: str = "") -> None:
        """Clones are about to be reset: their last state is taken and their episodes end.

        `stepped`: whether `after_step` has been told of the last step.
        """
        started, drawn = time.perf_counter(), self.render_s
        for env_id in self._ids if env_ids is None else [int(i) for i in env_ids]:
            session = self._open.pop(env_id, None)
            if session is None:
                continue
            if not stepped:
                self._command(env_id, session)
            self._since_reset[env_id] += 1
            try:
                state = read_state(self.env.scene, session.content)
                session.hand_over()
                self._offer(env_id, session, state, last=True)
            except RetakeError as error:  # the frames before it are whole
                LOG.warning("clone %d: the last frame is left out: %s", env_id, error)
            session.finish_frame(read_targets(self.env.scene, session.content) if session.frames else None)
            session.reason = reason or self._reason_of(env_id)
            self._ended[env_id] = session
        self.cost_s += time.perf_counter() - started - (self.render_s - drawn)

    def _watch_physics(self) -> None:
        """Hear of every physics step: after `scene.update` the assets hold the state it ended with."""
        if not self.request.physics_rate or self._unwatch is not None:
            return
        scene, inner, here = self.env.scene, self.env.scene.update, weakref.ref(self)
        own = "update" in vars(scene)

        def update(dt: float, *more: Any, **named: Any) -> Any:
            result = inner(dt, *more, **named)
            recorder = here()
            if recorder is not None:
                started = time.perf_counter()
                for session in recorder._open.values():
                    session.physics_step(float(dt), read_objects(scene, session.content)[0])
                recorder.cost_s += time.perf_counter() - started
            return result

        def unwatch() -> None:
            if vars(scene).get("update") is not update:
                return  # somebody else stands before it: it passes on, and hears nothing more
            if own:
                scene.update = inner
            else:
                del scene.update

        scene.update = update
        self._unwatch = unwatch

    def set_success(self, env_ids: Iterable[int], values: Any) -> None:
        """Whether the task was done in episodes that just ended; a later word that it was overrules an earlier `no`."""
        for env_id, value in zip(env_ids, np.asarray(host.array(values)).ravel().tolist(), strict=False):
            session = self._ended.get(int(env_id))
            if session is not None:
                session.success = bool(value) or bool(session.success)

    def after_reset(self, env_ids: Iterable[int] | None) -> None:
        """Clones were reset: the episodes that ended are decided, and new ones begin with the next step."""
        started = time.perf_counter()
        for env_id in self._ids if env_ids is None else [int(i) for i in env_ids]:
            if env_id in self._since_reset:
                self._since_reset[env_id] = 0
                for key in [key for key in self._counts if key[0] == env_id]:
                    del self._counts[key]
            if (session := self._ended.pop(env_id, None)) is not None:
                self._decide(session)
        self.cost_s += time.perf_counter() - started

    def close(self, reason: str = "the environment was closed while recording") -> None:
        """End everything; episodes in progress keep the frames so far. Writes session.json. Raises what stopped writing."""
        if self._closed:
            return
        self._closed = True
        for session in self._ended.values():
            self._decide(session)
        for env_id, session in self._open.items():
            session.finish_frame(None)
            session.reason = reason
            if session.frames and not self.request.success_only and not session.stopped:
                LOG.warning("clone %d: %s; its %d frames so far are kept in %s", env_id, reason, session.frames,
                            session.run.path)  # fmt: skip
            self._decide(session)
        self._ended, self._open = {}, {}
        if self._unwatch is not None:
            self._unwatch()
        try:
            while self._finishing:
                self._finishing.popleft().result()
        finally:
            self._finisher.shutdown(wait=True)
            write_json(self.request.out / SUMMARY, self.summary())
            self._folder.close()

    def summary(self) -> dict[str, Any]:
        """What was kept and what it cost, JSON."""
        total = time.perf_counter() - self._began
        steps = max(self.steps, 1)
        return {
            "episodes": [run.path.name for run in self.kept],
            "left_out": list(self.left_out),
            "control_steps": self.steps,
            "recorder_ms_per_step": round(1000 * self.cost_s / steps, 4),
            "cameras_ms_per_step": round(1000 * self.render_s / steps, 4),
            "all_ms_per_step": round(1000 * total / steps, 4),
            "recorder_share": round(self.cost_s / total, 6) if total > 0 else 0.0,
        }

    def _begin(self, env_id: int, action: Any) -> None:
        if env_id not in self._content:
            self._content[env_id] = read_content(self.env, self.request, env_id)
        content = self._content[env_id]
        if not self._stride:
            known = host.cameras_of(self.env.scene)
            self._stride = stride_of(self.env, {camera.key: known[camera.key] for camera in content.cameras})
        while len(self._finishing) > len(self._ids):
            self._finishing.popleft().result()
        self._watch_physics()
        names = () if action is None else tuple(f"action_{i}" for i in range(int(host.tensor(action).shape[-1])))
        self._open[env_id] = EpisodeSession(
            self._folder, content, self.request, self.env, self._stride, self._action_names(names)
        )

    def _action_names(self, plain: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the action's numbers: by term of the action manager, where there is one."""
        manager: Any = getattr(self.env, "action_manager", None)
        try:
            names = [
                f"{t}.{i}" for t, n in zip(manager.active_terms, manager.action_term_dim, strict=True) for i in range(n)
            ]
        except (AttributeError, TypeError, ValueError):
            return plain
        return tuple(names) if len(names) == len(plain) else plain

    def _offer(self, env_id: int, session: EpisodeSession, state: RawState, *, last: bool = False) -> None:
        views: dict[str, RawView] | None = {}
        stale = ""
        for camera in session.content.cameras:
            sensor = self.env.scene.sensors[camera.key]
            started = time.perf_counter()
            _ = sensor.data
            self.render_s += time.perf_counter() - started
            view = (
                read_view(sensor, camera, env_id)
                if is_fresh(self.env, sensor, env_id, self._since_reset[env_id])
                else None
            )
            if view is None or view.count == self._counts.get((env_id, camera.key)):
                views, stale = None, camera.key
                break
            assert views is not None
            views[camera.key] = view
        for key, view in (views or {}).items():
            self._counts[env_id, key] = view.count
        if last and views is None:
            return  # the episode ends a step earlier, rather than with an old picture
        session.offer(state, views, stale)

    def _command(self, env_id: int, session: EpisodeSession) -> None:
        session.command(read_targets(self.env.scene, session.content), self._actions.get(env_id))
        self._since_reset[env_id] += 1

    def _reason_of(self, env_id: int) -> str:
        for name, reason in (("reset_terminated", "terminated"), ("reset_time_outs", "timed out")):
            flags = getattr(self.env, name, None)
            if flags is not None and bool(host.array(flags).ravel()[env_id]):
                return reason
        return "reset in mid-episode"

    def _decide(self, session: EpisodeSession) -> None:
        where = f"clone {session.content.env_id}"
        if session.frames == 0:
            session.drop()
            return
        if self.request.success_only and not session.success:
            self.left_out.append(f"{where}: {session.reason} after {session.frames} frames, and the task was not done")
            LOG.info("%s", self.left_out[-1])
            self._later(session.drop)
            return
        if self.done:
            self.left_out.append(f"{where}: {self.request.episodes} episodes were kept already")
            self._later(session.drop)
            return
        if session.reason == "reset in mid-episode":
            LOG.warning("%s was reset in mid-episode; its %d frames so far are kept in %s", where, session.frames,
                        session.run.path)  # fmt: skip
        self._accepted += 1
        self._later(self._keep, session)

    def _keep(self, session: EpisodeSession) -> None:
        if session.finish(waited_s=round(session.waited_s, 6)) is not None:
            self.kept.append(session.run)

    def _later(self, work: Callable[..., Any], *arguments: Any) -> None:
        """On the finishing thread: the simulation need not wait for an episode's last frames."""
        try:
            self._finishing.append(self._finisher.submit(work, *arguments))
        except RuntimeError:  # the interpreter is ending: its threads take no more work
            work(*arguments)


def _close_at_exit(recorder: weakref.ref[LabRecorder]) -> None:
    found = recorder()
    if found is not None:
        found.close("the program ended while recording")


def require_complete(recorder: LabRecorder) -> None:
    """Raise EpisodeError when a recorder that was closed kept nothing."""
    if not recorder.kept:
        why = "; ".join(recorder.left_out[:3]) or "no control step was made between two resets"
        raise EpisodeError(f"{recorder.request.out}: no episode was kept: {why}")
