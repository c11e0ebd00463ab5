# SPDX-License-Identifier: Apache-2.0
"""Where everything of a run lies (docs/run_folder.md). No other module spells a path of a variant, take or verdict.

episode/ check.json skeleton/<camera>/ variants/<variant>/ takes/<take>/ verdicts/<take>/ report.html report/
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIANT_RECORD, VARIANT_FRAME = "variant.json", "frame.png"
TAKE_RECORD, TAKE_VIDEO = "take.json", "take.mp4"
VERDICT_RECORD = "verdict.json"
SKELETON_RECORD, SKELETON_VIDEO, SKELETON_OVERLAY = "skeleton.json", "gripper_scenario.mp4", "overlay.mp4"
RECORD = {"take": TAKE_RECORD, "variant": VARIANT_RECORD}
"""The file that is written last: a folder that has it is whole."""
PIXELS = {"take": TAKE_VIDEO, "variant": VARIANT_FRAME}
PIXELS_SHA256 = {"take": "video_sha256", "variant": "frame_sha256"}
"""Where a record states the hash of its pixels."""


@dataclass(frozen=True)
class RunLayout:
    """Paths of a run; nothing is read."""

    path: Path

    @property
    def check(self) -> Path:
        """Result of the episode check."""
        return self.path / "check.json"

    @property
    def report(self) -> Path:
        """The page a person looks at."""
        return self.path / "report.html"

    @property
    def report_folder(self) -> Path:
        """What the page plays."""
        return self.path / "report"

    @property
    def skeletons_folder(self) -> Path:
        """One Skeleton per camera."""
        return self.path / "skeleton"

    def skeleton(self, camera: str) -> Path:
        """The Skeleton of one camera."""
        return self.skeletons_folder / camera

    def skeleton_cameras(self) -> list[str]:
        """Cameras that have a Skeleton."""
        return [p.name for p in subfolders(self.skeletons_folder) if (p / SKELETON_RECORD).is_file()]

    @property
    def variants_folder(self) -> Path:
        """All Variants, with the gate's tables beside them."""
        return self.path / "variants"

    def variant_folder(self, variant: str) -> Path:
        """One Variant."""
        return self.variants_folder / variant

    def variant_folders(self) -> list[Path]:
        """Folders of all Variants, whole or not, in order of their names."""
        return subfolders(self.variants_folder)

    @property
    def takes_folder(self) -> Path:
        """All Takes."""
        return self.path / "takes"

    def take_folder(self, take: str) -> Path:
        """One Take."""
        return self.takes_folder / take

    def take_folders(self) -> list[Path]:
        """Folders of all Takes, whole or not, in order of their names."""
        return subfolders(self.takes_folder)

    @property
    def verdicts_folder(self) -> Path:
        """All Verdicts, with their summary beside them."""
        return self.path / "verdicts"

    def verdict_folder(self, take: str) -> Path:
        """The Verdict of one Take."""
        return self.verdicts_folder / take


def name_of(folder: Path) -> str:
    """Name of the variant or take that lies in a folder; copies of a record elsewhere have their own."""
    return folder.name


def is_name(text: str) -> bool:
    """Whether a text that a record states can name a folder of the run: it never leads out of it."""
    return text not in (".", "..") and not set(text) & {"/", "\\", "\0"}


def view_suffix(camera: str, first_camera: str, index: int) -> str:
    """What a variant's name has after its world's: nothing for frame 0 of the first camera, so that variants of several
    cameras and windows stand side by side: `kitchen`, `kitchen-wrist`, `kitchen-wrist-f40`."""
    return (f"-{camera}" if camera != first_camera else "") + (f"-f{index}" if index else "")


def variant_id(world: str, view: str) -> str:
    """Name of a world's variant; `view` is a `view_suffix`."""
    return world + view


def take_id(variant: str, backend: str, seed: int | str, start: int = 0) -> str:
    """Name of a take: what differs between two takes of one variant is in it, so neither overwrites the other."""
    return "-".join(
        [variant, *([] if backend == "composite" else [backend]), *([f"f{start}"] if start else []), f"s{seed}"]
    )


def subfolders(path: Path) -> list[Path]:
    """Folders of ours in a folder, sorted, also behind links (to another disk); hidden ones (temporaries) are left out."""
    try:
        with os.scandir(path) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    except OSError:
        return []
    return [path / name for name in sorted(names)]
