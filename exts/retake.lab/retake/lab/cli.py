# SPDX-License-Identifier: Apache-2.0
"""`python -m retake.lab record` and `replay`: run folders from any environment of Isaac Lab."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from retake.core.camera import require_size
from retake.core.episode import CHANNELS
from retake.core.errors import InputError, RetakeError
from retake.core.progress import Bar, Progress, silent

EXAMPLES = """examples:
  python -m retake.lab record --import exts/retake.lab/examples/pick_place_env.py --task Retake-PickPlace-Panda-v0 \\
      --num_envs 2 --envs all --episodes 2 --policy exts/retake.lab/examples/scripted.py:policy --out runs/lab
  python -m retake.lab record --import isaaclab_tasks --task Isaac-Cartpole --look side=2,-3,2:0,0,1 --policy random --out runs/c
  python -m retake.lab replay demos.hdf5 --import my_tasks --task My-Task-v0 --out runs/demos

Each episode becomes a run folder; `retake run --run runs/lab/env000_0000` takes it through the arrow.
"""


def main(argv: list[str]) -> int:
    """Run a command; returns the exit code. A mistake is one sentence."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("retake.lab").setLevel(logging.INFO)
    options = parser().parse_args(argv)
    app, code = None, 1
    try:
        if options.kit:
            from retake.lab.tasks import start_kit

            app = start_kit()
        code = record(options) if options.command == "record" else replay(options)
    except RetakeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    finally:
        if app is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            app.close(code)  # may end the process
    return code


def parser() -> argparse.ArgumentParser:
    """Arguments of both commands."""
    out = argparse.ArgumentParser(
        prog="python -m retake.lab",
        description="Episodes from environments of Isaac Lab.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = out.add_subparsers(dest="command", required=True)
    for name, text in (
        ("record", "run a policy and record it"),
        ("replay", "replay HDF5 demonstrations and record them"),
    ):
        sub = words.add_parser(name, help=text, description=text)
        add = sub.add_argument
        if name == "replay":
            add("demos", type=Path, help="HDF5 file of Isaac Lab's recorders")
            add("--demo", action="append", default=[], metavar="NAME", help="only these demonstrations")
            add("--failed", action="store_true", help="also demonstrations that say success = False")
            add("--states", action="store_true", help="set every recorded state instead of repeating the actions")
        add("--task", default="", metavar="ID", help="task as registered with gymnasium"
            + (" (default: env_name of the file)" if name == "replay" else ""))  # fmt: skip
        add("--import", dest="imports", action="append", default=[], metavar="MODULE|FILE.py", help="registers tasks")
        add("--out", type=Path, required=True, metavar="DIR", help="folder of run folders")
        add("--camera", action="append", default=[], metavar="NAME[:WxH]", help="camera of the scene (default: all)")
        add(
            "--look",
            action="append",
            default=[],
            metavar="NAME=EX,EY,EZ:TX,TY,TZ",
            help="add a camera at E that looks at T, m",
        )
        add("--scenery", action="append", default=[], metavar="NAME", help="static asset that the task names")
        add("--channels", default=",".join(CHANNELS), help="default: all of rgb,depth,normals,instances")
        add("--task-text", default="", help="what is done, as one would tell a person")
        add("--physics-rate", action="store_true", help="record object poses at every physics step, too")
        add("--success-only", action="store_true", help="keep episodes only where the task was done")
        add("--seed", type=int, default=0)
        add("--device", default="cpu")
        add("--kit", action="store_true", help="start Isaac Sim first (PhysX, RTX cameras)")
        add("--quiet", action="store_true")
        add("--num_envs", type=int, default=1, help="clones")
        add("--envs", default="0", help="clones to record: numbers, or all" if name == "record" else
            "the clone to replay in: where the recorded one stood, contacts repeat")  # fmt: skip
        if name == "record":
            add("--episodes", type=int, default=1, help="episodes to keep")
            add(
                "--steps",
                type=int,
                default=0,
                help="control steps at most (default: as many as it takes, at least 2000)",
            )
            add("--policy", default="zero", help="zero, random, FILE.pt, DEMOS.hdf5, MODULE:FUNCTION")
    return out


def record(options: Any) -> int:
    """`record`: a policy moves the clones until enough episodes are kept. Raises RetakeError."""
    if options.policy.endswith(".hdf5"):
        options.demos, options.demo, options.failed, options.states = Path(options.policy), [], False, False
        return replay(options)
    env, request = _environment(options, options.num_envs, _numbers(options.envs), options.episodes)
    from retake.lab.recorder import require_complete
    from retake.lab.tasks import make_policy

    env, recorder = _attached(env, request)
    limit = options.steps or max(2000, 400 * options.episodes)
    bar: Progress = silent if options.quiet else Bar("Record")
    try:
        act = make_policy(options.policy, env.unwrapped)
        obs, _ = env.reset(seed=options.seed)
        for _ in range(limit):
            obs, *_ = env.step(act(env.unwrapped, obs))
            bar(min(len(recorder.kept), options.episodes), options.episodes, f"{recorder.steps} steps")
            if recorder.done:
                break
    finally:
        recorder.close()
        env.close()
    require_complete(recorder)
    _report(recorder)
    return 0


def replay(options: Any) -> int:
    """`replay`: each demonstration again, in one clone. Raises RetakeError."""
    from retake.lab.replay import replay_file

    clones = _numbers(options.envs)
    if clones is None or len(clones) != 1:
        raise InputError(f"--envs {options.envs!r}: a demonstration is replayed in one clone; expected its number")
    return replay_file(options, clones[0], _environment, _report)


def _environment(options: Any, num_envs: int, env_ids: tuple[int, ...] | None, episodes: int) -> tuple[Any, Any]:
    """(environment, request) of the command's arguments."""
    from retake.lab.preparation import prepare
    from retake.lab.request import RecordRequest
    from retake.lab.tasks import environment_cfg, load_module, make_environment

    for name in options.imports:
        load_module(name)
    if not options.task:
        raise InputError("which task? --task ID names one that is registered with gymnasium")
    if num_envs < 1:
        raise InputError(f"--num_envs is {num_envs}; expected 1 or more")
    cameras, sizes = _cameras(options.camera)
    channels: Any = tuple(part.strip() for part in options.channels.split(",") if part.strip())
    request = RecordRequest(
        out=options.out, env_ids=env_ids, cameras=cameras, scenery=tuple(options.scenery), channels=channels,
        task=options.task_text, episodes=episodes, success_only=options.success_only, physics_rate=options.physics_rate,
        seed=options.seed,
    )  # fmt: skip
    request.chosen(num_envs)
    cfg = environment_cfg(options.task, num_envs, options.device)
    cfg.seed = options.seed
    prepare(cfg, cameras, channels=channels, sizes=sizes, looks=_looks(options.look))
    return make_environment(options.task, cfg), request


def _attached(env: Any, request: Any) -> tuple[Any, Any]:
    """The environment with a recorder around it; the wrapper serves every kind of environment."""
    from retake.lab.wrapper import RetakeWrapper

    try:
        wrapped = RetakeWrapper(env, request, success=_success_term)
    except RetakeError:
        env.close()
        raise
    return wrapped, wrapped.recorder


def _success_term(env: Any) -> Any:
    """(N,) of the termination term `success`; none of them where the environment has no such term."""
    manager = getattr(env, "termination_manager", None)
    if manager is not None and "success" in manager.active_terms:
        return manager.get_term("success")
    return [False] * env.num_envs


def _numbers(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--envs {text!r}: expected numbers of clones such as 0,3, or all") from None


def _cameras(given: list[str]) -> tuple[tuple[str, ...], dict[str, tuple[int, int]]]:
    names, sizes = [], {}
    for text in given:
        name, colon, size = text.partition(":")
        names.append(name)
        if colon:
            width, _, height = size.partition("x")
            if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
                raise InputError(f"--camera {text!r}: expected NAME or NAME:WIDTHxHEIGHT")
            sizes[name] = require_size((int(width), int(height)), f"--camera {text!r}")
    return tuple(names), sizes


def _looks(given: list[str]) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    out = {}
    for text in given:
        name, _, places = text.partition("=")
        try:
            eye, target = (tuple(float(x) for x in part.split(",")) for part in places.split(":"))
        except ValueError:
            eye = target = ()
        if not name or len(eye) != 3 or len(target) != 3:
            raise InputError(f"--look {text!r}: expected NAME=EX,EY,EZ:TX,TY,TZ, metres in a clone's coordinates")
        out[name] = (eye, target)
    return out


def _report(recorder: Any) -> None:
    for run in recorder.kept:
        print(f"episode: {run.episode}")
    for reason in recorder.left_out:
        print(f"left out: {reason}")
    cost = recorder.summary()
    print(
        f"{cost['control_steps']} control steps; recorder {cost['recorder_ms_per_step']:.2f} ms each "
        f"({cost['recorder_share']:.1%}), cameras {cost['cameras_ms_per_step']:.1f} ms"
    )
    print(f"next: retake run --run {recorder.kept[0].path}" if recorder.kept else "nothing was kept")
