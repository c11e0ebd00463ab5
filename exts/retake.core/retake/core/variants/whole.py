# SPDX-License-Identifier: Apache-2.0
"""One world as all cameras see it: attempt by attempt, with one seed for all of them, until every frame passes the gate.

A frame belongs to its world only with the seed of the world's other frames, so a camera whose frame fails takes the
others with it to the next attempt. Where no attempt passes as a whole, the attempt that most cameras passed stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from retake.core.progress import CheckCancel, never
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD
from retake.core.variants.attempts import Attempt, Attempts
from retake.core.variants.base import Variant, World
from retake.core.variants.carry import CarryingBackend, CompletingBackend, anchor_of
from retake.core.variants.make import read_frame

Folders = Mapping[str, Path]
"""Camera → the folder of the world's variant."""


@dataclass(frozen=True)
class WorldTried:
    """What became of one world."""

    variants: dict[str, Variant]
    """Camera → its variant, all of one seed; some or all cameras are missing where no attempt passed as a whole."""
    failed: tuple[Attempt, ...] = ()
    whole: bool = True
    """Whether every camera passed."""

    def reasons(self, camera: str) -> tuple[str, ...]:
        """Why a camera is missing: what its last frame failed for, or that another camera's failed."""
        for attempt in reversed(self.failed):
            if camera in attempt.cameras or not attempt.cameras:
                return attempt.reasons if len(attempt.cameras) < 2 else _of(camera, attempt.reasons)
        others = ", ".join(dict.fromkeys(c for attempt in self.failed for c in attempt.cameras))
        return (f"the world's frame of camera {others} failed, and one seed makes all of them",)


class WorldAttempts:
    """The attempts at worlds of one moment, as several cameras see it. `of`: camera → its attempts, the first one first."""

    def __init__(self, of: Mapping[str, Attempts]) -> None:
        self.of = dict(of)
        self.first = next(iter(self.of))
        backend = self.of[self.first].backend
        self.anchor = ""
        """The camera whose painted frame the others are carried from; empty where each is painted by itself."""
        if len(self.of) > 1 and isinstance(backend, CompletingBackend):
            self.anchor = list(self.of)[anchor_of([attempts.source for attempts in self.of.values()])]
        every = [attempts.rules for attempts in self.of.values()]
        self.rules = next((rules for rules in every if rules.gate), every[0])
        self.catalogue = self.of[self.first].catalogue

    @property
    def pixels(self) -> int:
        """Of all cameras' frames."""
        return sum(int(attempts.source.instance_ids.size) for attempts in self.of.values())

    def inputs(self, world: World) -> list[str]:
        """What the pixels of the first attempt follow from, camera by camera."""
        return [attempts.inputs(world, 0) for attempts in self.of.values()]

    def done(self, world: World, folders: Folders) -> WorldTried | None:
        """The result that lies in the folders, if it is what `run` would give."""
        found = {camera: self._for(camera, folders).done(world, folders[camera]) for camera in self.of}
        tried = [t for t in found.values() if t is not None]
        if len(tried) < len(found) or any(t.failed != tried[0].failed for t in tried):
            return None
        return WorldTried({c: t.variant for c, t in found.items() if t and t.variant}, tried[0].failed)

    def run(
        self, world: World, folders: Folders, failed: tuple[Attempt, ...] = (), check_cancel: CheckCancel = never
    ) -> WorldTried:
        """Attempts from the first that is not in `failed`. Raises VariantError as `make_variant`."""
        order = sorted(self.of, key=lambda camera: camera != self.anchor)
        for number in range(len(failed), self.rules.rerolls + 1):
            made: dict[str, Variant] = {}
            lost: dict[str, Attempt] = {}
            for camera in order:
                if self.anchor in lost:
                    break  # nothing to carry from
                result = self._for(camera, folders).attempt(world, folders[camera], number, failed, check_cancel)
                if isinstance(result, Variant):
                    made[camera] = result
                    continue
                lost[camera] = result
                if number:  # the first attempt shows what each camera can; the others are for whole worlds
                    break
            if not lost:
                return WorldTried({camera: made[camera] for camera in self.of}, failed)
            failed = (*failed, self._joined(lost))
            # The camera that failed goes first, so that another failure leaves the frames of the others alone.
            order.sort(key=lambda camera: (camera != self.anchor, camera not in lost))
        return self._partial(world, folders, failed)

    def kept(self, world: World, folders: Folders, failed: tuple[Attempt, ...]) -> WorldTried:
        """A world of which every attempt is known to fail, with what still lies there of it."""
        return self._partial(world, folders, failed)

    def drop(self, folders: Folders, but: Mapping[str, Variant]) -> None:
        """Remove what lies in the folders of cameras without a variant."""
        for camera, folder in folders.items():
            if camera not in but and (folder / VARIANT_RECORD).exists():
                shutil.rmtree(folder)
                if not any(folder.parent.iterdir()):
                    folder.parent.rmdir()

    def _for(self, camera: str, folders: Folders) -> Attempts:
        """The attempts of a camera: by itself, or carried from the anchor's frame that lies in its folder."""
        own = self.of[camera]
        frame = folders[self.anchor] / VARIANT_FRAME if self.anchor and camera != self.anchor else None
        if frame is None or not frame.is_file():
            return own
        return own.by(CarryingBackend(own.backend, self.of[self.anchor].source, read_frame(frame)))

    def _joined(self, lost: Mapping[str, Attempt]) -> Attempt:
        one = next(iter(lost.values()))
        if len(self.of) == 1:
            return one
        reasons = tuple(f"{camera}: {reason}" for camera, attempt in lost.items() for reason in attempt.reasons)
        return replace(one, reasons=reasons, cameras=tuple(lost))

    def _partial(self, world: World, folders: Folders, failed: tuple[Attempt, ...]) -> WorldTried:
        """The frames on disk that belong to one attempt: that of most cameras, the earliest of equal ones."""
        best: dict[str, Variant] = {}
        for number, attempt in enumerate(failed[: self.rules.rerolls + 1]):
            lost = attempt.cameras or tuple(self.of)
            found = {
                camera: kept
                for camera in self.of
                if camera not in lost
                and (kept := self._for(camera, folders).lies(world, folders[camera], number)) is not None
            }
            if self.anchor and self.anchor not in found:
                continue
            if len(found) > len(best):
                best = found
        return WorldTried(best, failed, whole=False)


def _of(camera: str, reasons: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(reason for reason in reasons if reason.startswith(f"{camera}: ")) or reasons
