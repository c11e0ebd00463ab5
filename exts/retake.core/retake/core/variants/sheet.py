# SPDX-License-Identifier: Apache-2.0
"""Contact sheet and tables of a set of variants: the picture to look at, and how diverse the set is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import VariantError
from retake.core.files import write_bytes
from retake.core.run_layout import VARIANT_FRAME
from retake.core.variants.base import Variant
from retake.core.variants.gate import distances
from retake.core.variants.make import read_frame
from retake.core.variants.sampler import coverage
from retake.core.variants.worlds import Catalogue

BAR_PX, GAP_PX = 18, 4


def contact_sheet(
    frames: Sequence[tuple[str, UInt8[np.ndarray, "H W 3"]]], *, columns: int = 6, width: int = 240
) -> UInt8[np.ndarray, "H W 3"]:
    """All frames in a grid with their names below. Raises VariantError for none."""
    if not frames:
        raise VariantError("no frames to put on a contact sheet")
    height = round(width * frames[0][1].shape[0] / frames[0][1].shape[1])
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    cell = (height + BAR_PX + GAP_PX, width + GAP_PX)
    sheet = np.full((rows * cell[0] + GAP_PX, columns * cell[1] + GAP_PX, 3), 24, np.uint8)
    for k, (name, frame) in enumerate(frames):
        y, x = GAP_PX + (k // columns) * cell[0], GAP_PX + (k % columns) * cell[1]
        # A camera of another shape keeps its own within the cell.
        scale = min(width / frame.shape[1], height / frame.shape[0])
        w, h = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
        top, left = y + (height - h) // 2, x + (width - w) // 2
        sheet[top : top + h, left : left + w] = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA)
        fit = min(0.4, 0.4 * width / max(1, cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)[0][0]))
        where = (x + 2, y + height + BAR_PX - 6)
        cv2.putText(sheet, name, where, cv2.FONT_HERSHEY_SIMPLEX, fit, (225, 225, 225), 1, cv2.LINE_AA)
    return sheet


def write_sheet(
    variants: Sequence[Variant], folder: Path, path: Path, *, columns: int = 0, width: int = 0, group: int = 1
) -> None:
    """The contact sheet of variants that lie in `folder`, as PNG; by default at most about 2000 px wide. `group` of them,
    the cameras of one world, stand in one row."""
    columns = columns or max(min(len(variants), 5), round((1.2 * len(variants)) ** 0.5))
    columns = max(1, columns // group) * group
    width = width or min(320, 2000 // columns)
    frames = [(variant.id, read_frame(Path(folder) / variant.id / VARIANT_FRAME)) for variant in variants]
    ok, png = cv2.imencode(".png", cv2.cvtColor(contact_sheet(frames, columns=columns, width=width), cv2.COLOR_RGB2BGR))
    if not ok:
        raise VariantError(f"the contact sheet of {len(frames)} frames could not be encoded")
    write_bytes(Path(path), png.tobytes())


def diversity(variants: Sequence[Variant], folder: Path, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """How different the set is: pairwise thumbnail distances (8-bit steps), nearest pairs, counts per axis value."""
    frames = [read_frame(Path(folder) / variant.id / VARIANT_FRAME) for variant in variants]
    table = distances(frames)
    upper = table[np.triu_indices(len(frames), 1)]
    pairs: Iterator[tuple[int, int]] = ((i, j) for i in range(len(frames)) for j in range(i))
    nearest = sorted(pairs, key=lambda p: float(table[p]))[:3]
    return {
        "variants": len(frames),
        "pair_distance": {
            "min": float(upper.min()) if len(upper) else None,
            "median": float(np.median(upper)) if len(upper) else None,
            "mean": float(upper.mean()) if len(upper) else None,
        },
        "nearest": [[variants[i].id, variants[j].id, float(table[i, j])] for i, j in nearest],
        "coverage": coverage([variant.world for variant in variants], catalogue),
    }


def gate_table(record: Mapping[str, Any]) -> str:
    """gate.md: what was delivered, what is missing and why, and how diverse the set is. `record` is gate.json's content."""
    delivered, missing, limits = record["delivered"], record["missing"], ("world", "seed", "attempt")
    total = len(delivered) + sum(len(entry["cameras"]) for entry in missing.values())
    names = list(dict.fromkeys(c["name"] for entry in delivered.values() for c in entry["checks"]))
    bounds = {c["name"]: c["limit"] for entry in delivered.values() for c in entry["checks"]}
    measured = "" if record["gate"] else " Nothing was measured: the gate was off."
    lines = ["# Variants", "", f"{len(delivered)} of {total} delivered.{measured}", ""]
    if missing:
        lines += ["| missing | attempts | the last failed for |", "|---|---|---|"]
        for entry in missing.values():
            for name, reasons in entry["cameras"].items():
                lines.append(f"| {name} | {len(entry['failed'])} | {'; '.join(reasons)} |")
        lines.append("")
    if delivered:
        lines.append("| " + " | ".join((*limits, *(f"{n} {bounds[n]}" for n in names))) + " |")
        lines.append("|" + "---|" * (len(limits) + len(names)))
    for name, entry in delivered.items():
        values = {c["name"]: f"{c['value']:.3g}" for c in entry["checks"]}
        cells = (name, entry["seed"], len(entry["failed"]) + 1, *(values.get(n, "") for n in names))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if (set_of := record["diversity"]) and set_of["variants"] > 1:
        pairs = set_of["pair_distance"]
        lines += ["", f"Difference of two worlds (mean 8-bit difference of 32x24 Lab thumbnails): nearest "
                  f"{pairs['min']:.1f} ({set_of['nearest'][0][0]}, {set_of['nearest'][0][1]}), "
                  f"median {pairs['median']:.1f}.", "", "| axis | values that occur |", "|---|---|"]  # fmt: skip
        for axis, counts in set_of["coverage"].items():
            lines.append(f"| {axis} | {', '.join(f'{n} {k}' for n, k in counts.items() if k)} |")
    return "\n".join(lines) + "\n"
