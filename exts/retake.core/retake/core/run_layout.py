# SPDX-License-Identifier: Apache-2.0
"""Where everything of a run lies (docs/run_folder.md). No other module spells a path of a variant, take or verdict.

episode/ check.json skeleton/<camera>/ report.html report/
variants/<world>/<camera>/ takes/<world>-s<seed>/<camera>/ verdicts/<world>-s<seed>/<camera>/

A variant is a world as one camera sees it, a take its film; the cameras of one world stand beside each other. Their
names are `<world>/<camera>`, on every system.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIANT_RECORD, VARIANT_FRAME = "variant.json", "frame.png"
TAKE_RECORD, TAKE_VIDEO = "take.json", "take.mp4"
VERDICT_RECORD, VIEWS_RECORD = "verdict.json", "views.json"
SKELETON_RECORD, SKELETON_VIDEO, SKELETON_OVERLAY = "skeleton.json", "gripper_scenario.mp4", "overlay.mp4"
RECORD = {"take": TAKE_RECORD, "variant": VARIANT_RECORD}
"""The file that is written last: a folder that has it is whole."""
STAGES = ("variants", "takes", "verdicts")
"""Folders of a run that hold one folder per world, and in it one per camera."""
PIXELS = {"take": TAKE_VIDEO, "variant": VARIANT_FRAME}
PIXELS_SHA256 = {"take": "video_sha256", "variant": "frame_sha256"}
"""Where a record states the hash of its pixels."""


@dataclass(frozen=True)
class RunLayout:
    """Paths of a run; nothing is read."""

    path: Path

    @property
    def captured_episode(self) -> Path:
        """Where a capture into this run writes its Episode (`RunReader.episode`: the one the run is about)."""
        return self.path / "episode"

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
        return self.path / STAGES[0]

    def variant_folder(self, variant: str) -> Path:
        """One Variant, by its name `<world>/<camera>`."""
        return self.variants_folder / variant

    def variant_folders(self) -> list[Path]:
        """Folders of all Variants, whole or not, in order of their names."""
        return _views(self.variants_folder, VARIANT_RECORD)

    @property
    def takes_folder(self) -> Path:
        """All Takes."""
        return self.path / STAGES[1]

    def take_folder(self, take: str) -> Path:
        """One Take, by its name `<world>-s<seed>/<camera>`."""
        return self.takes_folder / take

    def take_folders(self) -> list[Path]:
        """Folders of all Takes, whole or not, in order of their names."""
        return _views(self.takes_folder, TAKE_RECORD)

    @property
    def verdicts_folder(self) -> Path:
        """All Verdicts, with their summary beside them."""
        return self.path / STAGES[2]

    def verdict_folder(self, take: str) -> Path:
        """The Verdict of one Take."""
        return self.verdicts_folder / take

    def views_record(self, take: str) -> Path:
        """What is said of the cameras of a take's world together, beside their verdicts."""
        return self.verdicts_folder / world_of(take) / VIEWS_RECORD


def name_of(folder: Path) -> str:
    """Name of the variant or take that lies in a folder, `<world>/<camera>`; copies of a record elsewhere have their own."""
    above = folder.parent.name
    return folder.name if above in ("", *STAGES) else f"{above}/{folder.name}"


def world_of(name: str) -> str:
    """The part of a variant's or take's name that its cameras share."""
    return name.rpartition("/")[0] or name


def camera_in(name: str) -> str:
    """The camera in a variant's or take's name; empty for a name of one part."""
    return name.rpartition("/")[2] if "/" in name else ""


def is_older(folder: Path) -> bool:
    """Whether a folder of a variant or take lies where it did before the cameras of a world stood beside each other."""
    return folder.parent.name in STAGES


def is_name(text: str) -> bool:
    """Whether a text that a record states can name a folder of the run: it never leads out of it."""
    parts = text.split("/")
    return len(parts) <= 2 and all(part not in ("", ".", "..") and not set(part) & {"\\", "\0"} for part in parts)


def variant_id(world: str, camera: str, index: int = 0) -> str:
    """Name of a world as a camera sees it, from the episode's frame `index`: `kitchen/wrist`, `kitchen-f40/wrist`."""
    return f"{world}{frame_suffix(index)}/{camera}"


def frame_suffix(index: int) -> str:
    """What a name has for a first frame that is not the episode's."""
    return f"-f{index}" if index else ""


def take_id(variant: str, backend: str, seed: int | str, start: int = 0) -> str:
    """Name of a take: what differs between two takes of one variant is in it, so neither overwrites the other."""
    world, slash, camera = variant.rpartition("/")
    world = world if slash else camera
    window = "" if world.endswith(frame_suffix(start)) else frame_suffix(start)
    name = "-".join([world + window, *([] if backend == "composite" else [backend]), f"s{seed}"])
    return f"{name}/{camera}" if slash else name


def is_take_of(take: str, variant: str) -> bool:
    """Whether a take of that name is one of the variant's: same camera, and the variant's world with what differs."""
    return camera_in(take) == camera_in(variant) and world_of(take).startswith(f"{world_of(variant)}-")


def _views(stage: Path, record: str) -> list[Path]:
    """The cameras' folders of every world of a stage; a folder of the older layout stands for itself."""
    found: list[Path] = []
    for world in subfolders(stage):
        found += [world] if (world / record).is_file() else subfolders(world)
    return found


def subfolders(path: Path) -> list[Path]:
    """Folders of ours in a folder, sorted, also behind links (to another disk); hidden ones (temporaries) are left out."""
    try:
        with os.scandir(path) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    except OSError:
        return []
    return [path / name for name in sorted(names)]
