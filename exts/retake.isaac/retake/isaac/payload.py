# SPDX-License-Identifier: Apache-2.0
"""A Replicator writer's payload (layout `renderProduct`) to raw views, without touching a pixel.

Only references travel from here to the writer's thread: Replicator hands out its own copies (`do_array_copy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.episode.records import Channel
from retake.core.errors import StageError

ANNOTATORS: dict[str, tuple[str, ...]] = {
    "rgb": ("rgb",),
    "depth": ("distance_to_image_plane",),
    "normals": ("normals",),
    "instances": ("instance_id_segmentation_fast", "instance_id_segmentation"),
}
"""Episode channel -> annotators, the first that this Replicator knows. Ids of prims need no labels on the stage; NVIDIA calls
the plain one a hidden legacy node and supports the fast one (isaacsim.replicator.experimental.mobility_gen 6.0.1)."""
CAMERA = "camera_params"


@dataclass(frozen=True)
class RawView:
    """What one render product delivered for one frame, in the simulator's form."""

    images: Mapping[str, np.ndarray]
    """Channel -> array: rgb uint8 (H, W, 4), depth float32 (H, W) stage units, normals float32 (H, W, 4),
    instances uint32 (H, W)."""
    id_to_path: Mapping[int, str]
    """Instance id -> prim path, for this frame."""
    camera: Mapping[str, Any]
    """The camera_params annotator: the camera this frame was rendered with."""


def reference_time(data: Mapping[str, Any]) -> tuple[int, int]:
    """The frame's rational time (numerator, denominator). Raises StageError where Replicator sends none."""
    found = data.get("reference_time")
    try:
        numerator, denominator = found  # type: ignore[misc]
        return int(numerator), int(denominator)
    except (TypeError, ValueError):
        raise StageError(
            f"Replicator's payload has no reference_time (found {found!r}), so a frame cannot be tied to a state; "
            "Retake needs omni.replicator.core 1.11.2 or newer"
        ) from None


def render_products(data: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Render product name -> its entries. Raises StageError for another layout."""
    found = data.get("renderProducts")
    if not isinstance(found, Mapping):
        raise StageError(
            f"Replicator's payload has the keys {sorted(map(str, data))}; expected 'renderProducts' "
            "(writer.data_structure = 'renderProduct', omni.replicator.core 1.11.2 or newer)"
        )
    return found


def raw_view(entries: Mapping[str, Any], channels: tuple[Channel, ...], product: str) -> RawView:
    """The entries of one render product as a RawView. Raises StageError naming what is missing."""
    images: dict[str, np.ndarray] = {}
    id_to_path: dict[int, str] = {}
    for channel in channels:
        names = ANNOTATORS[channel]
        array, info = _data(next((entries[name] for name in names if name in entries), None))
        if array is None or array.size == 0:
            raise StageError(
                f"render product {product!r} delivered no {names[-1]} ({channel}); it has "
                f"{', '.join(sorted(map(str, entries))) or 'nothing'}"
            )
        images[channel] = array
        if channel == "instances":
            id_to_path = _labels(info)
    camera = entries.get(CAMERA)
    if not isinstance(camera, Mapping):
        raise StageError(f"render product {product!r} delivered no {CAMERA}; the camera of a frame cannot be known")
    return RawView(images, id_to_path, camera)


def _data(entry: Any) -> tuple[np.ndarray | None, Mapping[str, Any]]:
    """Array and side information of an annotator: {"data": array, …}, or a bare array."""
    if isinstance(entry, Mapping):
        data, info = entry.get("data"), entry.get("info", entry)
        return (None if data is None else np.asarray(data)), info if isinstance(info, Mapping) else {}
    return (None if entry is None else np.asarray(entry)), {}


def _labels(info: Mapping[str, Any]) -> dict[int, str]:
    """idToLabels: keys may be ints or strings, values a prim path or a mapping that holds it."""
    table = info.get("idToLabels", {})
    out = {}
    for key, value in table.items():
        path = value if isinstance(value, str) else next((str(v) for v in dict(value).values()), "")
        out[int(key)] = path
    return out
