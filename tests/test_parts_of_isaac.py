# SPDX-License-Identifier: Apache-2.0
"""Parts of the capture that need no application: cameras of frames, patience, clocks, contacts, payloads, state views."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pxr import Sdf, Usd, UsdGeom
from strategies import random_poses

from retake.core.errors import InputError, RetakeError, StageError
from retake.core.geometry import axis_angle
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec
from retake.isaac import conditions, picture_quality, stops, timeline, watch
from retake.isaac.clock import BETWEEN_US, Held, SimulatedTime, StepKeys, choose_clock
from retake.isaac.contacts import decode_contact, reported_bodies
from retake.isaac.payload import raw_view, reference_time, render_products
from retake.isaac.rendered_camera import check_model, intrinsics, rendered_camera, view_transform
from retake.isaac.request import CaptureRequest, CaptureStatus, Phase, convert, request_from
from retake.isaac.tensors import RawState, TensorReader, _RobotRows, snapshot, to_numpy
from retake.isaac.tick_rates import TICK_RATE, TickRates
from retake.usd.lens import Calibration

SIZE = (640, 480)


def params_of(
    focal: float = 24.0, aperture: float = 20.0, offset: tuple[float, float] = (0.0, 0.0), **changes: Any
) -> dict:
    """camera_params of a pinhole: lens in tenths of a stage unit, projection as OpenGL has it (row vectors)."""
    width, height = SIZE
    vertical = aperture * height / width
    P = np.zeros((4, 4))
    P[0, 0], P[1, 1] = 2 * focal / aperture, 2 * focal / vertical
    P[2, 0], P[2, 1], P[2, 3] = 2 * offset[0] / aperture, 2 * offset[1] / vertical, -1
    return {
        "cameraModel": "pinhole", "renderProductResolution": SIZE, "cameraProjection": P.ravel(),
        "cameraFocalLength": focal, "cameraAperture": (aperture, vertical), "cameraApertureOffset": offset,
        "cameraViewTransform": np.eye(4).ravel(), **changes,
    }  # fmt: skip


@given(
    seed=st.integers(0, 2**31), focal=st.floats(8, 60), aperture=st.floats(10, 40), x=st.floats(-3, 3), y=st.floats(-3, 3),
    units=st.sampled_from([1.0, 0.01, 0.0254]), up=st.sampled_from(["Y", "Z"]),
)  # fmt: skip
def test_a_point_is_where_the_matrices_of_the_frame_put_it(
    seed: int, focal: float, aperture: float, x: float, y: float, units: float, up: str
) -> None:
    """By hand: row vector times view, times projection, divided by w, from (-1 … 1, up) to pixels."""
    rng = np.random.default_rng(seed)
    R_world_stage = np.eye(3) if up == "Z" else axis_angle(np.array([1.0, 0, 0]), np.array(np.pi / 2))
    M = np.eye(4)
    M[:3, :3] = random_poses(rng)[:3, :3]
    M[3, :3] = rng.normal(size=3) / units
    params = params_of(focal, aperture, (x, y), cameraViewTransform=M.ravel(), metersPerSceneUnit=units)
    camera = rendered_camera(params, SIZE, units, R_world_stage, "/C")
    seen = np.append(np.array([*rng.uniform(-0.4, 0.4, 2), -rng.uniform(1, 4)]) / units, 1.0)
    p_stage = seen @ np.linalg.inv(M)
    clip = seen @ params["cameraProjection"].reshape(4, 4)
    u, v = (clip[0] / clip[3] + 1) / 2 * SIZE[0], (1 - clip[1] / clip[3]) / 2 * SIZE[1]
    p_camera = camera.T_camera_world @ np.append(R_world_stage @ p_stage[:3] * units, 1.0)
    assert p_camera[2] == pytest.approx(-seen[2] * units)
    found = camera.K @ (p_camera[:3] / p_camera[2])
    assert found[:2] == pytest.approx([u, v], abs=1e-6)
    assert np.allclose(view_transform(camera, units, R_world_stage), M.ravel())
    assert camera.size == SIZE
    assert camera.lens is None


SHEARED = np.eye(4)
SHEARED[0, 1] = 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"renderProductResolution": (640, 481)}, "rendered at"),
        ({"renderProductResolution": (641, 480)}, "rendered at"),
        ({"metersPerSceneUnit": 0.01}, "reload the stage"),
        ({"metersPerSceneUnit": 1 + 2e-6}, "reload the stage"),
        ({"metersPerSceneUnit": 1 - 2e-6}, "reload the stage"),
        ({"cameraViewTransform": [*np.eye(4).ravel()[:3], 0.1, *np.eye(4).ravel()[4:]]}, "transposed"),
        ({"cameraViewTransform": SHEARED.ravel()}, "scaled or sheared"),
        ({"cameraViewTransform": np.diag([1.01, 1, 1, 1]).ravel()}, "scaled or sheared"),
        ({"cameraViewTransform": np.eye(3).ravel()}, "expected 16"),
        ({"cameraViewTransform": np.full(16, np.nan)}, "expected 16"),
        ({"cameraProjection": np.zeros(16)}, "focal length of zero"),
        ({"cameraProjection": np.diag([2.0, -2.0, 1, 1]).ravel()}, "focal length of zero"),
        ({"cameraProjection": np.diag([-2.0, 2.0, 1, 1]).ravel()}, "focal length of zero"),
        ({"cameraProjection": np.diag([2.0, 2.0, 1, 1]).ravel()}, "square pixels"),
        ({"cameraFocalLength": 0.0}, "must both be positive"),
        ({"cameraAperture": (0.0, 1.0)}, "must both be positive"),
        ({"cameraFocalLength": 25.0}, "the projection matrix says"),
        ({"cameraApertureOffset": (0.1, 0.0)}, "the projection matrix says"),
        ({"cameraApertureOffset": (0.0, 0.1)}, "the projection matrix says"),
        ({"cameraModel": "fisheyePolynomial"}, "lens model"),
        ({"cameraModel": "pinholeOpenCV"}, "lens model"),
    ],
)  # fmt: skip
def test_a_camera_that_cannot_be_trusted_is_refused(changes: dict[str, Any], said: str) -> None:
    assert rendered_camera(params_of(), SIZE, 1.0, np.eye(3), "/C").K[0, 0] == pytest.approx(24 / 20 * 640)
    with pytest.raises(StageError, match=said):
        rendered_camera(params_of(**changes), SIZE, 1.0, np.eye(3), "/C")


def test_what_is_within_rounding_is_taken() -> None:
    near = params_of(metersPerSceneUnit=1 + 5e-7, cameraFocalLength=24.012)
    assert rendered_camera(near, SIZE, 1.0, np.eye(3), "/C").K[0, 0] == pytest.approx(768)
    lens = intrinsics(params_of(24.0, 20.0, (1.0, -0.5)), SIZE, "/C")
    assert lens[:2, 2] == pytest.approx([320 - 32, 240 - 16])
    assert lens[0, 1] == lens[1, 0] == 0


@pytest.mark.parametrize(
    ("drawn", "lens", "fits"),
    [
        ("pinholeOpenCV", "opencv-pinhole", True), ("fisheyeOpenCV", "opencv-fisheye", True),
        ("pinhole", "opencv-pinhole", False),
        ("fisheyeOpenCV", "opencv-pinhole", False), ("pinholeOpenCV", "opencv-fisheye", False), ("pinholeOpenCV", None, True),
        ("fisheye", "opencv-fisheye", False),
    ],
)  # fmt: skip
def test_a_renderer_draws_the_lens_of_the_prim_or_is_refused(drawn: str, lens: str | None, fits: bool) -> None:
    calibration: Any = SimpleNamespace(lens=None if lens is None else SimpleNamespace(model=lens))
    if fits:
        check_model(drawn, calibration, "/C")
        return
    with pytest.raises(StageError, match="a renderer that knows the lens"):
        check_model(drawn, calibration, "/C")


def test_a_calibrated_camera_has_the_lens_of_its_calibration() -> None:
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    camera = rendered_camera(params_of(cameraModel="pinholeOpenCV"), SIZE, 1.0, np.eye(3), "/C", Calibration(K, None))
    assert np.array_equal(camera.K, K)


# -- what is waited for ------------------------------------------------------------------------------------------------


def test_patience_is_over_with_the_update_that_is_one_too_many() -> None:
    """STEP_PATIENCE updates of a playing timeline without a step, FRAME_PATIENCE without a frame; each starts the count anew."""
    for patience, happens, over in (
        (watch.STEP_PATIENCE, "step", "no_steps"),
        (watch.FRAME_PATIENCE, "frame", "no_frames"),
    ):
        waiting = watch.Watch(now=lambda: 0.0)
        for again in (happens, "again"):
            for count in range(1, patience + 1):
                assert not getattr(waiting, over), (happens, count)
                waiting.update(playing=True)
                waiting.update(playing=False)  # a paused timeline makes no steps
            assert getattr(waiting, over)
            getattr(waiting, again)()
            assert not getattr(waiting, over)
    assert (watch.STEP_PATIENCE, watch.FRAME_PATIENCE) == (60, 300)


def slow_updates(durations: list[float], pause_after: int = -1) -> list[str]:
    """What a watch says after each update."""
    times = iter(np.cumsum([0.0, *durations]))
    waiting = watch.Watch(now=lambda: float(next(times)))
    said = []
    for index in range(len(durations) + 1):
        waiting.update(playing=index != pause_after)
        said.append(waiting.slow())
    return said


def test_slow_updates_are_told_once_from_the_fifth_on() -> None:
    said = slow_updates([6.0] * 8)
    assert [bool(text) for text in said] == [False] * 5 + [True] + [False] * 3
    assert said[5].startswith("an update takes 6.0 s: ")
    assert slow_updates([5.0] * 5)[-1], "as slow as the limit is slow"
    assert not any(slow_updates([4.99] * 9))
    assert not any(slow_updates([0.1, 9.0, 0.1, 9.0, 0.1])), "the median counts, not single ones"
    assert any(slow_updates([0.1, 0.1, 9.0, 9.0, 9.0, 9.0, 9.0])), "old updates are forgotten"
    assert not any(slow_updates([9.0] * 6, pause_after=3)), "a pause is no update"


def test_frames_of_an_earlier_run_are_gone_after_eight_updates() -> None:
    watching = stops.StopWatch()
    assert watching.quiet
    watching._on_stop()
    for _ in range(stops.SETTLE_UPDATES):
        assert not watching.quiet
        watching._on_update()
    assert watching.quiet
    assert watching.updates == stops.SETTLE_UPDATES == 8
    watching._on_stop()
    watching.uninstall()
    assert watching.quiet


class Hooks:
    """What `Conditions` looks at."""

    def __init__(self) -> None:
        self.missing, self.timeline_ended, self.step_hook, self.more_hooks = "", False, "the first", 1
        self.notes: list[str] = []
        self.rendering = SimpleNamespace(update=lambda *, recording: self.seen.append(recording))
        self.seen: list[bool] = []
        self.stage = Usd.Stage.CreateInMemory()

    def missing_from_stage(self) -> str:
        return self.missing

    def next_step_hook(self) -> bool:
        self.more_hooks -= 1
        return self.more_hooks >= 0


@pytest.fixture
def playing(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A timeline whose answers a test sets."""
    state = SimpleNamespace(
        plays=True, looping=False, end=10.0, now=0.0, codes=60.0, calls=[], is_playing=lambda: state.plays,
        is_looping=lambda: state.looping, get_end_time=lambda: state.end, get_current_time=lambda: state.now,
        get_time_codes_per_seconds=lambda: state.codes, commit=lambda: state.calls.append("commit"),
        set_looping=lambda on: (state.calls.append(on), setattr(state, "looping", on)),
        **{name: lambda name=name: state.calls.append(name) for name in ("play", "pause", "stop")},
    )  # fmt: skip
    monkeypatch.setattr(timeline, "interface", lambda: state)
    return state


def conditions_of(hooks: Hooks) -> conditions.Conditions:
    return conditions.Conditions(hooks)  # type: ignore[arg-type]


def test_a_recording_that_hears_no_step_tries_the_next_hook_and_then_says_so(playing: SimpleNamespace) -> None:
    hooks = Hooks()
    looked = conditions_of(hooks)
    for _ in range(2 * watch.STEP_PATIENCE - 1):
        assert looked.look(recording=False, stepped=False, ready=True) == ""
    with pytest.raises(StageError, match=r"no physics step was announced \(the first\)"):
        looked.look(recording=False, stepped=False, ready=True)
    assert looked.updates == 2 * watch.STEP_PATIENCE
    for state in ({"recording": True}, {"ready": False}):
        other = conditions_of(Hooks())
        for _ in range(3 * watch.STEP_PATIENCE):
            assert other.look(**{"recording": False, "stepped": False, "ready": True, **state}) == ""
    playing.plays = False
    other = conditions_of(Hooks())
    for _ in range(3 * watch.STEP_PATIENCE):
        assert other.look(recording=False, stepped=False, ready=True) == ""


def test_a_recording_without_frames_ends_unless_it_is_stepped(playing: SimpleNamespace) -> None:
    for stepped in (False, True):
        hooks = Hooks()
        looked = conditions_of(hooks)
        looked.begin()
        for _ in range(watch.FRAME_PATIENCE - 1):
            looked.step()
            assert looked.look(recording=True, stepped=stepped, ready=True) == ""
        looked.frame()
        for _ in range(watch.FRAME_PATIENCE - 1):
            assert looked.look(recording=True, stepped=stepped, ready=True) == ""
        if stepped:
            assert looked.look(recording=True, stepped=True, ready=True) == ""
        else:
            with pytest.raises(StageError, match="no frame arrived in 300 updates"):
                looked.look(recording=True, stepped=False, ready=True)
        assert set(hooks.seen) == {True}


def test_what_a_recording_rests_on_is_looked_at(playing: SimpleNamespace) -> None:
    hooks = Hooks()
    looked = conditions_of(hooks)
    hooks.timeline_ended = True
    assert looked.look(recording=True, stepped=False, ready=True) == ""
    playing.plays = False
    assert "reached its end" in looked.look(recording=True, stepped=False, ready=True)
    assert looked.look(recording=False, stepped=False, ready=True) == ""
    hooks.missing = "the camera is gone"
    with pytest.raises(StageError, match="the camera is gone; the recording ends before that"):
        looked.look(recording=True, stepped=False, ready=True)


def test_steps_of_updates_are_counted_and_those_without_any_left_out(playing: SimpleNamespace) -> None:
    looked = conditions_of(Hooks())
    for steps in (2, 0, 2):
        for _ in range(steps):
            looked.step()
        looked.look(recording=False, stepped=False, ready=True)
    assert looked.steps_per_update == {2}
    assert looked.hint(15.0) == "", "two of sixty steps a second fit fifteen frames"
    assert "An update makes 2 physics steps" in looked.hint(20.0)
    looked.step()
    assert "An update makes 1 or 2 physics steps" in looked.hint(15.0), "the update under way counts"
    looked.begin()
    assert looked.steps_per_update == set()
    assert conditions_of(Hooks()).hint(15.0) == ""


# -- timeline ----------------------------------------------------------------------------------------------------------


def test_changes_of_the_timeline_take_effect_at_once(playing: SimpleNamespace) -> None:
    for change in ("play", "pause", "stop"):
        playing.calls.clear()
        getattr(timeline, change)()
        assert playing.calls == [change, "commit"]


def test_a_looping_timeline_does_not_loop_while_it_is_held(playing: SimpleNamespace) -> None:
    playing.looping = True
    end = timeline.TimelineEnd()
    assert playing.looping is False
    end.close()
    end.close()
    assert playing.calls == [False, "commit", True, "commit"]
    playing.looping = False
    timeline.TimelineEnd().close()
    assert playing.calls == [False, "commit", True, "commit"]


def test_the_end_is_reached_by_a_timeline_that_stands_there(playing: SimpleNamespace) -> None:
    end = timeline.TimelineEnd()
    playing.now = 10.0
    assert not end.reached
    playing.plays = False
    for now, reached in ((10.0, True), (10.0 - 5e-5, True), (9.9998, False), (0.0, False)):
        playing.now = now
        assert end.reached == reached
    playing.now = 4.0
    assert end.warning(6.0) == ""
    assert end.warning(6.5).startswith("the timeline ends 6.00 s from here and the episode needs 6.50 s")


def stage_with_rate(rate: float | None, *, scene: bool = True) -> Usd.Stage:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.Xform.Define(stage, "/Above")
    if scene:
        prim = stage.DefinePrim("/Above/Scene", "PhysicsScene")
        if rate is not None:
            prim.CreateAttribute("physxScene:timeStepsPerSecond", Sdf.ValueTypeNames.UInt).Set(int(rate))
    return stage


def test_the_rate_of_physics_is_the_scenes_or_sixty() -> None:
    for rate, scene, expected in ((120, True, 120), (0, True, 60), (None, True, 60), (None, False, 60)):
        assert timeline.physics_rate(stage_with_rate(rate, scene=scene)) == expected


@given(fps=st.integers(1, 120), rate=st.integers(1, 600))
def test_fitting_codes_are_the_least_multiple_that_is_no_slower_than_physics(fps: int, rate: int) -> None:
    codes = timeline.fitting_codes(float(fps), float(rate))
    assert codes % fps == 0
    assert codes >= rate
    assert codes - fps < rate


@pytest.mark.parametrize(
    ("fps", "codes", "rate", "fixed", "fits"),
    [
        (15, 60, 60, True, True), (15, 24, 60, True, False), (15, 24, 60, False, True), (24, 24, 60, True, True),
        (30, 60, 60, True, True), (120, 60, 120, True, False), (7, 24, 60, True, True), (20, 30, 60, True, False),
    ],
)  # fmt: skip
def test_frames_that_fall_between_updates_are_refused_with_what_fits(
    playing: SimpleNamespace, fps: int, codes: int, rate: int, fixed: bool, fits: bool
) -> None:
    """24 updates a second show no state of a grid of 15, so either rate is to be changed; 7 of 60 is told by the first step."""
    playing.codes = codes
    stage = stage_with_rate(rate)
    if fits:
        timeline.check_steps(stage, float(fps), lambda name: fixed)
        return
    with pytest.raises(InputError, match=f"the timeline makes {codes} updates a second") as refused:
        timeline.check_steps(stage, float(fps), lambda name: fixed)
    assert f"Time Codes Per Second to {timeline.fitting_codes(fps, rate):g}" in str(refused.value)
    if (fps, codes) == (15, 24):
        assert "record at 12 or 6 or 4 or 3 or 2 or 1 frames" in str(refused.value)


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_states_that_share_a_reading_in_other_updates_get_keys_beside_it() -> None:
    keys = StepKeys()
    assert keys.key((1, 60), 0) == (1, 60)
    beside = [keys.key((1, 60), 0) for _ in range(2)]
    assert beside == [(1, 60)] * 2, "in one update a reading is what it is"
    later = [Fraction(*keys.key((1, 60), update)) for update in (1, 2, 3)]
    assert later == [Fraction(1, 60) + Fraction(BETWEEN_US * n, 10**6) for n in (1, 2, 3)]
    assert keys.key((2, 60), 4) == (2, 60)
    assert Fraction(*keys.key((2, 60), 5)) == Fraction(2, 60) + Fraction(BETWEEN_US, 10**6)


def test_a_frame_begun_before_the_held_state_is_stale() -> None:
    nodes = SimpleNamespace(get_sim_time=lambda: 0.5, get_sim_time_at_time=lambda time: time[0] / time[1])
    held = Held(SimulatedTime(nodes))
    assert not held.is_stale(0, 1), "nothing is held yet"
    assert held.state_key(0.2, 7) == (7, 1)
    assert held.frame_key(1, 60) == (7, 1)
    assert held.now() is None
    for time, stale in (((4, 10), True), ((5, 10), False), ((6, 10), False)):
        assert held.is_stale(*time) == stale
    alone = Held()
    alone.state_key(0.2, 3)
    assert not alone.is_stale(0, 1)


def test_the_clock_of_a_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    live = SimulatedTime(SimpleNamespace())
    monkeypatch.setattr("retake.isaac.clock.find_clock", lambda: live)
    assert choose_clock("auto") is choose_clock("live") is live
    stepped = choose_clock("stepped")
    assert isinstance(stepped, Held)
    assert stepped._witness is live
    monkeypatch.setattr("retake.isaac.clock.find_clock", lambda: None)
    assert isinstance(choose_clock("auto"), Held)
    with pytest.raises(InputError, match="use mode 'stepped'"):
        choose_clock("live")


# -- contacts ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), units=st.sampled_from([1.0, 0.01]), dt=st.sampled_from([1 / 60, 1 / 240]))
def test_a_contact_is_turned_round_and_in_metres_and_newtons(seed: int, units: float, dt: float) -> None:
    rng = np.random.default_rng(seed)
    R = random_poses(rng)[:3, :3]
    position, normal, impulse = rng.normal(size=(3, 3))
    for depth in (-0.4, 0.0, 0.3):
        raw = ("/A", "/B", tuple(position), tuple(normal), tuple(impulse), depth)
        found = decode_contact(raw, units, lambda v: R @ np.asarray(v), dt)
        assert (found.body_a, found.body_b) == ("/A", "/B")
        assert np.allclose(found.position_m, R @ position * units)
        assert np.allclose(found.normal, -R @ normal)
        assert np.allclose(found.force_n, -R @ impulse * units / dt)
        assert found.penetration_m == pytest.approx(max(0.0, -depth * units))


def hand() -> RobotSpec:
    """base - arm - palm - two fingers, a pad on the left one."""
    names = ("base", "arm", "palm", "left", "right", "pad")
    parents = (-1, 0, 1, 2, 2, 3)
    kinds = ("", "revolute", "revolute", "prismatic", "prismatic", "fixed")
    joints = tuple(
        JointSpec(f"j_{name}", kind, parent, index, (0.0, 0.0, 1.0), np.eye(4), np.eye(4), prim_path=f"/R/j_{name}")  # type: ignore[arg-type]
        for index, (name, kind, parent) in enumerate(zip(names, kinds, parents, strict=True)) if index
    )  # fmt: skip
    gripper = GripperSpec("g", "palm", np.eye(4), ("j_left", "j_right"), (0.04, 0.04), (0.0, 0.0))
    return RobotSpec("r", "/R", tuple(LinkSpec(name, f"/R/{name}") for name in names), joints, (gripper,))


def test_bodies_that_report_their_contacts() -> None:
    robot = hand()
    assert reported_bodies([robot], ["/Box"], "off") == ()
    assert reported_bodies([robot], ["/Box"], "auto") == ("/R/palm", "/R/left", "/R/right", "/R/pad", "/Box")
    assert reported_bodies([robot], ["/Box"], "on") == (*(link.prim_path for link in robot.links), "/Box")


# -- state views -------------------------------------------------------------------------------------------------------


class View:
    """A tensor view of one robot whose links and joints stand in an order of its own."""

    def __init__(self, links: list[str], dofs: list[str], rows: int = 1, *, efforts: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.shared_metatype = SimpleNamespace(link_names=links, dof_names=dofs)
        self.link_paths = [[f"/R/{name}" for name in links]] * rows
        self.dof_paths = [[f"/R/{name}" for name in dofs]] * rows
        self.q, self.dq, self.target, self.effort = rng.normal(size=(4, rows, len(dofs))).astype(np.float32)
        self.links = rng.normal(size=(rows, len(links), 7)).astype(np.float32)
        self.efforts, self.sent = efforts, []
        self.prim_paths, self.is_homogeneous = ["/R"] * rows, False

    def check(self) -> bool:
        return True

    def get_dof_positions(self) -> np.ndarray:
        return self.q

    def get_dof_velocities(self) -> np.ndarray:
        return self.dq

    def get_dof_position_targets(self) -> np.ndarray:
        return self.target

    def get_link_transforms(self) -> np.ndarray:
        return self.links

    def get_dof_projected_joint_forces(self) -> np.ndarray:
        if not self.efforts:
            raise RuntimeError("not measured")
        return self.effort

    def set_dof_position_targets(self, data: np.ndarray, rows: np.ndarray) -> None:
        self.sent.append((data, rows))


def reader(
    monkeypatch: pytest.MonkeyPatch, view: View, objects: tuple[str, ...] = (), known: tuple[str, ...] = ()
) -> TensorReader:
    bodies = SimpleNamespace(prim_paths=known, get_transforms=lambda: np.arange(7.0 * len(known)).reshape(-1, 7))
    simulation = SimpleNamespace(
        create_articulation_view=lambda pattern: view if pattern == "/R" else None,
        create_rigid_body_view=lambda paths: bodies,
    )
    monkeypatch.setattr("retake.isaac.tensors.simulation_view", lambda: simulation)
    return TensorReader([hand()], objects)


LINKS, DOFS = ["pad", "right", "left", "palm", "arm", "base"], ["j_right", "j_palm", "j_left", "j_arm"]


def test_state_is_read_in_the_specifications_order(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(LINKS, DOFS)
    reading = reader(monkeypatch, view, ("/Box", "/Tray"), ("/Tray", "/Other", "/Box"))
    assert not reading.is_open
    reading.open()
    assert reading.is_open
    state = reading.read()
    robot = state.robots[0]
    dofs = [3, 1, 2, 0]
    assert np.array_equal(robot.position, view.q[0][dofs])
    assert np.array_equal(robot.velocity, view.dq[0][dofs])
    assert np.array_equal(robot.target, view.target[0][dofs])
    assert robot.effort is not None
    assert np.array_equal(robot.effort, view.effort[0][dofs])
    assert np.array_equal(robot.links, view.links[0][[5, 4, 3, 2, 1, 0]])
    assert np.array_equal(state.objects, np.arange(21.0).reshape(3, 7)[[2, 0]])
    view.q += 1
    assert not np.array_equal(robot.position, view.q[0][dofs]), "a state is a copy"
    reading.close()
    assert not reading.is_open


def moved_to(path: str) -> RobotSpec:
    """The hand, its prims under another path."""
    robot = hand()

    def away(prim_path: str) -> str:
        return path + prim_path.removeprefix("/R")

    return replace(
        robot, name=path.strip("/").lower(), prim_path=path,
        links=tuple(replace(link, prim_path=away(link.prim_path)) for link in robot.links),
        joints=tuple(replace(joint, prim_path=away(joint.prim_path)) for joint in robot.joints),
    )  # fmt: skip


@pytest.mark.parametrize("tells", ["links", "roots", "nothing", "fewer"])
def test_robots_of_one_kind_share_a_view_whose_rows_are_found_by_path(
    monkeypatch: pytest.MonkeyPatch, tells: str
) -> None:
    """The view's rows stand in another order than the robots. A view that names neither links nor robots, or knows fewer robots
    than were asked for, is not guessed at: each robot then has a view of its own."""
    robots = [moved_to("/A"), moved_to("/B"), moved_to("/C")]
    order = ["/C", "/A", "/B"][: 2 if tells == "fewer" else 3]
    together = View(LINKS, DOFS, rows=len(order))
    together.link_paths = (
        [[f"{path}/{name}" for name in LINKS] for path in order] if tells in ("links", "fewer") else []
    )
    together.dof_paths = [[f"{path}/{name}" for name in DOFS] for path in order]
    together.prim_paths = order if tells == "roots" else [f"/root{k}" for k in range(len(order))]
    together.is_homogeneous = True
    alone = {robot.prim_path: View(LINKS, DOFS) for robot in robots}
    for k, (path, view) in enumerate(alone.items(), 1):
        view.q += 10 * k
        view.link_paths = [[f"{path}/{name}" for name in LINKS]]
        view.dof_paths = [[f"{path}/{name}" for name in DOFS]]
    asked: list[object] = []

    def create(pattern: str | list[str]) -> View:
        asked.append(pattern)
        return together if isinstance(pattern, list) else alone[pattern]

    simulation = SimpleNamespace(create_articulation_view=create)
    monkeypatch.setattr("retake.isaac.tensors.simulation_view", lambda: simulation)
    reading = TensorReader(robots, ())
    reading.open()
    read = reading.read().robots
    dofs = [3, 1, 2, 0]
    if tells in ("links", "roots"):
        assert asked == [["/A", "/B", "/C"]]
        for robot, row in zip(read, (1, 2, 0), strict=True):
            assert np.array_equal(robot.position, together.q[row][dofs])
            assert np.array_equal(robot.links, together.links[row][[5, 4, 3, 2, 1, 0]])
    else:
        assert asked[1:] == ["/A", "/B", "/C"]
        for robot, view in zip(read, alone.values(), strict=True):
            assert np.array_equal(robot.position, view.q[0][dofs])


def test_an_engine_that_measures_no_efforts_is_read_without(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader(monkeypatch, View(LINKS, DOFS, efforts=False))
    reading.open()
    assert reading.read().robots[0].effort is None
    assert not reading.has_efforts
    assert reading.notes[0].startswith("the episode has no joint efforts: not measured")
    assert reading.read().objects.shape == (0, 7)


def test_targets_reach_the_joints_that_are_named_in_the_stages_units(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(LINKS, DOFS)
    reading = reader(monkeypatch, view)
    reading.open()
    before = view.target.copy()
    reading.command([(0, 2), (0, 1)], [0.02, 0.5], 0.01)  # j_left, j_palm
    data, rows = view.sent[0]
    before[0, [2, 1]] = 2.0, 0.5
    assert np.allclose(data, before)
    assert rows.tolist() == [0]
    assert rows.dtype == np.int32


@pytest.mark.parametrize("shared", [True, False])
def test_targets_reach_several_robots_in_one_command_and_no_other_robot(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Three robots in one view, or each in a view of its own; those that are not commanded keep their targets."""
    paths = ["/A", "/B", "/C"]
    views = [View(LINKS, DOFS, rows=3)] if shared else [View(LINKS, DOFS) for _ in paths]
    for index, view in enumerate(views):
        view.target += index
        mine = paths if shared else [paths[index]]
        view.prim_paths, view.is_homogeneous = mine, shared
        view.link_paths = [[f"{path}/{name}" for name in LINKS] for path in mine]
        view.dof_paths = [[f"{path}/{name}" for name in DOFS] for path in mine]

    def create(pattern: str | list[str]) -> View | None:
        if shared:
            return views[0]
        return None if isinstance(pattern, list) else views[paths.index(pattern)]

    simulation = SimpleNamespace(create_articulation_view=create)
    monkeypatch.setattr("retake.isaac.tensors.simulation_view", lambda: simulation)
    reading = TensorReader([moved_to(path) for path in paths], ())
    reading.open()
    before = [view.target.copy() for view in views]
    reading.command([(2, 3), (0, 0), (2, 1)], [0.03, 0.1, 0.2], 0.01)
    row = (lambda k: (0, k)) if shared else (lambda k: (k, 0))
    for robot, column, value in ((2, 0, 3.0), (0, 3, 0.1), (2, 1, 0.2)):
        before[row(robot)[0]][row(robot)[1], column] = value
    assert [len(view.sent) for view in views] == ([1] if shared else [1, 0, 1])
    for view, wanted in zip(views, before, strict=True):
        for data, rows in view.sent:
            assert np.allclose(data, wanted)
            assert rows.tolist() == list(range(len(wanted)))


@pytest.mark.parametrize(
    ("links", "dofs", "objects", "said"),
    [
        (LINKS[1:], DOFS, (), "knows no link pad"), (LINKS, DOFS[1:], (), "knows no joint j_right"),
        (LINKS, DOFS, ("/Gone", "/Box"), "no rigid body at /Gone;"),
    ],
)  # fmt: skip
def test_what_physics_does_not_know_is_named(
    monkeypatch: pytest.MonkeyPatch, links: list[str], dofs: list[str], objects: tuple[str, ...], said: str
) -> None:
    with pytest.raises(StageError, match=said):
        reader(monkeypatch, View(links, dofs), objects, ("/Box",)).open()


def test_a_robot_that_physics_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader(monkeypatch, View(LINKS, DOFS))
    reading.robots = (replace(hand(), prim_path="/Elsewhere"),)
    with pytest.raises(StageError, match="no articulation at /Elsewhere"):
        reading.open()


def test_a_simulator_that_no_longer_answers_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(LINKS, DOFS)
    reading = reader(monkeypatch, view)
    reading.open()
    reading._getters = [(lambda: (_ for _ in ()).throw(RuntimeError("expired")),)]
    with pytest.raises(StageError, match=r"state of /R and 0 objects \(expired\)"):
        reading.read()


def test_arrays_of_other_kinds_are_read() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    torch_like = SimpleNamespace(detach=lambda: SimpleNamespace(cpu=lambda: SimpleNamespace(numpy=lambda: values)))
    for array in (values, torch_like, SimpleNamespace(numpy=lambda: values)):
        assert np.array_equal(to_numpy(array), values)
        kept = snapshot(array).array()
        assert np.array_equal(kept, values)
        assert kept.dtype == np.float32
    two = _RobotRows(0, 1, np.array([2, 0]), np.array([1]))
    views = [
        [snapshot(np.arange(6.0).reshape(2, 3) + 10 * k) for k in range(3)]
        + [snapshot(np.arange(28.0).reshape(2, 2, 7))]
    ]
    robot = RawState(views, [two], None, np.zeros(0, int)).robots[0]
    assert robot.position.tolist() == [5, 3]
    assert robot.velocity.tolist() == [15, 13]
    assert robot.target.tolist() == [25, 23]
    assert robot.links.tolist() == [list(np.arange(21.0, 28.0))]


# -- payloads ----------------------------------------------------------------------------------------------------------


LABELS = {"3": "/A", 4: {"class": "/B"}, 5: {}}


def entries(**changes: Any) -> dict[str, Any]:
    picture = np.zeros((4, 5, 4), np.uint8)
    found = {
        "rgb": {"data": picture}, "distance_to_image_plane": np.ones((4, 5), np.float32), "camera_params": {"k": 1},
        "instance_id_segmentation": {"data": np.ones((4, 5), np.uint32), "info": {"idToLabels": LABELS}},
    }  # fmt: skip
    return {k: v for k, v in {**found, **changes}.items() if v is not None}


def test_a_payload_becomes_a_view() -> None:
    view = raw_view(entries(), ("rgb", "depth", "instances"), "p")
    assert {k: v.shape for k, v in view.images.items()} == {"rgb": (4, 5, 4), "depth": (4, 5), "instances": (4, 5)}
    assert view.id_to_path == {3: "/A", 4: "/B", 5: ""}
    assert view.camera == {"k": 1}
    newer = {"data": np.full((4, 5), 7, np.uint32), "idToLabels": {}}
    assert raw_view(entries(instance_id_segmentation_fast=newer), ("instances",), "p").images["instances"].max() == 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rgb": None}, "no rgb"), ({"rgb": {"data": np.zeros((0, 0, 4))}}, "no rgb"), ({"rgb": {"data": None}}, "no rgb"),
        ({"instance_id_segmentation": None}, r"no instance_id_segmentation \(instances\); it has camera_params, distance"),
        ({"camera_params": None}, "no camera_params"), ({"camera_params": 3}, "no camera_params"),
    ],
)  # fmt: skip
def test_a_payload_that_lacks_something_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said):
        raw_view(entries(**changes), ("rgb", "depth", "instances"), "p")


def test_times_and_products_of_a_payload() -> None:
    assert reference_time({"reference_time": (np.int64(3), 60)}) == (3, 60)
    for wrong in (None, 3, (1, 2, 3), ("a", 1)):
        with pytest.raises(StageError, match="no reference_time"):
            reference_time({"reference_time": wrong})
    assert render_products({"renderProducts": {"a": {}}}) == {"a": {}}
    with pytest.raises(StageError, match="has the keys"):
        render_products({"rgb": 1})


# -- settings ----------------------------------------------------------------------------------------------------------


class Settings:
    def __init__(self, **values: Any) -> None:
        self.values = {
            {"aa": picture_quality.ANTIALIASING, "dlss": picture_quality.DLSS_MODE}.get(k, k): v
            for k, v in values.items()
        }

    def get(self, path: str) -> Any:
        return self.values.get(path)


def test_pictures_of_few_lines_are_advised_another_upscaling() -> None:
    def advice(*sizes: tuple[int, int], **settings: Any) -> str:
        return picture_quality.advice(Settings(**settings).get, sizes)

    small, large = (800, 599), (800, 600)
    said = advice(large, small, dlss=0, aa=3)
    assert said.startswith("DLSS renders 800x599 with about 299 lines")
    assert advice(small, dlss=0), "an application that does not tell its antialiasing"
    assert (
        advice(large, dlss=0, aa=3) == advice(small, dlss=2, aa=3) == advice(small, dlss=0, aa=4) == advice(small) == ""
    )


def test_upscaling_is_set_as_asked_and_told() -> None:
    for wanted, expected in (("as-is", {}), ("dlaa", {"aa": 4}), ("dlss-quality", {"aa": 3, "dlss": 2})):
        assert picture_quality.needed(wanted) == Settings(**expected).values  # type: ignore[arg-type]
    found = Settings(
        aa=3, **{"/rtx/rendermode": "x", "/rtx/pathtracing/spp": None, "/rtx/post/tonemap/op": [1], "/other": 1}
    )
    assert picture_quality.recorded(found.get) == {picture_quality.ANTIALIASING: 3, "/rtx/rendermode": "x"}


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True), ({"fps": 0.0}, False), ({"fps": float("nan")}, False), ({"fps": 0.5}, True), ({"width": 0}, False),
        ({"height": 0}, False), ({"width": 1, "height": 1}, True), ({"frames": -1}, False), ({"queue_frames": 0}, False),
        ({"queue_frames": 1}, True), ({"rt_subframes": 0}, False), ({"rt_subframes": 1}, True), ({"output": ""}, False),
        ({"mode": "fast"}, False), ({"cameras": ("/C@0x3",)}, False), ({"cameras": ("/C@1x1",)}, True),
    ],
)  # fmt: skip
def test_a_request_is_refused_outside_its_limits(tmp_path: Any, changes: dict[str, Any], fits: bool) -> None:
    request = replace(CaptureRequest(output=str(tmp_path / "new")), **changes)
    if fits:
        assert request.checked() == request
    else:
        with pytest.raises(RetakeError):
            request.checked()


def test_a_folder_that_holds_something_is_refused(tmp_path: Any) -> None:
    assert CaptureRequest(output=str(tmp_path)).checked()
    (tmp_path / "x").write_text("1")
    for place in (tmp_path, tmp_path / "x"):
        with pytest.raises(InputError, match="is not an empty folder"):
            CaptureRequest(output=str(place)).checked()


@pytest.mark.parametrize(
    ("name", "value", "default", "expected"),
    [
        ("undistort", "Yes", False, True), ("undistort", 0, True, False), ("contacts", "TRUE", "auto", "on"),
        ("contacts", "0", "auto", "off"), ("contacts", "auto", "auto", "auto"), ("mode", "on", "auto", "on"),
        ("width", "7", 640, 7), ("robots", "/A, /B,", (), ("/A", "/B")), ("robots", ["/A", " "], (), ("/A",)),
        ("cameras", {"path": "/C", "size": [4, 3]}, (), ("/C@4x3",)),
        ("cameras", [{"path": "/C", "channels": ["depth"]}, "/D"], (), ("/C:rgb+depth", "/D")),
    ],
)  # fmt: skip
def test_loose_values_become_what_the_setting_is(name: str, value: Any, default: Any, expected: Any) -> None:
    found = convert(name, value, default)
    assert found == expected
    assert type(found) is type(expected)


def test_wrong_values_and_names_are_told() -> None:
    for name, value, said in (
        ("undistort", "perhaps", "needs true or false"),
        ("width", "x", "needs a value like 640"),
    ):
        with pytest.raises(InputError, match=said):
            request_from({name: value})
    with pytest.raises(InputError, match="capture setting"):
        request_from({"widht": 3})


def test_a_recording_is_active_until_it_is_done() -> None:
    active = {phase for phase in Phase if CaptureStatus(phase).active}
    assert active == {Phase.WAITING, Phase.RECORDING, Phase.FINISHING}


def test_tick_rates_are_nought_while_open_and_the_stages_afterwards() -> None:
    stage = Usd.Stage.CreateInMemory()
    for name, rate in (("A", 20.0), ("B", 0.0), ("C", None)):
        prim = UsdGeom.Camera.Define(stage, f"/{name}").GetPrim()
        if rate is not None:
            prim.CreateAttribute(TICK_RATE, Sdf.ValueTypeNames.Float).Set(rate)
    before = list(stage.GetSessionLayer().subLayerPaths)
    rates = TickRates(stage, ["/A", "/B", "/C"])
    rates.open()
    assert rates.changed == {"/A": 20.0}
    assert rates.note.endswith("while recording: /A (20 Hz)")
    assert stage.GetPrimAtPath("/A").GetAttribute(TICK_RATE).Get() == 0
    assert stage.GetRootLayer().GetAttributeAtPath(f"/A.{TICK_RATE}").default == 20
    rates.close()
    rates.close()
    assert stage.GetPrimAtPath("/A").GetAttribute(TICK_RATE).Get() == 20
    assert list(stage.GetSessionLayer().subLayerPaths) == before
    unchanged = TickRates(stage, ["/B", "/C"])
    unchanged.open()
    assert (unchanged.changed, unchanged.note) == ({}, "")
    assert list(stage.GetSessionLayer().subLayerPaths) == before
