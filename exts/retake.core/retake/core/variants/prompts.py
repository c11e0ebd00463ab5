# SPDX-License-Identifier: Apache-2.0
"""Prompts: what the video model is wish (task and world), and what an image model is wish (what stays, how it looks now).

Published practice: name what stays and how it looks, describe the rest, end with the camera. A rewriting function may
be plugged in; nothing needs one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from retake.core.episode import EpisodeHeader
from retake.core.episode.mounts import FIXED, Mount
from retake.core.errors import VariantError
from retake.core.variants.base import World
from retake.core.variants.worlds import Catalogue, load_catalogue

NEGATIVE = (
    "cartoon, rendering, blurry, low quality, distorted, extra robot arm, second gripper, deformed gripper, "
    "morphing objects, floating objects, text, watermark, camera shake, cut"
)
CAMERA: dict[str, str] = {
    "fixed": "Static camera.",
    "hand": "The camera is fixed to the robot's hand and moves with it.",
    "robot": "The camera is fixed to the robot and moves with it.",
    "free": "The camera moves.",
}
"""What the camera does, by its mount: a film from the hand is no film of a static camera, and models believe the text."""
ROBOT: dict[str, str] = {
    "fixed": "A photograph of a robot arm",
    "hand": "A photograph from the camera on a robot's hand",
    "robot": "A photograph from a camera on a robot arm",
    "free": "A photograph of a robot arm",
}
"""How the picture of such a camera begins."""
Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class Prompts:
    """The texts of one variant."""

    take: str
    """For the video model: the task, wish with the world's subject, then the world."""
    image: str
    """For an image model: what stays and how it looks now, then what changes."""
    negative: str = NEGATIVE
    scene: str = ""
    """For an image model that paints from a description and not from an instruction: what is to be seen, in few words."""


def compose_prompts(
    header: EpisodeHeader, world: World, catalogue: Catalogue | None = None, rewrite: Rewrite | None = None,
    mount: Mount = FIXED,
) -> Prompts:  # fmt: skip
    """The prompts of a world for an episode's task, as the camera on that mount shows it. Raises VariantError for unknown
    axis values and empty texts."""
    known = catalogue or load_catalogue()
    known.check(world)

    def words(axis: str) -> str:
        name = getattr(world, axis)
        value = known.value(axis, name) if name else {}
        text = str(value.get("prompt", name.replace("_", " "))).strip()
        if name and not text:
            raise VariantError(f"{axis} {name!r} has an empty prompt; leave it out to use its name, or describe it")
        return text

    if world.prompt:
        return _prompts_from_wish(header, world, rewrite, mount)
    environment = words("environment")
    if world.background:
        backgrounds = known.value("environment", world.environment).get("backgrounds", {})
        environment += f" with {(backgrounds[world.background] or {}).get('prompt', world.background)}"
    subject, surface = words("subject"), words("surface")
    around = f", {words('clutter')}" if world.clutter else ""
    scene = f"The scene is {environment}{around}. The robot stands at {surface}. {words('lighting').capitalize()}."
    style = f"{words('look').capitalize()}, photorealistic." if world.look else "Photorealistic."
    style = f"{style} {CAMERA[mount.kind]}"
    robot = ROBOT[mount.kind]
    task = task_text(header, subject)
    take = f"{task} {scene} {style}"
    image = (
        f"{robot} at {surface} in {environment}{around}. {words('lighting').capitalize()}. "
        f"Keep the robot arm and its gripper exactly as they are: same pose, same shape, same colours. "
        f"The object it works with is now {subject}, in the same place, with the same outline. "
        f"Keep the camera view and the table's edges. {style}"
    )
    seen = (
        f"{robot} at {surface} in {environment}{around}, working with {subject}. "
        f"{words('lighting').capitalize()}. {style}"
    )
    return _rewrite_checked(Prompts(take, image, scene=seen), world, rewrite)


def _prompts_from_wish(header: EpisodeHeader, world: World, rewrite: Rewrite | None, mount: Mount) -> Prompts:
    """The prompts of a world in the user's own words: these, and what stays."""
    wish = world.prompt.rstrip(".")
    wish = wish[0].upper() + wish[1:]
    style = f"Photorealistic. {CAMERA[mount.kind]}"
    robot = ROBOT[mount.kind]
    image = (
        f"{robot}. {wish}. Keep the robot arm and its gripper exactly as they are: same pose, same "
        f"shape, same colours. Keep the camera view, the table's edges and the place and outline of every object. {style}"
    )
    task = task_text(header, next((o.label for o in header.objects if o.movable and o.label), ""))
    return _rewrite_checked(
        Prompts(f"{task} {wish}. {style}", image, scene=f"{robot}. {wish}. {style}"), world, rewrite
    )


def _rewrite_checked(prompts: Prompts, world: World, rewrite: Rewrite | None) -> Prompts:
    if rewrite is None:
        return prompts
    take, image, seen = (rewrite(text).strip() for text in (prompts.take, prompts.image, prompts.scene))
    if not take or not image or not seen:
        raise VariantError(f"the rewriting of the prompts of world {world.name!r} returned an empty text")
    return replace(prompts, take=take, image=image, scene=seen)


def task_text(header: EpisodeHeader, subject: str) -> str:
    """The task as a sentence, with the task object's label replaced by the world's subject."""
    task = header.task.strip().rstrip(".") or "The robot moves"
    movable = [o.label for o in header.objects if o.movable and o.label]
    for label in movable[:1]:
        task = re.sub(
            rf"\b(?:the|a|an) {re.escape(label)}\b|\b{re.escape(label)}\b", subject, task, count=1, flags=re.I
        )
    if not re.match(r"(?i)(a|the) robot\b", task):
        task = f"A robot arm does this: {task[0].lower()}{task[1:]}"
    return f"{task[0].upper()}{task[1:]}."
