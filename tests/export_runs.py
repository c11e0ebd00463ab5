# SPDX-License-Identifier: Apache-2.0
"""Small run folders, written directly: an episode, variants, takes and verdicts, with content that tests can predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from strategies import random_frame, random_header, random_poses

from retake.core.episode import CameraSpec, Episode, EpisodeHeader, EpisodeWriter, Instance
from retake.core.files import sha256_file, write_json
from retake.core.video import write_video

WORLDS = (
    ("bun_warehouse", "warehouse", "concrete", "bun", "daylight"),
    ("chips_belt", "factory", "rubber belt", "bag of chips", "neon"),
    ("kitchen “küche”", "kitchen", "wood", "carrot", "warm"),
    ("lab_night", "lab", "steel", "box", "night"),
)


def make_header(
    seed: int, *, cameras: tuple[str, ...] = ("front",), size=(64, 64), fps: float = 10, **changes
) -> EpisodeHeader:
    """A one-robot header with targets; the robot depends on nothing, so headers of several seeds share a schema."""
    header = random_header(np.random.default_rng(7), robots=1, cameras=1, objects=1)
    channels = ("rgb", "instances")
    values = {
        "fps": fps,
        "seed": seed,
        "task": 'pick up the “päckchen” — and say "done"',
        "cameras": tuple(CameraSpec(name, f"/World/{name}", size, True, channels, (0.05, 10.0)) for name in cameras),
        "instances": (Instance(1, "/World/Table", "table"), Instance(7, "/World/Obj0", "packet", "object:obj0")),
        "joint_channels": ("velocity", "target"),
        "settings": {"licence": "Apache-2.0"},
    }
    return replace(header, **{**values, **changes})


def picture(size, seed: int, k: int, hue: float) -> np.ndarray:
    """A smooth frame (compresses well) that shows its hue, seed and frame number."""
    w, h = size
    x, y = np.meshgrid(np.linspace(0, 1, w), np.linspace(0, 1, h))
    base = 90 + 60 * np.sin(2 * np.pi * (x * (1 + seed % 3) + k / 20)) + 40 * y
    tint = 0.6 + 0.4 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3])))
    return np.clip(base[..., None] * tint, 0, 255).astype(np.uint8)


def write_episode(path: Path, header: EpisodeHeader, frames: int, seed: int = 0) -> Episode:
    """An episode of random states that obey the robot's kinematics; pictures are `picture`."""
    rng = np.random.default_rng(seed)
    base = random_poses(np.random.default_rng(5))
    with EpisodeWriter(path, header) as writer:
        for k in range(frames):
            frame = random_frame(rng, header, k)
            views = tuple(
                replace(view, rgb=picture(spec.size, seed, k, 0.5))
                for view, spec in zip(frame.cameras, header.cameras, strict=True)
            )
            robots = tuple(
                replace(state, T_world_link=robot.forward_kinematics(state.joint_position, base))
                for state, robot in zip(frame.robots, header.robots, strict=True)
            )
            writer.append(replace(frame, cameras=views, robots=robots))
        return writer.finish()


def write_take(
    run: Path,
    episode: Episode,
    world: int,
    *,
    camera: str = "front",
    frames: int | None = None,
    start: int = 0,
    size=None,
    status: str | None = "pass",
    probability: float = 0.97,
    licence: str = "Apache-2.0",
    name: str | None = None,
    pixels=None,
    lossless: bool = False,
    **more,
) -> str:
    """One variant, take and verdict. `pixels(k) -> frame` overrides the picture."""
    label, environment, surface, subject, lighting = WORLDS[world % len(WORLDS)]
    identity = name or f"v{world:03d}/{camera}"
    count = len(episode) - start if frames is None else frames
    size = size or episode.header.camera(camera).size
    seed = episode.header.seed
    write_json(
        run / "variants" / f"{world:03d}" / camera / "variant.json",
        {
            "schema": "retake.variant/1", "id": f"{world:03d}/{camera}",
            "world": {
                "name": label, "environment": environment, "surface": surface, "subject": subject, "lighting": lighting,
                "look": "neutral", "background": "", "clutter": "",
            },
            "seed": world, "prompt": f'a {subject} in a {environment}, "sharp"', "negative_prompt": "blur",
            "frame_sha256": f"{world:064d}", "backend": "procedural", "backend_version": "1", "licence": "Apache-2.0",
            "source": {"episode_sha256": episode.content_sha256, "camera": camera, "frame": start},
        },
    )  # fmt: skip
    draw = pixels or (lambda k: picture(size, seed, k + start, world / 11))
    video = run / "takes" / identity / "take.mp4"
    info = write_video(video, (draw(k) for k in range(count)), episode.header.fps, crf=12, gop=2, lossless=lossless)
    sha = sha256_file(video)
    write_json(
        video.parent / "take.json",
        {
            "schema": "retake.take/1", "id": identity, "video": "take.mp4", "video_sha256": sha,
            "variant": f"{world:03d}/{camera}",
            "backend": "composite", "backend_version": "1", "domain": "composite", "seed": 42, "prompt": f'a {subject}, "quoted"',
            "frames": count, "fps": episode.header.fps, "size": list(info.size), "camera": camera, "start": start,
            "inputs": {"episode": episode.content_sha256, "skeleton": "5" * 64, "first_frame": f"{world:064d}"},
            "model": "", "revision": "", "licence": licence, "settings": {"steps": 4}, **more,
        },
    )  # fmt: skip
    if status is not None:
        write_json(
            run / "verdicts" / identity / "verdict.json",
            {
                "schema": "retake.verdict/1", "status": status, "probability": probability, "video_sha256": sha, "version": "1",
                "checks": [
                    {"name": "action", "status": status, "value": 0.8, "threshold": 2.0},
                    {"name": "object", "status": "pass", "value": 0.1 * world, "threshold": 1.0},
                ],
            },
        )  # fmt: skip
    return identity


def make_run(
    path: Path,
    *,
    takes: int = 2,
    frames: int = 8,
    seed: int = 0,
    cameras: tuple[str, ...] = ("front",),
    size=(64, 64),
    fps: float = 10,
    header: dict | None = None,
    **options,
) -> Path:
    """A run folder with `takes` accepted worlds per camera. `options` go to `write_take`."""
    spec = make_header(seed, cameras=cameras, size=size, fps=fps, **(header or {}))
    episode = write_episode(path / "episode", spec, frames, seed)
    for world in range(takes):
        for camera in cameras:
            write_take(path, episode, world, camera=camera, **options)
    return path


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
