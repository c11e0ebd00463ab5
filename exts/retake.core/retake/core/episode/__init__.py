# SPDX-License-Identifier: Apache-2.0
"""Episode: one captured run. Records (`records`), bytes (`layout`, docs/episode.md), writer, reader, and its check."""

from retake.core.episode.reader import Episode, open_episode
from retake.core.episode.records import (
    CHANNELS,
    MISSING_GRIPPERS,
    SCHEMA,
    CameraFrame,
    CameraSpec,
    Contact,
    EpisodeHeader,
    Frame,
    Instance,
    ObjectSpec,
    PhysicsSamples,
    RobotState,
    encode_normals,
)
from retake.core.episode.writer import EpisodeWriter

__all__ = [
    "CHANNELS",
    "MISSING_GRIPPERS",
    "SCHEMA",
    "CameraFrame",
    "CameraSpec",
    "Contact",
    "Episode",
    "EpisodeHeader",
    "EpisodeWriter",
    "Frame",
    "Instance",
    "ObjectSpec",
    "PhysicsSamples",
    "RobotState",
    "encode_normals",
    "open_episode",
]
