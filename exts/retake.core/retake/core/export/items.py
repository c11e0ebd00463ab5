# SPDX-License-Identifier: Apache-2.0
"""A planned dataset episode: what a world's takes, or the simulator's own pictures, become, with their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retake.core.episode import Episode
from retake.core.errors import ExportError
from retake.core.export.found import FoundTake, Selection, shown_task, shown_words
from retake.core.export.provenance import record, storable
from retake.core.files import sha256_json
from retake.core.run_layout import world_of
from retake.core.variants.base import Variant

AXES = ("environment", "surface", "subject", "lighting", "look", "background", "clutter")
"""Visual axes of a World (variants/base.py)."""
_HUGE = 1e300
"""Beyond it, and for NaN, a number of a check counts as not measured."""


@dataclass(frozen=True)
class Item:
    """One planned dataset episode. `videos`: camera name → take.mp4, or None for the simulator's own pictures."""

    uid: str
    run: Path
    episode: Path
    videos: tuple[tuple[str, Path | None], ...]
    start: int
    length: int
    task: str
    trajectory: str
    provenance: dict[str, Any]
    words: dict[str, str] = field(default_factory=dict)
    """What its pictures show `subject` and `surface` as, where that is not what the simulation calls them."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Camera → (width, height) of its take; without an entry the camera's own."""


def take_item(
    run: Path,
    episode: Episode,
    views: Mapping[str, FoundTake | None],
    cameras: Sequence[str],
    source: dict[str, Any],
    selection: Selection,
) -> Item:
    """A whole world as one episode: of each camera its take, or where `views` has None the simulator's own pictures."""
    shown = [views[c] for c in cameras]
    takes = [view for view in shown if view is not None]
    first, take = takes[0], takes[0].take
    lead = next(c for c in cameras if views[c] is first)
    start = take.start
    length = min(take.frames, len(episode) - start)
    verdicts = [t.standing.verdict for t in takes]
    capture = episode.header.camera(lead).size
    simulated = "recorded" if episode.header.motion_source == "recorded" else "sim"
    domains = [simulated if view is None else view.take.domain for view in shown]
    checks: dict[str, float | None] = {}
    for camera, view in zip(cameras, shown, strict=True):
        verdict = view.standing.verdict if view is not None else None
        for check in verdict.checks if verdict is not None else ():
            name = check.name if len(cameras) == 1 else f"{camera}/{check.name}"
            checks[name] = check.value if check.value is not None and abs(check.value) < _HUGE else None
    statuses = {t.standing.status if t.standing.verdict is not None else "none" for t in takes}
    shas = {c: "" if t is None else t.take.video_sha256 for c, t in zip(cameras, shown, strict=True)}
    uid = sha256_json({"episode": episode.content_sha256, "start": start, "length": length, "videos": shas})
    values = {
        **source,
        "uid": uid,
        "variant_id": take.variant if len(cameras) == 1 else world_of(take.variant),
        "take_id": "+".join(t.id for t in takes),
        "domain": domains[0] if len(set(domains)) == 1 else "mixed",
        "window_start": start,
        "window_length": length,
        "video_sha256": ",".join(shas.values()),
        "camera_names": ",".join(cameras),
        "camera_domains": ",".join(domains),
        "backend": take.backend,
        "backend_version": take.backend_version,
        "model": take.model,
        "model_revision": take.revision,
        "weights_sha256": first.stated("weights_sha256"),
        "steps": first.stated("steps", "num_inference_steps"),
        "guidance": first.stated("guidance", "guidance_scale"),
        "seed": take.seed,
        "prompt": take.prompt,
        "negative_prompt": take.negative_prompt,
        "precision": first.stated("precision", "dtype"),
        "acceleration": first.stated("acceleration"),
        "settings": json.dumps(take.settings, sort_keys=True, ensure_ascii=False, default=str),
        **_first_frame(first.variant.record if first.variant is not None else None),
        "skeleton_sha256": take.inputs.get("skeleton"),
        "first_frame_sha256": take.inputs.get("first_frame"),
        "capture_width": capture[0],
        "capture_height": capture[1],
        "resize_sx": take.size[0] / capture[0],
        "resize_sy": take.size[1] / capture[1],
        "accepted": statuses == {"pass"},
        "verdict_status": "pass" if statuses == {"pass"} else "+".join(sorted(statuses)),
        "verdict_probability": None if None in verdicts else min(v.probability for v in verdicts if v is not None),
        "verdict_version": verdicts[0].version if verdicts[0] is not None else None,
        "licence_model": take.licence,
        "created_utc": take.extra.get("created_utc"),
    }
    recipe = first.variant.document().get("recipe") if first.variant is not None else None
    task = shown_task(episode.header, first.world.subject if first.world is not None else "", recipe)
    videos = tuple((c, None if t is None else t.take.video) for c, t in zip(cameras, shown, strict=True))
    sizes = {c: view.take.size for c, view in zip(cameras, shown, strict=True) if view is not None}
    words = {key: storable(text) for key, text in shown_words(episode.header, first.world, recipe).items()}
    return Item(
        uid,
        run,
        episode.path,
        videos,
        start,
        length,
        storable(task),
        source["trajectory_id"],
        record(values, checks),
        words,
        sizes,
    )


def _first_frame(variant: Variant | None) -> dict[str, Any]:
    """Provenance of the first frame."""
    if variant is None:
        return {}
    return {
        "world": variant.world.name,
        **{f"world_{axis}": getattr(variant.world, axis) for axis in AXES},
        "first_frame_backend": variant.backend,
        "first_frame_backend_version": variant.backend_version,
        "first_frame_model": variant.model,
        "first_frame_model_revision": variant.revision,
        "first_frame_seed": variant.seed,
        "first_frame_prompt": variant.prompt,
        "licence_first_frame": variant.licence,
    }


def sim_items(
    run: Path,
    episode: Episode,
    takes: Sequence[Item],
    cameras: Sequence[str],
    source: dict[str, Any],
    selection: Selection,
) -> list[Item]:
    """The simulator's own pictures over the windows of the run's takes, or over the whole episode where it has none."""
    chosen = tuple(cameras) or tuple(c.name for c in episode.header.cameras)
    if not chosen:
        raise ExportError(
            f"{run.name}: --include-sim exports the simulator's own pictures, and its episode has no camera; record it with "
            "one, or leave --include-sim out"
        )
    windows = sorted({(item.start, item.length) for item in takes})
    if not windows:
        step = selection.window or len(episode)
        windows = [(start, min(step, len(episode) - start)) for start in range(0, len(episode), step)]
    out = []
    recorded = episode.header.motion_source == "recorded"
    for start, length in windows:
        uid = sha256_json({"episode": episode.content_sha256, "start": start, "length": length, "sim": chosen})
        capture = episode.header.camera(chosen[0]).size
        values = {
            **source,
            "uid": uid,
            "variant_id": "0",
            "domain": "recorded" if recorded else "sim",
            "window_start": start,
            "window_length": length,
            "camera_names": ",".join(chosen),
            "camera_domains": ",".join(["recorded" if recorded else "sim"] * len(chosen)),
            "seed": episode.header.seed,
            "capture_width": capture[0],
            "capture_height": capture[1],
            "resize_sx": 1.0,
            "resize_sy": 1.0,
            "accepted": True,
            "verdict_status": "source",
        }
        videos = tuple((c, None) for c in chosen)
        out.append(
            Item(
                uid,
                run,
                episode.path,
                videos,
                start,
                length,
                storable(episode.header.task),
                source["trajectory_id"],
                record(values),
            )
        )
    return out
