# SPDX-License-Identifier: Apache-2.0
"""`retake oscar convert | plan | run` and `retake bench oscar`. Errors are RetakeErrors; the caller prints them."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retake.core.camera import require_size
from retake.core.errors import Cancelled, InputError, MissingDependencyError, install_hint
from retake.core.host import stop_signals
from retake.core.progress import Bar


def main(argv: Sequence[str] | None = None) -> int:
    """`retake oscar …`: 0, or a RetakeError."""
    parser = argparse.ArgumentParser(
        prog="retake oscar", description="OSCAR-2B: convert weights, plan memory, make a take."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_convert(commands)
    _add_plan(commands)
    _add_run(commands)
    arguments = parser.parse_args(argv)
    with dependencies(), _terminable():
        return arguments.go(arguments)


def bench(argv: Sequence[str] | None = None) -> int:
    """`retake bench oscar`: a table, and JSON with --json FILE or --json -."""
    parser = argparse.ArgumentParser(prog="retake bench oscar", description="What a take costs.")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON ('-': print it)")
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--frames", type=int, default=81, help="1 + 4k")
    parser.add_argument("--tier", default="resident")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--compile", action="store_true", help="torch.compile the blocks (CUDA part)")
    parser.add_argument(
        "--approximate",
        action="append",
        default=[],
        metavar="MODE[:OPTION=VALUE,…]",
        help="also time this mode (CUDA part); with --quality: compare these modes only",
    )
    parser.add_argument("--no-measure", action="store_true", help="computed figures only")
    parser.add_argument("--kernels", default="auto", help="auto, fused or reference (CUDA part)")
    parser.add_argument(
        "--quality", action="store_true", help="what each approximate mode costs: latents, pixels, verdicts, same seeds"
    )
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="quality of this converted model (default: a tiny random one)"
    )
    parser.add_argument("--run", type=Path, metavar="RUN", help="quality on this run's first variant, with verdicts")
    parser.add_argument("--prompt", default="", help="with --model: the prompt of the takes (default: the variant's)")
    parser.add_argument(
        "--size", default="", help="WIDTHxHEIGHT of the quality comparison with --run (default: OSCAR's)"
    )
    parser.add_argument("--seeds", default="1,2", help="seeds of the quality comparison, with commas")
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE", help="first calibrate the step cache and write it here"
    )
    parser.add_argument("--error", type=float, default=0.05, help="relative latent error that --calibrate allows")
    arguments = parser.parse_args(argv)
    with dependencies(), _terminable():
        from retake.core.files import write_json
        from retake.worker.memory import usable_device

        from . import bench as work
        from .vae import latent_frames

        latent_frames(arguments.frames)
        if arguments.steps < 1:
            raise InputError(f"--steps is {arguments.steps}; give 1 or more")
        if arguments.quality or arguments.calibrate:
            return _quality(arguments)
        report: dict[str, Any] = {"computed": work.computed(arguments.steps, arguments.frames), "cuda": None}
        if not arguments.no_measure:
            report["measured"] = work.measured()
            device = usable_device(arguments.device)
            if arguments.device is not None or device.type == "cuda":
                options = {
                    "device": str(device), "steps": arguments.steps, "frames": arguments.frames, "tier": arguments.tier,
                    "compile_blocks": arguments.compile, "kernels": arguments.kernels,
                }  # fmt: skip
                report["cuda"] = [work.cuda(**options)]
                if arguments.approximate:
                    report["cuda"].append(work.cuda(**options, approximate=tuple(arguments.approximate)))
        if arguments.json == "-":
            print(json.dumps(report, indent=2))
        else:
            print("\n".join(work.lines(report)))
            if arguments.json:
                write_json(Path(arguments.json), report)
        return 0


TINY_SIZE = 64


def _size(text: str) -> tuple[int, int] | None:
    """`640x480` as (width, height); None for nothing. Raises InputError."""
    width, _, height = text.partition("x")
    if not text:
        return None
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) > 0):
        raise InputError(f"--size {text!r}: expected WIDTHxHEIGHT, for instance 640x480")
    return require_size((int(width), int(height)), f"--size {text!r}")


def _quality(arguments: argparse.Namespace) -> int:
    """`retake bench oscar --quality | --calibrate`."""
    from retake.core.files import write_json
    from retake.worker.memory import usable_device

    from . import bench as work
    from . import quality, stepcache
    from .approximate import read_mode

    try:
        seeds = tuple(int(part) for part in arguments.seeds.split(","))
    except ValueError:
        raise InputError(f"--seeds {arguments.seeds!r}; give whole numbers with commas, like 1,2,3") from None
    if arguments.calibrate is not None and arguments.calibrate.exists():
        raise InputError(f"{arguments.calibrate} exists already; choose another --calibrate")
    if arguments.model is not None and arguments.run is None:
        raise InputError(
            "--model needs --run: a run folder whose skeleton, first frame and episode the takes are made from"
        )
    device, judge = usable_device(arguments.device), None
    steps, frames = arguments.steps, arguments.frames
    call: dict[str, Any] = {"num_inference_steps": steps}
    if arguments.run is not None:
        inputs, judge = quality.run_inputs(arguments.run, frames, _size(arguments.size))
        call |= inputs
    else:
        first, skeleton = work.random_input(frames, TINY_SIZE, TINY_SIZE)
        call |= {
            "first_frame": first,
            "skeleton": skeleton,
            "num_frames": frames,
            "height": TINY_SIZE,
            "width": TINY_SIZE,
        }

    def make() -> Any:
        import torch

        if arguments.model is None:
            pipe = work.random_pipeline(work.TINY_TRANSFORMER, work.TINY_VAE, torch.float32, device)
        else:
            from .pipeline import OscarPipeline

            kind = torch.bfloat16 if device.type == "cuda" else torch.float32
            pipe = OscarPipeline.from_pretrained(arguments.model, torch_dtype=kind, lazy_text_encoder=True)
            pipe.set_progress_bar_config(disable=True)
            if device.type == "cuda":
                pipe.enable_planned_memory(device, call["height"], call["width"], frames)
        return pipe

    if arguments.model is None:
        pipe = make()
        call |= {
            "prompt_embeds": work.random_prompt(pipe, 12),
            "negative_prompt_embeds": work.random_prompt(pipe, 12, 1),
        }
        call = {name: value for name, value in call.items() if name not in ("prompt", "negative_prompt")}
    elif arguments.prompt:
        call["prompt"] = arguments.prompt
    calibration = None
    if arguments.calibrate is not None:
        pipe = make()
        run = lambda seed: pipe(**{**call, "seed": seed, "output_type": "latent"}).frames  # noqa: E731
        calibration = stepcache.calibrate(pipe, run, seeds, arguments.error, steps + 1, 6.0)
        calibration.save(arguments.calibrate)
        print(
            f"{arguments.calibrate}: {len(calibration.skips)} of {steps + 1} evaluations reuse, relative latent error "
            f"{calibration.error:.3f} (asked: {arguments.error})"
        )
        if not arguments.quality:
            return 0
    bar = Bar("quality")
    modes = {text: read_mode(text) for text in arguments.approximate} or quality.default_modes(calibration)
    rows = quality.compare(make, call, seeds, modes, judge, lambda *at: bar(*at))
    what = "tiny random model" if arguments.model is None else arguments.model.name
    where = f"{what}, {frames} frames, {steps} steps, {len(seeds)} seeds, {device}"
    if arguments.json == "-":
        print(json.dumps({"where": where, "rows": quality.to_json(rows)}, indent=2))
    else:
        print("\n".join(quality.lines(rows, where)))
        if arguments.json:
            write_json(Path(arguments.json), {"where": where, "rows": quality.to_json(rows)})
    return 0


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser("convert", help="released checkpoint -> diffusers folder of safetensors")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR", help="folder with model/.metadata and shards"
    )
    parser.add_argument("--vae", type=Path, required=True, metavar="PATH", help="Wan 2.1 VAE, .pth or .safetensors")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text-encoder", type=Path, metavar="DIR", help="Qwen2.5-VL style folder (Cosmos-Reason1-7B)")
    text.add_argument("--no-text-encoder", action="store_true", help="the folder then runs on given embeddings")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument(
        "--dtype", choices=("keep", "bf16", "fp32"), default="keep", help="store weights as (default: keep)"
    )
    parser.add_argument("--accept-terms", action="store_true", help="you have read the terms of the full-size weights")
    parser.set_defaults(go=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from . import terms
    from .convert import convert

    print(terms.terms() + "\n", flush=True)
    result = convert(
        arguments.checkpoint,
        arguments.vae,
        arguments.text_encoder,
        arguments.out,
        accept_terms=arguments.accept_terms,
        dtype=arguments.dtype,
        progress=Bar("converting"),
    )
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    sizes = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in result.parameters.items())
    print(f"{result.folder}: {sizes} parameters, {result.nbytes / 1e6:.1f} MB, revision {result.revision}")
    return 0


def _add_plan(commands: Any) -> None:
    parser = commands.add_parser("plan", help="memory tier, peaks per stage, minutes and disk for N takes")
    parser.add_argument("--takes", type=int, default=1)
    parser.add_argument("--frames", type=int, default=81, help="rounded up to 1 + 4k")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--model", type=Path, metavar="DIR", help="a converted folder (default: full-size OSCAR-2B)")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--free-gib", type=float, help="plan for this much free memory instead of measuring")
    parser.add_argument("--tflops", type=float, help="sustained TFLOP/s to base minutes on")
    parser.add_argument("--unknown-prompts", type=int, default=0, help="prompts that must be encoded first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(go=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from retake.worker import memory

    from . import planner
    from .costs import stage_costs
    from .request import SIZE_STEP
    from .windows import window_length

    for name in ("takes", "steps"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}; give 1 or more")
    for name in ("height", "width"):
        value = getattr(arguments, name)
        if value < SIZE_STEP or value % SIZE_STEP:
            raise InputError(f"--{name} is {value}; give a positive multiple of {SIZE_STEP}")
    device = memory.usable_device(arguments.device)
    if arguments.free_gib is not None:
        free = int(arguments.free_gib * planner.GIB)
    else:
        free = memory.free_device_bytes(device)
    rate = arguments.tflops * 1e12 if arguments.tflops else None
    if rate is None and device.type == "cuda":
        rate = 0.6 * planner.measured_matmul_flops(device)  # attention and elementwise work run below the matmul rate
    transformer, vae = (None, None) if arguments.model is None else read_settings(arguments.model)
    costs = stage_costs(
        transformer, vae, frames=window_length(arguments.frames), height=arguments.height, width=arguments.width
    )
    report = planner.plan_report(costs, arguments.takes, arguments.steps, free, rate, arguments.unknown_prompts)
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(planner.plan_lines(report)))
    return 0


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Transformer and VAE settings of a converted folder. Raises InputError."""
    found = []
    for name in ("transformer", "vae"):
        path = folder / name / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            found.append({key: value for key, value in raw.items() if not key.startswith("_")})
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is unreadable ({error}); give a folder written by `retake oscar convert`"
            ) from None
    return found[0], found[1]


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="one take from files")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a converted folder")
    parser.add_argument("--first-frame", type=Path, required=True, metavar="IMAGE")
    parser.add_argument(
        "--skeleton", type=Path, required=True, metavar="PATH", help="video, .npy, .npz, or folder of frames"
    )
    parser.add_argument("--prompt")
    parser.add_argument("--negative-prompt")
    parser.add_argument(
        "--embeds", type=Path, metavar="FILE", help="safetensors with prompt_embeds, negative_prompt_embeds"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="take as .npz or .mp4; .json goes beside it"
    )
    parser.add_argument("--fps", type=float, default=15.0, help="of an .mp4")
    parser.add_argument("--frames", type=int, default=81, help="the window")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--fit", default="squeeze", help="squeeze, crop, letterbox or error")
    parser.add_argument("--as-reference", action="store_true", help="leave frame 0 slightly noised, as OSCAR does")
    parser.add_argument("--prompt-cache", type=Path, metavar="DIR")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--tier", help="memory tier (default: planned on CUDA, resident elsewhere)")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="default: bf16 on CUDA, fp32 elsewhere")
    parser.add_argument(
        "--attention", default="auto", metavar="NAME", help="auto (default): the fastest exact kernel here"
    )
    parser.add_argument("--kernels", default="auto", help="auto (default), fused or reference")
    parser.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    parser.add_argument(
        "--approximate", action="append", default=[], metavar="MODE[:OPTION=VALUE,…]",
        help="trade exactness for time; named in the sidecar. For instance guidance-interval:low=0.1,high=0.9",
    )  # fmt: skip
    parser.set_defaults(go=_run)


def _run(arguments: argparse.Namespace) -> int:
    from .take_file import check_target, make_take

    check_target(arguments.out)
    print(make_take(arguments))
    return 0


@contextlib.contextmanager
def dependencies() -> Iterator[None]:
    """A missing package becomes an error that names the extra which brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("retake"):
            raise
        raise MissingDependencyError(f"this command needs {error.name}: {install_hint('oscar')}") from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A polite SIGTERM (Windows: Ctrl-Break) becomes Cancelled, so that half-made folders are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Cancelled("stopped; nothing half-made was left behind")

    before = {number: signal.signal(number, stop) for number in stop_signals() if number != signal.SIGINT}
    try:
        yield
    except KeyboardInterrupt:
        raise Cancelled("stopped; nothing half-made was left behind") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
