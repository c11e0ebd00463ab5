# SPDX-License-Identifier: Apache-2.0
"""The takes that lie in the roots, wherever they were made: what the page's gallery shows. Records are read again only
when they changed; a client names a take by a key, never by a path.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.episode.layout import COMPLETE, HEADER
from retake.core.errors import RetakeError, TakeError, WorkerError
from retake.core.files import read_json, sha256_bytes, sha256_json
from retake.core.run_layout import SKELETON_VIDEO, TAKE_RECORD, VARIANT_FRAME, name_of, take_id
from retake.core.run_reader import RunReader, Standing, StoredVariant
from retake.core.takes.base import Take
from retake.worker.roots import Roots

ENCODE_S = 300


@dataclass(frozen=True)
class Shown:
    """One take of the gallery, readable or not."""

    key: str
    run: RunReader
    folder: Path
    made_s: float
    take: Take | None
    """None when its record cannot be read."""
    standing: Standing

    def parts(self) -> dict[str, Path]:
        """Which parts exist, with the file each is made from."""
        take = self.take
        found = {"sidecar": self.folder / TAKE_RECORD}
        if take is None:
            return found
        named = {
            "take": take.video,
            "skeleton": self.run.skeleton(take.camera) / SKELETON_VIDEO,
            "simulation": self.run.episode / "cameras" / take.camera / "rgb",
            "frame": self.run.variant_folder(take.variant) / VARIANT_FRAME,
        }
        return found | {part: path for part, path in named.items() if path.exists()}

    @property
    def source(self) -> str:
        """Equal for takes that show the same simulation and skeleton."""
        take = self.take
        span = [] if take is None else [take.camera, take.start, take.frames]
        return sha256_json([str(self.run.path), *span])[:20]

    def to_json(self) -> dict[str, Any]:
        """For the API."""
        take, name = self.take, self.run.path.name
        stated = {key: getattr(take, key, "") for key in ("variant", "backend", "domain", "prompt", "camera")}
        numbers = {key: getattr(take, key, 0) for key in ("seed", "frames", "fps")}
        return {
            "key": self.key, "id": name_of(self.folder), "run": name, "episode": name, "verdict": self.standing.status,
            "reason": self.standing.reason, **stated, **numbers, "made_s": self.made_s, "parts": sorted(self.parts()),
            "source": self.source,
        }  # fmt: skip


class Gallery:
    """All takes of the roots."""

    def __init__(self, roots: Roots, cache: Path, limit: int) -> None:
        self._roots, self._cache, self._limit = roots, cache, limit
        self._lock = threading.Lock()
        self._encoding: dict[str, threading.Lock] = {}

    def takes(self) -> list[Shown]:
        """Newest first, at most the configured number."""
        found: list[tuple[float, str, RunReader, Path]] = []
        for run in self._runs():
            for folder in run.take_folders():
                with contextlib.suppress(OSError, RetakeError):  # being made, or behind a link that leaves the roots
                    made = self._roots.inside(folder / TAKE_RECORD, "take").stat().st_mtime
                    found.append((made, _key(folder), run, folder))
        found.sort(key=lambda item: (-item[0], item[1]))
        return [_gallery_entry(*item) for item in found[: self._limit]]

    def find(self, key: str) -> Shown | None:
        """The take of a key."""
        for run in self._runs():
            for folder in run.take_folders():
                if _key(folder) == key:
                    with contextlib.suppress(OSError, RetakeError):
                        made = self._roots.inside(folder / TAKE_RECORD, "take").stat().st_mtime
                        return _gallery_entry(made, key, run, folder)
        return None

    def media(self, shown: Shown, part: str) -> tuple[Path, str] | None:
        """(file, media type) of a part a browser can show; None when the take has no such part. Raises WorkerError."""
        source = shown.parts().get(part)
        if source is None:
            return None
        self._roots.inside(source, part)
        if part == "take":
            return source, "video/mp4"
        if part == "sidecar":
            return source, "application/json"
        if part == "frame":
            return source, "image/png"
        return self._video(shown, part, source), "video/mp4"

    def _video(self, shown: Shown, part: str, source: Path) -> Path:
        """The simulation's or skeleton's frames as H.264, encoded once, in a process of its own."""
        stamp = source.stat().st_mtime_ns
        take = shown.take
        assert take is not None, "a take that cannot be read has no such part"
        start, count, fps = take.start, take.frames, take.fps
        name = sha256_json([str(source), stamp, start, count, fps])[:24]
        target = self._cache / f"{part}-{name}.mp4"
        with self._lock:
            lock = self._encoding.setdefault(name, threading.Lock())
        with lock:
            if not target.is_file():
                command = [
                    sys.executable,
                    "-m",
                    "retake.worker.media",
                    str(source),
                    str(target),
                    str(start),
                    str(count),
                    str(fps),
                ]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=ENCODE_S, check=False)
                except subprocess.TimeoutExpired as error:
                    raise WorkerError(f"encoding the {part} video took longer than {ENCODE_S} s") from error
                if done.returncode:
                    raise WorkerError(f"the {part} video cannot be shown: {done.stderr.strip()[-300:]}")
        return target

    def runs(self, backends: Iterable[str]) -> list[dict[str, Any]]:
        """Runs that takes of these backends can be asked for: those with a skeleton and variants."""
        found = []
        for run in self._runs():
            cameras, variants = run.skeleton_cameras(), [v for v in run.variants() if v.frame.is_file()]
            if not (cameras and variants and (run.episode / COMPLETE).is_file()):
                continue
            with contextlib.suppress(OSError, ValueError, AttributeError, RetakeError):
                self._roots.inside(run.episode, "episode")
                task = str(read_json(run.episode / HEADER).get("task", ""))
                found.append({
                    "name": run.path.name, "path": str(run.path), "episode": str(run.episode), "task": task,
                    "cameras": cameras, "skeletons": {camera: str(run.skeleton(camera)) for camera in cameras},
                    "variants": [_variant(run, v, backends) for v in variants],
                })  # fmt: skip
        return sorted(found, key=lambda run: run["path"])

    def _runs(self) -> list[RunReader]:
        return [RunReader(folder) for folder in self._roots.holding(_is_run)]


def _is_run(folder: Path) -> bool:
    run = RunReader(folder)
    return run.episode.is_dir() or run.takes_folder.is_dir()


def _key(folder: Path) -> str:
    return sha256_bytes(os.fsencode(folder))[:20]


def _gallery_entry(made_s: float, key: str, run: RunReader, folder: Path) -> Shown:
    try:
        take = run.take(name_of(folder))
    except TakeError as error:
        return Shown(key, run, folder, made_s, None, Standing("damaged", str(error), None))
    return Shown(key, run, folder, made_s, take, run.standing(take))


def _variant(run: RunReader, found: StoredVariant, backends: Iterable[str]) -> dict[str, Any]:
    """A first frame that takes can start from; `outputs` are where they go, by backend, with {seed} left open."""
    record = found.record
    return {
        "id": found.id, "camera": found.camera, "prompt": record.prompt, "negative_prompt": record.negative_prompt,
        "folder": str(found.folder),
        "outputs": {name: str(run.take_folder(take_id(found.id, name, "{seed}"))) for name in backends},
    }  # fmt: skip
