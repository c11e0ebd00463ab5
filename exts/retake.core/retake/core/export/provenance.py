# SPDX-License-Identifier: Apache-2.0
"""Where an episode of a dataset comes from: one flat record per episode.

Written as `retake/<key>` columns of LeRobot's episodes parquet (visible to its `filter_episodes`) and as one line of
`meta/retake_provenance.jsonl` (for formats and tools that drop extra columns). Verdict checks become
`verdict/<check>` numbers. Times of day stay out unless a take recorded its own: same inputs, same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from retake.core.files import sha256_bytes

KINDS: dict[str, str] = {
    # identity
    "uid": "string",
    "run": "string",
    "source_episode_id": "string",
    "trajectory_id": "string",
    "motion_source": "string",
    "action_source": "string",
    "simulator": "string",
    "episode_check": "string",
    "variant_id": "string",
    "take_id": "string",
    "domain": "string",
    "split": "string",
    "window_start": "int64",
    "window_length": "int64",
    "video_sha256": "string",
    "camera_names": "string",
    "camera_domains": "string",
    # generation
    "backend": "string",
    "backend_version": "string",
    "model": "string",
    "model_revision": "string",
    "weights_sha256": "string",
    "steps": "int64",
    "guidance": "float64",
    "seed": "int64",
    "prompt": "string",
    "negative_prompt": "string",
    "precision": "string",
    "acceleration": "string",
    "settings": "string",
    # first frame
    "world": "string",
    "world_environment": "string",
    "world_surface": "string",
    "world_subject": "string",
    "world_lighting": "string",
    "world_look": "string",
    "world_background": "string",
    "world_clutter": "string",
    "first_frame_backend": "string",
    "first_frame_backend_version": "string",
    "first_frame_model": "string",
    "first_frame_model_revision": "string",
    "first_frame_seed": "int64",
    "first_frame_prompt": "string",
    # inputs
    "skeleton_sha256": "string",
    "first_frame_sha256": "string",
    "capture_width": "int64",
    "capture_height": "int64",
    "resize_sx": "float64",
    "resize_sy": "float64",
    # verdict
    "accepted": "bool",
    "verdict_status": "string",
    "verdict_probability": "float64",
    "verdict_version": "string",
    # legal
    "licence_model": "string",
    "licence_first_frame": "string",
    "licence_source": "string",
    "tool_version": "string",
    "created_utc": "string",
}
"""Key → column type, in column order."""
VERDICT = "verdict/"


def record(values: Mapping[str, Any], verdict_checks: Mapping[str, float | None] | None = None) -> dict[str, Any]:
    """A provenance record with every key; missing values are None. Raises KeyError for an unknown key."""
    unknown = set(values) - set(KINDS)
    if unknown:
        raise KeyError(f"not provenance keys: {sorted(unknown)}")
    out: dict[str, Any] = {key: _cast_or_none(values.get(key), kind) for key, kind in KINDS.items()}
    for name, value in sorted((verdict_checks or {}).items()):
        out[VERDICT + name] = None if value is None else float(value)
    return out


def _cast_or_none(value: Any, kind: str) -> Any:
    """The value in its column's type; None where it does not fit (a backend's odd setting loses nothing: see settings)."""
    if value is None:
        return None
    try:
        if kind == "int64":
            return int(value) if -(2**63) <= int(value) < 2**63 else None
        if kind == "float64":
            return float(value) if math.isfinite(float(value)) else None
    except (TypeError, ValueError, OverflowError):
        return None
    return bool(value) if kind == "bool" else storable(str(value))


def uid_number(uid: str) -> int:
    """The identity of an episode as the number `source.uid` holds: below 2^53, so that statistics keep it exactly."""
    return int(sha256_bytes(uid.encode())[:13], 16)


def storable(text: str) -> str:
    """The text with what UTF-8 cannot hold (half a surrogate pair from a damaged JSON) written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def column_kinds(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Columns of a dataset: the fixed ones, then the union of verdict checks, sorted."""
    checks = sorted({key for r in records for key in r if key.startswith(VERDICT)})
    return {**KINDS, **dict.fromkeys(checks, "float64")}
