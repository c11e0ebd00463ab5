# SPDX-License-Identifier: Apache-2.0
"""Control maps, robot lock, gate, contact sheet, `folder` backend: what holds for every backend's frames."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from scenes import make_scene_episode
from variant_faults import KINDS, plant

from retake.core.errors import VariantError
from retake.core.files import read_json
from retake.core.variants import image_backend, load_catalogue, make_variants, select_worlds, source_frame
from retake.core.variants.controls import control_maps
from retake.core.variants.edges import edge_f1, instance_border, structure_f1
from retake.core.variants.gate import check_variant, distances, duplicate_of, thumbnail
from retake.core.variants.gated import make_gated_variants
from retake.core.variants.lock import GAIN_BOUNDS, lock_robot
from retake.core.variants.make import read_frame
from retake.core.variants.procedural import ProceduralBackend

FULL = os.environ.get("RETAKE_FULL") == "1"


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    return make_scene_episode(tmp_path_factory.mktemp("gate") / "e", frames=12, size=(480, 360), only=range(1))


@pytest.fixture(scope="module")
def source(episode):
    return source_frame(episode, "front", 0)


@pytest.fixture(scope="module")
def good(source):
    names = list(load_catalogue().sections["presets"])[: 26 if FULL else 3]
    return {n: ProceduralBackend().render(source, load_catalogue().preset(n), 5) for n in names}


@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_are_caught(kind, source, good):
    for name, frame in good.items():
        report = check_variant(plant(kind, frame, source), source)
        assert not report.passed, (kind, name)
        assert report.reasons


def test_clean_frames_pass(source, good):
    for name, frame in good.items():
        assert check_variant(frame, source).reasons == (), name


def test_duplicates_are_noticed(source, good):
    names = list(good)
    marks = {n: thumbnail(good[n]) for n in names}
    grainy = np.clip(
        good[names[0]].astype(int) + np.random.default_rng(0).integers(-4, 5, good[names[0]].shape), 0, 255
    )
    assert duplicate_of(grainy.astype(np.uint8), marks) == names[0]
    assert duplicate_of(good[names[1]], {names[0]: marks[names[0]]}) == ""
    table = distances(list(good.values()))
    assert np.allclose(table, table.T)
    assert (table[np.triu_indices(len(names), 1)] > 3).all()


def test_gated_run_delivers_what_passed_and_reports_the_rest(episode, tmp_path):
    class Sometimes(ProceduralBackend):
        """Paints one world over the robot always, another only on the first attempt."""

        name = "sometimes"

        def render(self, source, world, seed, check_cancel=lambda: None):
            frame = super().render(source, world, seed)
            bad = world.name == "vegetable_kitchen" or (world.name == "chips_conveyor" and seed == 0)
            return plant("robot missing", frame, source) if bad else frame

    worlds = select_worlds(("bun_warehouse", "chips_conveyor", "vegetable_kitchen"))
    result = make_gated_variants(episode, "front", tmp_path, worlds=worlds, backend=Sometimes(), rerolls=1)
    assert [v.id for v in result.variants] == ["bun_warehouse", "chips_conveyor"]
    assert result.variants[1].seed != 0
    assert "robot_edges" in " ".join(result.missing["vegetable_kitchen"])
    assert not (tmp_path / "vegetable_kitchen").exists()
    assert cv2.imread(str(tmp_path / "contact_sheet.png")) is not None
    record = read_json(tmp_path / "gate.json")
    assert record["diversity"]["coverage"]["environment"]["warehouse"] == 1
    assert set(record["missing"]) == {"vegetable_kitchen"}
    stamp = (tmp_path / "chips_conveyor/frame.png").stat().st_mtime_ns
    again = make_gated_variants(episode, "front", tmp_path, worlds=worlds[:2], backend=Sometimes(), rerolls=1)
    assert again.variants == result.variants
    assert (tmp_path / "chips_conveyor/frame.png").stat().st_mtime_ns == stamp


def test_control_maps_come_from_the_geometry(source):
    maps = control_maps(source)
    hit = source.depth_m > 0
    near, far = source.depth_m[hit].argmin(), source.depth_m[hit].argmax()
    assert maps.depth[hit][near] > maps.depth[hit][far] >= 1
    assert (maps.depth[~hit] == 0).all()
    assert edge_f1(maps.geometry > 0, instance_border(source.instance_ids)) > 0.5
    border = instance_border(source.instance_ids)
    assert (cv2.dilate(maps.geometry, np.ones((3, 3), np.uint8)) > 0)[border].all()
    assert (
        np.array_equal(maps.robot > 0.5, source.robot_mask) or (maps.robot > 0.5).sum() > 0.97 * source.robot_mask.sum()
    )
    assert ((maps.robot > 0) & (maps.robot < 1)).any()
    table = maps.normals[source.instance_ids == 2]
    assert len(np.unique(table.reshape(-1, 3), axis=0)) <= 4  # a flat top and its sides
    assert maps.task_object.max() > 0.9
    colours = {i: np.unique(maps.segments[source.instance_ids == i], axis=0) for i in np.unique(source.instance_ids)}
    assert all(len(c) == 1 for c in colours.values())
    assert len({tuple(c[0]) for c in colours.values()}) == len(colours)


def test_the_lock_carries_the_robot_over(source, good):
    painted = cv2.GaussianBlur(good["bun_warehouse"], (0, 0), 6)  # an image model that smeared everything
    assert structure_f1(painted, source.rgb, source.robot_mask) < 0.7
    exact = lock_robot(painted, source, relight=False)
    keep = control_maps(source).keep
    assert np.array_equal(exact.frame[keep], source.rgb[keep])
    assert np.array_equal(exact.frame[~keep], painted[~keep])
    lit = lock_robot(painted, source)
    assert lit.gain.min() >= GAIN_BOUNDS[0]
    assert lit.gain.max() <= GAIN_BOUNDS[1]
    assert np.array_equal(
        lit.frame[keep], np.clip(source.rgb * lit.gain + np.float32(0.5), 0, 255).astype(np.uint8)[keep]
    )
    assert np.abs(np.diff(lit.gain, axis=1)).max() < 0.06  # smooth: no edge of its own
    assert structure_f1(lit.frame, source.rgb, source.robot_mask) >= 0.98
    assert not np.array_equal(lit.frame[keep], source.rgb[keep])


def test_folder_backend(episode, source, good, tmp_path):
    pictures = tmp_path / "mine"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "bun_warehouse.png"), cv2.cvtColor(good["bun_warehouse"], cv2.COLOR_RGB2BGR))
    backend = image_backend("folder", folder=pictures, licence="CC0-1.0")
    made = make_variants(
        episode,
        "front",
        tmp_path / "v",
        worlds=select_worlds(("bun_warehouse",)),
        backend=backend,
        only_commercial=True,
    )
    assert np.array_equal(read_frame(tmp_path / "v/bun_warehouse/frame.png"), good["bun_warehouse"])
    assert made[0].licence == "CC0-1.0"
    with pytest.raises(VariantError, match=r"no picture of world 'kitchen'.*bun_warehouse"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(("kitchen",)), backend=backend)
    with pytest.raises(VariantError, match="unknown terms"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(("kitchen",)),
                      backend=image_backend("folder", folder=pictures), only_commercial=True)  # fmt: skip
    cv2.imwrite(str(pictures / "kitchen.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(VariantError, match="9x9"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(("kitchen",)), backend=backend)
    with pytest.raises(VariantError, match="needs a folder"):
        image_backend("folder")


def test_frames_without_robot_or_without_room_are_refused(source):
    import dataclasses

    blind = dataclasses.replace(source, instance_ids=np.full_like(source.instance_ids, 2))
    with pytest.raises(VariantError, match="shows no robot"):
        control_maps(blind)
    full = dataclasses.replace(source, instance_ids=np.full_like(source.instance_ids, 12))
    with pytest.raises(VariantError, match="covers the whole picture"):
        control_maps(full)
    with pytest.raises(VariantError, match="painted frame"):
        lock_robot(source.rgb[:-1], source)
