# SPDX-License-Identifier: Apache-2.0
"""What has an object's colours and is neither it nor a copy of it; and a silhouette that says where an object stands when its
colours do not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from verdict_scenes import FRAMES

from retake.core.verdicts import examine, load_settings
from retake.core.verdicts.bodies import bodies
from retake.core.verdicts.copies import LARGEST, Copies, scene_of_work
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.objects import stands

LATE = 2 * FRAMES // 3


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def half(judged: Judged) -> tuple[int, int]:
    return judged.truth.size[0] // 2, judged.truth.size[1] // 2


def free_ground(judged: Judged, reach: int) -> tuple[int, int]:
    """Row and column (half size) of a place within the scene of work that nothing ever covers within `reach`."""
    truth = judged.truth
    part = truth.object_parts[0]
    covered = np.asarray((truth.labels > 0).any(0), np.uint8)
    passed = cv2.resize(covered, half(judged), interpolation=cv2.INTER_AREA)
    away = cv2.dilate(passed, np.ones((2 * reach + 1,) * 2, np.uint8)) == 0
    inner = cv2.erode(
        scene_of_work(truth, part, half(judged)).astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)
    )
    found = np.argwhere(away & (inner > 0))
    assert len(found)
    return int(found[0][0]), int(found[0][1])


def news_of(judged: Judged, patch: slice, rows: slice, colour: tuple[int, int, int] | float) -> np.ndarray:
    """What counts as a copy of likelihood 1 in a patch (half size) that has a colour, or its own times a factor, late on."""
    truth, part = judged.truth, judged.truth.object_parts[0]
    frames = judged.footage.frames.copy()
    y, x = slice(2 * rows.start, 2 * rows.stop), slice(2 * patch.start, 2 * patch.stop)
    frames[LATE:, y, x] = frames[LATE:, y, x] * colour if isinstance(colour, float) else colour
    news = np.zeros(half(judged)[::-1], np.float32)
    news[rows, patch] = 1
    mask = cv2.resize(
        (truth.labels[LATE] == part + 1).astype(np.float32), half(judged), interpolation=cv2.INTER_AREA
    )  # fmt: skip
    return Copies(replace(judged.footage, frames=frames), truth, part, half(judged)).among(LATE, news, mask)


def test_a_new_thing_on_the_ground_may_be_a_copy_and_what_stood_there_before_is_none(clean: Judged) -> None:
    row, column = free_ground(clean, 4)
    place = slice(column - 3, column + 4), slice(row - 3, row + 4)
    assert news_of(clean, *place, (230, 40, 200)).sum() > 30
    assert news_of(clean, *place, 0.8).sum() == 0, "a soft shadow over what stood there before"
    assert news_of(clean, *place, 1.0).sum() == 0


@pytest.mark.parametrize(("shade", "thing", "told"), [
    ((0.4, 0.42, 0.45), (0.4, 0.42, 0.45), False), ((0.4, 0.42, 0.45), (0.63, 0.65, 0.67), False),
    ((0.4, 0.42, 0.45), (0.4, 0.25, 0.45), True), (None, (0.4, 0.42, 0.45), True),
])  # fmt: skip
def test_what_a_deep_shadow_does_to_scenery_elsewhere_is_no_copy(
    clean: Judged, shade: tuple[float, ...] | None, thing: tuple[float, ...], told: bool
) -> None:
    """Half the picture is in the shadow in the first half of the take, and its rim in a part of it; without one such a dark place
    may be a thing."""
    truth, part, footage = clean.truth, clean.truth.object_parts[0], clean.footage
    row, column = free_ground(clean, 4)
    frames = footage.frames.astype(np.float32)
    if shade:
        frames[1 : FRAMES // 2, :, : frames.shape[2] // 2] *= np.float32(shade)
    frames[LATE, 2 * row - 6 : 2 * row + 8, 2 * column - 6 : 2 * column + 8] *= np.float32(thing)
    news = np.zeros(half(clean)[::-1], np.float32)
    news[row - 3 : row + 4, column - 3 : column + 4] = 1
    mask = cv2.resize((truth.labels[LATE] == part + 1).astype(np.float32), half(clean), interpolation=cv2.INTER_AREA)
    seen = replace(footage, frames=frames.astype(np.uint8))
    assert (Copies(seen, truth, part, half(clean)).among(LATE, news, mask).sum() > 20) == told


def test_what_is_behind_the_scene_of_work_is_no_copy(clean: Judged) -> None:
    work = scene_of_work(clean.truth, clean.truth.object_parts[0], half(clean))
    inner = cv2.erode((~work).astype(np.uint8), np.ones((9, 9), np.uint8))
    assert inner.any()
    row, column = (int(v) for v in np.argwhere(inner)[len(np.argwhere(inner)) // 2])
    place = slice(column - 3, column + 4), slice(row - 3, row + 4)
    assert news_of(clean, *place, (230, 40, 200)).sum() == 0


def test_a_thing_much_larger_than_the_object_is_no_copy_of_it(clean: Judged) -> None:
    truth, part = clean.truth, clean.truth.object_parts[0]
    copies = Copies(clean.footage, truth, part, half(clean))
    side = int(np.sqrt(LARGEST * truth.area[:, part].max() / 4)) + 2
    news = np.zeros(half(clean)[::-1], np.float32)
    news[2 : 2 + side, 2 : 2 + side] = 1
    assert copies._of_its_size(news, np.zeros_like(news)).sum() == 0
    touching = np.zeros_like(news)
    touching[4, 4] = 1
    assert copies._of_its_size(news, touching).sum() == news.sum(), "the object itself before like-coloured ground"
    news[:], news[2:6, 2:6] = 0, 1
    assert copies._of_its_size(news, np.zeros_like(news)).sum() == 16


def test_a_silhouette_tells_where_an_object_stands_whatever_its_colours(clean: Judged) -> None:
    """Neither scenery in its place nor a silhouette beside it does."""
    settings, part = load_settings().object, clean.truth.object_parts[0]
    frames = clean.footage.frames.copy()
    t = next(int(k) for k in range(FRAMES - 1, 0, -1) if clean.truth.area[k, part] > 60)
    mask = clean.truth.labels[t] == part + 1
    frames[t][mask] = (250, 250, 90)
    body = bodies(replace(clean.footage, frames=frames), clean.truth, part, [t])
    apart = np.linalg.norm(body.offset, axis=1)
    assert stands(body, apart, settings)[t]
    assert not stands(body, apart + 5, settings)[t]
    frames[t][mask] = np.clip(clean.footage.scenery[mask], 0, 255)
    gone = bodies(replace(clean.footage, frames=frames), clean.truth, part, [t])
    assert gone.behind[t] > settings.behind
    assert not stands(gone, np.zeros_like(apart), settings)[t]
