# SPDX-License-Identifier: Apache-2.0
"""Worlds as takes show them: which cameras of a world are training data, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retake.core.episode import Episode
from retake.core.errors import ExportError
from retake.core.export.found import DOMAINS, FoundTake, Selection, camera_of, obstacle, takes_of, unknown_camera
from retake.core.export.provenance import storable
from retake.core.export.records import Rejected
from retake.core.run_layout import camera_in, world_of
from retake.core.run_reader import RunReader
from retake.core.variants.gated import read_missing


@dataclass
class FoundWorld:
    """The takes of one world, dressed and filmed with one seed by one backend, over one window."""

    takes: dict[str, FoundTake] = field(default_factory=dict)
    """Camera → its take, training data."""
    refused: dict[str, str] = field(default_factory=dict)
    """Camera → why its take is none."""
    names: list[str] = field(default_factory=list)
    """Of all its takes, refused ones too."""
    relatives: list[FoundWorld] = field(default_factory=list)
    """The same world and window by other backends or seeds."""

    def views(self, cameras: Sequence[str], episode: Episode, allow_mixed: bool = False) -> dict[str, FoundTake | None]:
        """Camera → its take; with `allow_mixed` also takes of relatives, and None: the simulation's own pictures."""
        found: dict[str, FoundTake | None] = {c: self.takes[c] for c in cameras if c in self.takes}
        if found and allow_mixed:
            recorded = {spec.name for spec in episode.header.cameras}
            for camera in (c for c in cameras if c not in found):
                other = next((w.takes[camera] for w in self.relatives if camera in w.takes), None)
                if other is not None or camera in recorded:
                    found[camera] = other
        return found

    def lacks(self, camera: str, run: RunReader) -> str:
        """Why there is no such camera."""
        if camera in self.refused:
            return self.refused[camera]
        worlds = {world_of(name) for name in self.names}
        damaged = {d.id: d.reason for d in run.damaged() if d.kind == "take"}
        for world in sorted(worlds):
            if reason := damaged.get(f"{world}/{camera}"):
                return reason
        dressed = {world_of(take.take.variant) for take in self.takes.values()}
        missing = read_missing(run.variants_folder)
        for world in sorted(dressed):
            if reasons := missing.get(f"{world}/{camera}"):
                return "its first frame did not pass the gate: " + "; ".join(reasons)
        return "no take of it was made"

    def rejections(self, run: str, lacking: Mapping[str, str], cameras: Sequence[str]) -> list[Rejected]:
        """The good takes that stay back because cameras are missing, and the cameras of which there is no take."""
        told = "; ".join(f"camera {camera}: {reason}" for camera, reason in lacking.items())
        rows = [
            Rejected(run, take.id, f"its world is incomplete: {told}")
            for camera, take in self.takes.items()
            if camera in cameras
        ]
        world = storable(world_of(self.names[0]))
        never = [c for c in lacking if c not in self.refused]
        return rows + [Rejected(run, f"{world}/{camera}", lacking[camera]) for camera in never if rows]


@dataclass(frozen=True)
class FoundWorlds:
    """All worlds of a run."""

    source: dict[str, Any]
    worlds: tuple[FoundWorld, ...]
    refused: tuple[tuple[FoundTake, str], ...]
    """Takes that are no training data, each with the reason."""
    cameras: tuple[str, ...]
    """That takes show, in the episode's order."""


def worlds_of(run: RunReader, episode: Episode, source: dict[str, Any], selection: Selection) -> FoundWorlds:
    """A run's takes by world. Raises ExportError for two takes of one camera that nothing tells apart."""
    worlds: dict[tuple[Any, ...], FoundWorld] = {}
    kin: dict[tuple[Any, ...], list[FoundWorld]] = {}
    refused: list[tuple[FoundTake, str]] = []
    shown: set[str] = set()
    for found in takes_of(run):
        camera = camera_of(found, episode)
        reason = obstacle(found, len(episode), source, selection) or unknown_camera(found, camera, episode)
        if reason:
            refused.append((found, reason))
            # Its folder says whose place in the world stays empty.
            camera = camera or camera_in(found.take.id)
            if found.take.domain not in DOMAINS or not camera:
                continue
        if selection.cameras and camera not in selection.cameras:
            continue
        shown.add(camera)
        related, own = _key(found)
        if (related, own) not in worlds:
            worlds[related, own] = FoundWorld()
            kin.setdefault(related, []).append(worlds[related, own])
        world = worlds[related, own]
        if reason:
            world.refused[camera] = reason
        elif camera in world.takes:
            raise ExportError(
                f"{run.path.name}: takes {world.takes[camera].id}, {found.id} show the same world, window and camera; "
                "remove one or give other seeds"
            )
        else:
            world.takes[camera] = found
        world.names.append(found.take.id)
    for family in kin.values():
        for world in family:
            world.relatives = [other for other in family if other is not world]
    order = tuple(spec.name for spec in episode.header.cameras if spec.name in shown)
    return FoundWorlds(source, tuple(worlds.values()), tuple(refused), order)


def _key(found: FoundTake) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What takes of one world and window share, whichever camera they show; and what tells its takes from others of it."""
    take, world = found.take, found.world
    name = world.name if world is not None else world_of(take.variant)
    dressed = found.variant.record.seed if found.variant is not None else None
    # A copy in a folder of its own is a take of its own.
    own = "" if camera_in(take.id) else take.id
    return (name, dressed, take.start, take.frames), (take.seed, take.backend, own)
