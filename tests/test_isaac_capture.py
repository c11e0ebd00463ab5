# SPDX-License-Identifier: Apache-2.0
"""The Isaac Sim adapters against fakes that enforce each version's signatures and imitate its timing.

The law: whatever the renderer's lag, sub-steps, tick rates, pauses and stops, a captured episode holds the states of
the source bit for bit, and image k shows the state of frame k.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from fakes import profiles
from fakes.kit import FakeKit, row_in
from fakes.stage import Motion, make_stage, random_motion, session_is_clean
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from isaac_support import VERSIONS, check_exact, finished, has_contacts, motion, request

from retake.core.episode import Episode
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import Phase

ROOT = Path(__file__).resolve().parents[1]
FULL = os.environ.get("RETAKE_FULL") == "1"
SCHEDULES = int(os.environ.get("RETAKE_SCHEDULES", "500" if FULL else "20"))
LIVE = tuple(
    name for name in profiles.names() if name[0] != "5.0" and os.environ.get("RETAKE_PROFILE") in (None, " ".join(name))
)
"""5.0 cannot tell which state a live frame shows. RETAKE_PROFILE ("6.x full") keeps one of them, for proofs."""
NO_SHRINKING = (Stage.explicit, Stage.reuse, Stage.generate)
"""A schedule takes half a second; shrinking one would take minutes."""


@given(
    seed=st.integers(0, 2**32 - 1),
    profile=st.sampled_from(LIVE),
    substeps=st.integers(1, 3),
    frame_updates=st.integers(1, 4),
    cameras=st.integers(1, 2),
    wrist=st.booleans(),
    units=st.sampled_from(["m", "m-offset", "cm-y-up"]),
    robots=st.integers(1, 2),
    stopped_in_between=st.booleans(),
)
@settings(max_examples=SCHEDULES, phases=NO_SHRINKING)
@pytest.mark.any_application
def test_the_captured_episode_is_the_source(
    seed: int,
    profile: tuple[str, str],
    substeps: int,
    frame_updates: int,
    cameras: int,
    wrist: bool,
    units: str,
    robots: int,
    stopped_in_between: bool,
) -> None:
    """≥ 500 randomised schedules at full count."""
    rng = np.random.default_rng(seed)
    version, application = profile
    kind: dict[str, Any] = {"metres_per_unit": 0.01, "up_axis": "Y"} if units == "cm-y-up" else {}
    if units == "m-offset":
        kind = {"offset": (1.25, -0.5)}  # a lens shift, in the aperture's own unit
    source = motion(robots=robots, cameras=cameras, wrist=wrist, **kind)
    lags = rng.integers(0, 7, 400)
    paths = [f"/World/Camera{i}" for i in range(cameras)] + (["/World/Arm0/hand/Wrist"] if wrist else [])
    ticks = {p: int(rng.choice([n for n in range(1, frame_updates + 1) if frame_updates % n == 0])) for p in paths}
    stride = substeps * frame_updates
    with (
        TemporaryDirectory() as folder,
        FakeKit(
            version,
            source,
            application,
            substeps=substeps,
            ticks=ticks,
            lag=lambda update: int(lags[update % 400]),
            physics_dt_s=1 / 120,
            gpu=version != "4.5" and bool(rng.random() < 0.5),
            contacts="on",
        ) as kit,
    ):
        if stopped_in_between:
            # An earlier run whose frames are still in the renderer when the capture begins.
            kit.update(3)
            first = LiveCapture(request(Path(folder, "first"), fps=120 / stride, cameras=tuple(paths)))
            first.start()
            kit.play()
            kit.update(int(rng.integers(1, 12)) * frame_updates + 9)
            kit.stop()
            kit.update(1)
            first.close()
        capture = LiveCapture(request(Path(folder, "episode"), fps=120 / stride, cameras=tuple(paths)))
        if not stopped_in_between and rng.random() < 0.3:
            kit.play()
            kit.update(int(rng.integers(1, 9)))  # recording begins in a running simulation
        capture.start()
        kit.update(int(rng.integers(0, 4)))
        kit.play()
        for _ in range(4):
            kit.update(int(rng.integers(1, 9)) + frame_updates)
            if rng.random() < 0.3:
                kit.pause()
                kit.update(int(rng.integers(1, 12)))
                kit.play()
        kit.update(10)
        (kit.stop if rng.random() < 0.5 else lambda: capture.stop("done"))()
        episode = finished(capture, kit)
        assert capture.status.phase is Phase.DONE, capture.status
        assert check_exact(episode, source, stride, contacts=has_contacts(kit))
        assert episode.header.physics_dt_s == pytest.approx(1 / 120)
        assert capture.status.dropped == 0
        assert session_is_clean(source.stage)
        assert kit.products == []
        assert kit.writers == []
        assert kit.post_step == {}
        assert kit.changed_settings() == {}


@given(
    seed=st.integers(0, 2**32 - 1),
    profile=st.sampled_from(LIVE),
    drop=st.floats(0, 0.05),
    jitter=st.floats(0, 0.05),
    stale=st.floats(0, 0.05),
    tick=st.integers(1, 3),
    stop_and_play=st.booleans(),
)
@settings(max_examples=max(10, SCHEDULES // 2), phases=NO_SHRINKING)
@pytest.mark.any_application
def test_a_faulty_renderer_is_exact_or_an_error_never_a_wrong_pair(
    seed: int, profile: tuple[str, str], drop: float, jitter: float, stale: float, tick: int, stop_and_play: bool
) -> None:
    """Dropped frames, shifted times, frames delivered twice, tick rates beside the grid, Stop and Play in mid-capture."""
    rng = np.random.default_rng(seed)
    version, application = profile
    source = motion()
    kept: list[Any] = []

    def fault(data: dict[str, Any], frame: Any) -> dict[str, Any] | None:
        kept.append(dict(data))
        if rng.random() < drop:
            return None
        if rng.random() < jitter:
            n, d = data["reference_time"]
            return {**data, "reference_time": (n + int(rng.integers(1, 40)), d)} if version in ("5.1", "6.x") else None
        if rng.random() < stale:
            return kept[int(rng.integers(len(kept)))]
        return data

    with (
        TemporaryDirectory() as folder,
        FakeKit(
            version,
            source,
            application,
            ticks={"/World/Camera0": tick},
            lag=int(rng.integers(0, 5)),
            payload_filter=fault,
        ) as kit,
    ):
        capture = LiveCapture(request(Path(folder, "e"), fps=30))
        capture.start()
        kit.play()
        kit.update(int(rng.integers(5, 40)))
        if stop_and_play:
            kit.stop()
            kit.play()
        kit.update(int(rng.integers(5, 40)))
        capture.stop("done")
        kit.update(12)
        assert capture._finisher is not None
        capture._finisher.join(30)
        if capture.status.phase is Phase.FAILED:
            assert len(capture.status.message) > 40, capture.status
        else:
            assert capture.status.phase is Phase.DONE
        if capture._episode is not None:
            check_exact(capture._episode, source, 2)
        assert kit.post_step == {}
        assert kit.products == []


def test_joints_are_found_in_physics_by_prim_and_not_by_display_name(tmp_path: Path) -> None:
    import asyncio

    from retake.isaac.stepped import drive_stepped

    stage = make_stage()
    for name in ("shoulder", "finger_left"):
        stage.GetPrimAtPath(f"/World/Arm0/joints/{name}").SetDisplayName(f"arm/{name}")
    source = random_motion(stage, 60)
    assert "arm/shoulder" in source.robots[0].spec.dof_names
    with FakeKit("6.x", source, lag=4, physics_dt_s=1 / 60) as kit:
        capture = LiveCapture(request(tmp_path / "e", fps=15, mode="stepped", frames=4))
        capture.start()
        asyncio.run(drive_stepped(capture))
        assert len(finished(capture, kit)) == 4
        check_exact(capture.episode, source, 4)


@pytest.mark.parametrize("version", VERSIONS)
def test_stepped_mode_is_exact_on_every_version(version: str, tmp_path: Path) -> None:
    import asyncio

    from retake.isaac.stepped import drive_stepped

    source = motion(cameras=2)
    with FakeKit(version, source, lag=4, physics_dt_s=1 / 60) as kit:
        paths = ("/World/Camera0", "/World/Camera1")
        capture = LiveCapture(request(tmp_path / "e", fps=15, mode="stepped", frames=6, cameras=paths))
        capture.start()
        asyncio.run(drive_stepped(capture))
        assert len(finished(capture, kit)) == 6
        check_exact(capture.episode, source, 4)


def test_live_mode_is_refused_where_a_frame_cannot_be_tied_to_a_state(tmp_path: Path) -> None:
    """5.0's look-ups answer with the current time: a clock without get_current_time is no clock."""
    source = motion()
    with FakeKit("5.1", source):
        import sys

        name = "isaacsim.core.simulation_manager._simulation_manager"
        interface = sys.modules[name].acquire_simulation_manager_interface()
        del interface._implementation.get_current_time
        from fakes import strict

        known = strict.facts("5.1")
        fact = known.pop(f"{name}.Interface.get_current_time")
        try:
            with pytest.raises(Exception, match="use mode 'stepped'"):
                LiveCapture(request(tmp_path / "e", mode="live")).start()
            capture = LiveCapture(request(tmp_path / "e"))
            capture.start()
            assert capture._clock is not None
            assert capture._clock.name == "held state"
            capture.close()
        finally:
            known[f"{name}.Interface.get_current_time"] = fact


@pytest.mark.parametrize("version", ["5.1", "6.x"] if FULL else ["6.x"])
def test_a_recorded_episode_of_the_embedded_simulator_comes_back(
    version: str, newton_episode: Episode, tmp_path: Path
) -> None:
    """The Panda of the demo stage, as Newton moved it: every number the same, to the float32 that PhysX speaks."""
    from fakes.stage import replayed_motion
    from pxr import Usd

    stage = Usd.Stage.Open(str(ROOT / "data/stages/pick_place/scene.usda"))
    source = replayed_motion(stage, newton_episode, ("/World/Packet",))
    steps = len(newton_episode) - 1
    with FakeKit(version, source, lag=3, substeps=2) as kit:
        capture = LiveCapture(request(tmp_path / "e", fps=15, cameras=("/World/Camera",)))
        capture.start()
        kit.play()
        kit.update(steps // 2)
        capture.stop("done")
        episode = finished(capture, kit)
    rows = [row_in(episode.image("Camera", "rgb", k)) for k in range(len(episode))]
    assert len(rows) > 10
    assert np.all(np.diff(rows) == 4)
    efforts = ("effort",) if kit.profile.application != "newton" else ()  # Newton tells none, and the episode says so
    for channel in ("position", "velocity", *efforts):
        expected = newton_episode.joint("Panda", channel)[rows].astype(np.float32).astype(np.float64)
        assert np.array_equal(episode.joint("Panda", channel), expected), channel
    assert np.abs(episode.link_poses("Panda") - newton_episode.link_poses("Panda")[rows]).max() < 2e-6
    assert np.abs(episode.object_poses[:, 0] - newton_episode.object_poses[rows, 0]).max() < 2e-6


@pytest.fixture(scope="module")
def newton_episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    pytest.importorskip("newton", reason="the embedded simulator is not installed")
    from retake.newton.run import capture

    return capture(tmp_path_factory.mktemp("newton") / "episode", preset="short", render=False)


def run(folder: Path, source: Motion, version: str = "6.x", updates: int = 40, **options: Any) -> LiveCapture:
    """One plain recording at 15 fps."""
    with FakeKit(version, source, **{"lag": 2, **options}) as kit:
        capture = LiveCapture(request(folder, fps=15))
        capture.start()
        kit.play()
        kit.update(updates)
        capture.stop("done")
        kit.update(12)
        assert capture._finisher is not None
        capture._finisher.join(30)
    return capture


class TestPlantedFaults:
    """Each of these has happened to somebody; each must be caught, at run time or by the law above."""

    def test_none(self, tmp_path: Path) -> None:
        source = motion()
        capture = run(tmp_path / "e", source)
        assert check_exact(capture.episode, source, 4)

    @pytest.mark.parametrize("steps", [0.5, 1.0])
    def test_off_by_one_pairing(self, steps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half a step off no state has the time; a whole step off (to the microsecond) only the law can tell."""
        from retake.isaac import clock

        original, shift = clock.FrameTime.frame_key, round(steps * 2_000_000 / 60)
        monkeypatch.setattr(clock.FrameTime, "frame_key", lambda self, n, d: original(self, n + shift, d))
        source = motion()
        capture = run(tmp_path / "e", source)
        if steps == 0.5:
            assert capture.status.phase is Phase.FAILED
            assert "no physics state has the time" in capture.status.message or "nothing" in capture.status.message
        elif capture.status.phase is not Phase.FAILED:
            with pytest.raises(AssertionError, match="position of Arm0"):
                check_exact(capture.episode, source, 4)

    def test_off_by_one_state(self, tmp_path: Path) -> None:
        source = motion()
        capture = run(tmp_path / "e", source, state_filter=lambda row: max(0, row - 1))
        with pytest.raises(AssertionError, match="position of Arm0"):
            check_exact(capture.episode, source, 4)

    def test_transposed_view_matrix(self, tmp_path: Path) -> None:
        def transpose(data: dict[str, Any], frame: Any) -> dict[str, Any]:
            for entries in data["renderProducts"].values():
                matrix = entries["camera_params"]["cameraViewTransform"].reshape(4, 4)
                entries["camera_params"]["cameraViewTransform"] = matrix.T.reshape(16)
            return data

        capture = run(tmp_path / "e", motion(), payload_filter=transpose)
        assert capture.status.phase is Phase.FAILED
        assert "is it transposed?" in capture.status.message

    def test_wxyz_read_as_xyzw(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from retake.isaac import stage_reader

        monkeypatch.setattr(stage_reader, "wxyz_from_xyzw", lambda q: q)
        source = motion()
        capture = run(tmp_path / "e", source)
        with pytest.raises(AssertionError, match="link poses of Arm0"):
            check_exact(capture.episode, source, 4)

    def test_vertical_aperture_used_for_fy(self, tmp_path: Path) -> None:
        def wrong(data: dict[str, Any], frame: Any) -> dict[str, Any]:
            for entries in data["renderProducts"].values():
                params = entries["camera_params"]
                P = params["cameraProjection"].reshape(4, 4).copy()
                P[1, 1] = 2 * params["cameraFocalLength"] / params["cameraAperture"][1]
                params["cameraProjection"] = P.reshape(16)
            return data

        capture = run(tmp_path / "e", motion(), payload_filter=wrong)
        assert capture.status.phase is Phase.FAILED
        assert "square pixels" in capture.status.message

    def test_centimetres_taken_for_metres(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = motion(metres_per_unit=0.01)

        def told(data: dict[str, Any], frame: Any) -> dict[str, Any]:
            for entries in data["renderProducts"].values():
                entries["camera_params"]["metersPerSceneUnit"] = 1.0
            return data

        capture = run(tmp_path / "a", source, payload_filter=told)
        assert capture.status.phase is Phase.FAILED
        assert "m per unit" in capture.status.message
        from retake.isaac import stage_reader

        original = stage_reader.IsaacStageReader.poses

        def unscaled(self: Any, rows: Any) -> Any:
            T = original(self, rows)
            T[..., :3, 3] /= self._units.metres_per_unit
            return T

        monkeypatch.setattr(stage_reader.IsaacStageReader, "poses", unscaled)
        capture = run(tmp_path / "b", source)
        with pytest.raises(AssertionError, match="link poses of Arm0"):
            check_exact(capture.episode, source, 4)

    def test_buffers_kept_instead_of_copied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """5.x hands out one buffer: without copies every frame would hold the last state."""
        from retake.isaac import tensors

        class Kept:
            def __init__(self, array: np.ndarray) -> None:
                self._array = array

            def array(self) -> np.ndarray:
                return self._array

        monkeypatch.setattr(tensors, "snapshot", Kept)
        source = motion()
        capture = run(tmp_path / "e", source, version="5.1")
        with pytest.raises(AssertionError):
            check_exact(capture.episode, source, 4)

    @pytest.mark.parametrize(
        ("module", "name", "wrong", "message"),
        [
            ("rendered_camera", "CV_FROM_USD", np.diag([1.0, 1, 1, 1]), "Camera0"),
            (
                "rendered_camera",
                "column_from_row_matrix",
                lambda m: np.asarray(m).reshape(4, 4),
                "rigid|Camera0|transposed",
            ),
            ("stage_reader", "encode_normals", lambda n: (-np.asarray(n) * 32767).astype(np.int16), "normals of"),
        ],
    )
    def test_a_wrong_convention(
        self, module: str, name: str, wrong: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """OpenGL axes kept, row vectors kept, normals inward: the law names the camera, or the recording refuses."""
        import importlib

        monkeypatch.setattr(importlib.import_module(f"retake.isaac.{module}"), name, wrong)
        source = motion()
        capture = run(tmp_path / "e", source)
        if capture.status.phase is Phase.FAILED:
            assert re.search(message, capture.status.message), capture.status.message
            return
        with pytest.raises(AssertionError, match=message):
            check_exact(capture.episode, source, 4)

    def test_an_aperture_offset_of_the_wrong_sign(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from retake.isaac import rendered_camera

        original = rendered_camera.intrinsics

        def mirrored(params: Any, size: Any, path: str) -> Any:
            K = original(params, size, path)
            K[0, 2] = size[0] - K[0, 2]
            return K

        monkeypatch.setattr(rendered_camera, "intrinsics", mirrored)
        source = motion(offset=(1.25, -0.5))
        capture = run(tmp_path / "e", source)
        with pytest.raises(AssertionError, match="Camera0"):
            check_exact(capture.episode, source, 4)

    def test_a_y_up_stage_taken_for_z_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from retake.isaac import stage_reader

        source = motion(metres_per_unit=0.01, up_axis="Y")
        original = stage_reader.rendered_camera
        monkeypatch.setattr(
            stage_reader,
            "rendered_camera",
            lambda params, size, mpu, R, *more: original(params, size, mpu, np.eye(3), *more),
        )
        capture = run(tmp_path / "e", source)
        with pytest.raises(AssertionError, match="Camera0"):
            check_exact(capture.episode, source, 4)

    def test_a_contact_normal_of_the_wrong_sign(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from dataclasses import replace

        from retake.isaac import stage_reader

        source = motion()
        with FakeKit("6.x", source) as kit:
            if not has_contacts(kit):
                pytest.skip(f"application {kit.profile.application} reports no contacts")
        check_exact(run(tmp_path / "a", source, contacts="on").episode, source, 4, contacts=True)
        original = stage_reader.decode_contact

        def flipped(*arguments: Any) -> Any:
            found = original(*arguments)
            return replace(found, normal=tuple(-v for v in found.normal))

        monkeypatch.setattr(stage_reader, "decode_contact", flipped)
        capture = run(tmp_path / "b", source, contacts="on")
        with pytest.raises(AssertionError):
            check_exact(capture.episode, source, 4, contacts=True)
