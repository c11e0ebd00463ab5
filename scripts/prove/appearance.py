# SPDX-License-Identifier: Apache-2.0
"""What a generative model and a real camera add to a faithful video: warps, swimming texture, shapes a little off, lost
detail, drifting hue, moving shadows and highlights, people far away, grain, blur, flicker, codecs. Works on the frames
of any renderer; deterministic for a seed. Lengths are px at 640 wide and grow with the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np
from film import Film, project
from newton_painter import Shot

from retake.core.files import atomic_path
from retake.core.video import write_video

LOOKS = (
    "base", "warp", "swim", "wider", "narrower", "latent", "hue", "highlight", "shadow", "far_mover", "grain",
    "motion_blur", "rolling", "low_contrast", "codec", "generative",
)  # fmt: skip
"""Every look of a faithful video; `generative` adds six of them at once."""
_PARTS = {"generative": ("warp", "swim", "shape", "latent", "hue", "grain")}
_DCT = np.ascontiguousarray(cv2.dct(np.eye(8, dtype=np.float32), flags=cv2.DCT_ROWS).T)
"""Rows are the eight cosines."""


@dataclass(frozen=True)
class Drawn:
    """The numbers of one look."""

    warp_px: float = 0.0
    shape_px: float = 0.0
    swim: float = 0.0
    kept: int = 64
    """DCT coefficients kept of each 8 x 8 block."""
    hue_deg: float = 0.0
    grain: float = 1.0
    blur_px: float = 0.5
    contrast: float = 1.0
    rolling: float = 0.0
    crf: int = 20
    codec: str = "h264"


def draw(look: str, seed: int) -> Drawn:
    """The numbers of a look, by its name and seed."""
    rng = np.random.default_rng([seed, 71])
    parts, strong = _PARTS.get(look, (look,)), look not in _PARTS
    sign = {"wider": 1.0, "narrower": -1.0, "shape": float(rng.choice([-1, 1]))}
    shape = next((sign[p] for p in parts if p in sign), 0.0)
    return Drawn(
        warp_px=float(rng.uniform(1.5, 3.0) if strong else rng.uniform(0.5, 2.0)) if "warp" in parts else 0.0,
        shape_px=shape * float(rng.uniform(1.0, 3.0) if strong else rng.uniform(0.5, 1.5)),
        swim=float(rng.uniform(0.06, 0.14)) * (1 if strong else 0.6) if "swim" in parts else 0.0,
        kept=int(rng.integers(6, 11) if strong else rng.integers(10, 16)) if "latent" in parts else 64,
        hue_deg=float(rng.choice([-1, 1]) * rng.uniform(3, 8 if strong else 4)) if "hue" in parts else 0.0,
        grain=float(rng.uniform(4, 9) if strong else rng.uniform(1, 4)) if "grain" in parts else 1.0,
        blur_px=float(rng.uniform(0.4, 0.8)),
        contrast=float(rng.uniform(0.35, 0.6)) if "low_contrast" in parts else 1.0,
        rolling=float(rng.uniform(0.01, 0.02)) if "rolling" in parts else 0.0,
        crf=int(rng.integers(18, 26)) if "codec" not in parts else int(rng.integers(28, 36)),
        codec=str(rng.choice(["h264", "libvpx-vp9", "mjpeg"])) if "codec" in parts else "h264",
    )  # fmt: skip


class Appearance:
    """Frames of one look over a shot."""

    def __init__(self, shot: Shot, film: Film, look: str, seed: int) -> None:
        self.shot, self.film, self.look = shot, film, look
        self.drawn = draw(look, seed)
        self.rng = np.random.default_rng([seed, 72])
        self.count, self.height, self.width = shot.ids.shape
        self.scale = self.width / 640
        links = film.robots[film.arm]
        self.robot = shot.mask(links)
        self.things = shot.mask({*links, film.task_object, "prop:second", "prop:shape", "prop:colour", "prop:finger"})
        far = {"set", *(o for o in shot.owners if "floor" in o.lower())}
        self.far = shot.mask(far)
        self.far[0] = True
        self.fields = [self._field(), self._field()]
        self.noise = [self._smooth(24), self._smooth(24)]
        self.phase = self.rng.uniform(0, 2 * np.pi, 4)
        self.grain_tile = self.rng.normal(0, 1, (2, self.height, self.width, 3)).astype(np.float32)
        self.mover = self.rng.uniform(0, 1, 6)

    @cached_property
    def grid(self) -> np.ndarray:
        """(H, W, 2) float32 pixel positions."""
        v, u = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        return np.stack([u, v], -1)

    def _smooth(self, scale: float) -> np.ndarray:
        step = scale * self.scale
        noise = self.rng.normal(size=(max(3, round(self.height / step)), max(3, round(self.width / step))))
        return cv2.resize(noise.astype(np.float32), (self.width, self.height), interpolation=cv2.INTER_CUBIC)

    def _field(self) -> np.ndarray:
        field = np.stack([self._smooth(90), self._smooth(90)], -1)
        return field / np.linalg.norm(field, axis=-1).max()

    def frames(self) -> Iterator[np.ndarray]:
        """All frames, uint8 RGB."""
        for t in range(self.count):
            yield self.frame(t)

    def frame(self, t: int) -> np.ndarray:
        """Frame t as uint8 RGB, before compression."""
        d, ids = self.drawn, self.shot.ids[t]
        image = self.shot.rgb[t].astype(np.float32)
        if self.look == "shadow":
            image = self._cast(image, ids, t)
        if self.look == "highlight":
            image = self._shine(image, ids, t)
        if self.look == "far_mover":
            image = self._walker(image, ids, t)
        if d.swim:
            image = self._swim(image, ids, t)
        if self.look == "motion_blur":
            image = self._motion(image, ids, t)
        if d.kept < 64:
            image = lose_detail(image, d.kept)
        if d.warp_px or d.shape_px:
            image = self._bend(image, ids, t)
        share = t / max(self.count - 1, 1)
        if d.hue_deg:
            image = turn_hue(image, d.hue_deg * share)
        if d.contrast != 1.0:
            image = 120 + (image - 120) * d.contrast
        if d.rolling:
            rows = np.sin(2 * np.pi * (1.7 * np.arange(self.height) / self.height + 0.37 * t) + self.phase[0])
            image *= 1 + d.rolling * rows[:, None, None].astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), d.blur_px * self.scale)
        tile = np.roll(self.grain_tile[t % 2], (31 * t, 17 * t), (0, 1))
        return np.clip(image + d.grain * tile, 0, 255).astype(np.uint8)

    def _bend(self, image: np.ndarray, ids: np.ndarray, t: int) -> np.ndarray:
        """One resampling by the time-varying warp and by the outline moved in or out."""
        d = self.drawn
        shift = np.zeros((self.height, self.width, 2), np.float32)
        if d.warp_px:
            mix = 0.5 + 0.5 * np.sin(2 * np.pi * t / 50 + self.phase[1])
            shift += (self.fields[0] * mix + self.fields[1] * (1 - mix)) * (d.warp_px * self.scale)
        if d.shape_px:
            mask = self.things[ids].astype(np.uint8)
            if mask.any() and not mask.all():
                out, into = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5), cv2.distanceTransform(mask, cv2.DIST_L2, 5)
                signed = cv2.GaussianBlur(out - into, (0, 0), 2.0 * self.scale)
                slope = np.stack([cv2.Sobel(signed, cv2.CV_32F, 1, 0, scale=0.125),
                                  cv2.Sobel(signed, cv2.CV_32F, 0, 1, scale=0.125)], -1)  # fmt: skip
                fade = np.exp(-((signed / (9 * self.scale)) ** 2))[..., None]
                shift -= slope * fade * (d.shape_px * self.scale)
        at = self.grid + shift
        return cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def _swim(self, image: np.ndarray, ids: np.ndarray, t: int) -> np.ndarray:
        """A texture of the moving things that slides over them, and half as strong one of everything."""
        a = np.roll(self.noise[0], (round(0.7 * t), round(1.1 * t)), (0, 1))
        b = np.roll(self.noise[1], (-round(0.9 * t), round(0.5 * t)), (0, 1))
        weight = np.where(self.things[ids], 1.0, 0.35).astype(np.float32)
        return image * (1 + self.drawn.swim * np.clip(0.6 * (a + b), -1, 1) * weight)[..., None]

    def _cast(self, image: np.ndarray, ids: np.ndarray, t: int) -> np.ndarray:
        """A second soft shadow of the robot, far from it, from a lamp that moves."""
        mask = self.robot[ids].astype(np.float32)
        angle = self.phase[0] + 0.5 * np.sin(2 * np.pi * t / 70)
        reach = (50 + 60 * self.mover[0]) * self.scale
        M = np.array(
            [[1, 0.35 * np.cos(angle), reach * np.cos(angle)], [0, 0.8, reach * abs(np.sin(angle)) + 20]], np.float32
        )
        cast = cv2.warpAffine(mask, M, (self.width, self.height))
        cast = cv2.GaussianBlur(cast, (0, 0), (3 + 8 * self.mover[1]) * self.scale) * (1 - self.things[ids])
        return image * (1 - (0.2 + 0.3 * self.mover[2]) * cast[..., None])

    def _shine(self, image: np.ndarray, ids: np.ndarray, t: int) -> np.ndarray:
        """Specular spots that slide over the robot, and a sheen that wanders over the scenery."""
        mask = self.robot[ids]
        out = image.copy()
        rows, columns = np.nonzero(mask)
        if len(rows):
            for k in range(3):
                pick = int((0.2 + 0.3 * k + 0.1 * np.sin(t / 9 + self.phase[k])) * (len(rows) - 1))
                far = (self.grid[..., 0] - columns[pick]) ** 2 + (self.grid[..., 1] - rows[pick]) ** 2
                out += (110 * np.exp(-far / (2 * (7 * self.scale) ** 2)) * mask)[..., None]
        centre = np.array([0.3 + 0.4 * self.mover[3] + 0.06 * np.sin(t / 14), 0.6 + 0.2 * self.mover[4]])
        far = ((self.grid / [self.width, self.height] - centre) ** 2).sum(-1)
        return out + (30 * np.exp(-far / 0.01) * ~self.things[ids])[..., None]

    def _walker(self, image: np.ndarray, ids: np.ndarray, t: int) -> np.ndarray:
        """A person who walks by, or a curtain in a draught, behind all that the task touches."""
        layer = image.copy()
        h, w = self.height, self.width
        if self.mover[0] < 0.6:
            x = (
                (self.mover[1] - 0.3 + (0.004 + 0.006 * self.mover[2]) * t * (1 if self.mover[3] < 0.5 else -1))
                % 1.1
                * w
            )
            foot, tall = (0.3 + 0.15 * self.mover[4]) * h, (0.22 + 0.2 * self.mover[5]) * h
            shade = tuple(float(c) for c in 30 + 190 * np.array([self.mover[2], self.mover[4], self.mover[0]]))
            swing = 0.12 * tall * np.sin(t / 2.2)
            thick = max(round(0.09 * tall), 1)
            hip = (round(x), round(foot - 0.48 * tall))
            for side in (-1, 1):
                cv2.line(layer, hip, (round(x + side * swing), round(foot)), tuple(0.6 * c for c in shade), thick)
            cv2.ellipse(
                layer,
                (round(x), round(foot - 0.67 * tall)),
                (round(0.13 * tall), round(0.24 * tall)),
                0,
                0,
                360,
                shade,
                -1,
            )
            cv2.circle(layer, (round(x), round(foot - 0.95 * tall)), max(round(0.08 * tall), 1), (190, 150, 120), -1)
        else:
            x0, x1 = round((0.05 + 0.5 * self.mover[1]) * w), round((0.3 + 0.6 * self.mover[1]) * w)
            u = self.grid[: h // 2, x0:x1, 0]
            sway = np.sin(u / (9 * self.scale) + 0.5 * np.sin(t / 5.0) * 3)
            layer[: h // 2, x0:x1] *= (0.85 + 0.25 * sway)[..., None]
        layer = cv2.GaussianBlur(layer, (0, 0), 1.2 * self.scale)
        return np.where(self.far[ids][..., None], layer, image)

    def _motion(self, image: np.ndarray, ids: np.ndarray, t: int) -> np.ndarray:
        """Half a frame of exposure: every moving owner smeared along its own way in the image."""
        flow, mask = np.zeros((self.height, self.width, 2), np.float32), np.zeros((self.height, self.width), np.float32)
        a, b = max(t - 1, 0), min(t + 1, self.count - 1)
        for k, owner in enumerate(self.shot.owners):
            where = ids == k + 1
            if owner == "set" or not where.any() or not self.things[k + 1]:
                continue
            corners = self.film.points(owner)
            ends = []
            for s in (a, b):
                T = self.film.pose(owner, s)
                ends.append(project(self.film, corners @ T[:3, :3].T + T[:3, 3], s))
            if len(ends[0]) == len(ends[1]) == 8:
                flow[where] = (ends[1] - ends[0]).mean(0) / max(b - a, 1)
                mask[where] = 1
        spread = cv2.GaussianBlur(mask, (0, 0), 4 * self.scale)
        flow = cv2.GaussianBlur(flow, (0, 0), 4 * self.scale) / np.maximum(spread, 0.05)[..., None]
        taps = [self.grid + s * flow for s in (-0.25, -0.125, 0.0, 0.125, 0.25)]
        return np.mean(
            [cv2.remap(image, p[..., 0], p[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT) for p in taps], 0
        )


def lose_detail(image: np.ndarray, kept: int) -> np.ndarray:
    """Two block grids, half a block apart, of 8 x 8 transforms with the lowest coefficients kept, averaged."""
    v, u = np.mgrid[0:8, 0:8]
    order = np.argsort((u + v + 0.01 * u).ravel(), kind="stable")
    keep = np.zeros(64, np.float32)
    keep[order[:kept]] = 1
    keep = keep.reshape(8, 8)
    total = np.zeros_like(image)
    for offset in (0, 4):
        padded = cv2.copyMakeBorder(image, offset, 8 - offset, offset, 8 - offset, cv2.BORDER_REFLECT)
        h, w = padded.shape[0] // 8 * 8, padded.shape[1] // 8 * 8
        blocks = padded[:h, :w].reshape(h // 8, 8, w // 8, 8, 3).transpose(0, 2, 4, 1, 3)
        low = (_DCT.T @ ((_DCT @ blocks @ _DCT.T) * keep) @ _DCT).transpose(0, 3, 1, 4, 2).reshape(h, w, 3)
        total += low[offset : offset + image.shape[0], offset : offset + image.shape[1]]
    return total / 2


def turn_hue(image: np.ndarray, degrees: float) -> np.ndarray:
    """Colours turned around the grey axis."""
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a) / np.sqrt(3)
    off = (1 - c) / 3
    M = np.array([[c + off, off - s, off + s], [off + s, c + off, off - s], [off - s, off + s, c + off]], np.float32)
    return image @ M.T


def encode(path: Path, frames: Iterator[np.ndarray], fps: float, drawn: Drawn) -> None:
    """Write a video in the codec of a look; the container follows the file's name (.mp4; .webm and .avi for the others)."""
    with atomic_path(path) as temporary:
        if drawn.codec == "h264":
            write_video(temporary, frames, fps, crf=drawn.crf)
            return
        form = {"libvpx-vp9": "webm", "mjpeg": "avi"}[drawn.codec]
        with av.open(str(temporary), "w", format=form) as container:
            stream = container.add_stream(drawn.codec, rate=round(fps))
            stream.pix_fmt = "yuvj420p" if drawn.codec == "mjpeg" else "yuv420p"
            vp9 = {"crf": str(drawn.crf), "b": "0", "deadline": "realtime", "cpu-used": "8"}
            stream.options = vp9 if drawn.codec == "libvpx-vp9" else {"qmin": "5", "qmax": "5"}
            for frame in frames:
                if not stream.width or stream.width != frame.shape[1]:
                    stream.width, stream.height = frame.shape[1], frame.shape[0]
                for packet in stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)


SUFFIX = {"h264": ".mp4", "libvpx-vp9": ".webm", "mjpeg": ".avi"}
