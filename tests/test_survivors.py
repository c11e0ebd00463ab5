# SPDX-License-Identifier: Apache-2.0
"""Small faults that every other test let pass, each held by a law of its own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import usd_stages
from hypothesis import given
from hypothesis import strategies as st
from pxr import Sdf, UsdGeom, UsdPhysics
from scenes import make_scene_episode
from strategies import random_frame, random_header, random_robot

from retake.core.capture import FramePairer, StateSample, time_key
from retake.core.episode import EpisodeWriter, Instance, open_episode
from retake.core.episode.check import CheckItem, EpisodeCheck
from retake.core.export.records import Schema
from retake.core.files import sha256_json
from retake.core.painter.shadows import ShadowField
from retake.core.robot import RobotSpec
from retake.core.skeleton.topology import arms_of
from retake.core.variants.carry import _minified
from retake.core.variants.correspond import Correspondence, view_at
from retake.core.verdicts.motion import _vertex, measure_recorded
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.truth import read_truth
from retake.isaac import costs
from retake.usd.articulation import find_articulations, read_articulations
from retake.usd.bodies import find_objects
from retake.usd.instances import InstanceLookup

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def turned(value, order):
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: turned(value[key], order) for key in keys}
    return [turned(item, order) for item in value] if isinstance(value, list) else value


@given(JSON, st.randoms(use_true_random=False))
def test_the_hash_of_json_knows_no_order_of_keys(value, order):
    assert sha256_json(value) == sha256_json(turned(value, order))


@given(JSON, JSON)
def test_the_hash_of_json_knows_its_content(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (sha256_json(a) == sha256_json(b)) == same


LATER = {
    "a check": (
        EpisodeCheck.from_json,
        lambda rng: EpisodeCheck("ab", (CheckItem("x", "fail", 0.5, 0.1, "m", 3, "odd"),)),
    ),
    "a robot": (RobotSpec.from_json, random_robot),
    "a schema": (
        lambda data: Schema.from_json(data, "x"),
        lambda rng: Schema(15, "r", {}, {"observation.images.a": (4, 3)}),
    ),
}


@pytest.mark.parametrize("what", LATER)
def test_what_a_later_version_adds_to_a_record_is_passed_over(what, rng):
    """A run folder may have been written by a newer Retake; what this one knows of it is read."""
    read, make = LATER[what]
    known = make(rng)
    stored = json.loads(json.dumps(known.to_json()))
    assert read({**stored, "later": {"x": 1}}).to_json() == read(stored).to_json() == stored


@given(ahead=st.integers(1, 5), behind=st.integers(0, 4), stride=st.integers(1, 4))
def test_a_camera_that_is_ahead_when_the_other_starts_loses_only_what_lies_before(ahead, behind, stride):
    """The recording starts at the first time both show; what one of them showed later already is kept, earlier is not."""
    pairer, out = FramePairer(["a", "b"], 60 / stride, 1 / 60), []
    begin = behind * stride
    last = begin + ahead * stride
    for step in range(last + 2):
        out += pairer.file(StateSample(time_key(step, 60), step / 60, step, f"state {step}"))
    for step in range(0, last + 1, stride):
        out += pairer.offer(time_key(step, 60), {"a": step})
    for step in range(begin, last + 1, stride):
        out += pairer.offer(time_key(step, 60), {"b": step})
    out += pairer.finish()
    wanted = list(range(begin, last + 1, stride))
    assert [frame.state.step for frame in out] == wanted
    assert [frame.views for frame in out] == [{"a": step, "b": step} for step in wanted]
    assert pairer.counts.early == behind


@pytest.mark.parametrize("working", [80, 53, 40])
def test_truth_is_the_same_place_at_every_working_width(tmp_path, working):
    """Figures come back to pixels of the recording by `scale`: a camera wider than the working width shows its sense."""
    episode = make_scene_episode(tmp_path / "e", frames=3, size=(160, 120))
    whole, small = (read_truth(episode, "front", 0, 3, width) for width in (160, working))
    assert whole.scale == 1
    assert small.scale == working / 160
    assert small.size[0] == working
    big = np.nan_to_num(whole.area) >= 150
    assert big.any()
    back = (small.centroid + 0.5) / small.scale - 0.5
    assert np.abs(back - whole.centroid)[big].max() < 1.5
    assert np.abs(np.sqrt(small.area[big]) / small.scale / np.sqrt(whole.area[big]) - 1).max() < 0.15
    assert np.allclose(small.K[:, 0, 0] / small.scale, whole.K[:, 0, 0])


def test_a_robot_without_a_gripper_hides_none_that_comes_after_it(tmp_path, rng):
    plain = replace(random_robot(rng, "plain"), grippers=())
    header = replace(random_header(rng), robots=(plain, random_robot(rng, "arm")), objects=(), instances=())
    frame = random_frame(rng, header, 0)
    with EpisodeWriter(tmp_path / "e", header) as writer:
        writer.append(frame)
        writer.finish()
    assert [arm.robot for arm in arms_of(open_episode(tmp_path / "e"), ())] == ["arm"]


def test_a_joint_that_leads_or_follows_nothing_hides_no_follower_after_it():
    hinges = [("lead", "base", "a"), ("lost", "base", "b"), ("own", "base", "c"), ("true", "base", "d")]
    stage = usd_stages.star(hinges, {"lost": "/World/nobody", "own": "own", "true": "lead"})
    (robot,) = read_articulations(stage)
    followed = {joint.name: joint.mimic.leader for joint in robot.spec.dof_joints if joint.mimic}
    assert followed == {"true": "lead"}
    assert sum("counts as free" in note for note in robot.notes) == 2


def test_two_hinges_of_one_body_are_found_with_another_body_between_them():
    (robot,) = read_articulations(
        usd_stages.star([("x", "base", "hand"), ("y", "base", "door"), ("z", "base", "hand")])
    )
    assert sorted(robot.spec.dof_names) == ["x", "y", "z"]
    assert sorted(link.name for link in robot.spec.links) == ["base", "door", "hand"]


def test_every_branch_of_a_tree_is_walked():
    hinges = [("j0", "base", "a"), ("j1", "a", "b"), ("j2", "a", "c"), ("j3", "c", "d"), ("j4", "base", "e")]
    (robot,) = read_articulations(usd_stages.star(hinges))
    assert sorted(robot.spec.dof_names) == ["j0", "j1", "j2", "j3", "j4"]


def test_a_robot_that_is_part_of_another_hides_none_that_comes_after_it():
    stage = usd_stages.star([("j", "base", "a")])
    for name in ("Second", "Third"):
        root = UsdGeom.Xform.Define(stage, f"/World/{name}").GetPrim()
        UsdPhysics.ArticulationRootAPI.Apply(root)
        usd_stages.add_body(stage, f"/World/{name}/link", (1.0, 0.0, 0.0), 0.05, 1.0)
    for name, other in (("Second", "/World/Robot/a"), ("Third", "")):
        joint = UsdPhysics.FixedJoint.Define(stage, f"/World/{name}/fix")
        joint.CreateBody0Rel().SetTargets([Sdf.Path(other)] if other else [])
        joint.CreateBody1Rel().SetTargets([Sdf.Path(f"/World/{name}/link")])
    usd_stages.add_body(stage, "/World/Third/tip", (1.0, 0.0, 0.0), 0.05, 1.0)
    hinge = UsdPhysics.RevoluteJoint.Define(stage, "/World/Third/hinge")
    hinge.CreateBody0Rel().SetTargets([Sdf.Path("/World/Third/link")])
    hinge.CreateBody1Rel().SetTargets([Sdf.Path("/World/Third/tip")])
    found = find_articulations(stage)
    assert [robot.spec.prim_path for robot in found.robots] == ["/World/Robot", "/World/Third"]
    assert ["/World/Second" in note for note in found.notes] == [True]


def test_a_body_that_is_scenery_hides_none_that_comes_after_it():
    stage = usd_stages.empty()
    for name in ("hung", "free"):
        usd_stages.add_body(stage, f"/World/{name}", (0.0, 0.0, 1.0), 0.1, 1.0)
    joint = UsdPhysics.FixedJoint.Define(stage, "/World/hook")
    joint.CreateBody1Rel().SetTargets([Sdf.Path("/World/hung")])
    found = find_objects(stage)
    assert [item.spec.prim_path for item in found.objects] == ["/World/free"]
    assert list(found.refused) == ["/World/hung"]


@pytest.mark.parametrize("lean", [0.0, 0.4])
def test_a_shadow_falls_below_what_casts_it_and_along_the_light(lean):
    """A plate half a metre above a table: its shadow lies below it, shifted against the light, and nowhere above it."""
    field = ShadowField(np.array([lean, 0.0, 1.0], np.float32), np.zeros(3))
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 41), np.linspace(-0.1, 0.1, 41))
    field.add_points(np.stack([x, y, np.full_like(x, 0.5)], -1).reshape(-1, 3).astype(np.float32))

    def light_at(*points):
        at = np.array([points], np.float32)
        return field.cast(field.coordinates(at), 0.6)[0]

    below, beside, above = light_at((-0.5 * lean, 0, 0), (0.6 - 0.5 * lean, 0, 0), (0.1 * lean, 0, 0.6))
    assert below > 0.7
    assert beside < 0.02
    assert above < 0.02
    if lean:
        assert light_at((0.5 * lean, 0, 0))[0] < 0.3 * below


def test_contact_darkens_what_is_near_and_less_what_is_far():
    field = ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3))
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, 61), np.linspace(-0.2, 0.2, 61))
    field.add_points(np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3).astype(np.float32))
    gaps = np.array([[(0, 0, -gap) for gap in (0.02, 0.07, 0.2)]], np.float32)
    near, middle, far = field.contact(field.coordinates(gaps))[0]
    assert near > 0.6
    assert np.isclose(middle / near, np.exp(-0.05 / 0.07), rtol=0.02)
    assert far < 0.1


def test_what_casts_a_shadow_is_forgotten_when_it_moves_on():
    field = ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3))
    at = field.coordinates(np.zeros((1, 1, 3), np.float32))
    field.add_points(np.array([[0, 0, 0.3]], np.float32), grow=6)
    assert field.cast(at, 0.6).item() > 0.5
    field.clear()
    assert field.cast(at, 0.6).item() == 0


@given(st.floats(0.6, 3.4), st.floats(0.5, 4))
def test_the_vertex_of_a_parabola_is_found_between_its_samples(centre, bend):
    values = -bend * (np.arange(5) - centre) ** 2
    assert np.isclose(_vertex(values, int(values.argmax())), centre, atol=1e-6)


@pytest.mark.parametrize("k", [0, 4])
def test_a_vertex_at_the_border_is_the_border(k):
    assert _vertex(np.arange(5.0) if k else np.arange(5.0)[::-1], k) == k


def test_a_take_shorter_than_its_recording_is_compared_as_far_as_it_goes():
    film = np.full((40, 48, 64, 3), 90, np.uint8)
    for t in range(40):
        film[t, 10:30, t : t + 16] = 200 - 3 * (t % 7)
    settings = load_settings().recorded
    whole, cut = (measure_recorded(film[:24], recording, settings) for recording in (film, film[:24]))
    assert [m.value for m in whole] == [m.value for m in cut]
    assert any(m.value is not None for m in cut)


def test_costs_are_told_at_once_and_anew_after_half_a_second(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(costs.time, "monotonic", lambda: clock[0])
    told = costs.CallbackCosts()
    told.steps.extend([1_000_000] * 100)
    assert told.percentiles() == (1.0, 1.0)
    told.steps.extend([3_000_000] * 200)
    clock[0] += costs.FRESH_S / 2
    assert told.percentiles() == (1.0, 1.0)
    clock[0] += costs.FRESH_S
    assert told.percentiles() == (3.0, 3.0)


def test_what_a_renderer_calls_by_no_path_is_background():
    """Annotators name what has no prim (BACKGROUND, UNLABELLED) and what is below a listed one by its own path."""
    table = (Instance(1, "/World/Box", "box"), Instance(2, "/World/Box/Lid", "lid"), Instance(7, "/", "other"))
    lookup = InstanceLookup(table)
    paths = {
        0: "BACKGROUND",
        1: "UNLABELLED",
        2: "/World/Box/mesh",
        3: "/World/Box/Lid/a/b",
        4: "/Else",
        9: "/World/Box",
    }
    told = {key: lookup.id_of(path) for key, path in paths.items()}
    assert told == {0: 0, 1: 0, 2: 1, 3: 2, 4: 7, 9: 1}
    image = np.array([[0, 1, 2], [3, 4, 9], [5, 10, 2**32 - 1]], np.uint32)
    assert lookup.remap(image, paths).tolist() == [[0, 0, 1], [2, 7, 1], [0, 0, 0]]
    high = {key + 2**31: path for key, path in paths.items()}
    assert lookup.remap(image + np.uint32(2**31), high).tolist()[:2] == [[0, 0, 1], [2, 7, 1]]


@pytest.mark.parametrize("size", [(160, 120), (80, 60)])
def test_how_steeply_a_surface_is_seen_follows_from_where_the_camera_stands(tmp_path, size):
    episode = make_scene_episode(tmp_path / "episode", frames=2)
    view = view_at(episode, "front", 0, size)
    table = np.nonzero((view.ids == 2) & view.inner)
    points = view.camera.unproject(np.stack([table[1] + 0.5, table[0] + 0.5], -1), view.depth_m[table].astype(float))
    top = np.abs(points[:, 2] - np.median(points[:, 2])) < 1e-5  # its upper side, whose normal is the world's z
    away = points[top] - np.linalg.inv(view.camera.T_camera_world)[:3, 3]
    assert top.sum() > 200
    assert np.abs(view.facing[table][top] - np.abs(away[:, 2]) / np.linalg.norm(away, axis=-1)).max() < 0.01


@pytest.mark.parametrize("scale", [0.2, 0.4, 0.6])
def test_what_is_carried_to_a_coarser_camera_spreads_as_its_pixels_do(scale):
    """A blur beside the own pixel's spread (variance 1/4) makes the other pixel's: 1/4 over the scale squared."""
    step = np.repeat(np.where(np.arange(81) < 40, 0, 255).astype(np.uint8)[None, :, None], 9, 0).repeat(3, 2)
    found = Correspondence(
        np.zeros((9, 81, 2), np.float32), np.ones((9, 81), bool), np.full((9, 81), scale, np.float32)
    )
    weights = np.diff(_minified(step, found)[4, :, 0].astype(float))
    weights /= weights.sum()
    at = np.arange(80)
    spread = (weights * (at - (weights * at).sum()) ** 2).sum()
    assert spread + 0.25 == pytest.approx(0.25 / scale**2, rel=0.06)
