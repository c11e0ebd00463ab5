# SPDX-License-Identifier: Apache-2.0
"""What only looks like a fault: a sheen that slides over scenery, leaves' shadows before a hand's camera, marks on a hand, a
weak look-alike beside an object whose sides have the colours of what is behind it. Each with the fault it looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.verdicts import examine, load_settings, tracking
from retake.core.verdicts.bodies import Body
from retake.core.verdicts.drift import Fit, explained
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.geometry import likeness, measure_geometry
from retake.core.verdicts.judge import Judged
from retake.core.verdicts.objects import doubted
from retake.core.verdicts.settings import ObjectSettings
from retake.core.verdicts.stability import measure_stability
from retake.core.verdicts.tracking import Track
from retake.core.verdicts.wrists import ANGLES, _elsewhere, _receded, _Row

FRAMES, SIZE = scene.FRAMES, scene.SIZE


def noise(seed: int, size: float, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Smooth noise, mean 0 and deviation 1."""
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=shape).astype(np.float32), (0, 0), size)
    return (field - field.mean()) / field.std()


@given(
    seed=st.integers(0, 99),
    dx=st.floats(-2, 2),
    dy=st.floats(-2, 2),
    sheen=st.floats(0, 12),
    share=st.sampled_from([0, 1]),
)
@settings(max_examples=40, deadline=None)
def test_pixels_go_along_with_a_drift_and_not_with_a_sheen(
    seed: int, dx: float, dy: float, sheen: float, share: int
) -> None:
    if np.hypot(dx, dy) < 0.5:
        dx = 0.7
    still = 128 + 35 * noise(seed, 2)
    M = np.array([[1, 0, share * dx], [0, 1, share * dy]], np.float32)
    moved = cv2.warpAffine(still, M, (160, 120), borderMode=cv2.BORDER_REFLECT)
    pair = [
        np.clip(image + sheen * noise(seed + k, 6), 0, 255).astype(np.uint8)
        for k, image in ((100, still), (200, moved))
    ]
    inside = np.zeros((120, 160), bool)
    inside[8:-8, 8:-8] = True
    found = explained(pair[0], pair[1], inside, Fit(np.array([dx, dy, 0.0, 0.0]), 160.0))
    assert found == pytest.approx(share, abs=0.25)


@pytest.fixture(scope="module")
def clean() -> Judged:
    return examine(scene.clean_video(), scene.scene_episode(), "front")


def drift_of(judged: Judged, frames: np.ndarray) -> float:
    footage = make_footage(np.clip(frames, 0, 255).astype(np.uint8), judged.truth)
    found = measure_stability(footage, judged.truth, np.zeros(len(frames)), load_settings().stability)[0]
    assert found.value is not None
    return found.value


def test_a_texture_that_slides_over_all_scenery_is_no_drift(clean: Judged) -> None:
    """Faint, and as coherent as a camera that creeps: flow follows it wherever the scenery is plain."""
    height, width = clean.footage.frames.shape[1:3]
    prints = 150 + 25.0 * (noise(1, 2, (height, width)) > 0.5)[..., None]
    sheen = noise(2, 10, (height, width + 2 * FRAMES))
    sliding = np.stack([prints * (1 + 0.05 * sheen[:, t : t + width, None]) for t in range(FRAMES)]) * np.ones(3)
    creeping = np.stack([np.roll(prints, t // 4, 1) for t in range(FRAMES)]) * np.ones(3)
    limit = load_settings().threshold("background_drift").limit
    assert drift_of(clean, sliding) < limit
    assert drift_of(clean, creeping) > limit


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    path = tmp_path_factory.mktemp("leaves") / "episode"
    return make_scene_episode(path, frames=FRAMES, size=SIZE, wrist=True, shadows=False)


def test_leaves_before_a_hand_camera_do_not_stop_the_scenery(episode: Episode) -> None:
    """A pattern of hard shadows that stays in the picture has nearly all of its corners."""
    rematerialise: Any = pytest.importorskip("rematerialise")
    video = scene.paint(rematerialise.load_maps(episode, "wrist", 0, FRAMES), "clutter", 4)
    judged = examine(video, episode, "wrist")
    stability = load_settings().stability
    leaves = 1 - 0.6 * cv2.GaussianBlur((noise(3, 2.5, video.shape[1:3]) > 0.3).astype(np.float32), (0, 0), 0.7)
    grain = np.random.default_rng(5).normal(0, 1.5, video.shape)

    def motion(frames: np.ndarray) -> float:
        shown = np.clip(frames * leaves[..., None] + grain, 0, 255).astype(np.uint8)
        found = measure_geometry(make_footage(shown, judged.truth), judged.truth, episode, "wrist", stability)[1]
        assert found.value is not None, found.note
        return found.value

    limit = load_settings().threshold("camera_motion").limit
    assert motion(video) < limit
    # The control: scenery that stands in the picture, or goes backwards, under the same leaves.
    assert motion(np.repeat(video[FRAMES // 2][None], FRAMES, 0)) > 0.9
    assert motion(video[::-1]) > limit


@given(seed=st.integers(0, 99), x=st.floats(-6, 6), y=st.floats(-6, 6))
@settings(max_examples=30, deadline=None)
def test_a_place_is_like_itself_and_not_like_noise(seed: int, x: float, y: float) -> None:
    picture = 128 + 40 * noise(seed, 2)
    moved = cv2.warpAffine(picture, np.array([[1, 0, x], [0, 1, y]], np.float32), (160, 120))
    other = 128 + 40 * noise(seed + 100, 2)
    start = np.stack(np.meshgrid(np.arange(30.0, 130, 15), np.arange(30.0, 90, 15)), -1).reshape(-1, 2)
    images = [np.clip(image, 0, 255).astype(np.uint8) for image in (picture, moved, other)]
    assert likeness(images[0], images[1], start, start + np.array([x, y])).min() > 0.8
    assert np.median(likeness(images[0], images[2], start, start + np.array([x, y]))) < 0.5
    nowhere = np.full_like(start, np.nan)
    assert (likeness(images[0], images[1], start, nowhere) == -1).all()


def row(beyond: float, response: float, left: float, kept: float) -> _Row:
    """A frame of a hundred points whose mean response is a half, alike at every angle."""
    same = np.ones(len(ANGLES))
    return _Row(0.5 * same, 0.5 * same, 100.0, 100 * beyond * response * same, 100 * beyond * same, 100 * left * same,
                100 * kept * same)  # fmt: skip


@pytest.mark.parametrize(
    ("beyond", "response", "left", "kept", "told"),
    [
        (0.3, 0.5, 0.0, 0.0, True),  # edges where there should be scenery
        (0.3, 0.1, 0.0, 0.0, False),  # no edges there
        (0.05, 0.5, 0.05, 0.05, False),  # a stripe on the hand
        (0.0, 0.0, 0.3, 0.05, True),  # scenery where there should be a hand
        (0.0, 0.0, 0.3, 0.2, False),  # a hand of the scenery's colours
    ],
)
def test_a_turned_hand_shows_beyond_its_outline_or_leaves_it(
    beyond: float, response: float, left: float, kept: float, told: bool
) -> None:
    assert _elsewhere([row(beyond, response, left, kept)] * 6, 3) is told


@pytest.mark.parametrize("hand", [(60, 60, 60), (150, 152, 155)])
def test_what_a_hand_leaves_looks_like_the_scenery(clean: Judged, hand: tuple[int, int, int]) -> None:
    """A hand 60 px wide is drawn 40 px wide, or as wide as simulated with a stripe at the same place."""
    size = (clean.footage.frames.shape[1], clean.footage.frames.shape[2], 3)
    scenery = np.broadcast_to(np.array([150, 150, 150], np.float32) + 3 * noise(7, 2, size[:2])[..., None], size)
    narrow, wide = scenery.copy(), scenery.copy()
    narrow[80:140, 110:150], wide[80:140, 100:160] = hand, hand
    wide[80:140, 148:150] = 20
    places = np.stack([np.full(30, 160.0), np.linspace(90, 130, 30)], 1)
    normal = np.tile([1.0, 0.0], (30, 1))
    turned = np.broadcast_to(places - [10.0, 0.0], (len(ANGLES), 30, 2))
    way = np.broadcast_to(normal, turned.shape)
    found = {}
    for name, picture in (("narrow", narrow), ("wide", wide)):
        frames = np.clip(picture, 0, 255).astype(np.uint8)[None]
        footage = replace(
            clean.footage, frames=frames, scenery=scenery.astype(np.float32), known=np.ones(size[:2], bool)
        )
        left, kept = _receded(footage, 0, places, normal, turned, way)
        found[name] = (left[0], kept[0])
    if hand[0] < 100:  # told from its scenery
        assert found["narrow"][0] > 20 > 2 * found["narrow"][1]
    assert found["wide"][0] < 10


def sighted(best: float, behind: float, contrast: float = 0.35) -> bool:
    """Whether a sighting of such strength (share of the first frame's) is doubted where something with that contrast, which looks
    like the scenery behind by that share, stands in the object's place."""
    one = np.ones(1)
    track = Track(
        0, np.zeros((1, 2)), np.zeros((1, 2)), 0.1 * one, 0.5 * best * one, one * 0, np.zeros((1, 2)), 0.5,
        np.zeros((1, 2, 2), np.float32),
    )  # fmt: skip
    body = Body(
        0, 300 * one, one > 0, np.zeros((1, 2)), one * 0, one * 0, one, contrast * one, np.zeros((1, 3)), {}, behind * one,
        one * 0,
    )  # fmt: skip
    return bool(doubted(track, body, one, ObjectSettings())[0])


def test_the_weaker_a_sighting_the_less_must_the_object_differ_from_what_is_behind() -> None:
    assert sighted(0.45, 0.65)  # grey sides before a grey wall
    assert not sighted(0.65, 0.65)
    assert not sighted(0.45, 0.95)  # nothing but the scenery is there
    assert not sighted(0.9, 0.1)  # the object itself, elsewhere
    assert sighted(0.65, 0.1)
    assert not sighted(0.45, 0.65, contrast=0.1)


@pytest.mark.parametrize(("news", "second"), [(0.0, 0.0), (0.6, 0.5)])
def test_an_object_beside_scenery_of_its_colours_is_no_second_one_of_itself(
    clean: Judged, monkeypatch: pytest.MonkeyPatch, news: float, second: float
) -> None:
    """The object's place and what is left of it score 0.5, one beside it 0.7: scenery that is no news there, or news."""

    def searched(likelihood: np.ndarray, mask: np.ndarray, window: Any = None) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.nonzero(mask > 0.5)
        row, column = int(np.mean(rows)), int(np.mean(columns))
        beside = column + max(6, int(1.3 * np.sqrt(mask.sum()))) - 1  # as far as places count as the object's own
        score = np.zeros_like(likelihood)
        if window is None:
            score[row, beside] = news
            return score, np.array([column, row])
        score[row, column - 3 : column + 1], score[row, beside] = 0.5, 0.7
        return score[window], np.array([column, row])

    monkeypatch.setattr(tracking, "_search", searched)
    found = tracking.track(clean.footage, clean.truth, clean.truth.object_parts[0])
    assert found is not None
    assert np.nanmedian(found.best) == pytest.approx(0.7)
    assert np.nanmedian(found.second) == pytest.approx(second)
