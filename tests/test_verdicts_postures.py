# SPDX-License-Identifier: Apache-2.0
"""Postures where a part of the object looks like what surrounds it, or has not been seen before: nothing is made up there, and
what can be told is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from verdict_scenes import FRAMES

from retake.core.episode.events import object_events
from retake.core.verdicts import examine, load_settings
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.posture_evidence import Evidence, colours_of
from retake.core.verdicts.posture_shapes import body_hull
from retake.core.verdicts.posture_views import View, phase_views, width_of
from retake.core.verdicts.postures import _in_every, measure_posture
from retake.core.verdicts.records import Measurement

BODY, GROUND, WALL = (190, 60, 40), (120, 110, 100), (60, 66, 80)

Lid = Callable[[np.ndarray], np.ndarray]
"""RGB of a lid's pixels, by the scenery behind them."""


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def scenery(height: int, width: int) -> np.ndarray:
    """A ground in front of a wall, with some grain."""
    out = np.empty((height, width, 3))
    out[:], out[: height // 3] = GROUND, WALL
    return out + np.random.default_rng(1).normal(0, 2, out.shape)


def posture(
    clean: Judged, lid: Lid, *, share: float = 0.35, under_the_hand: bool = False, known: bool = True,
    beside: tuple[int, int, int] | None = None, later: Lid | None = None,
) -> Measurement:  # fmt: skip
    """object_posture of a red packet whose upper end (a share of its height) is a lid of some colour.

    under_the_hand: the hand hides the lid until the packet rests. known: other frames show the scenery behind it. beside:
    colour of the scenery left of where it rests. later: the lid where it rests.
    """
    truth, part = clean.truth, clean.truth.object_parts[0]
    episode = scene.scene_episode()
    events = next(e for e in object_events(episode) if e.object == truth.parts[part].name)
    phases = [events.phase(t) for t in range(FRAMES)]
    labels, area = truth.labels.copy(), truth.area.copy()
    back = scenery(*labels.shape[1:])
    if beside is not None:
        back[:, : int(truth.centroid[-1, part, 0])] = beside
    frames = np.repeat(back[None], FRAMES, 0)
    for t in range(FRAMES):
        mask = labels[t] == part + 1
        frames[t][np.isin(labels[t], np.array(truth.robot_parts) + 1)] = (150, 150, 155)
        if not mask.any():
            continue
        rows = np.flatnonzero(mask.any(1))
        top = mask & (np.arange(len(mask))[:, None] < rows[0] + share * len(rows))
        frames[t][mask], frames[t][top] = BODY, (later if later and phases[t] == "settled" else lid)(back[top])
        if under_the_hand and phases[t] != "settled":
            labels[t][top], frames[t][top] = truth.robot_parts[-1] + 1, (150, 150, 155)
            area[t, part] = (labels[t] == part + 1).sum()
        frames[t] = cv2.GaussianBlur(frames[t], (3, 3), 0)
    pictures = np.clip(frames, 0, 255).astype(np.uint8)
    footage = replace(
        clean.footage, frames=pictures, scenery=back.astype(np.float32), known=np.full_like(clean.footage.known, known)
    )
    shown = replace(truth, labels=labels, area=area)
    return measure_posture(footage, shown, episode, "front", part, phases, load_settings().object)


def painted(*colour: float) -> Lid:
    return lambda _: np.array(colour, float)


def see_through(behind: np.ndarray) -> np.ndarray:
    return behind


def fails(found: Measurement) -> bool:
    return found.value is not None and load_settings().threshold("object_posture").fails(found.value)


@pytest.mark.parametrize("lid", [painted(*(0.72 * np.array(GROUND))), painted(*(1.5 * np.array(WALL)))])
def test_a_lid_that_was_under_the_hand_may_have_any_colour(clean: Judged, lid: Lid) -> None:
    """No frame has shown it; that it has the hue of ground or wall does not make the object sunk, it makes it unsure."""
    found = posture(clean, lid, under_the_hand=True)
    assert not fails(found), found
    assert found.applies
    assert found.value is not None or "no earlier frame has shown" in found.note


def test_where_no_frame_has_shown_a_side_the_very_scenery_behind_it_shows_that_the_lid_is_gone(clean: Judged) -> None:
    assert fails(posture(clean, see_through, under_the_hand=True))


def test_a_lid_that_was_hidden_in_all_views_of_its_side_may_look_like_the_very_scenery(
    clean: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is gone or of that colour cannot be told."""
    monkeypatch.setattr(Evidence, "_same_side", lambda *_: True)
    found = posture(clean, see_through, under_the_hand=True)
    assert found.value is None
    assert found.applies
    assert "no earlier frame has shown" in found.note


@pytest.mark.parametrize("share", [0.1, 0.15, 0.35])
@pytest.mark.parametrize("lid", [GROUND, WALL])
def test_an_end_that_looks_like_its_surroundings_from_the_first_frame_on_is_no_other_posture(
    clean: Judged, lid: tuple[int, int, int], share: float
) -> None:
    """Where no other frame shows the scenery behind it."""
    found = posture(clean, painted(*lid), share=share, known=False)
    assert not fails(found), found


@pytest.mark.parametrize("lid", [GROUND, WALL])
def test_a_lid_in_the_very_colour_of_the_scenery_behind_it_makes_nothing_of_its_posture(
    clean: Judged, lid: tuple[int, int, int]
) -> None:
    """Earlier frames have shown the lid, and others the scenery behind it: what looks like both is neither."""
    found = posture(clean, painted(*lid), share=0.35)
    assert not fails(found), found


def test_a_lid_that_earlier_frames_have_shown_in_another_colour_is_missed(clean: Judged) -> None:
    assert fails(posture(clean, painted(235, 235, 235), later=see_through))


def test_scenery_of_the_objects_colours_on_one_side_leaves_the_other_side(clean: Judged) -> None:
    found = posture(clean, painted(*BODY), beside=BODY)
    assert found.value is not None, found
    assert not fails(found), found


def view(clean: Judged, ring: np.ndarray) -> View:
    """A disc that shows the object, before scenery, and `ring` (h, w) between it and a disc one px wider."""
    v, u = np.mgrid[-20:21, -20:21]
    whole, wide = (np.hypot(u, v) < r for r in (10.0, 11.0))
    wide = cv2.dilate(whole.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    field = np.where(whole, 1.0, np.where(wide, ring, -1.0)).astype(np.float32)
    return View(field, np.ones_like(whole), whole.astype(np.uint8), [], True)


@pytest.mark.parametrize(("reach", "wider"), [(41, 1), (20, 0)])
def test_an_object_is_drawn_wider_where_it_is_so_on_most_sides(clean: Judged, reach: int, wider: int) -> None:
    """A hue that bleeds over the lower half of an outline makes the object no wider."""
    ring = np.where(np.arange(41)[::-1, None] < reach, 1.0, -0.6) * np.ones((41, 41))
    assert width_of({"held": ([0, 1], [view(clean, ring)] * 2)}) == wider


def test_what_rests_from_the_start_is_asked_early_and_what_moves_where_it_has_come_to(clean: Judged) -> None:
    truth, part = clean.truth, clean.truth.object_parts[0]
    colours = colours_of(clean.footage, truth, part)
    hull = body_hull(truth, scene.scene_episode(), "front", part)
    assert colours is not None
    assert hull is not None

    def rows(still: bool) -> list[int]:
        given = replace(truth, static_camera=still)
        return phase_views(
            Evidence(clean.footage, given, part, colours), ["before"] * 12 + ["held"] * (FRAMES - 12), hull
        )["before"][0]

    assert max(rows(True)) <= 4
    assert min(rows(False)) >= 3 < max(rows(False))


def test_a_frame_that_shows_what_rests_as_simulated_clears_it() -> None:
    """Light that comes later changes an object's colours in some frames; a posture it has in all of them."""
    together = {"sunk": 0.8, "lying": 0.9, "wider": None, "taller": 0.75}
    single = [{"sunk": 0.85, "lying": 0.9, "taller": None}, {"sunk": 0.1, "lying": 0.95}, {"sunk": None, "taller": 0.2}]
    assert _in_every(together, single) == {"sunk": 0.1, "lying": 0.9, "wider": None, "taller": 0.75}
    assert _in_every(together, []) == together
