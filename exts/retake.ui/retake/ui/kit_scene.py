# SPDX-License-Identifier: Apache-2.0
"""The stage that is open in Kit, as the panel sees it: read once, and again when USD says that prims came or went.

A traversal costs tens of milliseconds on a large stage, so none is made to find out whether anything changed: notices
tell, and whoever does not look pays nothing.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core.ends import beside, declaration_text, declare, load_declarations
from retake.core.errors import RetakeError
from retake.core.files import write_bytes
from retake.core.robot import RobotSpec
from retake.isaac import kit, processes, selftest
from retake.ui.ports import SceneContent
from retake.ui.state import Choice
from retake.usd.articulation import StageRobots, choose_articulations, find_articulations
from retake.usd.bodies import find_objects
from retake.usd.camera import camera_prims, read_camera
from retake.usd.stage import one_pass

log = logging.getLogger(__name__)
DEMO_SCRIPT = processes.repository() / "exts/retake.isaac/examples/pick_place.py"
DEFAULT_SIZE = (640, 480)
PAUSE = 10
"""Times as long as reading took, before a changed stage is read again unasked."""
ALL_CHOSEN = 4
"""So many robots are all chosen; of more only the first is."""


class StageScene:
    """The open stage. Lives on Kit's main thread, where USD sends its notices."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._not_before = now, 0.0
        self._stage: Any = None
        self._content: SceneContent | None = None
        self._changed = True
        self._notice: Any = None
        self._demo: Any = None
        self._test: Any = None

    def look(self, again: bool = False) -> SceneContent:
        """What can be recorded; the same object as before while no prim came or went.

        While prims keep coming (a stage that loads, a script that spawns) it is read for a tenth of the time at most.
        """
        stage = kit.require("omni.usd").get_context().get_stage()
        if stage is not self._stage and stage != self._stage:
            self._watch(stage)
            again = True
        if again or self._content is None or (self._changed and self._now() >= self._not_before):
            self._changed, began = False, self._now()
            self._content = SceneContent(problem="No stage is open.") if stage is None else scene_content(stage)
            self._not_before = self._now() + PAUSE * (self._now() - began)
        return self._content

    def selected(self) -> tuple[str, ...]:
        """Prim paths that are selected on the stage."""
        selection = kit.require("omni.usd").get_context().get_selection()
        return tuple(str(path) for path in selection.get_selected_prim_paths())

    def declare(self, robots: Sequence[str], elsewhere: Path) -> tuple[Path, bool]:
        """(declaration of some robots' end effectors, whether it was written now)."""
        return write_declaration(self._stage, robots, elsewhere)

    def open_demo(self) -> None:
        """Open the pick-and-place stage, with the objects where the planned motion expects them."""
        self._demo = asyncio.ensure_future(quietly(demo_script().open_demo()))

    def self_test(self, out: Path, on_line: Callable[[str], None]) -> None:
        """Measure what Retake assumes about Isaac Sim on the open stage."""

        async def whole() -> None:
            try:
                code = await selftest.whole(None, out, lambda item: on_line(selftest.line(item)))
            except (RetakeError, OSError) as error:
                on_line(f"Self-test: ended early: {error}")
                raise
            found = "no item failed" if code == 0 else "an item failed"
            on_line(f"Self-test: {found}; {out / selftest.REPORT} is the page to attach.")

        self._test = asyncio.ensure_future(quietly(whole()))

    def close(self) -> None:
        """Stop listening."""
        self._watch(None)
        self._content, self._changed = None, True

    def _watch(self, stage: Any) -> None:
        """Listen to another stage."""
        if self._notice is not None:
            self._notice.Revoke()
        self._stage, self._notice, self._changed = stage, None, True
        if stage is not None:
            from pxr import Tf, Usd

            self._notice = Tf.Notice.Register(Usd.Notice.ObjectsChanged, self._on_change, stage)

    def _on_change(self, notice: Any, sender: Any) -> None:
        """Prims came, went or changed their kind. A moving robot changes values only, and tells nothing new."""
        if any(path.IsPrimPath() or path.IsAbsoluteRootPath() for path in notice.GetResyncedPaths()):
            self._changed = True


def write_declaration(stage: Any, robots: Sequence[str], elsewhere: Path) -> tuple[Path, bool]:
    """(declaration beside the stage or in a folder, whether it was written now). Raises StageError, InputError.

    The form says what was read of each robot; a file that is there is never replaced.
    """
    where = stage.GetRootLayer().realPath
    file = Path(where).with_suffix(".robot.yaml") if where else elsewhere / "stage.robot.yaml"
    if file.exists():
        return file, False
    specs = [robot.spec for robot in choose_articulations(stage, find_articulations(stage), robots)]
    text = declaration_text(specs, Path(where).name if where else "the open stage").encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text)
    except OSError:  # a stage among read-only assets
        file = elsewhere / file.name
        if file.exists():
            return file, False
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text)
    return file, True


def demo_script() -> Any:
    """The pick-and-place example as a module: its stage, trajectory and task are the demo's."""
    spec = importlib.util.spec_from_file_location("retake_demo", DEMO_SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared_robots(stage: Any, found: StageRobots) -> StageRobots:
    """The robots with the end effectors that the declaration beside the stage gives them. Raises InputError."""
    where = stage.GetRootLayer().realPath
    if not where or (file := beside(Path(where))) is None:
        return found
    specs = declare([robot.spec for robot in found.robots], load_declarations(file))
    return replace(
        found, robots=tuple(replace(robot, spec=spec) for robot, spec in zip(found.robots, specs, strict=True))
    )


def robot_text(spec: RobotSpec) -> str:
    """Joints and end effectors in words."""
    ends = ", ".join(f"{end.kind} {end.name}" for end in spec.grippers)
    return f"{len(spec.dof_names)} joints; {ends or 'no end effector was found: declare one, or its takes show none'}"


def is_demo(stage: Any) -> bool:
    """Whether the open stage is the demo's, whose robot moves by the planned trajectory."""
    path = stage.GetRootLayer().realPath
    return bool(path) and Path(path) == demo_script().STAGE


async def quietly(work: Coroutine[Any, Any, Any]) -> None:
    """Await something whose failure the panel learns otherwise (a recording's status, a stage that stays closed)."""
    try:
        await work
    except (RetakeError, OSError) as error:
        log.warning("Retake: %s", error)
    except Exception:  # nobody awaits this task, so nobody else would say it
        log.exception("Retake: a task of the panel failed")


def scene_content(stage: Any) -> SceneContent:
    """What of a stage can be recorded; every robot and object chosen, and the first camera that stands still.

    What cannot be read is shown with the reason and not chosen: one odd prim must not hide the others.
    """
    with one_pass(stage):
        return _scene_content(stage)


def _scene_content(stage: Any) -> SceneContent:
    try:
        robots = declared_robots(stage, find_articulations(stage))
        choose_articulations(stage, robots)  # says what is missing where there is none
        prims = camera_prims(stage)
        objects = find_objects(stage)
    except RetakeError as error:
        return SceneContent(problem=str(error))
    cameras, fixed = [], -1
    for index, prim in enumerate(prims):
        try:
            camera = read_camera(prim, DEFAULT_SIZE)
            cameras.append(Choice(str(prim.GetPath()), prim.GetName()))
            fixed = index if fixed < 0 and camera.body_path is None else fixed
        except RetakeError as error:
            cameras.append(Choice(str(prim.GetPath()), prim.GetName(), False, str(error)))
    # A camera that stands still sees the task; one on the robot is chosen where there is no other.
    first = fixed if fixed >= 0 else next((i for i, c in enumerate(cameras) if not c.detail), -1)
    cameras = [replace(c, chosen=i == first) for i, c in enumerate(cameras)]
    # Clones are recorded one by one, unless the user says otherwise.
    many = len(robots.robots) > ALL_CHOSEN
    chosen = tuple(
        Choice(r.spec.prim_path, r.spec.name, not many or i == 0, robot_text(r.spec), ends=bool(r.spec.grippers))
        for i, r in enumerate(robots.robots)
    )
    chosen += tuple(Choice(path, path.rpartition("/")[2], problem=why) for path, why in robots.refused.items())
    things = tuple(Choice(o.spec.prim_path, o.spec.name, True, o.spec.label) for o in objects.objects)
    demo = is_demo(stage)
    return SceneContent(chosen, tuple(cameras), things, demo=demo, task=demo_script().TASK if demo else "")
