# SPDX-License-Identifier: Apache-2.0
"""`retake tune plan | run | reward | distil | stop | save | eval`. Errors are RetakeErrors; the caller prints them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retake.core.errors import InputError
from retake.core.progress import Bar, Stop

from ..oscar.cli import dependencies


def main(argv: Sequence[str] | None = None) -> int:
    """`retake tune …`: 0, or a RetakeError."""
    parser = argparse.ArgumentParser(
        prog="retake tune", description="Fine-tune OSCAR-2B on simulated motion and what it should look like."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_plan(commands)
    _add_run(commands)
    _add_reward(commands)
    _add_distil(commands)
    _add_stop(commands)
    _add_save(commands)
    _add_eval(commands)
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = parser.parse_args(words)
    arguments.words = words
    with dependencies():
        return arguments.go(arguments)


def _add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lora", action="store_true", help="train adapters (one 24 GB card); default: all weights")
    parser.add_argument("--rank", type=int, default=32, help="of the adapters (default 32)")
    parser.add_argument("--alpha", type=float, default=32.0, help="of the adapters (default 32)")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations: faster, far more memory")
    parser.add_argument("--no-average", action="store_true", help="keep no average (EMA) of the weights")
    parser.add_argument("--object-control", default="none", choices=("none", "drawn", "embed"))
    parser.add_argument("--frames", type=int, default=81, help="window, 1 + 4k (default 81)")
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT of the model (default 640x480)")
    parser.add_argument("--batch", type=int, default=1, help="windows per process and forward pass")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="default: bf16 on CUDA, fp32 elsewhere")


def _add_plan(commands: Any) -> None:
    parser = commands.add_parser("plan", help="memory and work of a step, counted without a GPU")
    _add_step(parser)
    parser.add_argument("--model", type=Path, metavar="DIR", help="a converted folder (default: full-size OSCAR-2B)")
    parser.add_argument("--distil", action="store_true", help="for `retake tune distil`: student, critic and teacher")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(go=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    import dataclasses

    from .planning import plan_training

    settings = _settings(arguments)
    transformer = None
    if arguments.model is not None:
        from ..oscar.cli import read_settings

        transformer = read_settings(arguments.model)[0]
    plan = plan_training(
        settings.step, transformer=transformer, dtype=_dtype(arguments.dtype, "cuda"), frames=settings.frames,
        size=settings.size, batch=settings.batch,
    )  # fmt: skip
    distil: dict[str, int] = {}
    if arguments.distil:
        from .distill_run import DistilSettings, distil_peak

        DistilSettings(step=settings.step)  # or why it cannot be distilled so
        distil = {"distil_peak": distil_peak(plan)}
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(plan), "peak": plan.peak, **distil}, indent=2))
    else:
        print("\n".join(plan.lines()))
        for need in distil.values():
            print(f"{'distilling in all':<18}{need / 2**30:8.2f} GiB (student, critic and teacher)")
    return 0


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", type=Path, help="run folders (accepted takes) and folders in OSCAR's layout")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, curves, latents")
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument(
        "--cycle", type=int, default=400_000, help="steps over which the rate falls to 0.4 (default 400000)"
    )
    parser.add_argument("--include-sim", action="store_true", help="the simulator's own pictures, too")
    parser.add_argument("--unverified", action="store_true", help="takes that nobody judged, too")
    parser.add_argument("--only-commercial", action="store_true")
    parser.add_argument(
        "--domain", action="append", default=[], metavar="NAME=SHARE", help="share of a domain of clips"
    )
    parser.add_argument("--balance", action="store_true", help="domains share by frames^(1/3)")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: cuda if there is one")


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="train; the same command goes on where it stopped")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a converted folder: the base weights")
    _add_data(parser)
    _add_step(parser)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--accumulate", type=int, default=1, help="forward passes per update")
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--time-weight", default="uniform", choices=("uniform", "reweighting"))
    parser.add_argument(
        "--object-weight", type=float, default=0.0, help="how much more the objects' cells count (0: off)"
    )
    parser.add_argument("--release-boost", type=float, default=1.0, help="factor on it between release and settling")
    parser.add_argument("--text-dropout", type=float, default=0.0)
    parser.add_argument("--skeleton-dropout", type=float, default=0.0)
    parser.add_argument("--validation", type=float, default=0.0, help="share of source episodes held back")
    parser.add_argument("--validate-every", type=int, default=100)
    parser.add_argument(
        "--picture-steps", type=int, default=8, help="of the pictures drawn at each validation (default 8; 0: none)"
    )
    parser.add_argument("--shard", action="store_true", help="several processes: split the weights (FSDP2)")
    parser.add_argument("--ray", metavar="ADDRESS", help="train on a Ray cluster (`local` starts one on this machine)")
    parser.add_argument("--processes", type=int, default=2, help="of a training on Ray (default 2), one per GPU")
    parser.set_defaults(go=_run)


def _add_reward(commands: Any) -> None:
    parser = commands.add_parser(
        "reward",
        help="experimental second stage: follow a reward of how objects move (nobody tuned the full size so yet)",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a converted folder: the base weights")
    _add_data(parser)
    _add_step(parser)
    parser.add_argument(
        "--reward", default="overlap", help="overlap (default: with the simulator's objects) or acceleration"
    )
    parser.add_argument("--sample-steps", type=int, default=8, help="Euler steps of a sampled video (default 8)")
    parser.add_argument(
        "--gradient-steps", type=int, default=1, help="of them carry gradients, the last ones (default 1)"
    )
    parser.add_argument(
        "--anchor", type=float, default=1.0, help="weight of the training loss beside it (default 1; 0: off)"
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--validation", type=float, default=0.0, help="share of source episodes held back")
    parser.add_argument("--validate-every", type=int, default=50)
    parser.add_argument(
        "--picture-steps", type=int, default=8, help="of the pictures drawn at each validation (0: none)"
    )
    parser.set_defaults(go=_reward)


def _reward(arguments: argparse.Namespace) -> int:
    import dataclasses

    from .launch import train
    from .reward_run import RewardSettings

    plain = _settings(arguments, _shares(arguments))
    settings = RewardSettings(
        **{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)},
        reward=arguments.reward, sample_steps=arguments.sample_steps, gradient_steps=arguments.gradient_steps,
        anchor=arguments.anchor,
    )  # fmt: skip
    print("experimental: rewards can be gamed; judge what comes out with `retake tune eval`")
    train(
        arguments.model.absolute(), [path.absolute() for path in arguments.data], arguments.out.absolute(), settings,
        device=arguments.device, dtype=arguments.dtype, include_sim=arguments.include_sim, unverified=arguments.unverified,
        only_commercial=arguments.only_commercial, command=_command(arguments), progress=Bar("rewarding"),
        cancel=_check(arguments.out),
    )  # fmt: skip
    print(f"{arguments.out}: step {settings.steps}; `retake tune save {arguments.out} --out FILE` makes weights to use")
    return 0


def _add_distil(commands: Any) -> None:
    parser = commands.add_parser(
        "distil", help="experimental: a student of a few steps, by distribution matching (nobody trained one yet)"
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a converted folder: the teacher")
    _add_data(parser)
    parser.add_argument("--student-steps", type=int, default=4, help="evaluations of the student per take (default 4)")
    parser.add_argument("--sampler", default="consistency", help="how it is sampled: consistency (default) or ode")
    parser.add_argument(
        "--guidance", type=float, default=6.0, help="of the teacher, which the student learns (default 6; 0: off)"
    )
    parser.add_argument(
        "--critic-steps", type=int, default=5, help="steps of the critic per step of the student (default 5)"
    )
    parser.add_argument("--critic-lr", type=float, default=1e-6)
    parser.add_argument("--steps", type=int, default=1000, help="of the critic (default 1000)")
    parser.add_argument("--lr", type=float, default=1e-6, help="of the student (default 1e-6)")
    parser.add_argument("--frames", type=int, default=81, help="window, 1 + 4k (default 81)")
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT of the model (default 640x480)")
    parser.add_argument("--batch", type=int, default=1, help="windows per step")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="default: bf16 on CUDA, fp32 elsewhere")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations: faster, far more memory")
    parser.set_defaults(go=_distil, lora=False, no_average=True, object_control="none")


def _distil(arguments: argparse.Namespace) -> int:
    import dataclasses

    from ..oscar.few_step import Student
    from .distill_run import DistilSettings, distil

    plain = _settings(arguments, _shares(arguments))
    settings = DistilSettings(
        **{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)},
        student=Student(arguments.student_steps, arguments.sampler), guidance=arguments.guidance,
        critic_steps=arguments.critic_steps, critic_lr=arguments.critic_lr,
    )  # fmt: skip
    print("experimental: the recipe's loss is the public one's, but no student was trained with it yet")
    distil(
        arguments.model.absolute(), [path.absolute() for path in arguments.data], arguments.out.absolute(), settings,
        device=arguments.device, dtype=arguments.dtype, include_sim=arguments.include_sim, unverified=arguments.unverified,
        only_commercial=arguments.only_commercial, command=_command(arguments), progress=Bar("distilling"),
        cancel=_check(arguments.out),
    )  # fmt: skip
    print(
        f"{arguments.out}: step {settings.steps}; `retake tune save {arguments.out} --model {arguments.model} --out DIR` makes a "
        f"model folder, `retake tune eval {arguments.model} DIR` judges it by verdicts"
    )
    return 0


def _shares(arguments: argparse.Namespace) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in arguments.domain:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise InputError(f"--domain {text!r}: expected NAME=SHARE, for instance composite=0.7") from None
    return shares


def _command(arguments: argparse.Namespace) -> str:
    """What was typed, to be typed again in the same folder."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    start = (
        ["retake"] if processes < 2 else ["torchrun", "--nproc-per-node", str(processes), "--module", "retake.core.cli"]
    )
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join([*start, 'tune', *arguments.words])}"


def _check(out: Path) -> Callable[[], None]:
    """Raises Cancelled after Ctrl-C, or where `retake tune stop` asked for it (after the training had begun)."""
    from .folder import is_running, take_request

    stop = Stop()
    if not is_running(out):
        take_request(out)  # left over: there was nothing to stop then

    def check() -> None:
        stop.asked = stop.asked or take_request(out)
        stop.check()

    return check


def _run(arguments: argparse.Namespace) -> int:
    from .launch import train

    settings = _settings(arguments, _shares(arguments))
    bar = Bar("tuning")
    training = {
        "model": arguments.model.absolute(), "data": [path.absolute() for path in arguments.data],
        "out": arguments.out.absolute(), "settings": settings, "device": arguments.device, "dtype": arguments.dtype,
        "shard": arguments.shard, "include_sim": arguments.include_sim, "unverified": arguments.unverified,
        "only_commercial": arguments.only_commercial, "command": _command(arguments),
    }  # fmt: skip
    if arguments.ray is not None:
        from ..memory import usable_device
        from .ray_train import train_from_folders, train_on_ray

        gpus = usable_device(arguments.device).type == "cuda"
        train_on_ray(train_from_folders, training, processes=arguments.processes, storage=arguments.out / "ray", gpus=gpus,
                     address=arguments.ray)  # fmt: skip
    else:
        train(**training, progress=bar, cancel=_check(arguments.out))
    print(f"{arguments.out}: step {settings.steps}; `retake tune save {arguments.out} --out FILE` makes weights to use")
    return 0


def _add_stop(commands: Any) -> None:
    parser = commands.add_parser("stop", help="ask a running training to write a checkpoint and stop")
    parser.add_argument("folder", type=Path)
    parser.set_defaults(go=_stop)


def _stop(arguments: argparse.Namespace) -> int:
    if not (arguments.folder / "checkpoints").is_dir() and not (arguments.folder / "curves").is_dir():
        raise InputError(
            f"{arguments.folder} is no training folder (no checkpoints/); give the --out of `retake tune run`"
        )
    from .folder import ask_to_stop, is_running

    ask_to_stop(arguments.folder)
    print(f"{arguments.folder}: will stop after the current step, with a checkpoint")
    if not is_running(arguments.folder):
        print(
            "no process of this machine trains there now; one of another machine, or one that has not begun yet, hears it"
        )
    return 0


def _add_save(commands: Any) -> None:
    parser = commands.add_parser(
        "save", help="a checkpoint -> a LoRA file, or a model folder (a student: with student.json)"
    )
    parser.add_argument("folder", type=Path, help="the --out of `retake tune run` or `distil`")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="the base weights it was trained from")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument("--step", type=int, help="default: the newest checkpoint")
    parser.add_argument("--last", action="store_true", help="the last weights instead of their average")
    parser.set_defaults(go=_save)


def _save(arguments: argparse.Namespace) -> int:
    from .launch import save_weights

    print(save_weights(arguments.folder, arguments.model, arguments.out, arguments.step, average=not arguments.last))
    return 0


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser("eval", help="did it help? base and tuned weights on the same first frames and seeds")
    parser.add_argument("base", type=Path, help="a converted folder")
    parser.add_argument("tuned", type=Path, help="what `retake tune save` wrote: a LoRA or a model folder")
    parser.add_argument(
        "--episodes", nargs="+", type=Path, required=True, metavar="RUN", help="run folders with variants"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="takes, verdicts, eval.json, eval.html")
    parser.add_argument("--seeds", default="42", help="comma-separated")
    parser.add_argument("--frames", type=int, default=81, help="of each take (0: all)")
    parser.add_argument("--steps", type=int, help="of each take (default: 35, or what a few-step student was made for)")
    parser.add_argument("--device", default="")
    parser.set_defaults(go=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    from .evaluate import evaluate
    from .launch import eval_backends, training_episodes

    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        raise InputError(f"--seeds {arguments.seeds!r}: expected whole numbers such as 1,2,3") from None
    settings = {} if arguments.steps is None else {"steps": arguments.steps}
    backends = eval_backends(arguments.base, arguments.tuned, arguments.device)
    summary = evaluate(
        backends, arguments.episodes, arguments.out, seeds=seeds, frames=arguments.frames,
        trained_on=training_episodes(arguments.tuned), settings=settings, progress=Bar("evaluating"),
        cancel=Stop().check,
    )  # fmt: skip
    for row in summary["rows"]:
        if row["group"] == "all":
            print(f"{row['name']:<28}{row['base']:10.4g}{row['tuned']:10.4g}  gain {row['gain']:+.4g} "
                  f"[{row['low']:+.3g}, {row['high']:+.3g}]  p {row['p']:.3f}  n {row['pairs']}")  # fmt: skip
    if summary["arm_follows_worse"]:
        print(f"the arm follows WORSE: {', '.join(summary['arm_follows_worse'])}")
    print(f"{arguments.out / 'eval.html'}")
    return 0


def _settings(arguments: argparse.Namespace, shares: dict[str, float] | None = None) -> Any:
    from .config import LinearSchedule, LoraSettings, ObjectSupervision, TuneConfig
    from .settings import RunSettings

    def option(name: str, default: Any) -> Any:
        return getattr(arguments, name, default)

    width, _, height = arguments.size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise InputError(f"--size {arguments.size!r}: expected WIDTHxHEIGHT, for instance 640x480")
    steps = option("steps", 1000)
    step = TuneConfig(
        lr=option("lr", 3e-5),
        schedule=LinearSchedule(warm_up=option("warm_up", 100), cycle=option("cycle", 400_000)),
        ema_rate=None if arguments.no_average else 0.1,
        time_weight=option("time_weight", "uniform"),
        text_dropout=option("text_dropout", 0.0),
        skeleton_dropout=option("skeleton_dropout", 0.0),
        lora=LoraSettings(arguments.rank, arguments.alpha) if arguments.lora else None,
        objects=ObjectSupervision(option("object_weight", 0.0), option("release_boost", 1.0), arguments.object_control),
        gradient_checkpointing=not arguments.no_checkpointing,
        seed=option("seed", 0),
    )
    return RunSettings(
        step=step, steps=steps, batch=arguments.batch, accumulate=option("accumulate", 1), frames=arguments.frames,
        size=(int(width), int(height)), domains=shares or {}, balance=option("balance", False),
        validation=option("validation", 0.0), validate_every=option("validate_every", 100),
        picture_steps=option("picture_steps", 8), save_every=option("save_every", 100), data_seed=option("seed", 0),
    )  # fmt: skip


def _dtype(name: str | None, device: str) -> Any:
    import torch

    wanted = name or ("bf16" if device == "cuda" else "fp32")
    return torch.bfloat16 if wanted == "bf16" else torch.float32
