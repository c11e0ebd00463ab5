# SPDX-License-Identifier: Apache-2.0
"""Skeleton: an episode's motion as the control video OSCAR was trained on (docs/skeleton.md)."""

from retake.core.skeleton.convention import CONVENTION
from retake.core.skeleton.draw import render_into, render_skeleton, stream_overlay, stream_skeleton
from retake.core.skeleton.inputs import ArmTrack, CameraTrack
from retake.core.skeleton.make import make_skeleton, skeleton_frames
from retake.core.skeleton.overrides import RobotOverride, apply_overrides, load_overrides
from retake.core.skeleton.record import Skeleton, open_skeleton
from retake.core.skeleton.squeeze import MODEL_SIZE, Squeeze
from retake.core.skeleton.topology import Arm, arms_of, camera_track

__all__ = [
    "CONVENTION",
    "MODEL_SIZE",
    "Arm",
    "ArmTrack",
    "CameraTrack",
    "RobotOverride",
    "Skeleton",
    "Squeeze",
    "apply_overrides",
    "arms_of",
    "camera_track",
    "load_overrides",
    "make_skeleton",
    "open_skeleton",
    "render_into",
    "render_skeleton",
    "skeleton_frames",
    "stream_overlay",
    "stream_skeleton",
]
