# SPDX-License-Identifier: Apache-2.0
"""`closed_loop(…)`: the same seeds in every look, one rollout at a time, each kept on disk as it ends; then the report.

Interrupted, the same call goes on. Rollouts run seed by seed, so that what is done is always paired.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.codec import decode, encode
from retake.core.errors import InputError, StageError
from retake.core.files import read_json, sha256_bytes, sha256_json, write_bytes, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robustness.options import check_timeout
from retake.core.robustness.policy import Policy
from retake.core.run_store import LOCK, held_out
from retake.core.video import write_video
from retake.loop.environment import Environment
from retake.loop.looks import UNCHANGED, Look
from retake.loop.policies import Player
from retake.loop.report import write_report
from retake.loop.rollout import Rollout, roll
from retake.loop.statistics import Difference, paired, wilson
from retake.loop.tasks import Task

SCHEMA = "retake.closed_loop/1"
STRIP = 6
"""Frames of a failure shown side by side."""


@dataclass(frozen=True)
class Asked:
    """What is run."""

    looks: tuple[Look, ...]
    seeds: tuple[int, ...]
    frames: int
    execute: int = 4
    ensemble: bool = False
    timeout_s: float = 60.0
    films: int = 2
    """Failures of each look that are kept as videos."""
    identity: str = ""
    """Content hash of the policy, where it has files: what a resumed study compares."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise InputError("seeds must be different whole numbers, zero or more, and at least one")
        if not self.looks:
            raise InputError("there is no look to see the scene in; name one or more with --looks")
        for name, value in (("frames", self.frames), ("execute", self.execute)):
            if value < 1:
                raise InputError(f"--{name} is {value}; expected one or more")
        check_timeout(self.timeout_s)


@dataclass(frozen=True)
class Row:
    """One look, or all looks of one axis."""

    name: str
    axis: str
    drawn_by: str
    count: int
    successes: int
    low: float
    high: float
    """95 % Wilson interval of the success rate; for an axis of several looks, of its rollouts taken as independent."""
    failures: dict[str, int]
    difference: Difference | None
    """Against the unchanged look, over the same seeds; None for that look itself."""


@dataclass(frozen=True)
class Study:
    """What was found, and where it is written."""

    html: Path
    json: Path
    looks: tuple[Row, ...]
    axes: tuple[Row, ...]
    rollouts: tuple[Rollout, ...]
    same_states: bool
    """Whether every seed gave bit-equal states in all looks: so for a policy that looks at no picture."""
    no_change: tuple[str, ...] = ()
    """Looks whose first picture is the unchanged one: the stage has nothing that they change (no work surface, no object)."""


def closed_loop(
    environment: Environment,
    policy: Policy,
    task: Task,
    out: Path | str,
    asked: Asked,
    *,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Study:
    """Run what is missing, then write report.html and report.json.

    Raises InputError (another study in `out`, a policy's bad answer), Cancelled; both leave what is finished.
    """
    out, facts = Path(out), environment.facts
    settings = {
        "schema": SCHEMA,
        "policy": policy.name,
        "identity of policy and task": asked.identity,
        "task": task.name,
        "instruction": facts.task,
        "environment": facts.settings,
        "simulator": facts.name,
        "frames": asked.frames,
        "execute": asked.execute,
        "ensemble": asked.ensemble,
        "looks": {look.name: sha256_json(asdict(look)) for look in asked.looks},
    }
    with held_out(out):
        _claim(out, settings)
        try:
            done = _roll_all(environment, policy, task, out, asked, progress, check_cancel)
        except BaseException:
            if not _has_rollouts(out):  # refused at its first answer: nothing is left of it
                _forget(out)
            raise
        return _tell(out, settings, asked, done)


def _roll_all(
    environment: Environment,
    policy: Policy,
    task: Task,
    out: Path,
    asked: Asked,
    progress: Progress,
    check_cancel: CheckCancel,
) -> list[Rollout]:
    """Every rollout that is asked for, those on disk as they are."""
    facts = environment.facts
    pairs = [(seed, look) for seed in asked.seeds for look in asked.looks]
    found = {
        (seed, look.name): made
        for seed, look in pairs
        if (made := _read(out / "rollouts" / _slug(look.name) / f"{seed}.json")) is not None
    }
    if found:  # at once, so that they do not make the rest look faster than it is
        progress(len(found), len(pairs), "done before")
    player = Player(policy, len(facts.action_names), facts.action_names, asked.execute, asked.ensemble, asked.timeout_s)
    try:
        for seed, look in pairs:
            if (seed, look.name) in found:
                continue
            check_cancel()
            try:
                made, seen = roll(environment, player, task, look, seed, asked.frames, check_cancel)
            except StageError as error:
                raise StageError(f"the scene of seed {seed}: {error} (vary less: --set randomise.…)") from error
            made = _keep(out, made, seen, facts.fps, asked.films)
            write_json(out / "rollouts" / _slug(look.name) / f"{seed}.json", encode(made))
            found[seed, look.name] = made
            word = "success" if made.outcome.success else made.outcome.failure
            progress(len(found), len(pairs), f"{look.name}, seed {seed}: {word}")
    finally:
        player.close()
    return [found[seed, look.name] for seed, look in pairs]


def _has_rollouts(out: Path) -> bool:
    return next((out / "rollouts").glob("*/*.json"), None) is not None


def _forget(out: Path) -> None:
    """Remove what a study without a finished rollout has left."""
    (out / "study.json").unlink(missing_ok=True)
    for name in ("rollouts", "looks", "failures"):
        shutil.rmtree(out / name, ignore_errors=True)


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """A folder holds one study; more looks and seeds may come to it. One without a finished rollout (its process was killed
    in the first) makes way for another."""
    file = out / "study.json"
    if file.exists():
        try:
            found = read_json(file)
        except (OSError, ValueError) as error:
            raise InputError(f"{file} is unreadable ({error}); choose another --out") from error
        if found.get("schema") == SCHEMA and not _has_rollouts(out):
            _forget(out)
            found = settings
        looks = {**found.get("looks", {}), **settings["looks"]}
        changed = sorted(n for n, v in settings["looks"].items() if found.get("looks", {}).get(n, v) != v)
        same = {**found, "looks": {}} == {**settings, "looks": {}}
        if not same or changed:
            what = next((k for k in settings if k != "looks" and found.get(k) != settings[k]), f"look {changed[:1]}")
            raise InputError(f"{out} holds another study ({what} differs); choose another --out (nothing was changed)")
        settings = {**settings, "looks": looks}
    elif out.exists() and any(entry.name != LOCK for entry in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no study; choose another --out (nothing was changed)")
    write_json(file, settings)


def _read(file: Path) -> Rollout | None:
    if not file.exists():
        return None
    try:
        return decode(Rollout, read_json(file), str(file))
    except ValueError as error:
        raise InputError(f"{file} is unreadable ({error}); delete it, and the same command makes it again") from error


def _slug(name: str) -> str:
    return name.replace(":", "-").replace("/", "-")


def _keep(out: Path, made: Rollout, seen: dict[str, list[np.ndarray]], fps: float, films: int) -> Rollout:
    """The look's first picture, and the first failures as videos with a strip of frames. Returns the rollout with its hash."""
    first = _jpeg(_beside([images[0] for images in seen.values()]))
    made = replace(made, first_sha256=sha256_bytes(first))
    if not (file := out / "looks" / f"{_slug(made.look)}.jpg").exists():
        write_bytes(file, first)
    if made.outcome.success:
        return made
    folder = out / "failures"
    kept = {p.stem for p in folder.glob(f"{_slug(made.look)}--*.mp4")} if folder.exists() else set()
    name = f"{_slug(made.look)}--{made.seed}"
    if len(kept - {name}) >= films:
        return made
    frames = [_beside(list(images)) for images in zip(*seen.values(), strict=True)]
    shown = [frames[int(k)] for k in np.linspace(0, len(frames) - 1, min(STRIP, len(frames))).round()]
    write_bytes(folder / f"{name}.jpg", _jpeg(np.concatenate(shown, axis=1)))
    write_video(folder / f"{name}.mp4", frames, fps)
    return made


def _beside(images: Sequence[np.ndarray]) -> UInt8[np.ndarray, "H W 3"]:
    """Pictures side by side, as high as the highest; even sides, as videos want them."""
    height = max(image.shape[0] for image in images)
    height += height % 2
    padded = [np.pad(image, ((0, height - image.shape[0]), (0, image.shape[1] % 2), (0, 0))) for image in images]
    return np.concatenate(padded, axis=1)


def _jpeg(image: np.ndarray) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return data.tobytes()


def _tell(out: Path, settings: dict[str, Any], asked: Asked, done: Sequence[Rollout]) -> Study:
    by_look: dict[str, dict[int, Rollout]] = {look.name: {} for look in asked.looks}
    for made in done:
        by_look[made.look][made.seed] = made
    baseline = by_look.get(UNCHANGED, {})
    looks = tuple(_row(look.name, look.axis, look.drawn_by, [by_look[look.name]], baseline) for look in asked.looks)
    axes = []
    for axis in dict.fromkeys(look.axis for look in asked.looks if look.name != UNCHANGED):
        members = [look for look in asked.looks if look.axis == axis]
        drawn = "+".join(sorted({look.drawn_by for look in members}))
        axes.append(_row(axis, axis, drawn, [by_look[look.name] for look in members], baseline))
    hashes: dict[int, set[str]] = {}
    for made in done:
        hashes.setdefault(made.seed, set()).add(made.states_sha256)
    same = all(len(found) == 1 for found in hashes.values())
    idle = tuple(look.name for look in asked.looks if _changes_nothing(by_look[look.name], baseline))
    content = {
        **{k: v for k, v in settings.items() if k != "looks"},
        "seeds": list(asked.seeds),
        "same_states": same,
        "no_change": list(idle),
        "looks": [asdict(row) for row in looks],
        "axes": [asdict(row) for row in axes],
        "rollouts": [encode(made) for made in done],
    }
    write_json(out / "report.json", content)
    write_report(out, content)
    return Study(out / "report.html", out / "report.json", looks, tuple(axes), tuple(done), same, idle)


def _changes_nothing(made: dict[int, Rollout], baseline: dict[int, Rollout]) -> bool:
    """Whether a look's first picture is the unchanged look's, in every seed of which both are known."""
    if made is baseline:
        return False
    pairs = [(made[seed].first_sha256, baseline[seed].first_sha256) for seed in set(made) & set(baseline)]
    known = [first == second for first, second in pairs if first and second]
    return bool(known) and all(known)


def _row(
    name: str, axis: str, drawn_by: str, members: Sequence[dict[int, Rollout]], baseline: dict[int, Rollout]
) -> Row:
    made = [rollout for member in members for rollout in member.values()]
    successes = sum(rollout.outcome.success for rollout in made)
    failures: dict[str, int] = {}
    for rollout in made:
        if not rollout.outcome.success:
            failures[rollout.outcome.failure] = failures.get(rollout.outcome.failure, 0) + 1
    low, high = wilson(successes, len(made))
    difference = None
    if name != UNCHANGED and baseline:
        shared = sorted(set(baseline).intersection(*members))
        first = [float(baseline[seed].outcome.success) for seed in shared]
        second = [float(np.mean([member[seed].outcome.success for member in members])) for seed in shared]
        difference = paired(first, second)
    return Row(name, axis, drawn_by, len(made), successes, low, high, dict(sorted(failures.items())), difference)
