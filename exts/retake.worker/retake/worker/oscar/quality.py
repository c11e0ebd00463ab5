# SPDX-License-Identifier: Apache-2.0
"""What an approximate mode costs: latents, pixels and verdicts against exact takes of the same seeds.

`retake bench oscar --quality` on tiny random models says whether modes do what they should; with a converted model and a
run (`--model`, `--run`) it says what they cost there, and only that decides whether to use one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError

from .approximate import MODES
from .stepcache import relative_error

Judge = Callable[[np.ndarray], tuple[str, float]]
"""uint8 RGB (T, H, W, 3) -> (pass, unsure or fail; probability of a faultless take)."""


@dataclass(frozen=True)
class Row:
    """One mode over all seeds. Errors are the worst seed's.

    latent_error: relative RMS of the final latents. psnr_db: frames after the given one, None when equal. verdicts_changed:
    seeds whose overall verdict differs, None without an episode; probability_shift: mean of the new less the exact one.
    speedup: evaluations and seconds of exact over this mode's.
    """

    mode: str
    label: str
    seeds: int
    latent_error: float
    psnr_db: float | None
    verdicts_changed: int | None
    probability_shift: float | None
    forwards: float
    seconds: float
    reason: str = ""
    """Why the mode did not run here; the figures mean nothing then."""


def default_modes(calibration: Any = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every mode that this machine has, by the name of its row: (mode, options)."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        name: (name, {}) for name in MODES if name not in ("sage", "step-cache")
    }
    rows["guidance-interval"] = ("guidance-interval", {"low": 0.1, "high": 0.9})
    rows["sage"] = ("sage", {})
    if calibration is not None:
        rows["step-cache"] = ("step-cache", {"calibration": calibration})
    return rows


def compare(
    make: Callable[[], Any], call: Mapping[str, Any], seeds: Sequence[int], modes: Mapping[str, tuple[str, Mapping[str, Any]]],
    judge: Judge | None = None, progress: Callable[[int, int, str], None] = lambda *_: None,
) -> list[Row]:  # fmt: skip
    """One row per mode. `make()` gives a fresh exact pipeline, `call` its arguments but seed and output type.

    Raises InputError for no seeds; a mode that cannot run here becomes a row that says why.
    """
    if not seeds:
        raise InputError("quality needs a seed or more; the comparison is over the same seeds")
    total, rows = len(modes) + 2, []
    progress(0, total, "exact")
    pipe = make()
    exact = [_run(pipe, call, seed, judge) for seed in seeds]
    progress(1, total, "fused kernels")
    pipe.use_kernels("fused")
    rows.append(_row("kernels fused", "", exact, [_run(pipe, call, seed, judge) for seed in seeds]))
    for number, (name, (mode, options)) in enumerate(modes.items()):
        progress(number + 2, total, name)
        pipe = make()
        try:
            pipe.enable_approximation(mode, **options)
            found = [_run(pipe, call, seed, judge) for seed in seeds]
        except InputError as error:
            rows.append(Row(name, "", 0, 0.0, None, None, None, 0.0, 0.0, str(error)))
            continue
        rows.append(_row(name, pipe.approximations[0], exact, found))
    progress(total, total, "")
    return rows


@dataclass(frozen=True)
class _Take:
    latents: Any
    frames: np.ndarray
    verdict: tuple[str, float] | None
    forwards: int
    seconds: float


def _run(pipe: Any, call: Mapping[str, Any], seed: int, judge: Judge | None) -> _Take:
    last: dict[str, Any] = {}

    def keep(pipe: Any, index: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        last["latents"] = tensors["latents"]
        return {}

    started = time.perf_counter()
    out = pipe(**{**call, "seed": seed, "output_type": "np", "callback_on_step_end": keep})
    seconds = time.perf_counter() - started
    frames = np.asarray(out.frames)[0]
    forwards = out.stats.evaluations
    if pipe.transformer.residuals is not None:
        forwards -= pipe.transformer.residuals.reuses
        pipe.transformer.residuals.reuses = 0
    return _Take(last["latents"].cpu(), frames, None if judge is None else judge(frames), forwards, seconds)


def _row(name: str, label: str, exact: Sequence[_Take], found: Sequence[_Take]) -> Row:
    pairs = list(zip(exact, found, strict=True))
    squares = [float(np.mean((a.frames[1:].astype(float) - b.frames[1:]) ** 2)) for a, b in pairs]
    worst = max(squares)
    judged = [(a.verdict, b.verdict) for a, b in pairs if a.verdict is not None and b.verdict is not None]
    return Row(
        mode=name, label=label, seeds=len(pairs),
        latent_error=max(relative_error(b.latents, a.latents) for a, b in pairs),
        psnr_db=None if worst == 0 else float(10 * np.log10(255**2 / worst)),
        verdicts_changed=sum(a[0] != b[0] for a, b in judged) if judged else None,
        probability_shift=float(np.mean([b[1] - a[1] for a, b in judged])) if judged else None,
        forwards=sum(b.forwards for b in found) / max(1, sum(a.forwards for a in exact)),
        seconds=sum(b.seconds for b in found) / max(1e-9, sum(a.seconds for a in exact)),
    )  # fmt: skip


def judge_of(episode: Any, camera: str, first_frame: np.ndarray, start: int = 0) -> Judge:
    """The verdict of frames against an episode, for `compare`."""
    import cv2

    from retake.core.verdicts import judge

    width, height = episode.header.camera(camera).size

    def ask(frames: np.ndarray) -> tuple[str, float]:
        sized = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames]
        found = judge(iter(sized), episode, camera, first_frame=first_frame, start=start, frames=len(frames))
        return found.overall, found.probability

    return ask


def run_inputs(folder: Path, frames: int, size: tuple[int, int] | None = None) -> tuple[dict[str, Any], Judge]:
    """(arguments of the pipeline, judge) from a run folder: its first variant, skeleton and episode, at (width, height).

    The variant's own prompt is among the arguments. Raises InputError, RunError.
    """
    from retake.core.episode import open_episode
    from retake.core.run_store import open_run
    from retake.core.skeleton import open_skeleton
    from retake.core.variants.make import read_frame

    run = open_run(folder)
    variants = run.variants()
    if not variants:
        raise InputError(f"{folder} has no variants; `retake variants {folder}` makes first frames")
    variant, episode = variants[0], open_episode(run.episode)
    camera = variant.camera or episode.header.cameras[0].name
    if not run.has_skeleton(camera):
        raise InputError(f"{folder} has no skeleton of camera {camera!r}; `retake skeleton {folder}` draws it")
    skeleton = open_skeleton(run.skeleton(camera))
    count = min(frames, len(skeleton))
    first = read_frame(variant.frame)
    control = np.stack([skeleton.frame(index) for index in range(count)])
    width, height = size or skeleton.squeeze.model_size
    call = {"first_frame": first, "skeleton": control, "height": height, "width": width, "num_frames": frames,
            "exact_first_frame": True, "prompt": variant.record.prompt,
            "negative_prompt": variant.record.negative_prompt or None}  # fmt: skip
    return call, judge_of(episode, camera, first)


def lines(rows: Sequence[Row], where: str) -> list[str]:
    """The rows as a table."""
    out = [
        f"Approximate modes against exact takes of the same seeds; {where}",
        f"  {'mode':<22}{'latent error':>13}{'PSNR dB':>9}{'verdicts':>10}{'p shift':>9}{'forwards':>10}{'seconds':>9}",
    ]
    for row in rows:
        if row.reason:
            out.append(f"  {row.mode:<22}not here: {row.reason}")
            continue
        psnr = "equal" if row.psnr_db is None else f"{row.psnr_db:.1f}"
        verdicts = "-" if row.verdicts_changed is None else f"{row.verdicts_changed}/{row.seeds}"
        shift = "-" if row.probability_shift is None else f"{row.probability_shift:+.2f}"
        out.append(
            f"  {row.mode:<22}{row.latent_error:>13.2e}{psnr:>9}{verdicts:>10}{shift:>9}{row.forwards:>9.0%} {row.seconds:>8.0%}"
        )
    return out


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(row) for row in rows]
