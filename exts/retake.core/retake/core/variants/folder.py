# SPDX-License-Identifier: Apache-2.0
"""Backend `folder`: the user's own first frames (photographs, another tool's pictures), checked like any other.

The frame of world `<name>` is `<folder>/<name>.png` (or .jpg, .jpeg, .webp).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import VariantError
from retake.core.files import sha256_file
from retake.core.progress import CheckCancel, never
from retake.core.variants.base import SourceFrame, World
from retake.core.variants.lock import lock_robot
from retake.core.variants.make import read_frame

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class FolderBackend:
    """Frames from a folder. `lock` carries the simulated robot over; without it frames are taken as they are."""

    name = "folder"
    version = "1"
    model = ""

    def __init__(self, folder: Path | str = "", licence: str = "", lock: bool = False) -> None:
        self.folder, self.licence, self.lock = Path(folder), licence, lock
        if not folder or not self.folder.is_dir():
            raise VariantError(
                f"the 'folder' backend needs a folder of pictures, found {str(folder)!r}; put <world>.png files there, "
                "or use the 'procedural' backend, which needs nothing"
            )

    @property
    def needs_maps(self) -> bool:
        """Only to carry the simulated robot over."""
        return self.lock

    @property
    def revision(self) -> str:
        """Names and hashes of the folder's pictures: a changed picture is a changed input."""
        files = sorted(p for p in self.folder.iterdir() if p.suffix.lower() in SUFFIXES)
        return " ".join(f"{p.name}:{sha256_file(p)[:12]}" for p in files)

    @property
    def settings(self) -> dict[str, bool]:
        """What else decides the pixels."""
        return {"lock": self.lock}

    def render(
        self, source: SourceFrame, world: World, seed: int, check_cancel: CheckCancel = never
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of that world. Raises VariantError when there is none, or when its size differs."""
        check_cancel()
        path = next((p for s in SUFFIXES if (p := self.folder / f"{world.name}{s}").is_file()), None)
        if path is None:
            have = sorted(p.stem for p in self.folder.iterdir() if p.suffix.lower() in SUFFIXES)
            raise VariantError(
                f"{self.folder} has no picture of world {world.name!r}; it has: {', '.join(have) or 'none'}"
            )
        frame = read_frame(path)
        if frame.shape != source.rgb.shape:
            raise VariantError(
                f"{path} is {frame.shape[1]}x{frame.shape[0]}; camera {source.camera_name!r} is "
                f"{source.rgb.shape[1]}x{source.rgb.shape[0]}: crop or resize it yourself, a stretch would move the robot"
            )
        return lock_robot(frame, source).frame if self.lock else frame
