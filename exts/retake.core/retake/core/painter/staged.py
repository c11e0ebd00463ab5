# SPDX-License-Identifier: Apache-2.0
"""An episode as a world shows it: objects with the shapes that its recipe gives them. Poses, states and pictures are the
episode's own; ids, depth and normals are those a camera would have recorded. Judges compare takes with this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from retake.core.episode import CameraFrame, Episode
from retake.core.files import sha256_json
from retake.core.painter.restage import Body, bodies_of, looks_of, restaged, restaged_ids
from retake.core.variants.base import MAPS, source_frame
from retake.core.variants.roles import Roles, find_roles


@dataclass(frozen=True, eq=False)
class StagedEpisode(Episode):
    """See the module. Made by `staged`."""

    bodies: Mapping[int, Body] = field(default_factory=dict)
    roles: Roles | None = None
    shapes: str = ""

    @property
    def staging(self) -> str:
        """What the objects are shown as."""
        return self.shapes

    def image(self, camera: str, channel: str, index: int) -> np.ndarray:
        """As the episode's, with the shapes in place of the objects' boxes."""
        original = super().image(camera, channel, index)
        if channel == "rgb" or self.roles is None:
            return original
        if channel == "instances":
            return restaged_ids(
                self.header, self.roles, self.bodies, original, self.camera(camera, index), self.object_poses[index]
            )
        if not set(self.header.camera(camera).channels) >= MAPS:
            return original
        shown = restaged(source_frame(self._original(), camera, index), self.roles, self.bodies)
        return shown.depth_m if channel == "depth" else shown.normals

    def camera_frame(self, camera: str, index: int) -> CameraFrame:
        """All images of one camera at one frame, with the shapes."""
        if self.roles is None or not set(self.header.camera(camera).channels) >= MAPS:
            return super().camera_frame(camera, index)
        shown = restaged(source_frame(self._original(), camera, index), self.roles, self.bodies)
        view = shown.camera
        return CameraFrame(
            view.K, view.T_camera_world, shown.rgb, shown.depth_m, shown.normals, shown.instance_ids, view.lens
        )

    def _original(self) -> Episode:
        return Episode(**{f.name: getattr(self, f.name) for f in fields(Episode)})


def staged(episode: Episode, recipe: Mapping[str, Any] | None) -> Episode:
    """The episode with the shapes of a recipe (that of variant.json); the episode itself where the recipe names none, or
    no camera recorded what it takes to place them."""
    camera = next((spec.name for spec in episode.header.cameras if set(spec.channels) >= MAPS), None)
    if not recipe or not isinstance(recipe.get("subject"), Mapping) or camera is None:
        return episode
    roles = find_roles(source_frame(episode, camera, 0))
    bodies = bodies_of(episode.header, roles.task_object, recipe)
    if not bodies:
        return episode
    looks = looks_of(episode.header, roles.task_object, recipe)
    shapes = sha256_json({str(index): looks[index]["shape"] for index in bodies})[:16]
    own = {f.name: getattr(episode, f.name) for f in fields(Episode)}
    return StagedEpisode(**own, bodies=bodies, roles=roles, shapes=shapes)
