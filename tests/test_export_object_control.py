# SPDX-License-Identifier: Apache-2.0
"""Objects in the control videos of exports: drawn from what stands beside them, stated, refused where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_runs import make_header, make_run, tree, write_episode, write_take
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode, translation

from retake.core.episode import ObjectSpec, open_episode
from retake.core.errors import Cancelled, ExportError, InputError
from retake.core.export import ExportOptions, Selection, Split, export, oscar
from retake.core.export.canvas import arrange
from retake.core.export.cli import main
from retake.core.export.physics import physics_arrays
from retake.core.files import read_json, sha256_file
from retake.core.oscar_episode import oscar_view
from retake.core.skeleton.objects import GLYPH, OBJECT_RGB, VERSION, ObjectTrack, draw_control, draw_objects
from retake.core.video import read_video, write_video

WITH = ExportOptions("oscar", object_control=True)
FRAMES = 12


def scene_run(path: Path, **options: Any) -> Path:
    """A run of the falling packet with one take per camera."""
    episode = make_scene_episode(path / "episode", frames=FRAMES, size=(96, 64), **options)
    for camera in episode.header.cameras:
        write_take(path, episode, 0, camera=camera.name)
    return path


def load(sample: Path) -> dict[str, np.ndarray]:
    with np.load(sample / "physics.npz", allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_run(tmp_path_factory.mktemp("objects") / "r", wrist=True)


def test_the_control_video_is_the_skeleton_with_what_physics_npz_says(run: Path, tmp_path: Path) -> None:
    """Byte for byte what the same function makes of the sample's own physics.npz."""
    export([run], tmp_path / "d", WITH)
    episode = open_episode(run / "episode")
    samples = oscar.samples(tmp_path / "d")
    assert [s.name for s in samples] == ["front", "wrist"]
    for sample in samples:
        skeleton = oscar_view(episode, sample.name, length=FRAMES).skeleton
        wanted = tmp_path / f"{sample.name}.mp4"
        write_video(wanted, draw_control(skeleton, load(sample)), episode.header.fps)
        assert sha256_file(sample / "gripper_scenario.mp4") == sha256_file(wanted)
        said = read_json(sample / "provenance.json")["object_control"]
        assert said == {"version": VERSION, "glyph": GLYPH, "objects": [{"name": "packet", "rgb": [255, 0, 255]}]}
    front = list(read_video(samples[0] / "gripper_scenario.mp4"))
    assert all((np.abs(f.astype(int) - OBJECT_RGB[0]).max(-1) < 90).any() for f in front)
    assert read_json(tmp_path / "d/meta/retake.json")["object_control"] == VERSION
    assert VERSION in (tmp_path / "d/README.md").read_text("utf-8")


def test_nothing_else_of_an_export_changes(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "with", WITH)
    export([run], tmp_path / "without", ExportOptions("oscar"))
    a, b = tree(tmp_path / "with"), tree(tmp_path / "without")
    other = {name for name in a if a[name] != b[name]}
    assert a.keys() == b.keys()
    assert {Path(name).name for name in other} == {
        "gripper_scenario.mp4",
        "provenance.json",
        "retake.json",
        "README.md",
    }
    assert not any(b"object_control" in b[name] or b"object-control" in b[name] for name in other)


def test_a_canvas_draws_through_each_camera_before_it_is_placed(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "d", replace(WITH, format="oscar-canvas"))
    (sample,) = oscar.samples(tmp_path / "d")
    episode = open_episode(run / "episode")
    canvas = arrange({c.name: c.size for c in episode.header.cameras}, "wrist")
    views = {
        name: list(
            draw_control(oscar_view(episode, name, length=FRAMES).skeleton, physics_arrays(episode, name, 0, FRAMES))
        )
        for name in ("wrist", "front")
    }
    frames = (canvas.place({name: views[name][k] for name in views}) for k in range(FRAMES))
    write_video(tmp_path / "wanted.mp4", frames, episode.header.fps)
    assert sha256_file(sample / "gripper_scenario.mp4") == sha256_file(tmp_path / "wanted.mp4")
    assert read_json(sample / "provenance.json")["object_control"]["version"] == VERSION


@pytest.mark.parametrize("name", ["lerobot-v3", "lerobot-v2.1", "hdf5-isaaclab"])
def test_a_format_without_a_control_video_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} has none; it is for --format oscar and oscar-canvas"):
        main([str(run), "--out", str(tmp_path / "d"), "--format", name, "--object-control"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", [Split(), Split(val=0.5)])
def test_an_episode_without_objects_leaves_nothing(tmp_path: Path, split: Split) -> None:
    runs = [make_run(tmp_path / f"r{k}", takes=1, seed=k) for k in range(3)]
    header = make_header(4)
    bare = tmp_path / "bare"
    episode = write_episode(
        bare / "episode", replace(header, objects=(replace(header.objects[0], movable=False),)), 8, 4
    )
    write_take(bare, episode, 0)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(
        ExportError, match="the episode of bare has no movable object to draw; leave that run out, or export"
    ):
        export([*runs, bare], tmp_path / "d", replace(WITH, split=split))
    assert {path.name for path in tmp_path.iterdir()} == before
    export(runs, tmp_path / "d", WITH)


def test_exports_with_and_without_are_not_added_to_each_other(run: Path, tmp_path: Path) -> None:
    other = scene_run(tmp_path / "other", seed=3)
    for first, second, found in ((WITH, ExportOptions("oscar"), VERSION), (ExportOptions("oscar"), WITH, "none")):
        out = tmp_path / found.replace("/", "_")
        export([run], out, first, Selection(cameras=("front",)))
        before = tree(out)
        with pytest.raises(ExportError, match=rf"objects in the control video: it has {found}, asked is"):
            export([other], out, replace(second, append=True))
        assert tree(out) == before
        (report,) = export([other], out, replace(first, append=True))
        assert report.episodes == 2
        assert ("object_control" in read_json(out / "meta/retake.json")) == (first is WITH)


def test_an_interrupted_export_goes_on_as_it_began_or_not_at_all(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "whole", WITH)
    seen = 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen > FRAMES // 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        export([run], tmp_path / "d", WITH, check_cancel=stop)
    with pytest.raises(ExportError, match=r"another export to .* was interrupted.*--restart"):
        export([run], tmp_path / "d", ExportOptions("oscar"))
    export([run], tmp_path / "d", WITH)
    assert tree(tmp_path / "d") == tree(tmp_path / "whole")
    seen = 0
    with pytest.raises(Cancelled):
        export([run], tmp_path / "e", WITH, check_cancel=stop)
    export([run], tmp_path / "e", ExportOptions("oscar", restart=True))
    export([run], tmp_path / "plain", ExportOptions("oscar"))
    assert tree(tmp_path / "e") == tree(tmp_path / "plain")


def two(x: float) -> dict[str, Any]:
    """A physics.npz of two boxes 1 m before the camera, with a tray between them that does not move."""
    poses = np.stack([translation(-0.2, 0.0, 1.0), translation(0.0, 0.2, 1.0), translation(x, 0.0, 1.0)])[None]
    return {
        "object_names": np.array(["a", "tray", "b"]), "object_movable": np.array([True, False, True]),
        "object_sizes_m": np.full((3, 3), 0.1), "object_centers_m": np.zeros((3, 3)), "T_world_object": poses,
        "camera_intrinsic": np.array([[[100.0, 0, 64], [0, 100, 48], [0, 0, 1]]]), "T_camera_world": np.eye(4)[None],
    }  # fmt: skip


@given(st.floats(-0.1, 0.4))
def test_each_movable_object_has_its_colour_and_the_later_one_lies_on_top(x: float) -> None:
    arrays = two(x)
    black = np.zeros((1, 96, 128, 3), np.uint8)
    (both,) = draw_control(black, arrays)
    alone = []
    for index, colour in ((0, OBJECT_RGB[0]), (2, OBJECT_RGB[1])):
        track = ObjectTrack(arrays["T_world_object"][:, index], np.full(3, 0.1), np.zeros(3))
        (one,) = draw_objects(black, [track], arrays["camera_intrinsic"], arrays["T_camera_world"])
        alone.append(np.where(one.any(-1, keepdims=True), np.array(colour, np.uint8), 0))
    assert np.array_equal(both, np.where(alone[1].any(-1, keepdims=True), alone[1], alone[0]))
    assert not black.any()


def test_an_object_behind_the_camera_is_left_out() -> None:
    arrays = two(0.2)
    arrays["T_world_object"][:, 2, 2, 3] = -1.0
    (drawn,) = draw_control(np.zeros((1, 96, 128, 3), np.uint8), arrays)
    assert (drawn == OBJECT_RGB[0]).all(-1).any()
    assert not (drawn == OBJECT_RGB[1]).all(-1).any()


def test_objects_of_a_camera_that_recorded_no_ids_are_drawn_all_the_same(tmp_path: Path) -> None:
    run = scene_run(tmp_path / "r", channels=("rgb",))
    export([run], tmp_path / "d", WITH)
    (sample,) = oscar.samples(tmp_path / "d")
    assert "object_masks" not in load(sample)
    frames = list(read_video(sample / "gripper_scenario.mp4"))
    assert (np.abs(frames[0].astype(int) - OBJECT_RGB[0]).max(-1) < 90).any()


def test_two_objects_are_stated_by_name(tmp_path: Path) -> None:
    header = make_header(1)
    objects = tuple(replace(header.objects[0], name=name, prim_path=f"/World/{name}") for name in ("can", "bun"))
    assert isinstance(objects[0], ObjectSpec)
    run = tmp_path / "r"
    episode = write_episode(run / "episode", replace(header, objects=objects, instances=header.instances[:1]), 8, 1)
    write_take(run, episode, 0)
    export([run], tmp_path / "d", WITH)
    (sample,) = oscar.samples(tmp_path / "d")
    assert [o["name"] for o in read_json(sample / "provenance.json")["object_control"]["objects"]] == ["can", "bun"]
