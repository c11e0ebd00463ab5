# SPDX-License-Identifier: Apache-2.0
"""Control maps, robot lock, gate, contact sheet, `folder` backend: what holds for every backend's frames."""

from __future__ import annotations

import dataclasses
import os

import cv2
import numpy as np
import pytest
from scenes import make_scene_episode
from variant_faults import KINDS, plant, visible

from retake.core.errors import InputError, VariantError
from retake.core.files import read_json
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.staged import staged
from retake.core.variants import image_backend, load_catalogue, make_variants, select_worlds, source_frame
from retake.core.variants.attempts import SEED_STEP, Attempts, Rules
from retake.core.variants.controls import control_maps
from retake.core.variants.edges import edge_f1, instance_border, structure_f1
from retake.core.variants.gate import Gate, GateLimits, check_variant, distances, duplicate_of, thumbnail
from retake.core.variants.gate_skeleton import patches, skeleton_fit
from retake.core.variants.gated import make_gated_variants, read_missing
from retake.core.variants.lock import GAIN_BOUNDS, lock_robot
from retake.core.variants.make import read_frame

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


def shown(source, name):
    """What a frame of that world is measured against: its objects have the world's shapes."""
    return ProceduralBackend().shown(source, load_catalogue().preset(name))


@pytest.mark.parametrize("kind", KINDS)
def test_planted_faults_are_caught(kind, source, good):
    for name, frame in good.items():
        seen = shown(source, name)
        assert visible(kind, seen)
        report = check_variant(plant(kind, frame, seen), seen)
        assert not report.passed, (kind, name)
        assert report.reasons


def test_clean_frames_pass(source, good):
    for name, frame in good.items():
        assert check_variant(frame, shown(source, name)).reasons == (), name


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


class Sometimes:
    """Good frames, but no robot in one world ever, in another not on the first attempt."""

    name, version, licence = "sometimes", "1", "Apache-2.0"

    def __init__(self, good) -> None:
        self.good = good
        self.rendered: list[tuple[str, int]] = []

    def render(self, source, world, seed, check_cancel=lambda: None):
        self.rendered.append((world.name, seed))
        frame = self.good[world.name]
        bad = world.name == "vegetable_kitchen" or (world.name == "chips_conveyor" and seed == 0)
        return plant("robot missing", frame, source) if bad else frame


THREE = ("bun_warehouse", "chips_conveyor", "vegetable_kitchen")


def files(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_gated_run_delivers_what_passed_and_reports_the_rest(episode, good, tmp_path):
    worlds, backend = select_worlds(THREE), Sometimes(good)
    result = make_gated_variants(episode, "front", tmp_path, worlds=worlds, backend=backend, rerolls=1)
    assert [v.id for v in result.variants] == ["bun_warehouse/front", "chips_conveyor/front"]
    assert result.variants[1].seed == SEED_STEP
    assert "robot_edges" in " ".join(result.missing["vegetable_kitchen/front"])
    assert not (tmp_path / "vegetable_kitchen").exists()
    assert cv2.imread(str(tmp_path / "contact_sheet.png")) is not None
    record = read_json(tmp_path / "gate.json")
    assert record["diversity"]["coverage"]["environment"]["warehouse"] == 1
    assert set(record["missing"]) == {"vegetable_kitchen"}
    assert read_missing(tmp_path) == result.missing
    variant = read_json(tmp_path / "chips_conveyor/front/variant.json")["gate"]
    assert [a["seed"] for a in variant["failed"]] == [0]
    assert {c["name"] for c in variant["checks"]} >= {"robot_edges", "skeleton", "object_iou", "scene_shift"}
    table = (tmp_path / "gate.md").read_text("utf-8")
    assert "2 of 3 delivered" in table
    assert "| vegetable_kitchen/front | 2 |" in table
    # Again: nothing is rendered, measured or written, also not the world that failed.
    assert len(backend.rendered) == 5
    before, stamps = files(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = make_gated_variants(episode, "front", tmp_path, worlds=worlds, backend=backend, rerolls=1)
    assert again == result
    assert len(backend.rendered) == 5
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    # Interrupted after the frames, before the tables; or with a frame lost: the same files again.
    for name in ("gate.json", "contact_sheet.png", "bun_warehouse/front/frame.png"):
        (tmp_path / name).unlink()
        make_gated_variants(episode, "front", tmp_path, worlds=worlds, backend=backend, rerolls=1)
        assert files(tmp_path) == before, name


def test_another_gate_measures_the_same_pixels_again(episode, good, tmp_path):
    backend, worlds = Sometimes(good), select_worlds(THREE[:1])
    make_gated_variants(episode, "front", tmp_path, worlds=worlds, backend=backend)
    strict = make_gated_variants(
        episode, "front", tmp_path, worlds=worlds, backend=backend, rerolls=0, limits=GateLimits(sharpness=99.0)
    )
    assert not strict.variants
    assert "sharpness" in strict.missing["bun_warehouse/front"][0]
    assert backend.rendered == [("bun_warehouse", 0)]
    assert not (tmp_path / "bun_warehouse").exists()
    off = make_gated_variants(episode, "front", tmp_path, worlds=worlds, backend=backend, gate=False)
    assert off.missing == {}
    assert "gate" not in read_json(tmp_path / "bun_warehouse/front/variant.json")
    assert "Nothing was measured" in (tmp_path / "gate.md").read_text("utf-8")


def test_a_look_alike_is_tried_again_and_stands_back_only_for_what_is_there(episode, good, tmp_path):
    class Alike(Sometimes):
        """Every world looks like the first until the second attempt."""

        name = "alike"

        def __init__(self):
            super().__init__(good)

        def render(self, source, world, seed, check_cancel=lambda: None):
            return self.good[THREE[0] if seed == 0 else world.name]

    worlds = select_worlds(THREE[:2])
    result = make_gated_variants(episode, "front", tmp_path / "a", worlds=worlds, backend=Alike())
    assert [v.seed for v in result.variants] == [0, SEED_STEP]
    assert read_json(tmp_path / "a/chips_conveyor/front/variant.json")["gate"]["failed"][0]["twin"] == "bun_warehouse"
    assert make_gated_variants(episode, "front", tmp_path / "a", worlds=worlds, backend=Alike()) == result
    alone = make_gated_variants(episode, "front", tmp_path / "a", worlds=worlds[1:], backend=Alike())
    fresh = make_gated_variants(episode, "front", tmp_path / "b", worlds=worlds[1:], backend=Alike())
    assert alone == fresh
    assert files(tmp_path / "a/chips_conveyor") == files(tmp_path / "b/chips_conveyor")
    none = make_gated_variants(episode, "front", tmp_path / "c", worlds=worlds, backend=Alike(), rerolls=0)
    assert none.missing == {"chips_conveyor/front": ("looks like bun_warehouse",)}


def test_processes_share_the_worlds_and_change_nothing(episode, tmp_path, monkeypatch):
    monkeypatch.setattr("retake.core.variants.gated.WORTH_PROCESSES_PX", 1)
    worlds = select_worlds(THREE[:2])
    alone = make_gated_variants(episode, "front", tmp_path / "1", worlds=worlds)
    shared = make_gated_variants(episode, "front", tmp_path / "2", worlds=worlds, workers=2)
    assert shared == alone
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_objects_keep_their_shape_where_that_is_asked_for_in_this_process_and_in_others(episode, tmp_path, monkeypatch):
    """The recipe that is kept with the frame names no shape, so the episode is shown with its own."""
    monkeypatch.setattr("retake.core.variants.gated.WORTH_PROCESSES_PX", 1)
    kept, worlds = load_catalogue(keep_shapes=True), select_worlds(THREE[:2])
    alone = make_gated_variants(episode, "front", tmp_path / "1", worlds=worlds, catalogue=kept)
    shared = make_gated_variants(episode, "front", tmp_path / "2", worlds=worlds, catalogue=kept, workers=2)
    assert shared == alone
    assert files(tmp_path / "1") == files(tmp_path / "2")
    plain = make_gated_variants(episode, "front", tmp_path / "3", worlds=worlds)
    assert [v.world.name for v in alone.variants] == [v.world.name for v in plain.variants] == list(THREE[:2])
    for name in THREE[:2]:
        recipe, usual = (read_json(tmp_path / run / name / "front/variant.json")["recipe"] for run in "13")
        assert "shape" not in recipe["subject"]
        assert {**recipe["subject"], "shape": usual["subject"]["shape"]} == usual["subject"]
        assert staged(episode, recipe) is episode
        assert staged(episode, usual) is not episode


def test_depth_estimators_are_a_plug_in(source, good, monkeypatch):
    frame = good["bun_warehouse"]
    near = 1 / np.maximum(source.depth_m, 0.1)
    assert Gate(source, depth=lambda rgb: near * 7 + 3).check(frame).passed
    wrong = Gate(source, depth=lambda rgb: near[:, ::-1]).check(frame)
    assert "depth" in " ".join(wrong.reasons)
    with pytest.raises(InputError, match="unknown depth estimator 'nope'"):
        Gate(source, depth="nope")
    monkeypatch.setattr("retake.core.plugins.choices", lambda group, builtin: {"mine": "mine:model"})
    monkeypatch.setattr("retake.core.plugins.load", lambda reference, extra="": lambda rgb: near)
    assert "depth" in [c.name for c in Gate(source, depth="mine").check(frame).checks]


def test_skeleton_points_follow_the_kinematics(source, good):
    known = patches(source)
    assert len(known) >= 3
    robot = source.robot_mask
    assert all(robot[p.v, p.u] for p in known)
    for frame in good.values():
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        assert skeleton_fit(grey, known).worst_px <= 2
        # What the whole-robot measure cannot see: only the gripper is elsewhere.
        bent = plant("gripper bent 5 px", frame, source)
        fit = skeleton_fit(cv2.cvtColor(bent, cv2.COLOR_RGB2GRAY), known)
        assert fit.worst_px > 2
        assert fit.worst


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
    assert np.array_equal(read_frame(tmp_path / "v/bun_warehouse/front/frame.png"), good["bun_warehouse"])
    assert made[0].licence == "CC0-1.0"
    with pytest.raises(VariantError, match=r"no picture of world 'kitchen'.*bun_warehouse"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(("kitchen",)), backend=backend)
    with pytest.raises(VariantError, match="no licence is stated"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(("kitchen",)),
                      backend=image_backend("folder", folder=pictures), only_commercial=True)  # fmt: skip
    cv2.imwrite(str(pictures / "kitchen.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(VariantError, match="9x9"):
        make_variants(episode, "front", tmp_path / "v", worlds=select_worlds(("kitchen",)), backend=backend)
    with pytest.raises(VariantError, match="needs a folder"):
        image_backend("folder")


def test_frames_without_robot_or_without_room_are_refused(episode, source, tmp_path):
    blind = dataclasses.replace(source, instance_ids=np.full_like(source.instance_ids, 2))
    full = dataclasses.replace(source, instance_ids=np.full_like(source.instance_ids, 12))
    for refuse in (control_maps, lambda s: Attempts(s, ProceduralBackend(), 0, Rules())):
        with pytest.raises(VariantError, match="shows no robot"):
            refuse(blind)
        with pytest.raises(VariantError, match="covers the whole picture"):
            refuse(full)
    nobody = [dataclasses.replace(i, owner="") for i in source.header.instances]
    unmarked = dataclasses.replace(source, header=dataclasses.replace(source.header, instances=tuple(nobody)))
    with pytest.raises(VariantError, match=r"no instance of the episode belongs to a robot \(owners: none\)"):
        control_maps(unmarked)
    Attempts(blind, ProceduralBackend(), 0, Rules(gate=False))
    with pytest.raises(VariantError, match="painted frame"):
        lock_robot(source.rgb[:-1], source)
    with pytest.raises(VariantError, match="rerolls is -1"):
        make_gated_variants(episode, "front", tmp_path, worlds=select_worlds(THREE), rerolls=-1)
    with pytest.raises(VariantError, match="no worlds"):
        make_gated_variants(episode, "front", tmp_path, worlds=[])
