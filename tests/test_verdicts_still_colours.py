# SPDX-License-Identifier: Apache-2.0
"""What nobody touches keeps its colour: laws of one comparison, and takes before a camera that stands or moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.verdicts.footage import make_footage, shrink
from retake.core.verdicts.judge import examine
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.scene import open_scene
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.still_colours import NAME, change_of_colour, measure_still_colours, things_that_stand
from retake.core.verdicts.truth import read_truth

SETTINGS = load_settings()
FLOOR, TABLE, TRAY, PACKET = 1, 2, 3, 4
"""Instance ids of tests/scenes.py."""

hues = st.tuples(*[st.integers(30, 200)] * 3)


def surface(rng: np.random.Generator, colour: tuple[int, ...]) -> np.ndarray:
    """(60, 60, 3) float: a thing of 30 x 30 px with a grain in the middle of a grey floor."""
    picture = np.full((60, 60, 3), 110.0)
    picture[15:45, 15:45] = np.array(colour) * rng.uniform(0.8, 1.2, (30, 30, 1))
    return picture.clip(0, 245)


def compared(before: np.ndarray, now: np.ndarray, hidden: np.ndarray | None = None) -> float | None:
    mask = np.zeros((60, 60), bool)
    mask[15:45, 15:45] = True
    shown = now.clip(0, 255).astype(np.uint8)
    return change_of_colour(shown, before.astype(np.float32), mask, np.zeros_like(mask) if hidden is None else hidden)


@given(colour=hues, gain=st.floats(0.6, 1.2), half=st.floats(0.4, 1.0), noise=st.floats(0, 5), seed=st.integers(0, 99))
def test_light_and_shadows_change_no_colour(
    colour: tuple[int, ...], gain: float, half: float, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = surface(rng, colour)
    shade = np.where(np.arange(60)[None, :, None] < 30, half, 1.0)
    now = before * gain * shade + rng.normal(0, noise, before.shape)
    found = compared(before, now)
    assert found is not None
    assert found < SETTINGS.threshold(NAME).limit / 2


@given(colour=hues, share=st.floats(0, 0.8))
def test_a_highlight_changes_no_colour(colour: tuple[int, ...], share: float) -> None:
    before = surface(np.random.default_rng(0), colour)
    found = compared(before, before + share * (240 - before))
    assert found is not None
    assert found < SETTINGS.threshold(NAME).limit / 2


@given(colour=hues, balance=st.tuples(*[st.floats(0.8, 1.25)] * 3))
def test_what_the_surroundings_do_as_well_is_no_news_of_the_thing(
    colour: tuple[int, ...], balance: tuple[float, ...]
) -> None:
    before = surface(np.random.default_rng(0), colour)
    found = compared(before, before * 0.9 * balance)
    assert found is None or found < SETTINGS.threshold(NAME).limit


@given(colour=hues, gain=st.floats(0.7, 1.1), seed=st.integers(0, 99))
def test_another_colour_is_told_whatever_it_was(colour: tuple[int, ...], gain: float, seed: int) -> None:
    """Most of what it had least, at the brightness that it had."""
    rng = np.random.default_rng(seed)
    before = surface(rng, colour)
    paint = np.full(3, 0.15)
    paint[int(np.argmin(colour))] = 0.7
    now = before.copy()
    now[15:45, 15:45] = before[15:45, 15:45].sum(-1, keepdims=True) * gain * paint
    found = compared(before, now)
    assert found is None or found > SETTINGS.threshold(NAME).limit


def test_what_hardly_shows_or_is_bleached_by_light_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    before = surface(rng, (200, 90, 40))
    hidden = np.ones((60, 60), bool)
    hidden[20:25, 20:25] = False
    assert compared(before, before, hidden) is None
    assert compared(np.full_like(before, 252.0), before) is None
    assert compared(before, np.full_like(before, 252.0)) is None


def repainted(thing: int, begin: int) -> np.ndarray:
    """The faithful take, in which a thing is green from a frame on."""
    maps, video = scene.scene_maps(), scene.clean_video().copy()
    for t in range(begin, scene.FRAMES):
        mask = maps.ids[t] == thing
        video[t][mask] = (video[t][mask].mean(-1, keepdims=True) * np.array([0.4, 2.0, 0.5])).clip(0, 255)
    return video


@pytest.mark.parametrize(("thing", "name"), [(TRAY, "Tray"), (TABLE, "Table")])
def test_a_tray_or_a_table_that_takes_another_colour_fails(thing: int, name: str) -> None:
    clean = examine(scene.clean_video(), scene.scene_episode(), "front").verdict.check(NAME)
    assert (clean.status, clean.value is not None) == ("pass", True)
    found = examine(repainted(thing, 14), scene.scene_episode(), "front").verdict.check(NAME)
    assert found.status == "fail"
    assert name.lower() in found.note.lower()
    assert found.worst_frame is not None
    assert found.worst_frame >= 12


def test_another_colour_in_one_look_alone_is_no_failure() -> None:
    video = scene.clean_video().copy()
    video[12] = repainted(TABLE, 0)[12]
    assert examine(video, scene.scene_episode(), "front").verdict.check(NAME).status == "pass"


def test_what_moves_is_not_among_what_stands() -> None:
    episode = scene.scene_episode()
    truth = read_truth(episode, "front", 0, scene.FRAMES)
    standing = things_that_stand(truth, episode)
    assert {FLOOR, TABLE, TRAY} <= set(standing)
    assert PACKET not in standing
    assert not {one.id for one in episode.header.instances if one.owner.startswith("robot:")} & set(standing)


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """An episode with a camera on the hand."""
    path = tmp_path_factory.mktemp("hand") / "episode"
    return make_scene_episode(path, frames=33, size=(320, 240), wrist=True, shadows=False)


def by_hand(episode: Episode, thing: int) -> Measurement:
    """The simulator's own pictures of the hand's camera; from the middle on a thing of it (0: none) in another colour."""
    truth = read_truth(episode, "wrist", 0, 33)
    pictures = []
    for t in range(33):
        image, ids = episode.image("wrist", "rgb", t).copy(), episode.image("wrist", "instances", t)
        if t >= 16:
            image[ids == thing] = (image[ids == thing].mean(-1, keepdims=True) * np.array([0.4, 2.0, 0.5])).clip(0, 255)
        pictures.append(shrink(image, truth.size))
    footage = make_footage(np.stack(pictures), truth)
    asked = replace(SETTINGS.stability, still_step=4)
    return measure_still_colours(footage, truth, asked, episode, "wrist", open_scene(episode, "wrist", truth))


@pytest.mark.parametrize("thing", [0, TABLE])
def test_before_a_camera_that_moves_too(hand: Episode, thing: int) -> None:
    found = by_hand(hand, thing)
    assert found.value is not None
    assert SETTINGS.threshold(NAME).fails(found.value) == bool(thing)


def test_without_depth_a_camera_that_moves_is_not_asked(hand: Episode) -> None:
    truth = read_truth(hand, "wrist", 0, 9)
    footage = make_footage(np.zeros((9, truth.size[1], truth.size[0], 3), np.uint8), truth)
    assert not measure_still_colours(footage, truth, SETTINGS.stability, hand, "wrist", None).applies


def test_far_from_robot_and_objects_a_camera_that_moves_is_not_asked(
    hand: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A take's own walls may stand before the simulated scenery there."""
    monkeypatch.setattr("retake.core.verdicts.still_colours._REACH_M", 0.02)
    assert not SETTINGS.threshold(NAME).fails(by_hand(hand, TABLE).value or 0.0)
