# SPDX-License-Identifier: Apache-2.0
"""`retake export` and `retake mix`."""

from __future__ import annotations

import argparse
from pathlib import Path

from retake.core.camera import require_size
from retake.core.errors import InputError
from retake.core.export.api import ExportOptions, export
from retake.core.export.collect import Selection
from retake.core.export.found import DOMAINS
from retake.core.export.isaaclab_env import LabTarget
from retake.core.export.layouts import LAYOUTS
from retake.core.export.mix import mix as mix_datasets
from retake.core.export.mix import parse_source
from retake.core.export.records import CODEC_NAMES, FORMATS, ExportReport, VideoOptions
from retake.core.export.split import parse_split
from retake.core.export.vectors import ACTIONS, EXTRAS
from retake.core.progress import Bar, Stop, silent
from retake.core.run_store import locate

_EXAMPLES = """examples:
  retake export runs/demo --format lerobot-v3 --out datasets/demo
  retake export runs/a runs/b --format lerobot-v3 --include-sim --split val=0.1 --out datasets/ab
  retake export runs/c --format lerobot-v3 --append --out datasets/demo
  retake export runs/* --format oscar --only-commercial --min-verdict 0.95 --out datasets/oscar

Only takes whose verdict passed are exported; `retake verify RUN` judges them. Interrupted, the same command continues.
"""
_COMMERCIAL = "only episodes whose model, first frame and assets state terms that allow commercial use (unknown = no)"
_ASSETS = "licence of the simulated assets where the episode states none (an SPDX id, or 'own')"
_MIXED = (
    "a camera that a world lacks comes from another backend's or seed's take of it, else from the simulation; "
    "each camera's domain is recorded (camera_domains)"
)
_OBJECTS = (
    "oscar, oscar-canvas: draw the movable objects into the control video, for models tuned to read them there "
    "(`retake tune --object-control drawn`)"
)
_UNVERIFIED = "also takes without a verdict or with an unsure one (marked in the provenance); failed ones never"


def export_parser() -> argparse.ArgumentParser:
    """Arguments of `retake export`."""
    parser = argparse.ArgumentParser(
        prog="retake export",
        description="Accepted takes become a dataset that LeRobot, GR00T, openpi, OSCAR or Isaac Lab reads as it is.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", type=Path, help="run folders (runs/<name>), or their episode folders")
    add("--out", required=True, type=Path, help="folder of the dataset")
    add("--format", choices=FORMATS, default="lerobot-v3", help="default: lerobot-v3")
    add("--append", action="store_true", help="add to the dataset that is there; episodes it has are not added twice")
    add("--only-commercial", action="store_true", help=_COMMERCIAL)
    add("--assets-licence", default="", metavar="ID", help=_ASSETS)
    add("--min-verdict", type=float, default=0.0, metavar="P", help="least calibrated probability of a verdict, 0..1")
    add("--unverified", action="store_true", help=_UNVERIFIED)
    add(
        "--include-sim",
        action="store_true",
        help="the simulator's own pictures as episodes of their own (domain 'sim')",
    )
    add(
        "--split",
        metavar="val=SHARE",
        help="hold out trajectories: val=0.1, or val=@RUN,RUN; writes OUT/train and OUT/val",
    )
    add("--seed", type=int, default=0, help="seed of the split")
    add("--camera", nargs="+", default=(), metavar="NAME", help="cameras to export (default: all that any take has)")
    add("--domain", nargs="+", default=(), metavar="NAME", help="only takes of these domains: " + ", ".join(DOMAINS))
    add("--allow-mixed", action="store_true", help=_MIXED)
    add("--size", metavar="WxH", help="size of the pictures, or 'capture' for the camera's own (un-squeezes takes)")
    add(
        "--codec",
        choices=sorted(CODEC_NAMES),
        help="default: av1 for lerobot-v3, h264 for lerobot-v2.1; 'lossless' keeps every pixel",
    )
    add("--crf", type=int, help="quality of the codec, lower is better (default: the codec's)")
    add("--gop", type=int, default=2, help="frames from key frame to key frame; 2 makes random access cheap")
    add("--action", choices=ACTIONS, default="commanded", help="'next-state' for recordings without commanded targets")
    add("--extra", nargs="+", default=(), choices=EXTRAS, help="further features")
    add("--layout", choices=LAYOUTS, default="full", help="of state and action: DROID and openpi want arm+openness")
    add("--no-truth", action="store_true", help="without the per-frame features of what the simulator knows (truth.…)")
    add(
        "--no-language",
        action="store_true",
        help="without LeRobot's language columns (lerobot before 0.6 cannot open them)",
    )
    add("--object-control", action="store_true", help=_OBJECTS)
    add("--window", type=int, default=0, help="frames per episode of runs without takes (with --include-sim); 0 = all")
    add("--isaaclab", type=int, choices=(2, 3), default=3, help="hdf5-isaaclab: version whose quaternion order it has")
    add("--env-name", default="", metavar="ID", help="hdf5-isaaclab: env_name (default: what the Episode says)")
    add(
        "--env-file",
        type=Path,
        metavar="FILE.yaml",
        help="hdf5-isaaclab: names and orders of an environment (docs/isaac_lab.md)",
    )
    add("--restart", action="store_true", help="discard the work of another, interrupted export to the same folder")
    add("--quiet", action="store_true")
    return parser


def parse_size(text: str | None) -> tuple[int, int] | str | None:
    """`WxH`, `capture` or None. Raises InputError."""
    if text in (None, "capture"):
        return text
    width, _, height = str(text).partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise InputError(f"--size {text!r}: expected WIDTHxHEIGHT such as 640x480, or 'capture'")
    return require_size((int(width), int(height)), f"--size {text!r}")


def _video(args: argparse.Namespace) -> VideoOptions | None:
    """What was asked of the videos; None where nothing was. Raises InputError for formats that encode in their own way."""
    if args.codec is None and args.crf is None and args.gop == 2:
        return None
    if not args.format.startswith("lerobot"):
        raise InputError(
            f"--codec, --crf and --gop are for LeRobot's formats; {args.format} stores pictures in its own way"
        )
    usual = "h264" if args.format == "lerobot-v2.1" else "av1"
    return VideoOptions.of(args.codec or usual, args.crf, args.gop)


def main(argv: list[str]) -> int:
    """`retake export RUN… --out DIR`; returns the exit code. Raises RetakeError."""
    args = export_parser().parse_args(argv)
    if args.format != "hdf5-isaaclab" and (args.env_file or args.env_name or args.isaaclab != 3):
        raise InputError(
            f"--isaaclab, --env-name and --env-file are for --format hdf5-isaaclab; asked is {args.format}"
        )
    options = ExportOptions(
        args.format,
        _video(args),
        split=parse_split(args.split, args.seed),
        append=args.append,
        restart=args.restart,
        isaaclab=LabTarget(args.isaaclab, args.env_name, args.env_file),
        object_control=args.object_control,
    )
    selection = Selection(
        only_commercial=args.only_commercial,
        min_verdict=args.min_verdict,
        unverified=args.unverified,
        include_sim=args.include_sim,
        cameras=tuple(args.camera),
        size=parse_size(args.size),
        assets_licence=args.assets_licence,
        action_source=args.action,
        extras=tuple(args.extra),
        layout=args.layout,
        truth=not args.no_truth,
        language=not args.no_language,
        window=args.window,
        allow_mixed=args.allow_mixed,
        domains=tuple(args.domain),
    )
    bar = silent if args.quiet else Bar("Export")
    for report in export(
        [locate(run)[0] for run in args.runs],
        args.out,
        options,
        selection,
        progress=bar,
        check_cancel=Stop().check,
    ):
        print_report(report)
    return 0


def print_report(report: ExportReport) -> None:
    """What happened, in a few lines."""
    domains = ", ".join(f"{n} {name}" for name, n in sorted(report.domains.items()))
    print(f"{report.out}: {report.episodes} episodes, {report.frames} frames ({domains}); {report.format}")
    rate = f" in {report.seconds:.1f} s" if report.added else ""
    print(f"added {report.added}{rate}; already there {report.already_there}; rejected {len(report.rejected)}")
    for one in report.rejected[:10]:
        print(f"  {one.run}/{one.take}: {one.reason}")
    if len(report.rejected) > 10:
        print(f"  … and {len(report.rejected) - 10} more (meta/retake_rejected.jsonl)")
    for warning in report.warnings:
        print(f"note: {warning}")


def mix_parser() -> argparse.ArgumentParser:
    """Arguments of `retake mix`."""
    parser = argparse.ArgumentParser(
        prog="retake mix",
        description="Join LeRobot datasets by episode weights for co-training: NAME=DIR:WEIGHT …; weights sum to 1.",
        epilog="example:\n  retake mix real=datasets/droid:0.9 takes=datasets/demo:0.1 --out datasets/cotrain",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sources", nargs="+", metavar="NAME=DIR:WEIGHT")
    add("--out", required=True, type=Path)
    add("--episodes", type=int, help="episodes of the mixture (default: the most that needs no episode twice)")
    add("--seed", type=int, default=0, help="which episodes are drawn, and their order")
    add("--weights-only", action="store_true", help="write only retake_mix.json, for loaders that take weights")
    add("--trust-units", action="store_true", help="accept sources that state no units")
    add(
        "--codec",
        default="av1",
        choices=sorted(CODEC_NAMES),
        help="videos of this codec are copied, others encoded again",
    )
    add("--crf", type=int)
    add("--restart", action="store_true", help="discard the work of another, interrupted mix to the same folder")
    add("--quiet", action="store_true")
    return parser


def mix(argv: list[str]) -> int:
    """`retake mix NAME=DIR:WEIGHT … --out DIR`; returns the exit code. Raises RetakeError."""
    args = mix_parser().parse_args(argv)
    result = mix_datasets(
        [parse_source(text) for text in args.sources],
        args.out,
        episodes=args.episodes,
        seed=args.seed,
        weights_only=args.weights_only,
        trust_units=args.trust_units,
        options=ExportOptions("lerobot-v3", VideoOptions.of(args.codec, args.crf), restart=args.restart),
        progress=silent if args.quiet else Bar("Mix"),
        check_cancel=Stop().check,
    )
    for source in result.sources:
        print(
            f"{source.name}: {source.taken} of {source.available} episodes ({source.share:.1%}, asked {source.weight:.1%})"
        )
    for note in result.notes:
        print(f"note: {note}")
    print(f"{args.out}: {result.episodes} episodes")
    return 0
