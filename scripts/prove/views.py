# SPDX-License-Identifier: Apache-2.0
"""The comparison of cameras, proven: worlds of the CPU painter over episodes of several cameras, as they are and with faults
of one camera planted. Resumable: one row per world, fault and pair of cameras. Writes docs/proof/views.md.

    python scripts/prove/views.py episodes --split tune         both demo robots, two and three cameras
    python scripts/prove/views.py make --split tune --minutes 5
    python scripts/prove/views.py table
    python scripts/prove/views.py marks
    python scripts/prove/views.py carry
    python scripts/prove/views.py sheet                         eight worlds through three cameras, to look at
    python scripts/prove/views.py subjects                      subjects before and after they had shapes

Episodes are recorded at 320x240, the size at which cameras are compared; films are painted at the moments that are compared
and kept, so that one painting serves every fault that does not repaint it. The split `tune` is what limits may be looked
for on, and so is `tried`: it was held until it was judged, raised false alarms and led to changes (as did worlds of seed 1700
before it). `held` is for the table: other episodes and other worlds, judged once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.camera import Camera
from retake.core.episode import Episode, open_episode
from retake.core.painter.dresser import Dresser
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.staged import staged
from retake.core.painter.textures import LINEAR_OF_BYTE
from retake.core.variants.base import MAPS, SourceFrame, World, source_frame
from retake.core.variants.correspond import Correspondence
from retake.core.variants.sampler import sample_worlds
from retake.core.variants.worlds import load_catalogue, recipe_of
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.views import (
    NAMES,
    PairFigures,
    ViewGeometry,
    ViewSettings,
    compare_views,
    lab_of_bytes,
    likeness,
)

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "views"
PROOF = ROOT / "docs" / "proof" / "views.md"
WORLD_SEED = {"tune": 900, "tried": 4100, "held": 5300}
EPISODE_SEEDS = {"tune": (101, 102), "tried": (201, 202, 203, 204), "held": (301, 302)}
"""Odd ones have bystanders and a cabinet; every fourth has two cameras, the others three (a pair is compared alike in both)."""
SAID = {
    "held": "Limits were chosen on other worlds over other episodes (`tune`: 22 worlds over 4; `tried`: 18 over 8, held until "
    "they were judged with 6 false alarms of 48 pairs, which led to changes: texture that one picture alone shows and gloss of "
    "a coloured lamp are left out since). When 93 of these worlds had been judged once, 8 of 279 clean pairs had failed, all by "
    "`view_instances` under warm or hard light (limit 7). The limit is 15 since, so for this figure they are tuning data: none "
    "of them fails now, of worlds with an object swapped 16 of 26 fail instead of 19, with a shifted hue 24 of 27 instead of 27. "
    "Of the other figures' limits these worlds tuned none. ",
    "tried": "Held until it was judged; what then failed led to changes of the comparison, by which it is shown here anew: it "
    "is tuning data. ",
    "tune": "What limits were chosen on. ",
}
SETTINGS = ViewSettings()
FAULTS = ("simulated", "other world", "other seed", "hue shift", "mirrored", "one frame late", "object swapped")
ON_THE_HAND = ("simulated", "mirrored", "one frame late")
"""Faults that are planted in the wrist camera; the others take each camera in turn."""
HARD = ("other seed", "hue shift", "object swapped")
NOTICED_LAB = 2.3
"""Mean change of what two cameras see below which nobody would notice a fault (the just noticeable difference of CIE Lab)."""
NEW_GRAIN = 0.6
"""1 − correlation of a camera's own picture with itself in another seed, from which its surfaces have another grain. Of ten
worlds of `tune` six are at 0.7 and more, the others (checks, ribs, weave, laminate) at 0.3 and less."""


class Films:
    """Painted pictures of one world over one episode, by camera, kind of world and frame; kept on disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.new = path, False
        self.known: dict[str, np.ndarray] = {}
        if path.is_file():
            with np.load(path) as data:
                self.known = {name: data[name] for name in data.files}

    def keep(self) -> None:
        """To disk, where anything was painted since."""
        if self.new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self.path, **self.known)  # type: ignore[arg-type]
            self.new = False


class Film:
    """A camera's film in a world, painted frame by frame when a frame is asked for."""

    def __init__(
        self,
        episode: Episode,
        camera: str,
        world: World,
        seed: int = 0,
        store: Films | None = None,
        kind: str = "clean",
    ) -> None:
        self.episode, self.camera, self.world, self.seed, self.kind = episode, camera, world, seed, kind
        self.store = store
        self._dresser: Dresser | None = None
        self._known: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, t: int) -> np.ndarray:
        name = f"{self.camera}|{self.kind}|{t}"
        if t not in self._known and self.store is not None and name in self.store.known:
            self._known[t] = self.store.known[name]
        if t not in self._known:
            if self._dresser is None:
                first = halved(source_frame(self.episode, self.camera, 0))
                self._dresser = ProceduralBackend().dresser(first, self.world, self.seed)
            self._known[t] = self._dresser.render(halved(source_frame(self.episode, self.camera, t)))
            if self.store is not None:
                self.store.known[name], self.store.new = self._known[t], True
        return self._known[t]


class Changed:
    """A film with something done to every frame."""

    def __init__(self, film: Any, change: Callable[[int], np.ndarray]) -> None:
        self.film, self.change = film, change

    def __len__(self) -> int:
        return len(self.film)

    def __getitem__(self, t: int) -> np.ndarray:
        return self.change(int(t))


class SharedGeometry(ViewGeometry):
    """Correspondences kept as well: every fault of a world is compared through the same ones."""

    def __init__(self, episode: Episode) -> None:
        super().__init__(episode, 0, 320)
        self._between: dict[tuple[str, int, str, int], Correspondence] = {}

    def between(self, first: str, t: int, second: str, u: int) -> Correspondence:
        """See ViewGeometry."""
        key = (first, t, second, u)
        if key not in self._between:
            self._between[key] = super().between(*key)
        return self._between[key]


def halved(source: SourceFrame) -> SourceFrame:
    """Every second pixel of a frame, with the camera that sees them; small frames stay as they are."""
    if source.camera.size[0] <= 320:
        return source
    maps = (source.rgb, source.depth_m, source.normals, source.instance_ids)
    rgb, depth, normals, ids = (np.ascontiguousarray(m[::2, ::2]) for m in maps)
    # Small pixel i shows large pixel 2i, whose centre 2i + 0.5 is at i + 0.5: half of it, and a quarter more.
    K = np.array([[0.5, 0, 0.25], [0, 0.5, 0.25], [0, 0, 1.0]]) @ source.camera.K
    camera = Camera(K, source.camera.T_camera_world, (ids.shape[1], ids.shape[0]), source.camera.lens)
    return replace(source, camera=camera, rgb=rgb, depth_m=depth, normals=normals, instance_ids=ids)


def folder_of(split: str) -> Path:
    """The episodes of a split."""
    return CACHE / "episodes" / split


def episodes(options: argparse.Namespace) -> None:
    """Record the episodes of a split that are not there yet."""
    from film_episodes import WRIST, film_stage, record

    from retake.newton.preset import load_preset
    from retake.newton.scenario import build

    for seed in EPISODE_SEEDS[options.split]:
        for robot, wrist in WRIST.items():
            path = folder_of(options.split) / f"{robot}_{seed}"
            if (path / "complete.json").exists():
                continue
            prims = {"front": "/World/Camera", "side": "/World/Side", "wrist": wrist}
            if seed % 4 == 3:
                del prims["side"]
            asked = {
                "scenario": "pick_place", "task": "pick up the packet and drop it in the tray", "object": "packet",
                "target": "tray",
                "cameras": [{"name": n, "size": [320, 240], "prim": p} for n, p in prims.items()],
                "randomise": {"drop_height_m": [0.03, 0.08] if seed // 2 % 2 == 0 else [0.08, 0.16]},
            }  # fmt: skip
            shutil.rmtree(path, ignore_errors=True)
            with tempfile.TemporaryDirectory() as temporary:
                preset = load_preset("short", asked, own_stage=True)
                record(path, preset, build(preset, seed, film_stage(robot, seed, Path(temporary))), seed)
            print(path, flush=True)


def faulty(fault: str, film: Film, other: World) -> Any:
    """One camera's film with a fault."""
    episode, camera, size = film.episode, film.camera, film[0].shape[1::-1]
    if fault == "simulated":
        return Changed(film, lambda t: cv2.resize(episode.image(camera, "rgb", t), size, interpolation=cv2.INTER_AREA))
    if fault == "other world":
        return Film(episode, camera, other, store=film.store, kind=f"{fault} {other.name}")
    if fault == "other seed":
        return Film(episode, camera, film.world, film.seed + 1, film.store, fault)
    if fault == "mirrored":
        return Changed(film, lambda t: np.ascontiguousarray(film[t][:, ::-1]))
    if fault == "one frame late":
        return Changed(film, lambda t: film[max(t - 1, 0)])
    if fault == "hue shift":
        return Changed(film, lambda t: _turned(film[t], 24))
    swapped = Film(
        episode, camera, replace(film.world, subject=other.subject), 0, film.store, f"{fault} {other.subject}"
    )

    def swap(t: int) -> np.ndarray:
        source = halved(source_frame(episode, camera, t))
        mask = cv2.dilate(source.mask("object:").astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        return np.where(mask[..., None], swapped[t], film[t])

    return Changed(film, swap)


def _turned(frame: np.ndarray, degrees: int) -> np.ndarray:
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def jobs(split: str) -> Iterator[tuple[Path, int, World, World]]:
    """(episode, number, world, another world), so that a run cut short has seen every episode. Two cameras are one pair,
    three are three: episodes of two take every second turn."""
    paths = sorted(p.parent for p in folder_of(split).glob("*/complete.json"))
    drawn = sample_worlds(240, WORLD_SEED[split])
    number = 0
    for k in range(240 // max(len(paths), 1)):
        for path in paths:
            few = int(path.name.split("_")[-1]) % 4 == 3
            if number < len(drawn) and not (few and k % 2):
                later = (drawn[(number + 97 + m) % len(drawn)] for m in range(len(drawn)))
                yield path, number, drawn[number], next(w for w in later if w.subject != drawn[number].subject)
                number += 1


def planted(split: str, number: int) -> list[str]:
    """Which faults a world gets: two in turn, and on `tune` those that are hard to tell."""
    return [FAULTS[(2 * number + k) % len(FAULTS)] for k in range(2)] if split != "tune" else [
        f for k, f in enumerate(FAULTS) if f in HARD or k == number % len(FAULTS)
    ]  # fmt: skip


def make(options: argparse.Namespace) -> None:
    """Paint, plant and measure until the time is spent."""
    cv2.setNumThreads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    rows_file = CACHE / f"rows-{options.split}.jsonl"
    done = {(r["episode"], r["world"]) for r in _rows(rows_file)}
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
        with rows_file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows))


def _measure(episode: Episode, number: int, world: World, other: World, split: str) -> list[dict[str, Any]]:
    """Rows of one world over one episode: clean, and its faults."""
    name = episode.path.name
    store = Films(CACHE / "films" / split / f"{name}-{world.name}.npz")
    shown = staged(episode, recipe_of(world))
    cameras = [c.name for c in episode.header.cameras if set(c.channels) >= MAPS]
    films: dict[str, Any] = {c: Film(episode, c, world, store=store) for c in cameras}
    geometry = SharedGeometry(shown)
    found = compare_views(shown, films, settings=SETTINGS, geometry=geometry)
    rows = [_row(name, world.name, "clean", "", None, pair) for pair in found]
    for k, fault in enumerate(planted(split, number)):
        bad = "wrist" if fault in ON_THE_HAND else cameras[(number + k) % len(cameras)]
        film = faulty(fault, films[bad], other)
        others = [c for c in cameras if c != bad]
        change = changed(films[bad], film, geometry, others, fault)
        for camera in cameras:
            if camera != bad:
                pair = {bad: film, camera: films[camera]}
                [found] = compare_views(shown, pair, settings=SETTINGS, geometry=geometry)
                rows.append(_row(name, world.name, fault, bad, change, found))
    if split == "tune":
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
        if shown.sum() >= (SETTINGS.min_instance if fault == "object swapped" else SETTINGS.min_points):
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


def _rows(path: Path) -> list[dict[str, Any]]:
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


def upper_bound(failures: int, count: int) -> float:
    """Upper end of the exact one-sided 95 % interval of a share."""
    low, high = failures / count, 1.0
    if failures >= count:
        return 1.0
    from math import comb

    for _ in range(60):
        p = (low + high) / 2
        below = sum(comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(failures + 1))
        low, high = (p, high) if below > 0.05 else (low, p)
    return high


def cameras_of(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The worst figure over the pairs of a camera: of the faulty one of each row, of every one of clean rows."""
    found: dict[tuple[str, str, str], float] = {}
    for row in rows:
        for camera in [row["camera"]] if row["camera"] else row["pair"]:
            key = (row["episode"], row["world"], camera)
            found[key] = max(found.get(key, 0.0), severity(row) or 0.0)
    return np.array(list(found.values()))


def table(_: argparse.Namespace) -> None:
    """docs/proof/views.md from the rows."""
    lines = ["# One world, all cameras", "", "`scripts/prove/views.py` writes this file.", ""]
    for split in ("held", "tried", "tune"):
        rows = [r for r in _rows(CACHE / f"rows-{split}.jsonl") if severity(r) is not None]
        if any(r["fault"] == "clean" for r in rows):
            lines += _tell_split(split, rows)
    lines += [
        "What cannot be told: an object that no second camera sees from the same side, and another seed of surfaces whose "
        "grain is none of the seed's (checks, ribs, weave, laminate).", "",
    ]  # fmt: skip
    for name, tell in (("marks", _tell_marks), ("carry", _tell_carry)):
        path = CACHE / f"{name}.json"
        if path.is_file():
            lines += tell(json.loads(path.read_text("utf-8")))
    PROOF.write_text("\n".join(lines), "utf-8")
    print(PROOF)


def _tell_split(split: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Both tables of a split, of rows in which something was measured."""
    clean = [r for r in rows if r["fault"] == "clean"]
    failed = [r for r in clean if (severity(r) or 0) > 1]
    worlds, bad_worlds = ({(r["episode"], r["world"]) for r in part} for part in (clean, failed))
    few = sum(r["episode"].split("_")[-1] in {str(s) for s in EPISODE_SEEDS[split] if s % 4 == 3} for r in clean)
    bound = 100 * upper_bound(len(failed), len(clean))
    lines = [
        f"## Split `{split}`: {len(clean)} clean pairs of cameras, {len(worlds)} worlds over "
        f"{len({r['episode'] for r in clean})} episodes", "",
        SAID[split]
        + "Both demo robots; cameras front, side and wrist"
        + (f", {few} of the pairs of episodes with front and wrist alone" if few else "")
        + f"; {SETTINGS.moments} moments of each take are compared. A pair is compared alike whether there is a third camera or "
        "not. Several pairs share a world: they are no independent draws.", "",
        f"False alarms: {len(failed)} of {len(clean)} pairs ({100 * len(failed) / len(clean):.1f} %; upper end of the 95 % "
        f"interval {bound:.2f} %); {len(bad_worlds)} of {len(worlds)} worlds.", "",
        *(f"- {r['episode']}, {r['world']}, {' and '.join(r['pair'])}: {_beyond(r)}" for r in failed),
        *([""] if failed else []),
        *([f"**{len(clean)} pairs are few**: 300 are needed before the share of false alarms is bounded by 1 %. `make` goes on "
           "where it stopped.", ""] if len(clean) < 300 and split == "held" else []),
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
            if len(shown) < 20:
                short.append(f"{fault}: {len(shown)} of 20 worlds that show it")
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


def _tell_marks(found: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "## A marked point of the world in every camera", "",
        "Windows of the first camera's picture looked for in the second's, at subpixel accuracy, after both were laid over each "
        "other by depth; px of the first picture, 320 px wide, and share within a pixel of the coarser of the two (what the hand "
        "sees in five pixels the others see in one).", "",
        "| episode | cameras | windows | median | 95 % | share within 1 px | within 1 px of the coarser |",
        "|---|---|---|---|---|---|---|",
        *(f"| {m['episode']} | {m['first']}, {m['second']} | {m['windows']} | {m['median']:.2f} | {m['p95']:.2f} | "
          f"{100 * m['within']:.1f} % | {100 * m['coarser']:.1f} % |" for m in found), "",
    ]  # fmt: skip


def _tell_carry(found: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "## Anchor and carry", "",
        "The CPU painter stands in for a model: its frame of the anchor camera is carried to the other cameras and compared "
        "there with its own frame. SSIM of grey values and Lab difference where both cameras see the same; the share that had "
        "to be painted anew (the robot, which is locked, left out).", "",
        "| episode | anchor, camera | worlds | SSIM | Lab difference, median | carried | painted anew |",
        "|---|---|---|---|---|---|---|",
        *(f"| {m['episode']} | {m['anchor']}, {m['camera']} | {m['worlds']} | {m['ssim']:.3f} | {m['lab']:.2f} | "
          f"{100 * m['carried']:.0f} % | {100 * m['inpainted']:.0f} % |" for m in found), "",
    ]  # fmt: skip


def _keep(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """What is known so far: a run that is cut short has said what it measured."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / f"{name}.json").write_text(json.dumps(rows, indent=1), "utf-8")


def carried(options: argparse.Namespace) -> None:
    """The carried frame against the painter's own second view."""
    from retake.core.variants.carry import anchor_of, carry
    from retake.core.variants.roles import ROBOT, find_roles
    from retake.core.verdicts.views import lab_of_bytes

    out = []
    worlds = [load_catalogue().preset(name) for name in ("kitchen", "garden", "warehouse")]
    for path in sorted(options.episodes.glob("*/complete.json")):
        episode = open_episode(path.parent)
        cameras = [c.name for c in episode.header.cameras if set(c.channels) >= MAPS]
        sources = [halved(source_frame(episode, c, 0)) for c in cameras]
        first = anchor_of(sources)
        rows: dict[str, list[tuple[float, ...]]] = {}
        for world in worlds:
            painter = ProceduralBackend()
            seen = [painter.shown(source, world) for source in sources]
            frames = [painter.render(source, world, 0) for source in sources]
            for k, camera in enumerate(cameras):
                if k == first:
                    continue
                got = carry(seen[first], frames[first], seen[k])
                if got.known.sum() < 400:
                    continue
                robot = find_roles(sources[k]).role[sources[k].instance_ids] == ROBOT
                lab = np.linalg.norm(lab_of_bytes(got.frame) - lab_of_bytes(frames[k]), axis=-1)[got.known]
                anew = float((~got.known & ~robot).mean())
                alike = _ssim(got.frame, frames[k], got.known)
                rows.setdefault(camera, []).append((alike, float(np.median(lab)), got.share, anew))
        for camera, values in rows.items():
            ssim, lab, share, anew = np.mean(values, axis=0)
            out.append({"episode": path.parent.name, "anchor": cameras[first], "camera": camera, "worlds": len(values),
                        "ssim": ssim, "lab": lab, "carried": share, "inpainted": anew})  # fmt: skip
            print(out[-1], flush=True)
        _keep("carry", out)


def _ssim(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Structural similarity of grey values (Wang et al. 2004; 11 px Gaussian windows), mean over pixels whose window is
    known."""
    x, y = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY).astype(np.float64) for i in (a, b))
    x = np.where(where, x, y)  # outside, windows would see the missing pixels
    inside = cv2.erode(where.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    if not inside.any():
        return float("nan")
    blur = lambda i: cv2.GaussianBlur(i, (11, 11), 1.5)  # noqa: E731
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(value[inside].mean())


def marks(options: argparse.Namespace) -> None:
    """How far a point of the world is from where the other camera shows it: local registration of aligned pictures."""
    from retake.core.variants.correspond import correspond, view_of
    from retake.core.verdicts.views import displacement

    out = []
    worlds = [load_catalogue().preset(name) for name in ("kitchen_country", "kitchen")[: options.worlds]]
    for path in sorted(options.episodes.glob("*/complete.json")):
        episode = open_episode(path.parent)
        cameras = [c.name for c in episode.header.cameras if set(c.channels) >= MAPS]
        away: dict[tuple[str, str], list[np.ndarray]] = {}
        for world in worlds:
            shown = staged(episode, recipe_of(world))
            films = {c: Film(episode, c, world) for c in cameras}
            for t in (0, len(episode) // 2, len(episode) - 1):
                for a, b in combinations(cameras[::-1], 2):
                    views = [view_of(halved(source_frame(shown, c, t))) for c in (a, b)]
                    where = correspond(*views)
                    found = displacement(films[a][t], films[b][t], where)
                    coarser = max(float(np.median(where.scale[where.seen])), 1.0) if where.seen.any() else 1.0
                    away.setdefault((a, b), []).append(np.stack([found, found / coarser]))
        for (a, b), parts in away.items():
            px, of_coarser = np.concatenate(parts, axis=1)
            if len(px) >= 20:
                out.append({"episode": path.parent.name, "first": a, "second": b, "windows": len(px),
                            "median": float(np.median(px)), "p95": float(np.quantile(px, 0.95)),
                            "within": float((px <= 1).mean()), "coarser": float((of_coarser <= 1).mean())})  # fmt: skip
                print(out[-1], flush=True)
        _keep("marks", out)


SHOWN = ("bun_warehouse", "kitchen", "conveyor_blue", "living_room", "workshop", "garden", "night_terrace", "hospital")
SHEET = ROOT / "docs" / "images" / "views.jpg"


def sheet(options: argparse.Namespace) -> None:
    """docs/images/views.jpg: eight worlds, two in a row, each through the first three cameras of the episode that has most."""
    episodes = [open_episode(path.parent) for path in sorted(options.episodes.glob("*/complete.json"))]
    episode = max(episodes, key=lambda e: len(e.header.cameras))
    cameras = [c.name for c in episode.header.cameras if set(c.channels) >= MAPS][:3]
    rows = []
    for name in SHOWN:
        world = load_catalogue().preset(name)
        rows.append(np.hstack([Film(episode, camera, world)[len(episode) // 2] for camera in cameras]))
        print(name, flush=True)
    half = len(rows) // 2
    picture = np.hstack([np.vstack(rows[:half]), np.vstack(rows[half:])])
    SHEET.write_bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


SUBJECTS = ("bun", "chips_blue", "bell_pepper_red", "eggplant", "tomato_tin", "juice_bottle", "milk_carton", "towel")
APPROACH = 10
"""Frame in which the hand looks at what it is about to grasp."""
SHAPES = ROOT / "docs" / "images" / "subjects.jpg"


def subjects(options: argparse.Namespace) -> None:
    """docs/images/subjects.jpg: subjects as the wrist camera sees them before the grasp: simulated, as a picture on the sides
    of the simulated box, as a shape."""
    path = sorted(p.parent for p in options.episodes.glob("*/complete.json"))[0]
    episode = open_episode(path)
    source = halved(source_frame(episode, "wrist", APPROACH))
    task = next(o.name for o in episode.header.objects if o.movable)
    x, y, w, h = cv2.boundingRect(source.mask(f"object:{task}").astype(np.uint8))
    side = min(int(1.3 * max(w, h)), min(source.rgb.shape[:2]))
    top, left = (
        int(np.clip(c - side // 2, 0, n - side))
        for c, n in zip((y + h // 2, x + w // 2), source.rgb.shape, strict=False)
    )
    columns = []
    for name in SUBJECTS:
        world = replace(load_catalogue().preset("kitchen"), subject=name)
        boxed = replace(world, parameters={"subject": {"shape": ""}})
        shown = [source.rgb, *(Film(episode, "wrist", w)[APPROACH] for w in (boxed, world))]
        cut = [
            cv2.resize(f[top : top + side, left : left + side], (200, 200), interpolation=cv2.INTER_CUBIC)
            for f in shown
        ]
        columns.append(np.vstack(cut))
    SHAPES.write_bytes(cv2.imencode(".jpg", np.hstack(columns)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words = parser.add_subparsers(required=True)
    calls = (
        ("episodes", episodes), ("make", make), ("table", table), ("marks", marks), ("carry", carried), ("sheet", sheet),
        ("subjects", subjects),
    )  # fmt: skip
    for name, call in calls:
        sub = words.add_parser(name)
        sub.set_defaults(call=call)
        if name in ("episodes", "make"):
            sub.add_argument("--split", choices=sorted(WORLD_SEED), default="tune")
        if name in ("marks", "carry", "sheet", "subjects"):
            what = "folder of episodes with several cameras (default: those of `held`)"
            sub.add_argument("--episodes", type=Path, default=folder_of("held"), help=what)
        if name == "marks":
            sub.add_argument("--worlds", type=int, default=2)
        if name == "make":
            sub.add_argument("--worlds", type=int, default=240)
            sub.add_argument("--minutes", type=float, default=5)
            sub.add_argument(
                "--parts", type=int, default=1, help="every which world, so that several may run side by side"
            )
            sub.add_argument("--part", type=int, default=0)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
