# SPDX-License-Identifier: Apache-2.0
"""The comparison of cameras, judged: worlds as they are and with faults of one camera planted; the tables of a split.

Resumable: one row per world, fault and pair of cameras.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bounds import upper_bound
from views_material import (
    CACHE,
    FAULTS,
    ON_THE_HAND,
    SPLITS,
    Film,
    Films,
    SharedGeometry,
    cameras_with_maps,
    faulty,
    jobs,
    planted,
)

from retake.core.episode import Episode, open_episode
from retake.core.painter.staged import staged
from retake.core.painter.textures import LINEAR_OF_BYTE
from retake.core.variants.base import World
from retake.core.variants.worlds import recipe_of
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.view_colours import lab_of_bytes
from retake.core.verdicts.views import (
    NAMES,
    PairFigures,
    ViewGeometry,
    ViewSettings,
    compare_views,
    likeness,
)

SETTINGS = ViewSettings()
NOTICED_LAB = 2.3
"""Mean change of what two cameras see below which nobody would notice a fault (the just noticeable difference of CIE Lab)."""
NEW_GRAIN = 0.6
"""1 − correlation of a camera's own picture with itself in another seed, from which its surfaces have another grain. Of ten
worlds of `tune` six are at 0.7 and more, the others (checks, ribs, weave, laminate) at 0.3 and less."""
SEEN_PX = 40
"""Pixels of an object that another camera must see for a moment to show that it was swapped."""
SHOWN, PAIRS = 20, 300
"""Worlds that must show each fault, and clean pairs, for the figures asked for."""


def rows_of(split: str) -> Path:
    """What was measured of a split."""
    return CACHE / f"rows-{split}.jsonl"


def make(options: argparse.Namespace) -> None:
    """Paint, plant and measure until the time is spent."""
    cv2.setNumThreads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    judged = [options.split, *(["spent"] if options.split == "held" else [])]
    done = {(r["episode"], r["world"]) for split in judged for r in read_rows(rows_of(split))}
    until = time.monotonic() + 60 * options.minutes
    opened: dict[Path, Episode] = {}
    for path, number, world, other in jobs(options.split):
        if number >= options.worlds:
            return
        if number % options.parts != options.part:
            continue
        if (path.name, world.name) in done:
            continue
        if time.monotonic() > until:
            print("time is spent; the same command goes on")
            return
        episode = opened.setdefault(path, open_episode(path))
        rows = _measure(episode, number, world, other, options.split)
        with rows_of(options.split).open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows))


def _measure(episode: Episode, number: int, world: World, other: World, split: str) -> list[dict[str, Any]]:
    """Rows of one world over one episode: clean, and its faults."""
    name = episode.path.name
    store = Films(CACHE / "films" / split / f"{name}-{world.name}.npz")
    shown = staged(episode, recipe_of(world))
    cameras = cameras_with_maps(episode)
    films: dict[str, Any] = {c: Film(episode, c, world, store=store) for c in cameras}
    geometry = SharedGeometry(shown)
    found = compare_views(shown, films, settings=SETTINGS, geometry=geometry)
    rows = [_row(name, world.name, "clean", "", None, pair) for pair in found]
    for fault in planted(split, number):
        bad = "wrist" if fault in ON_THE_HAND else cameras[(number + FAULTS.index(fault)) % len(cameras)]
        film = faulty(fault, films[bad], other)
        others = [c for c in cameras if c != bad]
        change = changed(films[bad], film, geometry, others, fault)
        for camera in others:
            pair = {bad: film, camera: films[camera]}
            [found] = compare_views(shown, pair, settings=SETTINGS, geometry=geometry)
            rows.append(_row(name, world.name, fault, bad, change, found))
    if split != "held":
        store.keep()
    for row in rows:
        told = {k: None if v is None else round(v, 3) for k, v in row["values"].items()}
        print(number, name, world.name, row["fault"], *row["pair"], row["change"], told, flush=True)
    return rows


def changed(clean: Any, film: Any, geometry: ViewGeometry, others: Sequence[str], fault: str) -> float | None:
    """How much a fault changes the camera's own picture where another camera sees the same; None where they see too little
    of it together in three moments. Mean Lab change (of the movable objects alone, where only they were changed); of
    another seed 1 − correlation of the grain.
    """
    camera, episode = clean.camera, clean.episode
    movable = {f"object:{o.name}" for o in episode.header.objects if o.movable}
    objects = [i.id for i in episode.header.instances if i.owner in movable]
    parts = []
    for t in np.unique(np.linspace(0, len(clean) - 1, SETTINGS.moments).astype(int)):
        seen = np.zeros(clean[t].shape[:2], np.uint8)
        for other in others:
            found = geometry.between(other, t, camera, t)
            x, y = np.rint(found.place[found.seen]).astype(int).T
            seen[y, x] = 1
        if fault == "other seed":
            # A camera with coarser pixels marks one pixel of several.
            inner = (cv2.dilate(seen, np.ones((5, 5), np.uint8)) > 0) & (geometry.at(camera, t).ids > 0)
            alike = likeness(_soft(clean[t]), _soft(film[t]), inner, SETTINGS)
            parts += [] if alike is None else [1 - alike]
            continue
        shown = (seen > 0) & (np.isin(geometry.at(camera, t).ids, objects) if fault == "object swapped" else True)
        if shown.sum() >= (SEEN_PX if fault == "object swapped" else SETTINGS.min_points):
            away = lab_of_bytes(np.asarray(film[t])) - lab_of_bytes(clean[t])
            parts.append(float(np.linalg.norm(away[shown], axis=-1).mean()))
    return float(np.mean(parts)) if len(parts) >= SETTINGS.least_moments else None


def _soft(frame: np.ndarray) -> np.ndarray:
    """Linear light at the sharpness at which cameras are compared."""
    return cv2.GaussianBlur(LINEAR_OF_BYTE[frame], (0, 0), 0.6**0.5)


def noticed(row: Mapping[str, Any]) -> bool:
    """Whether a planted fault is to be seen at all in what two cameras see."""
    limit = NEW_GRAIN if row["fault"] == "other seed" else NOTICED_LAB
    return row["change"] is not None and row["change"] >= limit


def _row(
    episode: str, world: str, fault: str, camera: str, change: float | None, pair: PairFigures
) -> dict[str, Any]:  # fmt: skip
    values = {m.name: m.value for m in pair.measurements}
    notes = {m.name: m.note for m in pair.measurements if m.note}
    return {"episode": episode, "world": world, "fault": fault, "camera": camera, "change": change,
            "pair": [pair.first, pair.second], "gain": pair.gain, "values": values, "notes": notes}  # fmt: skip


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file that may not be there yet."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def severity(row: Mapping[str, Any]) -> float | None:
    """How far the worst figure of a pair is beyond its limit (1: at it); None where nothing could be measured."""
    settings = load_settings()
    found = [settings.threshold(n).severity(v) for n, v in row["values"].items() if v is not None]
    return max(found) if found else None


def auc(clean: np.ndarray, faulty_ones: np.ndarray) -> float:
    """Probability that a faulty pair is judged worse than a clean one."""
    both = np.concatenate([clean, faulty_ones])
    order = both.argsort(kind="stable").argsort().astype(float) + 1
    for value in np.unique(both):
        order[both == value] = order[both == value].mean()
    n, m = len(clean), len(faulty_ones)
    return float((order[n:].sum() - m * (m + 1) / 2) / (n * m))


def cameras_of(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The worst figure over the pairs of a camera: of the faulty one of each row, of every one of clean rows."""
    found: dict[tuple[str, str, str], float] = {}
    for row in rows:
        for camera in [row["camera"]] if row["camera"] else row["pair"]:
            key = (row["episode"], row["world"], camera)
            found[key] = max(found.get(key, 0.0), severity(row) or 0.0)
    return np.array(list(found.values()))


def tell_split(split: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Both tables of a split, of rows in which something was measured."""
    clean = [r for r in rows if r["fault"] == "clean"]
    failed = [r for r in clean if (severity(r) or 0) > 1]
    worlds, bad_worlds = ({(r["episode"], r["world"]) for r in part} for part in (clean, failed))
    few = sum(r["episode"].split("_")[-1] in {str(s) for s in SPLITS[split].episode_seeds if s % 4 == 3} for r in clean)
    bound = 100 * upper_bound(len(failed), len(clean))
    lines = [
        f"## Split `{split}`: {len(clean)} clean pairs of cameras, {len(worlds)} worlds over "
        f"{len({r['episode'] for r in clean})} episodes", "",
        SPLITS[split].said
        + "Both demo robots; cameras front, side and wrist"
        + (f", {few} of the pairs of episodes with front and wrist alone" if few else "")
        + f"; {SETTINGS.moments} moments of each take are compared. A pair is compared alike whether there is a third camera or "
        "not. Several pairs share a world: they are no independent draws.", "",
        f"False alarms: {len(failed)} of {len(clean)} pairs ({100 * len(failed) / len(clean):.1f} %; upper end of the 95 % "
        f"interval {bound:.2f} %); {len(bad_worlds)} of {len(worlds)} worlds.", "",
        *(f"- {r['episode']}, {r['world']}, {' and '.join(r['pair'])}: {_beyond(r)}" for r in failed),
        *([""] if failed else []),
        *([f"**{len(clean)} pairs are few**: 300 are needed before the share of false alarms is bounded by 1 %. `make` goes on "
           "where it stopped.", ""] if len(clean) < PAIRS and split == "held" else []),
        f"A fault is *shown* where it changes what two cameras see of the same, in the faulty camera's own picture: by "
        f"{NOTICED_LAB} Lab on average (an object: by as much where another camera sees it), another seed by new grain "
        f"(correlation with its own clean picture below {1 - NEW_GRAIN:.1f}). AUC and share failed are of cameras: the worst "
        "figure over a camera's pairs, against all cameras of the clean worlds.", "",
        "| fault of one camera | planted | shown | AUC of those shown | failed of those shown | failed of the others |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    good, short = cameras_of(clean), []
    for fault in FAULTS:
        mine = [r for r in rows if r["fault"] == fault]
        shown, hidden = (cameras_of([r for r in mine if noticed(r) == which]) for which in (True, False))
        if len(mine):
            told = (f"{auc(good, shown):.3f}", f"{100 * (shown > 1).mean():.0f} %") if len(shown) else ("–", "–")
            if len(shown) < SHOWN:
                short.append(f"{fault}: {len(shown)} of {SHOWN} worlds that show it")
            if len(shown) and auc(good, shown) < 0.98:
                short.append(f"{fault}: AUC {auc(good, shown):.3f} of 0.98")
            rest = f"{int((hidden > 1).sum())} of {len(hidden)}" if len(hidden) else "–"
            lines.append(f"| {fault} | {len(shown) + len(hidden)} | {len(shown)} | {told[0]} | {told[1]} | {rest} |")
    lines += ["", "Not reached: " + "; ".join(short) + "."] if short else []
    lines += ["", "| figure | limit | clean pairs: median, 99 %, largest | " + " | ".join(FAULTS) + " (median) |",
              "|---|---|---|" + "---|" * len(FAULTS)]  # fmt: skip
    settings = load_settings()
    for name in NAMES:
        mine = np.array([r["values"][name] for r in clean if r["values"][name] is not None])
        if not len(mine):
            continue
        cells = []
        for fault in FAULTS:
            values = [r["values"][name] for r in rows if r["fault"] == fault and noticed(r)]
            values = [v for v in values if v is not None]
            cells.append(f"{np.median(values):.2f}" if values else "–")
        lines.append(
            f"| `{name}` | {settings.threshold(name).limit:g} | {np.median(mine):.2f}, {np.quantile(mine, 0.99):.2f}, "
            f"{mine.max():.2f} | " + " | ".join(cells) + " |"
        )  # fmt: skip
    return [*lines, ""]


def _beyond(row: Mapping[str, Any]) -> str:
    """The figures of a row that are beyond their limits."""
    settings = load_settings()
    return ", ".join(
        f"`{n}` {v:.2f} ({row['notes'].get(n, '').split(',')[0]})"
        for n, v in row["values"].items()
        if v is not None and settings.threshold(n).severity(v) > 1
    )
