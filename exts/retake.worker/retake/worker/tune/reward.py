# SPDX-License-Identifier: Apache-2.0
"""Experimental second stage: the model is moved towards videos whose objects move as the simulator's, by gradients of a reward.

After PISA's object reward optimisation (arXiv 2503.09595): a video is sampled, decoded, judged by something differentiable,
and the gradient goes back through the decoder and the last sampling steps. PISA judges by networks (SAM 2 masks, RAFT flow,
depth); here the judge is a colour model of the objects, made from the first frame that the video begins with, so that nothing
is downloaded. It needs objects that differ in colour from what is around them, and a camera that stands still.

A reward can be gamed. What keeps the model near real videos is the training loss itself, as an anchor. Nobody tuned the
full-size model this way yet; whether videos get better is for verdicts to say (`retake tune eval`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from retake.core.errors import InputError, unknown_name

from ..oscar import vae as vae_stage
from ..oscar.few_step import even_sigmas
from .step import Batch, Tuner

TEMPERATURE = 0.02  # of squared colour differences (-1 to 1, mean over channels): two greys 0.2 apart are two classes
NEITHER = 0.25  # squared difference beyond which a pixel is neither object nor background: the arm that passes
MINIMUM = 1e-3  # coverage of the first frame below which the object cannot be learnt from it


@dataclass(frozen=True)
class Scene:
    """What rewards look at, for B videos.

    Attributes:
        video: (B, 3, 1 + 4k, H, W) in [-1, 1], with gradients.
        cells: (B, 1 + k, h, w) share of each latent cell that the simulator's objects cover. falling: those in free fall.
        mask: (B, 1 + 4k, H, W), 0 to 1: where the video shows the objects, by the colour model; with gradients.
        cover: the same, pooled as `cells`.
        falls: (B, 1 + 4k) bool: frames between release and settling.
        known: (B,) bool: the object was seen in the first frame and falls in this window. Others give no reward.
    """

    video: Tensor
    cells: Tensor
    falling: Tensor
    mask: Tensor
    cover: Tensor
    falls: Tensor
    known: Tensor


Reward = Callable[[Scene], Tensor]
"""A scene -> (B,) rewards, higher is better, differentiable. What it gives for videos that are not `known` is not looked at."""


def overlap(scene: Scene) -> Tensor:
    """Soft intersection over union of the objects with the simulator's, between release and settling. 0 to 1."""
    frames = _fall(scene)
    both = (torch.minimum(scene.cover, scene.cells).sum(dim=(2, 3)) * frames).sum(dim=1)
    either = (torch.maximum(scene.cover, scene.cells).sum(dim=(2, 3)) * frames).sum(dim=1)
    return both / either.clamp(min=1e-6)


def acceleration(scene: Scene) -> Tensor:
    """Minus how much the objects' acceleration in the picture changes while they fall: 1 / (1 + its variance) - 1, 0 at best.

    In object widths per frame squared, so that size and resolution do not matter. Needs no reference: whatever falls freely
    before a camera that stands still has, from afar, a constant one. An object that does not move at all is content with it:
    use it beside the anchor. Falls of fewer than four frames give 0.
    """
    out = []
    places = centroids(scene.mask)
    for b, falls in enumerate(scene.falls):
        path = places[b, falls]
        if len(path) < 4:
            out.append(scene.mask[b].sum() * 0)
            continue
        width = scene.mask[b, 0].sum().detach().clamp(min=1).sqrt()
        second = (path[2:] - 2 * path[1:-1] + path[:-2]) / width
        variance = ((second - second.mean(dim=0)) ** 2).sum(dim=-1).mean()
        out.append(1 / (1 + variance) - 1)
    return torch.stack(out)


REWARDS: dict[str, Reward] = {"overlap": overlap, "acceleration": acceleration}


def find_reward(name: str) -> Reward:
    """A reward by name. Raises InputError with the names there are."""
    if name not in REWARDS:
        raise InputError(unknown_name("reward", name, REWARDS))
    return REWARDS[name]


def centroids(cover: Tensor) -> Tensor:
    """Masks (B, T, H, W) -> centres (B, T, 2), x and y in their pixels."""
    height, width = cover.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(cover)
    mass = cover.sum(dim=(-2, -1)).clamp(min=1e-6)
    return torch.einsum("bthw,hwc->btc", cover, grid) / mass[..., None]


def _fall(scene: Scene) -> Tensor:
    """(B, T): 1 for latent frames in which an object is in free fall."""
    return (scene.falling.sum(dim=(2, 3)) > 0).float()


def see(video: Tensor, first: Tensor, cells: Tensor, falling: Tensor, falls: Tensor | None = None) -> Scene:
    """A scene: where a video (B, 3, T, H, W) shows the objects of its first frame `first` (B, 3, H, W).

    `falls` (B, T): see `Scene`; None: all frames of the latent frames in which something falls. A pixel is the object, the
    background that the first frame had there, or neither, by distance of colours.
    """
    size = first.shape[-2:]
    inside = functional.interpolate(cells[:, :1], size=size, mode="nearest")  # (B, 1, H, W)
    core = (inside >= 0.5 * inside.amax(dim=(2, 3), keepdim=True).clamp(min=MINIMUM)).float() * (inside > MINIMUM)
    area = core.sum(dim=(2, 3)).clamp(min=1e-6)
    colour = (first * core).sum(dim=(2, 3)) / area  # (B, 3)
    behind = _filled(first, inside)
    to_object = ((video - colour[:, :, None, None, None]) ** 2).mean(dim=1)
    to_ground = ((video - behind[:, :, None]) ** 2).mean(dim=1)
    other = torch.full_like(to_object, NEITHER)
    likely = torch.softmax(-torch.stack([to_object, to_ground, other]) / TEMPERATURE, dim=0)[0]  # (B, T, H, W)
    known = (inside.amax(dim=(1, 2, 3)) > MINIMUM) & (falling.sum(dim=(1, 2, 3)) > 0)
    seen = falling.sum(dim=(2, 3)) > 0
    around = torch.cat([seen[:, :1], seen[:, 1:].repeat_interleave(vae_stage.TIME_STRIDE, dim=1)], dim=1)
    exact = around if falls is None else falls
    return Scene(video, cells, falling, likely, pool(likely), exact.to(video.device).bool(), known)


def pool(mask: Tensor) -> Tensor:
    """(B, 1 + 4k, H, W) -> its mean over each latent cell, (B, 1 + k, h, w), as `objects.pool_cells`."""
    small = functional.avg_pool2d(mask, vae_stage.SPACE_STRIDE)
    later = small[:, 1:].unflatten(1, (-1, vae_stage.TIME_STRIDE)).mean(dim=2)
    return torch.cat([small[:, :1], later], dim=1)


def _filled(first: Tensor, inside: Tensor) -> Tensor:
    """The first frame without its objects: the mean colour of the ring around them in their place."""
    hole = (inside > 0).float()
    ring = (functional.max_pool2d(hole, 17, 1, 8) - hole).clamp(min=0)
    mean = (first * ring).sum(dim=(2, 3), keepdim=True) / ring.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return first * (1 - hole) + mean * hole


@dataclass(frozen=True)
class RewardConfig:
    """A reward stage. steps: Euler steps of a video. last: so many carry gradients. anchor: weight of the training loss."""

    reward: str = "overlap"
    steps: int = 8
    last: int = 1
    anchor: float = 1.0

    def __post_init__(self) -> None:
        find_reward(self.reward)
        if not 1 <= self.last <= self.steps <= 35:
            raise InputError(f"last is {self.last} and steps {self.steps}; valid: 1 <= last <= steps <= 35")
        if not 0 <= self.anchor < float("inf"):
            raise InputError(f"anchor is {self.anchor}; valid: 0 (off) or more")


@dataclass(frozen=True)
class RewardResult:
    """One step. reward: mean over the videos that gave one (None: none did, only the anchor was learnt from)."""

    reward: float | None
    loss: float
    grad_norm: float
    lr: float


class RewardTuner:
    """Moves a `Tuner`'s weights along a reward; its optimiser, average and generator are used, so its checkpoints hold all.

    `vae` decodes with gradients (its weights get none); `reward` may be a callable of one's own.
    """

    def __init__(
        self, tuner: Tuner, vae: Any, config: RewardConfig | None = None, reward: Reward | None = None
    ) -> None:
        self.tuner, self.vae, self.config = tuner, vae, config or RewardConfig()
        self.reward = reward or find_reward(self.config.reward)
        vae.requires_grad_(False)

    @property
    def transformer(self) -> Any:
        """The model."""
        return self.tuner.transformer

    def sample(self, batch: Batch) -> Tensor:
        """Latents (B, C, T, h, w) from noise; gradients through the last `config.last` evaluations alone."""
        tuner, steps = self.tuner, self.config.steps
        x0 = torch.as_tensor(batch.x0).float()
        state = torch.randn(tuple(x0.shape), generator=tuner.generator).to(x0.device)
        sigmas = (*even_sigmas(steps), 0.0)
        for index in range(steps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= steps - self.config.last):
                timestep = torch.full((x0.shape[0], 1), 1000.0 * sigmas[index])
                velocity = tuner.velocity(batch, state, timestep).to(x0.device)
                state = state + (sigmas[index + 1] - sigmas[index]) * velocity
        return torch.cat([x0[:, :, :1], state[:, :, 1:]], dim=2)

    def judge(
        self, batch: Batch, cells: Tensor, falling: Tensor, latents: Tensor, falls: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rewards (B,) of latents, and which of them count (B,) bool."""
        video = torch.cat([vae_stage.decode_with_gradient(self.vae, one[None]) for one in latents])
        with torch.no_grad():
            first = torch.cat([vae_stage.decode(self.vae, one[None, :, :1])[:, :, 0] for one in batch.x0])
        scene = see(video, first, cells.to(video), falling.to(video), falls)
        return self.reward(scene), scene.known

    def step(self, batch: Batch, cells: Tensor, falling: Tensor, falls: Tensor | None = None) -> RewardResult:
        """Sample, judge, move. cells, falling (B, T, h, w), falls (B, 1 + 4k): see `Scene` and `see`.

        Raises InputError where the loss is not finite; nothing is changed then.
        """
        tuner = self.tuner
        lr = tuner.optimizer.lr
        try:
            rewards, known = self.judge(batch, cells, falling, self.sample(batch), falls)
            loss = -(rewards * known).sum() / known.sum().clamp(min=1)
            if self.config.anchor:
                loss = loss + self.config.anchor * tuner.predict(batch).loss.to(loss.device)
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"the loss of reward step {tuner.optimizer.iteration} is {float(loss.detach())}; nothing was changed"
                )
            if loss.requires_grad:
                loss.backward()
            if tuner.before_update is not None:
                tuner.before_update(tuner.optimizer.parameters)
            norm = tuner.optimizer.step()
        finally:
            tuner.optimizer.zero_grad()
        mean = float((rewards.detach() * known).sum() / known.sum()) if bool(known.any()) else None
        return RewardResult(mean, float(loss.detach()), norm, lr)
