# SPDX-License-Identifier: Apache-2.0
"""`retake verify DATASET`: anybody's videos in a LeRobot dataset, judged episode by episode against what they are copies of.

The reference is the dataset the copy was made from (`--against`, with the robot and the calibration), or the simulated
episodes themselves (`--episode`). The verdicts go into a copy of the judged dataset, as the same columns that an export has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import ExportError, InputError, unknown_name
from retake.core.export import tables
from retake.core.export.provenance import VERDICT, record
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import ACTION, STATE
from retake.core.export.restore import write_columns
from retake.core.export.writer import PROVENANCE
from retake.core.files import atomic_directory, write_json
from retake.core.importers import lerobot_cli
from retake.core.importers.lerobot import camera_keys, import_lerobot
from retake.core.masks.make import mask_episode
from retake.core.progress import Bar, CheckCancel, Progress, Stop, never, silent
from retake.core.run_layout import VARIANT_FRAME
from retake.core.run_reader import RunReader
from retake.core.run_store import episode_at
from retake.core.takes.base import Take
from retake.core.verdicts.clip import COARSEST, shown_at
from retake.core.verdicts.recorded import judge
from retake.core.verdicts.records import EXIT_CODES, Verdict, row_text, worst_of
from retake.core.verdicts.run import read_picture, shown_by
from retake.core.verdicts.settings import GENERATED, VerdictSettings, load_settings


@dataclass(frozen=True)
class Shown:
    """What a camera's video of a dataset's episode shows, as far as is known."""

    episode: Episode
    start: int = 0
    """Frame of the episode that the video's first frame shows."""
    family: str = GENERATED
    """Who made the video (verdicts of families have limits of their own)."""
    first_frame: UInt8[np.ndarray, "H W 3"] | None = None
    """The picture it was made from."""


Reference = Callable[[Row, str], Shown]
"""What the video of a camera in a dataset's episode is judged against."""


@dataclass(frozen=True)
class JudgedEpisode:
    """What was found of one episode."""

    index: int
    verdicts: dict[str, Verdict]
    """Camera of the reference → verdict."""

    @property
    def status(self) -> str:
        """The worst of its cameras."""
        return worst_of(v.overall for v in self.verdicts.values())


def judge_dataset(
    dataset: Path | str,
    out: Path | str,
    reference: Reference,
    cameras: Sequence[str],
    image_keys: dict[str, str] | None = None,
    *,
    config: VerdictSettings | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> list[JudgedEpisode]:
    """Judge every episode and write a copy of the dataset at `out` with the verdicts in its provenance.

    Raises ExportError when `out` exists, InputError for unknown cameras; whatever the judging raises names the episode.
    """
    data, out, config = Dataset(dataset), Path(out), config or load_settings()
    if out.exists():
        raise ExportError(f"{out} exists; choose another --out (nothing was changed)")
    keys = camera_keys(data, tuple(cameras), image_keys or {})
    rows, judged = list(data.episodes()), list[JudgedEpisode]()
    for done, row in enumerate(rows):
        check_cancel()
        progress(done, len(rows), f"episode {row.index}")
        verdicts = {}
        for camera in cameras:
            shown = reference(row, camera)
            frames = _at_rate(
                np.stack(list(data.frames(row, keys[camera]))),
                data.schema.fps,
                shown.episode.header.fps,
                f"{data.root}",
            )
            verdicts[camera] = judge(
                frames, shown.episode, camera, first_frame=shown.first_frame, start=shown.start, frames=len(frames),
                config=config.of_domain(shown.family), check_cancel=check_cancel,
            )  # fmt: skip
        judged.append(JudgedEpisode(row.index, verdicts))
    progress(len(rows), len(rows), "")
    known = {int(r.pop("episode_index")): r for r in map(dict, data.provenance()) if "episode_index" in r}
    records = [_record(data, row, known.get(row.index, {}), one) for row, one in zip(rows, judged, strict=True)]
    with atomic_directory(out) as temporary:
        shutil.copytree(data.root, temporary, dirs_exist_ok=True, copy_function=_link)
        if data.version == "v3.0":
            write_columns(temporary, records)
        tables.write_jsonl(temporary / PROVENANCE, ({"episode_index": i, **r} for i, r in enumerate(records)))
    return judged


def _at_rate(
    frames: UInt8[np.ndarray, "N H W 3"], rate: float, wanted: float, what: str
) -> UInt8[np.ndarray, "T H W 3"]:
    """Pictures of another rate as the episode's frames are: the nearest in time for each. Raises InputError where they lie too
    far apart."""
    if rate < COARSEST * wanted:
        raise InputError(
            f"{what} has {rate:g} pictures per second, the episode {wanted:g}: too far apart to be compared frame by frame; "
            f"valid: {COARSEST * wanted:g} or more"
        )
    return frames if rate == wanted else frames[shown_at(np.arange(len(frames)) / rate, wanted)]


def _record(data: Dataset, row: Row, known: dict[str, Any], one: JudgedEpisode) -> dict[str, Any]:
    """The provenance of an episode with its verdict; what was known of it stays."""
    verdicts = one.verdicts
    checks = {
        check.name if len(verdicts) == 1 else f"{camera}/{check.name}": check.value
        for camera, verdict in verdicts.items()
        for check in verdict.checks
    }
    first = next(iter(verdicts.values()))
    values = {
        "uid": f"{data.root.name}/{row.index}",
        "run": data.root.name,
        "domain": data.root.name,
        "source_episode_id": f"{data.root.name}/{row.index}",
        "window_length": row.length,
        "camera_names": ",".join(verdicts),
        **{k: v for k, v in known.items() if not k.startswith(VERDICT) and v is not None},
        "accepted": one.status == "pass",
        "verdict_status": one.status,
        "verdict_probability": min(v.probability for v in verdicts.values()),
        "verdict_version": str(first.to_json()["version"]),
    }
    return record(values, checks)


def _link(source: str, target: str) -> None:
    """A file of the copy: linked where the disk can, for videos are large and are not written to."""
    if os.sep + "meta" + os.sep in source:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def recorded_reference(
    args: argparse.Namespace, folder: Path, dataset: Path
) -> tuple[Reference, tuple[str, ...], dict[str, str]]:
    """Episodes of the dataset that the judged one is a copy of, imported into `folder` one at a time."""
    args.dataset = args.against
    robot, cameras, options = lerobot_cli.options_of(args)
    against, copy = Dataset(args.against), Dataset(dataset)
    originals = list(against.episodes())
    if len(copy) > len(originals):
        raise InputError(
            f"{copy.root} has {len(copy)} episodes, {against.root} {len(originals)}: which are copies of which?"
        )

    @lru_cache(maxsize=1)  # asked for once per camera
    def episode_of(index: int) -> Episode:
        (episode,) = import_lerobot(args.against, folder, robot, cameras, options, episodes=[index])
        if args.masks is not None:
            place = folder / f"masked_{index:06d}"
            return mask_episode(episode, place, args.masks, args.meshes, camera=next(iter(cameras)))
        return episode

    def reference(row: Row, camera: str) -> Shown:
        del camera
        _require_same_motion(copy, row, against, originals[row.index])
        return Shown(episode_of(row.index))

    return reference, tuple(cameras), dict(options.image_keys)


def _require_same_motion(copy: Dataset, row: Row, against: Dataset, original: Row) -> None:
    """A copy shows another world, not another motion. Raises InputError naming the episode and the first difference."""
    if row.length != original.length:
        raise InputError(
            f"episode {row.index} of {copy.root} has {row.length} frames, of {against.root} {original.length}; a copy keeps them"
        )
    ours, theirs = copy.columns(row), against.columns(original)
    for key in (STATE, ACTION):
        if key in ours and key in theirs and not np.array_equal(ours[key], theirs[key]):
            raise InputError(
                f"episode {row.index}: {key} of {copy.root} differs from {against.root}; it is no copy of its motion"
            )


def simulated_reference(paths: Sequence[Path], dataset: Path) -> tuple[Reference, tuple[str, ...]]:
    """Simulated episodes (runs or episode folders): those that the dataset's records name as their source, else one for
    all or one per episode, in order.

    A take of a run that is given is judged as in that run: from the frame its window begins at, in the shapes that objects
    have in its world, by the limits of its family.
    """
    folders = [episode_at(path) for path in paths]
    known = [open_episode(folder) for folder in folders]
    runs = [None if folder == Path(path) else RunReader(path) for path, folder in zip(paths, folders, strict=True)]
    takes = [() if run is None else run.takes() for run in runs]
    number_of = {episode.content_sha256: number for number, episode in enumerate(known)}
    rows = list(Dataset(dataset).episodes())
    strange = [row.index for row in rows if row.provenance.get("source_episode_id") not in number_of]
    if strange and len(folders) not in (1, len(rows)):
        raise InputError(
            f"--episode names {len(folders)}; {dataset} has {len(rows)} episodes, and episode {strange[0]} says of none of them "
            "that it comes from it: give one, or one for each"
        )
    names = tuple(camera.name for camera in known[0].header.cameras)

    def reference(row: Row, camera: str) -> Shown:
        number = number_of.get(str(row.provenance.get("source_episode_id")))
        if number is None:
            return Shown(known[row.index if len(known) > 1 else 0])
        episode, run, start = known[number], runs[number], int(row.provenance.get("window_start") or 0)
        take = _take_of(takes[number], row, camera)
        if run is None or take is None:
            return Shown(episode, start)
        frame = run.variant_folder(take.variant) / VARIANT_FRAME
        picture = read_picture(frame) if frame.is_file() else None
        return Shown(shown_by(run, take, episode), start, take.domain, picture)

    return reference, names


def _take_of(takes: Sequence[Take], row: Row, camera: str) -> Take | None:
    """The take that a dataset's episode says it shows in a camera; None where there is none of that name."""
    named = str(row.provenance.get("take_id") or "").split("+")
    return next((take for take in takes if take.id in named and take.camera == camera), None)


def main(argv: list[str]) -> int:
    """`retake verify DATASET --out COPY …`; returns the exit code. Raises RetakeError."""
    parser = lerobot_cli.parser(required=False)
    parser.prog = "retake verify"
    parser.description = "Judge the videos of a LeRobot dataset, whoever made them, and write the verdicts into a copy."
    add = parser.add_argument
    add("--against", type=Path, metavar="DATASET", help="the dataset it is a copy of; with --robot and --cameras")
    add(
        "--episode",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="the simulated episodes (or runs) it shows, one or one for each",
    )
    add(
        "--masks",
        type=Path,
        metavar="URDF",
        help="with --against: masks from the robot's meshes, so that episodes can pass",
    )
    add("--meshes", type=Path, metavar="DIR", help="where the URDF's meshes are")
    add("--only", nargs="+", default=(), metavar="CAMERA", help="cameras to judge (default: all that both have)")
    add("--json", type=Path, metavar="OUT", help="write all verdicts as JSON")
    add("--config", type=Path, metavar="YAML")
    add("--operating-point", metavar="NAME")
    add("--require", action="append", default=[], metavar="NAME[,NAME...]", help="checks that must be told to pass")
    args = parser.parse_args(argv)
    if args.out is None:
        raise InputError("a judged dataset goes into a copy: name it with --out DIR")
    if (args.against is None) == (args.episode is None):
        raise InputError(
            "say what the videos are to be judged against: --against DATASET (the one it is a copy of) or --episode DIR"
        )
    dataset, config = args.dataset, load_settings(args.config, args.operating_point, args.require)
    with tempfile.TemporaryDirectory(prefix="retake-judged-") as folder:
        keys: dict[str, str] = {}
        if args.against is not None:
            if args.robot is None or args.cameras is None:
                raise InputError(
                    "--against needs the robot (--robot FILE) and its cameras (--cameras FILE) to know the motion"
                )
            reference, cameras, keys = recorded_reference(args, Path(folder), dataset)
        else:
            reference, cameras = simulated_reference(args.episode, dataset)
            known = Dataset(dataset).schema.cameras
            cameras = (
                args.only or tuple(n for n in cameras if any(k == n or k.endswith("." + n) for k in known)) or cameras
            )
        if unknown := [name for name in args.only if name not in cameras]:
            raise InputError(unknown_name("camera of --only", unknown[0], cameras))
        judged = judge_dataset(
            dataset, args.out, reference, tuple(args.only) or cameras, keys, config=config,
            progress=silent if args.quiet else Bar("verdicts"), check_cancel=Stop().check,
        )  # fmt: skip
    for one in judged:
        for camera, verdict in one.verdicts.items():
            print(row_text(f"episode {one.index:<6}{camera}", verdict.overall, verdict.probability, verdict.reasons))
    found = [one.status for one in judged]
    print(f"{args.out}: {found.count('pass')} of {len(found)} episodes passed, {found.count('fail')} failed")
    if args.json:
        verdicts = [{"episode": o.index, "cameras": {c: v.to_json() for c, v in o.verdicts.items()}} for o in judged]
        write_json(args.json, {"verdicts": verdicts})
    return EXIT_CODES[worst_of(found)]
