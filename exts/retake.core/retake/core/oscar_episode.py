# SPDX-License-Identifier: Apache-2.0
"""OSCAR's episode layout: what its files hold, and how an Episode is written as one (docs/skeleton.md)."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.episode import (
    Episode,
)
from retake.core.errors import EpisodeError
from retake.core.files import atomic_path, write_bytes, write_json
from retake.core.geometry import inverse, is_rigid
from retake.core.lens import Lens, lens_of
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.skeleton import Arm, ArmTrack, CameraTrack, RobotOverride, arms_of, load_overrides, stream_skeleton
from retake.core.video import write_video

RGB, SCENARIO, META, CAPTION, CAPTION_PICKLE = (
    "rgb.mp4",
    "gripper_scenario.mp4",
    "episode_meta.npz",
    "caption.json",
    "caption.pickle",
)
CANVAS = "canvas.json"
"""Beside them where several cameras share one picture: which is where (export.canvas)."""
LENS_MODEL, DISTORTION = "camera_lens_model", "camera_distortion"
OverControl = Callable[[Iterable[UInt8[np.ndarray, "H W 3"]]], Iterator[UInt8[np.ndarray, "H W 3"]]]
"""Draws something over the frames of a control video (`skeleton.objects.draw_control`)."""
_KEYS = ("joint_angles", "ee_pose", "gripper_openness", "camera_intrinsic", "camera_extrinsic", "camera_is_per_frame")


@dataclass(frozen=True)
class OscarMeta:
    """The arrays of `episode_meta.npz`, checked; T frames, A arm joints, base frame, m, rad, OpenCV axes."""

    joint_angles: Float64[np.ndarray, "T A"]
    """Base to tip."""
    ee_pose: Float64[np.ndarray, "T 4 4"]
    """T_base_ee as stated by the file. Only its position is trusted: in public data the rotation disagrees with the
    link's by up to 118 degrees, so nothing is drawn from it."""
    gripper_openness: Float64[np.ndarray, "T"]
    camera_intrinsic: Float64[np.ndarray, "3 3"] | Float64[np.ndarray, "T 3 3"]
    camera_extrinsic: Float64[np.ndarray, "4 4"] | Float64[np.ndarray, "T 4 4"]
    """T_camera_base."""
    camera_is_per_frame: bool
    lens: Lens | None = None
    """Distortion of the pictures (an addition of Retake's: `camera_lens_model`, `camera_distortion`); None = a pinhole."""

    def __len__(self) -> int:
        return len(self.joint_angles)

    def camera(self, index: int) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]]:
        """(K, T_camera_base) at one frame."""
        K, E = self.camera_intrinsic, self.camera_extrinsic
        return (K[index] if K.ndim == 3 else K), (E[index] if E.ndim == 3 else E)


def read_oscar_meta(path: Path | str) -> OscarMeta:
    """Read `episode_meta.npz` (pickles refused). Raises EpisodeError naming file, key, what was found and expected."""
    path = Path(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            missing = [key for key in _KEYS if key not in data.files]
            if missing:
                raise EpisodeError(f"{path} lacks {', '.join(missing)}; expected the arrays {', '.join(_KEYS)}")
            arrays = {key: data[key] for key in _KEYS}
            lens = None
            if LENS_MODEL in data.files:
                lens = lens_of(str(data[LENS_MODEL]), np.asarray(data[DISTORTION], np.float64).ravel().tolist())
    except FileNotFoundError as error:
        raise EpisodeError(
            f"{path} is missing: without it the episode has no robot state, and a skeleton is never guessed from pixels"
        ) from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, KeyError, zipfile.BadZipFile) as error:
        raise EpisodeError(f"{path} is no readable npz of plain arrays: {error}") from error

    def refuse(key: str, expected: str) -> EpisodeError:
        return EpisodeError(f"{path}: {key} is {arrays[key].dtype} {arrays[key].shape}; expected {expected}")

    flag = arrays.pop("camera_is_per_frame")
    if flag.shape != () or flag.dtype.kind not in "bui":
        arrays["camera_is_per_frame"] = flag
        raise refuse("camera_is_per_frame", "one bool")
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise refuse(key, "real numbers")
        if not np.isfinite(array).all():
            first = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise EpisodeError(f"{path}: {key}{first} is {array[tuple(first)]}; every number must be finite")
    angles = arrays["joint_angles"]
    if angles.ndim != 2 or 0 in angles.shape:
        raise refuse("joint_angles", "(T, joints) with at least one frame and one joint")
    frames = len(angles)
    shapes = {"ee_pose": [(frames, 4, 4)], "gripper_openness": [(frames,)]}
    shapes["camera_intrinsic"] = [(3, 3)] + [(frames, 3, 3)] * bool(flag)
    shapes["camera_extrinsic"] = [(frames, 4, 4)] if flag else [(4, 4)]
    for key, valid in shapes.items():
        if arrays[key].shape not in valid:
            raise refuse(key, f"{' or '.join(map(str, valid))} (T = {frames}, camera_is_per_frame = {bool(flag)})")
    if not is_rigid(arrays["camera_extrinsic"]):
        raise EpisodeError(f"{path}: camera_extrinsic is no rigid transform base → camera (column vectors, metres)")
    return OscarMeta(
        **{key: array.astype(np.float64) for key, array in arrays.items()}, camera_is_per_frame=bool(flag), lens=lens
    )


@dataclass(frozen=True, eq=False)
class OscarView:
    """One camera over a window of an episode, as OSCAR's layout holds it."""

    arrays: dict[str, np.ndarray]
    """Of episode_meta.npz."""
    skeleton: Iterator[UInt8[np.ndarray, "H W 3"]]
    """RGB at the camera's size, one per frame; each is valid until the next one is asked for."""
    length: int


def oscar_view(
    episode: Episode,
    camera: str,
    *,
    robot: str | None = None,
    start: int = 0,
    length: int | None = None,
    overrides: tuple[RobotOverride, ...] | None = None,
) -> OscarView:
    """What OSCAR's layout says of one arm seen by one camera in frames start … start + length - 1 (None = to the end).

    `ee_pose` is the drawn end-effector pose, rotation included, in the base frame. The layout describes one arm: `robot`
    chooses where the episode has several. Raises EpisodeError or SkeletonError.
    """
    overrides = load_overrides() if overrides is None else overrides
    spec = episode.header.camera(camera)
    arm, T_world_base, angles = _one_arm(episode, robot, overrides)
    frames = len(episode) - start if length is None else length
    if start < 0 or frames < 1 or start + frames > len(episode):
        raise EpisodeError(f"frames {start}…{start + frames - 1} were asked; {episode.path} has 0…{len(episode) - 1}")
    window = slice(start, start + frames)
    K, T_camera_world = (matrix[window] for matrix in episode.camera_matrices(camera))
    T_world_base = T_world_base[window]
    E = T_camera_world @ T_world_base
    track = ArmTrack(arm.track.link_positions[window], arm.track.ee_pose[window], arm.track.gripper_openness[window])
    static = bool(np.ptp(K, axis=0).max() < 1e-9 and np.ptp(E, axis=0).max() < 1e-9)
    arrays = {
        "joint_angles": angles[window],
        "ee_pose": inverse(T_world_base) @ track.ee_pose,
        "gripper_openness": track.gripper_openness,
        "camera_intrinsic": K[0] if static else K,
        "camera_extrinsic": E[0] if static else E,
        "camera_is_per_frame": np.array(not static),
    }
    if spec.lens is not None:
        arrays |= {LENS_MODEL: np.array(spec.lens.model), DISTORTION: np.array(spec.lens.coefficients)}
    strokes = stream_skeleton([track], CameraTrack(K, T_camera_world, spec.size, spec.lens), reuse=True)
    return OscarView(arrays, strokes, frames)


def write_oscar(
    out_dir: Path,
    arrays: dict[str, np.ndarray],
    rgb: Iterable[UInt8[np.ndarray, "H W 3"]],
    skeleton: Iterable[UInt8[np.ndarray, "H W 3"]],
    *,
    size: tuple[int, int],
    length: int,
    fps: float,
    caption: str,
    said: Mapping[str, object],
) -> None:
    """A folder of OSCAR's layout: two videos of `length` frames of (width, height), caption and arrays.

    `said` goes into caption.json beside the text. Raises EpisodeError where there are more or fewer pictures, or others.
    """
    written = write_video(out_dir / RGB, rgb, fps)
    if (written.frames, written.size) != (length, size):
        (out_dir / RGB).unlink()
        raise EpisodeError(f"rgb has {written.frames} frames of {written.size}; expected {length} of {size}")
    write_video(out_dir / SCENARIO, skeleton, fps)
    write_json(out_dir / CAPTION, {"caption": caption, **said})
    write_bytes(out_dir / CAPTION_PICKLE, pickle.dumps({"caption": caption}, protocol=4))
    # The arrays come last: a folder with episode_meta.npz is a whole one.
    write_oscar_meta(out_dir / META, arrays)


def write_oscar_meta(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The arrays of a view as episode_meta.npz."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def export_oscar(
    episode: Episode,
    camera: str,
    out_dir: Path | str,
    *,
    robot: str | None = None,
    caption: str | None = None,
    start: int = 0,
    length: int | None = None,
    rgb: Iterable[UInt8[np.ndarray, "H W 3"]] | None = None,
    over: OverControl | None = None,
    overrides: tuple[RobotOverride, ...] | None = None,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
) -> Path:
    """One camera of an episode in OSCAR's layout: two videos, episode_meta.npz, caption.json and caption.pickle.

    Arm and frames are those of `oscar_view`. `caption` None is the task text. `rgb` replaces the episode's pictures, one per
    written frame at the camera's size; `over` draws over the skeleton. Existing files of these names are not overwritten. Raises
    EpisodeError or SkeletonError.
    """
    out_dir, progress, cancel = Path(out_dir), progress or silent, cancel or never
    spec = episode.header.camera(camera)
    present = [name for name in (RGB, SCENARIO, META, CAPTION, CAPTION_PICKLE) if (out_dir / name).exists()]
    if present:
        raise EpisodeError(
            f"{out_dir} already holds {', '.join(present)}; nothing is overwritten, choose another folder"
        )
    view = oscar_view(episode, camera, robot=robot, start=start, length=length, overrides=overrides)
    control = view.skeleton if over is None else over(view.skeleton)
    pictures = (episode.image(camera, "rgb", i) for i in range(start, start + view.length)) if rgb is None else rgb

    def counted(images: Iterable[UInt8[np.ndarray, "H W 3"]], done: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index, image in enumerate(images):
            cancel()
            yield image
            progress(done + index + 1, 2 * view.length, "export")

    write_oscar(
        out_dir, view.arrays, counted(pictures, 0), counted(control, view.length), size=spec.size, length=view.length,
        fps=episode.header.fps, caption=episode.header.task if caption is None else caption,
        said={"camera": spec.name, "motion_source": episode.header.motion_source},
    )  # fmt: skip
    return out_dir


def _one_arm(
    episode: Episode, robot: str | None, overrides: tuple[RobotOverride, ...]
) -> tuple[Arm, Float64[np.ndarray, "T 4 4"], Float64[np.ndarray, "T A"]]:
    """The arm to export, its base's world poses, and its joint angles base to tip."""
    arms = [arm for arm in arms_of(episode, overrides) if robot is None or arm.robot == robot]
    if len(arms) != 1:
        names = ", ".join(f"{arm.robot}/{arm.gripper}" for arm in arms) or "none"
        raise EpisodeError(
            f"{episode.path}: OSCAR's layout describes one arm, found {names}; name one of the robots "
            f"{', '.join(r.name for r in episode.header.robots)}"
        )
    arm = arms[0]
    spec = next(r for r in episode.header.robots if r.name == arm.robot)
    chain = {spec.link_index(name) for name in arm.chain}
    on_chain = [dof for dof, j in spec.joints_in_order if dof >= 0 and j.child_link in chain and j.parent_link in chain]
    base = episode.link_poses(spec.name)[:, spec.link_index(arm.chain[-1])]
    return arm, base, episode.joint(spec.name, "position")[:, on_chain]
