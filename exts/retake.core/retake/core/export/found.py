# SPDX-License-Identifier: Apache-2.0
"""Takes as a run folder holds them, with their variant and verdict: what they are, and whether they are training data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.episode import Episode, EpisodeHeader
from retake.core.errors import ExportError, InputError, VariantError
from retake.core.export.licences import commercial_obstacle
from retake.core.export.provenance import storable
from retake.core.files import read_json
from retake.core.variants.worlds import load_catalogue

DOMAINS = ("generated", "composite", "sim", "recorded")


@dataclass(frozen=True)
class Selection:
    """What of the runs is wanted."""

    only_commercial: bool = False
    min_verdict: float = 0.0
    unverified: bool = False
    include_sim: bool = False
    cameras: tuple[str, ...] = ()
    """Empty = every camera that the accepted takes have."""
    size: tuple[int, int] | str | None = None
    """(width, height) of the dataset's pictures; "capture" = the camera's own; None = the takes' own."""
    assets_licence: str = ""
    """What the user states about the simulated assets, where the episode does not."""
    action_source: str = "commanded"
    extras: tuple[str, ...] = ()
    window: int = 0
    """Frames per episode for `include_sim` where a run has no take; 0 = the whole episode."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_verdict <= 1:  # also refuses NaN, which every comparison below would let through
            raise InputError(f"--min-verdict {self.min_verdict:g}: expected a probability within 0..1")
        if self.window < 0:
            raise InputError(f"--window {self.window}: expected a number of frames, or 0 for the whole episode")


@dataclass(frozen=True)
class FoundTake:
    """A take as found on disk."""

    id: str
    data: dict[str, Any]
    variant: dict[str, Any]
    verdict: dict[str, Any]
    video: Path

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of these keys that take.json has, on top, under `request` or under `settings`."""
        for place in (self.data, self.data.get("request") or {}, self.data.get("extra") or {}, self.settings):
            for name in names:
                if isinstance(place, dict) and place.get(name) is not None:
                    return place[name]
        return default

    @property
    def judged(self) -> dict[str, Any]:
        """The verdict, when it is of this very video; empty when it is of another one, or does not say."""
        return self.verdict if self.verdict.get("video_sha256") == self.data.get("video_sha256") else {}

    @property
    def settings(self) -> dict[str, Any]:
        """Backend settings; empty where none are stated."""
        found = self.data.get("settings") or (self.data.get("request") or {}).get("settings")
        return found if isinstance(found, dict) else {}


def read_optional(path: Path, default: dict[str, Any]) -> dict[str, Any]:
    """A JSON object; `default` when the file is absent. Raises ExportError when it is damaged."""
    try:
        data = read_json(path)
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise ExportError(f"{path} holds a {type(data).__name__}; expected a JSON object")
    return data


_TAKE: dict[str, type] = {
    "variant": str, "video_sha256": str, "frames": int, "size": list, "inputs": dict, "settings": dict, "request": dict,
    "extra": dict, "domain": str, "backend": str,
}  # fmt: skip
_VARIANT: dict[str, type] = {"world": dict, "source": dict, "frame_sha256": str}
_VERDICT: dict[str, type] = {"status": str, "video_sha256": str, "checks": list}


def _record(path: Path, kinds: dict[str, type]) -> dict[str, Any]:
    """A sidecar whose values are of the kinds this package relies on; empty when it is absent. Raises ExportError."""
    data = read_optional(path, {})
    for key, kind in kinds.items():
        if data.get(key) is not None and not isinstance(data[key], kind):
            raise ExportError(f"{path}: {key!r} is {data[key]!r}; expected a {kind.__name__}")
    if not all(isinstance(check, dict) for check in data.get("checks") or ()):
        raise ExportError(f"{path}: 'checks' holds something else than objects")
    if "size" in kinds and data.get("size") and [type(side) for side in data["size"]] != [int, int]:
        raise ExportError(f"{path}: 'size' is {data['size']!r}; expected [width, height], px")
    return data


def start_of(take: FoundTake) -> int:
    """Episode frame that take frame 0 shows. Raises ExportError when what take.json states is no frame."""
    start = take.get("start", default=0)
    if not isinstance(start, int):
        raise ExportError(f"take {take.id!r} starts at {start!r}; expected the number of a frame")
    return start


def takes_of(run: Path) -> list[FoundTake]:
    """Every take of a run that has its take.json, by folder name. Raises ExportError for damaged JSON."""
    out = []
    for sidecar in sorted((run / "takes").glob("*/take.json")):
        data = _record(sidecar, _TAKE)
        identity = storable(str(data.get("id") or sidecar.parent.name))
        variant = _record(run / "variants" / data["variant"] / "variant.json", _VARIANT) if data.get("variant") else {}
        verdict = _record(run / "verdicts" / sidecar.parent.name / "verdict.json", _VERDICT)
        out.append(FoundTake(identity, data, variant, verdict, sidecar.parent / "take.mp4"))
    return out


def camera_of(take: FoundTake, episode: Episode) -> str:
    """The camera a take shows. Raises ExportError when its episode has no such camera."""
    cameras = [c.name for c in episode.header.cameras]
    named = take.get("camera") or (take.variant.get("source") or {}).get("camera")
    if named is None and len(cameras) == 1:
        return cameras[0]
    if named not in cameras:
        raise ExportError(f"take {take.id!r} names camera {named!r}; its episode has: {', '.join(cameras)}")
    return str(named)


def group_key(take: FoundTake) -> str:
    """What takes of one world and window share, whichever camera they show."""
    world = take.variant.get("world") or {}
    name = world.get("name") or take.data.get("variant")
    seeds = [take.variant.get("seed"), take.data.get("seed")]
    window = [take.get("start", default=0), take.data.get("frames"), take.data.get("backend")]
    return json.dumps([name, *seeds, *window], sort_keys=True, default=str)


def obstacle(take: FoundTake, episode: Episode, source: dict[str, Any], selection: Selection) -> str | None:
    """Why this take is no training data; None when it is."""
    verdict, data = take.verdict, take.data
    domain, backend = str(data.get("domain", "")), str(data.get("backend", ""))
    if data.get("fake") or backend.startswith("fake") or domain not in DOMAINS[:2]:
        return f"made by a test backend (backend {backend!r}, domain {domain!r})"
    status = str(verdict.get("status", "none")).lower()
    if status == "fail":
        failed = [str(c.get("name")) for c in verdict.get("checks") or () if str(c.get("status", "")).lower() == "fail"]
        return "the verdict is fail" + (f" ({', '.join(failed)})" if failed else "")
    video = data.get("video_sha256")
    if not isinstance(video, str) or not video:
        return "its take.json states no hash of the video, so nothing says which one was judged"
    if verdict and not take.judged:
        status = "stale"
    if status != "pass" and not selection.unverified:
        known = {
            "none": "it has no verdict",
            "stale": "its verdict is of another video",
            "unsure": "the verdict is unsure",
        }
        return known.get(status, f"the verdict is {status!r}") + " (`retake verify` judges it; --unverified exports it)"
    probability = take.judged.get("probability")
    if selection.min_verdict > 0 and not (
        isinstance(probability, int | float) and probability >= selection.min_verdict
    ):
        return f"verdict probability {probability} is below --min-verdict {selection.min_verdict}"
    inputs = data.get("inputs") or {}
    hashed = inputs.get("episode") or inputs.get("episode_sha256")
    if hashed and hashed != episode.content_sha256:
        return "it was made from another episode than the run holds now"
    first, now = inputs.get("first_frame"), take.variant.get("frame_sha256")
    if first != now and ((first and now) or selection.only_commercial):
        return "its first frame is not the one its variant holds now; make the take again, or remove it"
    if selection.only_commercial:
        stated = (
            ("video model", data.get("licence")),
            ("first-frame model", take.variant.get("licence")),
            ("simulated assets or recording", source["licence_source"]),
        )
        for what, licence in stated:
            if reason := commercial_obstacle(licence):
                return f"--only-commercial: {what}: {reason}"
    return None


def shown_task(header: EpisodeHeader, subject: str, recipe: Mapping[str, Any] | None = None) -> str:
    """The task text that fits the pixels: the task object's label replaced by what the world shows it as.

    `recipe` is the one stored in variant.json: it knows worlds of the user's own; without it the name is looked up.
    """
    labels = [o.label for o in header.objects if o.movable and o.label]
    stated = recipe.get("subject") if isinstance(recipe, Mapping) else None
    try:
        known = stated if isinstance(stated, Mapping) else load_catalogue().value("subject", subject)
        words = str(known.get("prompt", "")) if labels else ""
    except VariantError:
        words = ""
    if not words:
        return header.task
    label = re.escape(labels[0])
    return re.sub(rf"\b(?:the|a|an) {label}\b|\b{label}\b", lambda _: words, header.task, count=1, flags=re.I)
