# SPDX-License-Identifier: Apache-2.0
"""Windows as the network sees them, encoded once and kept on disk under the hash of everything they depend on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from retake.core.errors import InputError
from retake.core.files import atomic_path, sha256_json
from retake.core.progress import CheckCancel, Progress, never, silent

from ..oscar import vae as vae_stage
from ..oscar.fit import plan_fit
from ..oscar.object_control import drawn_on
from .clips import Clip
from .config import ObjectSupervision
from .objects import object_cells, object_video, read_truth
from .sampling import Choice

VERSION = "1"
OBJECTS = {"none": "none", "drawn": "drawn/2", "embed": "embed"}
"""Object control -> how its videos are made: others have other latents."""
FITTED = {"crop": "crop/2", "letterbox": "letterbox/2"}
"""Fit -> how the windows and their objects are brought to the model's size, where it is not as it once was."""


@dataclass(frozen=True)
class Encoded:
    """One window. x0, control, objects: float32 (1, C, T, h, w); valid (1, T); cells, falling (1, T, h, w), 0 to 1.

    `objects` is None without an object embedding; `cells` is None for a clip without physics.
    """

    x0: Tensor
    control: Tensor
    valid: Tensor
    cells: Tensor | None = None
    falling: Tensor | None = None
    objects: Tensor | None = None


class LatentCache:
    """Encodes windows with a VAE at a size and keeps them in `folder`.

    `vae_id` names the VAE's weights (its revision): other weights, sizes or object controls never meet in one file.
    """

    def __init__(
        self, vae: Any, vae_id: str, folder: Path, size: tuple[int, int] = (640, 480), fit: str = "squeeze",
        objects: ObjectSupervision | None = None,
    ) -> None:  # fmt: skip
        self.vae, self.vae_id, self.folder = vae, vae_id, folder
        self.size, self.fit, self.supervision = size, fit, objects or ObjectSupervision()

    def path(self, choice: Choice) -> Path:
        """Where a window's latents lie, or will."""
        w = choice.window
        key = [VERSION, choice.clip.uid, w.start, w.stop, w.length, list(self.size), FITTED.get(self.fit, self.fit), self.vae_id,
               OBJECTS[self.supervision.control]]  # fmt: skip
        return self.folder / f"{sha256_json(key)}.safetensors"

    def read(self, choice: Choice) -> Encoded:
        """A window's latents, encoded now where they are not kept yet (or the file is damaged)."""
        found = self._load(choice)
        if found is None:
            self.prepare([choice])
            found = self._load(choice)
        if found is None:
            raise InputError(f"{self.path(choice)} cannot be read back; is the disk full?")
        return found

    def _load(self, choice: Choice) -> Encoded | None:
        try:
            found = Encoded(**load_file(self.path(choice)))
        except (OSError, SafetensorError, TypeError):
            return None
        # kept by a run that did not look at objects: encoding it again says what is missing, as it does the first time
        return None if self.supervision.weight and found.cells is None else found

    def prepare(
        self, choices: Iterable[Choice], progress: Progress | None = None, cancel: CheckCancel | None = None
    ) -> int:
        """Encode what is missing, every clip decoded once for all its windows; how many windows were encoded."""
        progress, cancel = progress or silent, cancel or never
        missing: dict[str, list[Choice]] = defaultdict(list)
        for choice in {self.path(c): c for c in choices}.values():
            if self._load(choice) is None:
                missing[choice.clip.uid].append(choice)
        total, done = sum(map(len, missing.values())), 0
        for group in missing.values():
            clip = group[0].clip
            rgb, skeleton = self._video(clip, clip.rgb, "the video"), self._video(clip, clip.skeleton, "the skeleton")
            truth = self._truth(clip)
            drawn = self._object_control_video(clip, truth, skeleton) if self._draws(clip) else None
            for choice in group:
                cancel()
                self._store(choice, rgb, skeleton, truth, drawn)
                done += 1
                progress(done, total, "encode")
        return done

    def _video(self, clip: Clip, read: Callable[[], Any], what: str) -> np.ndarray:
        frames: list[np.ndarray] = []
        record = None
        for frame in read():
            if record is None:
                record = plan_fit((frame.shape[1], frame.shape[0]), self.size, self.fit, what)
            frames.append(record.apply(frame[None])[0])
            if len(frames) == clip.frames:
                break
        if len(frames) < clip.frames:
            raise InputError(
                f"{what} of {clip.caption!r} ({clip.camera}) ends after {len(frames)} of {clip.frames} frames"
            )
        return np.stack(frames)

    def _draws(self, clip: Clip) -> bool:
        """Whether a clip's objects are to be drawn here: its export may have done so."""
        return self.supervision.control != "none" and not clip.objects_drawn

    def _truth(self, clip: Clip) -> Any:
        arrays = clip.physics()
        wanted = bool(self.supervision.weight) or self._draws(clip)
        if arrays is None:
            if wanted:
                raise InputError(
                    f"object supervision is on, but {clip.caption!r} ({clip.domain}) has no physics; leave the clip out or "
                    "set the object weight to 0 and the object control to none"
                )
            return None
        if not wanted and ("object_masks" not in arrays or not np.any(arrays["object_movable"])):
            return None
        size = (int(arrays["mask_width"]), int(arrays["object_masks"].shape[2])) if "object_masks" in arrays else (0, 0)
        return read_truth(arrays, clip.frames, size)

    def _object_control_video(self, clip: Clip, truth: Any, skeleton: np.ndarray) -> np.ndarray:
        """The object control video at the model's size."""
        width, height = truth.masks.shape[3], truth.masks.shape[2]
        record = plan_fit((width, height), self.size, self.fit, "the object video")
        if self.supervision.control == "embed":
            return record.apply(object_video(truth, None))
        glyphs = record.apply(object_video(truth, None))
        return drawn_on(skeleton, glyphs)

    def _store(
        self, choice: Choice, rgb: np.ndarray, skeleton: np.ndarray, truth: Any, drawn: np.ndarray | None
    ) -> None:
        window = choice.window
        control = drawn if self.supervision.control == "drawn" and drawn is not None else skeleton
        tensors = {
            "x0": vae_stage.encode(self.vae, window.take(rgb)),
            "control": vae_stage.encode(self.vae, window.take(control)),
            "valid": valid_frames(window),
        }
        for name in ("x0", "control"):
            if not bool(torch.isfinite(tensors[name]).all()):
                raise InputError(
                    f"the VAE made NaN or infinite latents of {choice.clip.caption!r}, frames {window.start} on"
                )
        if truth is not None:
            part = slice(window.start, window.stop)
            cells, falling = object_cells(truth, part, window.length, self.size, self.fit)
            tensors |= {"cells": torch.from_numpy(cells)[None], "falling": torch.from_numpy(falling)[None]}
        if self.supervision.control == "embed" and drawn is not None:
            tensors["objects"] = vae_stage.encode(self.vae, window.take(drawn))
        with atomic_path(self.path(choice)) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary)


def valid_frames(window: Any) -> Tensor:
    """(1, T): 1 for latent frames that hold at least one real frame, 0 for those of freeze-padding alone."""
    real = window.stop - window.start
    count = vae_stage.latent_frames(window.length)
    first = torch.tensor([0, *range(1, vae_stage.TIME_STRIDE * (count - 1) + 1, vae_stage.TIME_STRIDE)])
    return (first < real).float()[None]


def collate(parts: Sequence[Encoded]) -> Encoded:
    """Windows of one size as a batch. Raises InputError for mixed sizes, or where only some have objects."""
    shapes = sorted({tuple(p.x0.shape[1:]) for p in parts})
    if len(shapes) > 1:
        raise InputError(f"windows of different sizes cannot share a batch: {shapes}")

    def join(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if all(value is None for value in values):
            return None
        if any(value is None for value in values):
            if name in ("cells", "falling"):  # a clip without objects has none anywhere
                like = next(value for value in values if value is not None)
                values = [torch.zeros_like(like) if value is None else value for value in values]
            else:
                raise InputError(f"some windows of the batch have {name} and some have not; train them apart")
        return torch.cat(values)

    return Encoded(*(join(name) for name in ("x0", "control", "valid", "cells", "falling", "objects")))
