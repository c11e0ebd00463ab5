# SPDX-License-Identifier: Apache-2.0
"""An episode as a world shows it: objects with the shapes that its recipe gives them. Poses, states and pictures are the
episode's own; ids, depth and normals are those a camera would have recorded. Judges compare takes with this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from retake.core.episode import CameraFrame, Episode
from retake.core.files import sha256_json
from retake.core.painter.restage import Body, Placement, bodies_of, looks_of, placed
from retake.core.variants.base import MAPS, source_frame
from retake.core.variants.roles import Roles, find_roles

MOST_PLACEMENTS = 256
"""Frames whose placements are kept; with one more it begins anew."""


@dataclass(frozen=True, eq=False)
class StagedEpisode(Episode):
    """See the module. Made by `staged`."""

    bodies: Mapping[int, Body] = field(default_factory=dict)
    roles: Roles | None = None
    shapes: str = ""
    placements: dict[tuple[str, int], Placement | None] = field(default_factory=dict, init=False, repr=False)
    """Of frames that were asked for: a judge asks for their ids first and for some of their depths later."""

    @property
    def staging(self) -> str:
        """What the objects are shown as."""
        return self.shapes

    def image(self, camera: str, channel: str, index: int) -> np.ndarray:
        """As the episode's, with the shapes in place of the objects' boxes; the picture is the episode's own."""
        own = super().image(camera, channel, index)
        if channel == "rgb" or not (channel == "instances" or self._has_maps(camera)):
            return own
        at = self._placed(camera, index, own if channel == "instances" else None)
        if at is None:
            return own
        if channel == "depth":
            return at.depth(own, lambda: super(StagedEpisode, self).image(camera, "normals", index))
        return at.normals(own) if channel == "normals" else at.carried(own)

    def camera_frame(self, camera: str, index: int) -> CameraFrame:
        """All images of one camera at one frame, with the shapes, in the picture as well."""
        own = self._original().camera_frame(camera, index)
        if not self._has_maps(camera) or (at := self._placed(camera, index, own.instance_ids)) is None:
            return own
        depth, normals, ids = own.depth_m, own.normals, own.instance_ids
        assert depth is not None
        assert normals is not None
        assert ids is not None
        return replace(
            own, rgb=at.carried(own.rgb), depth_m=at.depth(depth, lambda: normals), normals=at.normals(normals),
            instance_ids=at.carried(ids),
        )  # fmt: skip

    def _has_maps(self, camera: str) -> bool:
        return set(self.header.camera(camera).channels) >= MAPS

    def _placed(self, camera: str, index: int, ids: np.ndarray | None) -> Placement | None:
        """Where that frame shows the shapes, from its recorded ids (read where they are not given)."""
        key = (camera, range(len(self))[index])
        if key not in self.placements:
            if len(self.placements) >= MOST_PLACEMENTS:
                self.placements.clear()
            own = super().image(camera, "instances", index) if ids is None else ids
            self.placements[key] = (
                None
                if self.roles is None
                else placed(
                    self.header, self.roles, self.bodies, own, self.camera(camera, index), self.object_poses[index]
                )
            )
        return self.placements[key]

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
