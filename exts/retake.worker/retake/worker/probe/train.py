# SPDX-License-Identifier: Apache-2.0
"""Training of the probe: a stated number of optimiser steps, the same for every data set, and nothing chosen by looking.

Batch k is drawn from (seed, k) alone, so an interrupted training goes on to the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from retake.core.codec import decode
from retake.core.errors import Cancelled, InputError
from retake.core.files import atomic_path, read_json, sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_store import LOCK
from retake.worker.probe.augment import augment
from retake.worker.probe.data import Pack, PackFacts
from retake.worker.probe.model import Probe, Shape, parameters, pixels
from retake.worker.probe.settings import PACKS, Settings

KIND = "retake_probe"
WEIGHTS, CHECKPOINT, CONFIG = "model.safetensors", "checkpoint.pt", "config.json"
PHASE_WEIGHT = 0.1
AVERAGE = 0.995
"""Of the running mean of the weights, which is what acts."""
CHECK_EVERY = 100
"""Steps between two points of the learning curve."""
SAVE_S = 30.0


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    folder: Path
    """A policy folder: `retake closed-loop --policy FOLDER`."""
    parameters: int
    steps: int
    seconds: float
    loss: float
    """Mean of the last points of the curve, network units."""


def train(
    packs: Sequence[Pack],
    out: Path,
    settings: Settings,
    *,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Trained:
    """Train, or go on with an interrupted training in `out`; a finished one is left as it is.

    Raises InputError for packs that do not match, another training in `out`, or textures without masks; Cancelled after the
    state was kept.
    """
    facts = [pack.facts for pack in packs]
    admit(facts, out, settings)
    shape, stated = _shape(facts, settings), _stated(facts, settings)
    if (out / CONFIG).exists():
        found = _config(out)
        return Trained(out, found["parameters"], settings.steps, found["seconds"], found["loss"])
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = Probe(shape)
    _measure(model, packs)
    acting = Probe(shape)
    acting.load_state_dict(model.state_dict())
    optimiser = torch.optim.Adam(model.parameters(), settings.rate)
    step, spent, curve, losses = _resume(out / CHECKPOINT, model, acting, optimiser, stated)
    started = saved = time.monotonic()

    def keep() -> None:
        seconds = spent + time.monotonic() - started
        _save(out / CHECKPOINT, model, acting, optimiser, stated, step, seconds, curve, losses)

    try:
        while step < settings.steps:
            check_cancel()
            for group in optimiser.param_groups:
                group["lr"] = _rate(settings, step)
            losses.append(_step(model, optimiser, packs, settings, step))
            _average(acting, model, step)
            step += 1
            if step % CHECK_EVERY == 0 or step == settings.steps:
                curve.append((step, float(np.mean(losses))))
                losses = []
                if not math.isfinite(curve[-1][1]):
                    (out / CHECKPOINT).unlink(missing_ok=True)
                    raise InputError(
                        f"the training came apart (loss {curve[-1][1]} by step {step}); take a smaller --rate than "
                        f"{settings.rate}"
                    )
                progress(step, settings.steps, f"loss {curve[-1][1]:.4f}")
                if time.monotonic() - saved > SAVE_S:
                    keep()
                    saved = time.monotonic()
    except Cancelled:
        keep()
        raise
    seconds = spent + time.monotonic() - started
    with atomic_path(out / WEIGHTS) as temporary:
        save_file({k: v.contiguous() for k, v in acting.state_dict().items()}, temporary)
    loss = float(np.mean([value for _, value in curve[-5:]]))
    config = {
        "type": KIND,
        "shape": asdict(shape),
        "parameters": parameters(model),
        "training": stated,
        "training_sha256": sha256_json(stated),
        "seconds": round(seconds, 1),
        "loss": loss,
        "curve": [list(point) for point in curve],
    }
    write_json(out / CONFIG, config)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return Trained(out, parameters(model), settings.steps, round(seconds, 1), loss)


def admit(facts: Sequence[PackFacts], out: Path, settings: Settings) -> None:
    """Whether a training may begin or go on in `out`, asked before anything is packed.

    Raises InputError for data sets that do not match, textures without masks, and a folder with another training or other files.
    """
    _shape(facts, settings)
    stated = _stated(facts, settings)
    if (out / CONFIG).exists():
        if _config(out).get("training_sha256") != sha256_json(stated):
            raise InputError(f"{out} holds another training; choose another --out (nothing was changed)")
    elif (out / CHECKPOINT).exists():
        _kept(out / CHECKPOINT, stated)
    elif other := sorted(entry.name for entry in out.iterdir() if not _ours(entry.name)) if out.is_dir() else []:
        raise InputError(
            f"{out} holds other files than a probe's ({', '.join(other[:5])}); choose another --out (nothing was changed)"
        )


def _ours(name: str) -> bool:
    """The lock, packs, and temporaries of a killed process."""
    return name in (LOCK, PACKS) or (name.startswith(".") and ".tmp" in name)


def open_probe(folder: Path) -> Probe:
    """The trained policy of a folder. Raises InputError when it is none, unfinished or damaged."""
    config = _config(folder)
    if config.get("type") != KIND:
        raise InputError(f"{folder} holds a {config.get('type')!r} policy; expected {KIND!r}")
    model = Probe(decode(Shape, config.get("shape"), str(folder / CONFIG)))
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} does not hold the weights that {CONFIG} describes: {error}") from error
    return model.eval()


def _config(folder: Path) -> dict[str, Any]:
    """config.json of a policy's folder. Raises InputError."""
    try:
        found = read_json(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no finished probe: config.json is missing or unreadable ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{folder / CONFIG} holds a {type(found).__name__}; expected the JSON object of a policy")
    return found


def _shape(facts: Sequence[PackFacts], settings: Settings) -> Shape:
    if not facts:
        raise InputError("there is nothing to train on; name one or more data sets")
    first = facts[0]
    for other in facts[1:]:
        for name in ("cameras", "state_names", "action_names", "phases"):
            if getattr(other, name) != getattr(first, name):
                raise InputError(
                    f"the data sets differ in {name}: {getattr(first, name)} and {getattr(other, name)}; "
                    "a probe is trained on data sets of one form"
                )
    if settings.augment == "textures" and not all(one.masked for one in facts):
        raise InputError(
            "augment 'textures' needs to know what is background: name the runs that the data sets were exported from (--runs "
            "runs/*), or packs that know it"
        )
    if settings.shares and len(settings.shares) != len(facts):
        raise InputError(f"there are {len(facts)} data sets and {len(settings.shares)} shares; expected one for each")
    return Shape(first.cameras, first.state_names, first.action_names, first.phases)


def _stated(facts: Sequence[PackFacts], settings: Settings) -> dict[str, Any]:
    """What decides the weights, JSON."""
    return {**asdict(settings), "shares": list(settings.shares), "packs": [one.source for one in facts]}


def _measure(model: Probe, packs: Sequence[Pack]) -> None:
    """Means and spreads of the first data set: the one in all arms of a comparison."""
    pack, chunk = packs[0], model.shape.chunk
    state = torch.from_numpy(pack.state)
    targets = torch.from_numpy(pack.action[pack.chunk_rows(np.arange(len(pack)), chunk)])
    model.state_mean.copy_(state.mean(0))
    model.state_std.copy_(state.std(0, unbiased=False).clamp(min=1e-3))
    relative = targets - model.base(state)
    model.target_mean.copy_(relative.mean(0))
    model.target_std.copy_(relative.std(0, unbiased=False).clamp(min=1e-3))


def draw(
    packs: Sequence[Pack], settings: Settings, step: int
) -> tuple[list[tuple[int, np.ndarray]], np.random.Generator]:
    """([(pack, rows (b,))] of one batch, the generator for what else the batch needs); from (seed, step) alone."""
    rng = np.random.default_rng([settings.seed, step])
    weights = np.array(settings.shares or [len(p) for p in packs], np.float64)
    which = rng.choice(len(packs), settings.batch, p=weights / weights.sum())
    return [(int(k), rng.integers(0, len(packs[k]), int((which == k).sum()))) for k in np.unique(which)], rng


def _step(
    model: Probe, optimiser: torch.optim.Optimizer, packs: Sequence[Pack], settings: Settings, step: int
) -> float:
    drawn, rng = draw(packs, settings, step)
    images: list[list[np.ndarray]] = [[] for _ in model.shape.cameras]
    states, targets, phases = [], [], []
    for index, rows in drawn:
        pack = packs[index]
        rows = np.sort(rows)
        for slot, name in enumerate(model.shape.cameras):
            masks = np.asarray(pack.masks[name][rows]) if name in pack.masks else None
            images[slot].append(augment(np.asarray(pack.images[name][rows]), masks, settings.augment, rng))
        states.append(pack.state[rows])
        source = rng.integers(0, len(pack), len(rows)) if settings.shuffle_actions else rows
        targets.append(pack.action[pack.chunk_rows(source, model.shape.chunk)])
        phases.append(pack.phase[rows])
    state = torch.from_numpy(np.concatenate(states))
    wanted = model.normal(torch.from_numpy(np.concatenate(targets)), state)
    said, phase = model([pixels(np.concatenate(parts)) for parts in images], state)
    loss = nn.functional.smooth_l1_loss(said, wanted, beta=0.1)
    if phase is not None:
        loss = loss + PHASE_WEIGHT * nn.functional.cross_entropy(phase, torch.from_numpy(np.concatenate(phases)))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _rate(settings: Settings, step: int) -> float:
    """Warm-up over a fiftieth of the steps, then half a cosine down to a hundredth."""
    warm = max(1, settings.steps // 50)
    if step < warm:
        return settings.rate * (step + 1) / warm
    share = (step - warm) / max(1, settings.steps - warm)
    return settings.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def _average(acting: Probe, model: Probe, step: int) -> None:
    """Running mean of the weights; short at first, when there is little to average."""
    keep = min(AVERAGE, (1 + step) / (10 + step))
    for mean, now in zip(acting.parameters(), model.parameters(), strict=True):
        mean.mul_(keep).add_(now, alpha=1 - keep)


def _save(
    path: Path, model: Probe, acting: Probe, optimiser: torch.optim.Optimizer, stated: dict[str, Any], step: int,
    spent: float, curve: list[tuple[int, float]], losses: list[float],
) -> None:  # fmt: skip
    """`losses`: of the steps since the curve's last point, so that what goes on from here gives the same weights and curve."""
    with atomic_path(path) as temporary:
        torch.save(
            {
                "training_sha256": sha256_json(stated),
                "model": model.state_dict(),
                "acting": acting.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "seconds": spent,
                "curve": [list(point) for point in curve],
                "losses": losses,
            },
            temporary,
        )


def _resume(
    path: Path, model: Probe, acting: Probe, optimiser: torch.optim.Optimizer, stated: dict[str, Any]
) -> tuple[int, float, list[tuple[int, float]], list[float]]:
    """(step, seconds, curve, losses since its last point) of an interrupted training, its state loaded; zeros where there is
    none."""
    if not path.exists():
        return 0, 0.0, [], []
    kept = _kept(path, stated)
    model.load_state_dict(kept["model"])
    acting.load_state_dict(kept["acting"])
    optimiser.load_state_dict(kept["optimiser"])
    curve = [(int(a), float(b)) for a, b in kept["curve"]]
    # Checkpoints were once written at points of the curve alone, and kept no losses.
    return int(kept["step"]), float(kept["seconds"]), curve, [float(loss) for loss in kept.get("losses", ())]


def _kept(path: Path, stated: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted training kept. Raises InputError when it is unreadable, or another training's."""
    try:
        kept = torch.load(path, weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is unreadable ({type(error).__name__}); delete it to begin anew") from error
    if not isinstance(kept, dict) or kept.get("training_sha256") != sha256_json(stated):
        raise InputError(f"{path.parent} holds another training; choose another --out (nothing was changed)")
    return kept
