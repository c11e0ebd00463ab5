# SPDX-License-Identifier: Apache-2.0
"""Drawing: golden parity first, negative controls that break it, laws over random scenes, then faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skeleton_oracle as oracle
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import random_poses, seeds

from retake.core.codec import decode
from retake.core.errors import SkeletonError
from retake.core.skeleton import ArmTrack, CameraTrack, Squeeze, render_into, render_skeleton, stream_skeleton
from retake.core.skeleton import draw as drawing
from retake.core.skeleton.strokes import gripper_points, project

GOLDEN = Path(__file__).parent / "golden" / "skeleton" / "cases.npz"
DROID = Path(__file__).parents[2] / "shared" / "golden" / "droid"
ARGUMENTS = ("link_positions", "ee_pose", "gripper_openness", "camera_intrinsic", "camera_extrinsic")


def golden(case: int) -> tuple[list[np.ndarray], tuple[int, int], np.ndarray]:
    with np.load(GOLDEN) as data:
        frames = data[f"case{case}/frames"]
        return [data[f"case{case}/{name}"] for name in ARGUMENTS], frames.shape[2:0:-1], frames


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.uint8
    assert int((actual != expected).any(-1).sum()) == 0, "pixels differ"


@pytest.mark.parity
@pytest.mark.parametrize("case", range(6))
def test_every_pixel_of_the_golden_frames(case):
    arguments, size, frames = golden(case)
    assert_same(render_skeleton(*arguments, size), frames)


@pytest.mark.parity
@pytest.mark.parametrize("broken", sorted(oracle.BROKEN))
def test_goldens_notice_each_broken_rule(broken):
    """Negative control: parity that survives a wrong colour, thickness or order would prove nothing."""
    noticed = 0
    for case in range(6):
        arguments, size, frames = golden(case)
        noticed += int((oracle.render(*arguments, size, oracle.BROKEN[broken]) != frames).sum())
    assert noticed > 0


@pytest.mark.parity
def test_droid_reference_frames():
    reference = DROID / "skeleton_reference.npz"
    if not reference.exists():
        pytest.skip("the public DROID sample is third-party data and not beside this checkout")
    with np.load(reference) as ref, np.load(DROID / "episode_meta.npz") as meta:
        frames = ref["frames"]
        arm = ArmTrack(ref["link_positions"], ref["ee_link_pose"], meta["gripper_openness"])
        camera = CameraTrack(meta["camera_intrinsic"], meta["camera_extrinsic"], (1280, 720))
    for index, frame in enumerate(stream_skeleton([arm], camera, reuse=True)):
        assert_same(frame, frames[index])
    assert index == 89


# ---- laws ------------------------------------------------------------------------------------------------------------


@given(seeds)
def test_equals_the_plain_loop(seed):
    arguments = oracle.random_scene(np.random.default_rng(seed))
    assert_same(render_skeleton(*arguments), oracle.render(*arguments))


@given(seeds, st.integers(1, 7))
def test_batch_stream_and_canvas_agree_whatever_the_chunk(seed, chunk):
    rng = np.random.default_rng(seed)
    *motion, K, E, size = oracle.random_scene(rng, frames=7)
    batch = render_skeleton(*motion, K, E, size)
    arm, camera = ArmTrack(*motion), CameraTrack(K, E, size)
    usual, drawing.CHUNK = drawing.CHUNK, chunk
    try:
        for reuse in (False, True):
            assert_same(np.stack([f.copy() for f in stream_skeleton([arm], camera, reuse=reuse)]), batch)
        start = int(rng.integers(0, 7))
        assert_same(
            np.array([*stream_skeleton([arm], camera, start=start)]).reshape(-1, *batch.shape[1:]), batch[start:]
        )
    finally:
        drawing.CHUNK = usual
    for t in range(7):
        canvas = np.zeros_like(batch[t])
        render_into(canvas, *(m[t] for m in motion), oracle.at(K, t), oracle.at(E, t))
        assert_same(canvas, batch[t])


@given(seeds)
def test_static_camera_is_the_same_as_its_repetition(seed):
    *motion, K, E, size = oracle.random_scene(np.random.default_rng(seed), frames=3)
    K, E = oracle.at(K, 0), oracle.at(E, 0)
    frames = render_skeleton(*motion, K, E, size)
    for each_K in (K, np.tile(K, (3, 1, 1))):
        for each_E in (E, np.tile(E, (3, 1, 1))):
            assert_same(render_skeleton(*motion, each_K, each_E, size), frames)


@given(seeds)
def test_a_frame_does_not_depend_on_its_neighbours(seed):
    rng = np.random.default_rng(seed)
    *motion, K, E, size = oracle.random_scene(rng, frames=5)
    order = rng.permutation(5)
    K, E = (m if m.ndim == 3 else np.tile(m, (5, 1, 1)) for m in (K, E))
    frames = render_skeleton(*motion, K, E, size)
    assert_same(render_skeleton(*(m[order] for m in motion), K[order], E[order], size), frames[order])


@given(seeds)
def test_a_common_move_of_the_world_changes_nothing(seed):
    """Robot and camera moved together give the same picture (scenes without a coordinate on a rounding boundary)."""
    rng = np.random.default_rng(seed)
    points, ee, E = rng.uniform(-0.5, 0.5, (2, 6, 3)), random_poses(rng, 2, spread_m=0.2), np.eye(4)
    E[2, 3] = 2.5  # everything well in front: behind the camera the last bit of z moves a point by many pixels
    K = np.array([[300.0, 0, 100], [0, 310.0, 70], [0, 0, 1]])
    move = random_poses(rng)
    moved = points @ move[:3, :3].T + move[:3, 3], move @ ee
    world = np.concatenate([points, gripper_points(ee, np.full(2, 0.7))], 1)
    assume(np.abs(np.modf(np.abs(project(world, K, E)))[0] - 0.5).min() > 1e-6)
    before = render_skeleton(points, ee, np.full(2, 0.7), K, E, (200, 140))
    assert_same(render_skeleton(*moved, np.full(2, 0.7), K, E @ np.linalg.inv(move), (200, 140)), before)


@given(seeds)
def test_gripper_is_drawn_without_a_chain_and_closed_fingers_lie_on_z(seed):
    points, ee, _, K, E, size = oracle.random_scene(np.random.default_rng(seed), frames=1)
    alone = render_skeleton(points[:, :1], ee, np.zeros(1), K, E, size)
    assert not (alone == (255, 255, 0)).all(-1).any(), "a single origin has no segment"
    assert_same(render_skeleton(points[:, :1].repeat(3, 1), ee, np.zeros(1), K, E, size), alone)
    assert_same(alone, oracle.render(points[:, :1], ee, np.zeros(1), K, E, size))


@given(seeds)
def test_coincident_links_leave_no_trace(seed):
    """An origin nearer than 1e-4 m to the kept one before it changes no pixel."""
    rng = np.random.default_rng(seed)
    points, *rest, size = oracle.random_scene(rng)
    points = rng.normal(scale=0.5, size=points.shape)
    assume((np.linalg.norm(np.diff(points, axis=1), axis=-1) > 1e-3).all())
    at = int(rng.integers(0, points.shape[1]))
    near = points[:, at] + rng.uniform(-5e-5, 5e-5, points[:, at].shape)  # at most 8.7e-5 m away
    assert_same(
        render_skeleton(np.insert(points, at + 1, near, axis=1), *rest, size), render_skeleton(points, *rest, size)
    )


@given(seeds)
def test_arms_are_painted_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    *first, K, E, size = oracle.random_scene(rng, frames=3)
    second = oracle.random_scene(rng, frames=3)[:3]
    both = np.stack([*stream_skeleton([ArmTrack(*first), ArmTrack(*second)], CameraTrack(K, E, size))])
    reused = [
        f.copy() for f in stream_skeleton([ArmTrack(*first), ArmTrack(*second)], CameraTrack(K, E, size), reuse=True)
    ]
    for t in range(3):
        canvas = np.zeros((size[1], size[0], 3), np.uint8)
        for arm in (first, second):
            oracle.draw(canvas, *(m[t] for m in arm), oracle.at(K, t), oracle.at(E, t))
        assert_same(both[t], canvas)
        assert_same(reused[t], canvas)


@given(seeds, st.integers(1, 2000), st.integers(1, 2000))
def test_squeeze_coordinates_round_trip(seed, width, height):
    squeeze = Squeeze((width, height))
    uv = np.random.default_rng(seed).uniform(-1000, 3000, (5, 2))
    assert np.allclose(squeeze.to_capture(squeeze.to_model(uv)), uv)
    assert np.allclose(squeeze.to_model(np.array([-0.5, -0.5])), -0.5), "image borders map to image borders"
    assert np.allclose(squeeze.to_model(np.array([width, height]) - 0.5), np.array([640, 480]) - 0.5)
    assert decode(Squeeze, squeeze.to_json(), "here", ignore_unknown=True) == squeeze


def test_squeeze_moves_a_blob_where_it_says():
    """OpenCV's own resize agrees with to_model: the centre of mass of a square, within 0.1 px.

    (INTER_LINEAR does not average, hence no exact agreement; without the half-pixel terms it would be off by 0.25 px.)
    """
    squeeze = Squeeze((1280, 720))
    frame = np.zeros((720, 1280, 3), np.uint8)
    frame[300:340, 800:880] = 255
    small = squeeze.squeeze(frame)[..., 0].astype(float)
    v, u = np.indices(small.shape)
    centre = np.array([(u * small).sum(), (v * small).sum()]) / small.sum()
    assert np.abs(centre - squeeze.to_model(np.array([839.5, 319.5]))).max() < 0.1
    assert squeeze.unsqueeze(squeeze.squeeze(frame)).shape == frame.shape
    assert (squeeze.sx, squeeze.sy) == (0.5, 480 / 720)
    same = Squeeze((640, 480))
    assert same.identity
    assert same.squeeze(np.zeros((480, 640, 3), np.uint8)).shape == (480, 640, 3)


# ---- examples --------------------------------------------------------------------------------------------------------


def example(frames: int = 2) -> dict:
    points, ee, openness, K, E, _ = oracle.random_scene(np.random.default_rng(5), frames)
    return dict(zip((*ARGUMENTS, "size"), (points, ee, openness, K, E, (64, 48)), strict=True))


@pytest.mark.parametrize(("u", "column"), [(32.5, 32), (33.5, 34), (34.5, 34), (34.51, 35)])
def test_rounding_is_half_to_even(u, column):
    K = np.array([[100.0, 0, u], [0, 100.0, 24.0], [0, 0, 1]])
    ee = np.eye(4)[None].copy()
    ee[:, 0, 3] = 1e9  # the gripper is far out of the picture
    points = np.array([[[0.0, 0, 1], [0, 0.001, 1]]])
    frame = render_skeleton(points, ee, np.zeros(1), K, np.eye(4), (64, 48))[0]
    assert np.flatnonzero((frame[24] == (0, 0, 255)).all(-1)).mean() == column


def test_a_dot_outside_shows_its_inner_part_and_a_line_outside_leaves_no_trace():
    K = np.array([[100.0, 0, 32.0], [0, 100.0, 24.0], [0, 0, 1]])
    ee = np.eye(4)[None].copy()
    ee[:, :3, 3] = (1e9, 0, 1)
    points = np.array([[[-0.33, -0.1, 1.0], [-0.33, 0.1, 1.0]]])  # column -1
    frame = render_skeleton(points, ee, np.zeros(1), K, np.eye(4), (64, 48))[0]
    assert (frame[:, 0] == (0, 0, 255)).all(-1).any()
    assert not (frame == (255, 255, 0)).all(-1).any(), "a 3 px line centred on column -1 is clipped away whole"


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_refused_by_name_and_place(name, bad):
    arguments = example()
    arguments[name] = np.array(arguments[name], np.float64)
    arguments[name][(-1,) + (0,) * (arguments[name].ndim - 1)] = bad
    with pytest.raises(SkeletonError, match=rf"{name}\[.*finite"):
        render_skeleton(**arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"link_positions": np.zeros((2, 0, 3))}, "at least one link"),
        ({"link_positions": np.zeros((0, 3, 3)), "ee_pose": np.zeros((0, 4, 4))}, "no frame"),
        ({"link_positions": np.zeros((2, 3))}, "link_positions must be"),
        ({"link_positions": np.zeros((2, 3, 4))}, "link_positions must be"),
        ({"link_positions": "points"}, "real numbers"),
        ({"link_positions": np.array([[None]])}, "real numbers"),
        ({"ee_pose": np.tile(np.eye(4), (3, 1, 1))}, "ee_pose must have shape"),
        ({"ee_pose": np.eye(4)}, "ee_pose must have shape"),
        ({"ee_pose": np.tile(np.eye(4)[::-1], (2, 1, 1))}, "transposed"),
        ({"gripper_openness": np.zeros((2, 1))}, "gripper_openness must have shape"),
        ({"gripper_openness": 0.5}, "gripper_openness must have shape"),
        ({"camera_intrinsic": np.eye(4)}, "camera_intrinsic must be"),
        ({"camera_intrinsic": np.tile(np.eye(3), (3, 1, 1))}, "camera_intrinsic has 3 frames"),
        ({"camera_extrinsic": np.tile(np.eye(4), (1, 1, 1))}, "camera_extrinsic has 1 frames"),
        ({"camera_extrinsic": np.eye(3)}, "camera_extrinsic must be"),
        ({"camera_intrinsic": np.eye(3, dtype=complex)}, "real numbers"),
        ({"size": (-640, 480)}, "both positive"),
        ({"size": (640, 0)}, "both positive"),
        ({"size": (640.5, 480)}, "whole pixels"),
        ({"size": (640,)}, "size must be"),
        ({"size": None}, "size must be"),
        ({"size": (float("nan"), 3)}, "size must be"),
        ({"link_positions": np.full((2, 2, 3), 1e308), "camera_extrinsic": np.diag([1e10, 1e10, 1e10, 1])}, "overflow"),
    ],
)  # fmt: skip
def test_bad_input_has_one_clear_error(change, words):
    with pytest.raises(SkeletonError, match=words):
        render_skeleton(**{**example(), **change})


def test_too_large_a_batch_points_to_the_stream():
    with pytest.raises(SkeletonError, match="stream_skeleton"):
        render_skeleton(**{**example(), "size": (2**31 - 1, 2**31 - 1)})


def test_canvas_that_cannot_be_drawn_on_is_refused():
    arguments = example()
    one = [arguments[name][0] for name in ARGUMENTS[:3]] + [oracle.at(arguments[n], 0) for n in ARGUMENTS[3:]]
    whole = np.zeros((48, 64, 3), np.uint8)
    frozen = whole.copy()
    frozen.flags.writeable = False
    for canvas in (whole[:, ::2], whole.astype(np.float32), whole[..., 0], frozen, None, whole[:0]):
        with pytest.raises(SkeletonError):
            render_into(canvas, *one)


def test_stream_needs_arms_of_one_length():
    arguments = example()
    arm, camera = (
        ArmTrack(*(arguments[n] for n in ARGUMENTS[:3])),
        CameraTrack(*(arguments[n] for n in ARGUMENTS[3:]), (64, 48)),
    )
    short = ArmTrack(*(arguments[n][:1] for n in ARGUMENTS[:3]))
    for arms, start, words in (([], 0, "no arm"), ([arm, short], 0, "same number"), ([arm], 3, "start at frame 3")):
        with pytest.raises(SkeletonError, match=words):
            next(stream_skeleton(arms, camera, start=start))
