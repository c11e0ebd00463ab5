# SPDX-License-Identifier: Apache-2.0
"""Did tuning help? The same first frames, seeds and skeletons through the base and the tuned model, judged by verdicts.

Every comparison is paired: one pair is one (episode, world, seed). The arm must not follow worse; objects should lie nearer
to where the simulator has them. Nothing is decided from means alone: each row has a bootstrap interval of the paired
difference and the p of a sign-flip test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.episode.events import object_events
from retake.core.errors import InputError
from retake.core.files import read_json, write_bytes, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME, VERDICT_RECORD, RunLayout, take_id
from retake.core.run_store import RunDirectory
from retake.core.takes.base import Take, TakeRequest, VideoBackend
from retake.core.takes.make import make_take
from retake.core.verdicts.control import NAME as CONTROL_LEAK
from retake.core.verdicts.falls import NAME as FALL
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.run import read_picture, verify_video

ARMS = ("base", "tuned")
FOLLOWING = ("arm_offset", "link_offset", "lag", "local_lag")
"""Checks of the robot, lower is better."""
PHASES = ("before", "held", "released", "settled")


@dataclass(frozen=True)
class Row:
    """One quantity over all pairs where both videos gave it; `better` says which way is good.

    base, tuned: means. gain: mean paired improvement (positive = the tuned model is better), with its 95 % interval.
    p: two-sided, of a gain this far from zero if signs were chance.
    """

    name: str
    group: str
    pairs: int
    base: float
    tuned: float
    gain: float
    low: float
    high: float
    p: float


def evaluate(
    backends: Mapping[str, VideoBackend],
    runs: Sequence[Path],
    out: Path,
    *,
    seeds: Sequence[int] = (42,),
    frames: int = 81,
    trained_on: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
) -> dict[str, Any]:
    """Make and judge all takes, write OUT/eval.json and OUT/eval.html, return the summary. Resumes.

    `backends` has "base" and "tuned". `trained_on`: source episodes (`trajectory`) that training saw: their pairs are
    grouped apart. A run given twice counts once; runs whose folders have one name are told apart by the folders above.
    Raises InputError where a run has no skeleton or no variants.
    """
    progress, cancel = progress or silent, cancel or never
    if set(backends) != set(ARMS):
        raise InputError(f"evaluation compares {ARMS}; given: {sorted(backends)}")
    jobs = [(n, *j) for n, run in named(runs).items() for j in _jobs(run, seeds, frames, dict(settings or {}))]
    known, pairs = set(trained_on), []
    for number, (run, variant, request) in enumerate(jobs):
        episode = open_episode(request.episode)
        pair: dict[str, Any] = {"run": run, "variant": variant, "seed": request.seed, **_kind(episode, known)}
        for arm in ARMS:
            cancel()
            place, name = RunLayout(out / arm / run), take_id(variant, "composite", request.seed)
            take = make_take(request, backends[arm], place.take_folder(name), check_cancel=cancel)
            verdict = _verdict_document(take, request, episode, place.verdict_folder(name), cancel)
            pair[arm] = {"video": str(take.video.relative_to(out)), **_figures(verdict)}
        pairs.append(pair)
        progress(number + 1, len(jobs), "evaluate")
    summary = summarise(pairs)
    write_json(out / "eval.json", summary)
    write_bytes(out / "eval.html", page(summary).encode())
    return summary


def named(runs: Sequence[Path]) -> dict[str, Path]:
    """Every run once, under a name that is also a folder: its own, or with as many names from above as tell all apart."""
    paths = list(dict.fromkeys(run.resolve() for run in runs))
    for count in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["/".join(path.parts[1:][-count:]) for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    raise InputError(f"{', '.join(map(str, paths))} differ in their drives alone; rename one")


def _verdict_document(
    take: Take, request: TakeRequest, episode: Episode, folder: Path, cancel: CheckCancel
) -> dict[str, Any]:
    """The verdict on a take, kept while video and estimators stay the same."""
    record = folder / VERDICT_RECORD
    if record.is_file():
        kept = read_json(record)
        asked = not take.object_control or any(check["name"] == CONTROL_LEAK for check in kept["checks"])
        if (kept.get("video_sha256"), kept.get("version")) == (take.video_sha256, VERSION) and asked:
            return kept
    found = verify_video(
        take.video, episode, request.camera, first_frame=read_picture(request.variant / VARIANT_FRAME),
        start=request.start, frames=take.frames, pictures=folder, object_control=take.object_control, check_cancel=cancel,
    )  # fmt: skip
    write_json(record, found.to_json())
    return found.to_json()


def _jobs(path: Path, seeds: Sequence[int], frames: int, settings: dict[str, Any]) -> list[tuple[str, TakeRequest]]:
    run = RunDirectory(path)
    found = run.variants()
    if not found:
        raise InputError(f"{path} has no variants; `retake variants {path}` makes first frames")
    out = []
    for variant in found:
        camera = variant.camera or open_episode(run.episode).header.cameras[0].name
        if not run.has_skeleton(camera):
            raise InputError(f"{path} has no skeleton of camera {camera!r}; `retake skeleton {path}` draws it")
        for seed in seeds:
            request = TakeRequest(
                episode=run.episode, camera=camera, skeleton=run.skeleton(camera), variant=variant.folder,
                prompt=variant.record.prompt, negative_prompt=variant.record.negative_prompt, seed=seed,
                frames=frames, settings=settings,
            )  # fmt: skip
            out.append((variant.id, request))
    return out


def _kind(episode: Episode, trained_on: set[str]) -> dict[str, Any]:
    """What pairs are grouped by: the object, how far it falls (m), whether training saw the motion."""
    from retake.core.export.collect import trajectory_id

    label, drop = "no object", 0.0
    for event in object_events(episode):
        if event.release is None:
            continue
        index = next(i for i, o in enumerate(episode.header.objects) if o.name == event.object)
        label = episode.header.objects[index].label or event.object
        end = event.settled if event.settled is not None else len(episode) - 1
        drop = float(episode.object_poses[event.release, index, 2, 3] - episode.object_poses[end, index, 2, 3])
    band = "no drop" if drop < 0.02 else "drop below 10 cm" if drop < 0.1 else "drop of 10 cm or more"
    return {"object": label, "drop_m": drop, "band": band, "seen": trajectory_id(episode) in trained_on}


def _figures(verdict: Mapping[str, Any]) -> dict[str, float | None]:
    """What of a verdict is compared. Lower is better for all but `*_iou` and `probability`."""
    checks = {check["name"]: check for check in verdict["checks"]}
    figures = {name: checks[name]["value"] for name in FOLLOWING if name in checks}
    figures |= {name: value for name, value in verdict["metrics"].items() if name.startswith("object_")}
    for name, check in checks.items():
        if (name.startswith("object_") or name in (FALL, CONTROL_LEAK)) and name not in figures:
            figures[name] = check["value"]
    return {**figures, "probability": verdict["probability"], "failed": float(verdict["overall"] == "fail")}


def summarise(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Paired rows over all pairs, per object, per drop height, and for motions that training saw and did not see."""
    groups: dict[str, Callable[[Mapping[str, Any]], bool]] = {"all": lambda p: True}
    for key in ("object", "band"):
        for value in sorted({str(p[key]) for p in pairs}):
            groups[value] = lambda p, key=key, value=value: str(p[key]) == value
    if len({p["seen"] for p in pairs}) > 1:
        groups |= {"motions seen in training": lambda p: p["seen"], "new motions": lambda p: not p["seen"]}
    rows = []
    for group, belongs in groups.items():
        chosen = [p for p in pairs if belongs(p)]
        names = sorted({name for p in chosen for arm in ARMS for name in p[arm]} - {"video"})
        rows += [row for name in names if (row := _row(name, group, chosen)) is not None]
    worse = [r.name for r in rows if r.group == "all" and r.name in FOLLOWING and r.high < 0 and r.p < 0.05]
    return {
        "pairs": [dict(p) for p in pairs],
        "rows": [asdict(row) for row in rows],
        "arm_follows_worse": worse,
        "note": "positive gain: the tuned model is better; a row decides only where its interval leaves zero out",
    }


def _row(name: str, group: str, pairs: Sequence[Mapping[str, Any]]) -> Row | None:
    both = [(p["base"].get(name), p["tuned"].get(name)) for p in pairs]
    values = np.array([(a, b) for a, b in both if a is not None and b is not None], np.float64)
    if not len(values):
        return None
    higher_is_better = name.endswith("_iou") or name == "probability"
    gains = (values[:, 1] - values[:, 0]) * (1 if higher_is_better else -1)
    low, high = interval(gains)
    base, tuned = (float(mean) for mean in values.mean(axis=0))
    return Row(name, group, len(values), base, tuned, float(gains.mean()), low, high, sign_flip_p(gains))


def interval(gains: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired gains (n,); the same numbers give the same interval."""
    if len(gains) < 2:
        return float("-inf"), float("inf")
    index = np.random.default_rng(0).integers(0, len(gains), (draws, len(gains)))
    low, high = np.quantile(gains[index].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def sign_flip_p(gains: np.ndarray, draws: int = 4000) -> float:
    """Two-sided p of the mean of paired gains (n,) under random signs: exact up to 12 pairs, drawn beyond."""
    gains = gains[gains != 0]
    n = len(gains)
    if not n:
        return 1.0
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ gains) >= abs(gains.sum()) - 1e-12).mean())
    signs = np.random.default_rng(0).choice([-1, 1], (draws, n))
    return float((1 + (np.abs(signs @ gains) >= abs(gains.sum())).sum()) / (draws + 1))


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:32px auto;padding:0 20px;color:#1c2024;background:#fff}
table{border-collapse:collapse;width:100%}td,th{padding:5px 8px;border-bottom:1px solid #d9dce1;text-align:left}
td.n{font-variant-numeric:tabular-nums}.good{color:#2f8f5b}.bad{color:#d2553f}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:10px}
video{width:100%;border-radius:6px}h2{margin-top:34px;font-size:18px}.soft{color:#667}
"""


def page(summary: Mapping[str, Any]) -> str:
    """eval.html: the table, then the videos side by side."""
    rows = []
    for row in summary["rows"]:
        sure = "good" if row["low"] > 0 else "bad" if row["high"] < 0 else "soft"
        rows.append(
            f"<tr><td>{escape(row['group'])}</td><td>{escape(row['name'])}</td><td class=n>{row['pairs']}</td>"
            f"<td class=n>{row['base']:.4g}</td><td class=n>{row['tuned']:.4g}</td>"
            f"<td class='n {sure}'>{row['gain']:+.4g} [{row['low']:+.3g}, {row['high']:+.3g}]</td>"
            f"<td class=n>{row['p']:.3f}</td></tr>"
        )
    films = []
    for pair in summary["pairs"]:
        seen = "seen in training" if pair["seen"] else "new motion"
        shown = "".join(
            f"<figure><video src='{escape(pair[arm]['video'])}' controls muted loop></video>"
            f"<figcaption>{arm}: {_figures_line(pair[arm])}</figcaption></figure>"
            for arm in ARMS
        )
        title = f"{pair['run']} · {pair['variant']} · seed {pair['seed']} · {pair['object']}, {pair['band']}, {seen}"
        films.append(f"<h2>{escape(title)}</h2><div class=pair>{shown}</div>")
    worse = ", ".join(summary["arm_follows_worse"])
    verdict = f"<p class=bad>The arm follows worse: {worse}</p>" if worse else "<p>The arm does not follow worse.</p>"
    return (
        f"<!doctype html><meta charset=utf-8><title>Base against tuned</title><style>{_STYLE}</style>"
        f"<h1>Base against tuned</h1><p class=soft>{escape(summary['note'])}</p>{verdict}"
        "<table><tr><th>group</th><th>quantity</th><th>pairs</th><th>base</th><th>tuned</th><th>gain [95 %]</th><th>p</th></tr>"
        + "".join(rows)
        + "</table>"
        + "".join(films)
    )


def _figures_line(figures: Mapping[str, Any]) -> str:
    offset = figures.get("arm_offset")
    arm = "" if offset is None else f"arm {offset:.2f} px, "
    return f"{arm}p = {figures['probability']:.2f}" + (", failed" if figures["failed"] else "")
