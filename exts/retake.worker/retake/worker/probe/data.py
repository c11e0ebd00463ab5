# SPDX-License-Identifier: Apache-2.0
"""A LeRobot data set as the probe reads it: small pictures, states, targets and phases in plain arrays, packed once.

Reads what was exported, videos decoded: what is tested is what is shipped. Needs no torch; the packing needs the extra `export`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Int, UInt8
from retake.core.codec import decode
from retake.core.errors import InputError
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import ACTION, IMAGE, STATE
from retake.core.files import atomic_directory, is_abandoned, known_sha256, read_json, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent

SCHEMA = "retake.probe_pack/2"
PHASE = "truth.phase"
TOLD_BYTES = 2**30
"""From this size on, reading a data set to know it again takes long enough to be shown."""
FIRST_PX, OTHER_PX = 112, 80
"""Longest side of the first camera's pictures, and of the others'."""

Masks = Callable[[Row, str], Bool[np.ndarray, "T H W"]]
"""(episode, camera) → which pixels of each frame are background."""


@dataclass(frozen=True)
class PackFacts:
    """What a pack holds; JSON."""

    schema: str
    source: str
    """Content hash of the data set's files and of the sizes asked for."""
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


def fingerprint(
    dataset: Dataset, cameras: Mapping[str, tuple[int, int]], masked: bool, progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> str:  # fmt: skip
    """Content hash of a data set's metadata, of the files with its rows and pictures, and of what is asked of it. Files are
    read once in a process; progress is told of data sets that take seconds."""
    paths = (str(dataset.info.get(key) or "") for key in ("data_path", "video_path"))
    places = {"meta", "images", *(path.split("/")[0] for path in paths if path)}
    # Folders may be links, which Path.rglob does not follow.
    walks = (os.walk(dataset.root / place, followlinks=True) for place in places)
    files = sorted(Path(folder, name) for walk in walks for folder, _, names in walk for name in names)
    sizes = [path.stat().st_size if path.exists() else 0 for path in files]
    tell = progress if sum(sizes) > TOLD_BYTES else silent
    hashes = []
    for path, read in zip(files, accumulate(sizes), strict=True):
        check_cancel()
        hashes.append([path.relative_to(dataset.root).as_posix(), _content(path)])
        tell(read >> 20, sum(sizes) >> 20, "MiB read")
    return sha256_json([hashes, {n: list(s) for n, s in cameras.items()}, masked])


def _content(path: Path) -> str:
    """Hash of a file; empty where it cannot be read, which its reader then tells in words."""
    try:
        return known_sha256(path)
    except OSError:
        return ""


def facts_of(
    dataset: Dataset, *, masked: bool = False, progress: Progress = silent, check_cancel: CheckCancel = never
) -> PackFacts:
    """What the pack of a data set will hold, without decoding it.

    Raises InputError for a data set without frames, cameras or targets; ExportError as its reader does.
    """
    cameras, vectors = _cameras(dataset), dataset.schema.vectors
    for feature in (STATE, ACTION):
        if feature not in vectors:
            raise InputError(f"{dataset.root} has no {feature}; the probe learns from pictures, state and action")
    lengths = tuple(row.length for row in dataset.episodes())
    if not sum(lengths):
        raise InputError(f"{dataset.root} holds no frame to learn from")
    starts = tuple(int(start) for start in np.cumsum((0, *lengths))[:-1])
    # A feature of one number has no names of entries.
    state, action = (vectors[feature].names or (feature,) for feature in (STATE, ACTION))
    source = fingerprint(dataset, cameras, masked, progress, check_cancel)
    return PackFacts(
        SCHEMA, source, cameras, state, action, dataset.schema.fps, _phase_count(dataset),
        masked, starts, lengths,
    )  # fmt: skip


def pack(
    dataset: Path,
    out: Path,
    *,
    masks: Masks | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Pack:
    """Pack a data set into `out`, or open what is packed there already.

    Raises InputError as `facts_of` does, for numbers that are not finite, for a pack of another data set, and for a folder that
    holds something else; ExportError as the data set's reader does.
    """
    opened = Dataset(dataset)
    if not (out / "pack.json").exists():
        facts = facts_of(opened, masked=masks is not None, progress=progress, check_cancel=check_cancel)
        if not (out / "pack.json").exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"{out} is no pack of the probe's, and holds something; choose another folder, or delete it"
            )
        for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
            if is_abandoned(left.name):  # of a packing that was killed
                shutil.rmtree(left, ignore_errors=True)
        vectors = _vectors(opened, facts, check_cancel)  # before any picture: what is refused is refused soon
        try:
            with atomic_directory(out) as folder:
                _pack_pictures(opened, facts, folder, masks, progress, check_cancel)
                np.savez(folder / "vectors.npz", **vectors)  # type: ignore[arg-type]
                write_json(folder / "pack.json", asdict(facts))
        except OSError:
            if not (out / "pack.json").exists():  # another process has packed the same meanwhile
                raise
    found = open_pack(out)
    if found.facts.source != fingerprint(opened, _cameras(opened), masks is not None, progress, check_cancel):
        raise InputError(
            f"{out} holds the pack of another data set, or of this one before it changed; choose another folder, or "
            "delete it"
        )
    return found


def _vectors(dataset: Dataset, facts: PackFacts, check_cancel: CheckCancel) -> dict[str, np.ndarray]:
    """States, actions and phases of all frames. Raises InputError for numbers that nothing can be learnt from."""
    state, action, phase = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for row in dataset.episodes():
        check_cancel()
        found = dataset.columns(row)
        for feature, parts in ((STATE, state), (ACTION, action)):
            with np.errstate(over="ignore"):
                parts.append(found[feature].reshape(row.length, -1).astype(np.float32))
            if (bad := ~np.isfinite(parts[-1]).all(1)).any():
                raise InputError(
                    f"{row.data}: {feature} of episode {row.index} is not finite in row {int(np.argmax(bad))}; "
                    "nothing can be learnt from it"
                )
        phase.append(found[PHASE] if facts.phases else np.zeros(row.length, np.int64))
        if facts.phases and not ((phase[-1] >= 0) & (phase[-1] < facts.phases)).all():
            raise InputError(f"{row.data}: {PHASE} of episode {row.index} leaves 0 … {facts.phases - 1}")
    return {
        "state": np.concatenate(state), "action": np.concatenate(action), "phase": np.concatenate(phase).astype(np.int64),
    }  # fmt: skip


def _pack_pictures(
    dataset: Dataset, facts: PackFacts, folder: Path, masks: Masks | None, progress: Progress, check_cancel: CheckCancel
) -> None:
    """One array per camera, and one of its masks. Written as they come: a full disk is then an error in words, where a
    memory-mapped page ends the process."""
    total = sum(facts.lengths)
    with contextlib.ExitStack() as opened:

        def stream(name: str, kind: type, shape: Sequence[int]) -> IO[bytes]:
            out = opened.enter_context((folder / f"{name}.npy").open("wb"))
            header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (total, *shape)}
            np.lib.format.write_array_header_1_0(out, header)
            return out

        images = {n: stream(n, np.uint8, (h, w, 3)) for n, (w, h) in facts.cameras.items()}
        hidden = {n: stream(f"{n}.mask", np.bool_, (h, w)) for n, (w, h) in facts.cameras.items() if masks is not None}
        for done, row in enumerate(dataset.episodes(), 1):
            for name, size in facts.cameras.items():
                for frame in dataset.frames(row, IMAGE + name):
                    check_cancel()
                    images[name].write(small(frame, size).tobytes())
                for mask in masks(row, name) if masks is not None else ():
                    shrunk = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
                    hidden[name].write((shrunk > 0.5).tobytes())
            progress(done, len(facts.lengths), "packed")


def open_pack(folder: Path) -> Pack:
    """A pack written before. Raises InputError when the folder is none, of another version, or damaged."""
    try:
        data: Any = read_json(folder / "pack.json")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no pack of the probe's: pack.json is missing or unreadable ({error})") from error
    facts = decode(PackFacts, data, str(folder / "pack.json"))
    if facts.schema != SCHEMA:
        raise InputError(f"{folder} is a pack of version {facts.schema!r}; this reads {SCHEMA!r}: pack it again")
    try:
        images = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in facts.cameras}
        masks = {name: np.load(folder / f"{name}.mask.npy", mmap_mode="r") for name in facts.cameras if facts.masked}
        with (folder / "vectors.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as vectors:
            state, action, phase = vectors["state"], vectors["action"], vectors["phase"]
        if {len(a) for a in (state, action, phase, *images.values(), *masks.values())} != {sum(facts.lengths)}:
            raise ValueError("its arrays are of different lengths")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder} is a damaged pack ({error}); delete it, and pack the data set again") from error
    return Pack(facts, images, masks, state, action, phase)


def _cameras(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Packed sizes: the camera that is no wrist first."""
    for key in dataset.schema.cameras:
        if not key.startswith(IMAGE) or "/" in key or "\\" in key:
            raise InputError(
                f"{dataset.root} has pictures called {key}, where a policy is shown {IMAGE}NAME; rename them: "
                f"retake convert-dataset {dataset.root} --out DIR --rename {key}={IMAGE}NAME"
            )
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
