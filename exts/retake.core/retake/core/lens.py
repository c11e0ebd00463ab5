# SPDX-License-Identifier: Apache-2.0
"""Calibrated lenses: OpenCV's pinhole (radial, tangential, rational, thin prism) and fisheye distortion.

Everything here is in normalised coordinates: (x / z, y / z) of a point in the camera, before and after the lens. K turns
the latter into pixels, so a lens survives resizing and cropping unchanged.

Every calibration holds up to some radius, where its polynomial turns back (a fold) or ends (90° of a fisheye). OpenCV
maps points beyond the fold back into the picture, where they were never seen. Here the lens goes on outwards instead:
up to the fold the numbers are OpenCV's, beyond it they leave the picture, so a line to a point far outside stays a line
to the outside and every pixel has one ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args

import numpy as np

from retake.core.array_types import Bool, Float32, Float64
from retake.core.errors import InputError, unknown_name

LensModel = Literal["opencv-pinhole", "opencv-fisheye"]
COEFFICIENTS: dict[str, tuple[str, ...]] = {
    "opencv-pinhole": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4"),
    "opencv-fisheye": ("k1", "k2", "k3", "k4"),
}
"""Names of a model's coefficients in OpenCV's order (calib3d: projectPoints, fisheye::projectPoints)."""
LEAST_SLOPE = 0.02
"""A lens whose radius grows more slowly than this (per radius without it) counts as folded: its inverse is no number."""
FARTHEST = 20.0
"""Radius (tangent of the angle from the axis, 87°) up to which a pinhole lens is looked at."""
WIDEST_RAD = np.pi / 2 - 1e-3
"""Angle from the axis up to which a fisheye is looked at: forward depth has no meaning at 90°."""
FARTHEST_BENT = 1e6
"""Normalised coordinates beyond which a point is as good as beside the camera."""
SEEN_AGAIN = 1e-7
"""Normalised coordinates by which a pixel may miss itself after its ray was put through the lens again; more and the lens
has folded there (the inverse reaches 1e-9 where it has not)."""
SAMPLES = 4096
ROUNDS = 20


@dataclass(frozen=True)
class Lens:
    """A lens's distortion. Raises InputError for an unknown model, a wrong number of coefficients or NaN."""

    model: LensModel
    coefficients: tuple[float, ...]
    """In the order of COEFFICIENTS; missing ones at the end are 0."""

    def __post_init__(self) -> None:
        if self.model not in get_args(LensModel):
            raise InputError(unknown_name("lens model", str(self.model), COEFFICIENTS))
        names, given = COEFFICIENTS[self.model], tuple(float(c) for c in self.coefficients)
        if any(given[len(names) :]):
            raise InputError(
                f"lens model {self.model!r} has {len(names)} coefficients ({', '.join(names)}); found {len(given)}: a tilted "
                "sensor (tauX, tauY) is not supported"
            )
        if not np.isfinite(given).all():
            raise InputError(f"lens coefficients must be finite; found {given}")
        object.__setattr__(self, "coefficients", (given + (0.0,) * len(names))[: len(names)])

    def distort(self, xy: Float64[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """Where the lens puts points (…, 2): normalised coordinates without it to those with it."""
        xy = np.asarray(xy, np.float64)
        r = np.hypot(xy[..., 0], xy[..., 1])
        if self.model == "opencv-fisheye":
            return xy * _ratio(self._radius(np.arctan(r)), r)[..., None]
        # Beyond the fold: the point on the fold in the same direction, moved outwards by what is left.
        share = np.minimum(1.0, self._limit / np.maximum(r, 1e-12))
        return self._pinhole(xy * share[..., None]) + xy * (1.0 - share)[..., None]

    def undistort(self, xy: Float64[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """The inverse of `distort`, to 1e-9 wherever the lens does not fold."""
        xy = np.asarray(xy, np.float64)
        seen = np.hypot(xy[..., 0], xy[..., 1])
        before, after = self._table
        if self.model == "opencv-fisheye":
            angle = np.interp(seen, after, before, right=WIDEST_RAD)
            for _ in range(3):
                step = (self._radius(angle) - seen) / np.maximum(self._slope(angle), LEAST_SLOPE)
                angle = np.clip(angle - step, 0.0, WIDEST_RAD)
            return xy * _ratio(np.tan(angle), seen)[..., None]
        beyond = np.maximum(seen - after[-1], 0.0)
        found = xy * _ratio(np.interp(seen, after, before) + beyond, seen)[..., None]
        return self._refine(found, xy)

    def bend(self, K: Float64[np.ndarray, "3 3"], uv: Float64[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """Pixels (…, 2) of a pinhole camera K to those that the lens shows; what is not finite (beside or behind the
        camera) stays so."""
        focal, centre = np.array([K[0, 0], K[1, 1]]), np.array([K[0, 2], K[1, 2]])
        with np.errstate(invalid="ignore", over="ignore"):
            xy = (np.asarray(uv, np.float64) - centre) / focal
            far = ~np.isfinite(xy).all(-1) | (np.abs(xy).max(-1) > FARTHEST_BENT)
            bent = self.distort(np.where(far[..., None], 0.0, xy))
        return np.where(far[..., None], xy, bent) * focal + centre

    def covers(self, seen: Float64[np.ndarray, "*n 2"], rays: Float64[np.ndarray, "*n 2"]) -> Bool[np.ndarray, "*n"]:
        """Whether the calibration holds at points `seen` (…, 2) with the lens whose `undistort` gave `rays` (…, 2).

        The radial curve alone does not say: tangential and prism terms fold a lens on one side sooner than on the other.
        Where it has folded no ray leads to the point, and what the inverse found leads elsewhere.
        """
        again = np.abs(self.distort(rays) - seen).max(-1) < SEEN_AGAIN * (1 + np.hypot(seen[..., 0], seen[..., 1]))
        out = np.hypot(rays[..., 0], rays[..., 1])
        within = (np.arctan(out) if self.model == "opencv-fisheye" else out) < self._limit
        return again & within

    def to_json(self) -> dict[str, Any]:
        """JSON form: {model, coefficients}."""
        return {"model": self.model, "coefficients": list(self.coefficients)}

    @staticmethod
    def from_json(data: Any) -> Lens | None:
        """The inverse of `to_json`; None for None. Raises InputError."""
        if data is None:
            return None
        try:
            return lens_of(str(data["model"]), [float(c) for c in data["coefficients"]])
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(
                f'a lens is {{"model": {" | ".join(COEFFICIENTS)}, "coefficients": [k1, …]}}; found {data!r}'
            ) from error

    # -- the two models -----------------------------------------------------------------------------------------------

    def _pinhole(self, xy: Float64[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """OpenCV's calib3d model, as documented for projectPoints."""
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = self.coefficients
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4)
        return np.stack([u, v], -1)

    def _polynomial(self, angle: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
        k1, k2, k3, k4 = self.coefficients
        t2 = angle * angle
        return angle * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))

    def _slope(self, angle: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
        """Derivative of `_radius`."""
        k1, k2, k3, k4 = self.coefficients
        t2 = np.minimum(angle, self._limit) ** 2
        inside = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        return np.where(angle <= self._limit, inside, 1.0)

    def _radius(self, angle: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
        """Radius in the picture of an angle from the axis (fisheye), going on with slope 1 beyond the fold."""
        return self._polynomial(np.minimum(angle, self._limit)) + np.maximum(angle - self._limit, 0.0)

    # -- the inverse ----------------------------------------------------------------------------------------------------

    @cached_property
    def _limit(self) -> float:
        """Radius (pinhole) or angle (fisheye) without the lens where it folds, or where it is not looked at further."""
        return self._table_and_limit[1]

    @property
    def _table(self) -> tuple[Float64[np.ndarray, " S"], Float64[np.ndarray, " S"]]:
        return self._table_and_limit[0]

    @cached_property
    def _table_and_limit(self) -> tuple[tuple[Float64[np.ndarray, " S"], Float64[np.ndarray, " S"]], float]:
        """((without, with), limit): the radial curve, rising throughout, and where it ends."""
        if self.model == "opencv-fisheye":
            before = np.linspace(0.0, WIDEST_RAD, SAMPLES)
            after = self._polynomial(before)
        else:
            # Dense near the axis, where pictures are.
            before = FARTHEST * np.linspace(0.0, 1.0, SAMPLES) ** 2
            k1, k2, _, _, k3, k4, k5, k6 = self.coefficients[:8]
            r2 = before * before
            below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
            with np.errstate(divide="ignore", invalid="ignore"):
                after = before * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / below
            after[below <= 0] = -np.inf
        with np.errstate(invalid="ignore"):
            rising = np.diff(after) > LEAST_SLOPE * np.diff(before)
        end = len(before) if rising.all() else int(np.argmin(rising)) + 1
        return (before[:end], after[:end]), float(before[end - 1])

    def _refine(
        self, start: Float64[np.ndarray, "*n 2"], wanted: Float64[np.ndarray, "*n 2"]
    ) -> Float64[np.ndarray, "*n 2"]:
        """Newton's method in two dimensions: tangential and prism terms are small beside the radial ones."""
        found, shape = start.reshape(-1, 2).copy(), start.shape
        target = wanted.reshape(-1, 2)
        for _ in range(ROUNDS):
            miss = self.distort(found) - target
            size = np.abs(miss).max(-1)
            todo = size > 1e-11 * (1 + np.abs(target).max(-1))
            if not todo.any():
                break
            at, h = found[todo], 1e-6 * (1 + np.abs(found[todo]).max(-1))
            columns = []
            for axis in np.eye(2):
                ahead, behind = self.distort(at + h[:, None] * axis), self.distort(at - h[:, None] * axis)
                columns.append((ahead - behind) / (2 * h[:, None]))
            (a, c), (b, d) = columns[0].T, columns[1].T
            det = a * d - b * c
            det = np.where(np.abs(det) < 1e-9, 1.0, det)
            m = miss[todo]
            step = np.stack([d * m[:, 0] - b * m[:, 1], a * m[:, 1] - c * m[:, 0]], -1) / det[:, None]
            longest = 0.5 * (1 + np.hypot(at[:, 0], at[:, 1]))  # a step across the fold would not come back
            step *= np.minimum(1.0, longest / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-12))[:, None]
            found[todo] = at - step
        return found.reshape(shape)


def lens_of(model: str, coefficients: Any) -> Lens | None:
    """A lens, or None where it changes nothing: a pinhole without coefficients is a pinhole. Raises InputError."""
    lens = Lens(model, tuple(coefficients))  # type: ignore[arg-type]
    return None if lens.model == "opencv-pinhole" and not any(lens.coefficients) else lens


@lru_cache(maxsize=4)
def pixel_rays(
    lens: Lens, focal: tuple[float, float], centre: tuple[float, float], size: tuple[int, int]
) -> Float64[np.ndarray, "H W 2"]:
    """Normalised coordinates (H, W, 2) without the lens of every pixel's centre: the ray (x, y, 1) it sees. Read only."""
    u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    seen = np.stack([(u - centre[0]) / focal[0], (v - centre[1]) / focal[1]], -1)
    rays = lens.undistort(seen)
    rays.setflags(write=False)
    return rays


def straight_maps(
    lens: Lens, K: Float64[np.ndarray, "3 3"], size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    """Where each pixel of the undistorted picture (same K and size) lies in the distorted one: maps for cv2.remap."""
    return _straight_maps(lens, tuple(map(tuple, np.asarray(K, np.float64).tolist())), size)


@lru_cache(maxsize=4)
def _straight_maps(
    lens: Lens, K: tuple[tuple[float, ...], ...], size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    at = (lens.bend(np.array(K), np.stack([u, v], -1)) - 0.5).astype(np.float32)
    maps = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    for one in maps:
        one.setflags(write=False)  # shared: a recording asks for them at every frame
    return maps


def _ratio(radius: Float64[np.ndarray, "*n"], over: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """radius / over, 1 on the axis."""
    return np.where(over > 1e-12, radius / np.maximum(over, 1e-12), 1.0)
