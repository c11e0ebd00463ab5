# SPDX-License-Identifier: Apache-2.0
"""Calibrated lenses: OpenCV's numbers over the whole picture; episode, skeleton, first frames and verdicts through them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scenes import look_at, make_scene_episode

from retake.core.camera import Camera
from retake.core.episode import Episode, open_episode
from retake.core.episode.layout import header_from_json, header_to_json
from retake.core.episode.records import LENS_SCHEMA, SCHEMA
from retake.core.episode.straight import straighten, straightened
from retake.core.errors import EpisodeError, InputError
from retake.core.export.physics import physics_arrays
from retake.core.importers.lerobot import load_calibration
from retake.core.lens import Lens, LensModel, lens_of
from retake.core.masks.raster import paint
from retake.core.oscar_episode import export_oscar, read_oscar_meta
from retake.core.painter.dresser import Dresser
from retake.core.skeleton import arms_of, camera_track, render_skeleton, stream_skeleton
from retake.core.skeleton.objects import ObjectTrack, glyph_points
from retake.core.variants.base import source_frame
from retake.core.verdicts.geometry import fundamental, predicted, sampson
from retake.core.verdicts.truth import read_truth

SIZE = (640, 480)
CALIBRATIONS: dict[str, Lens] = {
    # The example of isaacsim.sensors.camera, a webcam's barrel, pincushion with prism, fisheyes.
    "rational": Lens("opencv-pinhole", (0.14, -0.03, -0.0002, -0.00003, 0.009, 0.5, -0.07, 0.017)),
    "barrel": Lens("opencv-pinhole", (-0.3, 0.1, 0.001, -0.002, -0.01)),
    "prism": Lens("opencv-pinhole", (0.1, 0.05, 0.01, -0.01, 0, 0, 0, 0, 0.01, -0.005, 0.002, 0.001)),
    "fisheye": Lens("opencv-fisheye", (0.05, -0.01, 0.0, 0.0)),
    "equidistant": Lens("opencv-fisheye", ()),
    "wide": Lens("opencv-fisheye", (-0.02, -0.01, 0.003, -0.0006)),
}
ONE_SIDED = Lens(
    "opencv-pinhole", (-0.171, 0.107, -0.01, -0.007, -0.024, 0.222, -0.036, -0.001, -0.008, 0.001, -0.008, -0.004)
)
"""Folds in one corner of the picture before its radial curve does: 14 px beside OpenCV there if taken as covered."""
lenses = pytest.mark.parametrize("lens", CALIBRATIONS.values(), ids=CALIBRATIONS)


def camera(lens: Lens | None, size: tuple[int, int] = SIZE, focal: float = 400.0) -> Camera:
    K = np.array([[focal, 0, size[0] / 2 - 3.2], [0, 1.01 * focal, size[1] / 2 + 2.1], [0, 0, 1.0]])
    return Camera(K, look_at((1.5, -0.9, 0.95), (0.42, 0.04, 0.1)), size, lens)


def by_opencv(lens: Lens, K: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of camera points (N, 3), by OpenCV itself."""
    project = cv2.projectPoints if lens.model == "opencv-pinhole" else cv2.fisheye.projectPoints
    shaped = points if lens.model == "opencv-pinhole" else points[None]
    return project(shaped, np.zeros(3), np.zeros(3), K, np.array(lens.coefficients))[0].reshape(-1, 2)


def bending(model: LensModel) -> st.SearchStrategy[Lens]:
    """Lenses as calibrations find them: radial terms strong, the others small."""
    if model == "opencv-fisheye":
        return st.tuples(*(st.floats(-s, s) for s in (0.1, 0.03, 0.01, 0.003))).map(lambda c: Lens(model, c))
    spread = (0.4, 0.2, 0.01, 0.01, 0.05, 0.3, 0.1, 0.02, 0.01, 0.005, 0.01, 0.005)
    return st.tuples(*(st.floats(-s, s) for s in spread)).map(lambda c: Lens(model, c))


class TestNumbers:
    """Against OpenCV, and laws of its inverse."""

    @lenses
    def test_the_whole_picture_is_opencv_s_to_a_thousandth_of_a_pixel(self, lens: Lens) -> None:
        view = camera(lens)
        assert view.covered().all()
        points = np.concatenate([view.rays(), np.ones((*SIZE[::-1], 1))], -1).reshape(-1, 3)
        found = by_opencv(lens, view.K, points)
        assert np.abs(found - view.pixel_grid().reshape(-1, 2)).max() < 1e-3

    @example(ONE_SIDED, 0)
    @given(st.sampled_from(["opencv-pinhole", "opencv-fisheye"]).flatmap(bending), st.integers(0, 2**32 - 1))
    def test_any_lens_is_opencv_s_up_to_its_fold_and_rises_beyond(self, lens: Lens, seed: int) -> None:
        view, rng = camera(lens, (160, 120), 90.0), np.random.default_rng(seed)
        covered = view.covered()
        rays = view.rays()
        points = np.concatenate([rays, np.ones((120, 160, 1))], -1)[covered]
        miss = np.abs(by_opencv(lens, view.K, points) - view.pixel_grid()[covered]).max(-1, initial=0.0)
        radial = not any(lens.coefficients[2:4] + lens.coefficients[8:]) or lens.model == "opencv-fisheye"
        assert miss.max(initial=0.0) < 1e-3, "where a lens has folded on one side first, nothing is covered"
        assert covered[60, 80], "every lens shows what lies before it"
        direction = rng.normal(size=2)
        line = direction / np.linalg.norm(direction) * np.geomspace(1e-3, 1e5, 400)[:, None]
        if radial:
            seen = np.linalg.norm(lens.distort(line), axis=-1)
            assert (np.diff(seen) > 0).all(), "what lies further out is shown further out"

    @lenses
    def test_distorting_and_back_is_nothing(self, lens: Lens) -> None:
        xy = np.random.default_rng(1).uniform(-0.9, 0.9, (500, 2))
        assert np.abs(lens.undistort(lens.distort(xy)) - xy).max() < 1e-8
        assert np.abs(lens.distort(lens.undistort(xy)) - xy).max() < 1e-8
        assert np.array_equal(lens.distort(np.zeros((1, 2))), np.zeros((1, 2)))

    def test_a_point_beyond_the_fold_leaves_the_picture_instead_of_coming_back(self) -> None:
        lens = Lens("opencv-pinhole", (-0.4,))
        view = camera(lens, focal=600.0)
        beside = np.array([[3.0, 0.1, 1.0]])
        assert by_opencv(lens, view.K, beside)[0, 0] < view.K[0, 2], "OpenCV shows it on the other side"
        u = view.K[0, 0] * lens.distort(beside[:, :2])[0, 0] + view.K[0, 2]
        assert u > SIZE[0]

    def test_unproject_is_the_inverse_of_project(self) -> None:
        for lens in CALIBRATIONS.values():
            view = camera(lens)
            uv = np.random.default_rng(2).uniform(0, 1, (200, 2)) * SIZE
            z = np.random.default_rng(3).uniform(0.1, 5, 200)
            found, depth = view.project(view.unproject(uv, z))
            assert np.abs(found - uv).max() < 1e-5
            assert np.allclose(depth, z)

    def test_a_resized_and_cropped_picture_keeps_its_lens(self) -> None:
        view = camera(CALIBRATIONS["barrel"])
        point = np.array([[0.5, 0.1, 0.2]])
        uv, _ = view.project(point)
        half, _ = view.resized((320, 120)).project(point)
        assert np.allclose(half, uv * [0.5, 0.25])
        cut, _ = view.cropped(100, 50, (200, 200)).project(point)
        assert np.allclose(cut, uv - [100, 50])

    @pytest.mark.parametrize(
        ("model", "coefficients", "text"),
        [
            ("ftheta", (1.0,), "lens model 'ftheta'"),
            ("opencv-fisheye", (0.1,) * 5, "4 coefficients"),
            ("opencv-pinhole", (0.0,) * 12 + (0.1, 0.0), "tilted sensor"),
            ("opencv-pinhole", (float("nan"),), "finite"),
        ],
    )
    def test_what_is_not_supported_is_refused_by_name(self, model: Any, coefficients: Any, text: str) -> None:
        with pytest.raises(InputError, match=text):
            Lens(model, coefficients)

    def test_a_pinhole_without_coefficients_is_no_lens_and_a_fisheye_without_them_is_one(self) -> None:
        assert lens_of("opencv-pinhole", [0.0] * 5) is None
        assert lens_of("opencv-fisheye", [0.0] * 4) is not None


@pytest.fixture(scope="module", params=["barrel", "fisheye"])
def bent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """The analytic scene through a lens; a wrist camera that moves."""
    folder = tmp_path_factory.mktemp("lens")
    return make_scene_episode(
        folder / "e", frames=6, size=(160, 120), wrist=True, shadows=False, lens=CALIBRATIONS[request.param]
    )


class TestEpisode:
    """Records and bytes."""

    def test_the_lens_is_read_back_and_readers_without_lenses_refuse(self, bent: Episode) -> None:
        again = open_episode(bent.path)
        lens = bent.header.cameras[0].lens
        assert lens is not None
        assert again.header.cameras == bent.header.cameras
        assert again.camera("front", 0).lens == again.camera_frame("front", 0).lens == again.frame(0).cameras[0].lens
        assert json.loads((bent.path / "episode.json").read_text())["schema"] == LENS_SCHEMA != SCHEMA

    def test_an_episode_of_pinholes_has_the_bytes_it_had(self, tmp_path: Path) -> None:
        episode = make_scene_episode(tmp_path / "e", frames=1, size=(16, 12), only=range(1))
        data = header_to_json(episode.header)
        assert data["schema"] == SCHEMA
        assert "lens" not in data["cameras"][0]

    def test_a_frame_of_another_lens_and_a_damaged_lens_are_refused(self, bent: Episode, tmp_path: Path) -> None:
        from retake.core.episode import EpisodeWriter

        frame = bent.frame(0)
        wrong = replace(frame, cameras=tuple(replace(view, lens=None) for view in frame.cameras))
        with EpisodeWriter(tmp_path / "e", bent.header) as writer, pytest.raises(EpisodeError, match="lens"):
            writer.append(wrong)
        data = header_to_json(bent.header)
        data["cameras"][0]["lens"] = {"model": "opencv-fisheye"}
        with pytest.raises(EpisodeError, match="a lens is"):
            header_from_json(data, tmp_path)

    def test_masks_and_depth_are_the_picture_s(self, bent: Episode) -> None:
        """The link poses, drawn through the lens, lie on the pixels that show them; without the lens they do not."""
        found = {lens: self.misfit(bent, lens) for lens in (True, False)}
        assert found[True] < 0.02
        assert found[False] > 2 * found[True]

    @staticmethod
    def misfit(episode: Episode, with_lens: bool) -> float:
        """Median difference of a surface point's depth and where unprojecting says it is, m: over the packet's pixels."""
        view, ids = episode.camera_frame("front", 0), episode.image("front", "instances", 0)
        packet = next(i.id for i in episode.header.instances if i.owner == "object:packet")
        rows, columns = np.nonzero(ids == packet)
        model = view.camera if with_lens else replace(view.camera, lens=None)
        assert view.depth_m is not None
        points = model.unproject(np.stack([columns + 0.5, rows + 0.5], -1), view.depth_m[rows, columns].astype(float))
        T = episode.object_poses[0, 0]
        local = (points - T[:3, 3]) @ T[:3, :3]
        half = np.array(episode.header.objects[0].size_m) / 2
        return float(np.median(np.abs(np.abs(local) - half).min(-1)) + np.maximum(np.abs(local) - half, 0).max())

    def test_a_picture_is_undistorted_on_request_and_says_so(self, bent: Episode) -> None:
        view = bent.camera_frame("front", 2)
        flat = straighten(view)
        specs, changed = straightened(bent.header.cameras)
        assert all(spec.lens is None for spec in specs)
        assert changed == {name: view.lens.to_json() for name in ("front", "wrist") if view.lens is not None}
        assert flat.lens is None
        assert (flat.depth_m is None, flat.rgb.shape) == (False, view.rgb.shape)
        # What a pinhole of the same K and pose sees of the same scene, up to the half pixel of the nearest map value.
        truth = make_scene_episode(
            bent.path.with_name(f"flat{bent.path.name}"), frames=6, size=(160, 120), shadows=False
        )
        ids = truth.image("front", "instances", 2)
        known = flat.depth_m > 0
        agree = flat.instance_ids[known] == ids[known]
        assert agree.mean() > 0.97
        import shutil

        shutil.rmtree(truth.path)


class TestSkeleton:
    """Points are bent, lines are not; without a lens it is OSCAR's to the pixel."""

    def test_a_lens_so_weak_that_no_point_moves_a_pixel_draws_the_public_renderer_s_pixels(self, bent: Episode) -> None:
        arm, track = arms_of(bent)[0].track, camera_track(bent, "front")
        arguments = (
            arm.link_positions,
            arm.ee_pose,
            arm.gripper_openness,
            track.camera_intrinsic,
            track.camera_extrinsic,
        )
        plain = render_skeleton(*arguments, track.size)
        assert np.array_equal(plain, render_skeleton(*arguments, track.size, None))
        assert np.array_equal(plain, render_skeleton(*arguments, track.size, Lens("opencv-pinhole", (1e-12,))))
        assert not np.array_equal(plain, render_skeleton(*arguments, track.size, track.lens))

    def test_joints_lie_where_opencv_puts_them(self, bent: Episode) -> None:
        track, arm = camera_track(bent, "front"), arms_of(bent)[0]
        lens = track.lens
        assert lens is not None
        for t, canvas in enumerate(stream_skeleton([arm.track], track)):
            view = bent.camera("front", t)
            inside = arm.track.link_positions[t] @ view.T_camera_world[:3, :3].T + view.T_camera_world[:3, 3]
            for u, v in np.rint(by_opencv(lens, view.K, inside)).astype(int):
                if 2 <= u < 158 and 2 <= v < 118:
                    assert canvas[v, u].any(), f"nothing is drawn at joint ({u}, {v})"

    def test_points_beside_and_behind_the_camera_draw_nothing_strange(self) -> None:
        for lens in CALIBRATIONS.values():
            points = np.array([[[0.0, 0, 1], [50.0, 0, 0.01], [0, -3.0, -2], [1e5, 1e5, 1e-6]]])
            drawn = render_skeleton(points, np.eye(4)[None], np.ones(1), camera(lens).K, np.eye(4), SIZE, lens)
            assert drawn.shape == (1, 480, 640, 3)


class TestArrow:
    """First frames, verdict geometry, masks, exports."""

    def test_drawn_meshes_and_object_glyphs_lie_where_the_lens_shows_them(self, bent: Episode) -> None:
        view = bent.camera("front", 0)
        assert view.lens is not None
        half = np.array(bent.header.objects[0].size_m) / 2
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
        faces = np.array([[a, b, c] for a in range(8) for b in range(a) for c in range(b)])
        box = SimpleNamespace(vertices=corners, faces=faces)
        T = bent.object_poses[0, 0]
        arguments = ([box], T[None], [7], view.K, view.T_camera_world, view.size)
        packet = next(i.id for i in bent.header.instances if i.owner == "object:packet")
        seen = bent.image("front", "instances", 0) == packet
        ids, depth = paint(*arguments, view.lens)  # type: ignore[arg-type]
        plain, _ = paint(*arguments)  # type: ignore[arg-type]
        both = seen & (ids == 7)
        assert both.sum() / (seen | (ids == 7)).sum() > 0.75
        assert both.sum() / (seen | (ids == 7)).sum() >= (seen & (plain == 7)).sum() / (seen | (plain == 7)).sum()
        far = np.eye(4)
        far[:3, 3] = (
            np.linalg.inv(view.T_camera_world)[:3, :3] @ [0.5, 0.3, 1.2] + np.linalg.inv(view.T_camera_world)[:3, 3]
        )
        shown, _ = view.project(far[None, :3, 3])
        off = []
        for lens in (view.lens, None):
            image = paint([box], far[None], [7], view.K, view.T_camera_world, view.size, lens)[0]  # type: ignore[list-item]
            off.append(float(np.linalg.norm(np.argwhere(image == 7).mean(0)[::-1] + 0.5 - shown[0])))
        assert off[0] < 1.5 < off[1], "near the rim the lens moves a mesh by pixels"
        assert np.abs(depth[both] - bent.image("front", "depth", 0)[both]).max() < 0.2
        track = ObjectTrack(T[None], np.array(bent.header.objects[0].size_m), np.zeros(3))
        glyph = glyph_points(track, view.K[None], view.T_camera_world[None], view.lens)[0, :8]
        expected, _ = view.project(corners @ T[:3, :3].T + T[:3, 3])
        order = np.lexsort(expected.T), np.lexsort(glyph.T)
        assert np.abs(expected[order[0]] - glyph[order[1]]).max() < 1e-6

    def test_what_lies_beside_the_camera_is_bent_to_nowhere(self) -> None:
        for lens in CALIBRATIONS.values():
            uv = np.array([[np.inf, 1.0], [np.nan, np.nan], [1e12, 3.0], [100.0, 80.0]])
            found = lens.bend(camera(lens).K, uv)
            assert not np.isfinite(found[:2]).all(-1).any()
            assert found[2, 0] > 1e9
            assert np.isfinite(found[3]).all()

    def test_first_frames_see_the_lens_s_rays(self, bent: Episode) -> None:
        source = source_frame(bent, "front", 0)
        dresser = Dresser.__new__(Dresser)
        dresser.size, dresser._rays = source.camera.size, None
        directions, eye = Dresser._view(dresser, source)
        where = source.depth_m > 0
        points = (directions[:, where] * source.depth_m[where]).T + eye
        expected = source.camera.unproject(source.camera.pixel_grid(), source.depth_m.astype(np.float64))[where]
        assert np.abs(points - expected).max() < 1e-4

    def test_the_scenery_of_a_moving_camera_moves_as_the_lens_says(self, bent: Episode) -> None:
        truth = read_truth(bent, "wrist", 0, 6)
        depth = bent.image("wrist", "depth", 0)
        scenery = np.argwhere((truth.labels[0] == 0) & (depth > 0))[::37]
        a = scenery[:, ::-1].astype(np.float64)
        world = bent.camera("wrist", 0).unproject(a + 0.5, depth[scenery[:, 0], scenery[:, 1]].astype(np.float64))
        b, z = bent.camera("wrist", 5).project(world)
        ahead = z > 0.05
        assert ahead.sum() > 20
        found = predicted(truth, depth, a, 0, 5)
        assert np.nanmax(np.abs(found - (b - 0.5))[ahead]) < 1e-3
        F = fundamental(truth, 0, 5, 0.0)
        assert F is not None
        bending_px = sampson(a[ahead], b[ahead] - 0.5, F)
        straight_px = sampson(truth.ideal(0, a[ahead]), truth.ideal(5, b[ahead] - 0.5), F)
        assert np.median(straight_px) < 1e-4 < np.median(bending_px)

    def test_exports_carry_k_and_coefficients(self, bent: Episode, tmp_path: Path) -> None:
        lens = bent.header.cameras[0].lens
        assert lens is not None
        arrays = physics_arrays(bent, "front", 0, 3)
        assert str(arrays["camera_lens_model"]) == lens.model
        assert tuple(arrays["camera_distortion"]) == lens.coefficients
        export_oscar(bent, "front", tmp_path / "o")
        meta = read_oscar_meta(tmp_path / "o/episode_meta.npz")
        assert meta.lens == lens
        assert np.allclose(meta.camera(0)[0], bent.camera_matrices("front")[0][0])

    def test_calibrations_of_imports_may_have_a_lens(self, tmp_path: Path) -> None:
        lens = CALIBRATIONS["rational"]
        file = tmp_path / "cameras.json"
        entry: dict[str, Any] = {"K": np.eye(3).tolist(), "T_camera_world": np.eye(4).tolist(), "lens": lens.to_json()}
        file.write_text(json.dumps({"front": entry}))
        assert load_calibration(file)["front"].lens == lens
        entry["lens"] = {"model": "kannala"}
        file.write_text(json.dumps({"front": entry}))
        with pytest.raises(InputError, match="a lens is"):
            load_calibration(file)
