# SPDX-License-Identifier: Apache-2.0
"""What a rollout must achieve, and in which of a few words it failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.errors import InputError, unknown_name
from retake.core.geometry import transform
from retake.loop.environment import Goal, Moment

LIFTED_M = 0.02
"""A held object that rose by this much was grasped."""
OPENED = 0.1
"""Openness that a hand gains when it means to let go; less is a slip."""
REACHED_M = 0.03
"""How near the hand must end to the point above the object."""

UNSTABLE = "unstable"
NEVER_GRASPED, DROPPED, MISSED, HELD_ON = "never grasped", "dropped", "missed the target", "never let go"
NOT_REACHED = "not reached"
FAILED = "failed"
"""What a task of the user's own says with False."""


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended."""

    success: bool
    failure: str = ""
    """Empty for a success."""
    frame: int | None = None
    """Where it was decided: the frame in which the object was lost, or the last one."""
    distance_m: float | None = None
    """How far from where it should be: object from the goal's box, hand from its point."""
    lifted_m: float | None = None


Judge = Callable[[Sequence[Moment], Goal | None], Any]


@dataclass(frozen=True)
class Task:
    """A named judgement; `ends` is the phase of the script in which its expert stops, empty = at the script's end."""

    name: str
    judge: Judge
    ends: str = ""


def pick_place(moments: Sequence[Moment], goal: Goal | None) -> Outcome:
    """The object ends inside the goal's box, let go."""
    goal = _needs(goal, "pick_place")
    centres = np.stack([transform(m.T_world_object[goal.object], goal.object_center_m) for m in moments])
    held = np.array([goal.object in m.held for m in moments])
    rise = centres[:, 2] - centres[0, 2]
    lifted = float(rise[held].max(initial=0.0))
    outside = float(np.max(np.abs(centres[-1] - goal.center_m) - goal.size_m / 2))
    last = len(moments) - 1

    def told(success: bool, failure: str = "", frame: int = last) -> Outcome:
        return Outcome(success, failure, frame, max(outside, 0.0), lifted)

    if outside <= 0 and not held[-1]:
        return told(True)
    if lifted < LIFTED_M:
        return told(False, NEVER_GRASPED)
    if held[-1]:
        return told(False, HELD_ON)
    lost = int(np.flatnonzero(held)[-1]) + 1
    # In the hand the fingers stand still; a hand that opens as the object goes has let go of it.
    spell = np.array([m.openness for m, h in zip(moments, held, strict=True) if h])
    around = moments[min(lost + 1, last)].openness
    return told(False, MISSED if around - float(np.median(spell)) > OPENED else DROPPED, lost)


def reach(moments: Sequence[Moment], goal: Goal | None) -> Outcome:
    """The hand ends within 3 cm of the point above the object."""
    goal = _needs(goal, "reach")
    distance = float(np.linalg.norm(moments[-1].hand_m - goal.hover_m))
    near = distance <= REACHED_M
    return Outcome(near, "" if near else NOT_REACHED, len(moments) - 1, distance)


TASKS = {"pick_place": Task("pick_place", pick_place), "reach": Task("reach", reach, "approach")}


def open_task(name: str) -> Task:
    """A task by name, or `file.py:function` / `module:function`: `(moments, goal) -> bool or Outcome`.

    Raises InputError naming the tasks there are.
    """
    if name in TASKS:
        return TASKS[name]
    if ":" not in name:
        raise InputError(f"{unknown_name('task', name, TASKS)}, or file.py:function of your own")
    from retake.core.robustness.own_code import folder_of, importable, named_object

    found = named_object(name, "task")
    if not callable(found):
        raise InputError(f"task {name!r} is {type(found).__name__}, not callable")
    folder = folder_of(name.rpartition(":")[0])

    def judge(moments: Sequence[Moment], goal: Goal | None) -> Any:
        with importable(folder):
            return found(moments, goal)

    return Task(name, judge)


def judged(task: Task, moments: Sequence[Moment], goal: Goal | None) -> Outcome:
    """The task's word on a rollout, as an Outcome. Raises InputError when a user's own says something else."""
    said = task.judge(moments, goal)
    if isinstance(said, Outcome):
        return said
    if isinstance(said, bool | np.bool_):
        return Outcome(bool(said), "" if said else FAILED, len(moments) - 1)
    raise InputError(f"task {task.name} returned {type(said).__name__}; expected True, False or an Outcome")


def _needs(goal: Goal | None, name: str) -> Goal:
    if goal is None:
        raise InputError(
            f"task {name!r} needs the scripted scenario's goal; name the object and the target (--object, --target), or "
            "judge with a function of your own (--task file.py:function)"
        )
    return goal
