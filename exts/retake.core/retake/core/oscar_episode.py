# SPDX-License-Identifier: Apache-2.0
"""OSCAR's episode layout in and out: `rgb.mp4`, `episode_meta.npz`, a URDF (docs/skeleton.md).

An imported episode has motion_source 'recorded'. Its world frame is the robot's base frame. The robot keeps only the
links from base to end effector: what moves beyond them (fingers) was not recorded and is not invented.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    RobotState,
    open_episode,
)
from retake.core.episode.layout import header_to_json
from retake.core.errors import EpisodeError, choose
from retake.core.files import atomic_directory, atomic_path, sha256_file, write_bytes, write_json
from retake.core.geometry import inverse, is_rigid
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robot import RobotSpec
from retake.core.skeleton import Arm, ArmTrack, CameraTrack, RobotOverride, arms_of, load_overrides, stream_skeleton
from retake.core.urdf import keep_links, read_urdf
from retake.core.video import read_video, video_info, write_video

RGB, SCENARIO, META, CAPTION, CAPTION_PICKLE = (
    "rgb.mp4",
    "gripper_scenario.mp4",
    "episode_meta.npz",
    "caption.json",
    "caption.pickle",
)
_KEYS = ("joint_angles", "ee_pose", "gripper_openness", "camera_intrinsic", "camera_extrinsic", "camera_is_per_frame")
EE_TOLERANCE_M = 5e-3
"""End-effector position of the URDF against `ee_pose`: the public sample agrees to 2e-8 m, another robot does not."""


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
    except FileNotFoundError as error:
        raise EpisodeError(
            f"{path} is missing: without it the episode has no robot state, and a skeleton is never guessed from pixels"
        ) from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
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
    return OscarMeta(**{key: array.astype(np.float64) for key, array in arrays.items()}, camera_is_per_frame=bool(flag))


def import_oscar(
    source: Path | str,
    out_dir: Path | str,
    urdf: Path | str | None = None,
    *,
    ee_link: str | None = None,
    base_link: str | None = None,
    camera: str = "camera",
    task: str | None = None,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
) -> Episode:
    """An Episode folder at `out_dir` from a folder with `rgb.mp4`, `episode_meta.npz` and a URDF.

    `urdf` None takes the only *.urdf in the folder. `ee_link` None takes the URDF's only gripper, `base_link` None the
    root. `task` None takes the text of caption.json (caption.pickle is never read: a pickle is executable). The result
    appears whole or not at all; an earlier import of the same files is returned as it is.

    Raises EpisodeError or InputError, each naming the file, what was found and what is expected.
    """
    source, out_dir, progress, cancel = Path(source), Path(out_dir), progress or silent, cancel or never
    if not source.is_dir():
        raise EpisodeError(f"{source} is not a folder; expected one with {RGB}, {META} and a URDF")
    urdf = _find_urdf(source) if urdf is None else Path(urdf)
    meta = read_oscar_meta(source / META)
    robot, dofs = _arm(urdf, ee_link, base_link, meta.joint_angles.shape[1])
    if not (source / RGB).is_file():
        raise EpisodeError(f"{source / RGB} is missing; expected the episode's video")
    info = video_info(source / RGB)
    if info.frames > len(meta):
        raise EpisodeError(
            f"{source / RGB} has {info.frames} frames, {META} describes {len(meta)}: "
            "the video must not be longer than the arrays"
        )
    q = np.zeros((info.frames, len(dofs)))
    q[:, dofs] = meta.joint_angles[: info.frames]
    poses = robot.forward_kinematics(q, np.eye(4))
    ee = poses[:, robot.link_index(robot.grippers[0].ee_link)]
    rotation_gap_deg = _check_ee(meta, ee, urdf, robot)
    header = EpisodeHeader(
        task=_caption(source) if task is None else task,
        fps=info.fps,
        physics_dt_s=1 / info.fps,
        robots=(robot,),
        cameras=(CameraSpec(camera, "", info.size, not meta.camera_is_per_frame, ("rgb",)),),
        simulator="recorded",
        motion_source="recorded",
        joint_channels=(),
        settings={
            "import": {
                "layout": "oscar",
                "sha256": {
                    "rgb": sha256_file(source / RGB),
                    "meta": sha256_file(source / META),
                    "urdf": sha256_file(urdf),
                },
                "ee_pose_rotation_gap_deg": rotation_gap_deg,
            }
        },
    )
    if (existing := _imported_before(out_dir, header)) is not None:
        return existing
    with atomic_directory(out_dir) as temporary, EpisodeWriter(temporary, header) as writer:
        for index, rgb in enumerate(read_video(source / RGB)):
            cancel()
            K, T_camera_base = meta.camera(index)
            state = RobotState(q[index], poses[index], meta.gripper_openness[index : index + 1])
            view = CameraFrame(K, T_camera_base, np.ascontiguousarray(rgb))
            writer.append(Frame(index / info.fps, (state,), np.zeros((0, 4, 4)), (view,)))
            progress(index + 1, info.frames, "import")
        writer.finish()
    return open_episode(out_dir)


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
    overrides: tuple[RobotOverride, ...] | None = None,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
) -> Path:
    """One camera of an episode in OSCAR's layout: two videos, episode_meta.npz, caption.json and caption.pickle.

    `ee_pose` is the drawn end-effector pose, rotation included, in the base frame. The layout describes one arm:
    `robot` chooses where the episode has several. `caption` None is the task text. Frames start … start + length - 1
    are written (None = to the end); `rgb` replaces the episode's pictures, one per written frame at the camera's size.
    Existing files of these names are not overwritten. Raises EpisodeError or SkeletonError.
    """
    out_dir, progress, cancel = Path(out_dir), progress or silent, cancel or never
    overrides = load_overrides() if overrides is None else overrides
    spec = episode.header.camera(camera)
    arm, T_world_base, angles = _one_arm(episode, robot, overrides)
    present = [name for name in (RGB, SCENARIO, META, CAPTION, CAPTION_PICKLE) if (out_dir / name).exists()]
    if present:
        raise EpisodeError(
            f"{out_dir} already holds {', '.join(present)}; nothing is overwritten, choose another folder"
        )
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
    pictures = (episode.image(camera, "rgb", i) for i in range(start, start + frames)) if rgb is None else rgb

    def counted(images: Iterable[UInt8[np.ndarray, "H W 3"]], done: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index, image in enumerate(images):
            cancel()
            yield image
            progress(done + index + 1, 2 * frames, "export")

    strokes = stream_skeleton([track], CameraTrack(K, T_camera_world, spec.size), reuse=True)
    written = write_video(out_dir / RGB, counted(pictures, 0), episode.header.fps)
    if (written.frames, written.size) != (frames, spec.size):
        (out_dir / RGB).unlink()
        raise EpisodeError(f"rgb has {written.frames} frames of {written.size}; expected {frames} of {spec.size}")
    write_video(out_dir / SCENARIO, counted(strokes, frames), episode.header.fps)
    text = episode.header.task if caption is None else caption
    write_json(out_dir / CAPTION, {"caption": text, "camera": spec.name, "motion_source": episode.header.motion_source})
    write_bytes(out_dir / CAPTION_PICKLE, pickle.dumps({"caption": text}, protocol=4))
    # The arrays come last: a folder with episode_meta.npz is a whole one.
    with atomic_path(out_dir / META) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    return out_dir


def _find_urdf(source: Path) -> Path:
    found = sorted(source.glob("*.urdf"))
    if len(found) != 1:
        raise EpisodeError(
            f"{source} holds {len(found)} URDF files ({', '.join(p.name for p in found) or 'none'}); "
            "name the robot's own: urdf=…"
        )
    return found[0]


def _arm(urdf: Path, ee_link: str | None, base_link: str | None, angles: int) -> tuple[RobotSpec, list[int]]:
    """The robot from base to end effector, and the place of each recorded angle in its joint arrays."""
    robot = read_urdf(urdf, ee_link)
    if len(robot.grippers) != 1:
        names = ", ".join(g.name for g in robot.grippers) or "none"
        raise EpisodeError(f"{urdf}: one end effector is needed, grippers found: {names}; name its link: ee_link=…")
    chain = robot.chain(robot.grippers[0])
    if base_link is not None:
        base = robot.link_index(base_link)
        if base not in chain:
            raise EpisodeError(
                f"{urdf}: " + choose("base link on the chain", base_link, (robot.links[i].name for i in chain))
            )
        chain = chain[: chain.index(base) + 1]
    arm = keep_links(robot, [robot.links[i].name for i in chain], root=base_link)
    order = [arm.dof_index(joint.name) for dof, joint in arm.joints_in_order if dof >= 0]
    if len(order) != angles:
        raise EpisodeError(
            f"{META}: joint_angles has {angles} joints, the chain of {urdf.name} has {len(order)} "
            f"({', '.join(arm.dof_names[i] for i in order)}); name another ee_link or base_link"
        )
    return arm, order


def _check_ee(meta: OscarMeta, ee: Float64[np.ndarray, "T 4 4"], urdf: Path, robot: RobotSpec) -> list[float]:
    """Whether URDF and arrays describe one robot, by position; returns (least, largest) rotation gap in degrees."""
    stated = meta.ee_pose[: len(ee)]
    gap = float(np.linalg.norm(stated[:, :3, 3] - ee[:, :3, 3], axis=-1).max())
    if gap > EE_TOLERANCE_M:
        raise EpisodeError(
            f"{META}: ee_pose is up to {gap:.3f} m away from link {robot.grippers[0].ee_link!r} of {urdf.name}; "
            f"expected at most {EE_TOLERANCE_M} m: is it this episode's own URDF, end effector and base?"
        )
    cosine = (np.einsum("tij,tij->t", stated[:, :3, :3], ee[:, :3, :3]) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return [round(float(angle.min()), 3), round(float(angle.max()), 3)]


def _caption(source: Path) -> str:
    path = source / CAPTION
    if not path.exists():
        return ""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EpisodeError(f"{path} is not readable JSON: {error}") from error
    text = data.get("caption") if isinstance(data, dict) else data
    if not isinstance(text, str):
        raise EpisodeError(f'{path}: expected {{"caption": "…"}}; found {data!r}')
    return text


def _imported_before(out_dir: Path, header: EpisodeHeader) -> Episode | None:
    """The episode already at `out_dir` when it came from the same files. Raises EpisodeError when it did not."""
    if not out_dir.exists():
        return None
    if out_dir.is_dir() and not any(out_dir.iterdir()):
        out_dir.rmdir()
        return None
    episode = open_episode(out_dir)
    if header_to_json(episode.header) != header_to_json(header):
        raise EpisodeError(f"{out_dir} holds another episode; nothing is overwritten, choose another folder")
    return episode


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
