# SPDX-License-Identifier: Apache-2.0
"""All cameras of a world on one picture: places, pixels, masks and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_runs import make_run, picture
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import open_episode
from retake.core.errors import EpisodeError, ExportError
from retake.core.export import ExportOptions, export, oscar
from retake.core.export.canvas import arrange, canvas_physics
from retake.core.export.physics import physics_arrays, unpack_masks
from retake.core.files import read_json
from retake.core.importers.oscar import import_oscar
from retake.core.oscar_episode import oscar_view, read_oscar_meta
from retake.core.video import read_video

SIZES = st.tuples(st.integers(8, 400), st.integers(8, 400))


@given(st.lists(SIZES, min_size=2, max_size=6), st.data())
def test_every_camera_has_a_place_of_its_own(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Tiles lie on the canvas, overlap nowhere, keep their aspect to a pixel, and the top one its size."""
    named = {f"c{k}": size for k, size in enumerate(sizes)}
    top = data.draw(st.sampled_from(sorted(named)))
    canvas = arrange(named, top)
    assert canvas.size[0] % 2 == canvas.size[1] % 2 == 0
    covered = np.zeros((canvas.size[1], canvas.size[0]), int)
    for tile in canvas.tiles:
        assert tile.x >= 0
        assert tile.y >= 0
        area = covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        assert area.shape == (tile.height, tile.width)
        area += 1
        width, height = named[tile.camera]
        if tile.camera == top:
            assert (tile.width, tile.height) == (width, height)
        else:
            scale = min(named[top][0] // 2 / width, named[top][1] // 2 / height)
            assert abs(tile.width - width * scale) <= 1
            assert abs(tile.height - height * scale) <= 1
    assert covered.max() == 1
    assert {tile.camera for tile in canvas.tiles} == set(named)


@given(st.integers(0, 255), st.integers(0, 255))
def test_pictures_land_in_their_tiles(a: int, b: int) -> None:
    canvas = arrange({"wrist": (64, 48), "front": (64, 48)}, "wrist")
    out = canvas.place({"wrist": np.full((48, 64, 3), a, np.uint8), "front": np.full((48, 64, 3), b, np.uint8)})
    assert out.shape == (72, 64, 3)
    assert (out[:48] == a).all()
    assert (out[48:, :32] == b).all()
    assert (out[48:, 32:] == 0).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("canvas")
    return make_run(root / "r", takes=2, frames=72, size=(64, 48), cameras=("front", "side", "wrist.left"))


def test_a_world_is_one_sample_of_all_its_cameras(run: Path, tmp_path: Path) -> None:
    (report,) = export([run], tmp_path / "d", ExportOptions("oscar-canvas"))
    samples = oscar.samples(tmp_path / "d")
    assert (report.episodes, len(samples)) == (2, 2)
    episode = open_episode(run / "episode")
    for sample in samples:
        assert oscar.problems(sample) == []
        tiles = {tile["camera"]: tile for tile in read_json(sample / "canvas.json")["tiles"]}
        assert set(tiles) == {"front", "side", "wrist.left"}
        rgb, skeleton = (list(read_video(sample / name)) for name in ("rgb.mp4", "gripper_scenario.mp4"))
        assert len(rgb) == len(skeleton) == 72
        world = int(read_json(sample / "provenance.json")["take_id"].split("/")[0][1:])
        for k in (0, 40):
            for tile in tiles.values():
                box = slice(tile["y"], tile["y"] + tile["height"]), slice(tile["x"], tile["x"] + tile["width"])
                want = picture((tile["width"], tile["height"]), episode.header.seed, k, world / 11)
                assert np.abs(rgb[k][box].astype(int) - want.astype(int)).mean() < 12
        for name in tiles:
            mine = read_oscar_meta(sample / "cameras" / f"{name}.npz")
            want = oscar_view(episode, name, length=72).arrays
            assert np.array_equal(mine.camera_extrinsic, want["camera_extrinsic"])
    again = export([run], tmp_path / "d", ExportOptions("oscar-canvas", append=True))[0]
    assert (again.added, again.already_there) == (0, 2)


def test_masks_lie_where_the_canvas_shows_the_cameras(tmp_path: Path) -> None:
    episode = make_scene_episode(tmp_path / "episode", frames=8, size=(160, 120), wrist=True)
    canvas = arrange({c.name: c.size for c in episode.header.cameras}, "wrist")
    arrays = canvas_physics(canvas, {t.camera: physics_arrays(episode, t.camera, 3, 5) for t in canvas.tiles})
    masks = unpack_masks(arrays)
    assert masks.shape[2:] == (canvas.size[1], canvas.size[0])
    assert arrays["canvas_cameras"].tolist() == ["wrist", "front"]
    for tile in canvas.tiles:
        own = unpack_masks(physics_arrays(episode, tile.camera, 3, 5))
        here = masks[:, :, tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        step = own.shape[2] // tile.height
        assert np.array_equal(here, own[:, :, ::step, ::step])
    assert masks.any()


def test_one_camera_is_no_canvas_and_leaves_nothing(tmp_path: Path) -> None:
    one = make_run(tmp_path / "r", takes=1, frames=8)
    with pytest.raises(ExportError, match="front alone; export with --format oscar"):
        export([one], tmp_path / "d", ExportOptions("oscar-canvas"))
    assert not (tmp_path / "d").exists()


def test_a_canvas_is_no_camera_s_view(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "d", ExportOptions("oscar-canvas"))
    with pytest.raises(EpisodeError, match="several cameras on one picture"):
        import_oscar(oscar.samples(tmp_path / "d")[0], tmp_path / "back")
    assert not (tmp_path / "back").exists()
