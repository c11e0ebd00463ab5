# SPDX-License-Identifier: Apache-2.0
"""Takes of models that read objects from a control video: a glyph in the picture is measured, and fails a take."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import verdict_scenes as scene
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import write_take_json
from verdict_scenes import FRAMES, SIZE

from retake.core.episode import Episode
from retake.core.export.physics import physics_arrays
from retake.core.files import read_json, write_json
from retake.core.run_store import create_run
from retake.core.skeleton.objects import OBJECT_RGB, draw_control
from retake.core.verdicts import control, examine, load_settings, verify_run
from retake.core.verdicts.control import NAME, measure_leak
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.recorded import FORM
from retake.core.verdicts.truth import Truth, read_truth
from retake.core.video import write_video


@lru_cache(maxsize=1)
def glyphs() -> np.ndarray:
    """The control video's objects alone, on black."""
    black = np.zeros((FRAMES, SIZE[1], SIZE[0], 3), np.uint8)
    return np.stack(list(draw_control(black, physics_arrays(scene.scene_episode(), "front", 0, FRAMES))))


@lru_cache(maxsize=1)
def truth() -> Truth:
    return read_truth(scene.scene_episode(), "front", 0, FRAMES, load_settings().working_width)


def leaked(video: np.ndarray, opacity: float, drawn: np.ndarray | None = None) -> np.ndarray:
    """A video with the glyphs painted over it."""
    over = glyphs() if drawn is None else drawn
    part = opacity * over.any(-1, keepdims=True)
    return np.rint(video * (1 - part) + over * part).astype(np.uint8)


def opacity_of(video: np.ndarray, episode: Episode | None = None) -> float:
    found = measure_leak(make_footage(video, truth()), truth(), episode or scene.scene_episode(), "front")
    assert found.value is not None
    assert found.worst_frame is not None
    return found.value


@settings(max_examples=15)
@given(st.floats(0, 1), st.sampled_from(["wood", "kitchen"]), st.integers(1, 4))
def test_the_opacity_of_a_glyph_is_measured(opacity: float, world: str, seed: int) -> None:
    video = scene.paint(scene.scene_maps(), world, seed)
    assert opacity_of(leaked(video, opacity)) == pytest.approx(opacity, abs=0.06)


def test_a_glyph_of_nine_frames_is_found_and_a_passing_outline_is_not() -> None:
    video = scene.clean_video()
    for frames, least, most in ((9, 0.9, 1.1), (1, -0.1, 0.2)):
        part = glyphs().copy()
        part[:10], part[10 + frames :] = 0, 0
        assert least < opacity_of(leaked(video, 1.0, part)) < most


def test_glyphs_elsewhere_in_time_are_not_taken_for_the_object_s_own() -> None:
    assert opacity_of(leaked(scene.clean_video(), 1.0, np.roll(glyphs(), FRAMES // 2, axis=0))) < 0.5


def test_a_leaking_take_of_a_model_that_reads_objects_does_not_pass() -> None:
    """Half opaque it passed every other check; of other takes nobody asks."""
    episode, video = scene.scene_episode(), scene.clean_video()
    clean = examine(video, episode, "front", object_control="drawn").verdict
    assert clean.check(NAME).status == "pass"
    plain = examine(video, episode, "front").verdict
    assert [c for c in clean.checks if c.name != NAME] == [c for c in plain.checks if c.name != NAME]
    assert clean.overall == plain.overall
    for shown in ("drawn", "embed"):
        found = examine(leaked(video, 0.5), episode, "front", object_control=shown).verdict
        assert found.check(NAME).status == "fail"
        assert found.overall == "fail"
        assert "of packet" in found.check(NAME).note
        json.dumps(found.to_json(), allow_nan=False)
    unasked = examine(leaked(video, 0.5), episode, "front").verdict
    assert unasked.check(NAME).status == "skipped"
    assert "was shown no objects" in unasked.check(NAME).note


def test_a_run_s_take_says_how_its_model_was_shown_the_objects(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", {}, scene.scene_episode().path)
    for name, more in (("a-s1/front", {"object_control": "drawn"}), ("b-s1/front", {})):
        folder = run.take_folder(name)
        folder.mkdir(parents=True)
        write_video(folder / "take.mp4", leaked(scene.clean_video(), 0.5), 15)
        write_take_json(folder, variant=f"{name[0]}/front", frames=FRAMES, **more)
    asked, unasked = verify_run(run.path)
    assert (asked["overall"], "b" in unasked["take"]) == ("fail", True)
    judged = [{c["name"]: c["status"] for c in row["checks"]}[NAME] for row in (asked, unasked)]
    assert judged == ["fail", "skipped"]
    # Found out later: the kept verdict is not of the same inputs.
    record = run.take_folder("b-s1/front") / "take.json"
    write_json(record, {**read_json(record), "object_control": "embed"})
    assert [row["overall"] for row in verify_run(run.path)] == ["fail", "fail"]


def test_without_movable_objects_there_is_nothing_to_leak() -> None:
    episode = scene.scene_episode()
    header = replace(episode.header, objects=tuple(replace(o, movable=False) for o in episode.header.objects))
    found = measure_leak(make_footage(scene.clean_video(), truth()), truth(), replace(episode, header=header), "front")
    assert (found.value, found.applies, found.absent) == (None, False, True)


def test_a_white_glyph_is_told_by_its_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth object's: outlines of real things differ so, too."""
    monkeypatch.setattr(control, "OBJECT_RGB", OBJECT_RGB[3:])
    white = np.where(glyphs().any(-1, keepdims=True), np.array(OBJECT_RGB[3], np.uint8), 0)
    for world in ("wood", "kitchen"):
        video = scene.paint(scene.scene_maps(), world, 1)
        assert opacity_of(video) < load_settings().threshold(NAME).limit
        assert opacity_of(leaked(video, 0.5, white)) == pytest.approx(0.5, abs=0.1)


def test_a_recording_s_own_pictures_have_no_part_in_it() -> None:
    assert NAME in FORM
