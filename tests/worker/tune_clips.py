# SPDX-License-Identifier: Apache-2.0
"""Small clips made on the spot: a square that is carried, dropped and lands, with the simulator's truth of it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tune_golden as golden
from oscar_golden import pipeline

from retake.core.export.physics import NEVER
from retake.worker.tune import LinearSchedule, TuneConfig, Tuner
from retake.worker.tune.clips import Clip
from retake.worker.tune.latents import LatentCache
from retake.worker.tune.settings import RunSettings
from retake.worker.tune.trainer import Trainer

SIZE = (32, 32)
decodes = count()
"""Goes up by one for every video that is decoded."""


def make_clip(
    seed: int = 0, frames: int = 9, episode: str | None = None, domain: str = "composite", **changes: Any
) -> Clip:
    """A clip of an object that falls from `release` on and rests from `settled` on, before a random background."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    release, settled = frames // 3, 2 * frames // 3
    ground = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    colour = rng.integers(0, 255, 3, dtype=np.uint8)
    masks = np.zeros((frames, 1, height, width), bool)
    video = np.repeat(ground[None], frames, axis=0)
    for k in range(frames):
        top = int(np.clip(k - release, 0, settled - release) / max(1, settled - release) * (height - 12))
        masks[k, 0, top : top + 10, 10:20] = True
        video[k][masks[k, 0]] = colour
    skeleton = np.zeros_like(video)
    skeleton[:, 4:8, rng.integers(0, 20) :][..., 0] = 255
    pose = np.tile(np.eye(4), (frames, 1, 1, 1))
    pose[:, 0, :3, 3] = [0, 0, 2]
    arrays = {
        "object_names": np.array(["box"]), "object_movable": np.array([True]), "object_sizes_m": np.full((1, 3), 0.2),
        "object_centers_m": np.zeros((1, 3)), "time_s": np.arange(frames) / 15.0, "T_world_object": pose,
        "object_masks": np.packbits(masks, axis=-1), "mask_width": np.array(width),
        "grasp_frame": np.array([NEVER]), "release_frame": np.array([release]), "settled_frame": np.array([settled]),
        "camera_intrinsic": np.tile([[40.0, 0, 16], [0, 40, 16], [0, 0, 1]], (frames, 1, 1)),
        "T_camera_world": np.tile(np.eye(4), (frames, 1, 1)),
    }  # fmt: skip

    def read(values: np.ndarray) -> Any:
        next(decodes)
        return iter(values)

    made: dict[str, Any] = {
        "uid": f"clip-{seed}-{frames}-{domain}", "episode": episode or f"episode-{seed}", "domain": domain, "camera": "front",
        "caption": f"put the box down {seed % 2}", "frames": frames, "fps": 15.0, "events": (release, settled),
        "rgb": lambda: read(video), "skeleton": lambda: read(skeleton), "physics": lambda: arrays, "terms": "CC0-1.0",
    }  # fmt: skip
    return Clip(**{**made, **changes})


def text_of(caption: str) -> torch.Tensor:
    """A projected prompt of the golden model's width, by its text alone."""
    seed = sum(caption.encode())
    return torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(seed))


def settings(**changes: Any) -> RunSettings:
    step = changes.pop("step", TuneConfig(lr=3e-3, schedule=LinearSchedule(warm_up=1, cycle=100)))
    made: dict[str, Any] = {"step": step, "steps": 4, "frames": 9, "size": SIZE, "stride": 4, "save_every": 2}
    return RunSettings(**{**made, **changes})


def make_trainer(folder: Path, clips: Any = None, world: Any = None, shard: bool = False, **changes: Any) -> Trainer:
    """A trainer of the golden model on small clips, its latents kept beside `folder`."""
    decode = changes.pop("decode", None)
    told = settings(**changes)
    pipe = pipeline()
    cache = LatentCache(pipe.vae, "tiny", folder.parent / "latents", told.size, objects=told.step.objects)
    model = golden.model()
    if told.step.objects.control == "embed":
        model.add_object_embed(16)
    if shard:
        from retake.worker.tune.distributed import shard as split_weights

        split_weights(model, world)
    train, validation = clips if clips is not None else ([make_clip(0, 17), make_clip(1)], [make_clip(2)])
    return Trainer(
        Tuner(model, told.step), told, folder, cache=cache, text_of=text_of, train=train, validation=validation,
        base="golden", world=world, decode=decode,
    )  # fmt: skip
