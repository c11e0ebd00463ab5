# SPDX-License-Identifier: Apache-2.0
"""`retake`: the arrow and its stages from a shell. Exit codes are in docs/cli.md.

Words outside the arrow (`oscar`, `worker`, `export` …) are resolved by name on use, so `retake --help` is instant and
core imports no GPU code.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retake.core import cli_notes, plugins
from retake.core.codec import merged
from retake.core.config import RunConfig, load_yaml, set_value
from retake.core.errors import Cancelled, RetakeError
from retake.core.progress import Bar, Stop, signals_restored
from retake.core.run_store import RunDirectory, locate, open_run
from retake.core.session import hold

ELSEWHERE = {
    "verify": ("retake.core.verdicts.cli:main", "", "judge takes: does each video do what the simulation did?"),
    "export": ("retake.core.export.cli:main", "export", "accepted takes become a training dataset"),
    "mix": ("retake.core.export.cli:mix", "export", "mix datasets for co-training by episode weights"),
    "convert-dataset": ("retake.core.export.convert:main", "export", "a LeRobot dataset with another rate, names, units, size"),
    "provenance": ("retake.core.export.restore:main", "export", "put back what LeRobot's delete, split and merge dropped"),
    "robustness": ("retake.core.robustness.cli:main", "export", "how much a policy changes when only pixels change"),
    "closed-loop": ("retake.loop.cli:main", "newton", "a policy acts in the simulator while only the world's look changes"),
    "train-probe": ("retake.worker.probe.cli:main", "oscar", "train a small fixed policy on a dataset, as a measuring device"),
    "robot": ("retake.usd.robot_cli:main", "usd", "robots of a stage: end effectors found, drawn, and written to be edited"),
    "gap": ("retake.core.gap.cli:main", "", "how far real joints are from simulated ones (SAGE), fitted and replayed"),
    "import": ("retake.core.importers.cli:main", "video", "recorded episodes (OSCAR, LeRobot, Isaac Lab …) become Episodes"),
    "masks": ("retake.core.masks.cli:main", "", "masks and depth for a recorded episode, from its robot's meshes"),
    "oscar": ("retake.worker.oscar.cli:main", "oscar", "convert, plan and run the OSCAR-2B video model"),
    "tune": ("retake.worker.tune.cli:main", "tune", "fine-tune OSCAR-2B on simulated motion and physics"),
    "worker": ("retake.worker.cli:main", "worker", "the local GPU service with its queue and page"),
    "bench": ("retake.core.bench:main", "", "measure: `retake bench oscar|worker|variants|verify|isaac`"),
    "migrate": ("retake.core.migrate:main", "", "a run of the layout before worlds had cameras becomes one of today's"),
    "config": ("retake.core.config_cli:main", "", "every setting, world, preset, backend and stage by name"),
    "doctor": ("retake.core.doctor:main", "", "what works on this machine, and the one next step"),
    "kit-selftest": ("retake.isaac.selftest:main", "", "inside Isaac Sim: check what only a real Isaac Sim can confirm"),
}  # fmt: skip

DESCRIPTIONS = {"urdf": (".urdf", ".xml"), "mjcf": (".xml", ".mjcf")}
"""Robot descriptions that a stage is made of, with the suffixes of their files."""

REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
"""What the system says about a disk, a folder or a name; any other OSError is a defect of ours."""

SEEDS = "comma-separated seeds: that many takes of every variant"
PROMPT = "a world in your own words (again for another); for first-frame backends that read prompts"
WORLDS = "comma-separated world presets, and YAML files of your own worlds (alone: all presets in them)"
COUNT = "further worlds; with presets named on the command line in their environments, else in any"

EPILOG = """
the arrow:  Episode → Skeleton → Variants → Takes → Verdicts → Dataset

  retake run --run runs/demo            simulate, draw, dress, generate, judge, report
  retake open runs/demo                 look at it
  retake run --run runs/demo            again: only what is missing or changed is done
  retake run --run runs/x --set capture.seed=7 --set variants.count=5

Ctrl-C stops after the current frame; running the same command again goes on from there.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors are one clear text on stderr, never a traceback."""
    argv = [_at_home(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    try:
        with signals_restored():
            if argv and argv[0] in ELSEWHERE:
                reference, extra, _ = ELSEWHERE[argv[0]]
                return int(plugins.load(reference, extra=extra)(argv[1:]))
            options = _parser().parse_args(argv)
            return int(options.call(options))
    except RetakeError as error:
        print(f"retake: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("retake: stopped; the same command goes on from here", file=sys.stderr)
        return Cancelled.exit_code
    except BrokenPipeError:
        # The reader of our output left (`retake check RUN | head`); nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"retake: the system refused access{where}: {error.strerror}; what was finished is kept", file=sys.stderr)
        return 6


def _at_home(argument: str) -> str:
    """`--run=~/x` with the home folder in it: shells expand `~` only where a word begins with it."""
    option, _, value = argument.partition("=")
    return f"{option}={os.path.expanduser(value)}" if option.startswith("--") and value.startswith("~/") else argument


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retake",
        description="Simulate once, shoot everywhere: one simulated robot episode becomes N verified takes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, text: str, call: Callable[[argparse.Namespace], int], *, run_option: bool = False, many: bool = False
    ) -> Any:
        sub = words.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(call=call)
        if run_option:
            sub.add_argument("--run", type=Path, default=Path("runs/run"), help="the run folder")
        else:
            nargs: dict[str, Any] = {"nargs": "+"} if many else {}
            sub.add_argument("run", type=Path, metavar="RUN", help="a run folder, or an episode folder", **nargs)
        return sub

    def configurable(sub: Any) -> None:
        sub.add_argument("--config", type=Path, help="YAML with any of the settings of config/retake.yaml")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. takes.seed=7"
        )
        sub.add_argument(
            "--camera",
            action="append",
            metavar="NAME",
            help="a camera of the episode (again for another; default: all)",
        )
        sub.add_argument("--force", action="store_true", help="go on with an episode that fails its check")

    def declarable(sub: Any) -> None:
        sub.add_argument("--robot", type=Path, metavar="FILE", help="YAML that declares end effectors (retake robot)")

    def scenario(sub: Any) -> None:
        sub.add_argument("--simulator", help="embedded simulator by name (newton)")
        sub.add_argument("--preset", help="capture preset: short (one 81-frame window), long")
        what = sub.add_mutually_exclusive_group()
        what.add_argument("--stage", type=Path, help="USD stage (or robot description) instead of the preset's")
        for kind in DESCRIPTIONS:
            text = f"{kind.upper()} robot on a stage made for it (docs/motion.md)"
            what.add_argument(
                f"--{kind}", dest="stage", type=_description(kind), metavar="FILE", default=argparse.SUPPRESS, help=text
            )
        sub.add_argument(
            "--motion", type=Path, metavar="FILE", help="joint motion to play, .csv or .npz (docs/motion.md)"
        )
        declarable(sub)
        sub.add_argument("--seed", type=int, help="seed of the scenario's randomisation")

    whole = command("run", "the whole arrow, ending with report.html", _run, run_option=True)
    configurable(whole)
    scenario(whole)
    whole.add_argument("--count", type=int, help=COUNT)
    whole.add_argument("--worlds", metavar="NAMES|FILE.yaml", help=WORLDS)
    whole.add_argument("--prompt", dest="prompts", action="append", metavar="TEXT", help=PROMPT)
    whole.add_argument("--seeds", type=_numbers, help=SEEDS)
    whole.add_argument("--ray", metavar="ADDRESS", help="fan out over a Ray cluster (`local` starts one)")
    sub = command("capture", "simulate one Episode", _capture)
    configurable(sub)
    scenario(sub)
    sub = command("check", "check an Episode's motion: limits, kinematics, contacts, task, cameras", _check)
    configurable(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("skeleton", "draw the control videos", _skeleton)
    configurable(sub)
    declarable(sub)
    sub = command("variants", "dress the first frames into N worlds", _variants)
    configurable(sub)
    sub.add_argument("--worlds", "--preset", dest="worlds", metavar="NAMES|FILE.yaml", help=WORLDS)
    sub.add_argument("--count", type=int, help=COUNT)
    sub.add_argument("--prompt", dest="prompts", action="append", metavar="TEXT", help=PROMPT)
    sub.add_argument("--seed", type=int, dest="variant_seed", help="seed of worlds and rendering")
    sub.add_argument("--backend", dest="variant_backend", help="first-frame backend")
    sub.add_argument("--rerolls", type=int, help="further attempts for a world whose frame fails the gate")
    sub.add_argument("--only-commercial", action="store_true", help="only models whose terms allow commercial use")
    sub = command("takes", "generate one video per variant and seed, of one run or several", _takes, many=True)
    configurable(sub)
    sub.add_argument("--seed", type=int, dest="take_seed", help="seed of the video model")
    sub.add_argument("--seeds", type=_numbers, help=SEEDS)
    sub.add_argument("--ray", metavar="ADDRESS", help="fan out over a Ray cluster (`local` starts one)")
    sub.add_argument("--backend", dest="take_backend", help="video backend")
    command("report", "write report.html", _report)
    sub = command("open", "serve the report on this machine and open a browser", _open)
    sub.add_argument("--port", type=int, default=0, help="0 = any free port")
    sub.add_argument("--no-browser", action="store_true", help="print the address only")
    sub.add_argument(
        "--rerun", nargs="?", type=Path, const=Path(), metavar="FILE.rrd", help="write a Rerun recording instead"
    )
    for name, (_, _, text) in ELSEWHERE.items():
        words.add_parser(name, help=text, add_help=False)
    return parser


def _config(options: argparse.Namespace, base: RunConfig) -> RunConfig:
    """The run's own settings (or the defaults), then --config, then --set, then the short options."""
    config = base if options.config is None else merged(base, load_yaml(options.config) or {}, str(options.config))
    for item in options.set:
        config = set_value(config, item)
    short: dict[str, Any] = {}
    for attribute, section, key in (
        ("simulator", "capture", "simulator"), ("preset", "capture", "preset"), ("seed", "capture", "seed"),
        ("stage", "capture", "stage"),
        ("robot", "capture", "robot"), ("count", "variants", "count"), ("variant_seed", "variants", "seed"),
        ("variant_backend", "variants", "backend"), ("rerolls", "variants", "rerolls"),
        ("take_seed", "takes", "seed"), ("take_backend", "takes", "backend"),
    ):  # fmt: skip
        value = getattr(options, attribute, None)
        if value is not None:
            short.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
    if getattr(options, "worlds", None) is not None:
        short.setdefault("variants", {}).update(_parse_worlds(options.worlds, config.variants.catalogue))
    if getattr(options, "prompts", None) is not None:
        variants = short.setdefault("variants", {})
        variants["prompts"] = [text for text in options.prompts if text.strip()]
        variants.setdefault("presets", [])  # who describes worlds wants these, not the default presets beside them
    if getattr(options, "seeds", None) is not None:
        short.setdefault("takes", {})["seeds"] = options.seeds
    elif getattr(options, "take_seed", None) is not None:
        short["takes"]["seeds"] = []  # one seed asked: no longer those of an earlier call
    if getattr(options, "only_commercial", False):
        short.setdefault("variants", {})["only_commercial"] = True
    if getattr(options, "motion", None) is not None:
        given = {**config.capture.overrides, "motion_file": str(options.motion)}
        short.setdefault("capture", {})["overrides"] = given
    if options.camera:
        short["cameras"] = [name.strip() for text in options.camera for name in text.split(",") if name.strip()]
    return merged(config, short, "command line")


def _description(kind: str) -> Callable[[str], Path]:
    """Reads the path of a robot description; argparse says what is wrong with another."""

    def read(text: str) -> Path:
        if Path(text).suffix.lower() not in DESCRIPTIONS[kind]:
            hint = "; expand it first: xacro FILE > robot.urdf" if text.endswith(".xacro") else ""
            raise argparse.ArgumentTypeError(f"expected a {' or '.join(DESCRIPTIONS[kind])} file, found {text}{hint}")
        return Path(text)

    return read


def _parse_worlds(text: str, catalogue: Sequence[str]) -> dict[str, Any]:
    """The settings that `--worlds` stands for. Files come to those known already; without a name all their presets are
    meant. Raises InputError for a file that holds no world."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    files = [str(Path(part).resolve()) for part in parts if Path(part).suffix.lower() in (".yaml", ".yml")]
    names = [part for part in parts if Path(part).suffix.lower() not in (".yaml", ".yml")]
    settings: dict[str, Any] = {"catalogue": list(dict.fromkeys([*catalogue, *files]))} if files else {}
    if files:
        from retake.core.variants.worlds import presets_in

        found = presets_in(files)
        names = names or found
        if not names:
            return settings  # axis values alone: the presets stay as they are
    # Who names presets wants more of their kind, not of any kind.
    return {**settings, "presets": names, "of_presets": bool(names)}


class _Version(argparse.Action):
    """`--version`, looked up only when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *ignored: Any) -> None:
        """Print and exit."""
        from retake.core.doctor import version

        print(f"retake {version()}")
        parser.exit()


def _hold_run(
    options: argparse.Namespace, where: Path | None = None, *, create: bool = False, remember: bool = False
) -> contextlib.AbstractContextManager[tuple[RunDirectory, RunConfig]]:
    """`session.hold` of the run meant by RUN (or `where`) with the settings of the command line."""

    def configure(base: RunConfig) -> RunConfig:
        return _config(options, base) if hasattr(options, "config") else base

    force = bool(getattr(options, "force", False))
    return hold(where or options.run, configure, create=create, remember=remember, force=force)


def _run(options: argparse.Namespace) -> int:
    from retake.core import pipeline
    from retake.core.variants.gated import read_missing

    stop = Stop()
    with _hold_run(options, create=True, remember=True) as (run, config):
        produce = _ray(options.ray) if options.ray else pipeline.produce_takes
        page = pipeline.run(run, config, Bar, stop.check, produce)
        cli_notes.note_seeds(config)
        cli_notes.note_shapes(run, config)
        cli_notes.note_failed(run)
        cli_notes.note_missing(read_missing(run.variants_folder))
    print(f"report: {page}\nlook at it with: retake open {run.path}")
    return 0


def _capture(options: argparse.Namespace) -> int:
    from retake.core import pipeline

    stop = Stop()
    with _hold_run(options, create=True, remember=True) as (run, config):
        episode = pipeline.capture(run, config, Bar("Episode"), stop.check)
    for note in episode.header.settings.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    print(f"episode: {episode.path} ({len(episode)} frames, {episode.content_sha256[:12]})")
    return 0


def _check(options: argparse.Namespace) -> int:
    from retake.core import pipeline

    with _hold_run(options) as (run, config):
        result = pipeline.check(run, config)
    if options.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        for item in result.items:
            mark = {"pass": "✓", "fail": "✗"}.get(item.status, "–")
            value = "" if item.value is None else f"{item.value:.4g} (limit {item.limit:.4g} {item.unit})"
            print(f"{mark} {item.name:<44} {value}  {item.detail}".rstrip())
    result.require(force=config.check.force)
    return 0


def _skeleton(options: argparse.Namespace) -> int:
    from retake.core import pipeline

    stop = Stop()
    with _hold_run(options) as (run, config):
        drawn = pipeline.skeleton(run, config, Bar("Skeleton"), stop.check)
    print("\n".join(f"skeleton: {run.skeleton(camera)}" for camera in drawn))
    return 0


def _variants(options: argparse.Namespace) -> int:
    from retake.core import pipeline

    stop = Stop()
    with _hold_run(options, remember=True) as (run, config):
        made = pipeline.variants(run, config, Bar("Variants"), stop.check)
        cli_notes.note_shapes(run, config)
    asked = len(made.variants) + len(made.missing)
    print(f"variants: {len(made.variants)} of {asked} in {run.variants_folder} (contact_sheet.png, gate.md)")
    return 3 if cli_notes.note_missing(made.missing) else 0


def _takes(options: argparse.Namespace) -> int:
    from retake.core import pipeline

    stop = Stop()
    produce = _ray(options.ray) if options.ray else pipeline.produce_takes
    with contextlib.ExitStack() as held:
        paths = {locate(path)[0].resolve(): path for path in options.run}  # a run that is named twice is one
        runs = [held.enter_context(_hold_run(options, path, remember=True)) for path in paths.values()]
        made = pipeline.takes_of(runs, Bar("Takes"), stop.check, produce)
        for config in {config.takes.backend: config for _, config in runs}.values():
            cli_notes.note_seeds(config)
    print(f"takes: {len(made)} in {', '.join(str(run.takes_folder) for run, _ in runs)}")
    return 0


def _ray(address: str) -> Any:
    """What makes takes over a cluster. Raises MissingDependencyError naming the extra."""
    return plugins.load("retake.worker.ray_run:producer", extra="ray")(address)


def _numbers(text: str) -> list[int]:
    """`1,2,3`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected whole numbers such as 1,2,3") from None


def _report(options: argparse.Namespace) -> int:
    from retake.core import pipeline

    with _hold_run(options) as (run, _):
        page = pipeline.report(run, Bar("Report"))
    print(f"report: {page}")
    return 0


def _open(options: argparse.Namespace) -> int:
    if options.rerun is not None:
        return _rerun(options)
    from retake.core.report.serve import serve

    run = open_run(locate(options.run)[0])
    if not run.report.exists():
        _report(options)
    return serve(run.path, port=options.port, browser=not options.no_browser)


def _rerun(options: argparse.Namespace) -> int:
    """A Rerun recording of a run, or of a dataset, beside it or where FILE says."""
    from retake.core.report import recording

    named = options.rerun != Path()
    if (options.run / "meta/info.json").is_file():
        out = options.rerun if named else options.run.with_name(f"{options.run.name}.rrd")
        recording.record_dataset(options.run, out, progress=Bar("Recording"), check_cancel=Stop().check)
    else:
        run = locate(options.run)[0]
        out = options.rerun if named else run.with_name(f"{run.name}.rrd")
        recording.record_run(run, out, progress=Bar("Recording"), check_cancel=Stop().check)
    print(f"recording: {out}\nlook at it with: rerun {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
