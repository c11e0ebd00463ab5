# SPDX-License-Identifier: Apache-2.0
"""The training loop: draws windows, steps, validates, saves, and goes on from where it stopped, bit for bit on one device.

Everything a step sees follows from the settings and the step's number; everything it changes is in a checkpoint. So a run
that is killed and started again with the same command ends as if it had never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retake.core.errors import Cancelled, InputError
from retake.core.files import sha256_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent

from . import checkpoints, pictures
from .clips import Clip
from .curves import Curves
from .distributed import World, average_gradients, no_sync
from .folder import STATE, only_writer
from .latents import LatentCache, collate
from .objects import loss_weight, shuffled
from .sampling import Choice, Sampler
from .settings import RunSettings
from .step import Batch

TextOf = Callable[[str], Tensor]
"""A caption -> its context (1, L, D) for the network."""

PICTURED = 2  # validation windows on a picture


@dataclass(frozen=True)
class Progressed:
    """Where a run ended: the step reached, losses per step of this process, validation errors per validated step."""

    step: int
    losses: tuple[float, ...]
    validation: tuple[dict[str, float], ...]


class Trainer:
    """One run in `folder`; see `run`.

    Args:
        tuner: the model and its step, a `Tuner`. settings: the run's. cache: encodes windows. text_of: caption -> context.
        train, validation: clips of either side. base: the base model's revision, which a checkpoint must agree with.
        decode: latents -> frames, for pictures of the validation windows; None: no pictures.
    """

    def __init__(
        self,
        tuner: Any,
        settings: RunSettings,
        folder: Path,
        *,
        cache: LatentCache,
        text_of: TextOf,
        train: Sequence[Clip],
        validation: Sequence[Clip] = (),
        base: str = "",
        world: World | None = None,
        decode: pictures.Decode | None = None,
    ) -> None:
        self.tuner, self.settings, self.folder = tuner, settings, folder
        self.cache, self.text_of, self.base, self.world = cache, text_of, base, world or World()
        self.sampler = Sampler(
            train, settings.frames, weights=settings.domains or None, balance=settings.balance,
            stride=settings.stride, seed=settings.data_seed,
        )  # fmt: skip
        self.validation, self.decode, self.draws = list(validation), decode, decode is not None
        self.data_sha256 = sha256_json(sorted({c.clip.uid for c in self.sampler.choices}))
        self.terms = sorted({c.clip.terms for c in self.sampler.choices})
        self.episodes = sorted({c.clip.episode for c in self.sampler.choices})
        self._text: dict[str, Tensor] = {}
        self.last_loss = float("nan")
        """Of the newest step, averaged over all processes."""

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self, progress: Progress | None = None, cancel: CheckCancel | None = None) -> Progressed:
        """Train to `settings.steps`, from the newest checkpoint if there is one.

        Raises InputError where the folder's checkpoints belong to other settings, data or base weights, or another process
        trains in it; Cancelled after a checkpoint was written, where `cancel` asked to stop.
        """
        with only_writer(self.folder) if self.world.is_main else nullcontext():
            return self._run(progress or silent, cancel or never)

    def _run(self, progress: Progress, cancel: CheckCancel) -> Progressed:
        start = saved = self._resume()
        losses: list[float] = []
        validated: list[dict[str, float]] = []
        curves = Curves(self.folder) if self.world.is_main else None
        try:
            for step in range(start, self.settings.steps):
                if (asked := self._asked_to_stop(cancel)) is not None:
                    if step > saved:
                        self._save(step)
                    raise asked
                result = self._step(step)
                loss = self.last_loss = self.world.mean(result.loss)
                losses.append(loss)
                if curves is not None:
                    curves.add_step(step, **self._curve(result, loss))
                done = step + 1
                if self.validation and (done % self.settings.validate_every == 0 or done == self.settings.steps):
                    found = {"step": float(done), **self.validate()}
                    validated.append(found)
                    picture = self._picture()
                    if curves is not None:
                        curves.add(done, **{f"validation_{k}": v for k, v in found.items() if k != "step"})
                        if picture is not None:
                            curves.add_picture(done, picture)
                if done % self.settings.save_every == 0 or done == self.settings.steps:
                    self._save(done)
                    saved = done
                progress(done, self.settings.steps, f"loss {loss:.4f}")
        finally:
            if curves is not None:
                curves.close()
        return Progressed(self.settings.steps, tuple(losses), tuple(validated))

    def _asked_to_stop(self, cancel: CheckCancel) -> BaseException | None:
        """Why to stop now; all processes stop at the same step, whichever of them was asked."""
        asked: BaseException | None = None
        try:
            cancel()
        except BaseException as error:  # also Ctrl-C: what was learnt is kept
            asked = error
        if self.world.mean(float(asked is not None)) > 0 and asked is None:
            return Cancelled("another process of this training was asked to stop; the same command goes on from here")
        return asked

    def _curve(self, result: Any, loss: float) -> dict[str, float | None]:
        """What of a step goes into the curves."""
        return {"loss": loss, "grad_norm": result.grad_norm, "lr": result.lr, "object_error": result.object_error,
                "background_error": result.background_error}  # fmt: skip

    def _step(self, step: int) -> Any:
        s, world = self.settings, self.world
        choices = self.sampler.draw(step, s.batch * s.accumulate, world.rank, world.size)
        self.tuner.generator.manual_seed((s.step.seed * 1_000_003 + step) * world.size + world.rank)
        batches = [self.batch(choices[i : i + s.batch], step) for i in range(0, len(choices), s.batch)]
        sharded = hasattr(self.tuner.transformer, "set_requires_gradient_sync")
        self.tuner.before_update = None if sharded else lambda p: average_gradients(p, world)
        return self.tuner.step_accumulated(batches, lambda last: no_sync(last, self.tuner.transformer))

    def batch(self, choices: Sequence[Choice], step: int = 0) -> Batch:
        """The windows as the step takes them."""
        parts = collate([self.cache.read(choice) for choice in choices])
        weight = None
        if parts.cells is not None and parts.falling is not None:
            cells, falling = parts.cells, parts.falling
            if self.settings.shuffle_objects:
                generator = torch.Generator().manual_seed(self.settings.data_seed * 7919 + step)
                state = generator.get_state()
                cells = shuffled(cells, generator)
                generator.set_state(state)
                falling = shuffled(falling, generator)
            weight = loss_weight(cells, falling, self.settings.step.objects)
        text = torch.cat([self._context(choice.clip.caption) for choice in choices])
        return Batch(parts.x0, parts.control, text, valid=parts.valid, weight=weight, objects=parts.objects)

    def _context(self, caption: str) -> Tensor:
        if caption not in self._text:
            self._text[caption] = self.text_of(caption)
        return self._text[caption]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean squared velocity error over the validation windows, at fixed noise: whole, objects, objects in free fall."""
        sums: dict[str, list[float]] = {"error": [], "object": [], "falling": []}
        levels = (0.2, 0.5, 0.8)  # u, from noisy to clean
        for number, choice in self._validation_windows():
            parts = collate([self.cache.read(choice)])
            text = self._context(choice.clip.caption)
            for index, u in enumerate(levels):
                seed = torch.Generator().manual_seed(1000 * number + 10 * choice.window.start + index)
                epsilon = torch.randn(parts.x0.shape, generator=seed)
                given = Batch(
                    parts.x0, parts.control, text, parts.valid, epsilon, torch.tensor([u]), None, parts.objects
                )
                found = self.tuner.predict(given, dropout=False)
                squared = found.squared_error[:, :, 1:].mean(dim=1)  # (1, T - 1, h, w)
                sums["error"].append(float(squared.mean()))
                for name, share in (("object", parts.cells), ("falling", parts.falling)):
                    if share is not None and float(share[:, 1:].sum()) > 0:
                        cover = share[:, 1:].to(squared.device)
                        sums[name].append(float((squared * cover).sum() / cover.sum()))
        return {name: sum(values) / len(values) for name, values in sums.items() if values}

    def _validation_windows(self) -> Iterator[tuple[int, Choice]]:
        """About three windows of every held-back clip, with the clip's number."""
        for number, clip in enumerate(self.validation):
            choices = Sampler([clip], self.settings.frames, stride=self.settings.stride).choices
            for choice in choices[:: max(1, len(choices) // 3)]:
                yield number, choice

    def _picture(self) -> np.ndarray | None:
        """What the model makes of a window each of two held-back clips now, those with most of a fall.

        Every process samples, which may need them all; the main one draws. Too little memory for decoding is no reason to end
        a training: it goes on without pictures.
        """
        steps = self.settings.picture_steps
        if not self.draws or not steps:
            return None
        best: dict[int, tuple[float, str, Any]] = {}  # of every held-back clip the window with most of a fall
        for number, choice in self._validation_windows():
            parts = collate([self.cache.read(choice)])
            fall = 0.0 if parts.falling is None else float(parts.falling.sum())
            if number not in best or fall > best[number][0]:
                best[number] = (fall, choice.clip.caption, parts)
        shown = []
        for _, caption, parts in sorted(best.values(), key=lambda window: -window[0])[:PICTURED]:
            batch = Batch(parts.x0, parts.control, self._context(caption), parts.valid, objects=parts.objects)
            made = pictures.sample(self.tuner, batch, steps)
            shown.append(pictures.Shown(parts.x0, made, parts.cells, parts.falling))
        if not self.world.is_main or self.decode is None:
            return None
        try:
            return pictures.draw(shown, self.decode, steps)
        except torch.OutOfMemoryError:
            self.decode = None  # still sampled: the processes stay together
            return None

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What two parts of one run must share."""
        document = self.settings.to_json()
        changeable = ("steps", "keep", "save_every", "validate_every", "picture_steps")
        return {
            "base": self.base,
            "data_sha256": self.data_sha256,
            "settings": json.loads(json.dumps({k: v for k, v in document.items() if k not in changeable})),
        }

    def _resume(self) -> int:
        found = checkpoints.find(self.folder / "checkpoints")
        if not found:
            return 0
        newest, mine = found[-1], self._identity()
        for key, what in (("base", "base weights"), ("data_sha256", "data"), ("settings", "settings")):
            if newest.state.get(key) != mine[key]:
                raise InputError(
                    f"{newest.path} was made with other {what} ({_difference(newest.state.get(key), mine[key])}); go on "
                    "with the same, or choose another folder"
                )
        self._restore(newest)
        return newest.step

    def _restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        checkpoints.restore(self.tuner, checkpoint)

    def _capture(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors by file, and what of the state is not a tensor."""
        return checkpoints.capture(self.tuner), {"iteration": self.tuner.optimizer.iteration}

    def _save(self, step: int) -> None:
        parts, counters = self._capture()  # gathers shards: every process takes part
        if self.world.is_main:
            state = {
                **self._identity(),
                **counters,
                "terms": self.terms,
                "episodes": self.episodes,
            }
            folder = self.folder / "checkpoints"
            checkpoints.save(folder, step, parts, state)
            checkpoints.prune(folder, self.settings.keep)
            write_json(self.folder / STATE, {"step": step, "steps": self.settings.steps, "base": self.base})
        self.world.wait()


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        odd = [
            f"{k}: {old.get(k)!r} then, {new.get(k)!r} now" for k in sorted({*old, *new}) if old.get(k) != new.get(k)
        ]
        return "; ".join(odd[:3])
    return f"{str(old)[:16]} then, {str(new)[:16]} now"
