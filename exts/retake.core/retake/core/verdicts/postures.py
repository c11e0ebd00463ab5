# SPDX-License-Identifier: Apache-2.0
"""An object's posture: does its silhouette fit as simulated better than turned, sunk, lying, larger or smaller?

Every other posture is drawn at the object's place (`posture_shapes`), and only pixels in which it differs from the simulator's
silhouette are asked whether they show the object (its colours in the take's first frames) or what lies behind it (the take's own
scenery; see `posture_evidence`). A warp or a wider outline is granted to every posture alike (`posture_views`). 0: the pixels
are as expected of the simulator's posture, 1: as expected of the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from retake.core.episode import Episode
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.posture_evidence import Evidence, colours_of
from retake.core.verdicts.posture_shapes import body_hull
from retake.core.verdicts.posture_views import PHASES, View, at_rest, gain_of, phase_views, shares_of, width_of
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import ObjectSettings
from retake.core.verdicts.truth import Truth

NAME = "object_posture"
_BIASED = 0.4
"""Share of the way to another posture that the pictures of the first phase go, up to which it is how they are drawn and is taken
off later phases, and from which on later phases, too, make a posture unsure and fail none. An object that stands otherwise all
along goes the whole way."""
_DOUBTED = 0.7
"""Share of the way to another posture from which on it may be that one, if unseen places have the colours of the others."""


def measure_posture(
    footage: Footage, truth: Truth, episode: Episode, camera: str, part: int, phases: list[str],
    settings: ObjectSettings,
) -> Measurement:  # fmt: skip
    """object_posture: how far the pixels go from the simulator's posture (0) to another (1), in any phase."""
    if "depth" not in episode.header.camera(camera).channels:
        return Measurement(NAME, None, "no depth was recorded, so the object's body is unknown", applies=False)
    hull = body_hull(truth, episode, camera, part)
    if hull is None:
        return Measurement(NAME, None, "the object shows too little of its body", applies=False)
    colours = colours_of(footage, truth, part)
    if colours is None:
        return Measurement(NAME, None, "the object's colours cannot be learned from the first frames", applies=False)
    views = phase_views(Evidence(footage, truth, part, colours), phases, hull)
    said = list(_said(views, truth, part))
    untold = any(share is None for phase in said for share in phase.shares.values())
    worst, doubt, drawn = _Share(None, "", None), "", None
    for phase in said:
        worst = max([worst, phase.worst()], key=lambda one: -np.inf if one.value is None else one.value)
        reached = worst.value or 0.0
        if drawn is None:
            drawn = reached
        elif _BIASED <= drawn < _DOUBTED <= reached:
            why = f"{worst.note}: or it is drawn so, for in its first place it looks so too"
            return Measurement(NAME, None, why, worst.frame)
        for name, share in phase.doubted.items():
            if share is not None and share > _DOUBTED:
                doubt = f"{name}, {phase.name}: or an end of it that no earlier frame has shown looks like what surrounds it"
    if doubt and (worst.value is None or worst.value < _DOUBTED):
        return Measurement(NAME, None, doubt)
    if worst.value is not None:
        return Measurement(NAME, max(worst.value, 0.0), worst.note, worst.frame)
    if not any(seen for _, seen in views.values()):
        return Measurement(NAME, None, "hidden, or no body of its own can be seen", applies=False)
    like = untold or any(not view.told for _, seen in views.values() for view in seen)
    why = "scenery around it has its colours" if like else "it looks the same in every posture"
    return Measurement(NAME, None, why, applies=like)


@dataclass(frozen=True)
class _Share:
    """How far pixels go to another posture, which, and in which frame; None where none could be asked."""

    value: float | None
    note: str
    frame: int | None


@dataclass(frozen=True)
class _Phase:
    """What the frames of one phase say. Shares are those of `shares_of`."""

    name: str
    frames: list[int]
    shares: dict[str, float | None]
    """Beyond what the first phase shows of every posture."""
    doubted: dict[str, float | None]
    """If places of the object that no earlier frame has shown had the colours of the others."""

    def worst(self) -> _Share:
        """The posture that pixels go farthest to."""
        told = {name: share for name, share in self.shares.items() if share is not None}
        if not told:
            return _Share(None, "", None)
        name = max(told, key=lambda one: told[one])
        return _Share(told[name], f"{name}, {self.name}", self.frames[len(self.frames) // 2])


def _said(views: dict[str, tuple[list[int], list[View]]], truth: Truth, part: int) -> Iterator[_Phase]:
    """Phase by phase, how far its pixels go to every posture."""
    girth, drawn_so = width_of(views), None
    for phase, (frames, seen) in views.items():
        asked = [view for view in seen if view.told]
        first = drawn_so is None
        gains = [gain_of(view, girth, first) for view in asked]
        shares = shares_of(gains, girth)
        if truth.static_camera and phase == PHASES[0] and len(at_rest(truth, part, frames)) == len(frames):
            shares = _in_every(shares, [shares_of([gain], girth) for gain in gains])
        if drawn_so is None:
            drawn_so = {name: min(max(share, 0.0), _BIASED) for name, share in shares.items() if share is not None}
        else:
            shares = {name: _beyond(share, drawn_so.get(name, 0.0)) for name, share in shares.items()}
        doubted = [replace(view, field=view.doubted) for view in asked if view.doubted is not None]
        yield _Phase(phase, frames, shares, shares_of([gain_of(view, girth, first) for view in doubted], girth))


def _beyond(share: float | None, drawn: float) -> float | None:
    """How far pixels go to another posture beyond what they do where the object stands as simulated."""
    return None if share is None else (share - drawn) / (1 - drawn)


def _in_every(shares: dict[str, float | None], single: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Of what rests, how far every frame by itself goes to a posture: it has but one, and light that changes changes its
    colours in some frames only."""
    out = dict(shares)
    for name, share in shares.items():
        told = [found[name] for found in single if found.get(name) is not None]
        if share is not None and len(told) >= 2:
            out[name] = min(share, *(value for value in told if value is not None))
    return out
