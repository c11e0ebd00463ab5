# SPDX-License-Identifier: Apache-2.0
"""Takes as a run folder holds them, with their variant and verdict: what they are, and whether they are training data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retake.core.episode import Episode, EpisodeHeader
from retake.core.errors import InputError, VariantError, unknown_name
from retake.core.export.provenance import storable
from retake.core.licences import commercial_obstacle
from retake.core.run_reader import RunReader, Standing, StoredVariant, camera_fault
from retake.core.takes.base import Take
from retake.core.variants.base import World
from retake.core.variants.worlds import load_catalogue

DOMAINS = ("generated", "reprojected", "composite")
"""Of takes that are training data; the simulator's own pictures are `sim`, a recording's `recorded`."""


@dataclass(frozen=True)
class Selection:
    """What of the runs is wanted."""

    only_commercial: bool = False
    min_verdict: float = 0.0
    unverified: bool = False
    include_sim: bool = False
    cameras: tuple[str, ...] = ()
    """Empty = every camera that the accepted takes have."""
    size: tuple[int, int] | str | None = None
    """(width, height) of the dataset's pictures; "capture" = the camera's own; None = the takes' own."""
    assets_licence: str = ""
    """What the user states about the simulated assets, where the episode does not."""
    action_source: str = "commanded"
    extras: tuple[str, ...] = ()
    layout: str = "full"
    """Of the state and action vectors (layouts.py); LeRobot formats."""
    truth: bool = True
    """Per-frame features of what the simulator knows (truth.py), where the format has a place and every run has them."""
    language: bool = True
    """LeRobot's language columns (language.py), where the format has a place."""
    window: int = 0
    """Frames per episode for `include_sim` where a run has no take; 0 = the whole episode."""
    domains: tuple[str, ...] = ()
    """Only takes of these domains; empty = any."""
    allow_mixed: bool = False
    """A camera that a world lacks is taken from another backend's or seed's take of it, else from the simulation; each
    camera's domain is recorded."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_verdict <= 1:  # also refuses NaN, which every comparison below would let through
            raise InputError(f"--min-verdict {self.min_verdict:g}: expected a probability within 0..1")
        if unknown := [name for name in self.domains if name not in DOMAINS]:
            raise InputError(unknown_name("domain", unknown[0], DOMAINS))
        if self.window < 0:
            raise InputError(f"--window {self.window}: expected a number of frames, or 0 for the whole episode")


@dataclass(frozen=True)
class FoundTake:
    """A take with its variant and what the run says of it."""

    take: Take
    variant: StoredVariant | None
    standing: Standing

    @property
    def id(self) -> str:
        """Its name, as text that a table can hold."""
        return storable(self.take.id)

    @property
    def world(self) -> World | None:
        """What its first frame shows; None where the variant is gone."""
        return self.variant.record.world if self.variant is not None else None

    def stated(self, *names: str) -> Any:
        """The first of these that the settings state."""
        return next((self.take.settings[name] for name in names if self.take.settings.get(name) is not None), None)


def takes_of(run: RunReader) -> list[FoundTake]:
    """Every take of a run whose record can be read, by name."""
    return [FoundTake(take, run.variant(take.variant), run.standing(take)) for take in run.takes()]


def camera_of(found: FoundTake, episode: Episode) -> str:
    """The camera a take shows; empty when its episode has no such camera."""
    cameras = [c.name for c in episode.header.cameras]
    named = _named_camera(found)
    if not named and len(cameras) == 1:
        return cameras[0]
    return named if named in cameras else ""


def unknown_camera(found: FoundTake, camera: str, episode: Episode) -> str | None:
    """Why a take of which `camera_of` knows no camera is no training data; None for any other."""
    return None if camera else camera_fault(_named_camera(found), [c.name for c in episode.header.cameras])


def _named_camera(found: FoundTake) -> str:
    return found.take.camera or (found.variant.camera if found.variant is not None else "")


def obstacle(found: FoundTake, frames: int, source: dict[str, Any], selection: Selection) -> str | None:
    """Why this take of an episode of `frames` is no training data; None when it is."""
    take, standing = found.take, found.standing
    if take.domain not in DOMAINS:
        return f"its domain is {take.domain!r} (backend {take.backend!r}); a dataset takes {' and '.join(DOMAINS)} ones"
    if selection.domains and take.domain not in selection.domains:
        return f"its domain is {take.domain!r}; --domain asks for {', '.join(selection.domains)}"
    if take.start >= frames:
        return f"it starts at frame {take.start}; its episode has {frames} frames"
    verdict = standing.verdict
    if standing.status in ("damaged", "outdated"):
        return standing.reason
    if standing.status == "fail":
        failed = [check.name for check in verdict.checks if check.status == "fail"] if verdict is not None else []
        return "the verdict is fail" + (
            f" ({', '.join(failed) or standing.reason})" if failed or standing.reason else ""
        )
    if standing.status != "pass" and not selection.unverified:
        why = "the verdict is unsure" if standing.status == "unsure" else standing.reason
        return f"{why} (`retake verify` judges it; --unverified exports it)"
    if selection.min_verdict > 0 and (verdict is None or verdict.probability < selection.min_verdict):
        probability = None if verdict is None else verdict.probability
        return f"verdict probability {probability} is below --min-verdict {selection.min_verdict}"
    if selection.only_commercial:
        if found.variant is None:
            return "--only-commercial: its variant is gone, so nothing states the terms of its first frame"
        stated = (
            ("video model", take.licence),
            ("first-frame model", found.variant.record.licence),
            ("simulated assets or recording", source["licence_source"]),
        )
        for what, licence in stated:
            if reason := commercial_obstacle(licence):
                return f"--only-commercial: {what}: {reason}"
    return None


def shown_task(header: EpisodeHeader, subject: str, recipe: Mapping[str, Any] | None = None) -> str:
    """The task text that fits the pixels: the task object's label replaced by what the world shows it as.

    `recipe` is the one stored in variant.json: it knows worlds of the user's own; without it the name is looked up.
    """
    labels = [o.label for o in header.objects if o.movable and o.label]
    stated = recipe.get("subject") if isinstance(recipe, Mapping) else None
    try:
        known = stated if isinstance(stated, Mapping) else load_catalogue().value("subject", subject)
        words = str(known.get("prompt", "")) if labels else ""
    except VariantError:
        words = ""
    if not words:
        return header.task
    label = re.escape(labels[0])
    return re.sub(rf"\b(?:the|a|an) {label}\b|\b{label}\b", lambda _: words, header.task, count=1, flags=re.I)


def shown_words(header: EpisodeHeader, world: World | None, recipe: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What a world shows the task's object (`subject`) and the work surface as; empty for the simulator's own pictures.

    A world in the user's own words may show anything: there it is "the object" on "the surface".
    """
    if world is None:
        return {}
    if world.prompt:
        return {"subject": "the object", "surface": "the surface"}
    out = {}
    for axis in ("subject", "surface"):
        stated = recipe.get(axis) if isinstance(recipe, Mapping) else None
        try:
            value = stated if isinstance(stated, Mapping) else load_catalogue().value(axis, getattr(world, axis))
        except VariantError:
            value = {}
        text = str(value.get("prompt") or getattr(world, axis)).strip()
        out[axis] = text or ("the object" if axis == "subject" else "the surface")
    return out
