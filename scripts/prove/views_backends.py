# SPDX-License-Identifier: Apache-2.0
"""How well the cameras of a world agree, backend by backend: first frames and encoded takes, made as a run makes them.

`procedural` and `composite` are the CPU backends. The CPU painter also stands in for a model that paints one camera: the other
cameras' first frames are then carried and completed, their takes composited over them or re-projected from the anchor's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from views_material import cameras_with_maps, keep, recorded

from retake.core.episode import Episode, open_episode
from retake.core.files import write_json
from retake.core.painter.composite import CompositeBackend
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.reproject import ReprojectBackend
from retake.core.painter.staged import staged
from retake.core.run_layout import VARIANT_FRAME
from retake.core.takes import TakeRequest, make_take
from retake.core.variants.base import World
from retake.core.variants.carry import complete_by_rendering
from retake.core.variants.gated import make_gated_variants
from retake.core.variants.make import read_frame
from retake.core.variants.worlds import load_catalogue, recipe_of
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.views import NAMES, VIEWS_VERSION, ViewSettings, compare_views
from retake.core.video import read_video

STILL = ViewSettings(moments=1, least_moments=1)
"""Of a first frame there is one moment."""
PAINTED = (
    ("procedural", "first frames"),
    ("composite", "takes of procedural worlds"),
    ("carried", "first frames: one camera painted, the others carried and completed"),
    ("composite over carried", "takes: simulated robot and objects over those frames"),
    ("reprojected", "takes: the anchor's by composite, the others re-projected from it"),
)


class Completing(ProceduralBackend):
    """The painter as a model that paints one camera, and of others what is missing."""

    name = "completing"
    parallel = False

    def complete(
        self, source: Any, world: World, seed: int, known: Any, missing: Any, check_cancel: Any = lambda: None
    ) -> Any:
        """See `CompletingBackend`."""
        return complete_by_rendering(self, source, world, seed, known, missing, check_cancel)


def backends(options: argparse.Namespace) -> None:
    """Measure every backend over the episodes; kept row by row."""
    cv2.setNumThreads(1)
    out: list[dict[str, Any]] = []
    worlds = [load_catalogue().preset(name) for name in ("kitchen", "garden", "warehouse")[: options.worlds]]
    for path in recorded(options.episodes):
        episode = open_episode(path)
        for world in worlds:
            with tempfile.TemporaryDirectory() as folder:
                for name, shown, films, settings in _made(episode, world, Path(folder)):
                    for pair in compare_views(shown, films, settings=settings):
                        values = {m.name: m.value for m in pair.measurements}
                        out.append({"backend": name, "episode": path.name, "world": world.name,
                                    "pair": [pair.first, pair.second], "values": values, "version": VIEWS_VERSION})  # fmt: skip
                        print(out[-1], flush=True)
            keep("backends", out)


def _made(
    episode: Episode, world: World, folder: Path
) -> Iterator[tuple[str, Episode, Mapping[str, Sequence[np.ndarray]], ViewSettings | None]]:
    """(backend, what its objects are shown as, film of every camera, settings) of a world."""
    cameras = cameras_with_maps(episode)
    shaped = staged(episode, recipe_of(world))
    made = make_gated_variants(
        episode, cameras, folder / "own", worlds=(world,), backend=ProceduralBackend(), gate=False
    )
    variants = {v.source["camera"]: folder / "own" / v.id for v in made.variants}
    yield "procedural", shaped, {c: [read_frame(variants[c] / VARIANT_FRAME)] for c in cameras}, STILL
    yield "composite", shaped, {c: _take(episode, c, variants[c], folder / "takes" / c) for c in cameras}, None
    # A model paints the objects that the simulation shows, not the shapes of a world.
    plain = replace(world, parameters={**world.parameters, "subject": {"shape": ""}})
    made = make_gated_variants(episode, cameras, folder / "carried", worlds=(plain,), backend=Completing(), gate=False)
    variants = {v.source["camera"]: folder / "carried" / v.id for v in made.variants}
    yield "carried", episode, {c: [read_frame(variants[c] / VARIANT_FRAME)] for c in cameras}, STILL
    over = {c: _take(episode, c, variants[c], folder / "over" / c) for c in cameras}
    yield "composite over carried", episode, over, None
    anchor = _anchor(variants)
    seen = {
        c: over[c] if c == anchor else _take(episode, c, variants[c], folder / "seen" / c, folder / "over" / anchor)
        for c in cameras
    }
    yield "reprojected", episode, seen, None


def _anchor(variants: Mapping[str, Path]) -> str:
    """The camera that was painted."""
    from retake.core.files import read_json
    from retake.core.run_layout import VARIANT_RECORD

    [painted] = [c for c, path in variants.items() if read_json(path / VARIANT_RECORD)["origin"]["kind"] == "painted"]
    return painted


def _take(episode: Episode, camera: str, variant: Path, folder: Path, anchor: Path | None = None) -> list[np.ndarray]:
    """Frames of an encoded take over a first frame: composited, or re-projected from the take in the folder `anchor`."""
    skeleton = folder.parent / f"skeleton-{camera}"
    skeleton.mkdir(parents=True, exist_ok=True)
    write_json(skeleton / "skeleton.json", {"sha256": "0" * 64})  # neither backend looks at it
    settings = {} if anchor is None else {"take": str(anchor)}
    request = TakeRequest(episode.path, camera, skeleton, variant, "", frames=0, settings=settings)
    take = make_take(request, CompositeBackend() if anchor is None else ReprojectBackend(), folder)
    return [np.ascontiguousarray(frame) for frame in read_video(take.video)]


def tell_backends(found: Sequence[dict[str, Any]]) -> list[str]:
    """The table."""
    settings = load_settings()
    worlds, episodes = ({row[key] for row in found} for key in ("world", "episode"))
    older = {row.get("version", "2") for row in found} != {VIEWS_VERSION}
    lines = [
        "## Agreement of the cameras, by backend", "",
        f"Worlds: {', '.join(sorted(worlds))}; {len(episodes)} episodes of three cameras, every pair of them. Takes are encoded "
        "and read back. No model runs here: for *carried*, the CPU painter stands in for one that paints a single camera, that "
        "which sees most. Median and largest figure; pairs beyond a limit."
        + (" Measured by the comparison as it was for `spent`." if older else ""), "",
        "| backend | pictures | pairs | " + " | ".join(f"`{n}`" for n in NAMES) + " | beyond a limit |",
        "|---|---|---|" + "---|" * len(NAMES) + "---|",
    ]  # fmt: skip
    for name, pictures in PAINTED:
        mine = [r for r in found if r["backend"] == name]
        if not mine:
            continue
        cells, beyond = [], 0
        for figure in NAMES:
            values = [r["values"][figure] for r in mine if r["values"][figure] is not None]
            cells.append(f"{np.median(values):.2f}, {max(values):.2f}" if values else "–")
        for row in mine:
            told = [settings.threshold(n).severity(v) for n, v in row["values"].items() if v is not None]
            beyond += bool(told and max(told) > 1)
        lines.append(f"| {name} | {pictures} | {len(mine)} | " + " | ".join(cells) + f" | {beyond} |")
    lines += [
        "", "Over carried first frames a take looks up what its own first frame does not show in those of the world's other "
        "cameras; what none of them shows is the simulation's picture, toned thing by thing alike for all cameras.", "",
    ]  # fmt: skip
    return lines
