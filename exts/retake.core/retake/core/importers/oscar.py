# SPDX-License-Identifier: Apache-2.0
"""OSCAR's episode layout as an Episode: `rgb.mp4`, `episode_meta.npz`, a URDF (docs/skeleton.md).

An imported episode has motion_source 'recorded'. Its world frame is the robot's base frame. The robot keeps only the
links from base to end effector: what moves beyond them (fingers) was not recorded and is not invented.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64
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
from retake.core.errors import EpisodeError, unknown_name
from retake.core.files import atomic_directory, sha256_file
from retake.core.masks.meshes import read_robot
from retake.core.oscar_episode import CANVAS, CAPTION, META, RGB, OscarMeta, read_oscar_meta
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robot import RobotSpec
from retake.core.urdf import keep_links
from retake.core.video import read_video, video_info

EE_TOLERANCE_M = 5e-3
"""End-effector position of the URDF against `ee_pose`: the public sample agrees to 2e-8 m, another robot does not."""


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
    if (source / CANVAS).is_file():
        raise EpisodeError(
            f"{source} shows several cameras on one picture ({CANVAS}), which is no camera's view; import the samples of "
            "--format oscar, one camera each"
        )
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
        cameras=(CameraSpec(camera, "", info.size, not meta.camera_is_per_frame, ("rgb",), lens=meta.lens),),
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
            view = CameraFrame(K, T_camera_base, np.ascontiguousarray(rgb), lens=meta.lens)
            writer.append(Frame(index / info.fps, (state,), np.zeros((0, 4, 4)), (view,)))
            progress(index + 1, info.frames, "import")
        writer.finish()
    return open_episode(out_dir)


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
    robot = read_robot(urdf, ee_link)
    # A bare tool's axes are a choice, and OSCAR's are those of the link that its episode names.
    if ee_link is None and (len(robot.grippers) != 1 or robot.grippers[0].kind == "tool"):
        names = ", ".join(f"{g.name} ({g.kind})" for g in robot.grippers) or "none"
        raise EpisodeError(f"{urdf}: one end effector with fingers is needed, found: {names}; name its link: ee_link=…")
    chain = robot.chain(robot.grippers[0])
    if base_link is not None:
        base = robot.link_index(base_link)
        if base not in chain:
            raise EpisodeError(
                f"{urdf}: " + unknown_name("base link on the chain", base_link, (robot.links[i].name for i in chain))
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
