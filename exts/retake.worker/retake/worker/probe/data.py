# SPDX-License-Identifier: Apache-2.0
"""A LeRobot data set as the probe reads it: small pictures, states, targets and phases in plain arrays, packed once.

Reads what was exported, videos decoded: what is tested is what is shipped. Needs no torch; the packing needs the extra `export`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Int, UInt8
from retake.core.codec import decode
from retake.core.errors import InputError
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import ACTION, IMAGE, STATE
from retake.core.files import atomic_directory, read_json, sha256_file, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent

SCHEMA = "retake.probe_pack/1"
PHASE = "truth.phase"
FIRST_PX, OTHER_PX = 112, 80
"""Longest side of the first camera's pictures, and of the others'."""

Masks = Callable[[Row, str], Bool[np.ndarray, "T H W"]]
"""(episode, camera) → which pixels of each frame are background."""


@dataclass(frozen=True)
class PackFacts:
    """What a pack holds; JSON."""

    schema: str
    source: str
    """Content hash of the data set's metadata and of the sizes asked for."""
    cameras: dict[str, tuple[int, int]]
    """Name → (width, height) as packed, in the model's order."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    fps: int
    phases: int
    """How many phases there are; 0 = the data set states none."""
    masked: bool
    starts: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pack:
    """Arrays of all frames, one after the other; pictures stay on disk (memory-mapped)."""

    facts: PackFacts
    images: Mapping[str, UInt8[np.ndarray, "N H W 3"]]
    masks: Mapping[str, Bool[np.ndarray, "N H W"]]
    state: Float32[np.ndarray, "N S"]
    action: Float32[np.ndarray, "N A"]
    phase: Int[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.state)

    def chunk_rows(self, rows: Int[np.ndarray, "B"], length: int) -> Int[np.ndarray, "B H"]:
        """Row of each of the next `length` actions; an episode's last action is repeated after its end."""
        starts, lengths = np.array(self.facts.starts), np.array(self.facts.lengths)
        episode = np.searchsorted(starts, rows, side="right") - 1
        last = starts[episode] + lengths[episode] - 1
        return np.minimum(rows[:, None] + np.arange(length), last[:, None])


def scaled(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) with the longest side at `longest` px; sides are never below 8 px."""
    factor = longest / max(size)
    return max(8, round(size[0] * factor)), max(8, round(size[1] * factor))


def small(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture at a packed size: averaged over area, so that training and acting see the same."""
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def fingerprint(dataset: Dataset, cameras: Mapping[str, tuple[int, int]], masked: bool) -> str:
    """Content hash of a data set's metadata and of what is asked of it."""
    files = sorted(p for p in (dataset.root / "meta").rglob("*") if p.is_file())
    return sha256_json([[sha256_file(p) for p in files], {n: list(s) for n, s in cameras.items()}, masked])


def pack(
    dataset: Path,
    out: Path,
    *,
    masks: Masks | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Pack:
    """Pack a data set into `out`, or open what is packed there already.

    Raises InputError for a data set without cameras or targets, and for a pack of another one; ExportError as its reader does.
    """
    opened = Dataset(dataset)
    cameras = _cameras(opened)
    for feature in (STATE, ACTION):
        if feature not in opened.schema.vectors:
            raise InputError(f"{dataset} has no {feature}; the probe learns from pictures, state and action")
    source = fingerprint(opened, cameras, masks is not None)
    if (out / "pack.json").exists():
        found = open_pack(out)
        if found.facts.source != source:
            raise InputError(f"{out} holds the pack of another data set; choose another folder, or delete it")
        return found
    rows = list(opened.episodes())
    total = sum(row.length for row in rows)
    if not total:
        raise InputError(f"{dataset} holds no frame to learn from")
    phases = _phase_count(opened)
    with atomic_directory(out) as folder:
        images = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (total, size[1], size[0], 3))
            for name, size in cameras.items()
        }
        hidden = {
            name: np.lib.format.open_memmap(folder / f"{name}.mask.npy", "w+", np.bool_, (total, size[1], size[0]))
            for name, size in (cameras.items() if masks else ())
        }
        columns: dict[str, list[np.ndarray]] = {"state": [], "action": [], "phase": []}
        starts, at = [], 0
        for done, row in enumerate(rows, 1):
            check_cancel()
            found = opened.columns(row)
            columns["state"].append(found[STATE].reshape(row.length, -1))
            columns["action"].append(found[ACTION].reshape(row.length, -1))
            columns["phase"].append(found[PHASE] if phases else np.zeros(row.length, np.int64))
            for name, size in cameras.items():
                for k, frame in enumerate(opened.frames(row, IMAGE + name)):
                    images[name][at + k] = small(frame, size)
                if masks is not None:
                    for k, mask in enumerate(masks(row, name)):
                        shrunk = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
                        hidden[name][at + k] = shrunk > 0.5
            starts.append(at)
            at += row.length
            progress(done, len(rows), "packed")
        for array in (*images.values(), *hidden.values()):
            array.flush()
        del images, hidden
        arrays = {key: np.concatenate(parts) for key, parts in columns.items()}
        np.savez(
            folder / "vectors.npz", state=arrays["state"].astype(np.float32), action=arrays["action"].astype(np.float32),
            phase=arrays["phase"].astype(np.int64),
        )  # fmt: skip
        facts = PackFacts(
            SCHEMA, source, cameras, opened.schema.vectors[STATE].names, opened.schema.vectors[ACTION].names,
            opened.schema.fps, phases, masks is not None, tuple(starts), tuple(row.length for row in rows),
        )  # fmt: skip
        write_json(folder / "pack.json", asdict(facts))
    return open_pack(out)


def open_pack(folder: Path) -> Pack:
    """A pack written before. Raises InputError when the folder is none, or of another version."""
    try:
        data: Any = read_json(folder / "pack.json")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no pack of the probe's: pack.json is missing or unreadable ({error})") from error
    facts = decode(PackFacts, data, str(folder / "pack.json"))
    if facts.schema != SCHEMA:
        raise InputError(f"{folder} is a pack of version {facts.schema!r}; this reads {SCHEMA!r}: pack it again")
    images = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in facts.cameras}
    masks = {name: np.load(folder / f"{name}.mask.npy", mmap_mode="r") for name in facts.cameras if facts.masked}
    with np.load(folder / "vectors.npz", allow_pickle=False) as vectors:
        state, action, phase = vectors["state"], vectors["action"], vectors["phase"]
    return Pack(facts, images, masks, state, action, phase)


def _cameras(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Packed sizes: the camera that is no wrist first."""
    found = {key.removeprefix(IMAGE): size for key, size in dataset.schema.cameras.items()}
    if not found:
        raise InputError(f"{dataset.root} has no camera; the probe learns from pictures")
    ordered = sorted(found, key=lambda name: "wrist" in name.lower() or "hand" in name.lower())
    return {name: scaled(found[name], FIRST_PX if i == 0 else OTHER_PX) for i, name in enumerate(ordered)}


def _phase_count(dataset: Dataset) -> int:
    if PHASE not in dataset.schema.vectors:
        return 0
    from retake.core.export.truth import PHASES

    return len(PHASES)
