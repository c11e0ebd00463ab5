# SPDX-License-Identifier: Apache-2.0
"""The takes that lie in the roots, wherever they were made: what the page's gallery shows. Folders are read again only
when they changed; a client names a take by a key, never by a path.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.errors import RetakeError, WorkerError
from retake.core.files import read_json, sha256_bytes, sha256_json
from retake.worker.roots import Roots

DEPTH = 3
"""How deep below a root runs are looked for: the root itself, <root>/<run>, <root>/<project>/<run>."""
ENCODE_S = 300


@dataclass(frozen=True)
class Shown:
    """One take of the gallery."""

    key: str
    folder: Path
    sidecar: dict[str, Any]
    run: Path
    episode: Path
    camera: str
    verdict: str
    made_s: float

    def parts(self) -> dict[str, Path]:
        """Which parts exist, with the file each is made from."""
        skeleton = self.run / "skeleton" / self.camera / "gripper_scenario.mp4"
        found = {"take": self.folder / "take.mp4", "sidecar": self.folder / "take.json"}
        if skeleton.is_file():
            found["skeleton"] = skeleton
        frames = self.episode / "cameras" / self.camera / "rgb"
        if frames.is_dir():
            found["simulation"] = frames
        frame = self.run / "variants" / str(self.sidecar.get("variant", "")) / "frame.png"
        if frame.is_file():
            found["frame"] = frame
        return found

    @property
    def source(self) -> str:
        """Equal for takes that show the same simulation and skeleton."""
        span = [str(self.run), self.camera, _whole(self.sidecar.get("start")), _whole(self.sidecar.get("frames"))]
        return sha256_json(span)[:20]

    def to_json(self) -> dict[str, Any]:
        """For the API."""
        side = self.sidecar
        return {
            "key": self.key, "id": self.folder.name, "run": self.run.name, "episode": self.run.name,
            "variant": str(side.get("variant", "")), "verdict": self.verdict, "backend": str(side.get("backend", "")),
            "domain": str(side.get("domain", "")), "prompt": str(side.get("prompt", "")), "seed": _whole(side.get("seed")),
            "frames": _whole(side.get("frames")), "fps": float(side.get("fps") or 0), "made_s": self.made_s,
            "parts": sorted(self.parts()), "source": self.source,
        }  # fmt: skip


class Gallery:
    """All takes of the roots."""

    def __init__(self, roots: Roots, cache: Path, limit: int) -> None:
        self._roots, self._cache, self._limit = roots, cache, limit
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, int, int], Shown]] = {}
        self._encoding: dict[str, threading.Lock] = {}

    def takes(self) -> list[Shown]:
        """Newest first, at most the configured number."""
        found: list[Shown] = []
        with self._lock:
            seen: dict[Path, tuple[tuple[int, int, int], Shown]] = {}
            for folder in self._take_folders():
                try:
                    shown = self._shown(folder)
                except (OSError, ValueError, AttributeError, TypeError, RetakeError):
                    continue  # being written, or nothing of ours
                seen[folder] = shown
                found.append(shown[1])
            self._known = seen
        return sorted(found, key=lambda s: (-s.made_s, s.key))[: self._limit]

    def find(self, key: str) -> Shown | None:
        """The take of a key."""
        with self._lock:
            for _, shown in self._known.values():
                if shown.key == key:
                    return shown
        return next((shown for shown in self.takes() if shown.key == key), None)

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
        start, count, fps = (
            _whole(shown.sidecar.get("start")),
            _whole(shown.sidecar.get("frames")),
            shown.sidecar.get("fps") or 15,
        )
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

    def runs(self) -> list[dict[str, Any]]:
        """Runs that takes can be asked for: those with a skeleton and variants."""
        found = []
        for run in self._run_folders():
            cameras = [p.name for p in sorted(_subfolders(run / "skeleton")) if (p / "skeleton.json").is_file()]
            variants = [_variant(p) for p in sorted(_subfolders(run / "variants")) if (p / "frame.png").is_file()]
            if not (cameras and variants and (run / "episode" / "complete.json").is_file()):
                continue
            with contextlib.suppress(OSError, ValueError, AttributeError, RetakeError):
                self._roots.inside(run / "episode", "episode")
                task = str(read_json(run / "episode" / "episode.json").get("task", ""))
                found.append({
                    "name": run.name, "path": str(run), "episode": str(run / "episode"), "task": task,
                    "cameras": cameras, "variants": variants,
                })  # fmt: skip
        return sorted(found, key=lambda run: run["path"])

    def _run_folders(self) -> list[Path]:
        found: list[Path] = []
        for root in self._roots.folders:
            level = [root]
            for _ in range(DEPTH):
                below: list[Path] = []
                for folder in level:
                    if (folder / "episode").is_dir() or (folder / "takes").is_dir():
                        found.append(folder)
                    else:
                        below += _subfolders(folder)
                level = below
        return list(dict.fromkeys(found))

    def _take_folders(self) -> list[Path]:
        return [take for run in self._run_folders() for take in _subfolders(run / "takes")]

    def _shown(self, folder: Path) -> tuple[tuple[int, int, int], Shown]:
        sidecar, run = folder / "take.json", folder.parent.parent
        verdict_file = run / "verdicts" / folder.name / "verdict.json"
        stat = sidecar.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, verdict_file.stat().st_mtime_ns if verdict_file.is_file() else 0)
        known = self._known.get(folder)
        if known is not None and known[0] == stamp:
            return known
        self._roots.inside(sidecar, "take")
        data = read_json(sidecar)
        request = data.get("request") if isinstance(data.get("request"), dict) else {}
        episode = run / "episode"
        if not episode.is_dir() and isinstance(request.get("episode"), str):
            episode = self._roots.inside((folder / request["episode"]).absolute(), "episode")
        camera = str(data.get("camera") or request.get("camera") or "front")
        verdict = ""
        if stamp[2]:
            stated = read_json(verdict_file)
            verdict = str(stated.get("verdict") or stated.get("status") or stated.get("outcome") or "")
        slim = {
            k: data.get(k, request.get(k))
            for k in ("variant", "backend", "domain", "prompt", "seed", "frames", "fps", "start")
        }
        if isinstance(slim["variant"], str):
            slim["variant"] = Path(slim["variant"]).name
        key = sha256_bytes(os.fsencode(folder))[:20]
        return stamp, Shown(key, folder, slim, run, episode, Path(camera).name, verdict or "not judged", stat.st_mtime)


def _subfolders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _variant(folder: Path) -> dict[str, str]:
    try:
        data = read_json(folder / "variant.json")
        return {
            "id": folder.name,
            "prompt": str(data.get("prompt", "")),
            "negative_prompt": str(data.get("negative_prompt", "")),
        }
    except (OSError, ValueError, AttributeError):
        return {"id": folder.name, "prompt": "", "negative_prompt": ""}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
