# SPDX-License-Identifier: Apache-2.0
"""`retake verify`: judge a run's takes, or any video against any episode."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core import plugins
from retake.core.episode import open_episode
from retake.core.errors import InputError, VerdictError
from retake.core.files import write_json
from retake.core.progress import Bar
from retake.core.run_reader import RunReader
from retake.core.run_store import locate
from retake.core.verdicts.clip import is_pictures
from retake.core.verdicts.economics import economics, faulty_share_of
from retake.core.verdicts.recorded import verify_video
from retake.core.verdicts.records import EXIT_CODES, Verdict, row_text, worst_of
from retake.core.verdicts.run import read_picture, summary, told_damaged, verify_whole
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.verdicts.worlds import compare_worlds

_EPILOG = """
examples:
  retake verify runs/demo                                    every take of a run
  retake verify take.mp4 --episode runs/demo/episode --camera front --json verdict.json
  retake verify take.mp4 --episode EP --camera front --first-frame frame.png --pictures out/
  retake verify runs/demo --require gripper_event,wrist_turn pass no take of which these could not be told

  retake verify datasets/copy --against datasets/real --robot r.urdf --cameras c.json --out datasets/judged
                                                             anybody's videos in a LeRobot dataset (--help after its name)

exit code: 0 pass, 3 fail, 4 unsure (nothing failed, but something could not be told); 2 when nothing can be compared.
"""


def main(argv: list[str]) -> int:
    """Judge and print; returns the exit code."""
    if any((Path(word) / "meta/info.json").is_file() for word in argv[:1]):
        return plugins.load("retake.core.importers.judged:main", extra="export")(argv)
    parser = argparse.ArgumentParser(
        prog="retake verify",
        description="Does the video do what the simulation did? Arm, gripper, object and scenery, with numbers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "what",
        type=Path,
        metavar="RUN|VIDEO|DATASET",
        help="a run folder (or its episode folder), a video file, a folder of numbered pictures, or a LeRobot dataset "
        "(`retake verify DATASET --help` lists its options)",
    )
    add("--episode", type=Path, metavar="DIR", help="the episode a video is judged against")
    add("--camera", metavar="NAME", help="which of its cameras the video shows (default: its only one)")
    add("--first-frame", type=Path, metavar="PNG", help="the picture the video was made from")
    add("--start", type=int, default=0, metavar="N", help="episode frame that the video's first frame shows (0)")
    add(
        "--frames",
        type=int,
        metavar="N",
        help="frames the video should have (default: to the episode's end, 81 at most)",
    )
    add("--json", type=Path, metavar="OUT", help="write the verdict (of a run: all verdicts) as JSON")
    add("--pictures", type=Path, metavar="DIR", help="write worst frames and the errors over time here")
    add("--config", type=Path, metavar="YAML", help="thresholds and settings instead of config/verdicts.yaml's")
    add("--operating-point", metavar="NAME", help="strict (fewer faulty takes pass) or balanced (the default)")
    add(
        "--require",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="checks that must be told: where these pictures cannot show one, the take is unsure, and not passed without it",
    )
    add(
        "--family", metavar="NAME", help="who made the video: generated (the default) or composite; of runs it is known"
    )
    add(
        "--object-control",
        default="",
        choices=("drawn", "embed"),
        help="its model was shown the objects in a control video (docs/tune.md): none may be in the picture; of runs it is known",
    )
    options = parser.parse_args(argv)
    if options.what.is_dir() and not (options.episode and is_pictures(options.what)):
        return _run(options)
    return _video(options)


def _run(options: argparse.Namespace) -> int:
    settings = load_settings(options.config, options.operating_point, options.require)
    verdicts, damaged = verify_whole(locate(options.what)[0], Bar("verdicts"), config=settings)
    for row in verdicts:
        print(row_text(row["take"], row["overall"], row["probability"], row["reasons"]))
    worlds = compare_worlds(RunReader(locate(options.what)[0]), Bar("views"), config=settings)
    for row in worlds:
        print(row_text(row["world"], row["status"], ", ".join(row["videos"]), row["reasons"]))
    total = summary(verdicts)
    print(f"{total['pass']} of {total['takes']} takes passed, {total['fail']} failed, {total['unsure']} unsure")
    for line in untold_of(verdicts):
        print(line)
    if estimate := expected_cost(settings, total):
        print(estimate)
    if options.json:
        write_json(options.json, {"summary": total, "verdicts": verdicts, "worlds": worlds})
    if damaged:
        raise VerdictError(told_damaged(damaged))
    if not verdicts:
        print(f"{options.what} has no takes yet; `retake run` or `retake takes` makes them", file=sys.stderr)
        return EXIT_CODES["unsure"]
    torn = [row["status"] for row in worlds if row["status"] == "fail" or row.get("unsure")]
    return EXIT_CODES[worst_of([*torn, *(row["overall"] for row in verdicts)])]


def untold_of(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per check that was not told of accepted takes: of how many, and the reason that most of them have."""
    passed = [row for row in verdicts if row["overall"] == "pass"]
    reasons: dict[str, Counter[str]] = {}
    for row in passed:
        for text in row.get("untold", ()):
            name, _, why = str(text).partition(": ")
            reasons.setdefault(name, Counter())[why] += 1
    return [
        f"{found.total()} of {len(passed)} accepted takes: {name} not told ({found.most_common(1)[0][0]})"
        for name, found in sorted(reasons.items(), key=lambda item: -item[1].total())
    ]


def expected_cost(settings: VerdictSettings, total: dict[str, Any]) -> str:
    """What re-rolling until every slot has a pass costs, in attempts; empty where the bench measured no rates, as of required
    checks: a take of which one was not told is no faulty one."""
    if settings.required:
        return ""
    point = settings.operating_points.get(settings.operating_point)
    if point is None or point.clean_passed is None or point.faulty_passed is None or not total["takes"]:
        return ""
    share = faulty_share_of(point, total["pass"] / total["takes"])
    found = economics(point, share, 1.0)
    if not total["pass"]:
        return f"nothing passed at the operating point {settings.operating_point}; `retake reroll` tries other seeds"
    return (
        f"at the operating point {settings.operating_point}: {found.attempts_per_accepted:.1f} attempts per accepted take; "
        f"about {100 * share:.0f} % of the takes are faulty, and {100 * found.faulty_share:.0f} % of the accepted ones"
    )


def _video(options: argparse.Namespace) -> int:
    if options.episode is None:
        raise InputError(
            f"{options.what} is no folder, so it is taken for a video; a video needs --episode DIR (and --camera NAME)"
        )
    if not options.what.exists():
        raise InputError(f"{options.what} does not exist; expected a run folder or a video file")
    episode = open_episode(options.episode)
    cameras = [camera.name for camera in episode.header.cameras]
    if options.camera is None and len(cameras) != 1:
        raise InputError(f"{options.episode} has cameras {', '.join(cameras)}; say which one with --camera NAME")
    settings = load_settings(options.config, options.operating_point, options.require)
    settings = settings if options.family is None else settings.of(options.family)
    first = None if options.first_frame is None else read_picture(options.first_frame)
    verdict = verify_video(
        options.what, episode, options.camera or cameras[0], first_frame=first, start=options.start, frames=options.frames,
        config=settings, pictures=options.pictures, object_control=options.object_control,
    )  # fmt: skip
    verdict = replace(verdict, take=options.what.stem)
    if options.json:
        write_json(options.json, verdict.to_json())
    print(as_text(verdict))
    return verdict.exit_code


def as_text(verdict: Verdict) -> str:
    """A verdict as a table for a terminal."""
    lines = [f"{verdict.overall.upper()}  probability faultless {verdict.probability:.3f} ({verdict.calibration})"]
    for c in verdict.checks:
        value = "-" if c.value is None else f"{c.value:.3g}"
        limit = "" if c.threshold is None or c.status == "skipped" else f"limit {c.threshold:.3g} {c.unit}"
        frame = "" if c.worst_frame is None else f"frame {c.worst_frame}"
        lines.append(f"  {c.status:<8}{c.name:<18}{value:>8}  {limit:<28} {frame:<10}{c.note}".rstrip())
    return "\n".join(lines)
