# SPDX-License-Identifier: Apache-2.0
"""Words from the simulation: what happens when, with what, where in the picture; as rows of LeRobot's language columns.

`language_persistent` (the same on every frame): paraphrases of the task, a plan, and a subtask from the moment its phase
begins. `language_events` (on one frame): a question about a camera's picture with a box or a point as answer. Frames and
pixels are the simulator's. A phrase names only what some exported camera shows during its phase, in words of what the
picture shows it as. Rows are those of lerobot/datasets/language.py (0.6): fields, styles and their columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.episode import Episode
from retake.core.export.records import IMAGE, LanguageRows
from retake.core.export.sight import sight_of
from retake.core.export.truth import PHASES, Story, story_of

LEAST_PX = 12
"""Pixels of the captured picture below which a thing is not seen."""
_CONTAINERS = re.compile(r"tray|bin|basket|bowl|plate|crate|container|bucket|drawer", re.IGNORECASE)


@dataclass(frozen=True)
class Thing:
    """Something that a phrase may name."""

    words: str
    """With its article: "the red bag of potato chips"."""
    ids: tuple[int, ...]
    """Instance ids that show it."""
    relation: str = ""
    """`in` or `on`, of a support."""


@dataclass(frozen=True)
class Cast:
    """The things of one episode: {object}, {start} (what it stood on or in) and {end} (where it came to rest)."""

    things: Mapping[str, Thing]


SUBTASKS: dict[str, tuple[str, ...]] = {
    "approach": (
        "reach for {object}", "move the gripper to {object}", "approach {object}", "move towards {object} {start}",
        "bring the gripper close to {object} {start}", "move the gripper",
    ),
    "grasp": (
        "grasp {object}", "close the gripper on {object}", "take hold of {object}", "grip {object} {start}", "close the gripper",
    ),
    "carried": (
        "carry {object}", "lift and move {object}", "transport {object}", "carry {object} over {end_thing}", "move the arm",
    ),
    "released": ("let go of {object}", "release {object}", "open the gripper and drop {object}", "open the gripper"),
    "settled": (
        "leave {object} {end}", "move away from {object}", "{object} rests {end}; move away", "move the arm away",
    ),
}  # fmt: skip
"""Phase → phrases; the last of each names nothing."""
TASKS_DONE = (
    "Pick up {object} and put it {end}.", "Take {object} and place it {end}.", "Move {object} so that it ends {end}.",
    "Pick {object} up {start} and leave it {end}.", "Grab {object}, then set it down {end}.", "Put {object} {end}.",
    "Pick up {object} and let it go.", "Take {object} and drop it.",
)  # fmt: skip
TASKS_HELD = (
    "Pick up {object}.",
    "Take hold of {object} and lift it.",
    "Grasp {object} {start} and lift it.",
    "Grab {object}.",
)
PLAN = {
    "approach": "reach it",
    "grasp": "grasp it",
    "carried": "carry it",
    "released": "let it go",
    "settled": "move away",
}


def language_rows(
    episode: Episode,
    cameras: Mapping[str, tuple[int, int]],
    start: int,
    length: int,
    *,
    words: Mapping[str, str],
    seed: int,
) -> LanguageRows:
    """What is said of a window. `cameras`: feature key → (width, height) of the dataset's pictures; `words`: what the
    pictures show `subject` and `surface` as, where it is not what the simulation calls them."""
    story = story_of(episode)
    if story is None:
        return LanguageRows()
    names = [key.removeprefix(IMAGE) for key in cameras]
    cast, rng, fps = cast_of(episode, story, words), np.random.default_rng(seed), float(episode.header.fps)
    frames = range(start, start + length)
    phases = [(int(k), story.phase(k)) for k in frames if k == start or story.phase(k) != story.phase(k - 1)]
    persistent: list[dict[str, Any]] = []
    whole = visible(episode, names, cast, frames)
    shown_phases = [PHASES[phase] for _, phase in phases]
    done = "released" in shown_phases or "settled" in shown_phases
    if "grasp" in shown_phases or "carried" in shown_phases:
        pool = [p for text in (TASKS_DONE if done else TASKS_HELD) if (p := phrase(text, cast, whole))]
        for text in rng.permutation(pool)[:3] if pool else ():
            persistent.append(_row("user", str(text), "task_aug", 0.0))
        if "object" in whole:
            named = cast.things["object"].words
            steps = [f"{n}. {PLAN[name]}" for n, name in enumerate(shown_phases, 1)]
            persistent.append(_row("assistant", f"With {named}: " + "; ".join(steps) + ".", "plan", 0.0))
    for position, (frame, phase) in enumerate(phases):
        end = phases[position + 1][0] if position + 1 < len(phases) else start + length
        seen = visible(episode, names, cast, range(frame, end))
        pool = [p for text in SUBTASKS[PHASES[phase]] if (p := phrase(text, cast, seen))]
        # What names nothing is for where nothing can be named.
        choice = pool[int(rng.integers(len(pool) - 1))] if len(pool) > 1 else pool[0]
        persistent.append(_row("assistant", choice, "subtask", _stamp(frame - start, fps)))
    persistent.sort(key=lambda row: (row["timestamp"], row["style"], row["role"]))
    events = {}
    for number, (frame, _) in enumerate(phases):
        rows = [
            row
            for key, size in cameras.items()
            for row in _questions(
                episode, key, size, frame, story.object, cast, "bbox" if number % 2 == 0 else "keypoint", rng
            )
        ]
        if rows:
            events[frame - start] = tuple(sorted(rows, key=lambda r: (r["style"], r["role"], r["camera"])))
    return LanguageRows(tuple(persistent), events)


def cast_of(episode: Episode, story: Story, words: Mapping[str, str]) -> Cast:
    """Who and what can be named, in the words of the pictures; a world in the user's own words calls it the object."""
    header = episode.header
    spec = header.objects[story.object]
    subject = words.get("subject", spec.label or spec.name)
    owner = f"object:{spec.name}"
    things = {"object": Thing(definite(subject), tuple(i.id for i in header.instances if i.owner == owner))}
    first, last = _support(episode, story.object, range(0, story.grasp or len(episode))), None
    if story.settled is not None:
        last = _support(episode, story.object, range(len(episode) - 1, max(story.settled - 1, 0), -1))
    for name, label in (("start", first), ("end", last)):
        if label is not None:
            inside = bool(_CONTAINERS.search(label))
            shown = label if inside or not words.get("surface") else words["surface"]
            ids = tuple(i.id for i in header.instances if i.label == label and not _moves(i.owner, owner))
            things[name] = Thing(definite(shown), ids, "in" if inside else "on")
    return Cast(things)


def _support(episode: Episode, index: int, frames: range) -> str | None:
    """Label of the scenery that the object touches in the first of the frames where it touches any."""
    header = episode.header
    mine = header.objects[index].prim_path
    own = f"object:{header.objects[index].name}"
    labels = {i.prim_path: i.label for i in header.instances if i.label and not _moves(i.owner, own)}
    for k in frames:
        for contact in episode.contacts(k):
            for a, b in ((contact.body_a, contact.body_b), (contact.body_b, contact.body_a)):
                if a == mine or a.startswith(mine + "/"):
                    for path, label in labels.items():
                        if b == path or b.startswith(path + "/") or path.startswith(b + "/"):
                            return label
    return None


def _moves(owner: str, own: str) -> bool:
    """Whether an instance is the task's object itself or a robot: what nothing rests on."""
    return owner == own or owner.startswith("robot:")


def visible(episode: Episode, cameras: Sequence[str], cast: Cast, frames: range) -> set[str]:
    """Which of the cast some camera shows in some frame."""
    out = set()
    for camera in cameras:
        sight = sight_of(episode, camera)
        if sight is not None:
            out |= {
                name
                for name, thing in cast.things.items()
                if thing.ids and sight.of(thing.ids)[frames.start : frames.stop].max(initial=0) >= LEAST_PX
            }
    return out


def phrase(text: str, cast: Cast, seen: set[str]) -> str:
    """The phrase with its things named; empty where one of them is not seen."""
    wanted = {name.removesuffix("_thing") for name in re.findall(r"{(\w+)}", text)}
    if not wanted <= seen:
        return ""
    out = {}
    for name in wanted:
        thing = cast.things[name]
        out[name] = f"{thing.relation} {thing.words}" if thing.relation else thing.words
        out[f"{name}_thing"] = thing.words
    if wanted >= {"start", "end"} and out["start_thing"] == out["end_thing"]:
        return ""  # "from the table … on the table" says nothing
    return text.format(**out)


def definite(words: str) -> str:
    """ "a red apple" → "the red apple"; words without an article get one."""
    text = re.sub(r"^(a|an|the|some)\s+", "", words.strip().replace("_", " "), flags=re.IGNORECASE)
    return f"the {text}"


def _questions(
    episode: Episode,
    key: str,
    size: tuple[int, int],
    frame: int,
    index: int,
    cast: Cast,
    kind: str,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """A question about one camera's picture and its answer; none where the object is not seen there."""
    camera = key.removeprefix(IMAGE)
    sight = sight_of(episode, camera)
    thing = cast.things["object"]
    if sight is None or sight.of(thing.ids)[frame] < LEAST_PX:
        return []
    width, height = episode.header.camera(camera).size
    scale = np.array([size[0] / width, size[1] / height])
    label = thing.words.removeprefix("the ")
    if kind == "bbox":
        box = np.round(sight.boxes[frame, index] * np.tile(scale, 2), 1).tolist()
        asked = ("Where is {}? Give its bounding box.", "Give the bounding box of {}.", "Draw a box around {}.")
        answer: dict[str, Any] = {"detections": [{"label": label, "bbox_format": "xyxy", "bbox": box}]}
    else:
        point = np.round(sight.points[frame, index] * scale, 1).tolist()
        asked = ("Point to {}.", "Where is {}? Give a point on it.", "Give one pixel that shows {}.")
        answer = {"label": label, "point_format": "xy", "point": point}
    question = str(asked[int(rng.integers(len(asked)))]).format(thing.words)
    rows = (("user", question), ("assistant", json.dumps(answer, ensure_ascii=False)))
    return [{"role": r, "content": c, "style": "vqa", "camera": key, "tool_calls": None} for r, c in rows]


def _row(role: str, content: str, style: str, timestamp: float) -> dict[str, Any]:
    return {
        "role": role,
        "content": content,
        "style": style,
        "timestamp": timestamp,
        "camera": None,
        "tool_calls": None,
    }


def _stamp(frame: int, fps: float) -> float:
    """A frame's time as LeRobot's `timestamp` column has it: frame / fps, rounded once to float32."""
    return float(np.float32(frame / fps))
