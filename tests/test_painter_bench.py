# SPDX-License-Identifier: Apache-2.0
"""The painter bench keeps its word, and the judge keeps its when the painter breaks what an estimator may have assumed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import verdict_scenes as scene
from appearance import LOOKS, Appearance, draw, lose_detail, turn_hue
from film import HIDDEN_M, Film, Item, box, changed_window, item
from film_faults import FAULTS, PICTURE, REORDERED, Story, plant
from film_sets import FAMILIES, dress, texture
from newton_painter import Shot
from painter_bench import SPLITS, jobs

from retake.core.verdicts import judge

ASSUMPTIONS = {
    "a shadow falls within a few pixels of what casts it": "shadow",
    "highlights do not move": "highlight",
    "nothing but robot and objects moves": "far_mover",
    "contours are where the simulator has them": "warp",
    "links are as wide as in the simulator (wider)": "wider",
    "links are as wide as in the simulator (narrower)": "narrower",
    "texture is fixed to surfaces": "swim",
    "detail survives": "latent",
    "hues stay": "hue",
    "pixels are quiet": "grain",
    "an exposure is an instant": "motion_blur",
    "all rows are exposed alike": "rolling",
    "contrast is full": "low_contrast",
    "the codec is H.264 of good quality": "base",
    "one assumption breaks at a time": "generative",
}
"""What an estimator may take for granted -> the look of a faithful video that breaks it."""


@lru_cache(maxsize=1)
def shown() -> tuple[Shot, Film]:
    """The analytic scene's own clean video as a shot, and as much of a film as looks need."""
    episode, maps = scene.scene_episode(), scene.scene_maps()
    owners = tuple(i.prim_path for i in episode.header.instances)
    number = np.zeros(65536, np.uint8)
    for k, instance in enumerate(episode.header.instances):
        number[instance.id] = k + 1
    robot = episode.header.robots[0]
    cube = box((0.05, 0.05, 0.05))
    items = tuple(item(o, o, *cube, (0.5, 0.5, 0.5)) for o in owners)
    poses = {i.prim_path: maps.bodies[i.id] for i in episode.header.instances if i.id in maps.bodies}
    links = tuple(i.prim_path for i in episode.header.instances if i.owner == f"robot:{robot.name}")
    packet = next(
        i.prim_path for i in episode.header.instances if i.owner.startswith("object:") and i.id in maps.bodies
    )
    film = Film(items, poses, maps.K, maps.T_camera_world, scene.SIZE, {robot.name: links}, packet, "")
    return Shot(scene.clean_video(), number[maps.ids], owners), film


@pytest.mark.parametrize("assumption", ASSUMPTIONS)
def test_a_faithful_video_does_not_fail_when_its_painter_breaks_an_assumption(assumption: str) -> None:
    shot, film = shown()
    frames = np.stack(list(Appearance(shot, film, ASSUMPTIONS[assumption], 3).frames()))
    verdict = judge(frames, scene.scene_episode(), "front")
    assert verdict.overall != "fail", [(c.name, c.value, c.threshold) for c in verdict.checks if c.status == "fail"]


@pytest.mark.parametrize("assumption", ASSUMPTIONS)
def test_a_faulty_video_does_not_pass_when_its_painter_breaks_an_assumption(assumption: str) -> None:
    """The packet stays where it was let go."""
    _, film = shown()
    shot = Shot(scene.faulty_video(), shown()[0].ids, shown()[0].owners)
    frames = np.stack(list(Appearance(shot, film, ASSUMPTIONS[assumption], 3).frames()))
    assert judge(frames, scene.scene_episode(), "front").overall != "pass"


def test_every_look_is_some_assumption_broken_and_is_deterministic() -> None:
    assert set(LOOKS) - {"codec"} <= set(ASSUMPTIONS.values())
    shot, film = shown()
    for look in LOOKS:
        a, b = (Appearance(shot, film, look, 5).frame(4) for _ in range(2))
        assert (a == b).all(), look
        assert a.shape == shot.rgb[4].shape


def test_looks_do_what_they_say() -> None:
    image = np.random.default_rng(0).uniform(0, 255, (48, 64, 3)).astype(np.float32)
    assert np.abs(lose_detail(image, 64) - image).max() < 1e-3
    flat = np.full((48, 64, 3), 90, np.float32)
    assert np.abs(lose_detail(flat, 6) - flat).max() < 1e-3
    assert lose_detail(image, 6).std() < 0.5 * image.std()
    assert np.abs(turn_hue(image, 0) - image).max() < 1e-3
    assert np.abs(turn_hue(image, 8).mean(2) - image.mean(2)).max() < 1e-2
    for seed in range(20):
        assert draw("warp", seed).warp_px <= 3
        assert abs(draw("wider", seed).shape_px) <= 3
    shot, film = shown()
    steady = replace(draw("wider", 1), grain=0.0, blur_px=0.3)
    wider = Appearance(shot, film, "wider", 1)
    wider.drawn = replace(steady, shape_px=3.0)
    marked = Shot(np.repeat((255 * wider.things[shot.ids])[..., None], 3, -1).astype(np.uint8), shot.ids, shot.owners)
    wider.shot = marked
    grown = (wider.frame(5)[..., 0] > 128).sum()
    wider.drawn = replace(steady, shape_px=-3.0)
    assert grown > (marked.rgb[5, ..., 0] > 128).sum() > (wider.frame(5)[..., 0] > 128).sum()


@lru_cache(maxsize=1)
def toy() -> tuple[Film, Story]:
    """A hand, a packet, a tray and the props, T = 40, and their story."""
    count, eye = 40, np.eye(4)
    robot = scene.scene_episode().header.robots[0]
    links = tuple(link.prim_path for link in robot.links)
    poses = {o: np.broadcast_to(eye, (count, 4, 4)).copy() for o in (*links, "/P", "/T", "/C/drawer")}
    poses["/P"][:, 2, 3] = np.concatenate([np.full(10, 0.05), np.linspace(0.05, 0.3, 15), np.linspace(0.3, 0.06, 15)])
    away = np.broadcast_to(eye, (count, 4, 4)).copy()
    away[:, 2, 3] = HIDDEN_M
    poses |= {f"prop:{n}": away for n in ("second", "shape", "colour", "finger")}
    items: list[Item] = [item(o, o, *box((0.05, 0.05, 0.1)), (0.5, 0.4, 0.3)) for o in poses]
    T = np.broadcast_to(np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 1.5], [0, 0, 0, 1]]), (count, 4, 4))
    K = np.broadcast_to(np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]), (count, 3, 3))
    film = Film(tuple(items), poses, K, T, (320, 240), {robot.name: links, "C": ("/C/drawer",)}, "/P", "/T")
    return film, Story(10, 25, 36, robot)


@pytest.mark.parametrize("kind", sorted(set(FAULTS) - set(PICTURE) - set(REORDERED) - {"other_episode"}))
def test_faults_move_what_they_name_and_begin_after_the_first_frame(kind: str) -> None:
    film, story = toy()
    positions = np.zeros((len(film), len(story.robot.dof_names)))
    if kind == "gripper_early":
        columns = [story.robot.dof_index(n) for g in story.robot.grippers for n in g.finger_joints]
        positions[22:, columns] = 0.03
    for level in FAULTS[kind][1]:
        planted = plant(film, story, kind, level, 1, positions)
        assert planted is not None
        moved = {o for o in film.owners if np.abs(planted.film.poses[o] - film.poses[o]).max() > 1e-9}
        assert moved, kind
        assert (planted.index == np.arange(len(film))).all()
        if kind not in ("arm_offset", "wrist_turned", "gripper_early"):
            assert all(np.abs(planted.film.poses[o][0] - film.poses[o][0]).max() < 1e-9 for o in moved)
    if kind in ("landing_off", "sunk", "tray_moved"):
        owner = "/T" if kind == "tray_moved" else "/P"
        gap = planted.film.poses[owner][-1, :3, 3] - film.poses[owner][-1, :3, 3]
        assert np.linalg.norm(gap) == pytest.approx(FAULTS[kind][1][-1] / 100, rel=1e-6)


@pytest.mark.parametrize("kind", REORDERED)
def test_reordered_films_keep_their_first_frame(kind: str) -> None:
    film, story = toy()
    for level in FAULTS[kind][1]:
        planted = plant(film, story, kind, level, 1)
        assert planted is not None
        assert planted.index[0] == 0
        assert len(planted.index) == (min(int(level), len(film)) if kind == "cut_short" else len(film))
        assert kind == "cut_short" or (planted.index != np.arange(len(film))).any()


def test_only_what_changed_is_rendered_again() -> None:
    film, _ = toy()
    assert changed_window(film, film, 3) is None
    pose = film.poses["/P"].copy()
    pose[20:, 0, 3] += 0.1
    moved = film.moved({"/P": pose})
    assert changed_window(film, moved, 10) is None
    window = changed_window(film, moved, 30)
    assert window is not None
    x0, y0, x1, y1 = window
    assert 0 <= x0 < x1 <= 320
    assert 0 <= y0 < y1 <= 240
    assert (x1 - x0) * (y1 - y0) < 320 * 240


def test_sets_leave_geometry_alone_and_splits_share_nothing_with_the_tuning_one() -> None:
    film, _ = toy()
    for family in FAMILIES:
        dressed = dress(film, family, 4)
        assert dressed.owners[: len(film.owners)] == film.owners
        for mine, theirs in zip(dressed.items, film.items, strict=False):
            assert mine.vertices is theirs.vertices
    surface = texture("planks", np.random.default_rng(0), np.array([0.5, 0.4, 0.3]))
    assert surface.shape == (256, 256, 3)
    tuned = {(r, s) for r, s, _, _ in SPLITS["tune"].films}, {f for *_, f in SPLITS["tune"].films}
    for name in ("newton", "mitsuba"):
        assert not tuned[0] & {(r, s) for r, s, _, _ in SPLITS[name].films}
        assert not tuned[1] & {f for *_, f in SPLITS[name].films}
    seen = [SPLITS[name].films for name in ("tune", "newton", "mitsuba")]
    for name in ("blind_newton", "blind_mitsuba"):
        assert not {(r, s) for films in seen for r, s, _, _ in films} & {(r, s) for r, s, _, _ in SPLITS[name].films}
        assert not {f for films in seen for *_, f in films} & {f for *_, f in SPLITS[name].films}
    assert {SPLITS["mitsuba"].painter} != {SPLITS["tune"].painter}
    keys = [job.key for name in SPLITS for job in jobs(name)]
    assert len(keys) == len(set(keys))


def test_takes_are_chosen_by_name_and_some_others_at_random_the_same_every_time() -> None:
    from composite_takes import Composite, chosen

    every = [
        Composite(Path(f"episodes/panda_{n}"), camera, "kitchen") for n in range(9) for camera in ("front", "wrist")
    ]
    named = [t for t in every if "panda_3/" in t.key or "panda_5/wrist" in t.key]
    found = chosen(every, ("panda_3/", "panda_5/wrist"), 4)
    assert found[:3] == named
    assert len(set(found)) == 7
    assert chosen(every, ("panda_3/", "panda_5/wrist"), 4) == found
    assert chosen(every, ("",), 0) == every
