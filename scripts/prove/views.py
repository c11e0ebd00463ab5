# SPDX-License-Identifier: Apache-2.0
"""The comparison of cameras, proven: worlds of the CPU painter over episodes of several cameras, as they are and with faults
of one camera planted. Resumable: one row per world, fault and pair of cameras. Writes docs/proof/views.md.

    python scripts/prove/views.py make --episodes DIR --split tune --worlds 12 --minutes 5
    python scripts/prove/views.py table
    python scripts/prove/views.py marks --episodes DIR
    python scripts/prove/views.py carry --episodes DIR
    python scripts/prove/views.py sheet --episodes DIR          eight worlds through three cameras, to look at

Frames are painted at 320 px, from every second pixel of the recorded maps. The split `tune` is what limits may be looked
for on; `held` is for the table: other seeds of worlds that `tune` never shows, over all episodes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.camera import Camera
from retake.core.episode import Episode, open_episode
from retake.core.episode.mounts import mount_of
from retake.core.painter.dresser import Dresser
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.staged import staged
from retake.core.variants.base import MAPS, SourceFrame, World, source_frame
from retake.core.variants.sampler import sample_worlds
from retake.core.variants.worlds import load_catalogue, recipe_of
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.views import NAMES, ViewGeometry, ViewSettings, compare_views

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "views"
PROOF = ROOT / "docs" / "proof" / "views.md"
SEED = {"tune": 900, "held": 1700}
MOMENTS = ViewSettings(moments=6)
FAULTS = ("simulated", "other world", "other seed", "hue shift", "mirrored", "one frame late", "object swapped")


class Film:
    """A camera's film in a world, painted frame by frame when a frame is asked for."""

    def __init__(self, episode: Episode, camera: str, world: World, seed: int = 0, lag: int = 0) -> None:
        self.episode, self.camera, self.world, self.seed, self.lag = episode, camera, world, seed, lag
        self._dresser: Dresser | None = None
        self._known: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, t: int) -> np.ndarray:
        t = max(t - self.lag, 0)
        if t not in self._known:
            if self._dresser is None:
                first = halved(source_frame(self.episode, self.camera, 0))
                self._dresser = ProceduralBackend().dresser(first, self.world, self.seed)
            self._known[t] = self._dresser.render(halved(source_frame(self.episode, self.camera, t)))
        return self._known[t]

    def late(self, lag: int) -> Film:
        """The same film, every frame shown `lag` frames later."""
        other = Film(self.episode, self.camera, self.world, self.seed, lag)
        other._dresser, other._known = self._dresser, self._known
        return other


class Changed:
    """A film with something done to every frame."""

    def __init__(self, film: Any, change: Callable[[np.ndarray, int], np.ndarray]) -> None:
        self.film, self.change = film, change

    def __len__(self) -> int:
        return len(self.film)

    def __getitem__(self, t: int) -> np.ndarray:
        return self.change(self.film[t], t)


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


def faulty(fault: str, film: Film, other: World, episode: Episode) -> Any:
    """One camera's film with a fault."""
    camera, size = film.camera, film[0].shape[1::-1]
    if fault == "simulated":
        return Changed(
            film, lambda frame, t: cv2.resize(episode.image(camera, "rgb", t), size, interpolation=cv2.INTER_AREA)
        )
    if fault == "other world":
        return Film(episode, camera, other)
    if fault == "other seed":
        return Film(episode, camera, film.world, film.seed + 1)
    if fault == "mirrored":
        return Changed(film, lambda frame, t: np.ascontiguousarray(frame[:, ::-1]))
    if fault == "one frame late":
        return film.late(1)
    if fault == "hue shift":
        return Changed(film, lambda frame, t: _turned(frame, 24))
    swapped = Film(episode, camera, replace(film.world, subject=other.subject))

    def swap(frame: np.ndarray, t: int) -> np.ndarray:
        source = halved(source_frame(episode, camera, t))
        mask = cv2.dilate(source.mask("object:").astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        return np.where(mask[..., None], swapped[t], frame)

    return Changed(film, swap)


def _turned(frame: np.ndarray, degrees: int) -> np.ndarray:
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def jobs(episodes: Path, split: str, worlds: int) -> Iterator[tuple[Path, World, World]]:
    """(episode, world, another world), so that a run cut short has seen every episode."""
    paths = [p.parent for p in sorted(episodes.glob("*/complete.json"))]
    drawn = sample_worlds(2 * worlds, SEED[split])
    for k in range(worlds):
        for n, path in enumerate(paths):
            yield path, drawn[(k + n) % worlds], drawn[worlds + (k + 3 * n) % worlds]


def make(options: argparse.Namespace) -> None:
    """Paint, plant and measure until the time is spent."""
    CACHE.mkdir(parents=True, exist_ok=True)
    rows_file = CACHE / f"rows-{options.split}.jsonl"
    done = {(r["episode"], r["world"], r["fault"]) for r in _rows(rows_file)}
    until = time.monotonic() + 60 * options.minutes
    rng = np.random.default_rng(5)
    for path, world, other in jobs(options.episodes, options.split, options.worlds):
        if (path.name, world.name, "clean") in done:
            continue
        if time.monotonic() > until:
            print("time is spent; the same command goes on")
            return
        episode = open_episode(path)
        shown = staged(episode, recipe_of(world))
        cameras = [c.name for c in episode.header.cameras if set(c.channels) >= MAPS]
        moving = [c for c in cameras if mount_of(episode, c).kind == "hand"] or cameras[-1:]
        films: dict[str, Any] = {c: Film(episode, c, world) for c in cameras}
        geometry = ViewGeometry(shown, 0, 320)
        found = compare_views(shown, films, settings=MOMENTS, geometry=geometry)
        _note(rows_file, path.name, world.name, "clean", "", found)
        picked = list(FAULTS) if options.split == "tune" else list(rng.permutation(FAULTS)[: options.faults])
        bad = moving[0]
        near = {c: films[c] for c in cameras if c == bad or not mount_of(episode, c).moves}
        for fault in picked:
            changed = {**near, bad: faulty(fault, films[bad], other, episode)}
            found = compare_views(shown, changed, settings=MOMENTS, geometry=geometry)
            found = [pair for pair in found if bad in (pair.first, pair.second)]
            _note(rows_file, path.name, world.name, fault, bad, found)


def _note(path: Path, episode: str, world: str, fault: str, camera: str, pairs: Sequence[Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        for pair in pairs:
            values = {m.name: m.value for m in pair.measurements}
            row = {"episode": episode, "world": world, "fault": fault, "camera": camera, "pair": [pair.first, pair.second],
                   "gain": pair.gain, "values": values}  # fmt: skip
            stream.write(json.dumps(row) + "\n")
            told = {k: None if v is None else round(v, 3) for k, v in values.items()}
            print(episode, world, fault, pair.first, pair.second, told, flush=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def severity(row: dict[str, Any]) -> float | None:
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


def _of_worlds(rows: Sequence[dict[str, Any]], fault: str) -> np.ndarray:
    """The worst figure over the pairs of the faulty camera, world by world; of clean worlds over the same pairs."""
    bad = {(r["episode"], r["world"]): r["camera"] for r in rows if r["camera"]}
    near = {(r["episode"], r["world"], *r["pair"]) for r in rows if r["fault"] != "clean"}
    found: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row["episode"], row["world"])
        if row["fault"] == fault and key in bad and (*key, *row["pair"]) in near and bad[key] in row["pair"]:
            found[key] = max(found.get(key, 0.0), severity(row) or 0.0)
    return np.array(list(found.values()))


def table(_: argparse.Namespace) -> None:
    """docs/proof/views.md from the rows."""
    settings = load_settings()
    lines = ["# One world, all cameras", "", "`scripts/prove/views.py` writes this file.", ""]
    for split in ("held", "tune"):
        rows = [r for r in _rows(CACHE / f"rows-{split}.jsonl") if severity(r) is not None]
        clean = [r for r in rows if r["fault"] == "clean"]
        if not clean:
            continue
        pairs = np.array([severity(r) for r in clean])
        alarms = int((pairs > 1).sum())
        worlds = len({(r["episode"], r["world"]) for r in clean})
        lines += [
            f"## Split `{split}`: {len(clean)} clean pairs of cameras, {worlds} worlds over "
            f"{len({r['episode'] for r in clean})} episodes", "",
            "Limits were chosen on `tune`; these worlds tuned nothing." if split == "held" else "What limits were chosen on.", "",
            f"False alarms: {alarms} of {len(clean)} pairs ({100 * alarms / len(clean):.1f} %; upper end of the 95 % interval "
            f"{100 * upper_bound(alarms, len(clean)):.1f} %).", "",
            *([f"**{len(clean)} pairs are few**: 300 are needed before the share of false alarms is bounded by 1 %. `make` "
               "goes on where it stopped.", ""] if len(clean) < 300 else []),
            "AUC and share failed are of worlds: the worst figure over the pairs of the faulty camera with the fixed ones.", "",
            "| fault of one camera | worlds | AUC | failed |", "|---|---|---|---|",
        ]  # fmt: skip
        good = _of_worlds(rows, "clean")
        for fault in FAULTS:
            bad = _of_worlds(rows, fault)
            if len(bad):
                lines.append(f"| {fault} | {len(bad)} | {auc(good, bad):.3f} | {100 * (bad > 1).mean():.0f} % |")
        lines += ["", "| figure | limit | clean pairs: median, 99 %, largest | " + " | ".join(FAULTS) + " (median) |",
                  "|---|---|---|" + "---|" * len(FAULTS)]  # fmt: skip
        for name in NAMES:
            mine = np.array([r["values"][name] for r in clean if r["values"][name] is not None])
            if not len(mine):
                continue
            cells = []
            for fault in FAULTS:
                values = [r["values"][name] for r in rows if r["fault"] == fault and r["values"][name] is not None]
                cells.append(f"{np.median(values):.2f}" if values else "–")
            lines.append(
                f"| `{name}` | {settings.threshold(name).limit:g} | {np.median(mine):.2f}, {np.quantile(mine, 0.99):.2f}, "
                f"{mine.max():.2f} | " + " | ".join(cells) + " |"
            )  # fmt: skip
        lines.append("")
    lines += [
        "What cannot be told: an object that no second camera sees (`object swapped` where only one camera shows it), and "
        "another seed of a surface without grain (steel, laminate), which looks the same.", "",
    ]  # fmt: skip
    for name, tell in (("marks", _tell_marks), ("carry", _tell_carry)):
        path = CACHE / f"{name}.json"
        if path.is_file():
            lines += tell(json.loads(path.read_text("utf-8")))
    PROOF.write_text("\n".join(lines), "utf-8")
    print(PROOF)


def _tell_marks(found: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "## A marked point of the world in every camera", "",
        "Windows of one camera's picture looked for in another's, at subpixel accuracy, after both were laid over each other "
        "by depth; px of a picture 320 px wide.", "",
        "| episode | cameras | windows | median | 95 % | share within 1 px |", "|---|---|---|---|---|---|",
        *(f"| {m['episode']} | {m['first']}, {m['second']} | {m['windows']} | {m['median']:.2f} | {m['p95']:.2f} | "
          f"{100 * m['within']:.1f} % |" for m in found), "",
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
            for t in (0,):
                for a, b in combinations(cameras, 2):
                    views = [view_of(halved(source_frame(shown, c, t))) for c in (a, b)]
                    found = displacement(films[a][t], films[b][t], correspond(*views))
                    away.setdefault((a, b), []).append(found)
        for (a, b), parts in away.items():
            px = np.concatenate(parts)
            if len(px) >= 20:
                out.append({"episode": path.parent.name, "first": a, "second": b, "windows": len(px),
                            "median": float(np.median(px)), "p95": float(np.quantile(px, 0.95)),
                            "within": float((px <= 1).mean())})  # fmt: skip
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


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words = parser.add_subparsers(required=True)
    for name, call in (("make", make), ("table", table), ("marks", marks), ("carry", carried), ("sheet", sheet)):
        sub = words.add_parser(name)
        sub.set_defaults(call=call)
        if name != "table":
            sub.add_argument("--episodes", type=Path, required=True, help="folder of episodes with several cameras")
        if name == "marks":
            sub.add_argument("--worlds", type=int, default=2)
        if name == "make":
            sub.add_argument("--split", choices=sorted(SEED), default="tune")
            sub.add_argument("--worlds", type=int, default=12)
            sub.add_argument("--faults", type=int, default=3, help="faults planted per world of `held`")
            sub.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
