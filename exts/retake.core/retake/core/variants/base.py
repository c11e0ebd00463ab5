# SPDX-License-Identifier: Apache-2.0
"""The contract of a first-frame backend: one simulated frame with its exact maps in, one re-dressed frame out.

`SourceFrame` → `ImageBackend.render(source, world, seed)` → uint8 RGB of the same size, same geometry, same robot pose.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from retake.core.array_types import Bool, Float32, Int16, UInt8, UInt16
from retake.core.camera import Camera
from retake.core.episode import Episode, EpisodeHeader
from retake.core.episode.mounts import FIXED, Mount, mount_of
from retake.core.errors import VariantError
from retake.core.progress import CheckCancel, never
from retake.core.variants.scene import MAPS, Scene, scene_of

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Rec. 709 luminance of linear RGB."""
PAINTER = "procedural"
"""The backend that paints from recipes: its variants' objects have the shapes that a recipe states."""


@dataclass(frozen=True)
class SourceFrame:
    """One frame of the episode as a backend sees it: the rendered image and the simulator's exact maps."""

    header: EpisodeHeader
    camera_name: str
    index: int
    camera: Camera
    rgb: UInt8[np.ndarray, "H W 3"]
    depth_m: Float32[np.ndarray, "H W"]
    """Forward depth, m; 0 where nothing was hit."""
    normals: Int16[np.ndarray, "H W 3"]
    """World-frame unit normals × 32767."""
    instance_ids: UInt16[np.ndarray, "H W"]
    T_world_object: np.ndarray
    """Object poses (O, 4, 4), order of `header.objects`."""
    T_world_link: tuple[np.ndarray, ...] = ()
    """Link poses (L, 4, 4) per robot, order of `header.robots`; empty where unknown (shadows then lack hidden parts)."""
    mount: Mount = FIXED
    """What carries the camera: what prompts say of it."""
    episode: tuple[Path, str] | None = None
    """Folder and content hash of the episode; None for a frame by itself, which then is all that is known of its scene."""

    @property
    def scene(self) -> Scene | None:
        """What all cameras see at this moment; None for a frame by itself."""
        return None if self.episode is None else scene_of(*self.episode, self.index)

    def mask(self, owner: str) -> Bool[np.ndarray, "H W"]:
        """Pixels of an owner: `robot:<name>`, `object:<name>`, or a prefix: `robot:` is every robot, `object:` all."""
        ids = [
            i.id
            for i in self.header.instances
            if i.owner == owner or (owner.endswith(":") and i.owner.startswith(owner))
        ]
        return np.isin(self.instance_ids, ids)

    @property
    def has_maps(self) -> bool:
        """Whether the camera recorded depth, normals and instance ids; without them nothing can be measured."""
        return set(self.header.camera(self.camera_name).channels) >= MAPS

    @property
    def robot_mask(self) -> Bool[np.ndarray, "H W"]:
        """Pixels of any robot."""
        return self.mask("robot:")


def source_frame(episode: Episode, camera: str, index: int, *, maps: bool = True) -> SourceFrame:
    """Frame `index` as a SourceFrame; with `maps=False` a camera of pictures alone has empty maps (zeros).

    Raises VariantError when the camera lacks maps that are needed.
    """
    spec = episode.header.camera(camera)
    missing = MAPS - set(spec.channels)
    if missing and maps:
        raise VariantError(
            f"camera {camera!r} of {episode.path} recorded no {', '.join(sorted(missing))}; structure-locked variants and "
            "composite takes need rgb, depth, normals and instances. A recording of pictures alone gets its first frames "
            "from the 'folder' backend (variants.gate=false) and its takes from the video model ('oscar')"
        )
    view = episode.camera_frame(camera, index)
    if missing:
        h, w = view.rgb.shape[:2]
        nothing = {
            "depth_m": np.zeros((h, w), np.float32),
            "normals": np.zeros((h, w, 3), np.int16),
            "instance_ids": np.zeros((h, w), np.uint16),
        }
        view = replace(view, **{name: empty for name, empty in nothing.items() if getattr(view, name) is None})
    assert view.depth_m is not None
    assert view.normals is not None
    assert view.instance_ids is not None
    return SourceFrame(
        episode.header, camera, index, view.camera, view.rgb, view.depth_m, view.normals, view.instance_ids,
        episode.object_poses[index], tuple(episode.link_poses(r.name)[index] for r in episode.header.robots),
        mount_of(episode, camera), (episode.path, episode.content_sha256),
    )  # fmt: skip


def source_for(backend: object, episode: Episode, camera: str, index: int) -> SourceFrame:
    """The frame as a backend needs it: one that says `needs_maps = False` also takes recordings of pictures alone."""
    return source_frame(episode, camera, index, maps=getattr(backend, "needs_maps", True))


def require_seed(seed: int) -> None:
    """Raises VariantError for a seed that no generator of random numbers takes."""
    if seed < 0:
        raise VariantError(f"the seed of worlds is {seed}; expected a whole number, 0 or more")


@dataclass(frozen=True)
class World:
    """One visual world: what the scene is made of and lit by. Axis values are names from config/worlds/*.yaml."""

    name: str
    environment: str
    surface: str
    subject: str
    """What the task object is shown as: "bun", "bag of chips", …"""
    lighting: str
    look: str = "neutral"
    """Camera look (white balance, contrast, vignette, grain)."""
    background: str = ""
    clutter: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    """The scene in the user's own words, instead of environment, surface and subject (empty then): for models that read."""

    def identity(self) -> dict[str, Any]:
        """What enters hashes: everything that is set (a world without words hashes as it did before there were any)."""
        return {k: v for k, v in asdict(self).items() if k != "prompt" or v}


@dataclass(frozen=True)
class Variant:
    """One accepted first frame on disk: variants/<id>/{frame.png, variant.json}."""

    id: str
    world: World
    seed: int
    prompt: str
    """Task and world, for the video model."""
    negative_prompt: str
    frame_sha256: str
    """Of frame.png's bytes."""
    backend: str
    backend_version: str
    licence: str
    source: dict[str, Any]
    """episode_sha256, camera, frame index."""
    model: str = ""
    revision: str = ""


@runtime_checkable
class ImageBackend(Protocol):
    """A maker of first frames. Deterministic: same source, world and seed, same pixels."""

    name: str
    version: str
    licence: str

    def render(
        self, source: SourceFrame, world: World, seed: int, check_cancel: CheckCancel = never
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The re-dressed frame. Raises VariantError; raises Cancelled when asked to stop."""
        ...
