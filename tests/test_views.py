# SPDX-License-Identifier: Apache-2.0
"""Cameras of one world: laid over each other by depth, compared, carried from one to another, and what carries a camera."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from export_runs import make_run
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import open_episode
from retake.core.episode.mounts import mount_of
from retake.core.errors import TakeError, VariantError
from retake.core.files import read_json, sha256_file, write_json
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.reproject import ReprojectBackend
from retake.core.painter.staged import staged
from retake.core.run_reader import RunReader
from retake.core.takes import TakeRequest, make_take
from retake.core.takes.follow import split_views
from retake.core.variants import load_catalogue, make_gated_variants, make_variants, scene
from retake.core.variants.base import source_frame
from retake.core.variants.carry import CarryingBackend, anchor_of, carry, complete_by_rendering
from retake.core.variants.correspond import correspond, view_at, view_of
from retake.core.variants.prompts import compose_prompts
from retake.core.variants.worlds import recipe_of
from retake.core.verdicts import view_instances
from retake.core.verdicts.assess import check_of
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.views import ViewGeometry, ViewSettings, compare_views, displacement
from retake.core.verdicts.worlds import failed_cameras
from retake.core.video import write_video

WORLD = dataclasses.replace(load_catalogue().preset("kitchen_country"), name="w")
SETTINGS = ViewSettings(moments=5, min_points=150, min_instance=20, min_textured=60)


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    return make_scene_episode(tmp_path_factory.mktemp("views") / "e", frames=12, size=(320, 240), wrist=True)


@pytest.fixture(scope="module")
def cameras(episode):
    return [camera.name for camera in episode.header.cameras]


@pytest.fixture(scope="module")
def films(episode, cameras):
    def paint(camera: str) -> list[np.ndarray]:
        first = source_frame(episode, camera, 0)
        dresser = ProceduralBackend().dresser(first, WORLD, 0)
        return [dresser.render(source_frame(episode, camera, t)) for t in range(len(episode))]

    return {camera: paint(camera) for camera in cameras}


@pytest.fixture(scope="module")
def geometry(episode):
    return ViewGeometry(staged(episode, recipe_of(WORLD)), 0, 320)


def checks(episode, cameras, films, geometry):
    shown = {name: films[name] for name in cameras}
    [pair] = compare_views(geometry.episode, shown, settings=SETTINGS, geometry=geometry)
    return pair, {m.name: check_of(m, load_settings()) for m in pair.measurements}


def test_what_carries_a_camera_is_found_from_poses(episode, cameras):
    kinds = {camera: mount_of(episode, camera) for camera in cameras}
    assert not kinds["front"].moves
    assert kinds[cameras[1]].kind == "hand"
    prompts = compose_prompts(episode.header, WORLD, mount=kinds[cameras[1]])
    for text in (prompts.take, prompts.image, prompts.scene):
        assert "fixed to the robot's hand" in text
        assert "tatic camera" not in text
    assert "Static camera." in compose_prompts(episode.header, WORLD, mount=kinds["front"]).take
    assert (
        "robot's hand" in ProceduralBackend.__module__
        or source_frame(episode, cameras[1], 0).mount == kinds[cameras[1]]
    )


def test_a_point_of_the_world_is_within_a_pixel_in_the_other_camera(episode, cameras, films):
    shown = staged(episode, recipe_of(WORLD))
    found = correspond(*(view_at(shown, c, 0, (320, 240)) for c in cameras))
    assert found.seen.sum() > 500
    away = displacement(films[cameras[0]][0], films[cameras[1]][0], found, window=16)
    assert len(away) >= 3
    assert np.median(away) < 0.5
    assert np.quantile(away, 0.9) <= 1
    # The measure can fail: the other picture moved by three pixels is found three pixels away.
    moved = np.roll(films[cameras[1]][0], 3, axis=1)
    assert np.median(displacement(films[cameras[0]][0], moved, found, window=16)) > 3 * np.median(away)


def test_correspondences_obey_projection_and_occlusion(episode, cameras):
    first, second = (view_of(source_frame(episode, c, 3)) for c in cameras)
    found = correspond(first, second)
    rows, columns = np.nonzero(found.seen)
    points = first.camera.unproject(
        np.stack([columns + 0.5, rows + 0.5], -1), first.depth_m[rows, columns].astype(float)
    )
    uv, z = second.camera.project(points)
    assert np.abs(uv - 0.5 - found.place[rows, columns]).max() < 1e-3
    at = np.rint(found.place[rows, columns]).astype(int)
    assert (second.ids[at[:, 1], at[:, 0]] == first.ids[rows, columns]).all()
    assert np.abs(second.depth_m[at[:, 1], at[:, 0]] - z).max() < 0.05


def test_one_world_passes_and_a_torn_one_fails(episode, cameras, films, geometry):
    pair, clean = checks(episode, cameras, films, geometry)
    assert {c.status for c in clean.values()} <= {"pass", "skipped"}, clean
    assert 0.4 < pair.gain < 2.5
    front, wrist = cameras
    hue = [cv2.cvtColor(f, cv2.COLOR_RGB2HSV) for f in films[wrist]]
    for frame in hue:
        frame[..., 0] = (frame[..., 0].astype(int) + 30) % 180
    broken = {
        "simulated": [episode.image(wrist, "rgb", t) for t in range(len(episode))],
        "mirrored": [np.ascontiguousarray(f[:, ::-1]) for f in films[wrist]],
        "hue": [cv2.cvtColor(f, cv2.COLOR_HSV2RGB) for f in hue],
    }
    for fault, film in broken.items():
        _, found = checks(episode, cameras, {front: films[front], wrist: film}, geometry)
        assert "fail" in {c.status for c in found.values()}, (fault, {n: c.value for n, c in found.items()})
    # A camera that is exposed by itself is no fault.
    darker = [np.clip(f.astype(np.float32) * 0.8, 0, 255).astype(np.uint8) for f in films[wrist]]
    _, found = checks(episode, cameras, {front: films[front], wrist: darker}, geometry)
    assert "fail" not in {c.status for c in found.values()}, {n: c.value for n, c in found.items()}


def test_the_background_corresponds_to_nothing(episode, cameras, geometry):
    """A world shows its own floor and walls, of which no depth is known."""
    front = cameras[0]
    floor = np.isin(
        source_frame(episode, front, 0).instance_ids, [i.id for i in episode.header.instances if i.label == "floor"]
    )
    assert floor.sum() > 1000
    found = geometry.between(front, 0, front, 1)  # a camera that stands still sees the same twice
    assert found.seen.sum() > 1000
    assert not found.seen[floor].any()


def test_another_seed_of_a_surface_with_grain_is_told_by_its_grain(episode, cameras, geometry):
    world = dataclasses.replace(WORLD, surface="plywood")
    shown = ViewGeometry(staged(episode, recipe_of(world)), 0, 320)

    def film(camera: str, seed: int) -> list[np.ndarray]:
        dresser = ProceduralBackend().dresser(source_frame(episode, camera, 0), world, seed)
        return [dresser.render(source_frame(episode, camera, t)) for t in range(len(episode))]

    front, wrist = cameras
    clean = {camera: film(camera, 0) for camera in cameras}
    _, same = checks(episode, cameras, clean, shown)
    _, other = checks(episode, cameras, {front: clean[front], wrist: film(wrist, 1)}, shown)
    assert same["view_structure"].status == "pass"
    assert other["view_structure"].status == "fail"


@given(st.integers(0, 2**32 - 1), st.integers(40, 200), st.sampled_from([(1, 1, 1), (1, 0.6, 0.25), (0.6, 0.8, 1)]))
def test_gloss_that_one_camera_alone_sees_makes_no_other_object(seed, count, lamp):
    rng = np.random.default_rng(seed)
    body = rng.uniform(0.02, 0.4, (count, 3)).astype(np.float32)
    gloss = rng.uniform(0, 0.4, (count, 1)).astype(np.float32) * np.float32(lamp)
    glossy, dull = view_instances.Sight(0, body + gloss, body), view_instances.Sight(0, body, body + gloss)
    assert view_instances.unlike([glossy]) < 0.05
    assert view_instances.unlike([dull]) == pytest.approx(view_instances.unlike([glossy]), abs=0.05)
    # Paint is no gloss: red and green of one brightness.
    red, green = (np.tile(np.float32(c), (count, 1)) for c in ([0.4, 0.05, 0.05], [0.02, 0.15, 0.05]))
    assert view_instances.unlike([view_instances.Sight(0, red, green)]) > 40


def sights(first, second, moments=6, count=12, seed=0, still=False):
    """Of a thing of two colours before two cameras, `count` pixels at a time, with the noise of pictures."""
    rng = np.random.default_rng(seed)
    out = []
    for t in range(moments):
        rng = np.random.default_rng(seed) if still else rng
        part = rng.integers(0, 2, count)
        a, b = (np.float32(c)[part] * rng.uniform(0.9, 1.1, (count, 3)).astype(np.float32) for c in (first, second))
        out.append(view_instances.Sight(t, a, b))
    return out


BUN, TIN = ([0.4, 0.2, 0.05], [0.3, 0.12, 0.03]), ([0.05, 0.2, 0.4], [0.3, 0.3, 0.3])
ASK = {"together": 5, "least": 60, "moments": 3}


@given(st.integers(0, 2**32 - 1))
def test_a_thing_far_away_is_told_by_several_moments_together(seed):
    same = view_instances.compare_instance(sights(BUN, BUN, seed=seed), **ASK)
    other = view_instances.compare_instance(sights(BUN, TIN, seed=seed), **ASK)
    limit = load_settings().threshold("view_instances").limit
    assert same.value < 0.3 * limit
    assert other.value > limit
    # For a part of the take as well: the worst moments count, not their mean.
    torn = sights(BUN, BUN, seed=seed, moments=9)[:9] + sights(BUN, TIN, seed=seed, moments=5)
    assert view_instances.compare_instance(torn, **ASK).value > limit
    assert view_instances.compare_instance(sights(BUN, TIN, moments=2, count=80), **ASK) is None
    assert view_instances.compare_instance(sights(BUN, TIN, moments=4, count=10), **ASK) is None


def test_what_stands_still_is_no_new_evidence_at_every_moment():
    """Nine pixels of which a few look otherwise: seen again and again they are nine pixels."""
    once, again, moving = (
        view_instances.unlike(sights(BUN, (BUN[0], [0.1, 0.3, 0.3]), moments=n, count=9, still=still))
        for n, still in ((1, True), (14, True), (14, False))
    )
    assert again == pytest.approx(once, abs=0.01)
    assert moving > again + 1


def test_a_camera_without_depth_says_what_cannot_be_told(episode, cameras, films):
    header = dataclasses.replace(
        episode.header, cameras=tuple(
            dataclasses.replace(c, channels=("rgb", "instances") if c.name != "front" else c.channels)
            for c in episode.header.cameras
        ),
    )  # fmt: skip
    blind = dataclasses.replace(episode, header=header)
    [pair] = compare_views(blind, {name: films[name] for name in cameras}, settings=SETTINGS)
    assert all(m.value is None and not m.applies and "recorded no depth" in m.note for m in pair.measurements)


@pytest.mark.parametrize("place", [0, 1])
def test_the_lead_camera_comes_first_among_the_places_of_a_scene(episode, cameras, monkeypatch, place):
    """The first camera that recorded maps leads, wherever in the episode it stands, and is where it is at that moment."""
    header = dataclasses.replace(
        episode.header, cameras=tuple(
            c if c.name == cameras[place] else dataclasses.replace(c, channels=("rgb",)) for c in episode.header.cameras
        ),
    )  # fmt: skip
    monkeypatch.setattr(scene, "open_episode", lambda path: dataclasses.replace(episode, header=header))
    found = scene.scene_of.__wrapped__(episode.path, "", 7)
    assert found.lead is not None
    assert found.lead.camera_name == cameras[place]
    T_camera_world = episode.camera_matrices(cameras[place])[1]
    assert np.allclose(found.eyes[0], np.linalg.inv(T_camera_world[7])[:3, 3])
    for name in cameras:
        T = episode.camera_matrices(name)[1]
        assert all(np.abs(found.eyes - np.linalg.inv(t)[:3, 3]).max(1).min() < 1e-9 for t in T)


def test_the_lead_camera_s_small_view_covers_its_picture_and_sees_the_same_places(episode, cameras):
    """Every second pixel of a 320 px wide camera, in its middle: what one unprojects to, the other does."""
    found = scene.scene_of.__wrapped__(episode.path, "", 3).lead
    view = episode.camera_frame(cameras[0], 3)
    for small, whole in (
        (found.rgb, view.rgb), (found.depth_m, view.depth_m), (found.normals, view.normals),
        (found.instance_ids, view.instance_ids),
    ):  # fmt: skip
        assert np.array_equal(small, whole[1::2, 1::2])
    assert found.camera.size == (160, 120)
    rows, columns = np.nonzero(found.depth_m > 0)
    there = found.camera.unproject(
        np.stack([columns + 0.5, rows + 0.5], -1), found.depth_m[rows, columns].astype(float)
    )
    pixels = np.stack([2 * columns + 1.5, 2 * rows + 1.5], -1)
    assert np.allclose(there, view.camera.unproject(pixels, found.depth_m[rows, columns].astype(float)), atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_a_cloud_is_thinned_to_one_of_its_points_per_cell(seed, count):
    points = np.random.default_rng(seed).uniform(-0.03, 0.03, (count, 3)).astype(np.float32)
    thin = scene._thinned(points)
    kept = {tuple(p) for p in thin.tolist()}
    assert kept <= {tuple(p) for p in points.tolist()}

    def cells(of: np.ndarray) -> list[tuple[int, ...]]:
        return [tuple(c) for c in np.round(of / np.float32(scene.CLOUD_CELL_M)).astype(int).tolist()]

    assert len(set(cells(thin))) == len(thin)
    assert set(cells(thin)) == set(cells(points))


def test_the_camera_in_every_failing_pair_is_the_one():
    settings = load_settings()

    def pairs(bad: set[tuple[str, str]]):
        out = []
        for pair in (("a", "b"), ("a", "c"), ("b", "c")):
            value = 99.0 if pair in bad else 0.1
            check = check_of(dataclasses.replace(MEASURED, value=value), settings)
            out.append((dataclasses.replace(PAIR, first=pair[0], second=pair[1]), (check,)))
        return out

    from retake.core.verdicts.records import Measurement
    from retake.core.verdicts.views import PairFigures

    MEASURED, PAIR = Measurement("view_colour", 0.0), PairFigures("", "", (), 1.0)
    assert failed_cameras(pairs(set())) == ()
    assert failed_cameras(pairs({("a", "c"), ("b", "c")})) == ("c",)
    assert set(failed_cameras(pairs({("a", "b")}))) == {"a", "b"}
    assert set(failed_cameras(pairs({("a", "b"), ("a", "c"), ("b", "c")}))) == {"a", "b", "c"}


def test_a_torn_world_fails_its_takes_for_everybody(tmp_path):
    run = make_run(tmp_path / "r", takes=1, frames=4, cameras=("front", "wrist"))
    reader = RunReader(run)
    takes = {take.camera: take for take in reader.takes()}
    record = {
        "schema": "retake.views/1", "status": "fail", "failed": ["wrist"], "reasons": ["view_colour: 22 Lab, limit 4"],
        "videos": {camera: take.video_sha256 for camera, take in takes.items()},
    }  # fmt: skip
    write_json(reader.views_record(takes["wrist"].id), record)
    assert reader.standing(takes["front"]).status == "pass"
    assert (reader.standing(takes["wrist"]).status, reader.standing(takes["wrist"]).reason) == (
        "fail", "view_colour: 22 Lab, limit 4",
    )  # fmt: skip
    # Of other videos it says nothing, and a damaged record neither.
    write_json(reader.views_record(takes["wrist"].id), {**record, "videos": {"wrist": "0" * 64}})
    assert reader.standing(takes["wrist"]).status == "pass"
    reader.views_record(takes["wrist"].id).write_text("{")
    assert reader.standing(takes["wrist"]).status == "pass"


# -- anchor and carry ---------------------------------------------------------------------------------------------------


class Completing(ProceduralBackend):
    """The painter as a model that can fill in what is missing."""

    name = "completing"
    parallel = False

    def complete(self, source, world, seed, known, missing, check_cancel=lambda: None):
        return complete_by_rendering(self, source, world, seed, known, missing, check_cancel)


def test_what_both_see_is_carried_and_looks_as_the_painter_paints_it(episode, cameras):
    painter = ProceduralBackend()
    sources = [painter.shown(source_frame(episode, c, 0), WORLD) for c in cameras]
    frames = [painter.render(source_frame(episode, c, 0), WORLD, 0) for c in cameras]
    got = carry(sources[0], frames[0], sources[1])
    assert 0.05 < got.share < 1
    assert not got.frame[~got.known].any()
    away = np.abs(got.frame.astype(int) - frames[1])[got.known]
    assert np.median(away) < 8
    assert np.median(np.abs(np.roll(got.frame, 40, axis=1).astype(int) - frames[1])[got.known]) > np.median(away)
    with pytest.raises(VariantError, match="the painted frame is"):
        carry(sources[0], frames[0][:10], sources[1])
    with pytest.raises(VariantError, match="cannot paint the missing part"):
        CarryingBackend(painter, sources[0], frames[0])


def test_backends_that_can_complete_paint_one_camera_and_carry_it(episode, cameras, tmp_path):
    worlds = (load_catalogue().preset("kitchen"),)
    ask = {"worlds": worlds, "backend": Completing(), "gate": False}
    made = make_gated_variants(episode, cameras, tmp_path, **ask)
    assert len(made.variants) == 2
    origins = {v.id: read_json(tmp_path / v.id / "variant.json")["origin"] for v in made.variants}
    anchor = cameras[anchor_of([source_frame(episode, c, 0) for c in cameras])]
    assert origins[f"kitchen/{anchor}"] == {"kind": "painted"}
    [other] = [origins[f"kitchen/{c}"] for c in cameras if c != anchor]
    assert (other["kind"], other["anchor"]) == ("carried", anchor)
    assert other["carried"] > 0.05
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    assert make_gated_variants(episode, cameras, tmp_path, **ask) == made
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}, "a carried frame is kept as well"


def test_a_camera_that_no_skeleton_steers_follows_the_anchor_take(episode, cameras, films, tmp_path):
    front, wrist = cameras
    make_variants(episode, wrist, tmp_path / "variants", worlds=[WORLD])
    variant = tmp_path / "variants" / "w" / wrist
    record = read_json(variant / "variant.json")
    write_json(variant / "variant.json", {**record, "origin": {"kind": "carried", "anchor": front}})
    (tmp_path / "skeleton/frames").mkdir(parents=True)
    write_json(tmp_path / "skeleton" / "skeleton.json", {"sha256": "ab" * 32})
    take = tmp_path / "takes/w-s1" / front
    write_video(take / "take.mp4", films[front], episode.header.fps, lossless=True)
    write_json(take / "take.json", {
        "schema": "retake.take/1", "id": "w-s1/front", "video": "take.mp4", "video_sha256": sha256_file(take / "take.mp4"),
        "variant": "w/front", "backend": "oscar", "backend_version": "1", "domain": "generated", "seed": 1, "prompt": "p",
        "frames": len(episode), "fps": episode.header.fps, "size": [320, 240], "camera": front, "start": 0, "licence": "x",
        "inputs": {"episode": episode.content_sha256},
    })  # fmt: skip
    request = TakeRequest(episode.path, wrist, tmp_path / "skeleton", variant, "p", frames=4)
    job = (tmp_path / "takes/w-s1" / wrist, request)
    own, following = split_views([job])
    assert own == []
    [(folder, asked)] = following
    assert asked.settings == {"take": str(take)}
    made = make_take(asked, ReprojectBackend(), folder)
    assert (made.domain, made.backend, made.frames) == ("reprojected", "reproject", 4)
    assert made.inputs["anchor"] == sha256_file(take / "take.mp4")
    cv2.imwrite(str(tmp_path / "skeleton/frames/000000.png"), np.full((48, 64, 3), 255, np.uint8))
    assert split_views([job])[0] == [job], "with a skeleton in view the model films it"
    with pytest.raises(TakeError, match="needs the setting `take`"):
        make_take(request, ReprojectBackend(), tmp_path / "x")
    write_json(take / "take.json", {**json.loads((take / "take.json").read_text()), "start": 3})
    with pytest.raises(TakeError, match="shows another episode or window"):
        make_take(asked, ReprojectBackend(), tmp_path / "y")
    assert open_episode(episode.path).content_sha256 == episode.content_sha256


def test_a_camera_that_never_sees_the_robot_is_delivered_or_refused(episode, cameras, tmp_path):
    """Its ids are gone: to everybody else it is a camera that looks away."""

    class Away(type(episode)):  # type: ignore[misc]
        def camera_frame(self, camera, index):
            view = super().camera_frame(camera, index)
            return (
                dataclasses.replace(view, instance_ids=np.zeros_like(view.instance_ids))
                if camera == cameras[1]
                else view
            )

    away = Away(**{f.name: getattr(episode, f.name) for f in dataclasses.fields(episode)})
    worlds = (load_catalogue().preset("kitchen"),)
    made = make_gated_variants(away, cameras, tmp_path / "a", worlds=worlds)
    assert len(made.variants) == 2
    assert "gate" in read_json(tmp_path / "a/kitchen" / cameras[0] / "variant.json")
    assert "gate" not in read_json(tmp_path / "a/kitchen" / cameras[1] / "variant.json")
    assert make_gated_variants(away, cameras, tmp_path / "a", worlds=worlds) == made
    for ask in ({"cameras": cameras, "blind": "refuse"}, {"cameras": cameras[1]}):
        with pytest.raises(VariantError, match="no robot"):
            make_gated_variants(away, out_dir=tmp_path / "b", worlds=worlds, **ask)
