# SPDX-License-Identifier: Apache-2.0
"""What the model makes of held-back windows while it learns, as one picture per validation.

Per window two rows: the video itself (through the VAE, so that its loss is in both rows), and what the model makes of its
first frame, Skeleton and prompt. Where the simulator says an object is, its outline is drawn on both. Sampling is cheap and
plain: a few Euler steps, no guidance, the weights of the step (not their average); takes look better than these pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..oscar.few_step import even_sigmas
from ..oscar.vae import SPACE_STRIDE, TIME_STRIDE
from .step import Batch

Decode = Callable[[Tensor], np.ndarray]
"""Normalised latents (1, C, T, h, w) -> uint8 RGB (1 + 4 (T - 1), H, W, 3)."""

COLUMNS = 6
WIDTH = 240  # of one frame on the sheet, pixels
OUTLINE = (255, 0, 255)
HALF = 0.5  # a cell that objects cover at least by half is inside the outline


@torch.no_grad()
def sample(tuner: Any, batch: Batch, steps: int, seed: int = 0) -> Tensor:
    """Latents (B, C, T, h, w) that a `Tuner`'s model makes of a batch's first frames, in `steps` Euler steps from noise.

    Of `batch.x0` only the first latent frame is looked at. Nothing of the tuner changes, its random generator included.
    """
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.as_tensor(batch.x0).float()
    state = torch.randn(tuple(x0.shape), generator=generator)
    sigmas = (*even_sigmas(steps), 0.0)
    for sigma, following in pairwise(sigmas):
        velocity = tuner.velocity(batch, state, torch.full((x0.shape[0], 1), 1000.0 * sigma))
        state = state + (following - sigma) * velocity.to(state.device)
    return torch.cat([x0[:, :, :1], state[:, :, 1:].cpu()], dim=2)


@dataclass(frozen=True)
class Shown:
    """A held-back window of one video, and what the model made of it.

    Attributes:
        truth, made: latents (1, C, T, h, w). cells, falling: (1, T, h, w), coverage by objects and by those in free fall.
    """

    truth: Tensor
    made: Tensor
    cells: Tensor | None = None
    falling: Tensor | None = None


def draw(windows: Sequence[Shown], decode: Decode, steps: int) -> np.ndarray:
    """The sheet, uint8 RGB: two rows per window, sampled in `steps` steps."""
    rows = []
    for window in windows:
        frames = columns(window.truth.shape[2], window.falling)
        outlines = [None if window.cells is None else _outline(window.cells[0, frame]) for frame in frames]
        for name, latents in (("simulated", window.truth), (f"{steps} steps", window.made)):
            video = decode(latents)
            row = [_cell(video[_pixel_frame(f)], outline) for f, outline in zip(frames, outlines, strict=True)]
            for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(row[0], name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
            rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def columns(count: int, falling: Tensor | None, wanted: int = COLUMNS) -> list[int]:
    """Latent frames to show: the first and the last, and between them those of the fall, where there is one."""
    wanted = min(wanted, count)
    inner = list(range(1, count - 1))
    if falling is not None and count > wanted:
        seen = [f for f in inner if float(falling[0, f].sum()) > 0]
        inner = seen if len(seen) >= wanted - 2 else inner
    picked = [inner[round(i)] for i in np.linspace(0, len(inner) - 1, max(0, wanted - 2))] if inner else []
    return sorted({0, *picked, count - 1})


def _pixel_frame(latent: int) -> int:
    """The last pixel frame of a latent frame."""
    return TIME_STRIDE * latent


def _cell(frame: np.ndarray, outline: np.ndarray | None) -> np.ndarray:
    height = round(WIDTH * frame.shape[0] / frame.shape[1])
    shown = cv2.resize(
        frame, (WIDTH, height), interpolation=cv2.INTER_AREA if frame.shape[1] > WIDTH else cv2.INTER_NEAREST
    )
    if outline is not None:
        grown = cv2.resize(outline, (WIDTH, height), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, contours, -1, OUTLINE, 1)
    return np.ascontiguousarray(shown)


def _outline(cells: Tensor) -> np.ndarray:
    """uint8 (8h, 8w): 1 where objects cover a cell by half; by less, where nothing is covered that much."""
    cover = cells.float().cpu().numpy()
    inside = (cover >= min(HALF, max(1e-6, float(cover.max()) / 2))).astype(np.uint8)
    return np.kron(inside, np.ones((SPACE_STRIDE, SPACE_STRIDE), np.uint8))
