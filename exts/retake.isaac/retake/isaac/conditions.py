# SPDX-License-Identifier: Apache-2.0
"""Whether all that a recording rests on still holds, looked at once per application update."""

from __future__ import annotations

from retake.core.errors import StageError
from retake.isaac import timeline
from retake.isaac.hooks import Hooks
from retake.isaac.watch import FRAME_PATIENCE, Watch

NO_STEPS = (
    "the simulation plays and no physics step was announced ({hook}); is there a physics scene, and does another framework "
    "step the simulation by itself? Isaac Lab's environments are recorded by retake.lab"
)
NO_FRAMES = (
    "no frame arrived in {updates} updates: Replicator may begin to capture only with the next Play (press Stop, Record, "
    "then Play), or the cameras' render products do not update"
)


class Conditions:
    """Counts updates, steps and frames of one recording, and says when it cannot go on. Main thread only."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._watch = Watch()
        self.updates = 0
        """Application updates so far."""
        self._steps = 0
        self.steps_per_update: set[int] = set()
        """Numbers of physics steps that updates made, those without any apart."""

    def step(self) -> None:
        """A physics step was announced."""
        self._watch.step()
        self._steps += 1

    def frame(self) -> None:
        """A frame was delivered."""
        self._watch.frame()

    def begin(self) -> None:
        """The recording begins: wait for its first frame anew."""
        self._watch.again()
        self.steps_per_update.clear()

    def look(self, *, recording: bool, stepped: bool, ready: bool) -> str:
        """Why the recording is at its end; empty while it is not. Raises RetakeError when something it rests on has gone, or
        what it waits for will not come."""
        self.updates += 1
        if self._steps:
            self.steps_per_update.add(self._steps)
        self._steps = 0
        hooks = self._hooks
        if gone := hooks.missing_from_stage():
            raise StageError(f"{gone}; the recording ends before that")
        hooks.rendering.update(recording=recording)
        playing = bool(timeline.interface().is_playing())
        self._watch.update(playing=playing)
        if slow := self._watch.slow():
            hooks.notes.append(slow)
        if recording and not playing and hooks.timeline_ended:
            return "the timeline reached its end; the episode ends here"
        if playing and not recording and ready and self._watch.no_steps:
            if not hooks.next_step_hook():
                raise StageError(NO_STEPS.format(hook=hooks.step_hook))
            self._watch.again()
        if playing and recording and not stepped and self._watch.no_frames:
            raise StageError(NO_FRAMES.format(updates=FRAME_PATIENCE))
        return ""

    def hint(self, fps: float) -> str:
        """What helps when frames miss the grid because of how many physics steps an update makes; empty where that fits."""
        counts = sorted(self.steps_per_update | ({self._steps} if self._steps else set()))
        rate = timeline.physics_rate(self._hooks.stage)
        if len(counts) < 2 and (not counts or rate / fps % counts[0] == 0):
            return ""
        return (
            f". An update makes {' or '.join(map(str, counts))} physics steps here: set the stage's Time Codes Per Second to "
            f"{timeline.fitting_codes(fps, rate):g} (Layer > Stage), so that frames at {fps:g} per second fall on updates"
        )
