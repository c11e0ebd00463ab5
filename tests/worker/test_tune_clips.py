# SPDX-License-Identifier: Apache-2.0
"""What is learnt from and how it is parted, with a run and samples that a test plays. Of retake.worker.tune.clips."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.export.physics import NEVER
from retake.core.files import write_json
from retake.core.oscar_episode import RGB, SCENARIO
from retake.worker.tune import clips as module
from retake.worker.tune.clips import find_clips, objects_in_control, split


def frame_numbers(*found: list[int]) -> dict[str, Any]:
    """Arrays of physics.npz that name frames; of one object as a number, of several as a row."""
    names = ("grasp_frame", "release_frame", "settled_frame")
    return {name: np.array(row if len(row) > 1 else row[0]) for name, row in zip(names, found, strict=True)}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One run and the samples of one folder, as far as clips ask them."""
    world = SimpleNamespace(
        items=[], header=SimpleNamespace(objects=["box"], fps=20), asked=[], problems=[], caption="said"
    )
    world.physics = frame_numbers([3, NEVER], [5, 5], [9, 10])
    drawn = SimpleNamespace(sha256="5k", frames=lambda: iter(range(100)))
    episode = SimpleNamespace(header=world.header)
    told = lambda name, value: lambda *given: world.asked.append((name, *given[-3:])) or value  # noqa: E731
    monkeypatch.setattr(module, "plan", lambda runs, selection: SimpleNamespace(items=world.items))
    monkeypatch.setattr(module, "open_episode", lambda path: episode)
    monkeypatch.setattr(module, "open_skeleton", lambda path: drawn)
    monkeypatch.setattr(
        module, "RunDirectory", lambda path: SimpleNamespace(path=path, skeleton=lambda camera: path / camera)
    )
    monkeypatch.setattr(module, "simulated", told("simulated", iter("s")))
    monkeypatch.setattr(module, "take_frames", lambda item, video: iter([video]))
    monkeypatch.setattr(module, "physics_arrays", lambda *given: told("physics", world.physics)(*given))
    monkeypatch.setattr(module.oscar_layout, "samples", lambda place: sorted(place.glob("*/*")))
    monkeypatch.setattr(module.oscar_layout, "problems", lambda sample: world.problems)
    monkeypatch.setattr(module.oscar_layout, "read_caption", lambda path: world.caption)
    monkeypatch.setattr(module, "video_info", lambda path: SimpleNamespace(frames=10, fps=12.5))
    monkeypatch.setattr(module, "read_video", lambda path: [path.name])
    return world


def run_folder(tmp_path: Path, *cameras: str) -> Path:
    run = tmp_path / "run"
    for camera in cameras:
        (run / camera).mkdir(parents=True)
    (run / "run.json").write_text("{}")
    return run


def item(uid: str, *videos: tuple[str, Path | None], **provenance: Any) -> Any:
    return SimpleNamespace(
        uid=uid, episode=Path("e"), videos=videos, start=4, length=10, task="the task", trajectory="motion",
        provenance={"domain": "generated", **provenance},
    )  # fmt: skip


def test_a_run_gives_each_camera_of_each_take_with_its_own_window(tmp_path, played):
    run = run_folder(tmp_path, "front", "wrist")
    licences = {"licence_model": "M", "licence_first_frame": "", "licence_source": "S"}
    played.items = [item("1", ("front", None), ("wrist", Path("w.mp4")), prompt="the prompt", **licences),
                    item("2", ("front", None), prompt="", licence_source="S", licence_model="S")]  # fmt: skip
    front, wrist, second = find_clips([run])
    assert [clip.camera for clip in (front, wrist, second)] == ["front", "wrist", "front"]
    assert [clip.caption for clip in (front, wrist, second)] == ["the prompt", "the prompt", "the task"]
    assert [clip.terms for clip in (front, wrist, second)] == ["M; S", "M; S", "S"]
    assert (front.episode, front.domain, front.frames, front.fps) == ("motion", "generated", 10, 20.0)
    assert len({clip.uid for clip in (front, wrist, second)}) == 3
    assert front.events == (3, 5, 9), "in order, each once, none that never was or lies behind the end"
    assert list(front.skeleton()) == list(range(4, 14))
    played.asked.clear()
    assert list(front.rgb()) == ["s"]
    assert front.physics() is played.physics
    assert played.asked == [("simulated", "front", 4, 10), ("physics", "front", 4, 10)]
    assert list(wrist.rgb()) == [Path("w.mp4")]
    assert not front.objects_drawn
    assert [clip.uid for clip in find_clips([run, run])] == [front.uid, wrist.uid, second.uid], "each once"
    played.header.objects = []
    assert (find_clips([run])[0].events, find_clips([run])[0].physics()) == ((), None)


def test_a_camera_without_a_skeleton_is_told_how_it_gets_one(tmp_path, played):
    played.items = [item("1", ("front", None))]
    run = run_folder(tmp_path, "wrist")
    with pytest.raises(InputError, match=r"no skeleton of camera 'front'; `retake skeleton .*run` draws it"):
        find_clips([run])
    for wrong in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="is neither a run folder"):
            find_clips([wrong])


def sample(folder: Path, physics: Any = None, **stated: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / RGB).write_text(folder.name)
    (folder / SCENARIO).write_text("drawn")
    if stated:
        write_json(folder / "provenance.json", stated)
    if physics:
        np.savez(folder / "physics.npz", **physics)
    return folder


def test_a_sample_is_named_by_what_it_states_or_where_it_lies(tmp_path, played):
    sample(tmp_path / "a/0")
    sample(
        tmp_path / "a/1", played.physics, source_episode_id="source", domain="sim", camera="wrist", licence_model="L"
    )
    sample(tmp_path / "a/2", trajectory_id="motion", source_episode_id="source")
    bare, told, both = find_clips([tmp_path])
    assert [clip.episode for clip in (bare, told, both)] == ["a", "source", "motion"]
    assert (bare.domain, bare.camera, bare.terms, bare.events, bare.physics()) == (
        "recorded",
        "camera",
        "not stated",
        (),
        None,
    )
    assert (told.domain, told.camera, told.terms, told.events) == ("sim", "wrist", "L", (3, 5, 9))
    assert (told.caption, told.frames, told.fps) == ("said", 10, 12.5)
    assert (list(told.rgb()), list(told.skeleton())) == ([RGB], [SCENARIO])
    assert np.array_equal(told.physics()["grasp_frame"], [3, NEVER])
    sample(tmp_path / "b/0")
    assert len(find_clips([tmp_path])) == 3, "the same pictures and skeleton again"
    played.caption = None
    assert find_clips([tmp_path])[0].caption == ""


def test_a_sample_that_training_would_skip_is_learnt_from_and_a_broken_one_is_not(tmp_path, played):
    sample(tmp_path / "a/0")
    played.problems = ["short: training keeps samples of 20 frames"]
    assert len(find_clips([tmp_path])) == 1
    played.problems += ["no video", "no caption"]
    with pytest.raises(InputError, match=r"a/0 cannot be learnt from: no video; no caption$"):
        find_clips([tmp_path])


@pytest.mark.parametrize("name", ["source_episode_id", "window_start"])
def test_physics_and_provenance_may_be_silent_but_not_differ(tmp_path, played, name):
    truth = {**played.physics, name: np.array("0123456789abcdefg")}
    folder = sample(tmp_path / "a/0", truth, domain="sim")
    assert len(find_clips([tmp_path])) == 1
    write_json(folder / "provenance.json", {name: "0123456789abcdefX"})
    says = rf"\({name} is 0123456789abcdef, the sample's 0123456789abcdef\); export this sample again"
    with pytest.raises(InputError, match=says):
        find_clips([tmp_path])


@pytest.mark.parametrize(("record", "drawn", "says"), [
    (None, False, None), (module.VERSION, True, None), ({"version": module.VERSION}, True, None),
    ({"version": "old"}, None, "as 'old'"), ({}, None, r"as '\?'"), ("old", None, "as 'old'"),
])  # fmt: skip
def test_objects_are_drawn_in_this_way_or_not_read(tmp_path, played, record, drawn, says):
    sample(tmp_path / "a/0", domain="sim", **{module.oscar_layout.OBJECT_CONTROL: record})
    if says is None:
        assert find_clips([tmp_path])[0].objects_drawn is drawn
        return
    with pytest.raises(InputError, match=says):
        find_clips([tmp_path])


def test_what_is_drawn_already_is_counted_and_named_by_its_first():
    clips = [SimpleNamespace(caption=name, objects_drawn=name > "b") for name in "abcd"]
    found = "2 of 4 clips have objects drawn into their control videos (the first: 'c')"
    assert (
        objects_in_control(clips, "drawn")
        == f"{found}: taken as they are; those of the other 2 are drawn in the same way"
    )
    assert objects_in_control(clips[3:], "drawn").endswith("(the first: 'd'): taken as they are")
    assert objects_in_control(clips[:2], "none") == ""
    with pytest.raises(InputError) as caught:
        objects_in_control(clips, "none", "--this")
    assert str(caught.value) == (
        f"{found}, and object control is 'none' here; valid: --this, or exports without --object-control"
    )


# -- parted -----------------------------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.floats(0.05, 0.9), st.integers(0, 5))
def test_no_motion_is_on_both_sides(episodes, share, seed):
    clips = [SimpleNamespace(episode=f"e{i % episodes}", domain=d) for i in range(2 * episodes) for d in "ab"]
    if round(share * episodes) in (0, episodes):
        with pytest.raises(InputError, match="leaves one side empty"):
            split(clips, share, seed)
        return
    train, held = split(clips, share, seed)
    assert len(train) + len(held) == len(clips)
    assert not {c.episode for c in train} & {c.episode for c in held}


def test_so_many_motions_are_held_back_and_others_for_another_seed():
    clips = [SimpleNamespace(episode=f"e{k % 8}") for k in range(16)]
    assert split(clips, 0.0) == (clips, [])
    train, held = split(clips, 0.25)
    assert len({one.episode for one in held}) == 2
    assert [one for one in clips if one in train] == train, "each in the order it came"
    assert split(clips, 0.25) == (train, held)
    assert {split(clips, 0.25, seed)[1][0].episode for seed in range(6)} != {held[0].episode}
    for wrong in (-0.1, 1.0, 1.5):
        with pytest.raises(InputError, match="valid: 0 to below 1"):
            split(clips, wrong)
