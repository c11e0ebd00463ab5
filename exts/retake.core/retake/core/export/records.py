# SPDX-License-Identifier: Apache-2.0
"""The export's records: what a dataset looks like (`Schema`), one episode of it (`DatasetEpisode`), and what was asked.

Every source (a run's take, the simulator's own render, an episode of another dataset) becomes a `DatasetEpisode`, and
every format's writer takes those, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from retake.core.array_types import UInt8
from retake.core.codec import OMITTED, decode, encode
from retake.core.errors import ExportError, InputError, unknown_name

FORMATS = ("lerobot-v3", "lerobot-v2.1", "oscar", "oscar-canvas", "hdf5-isaaclab")
STATE, ACTION = "observation.state", "action"
IMAGE = "observation.images."
SOURCE_TIME, SOURCE_FRAME = "source.time_s", "source.frame_index"
SUBTASK = "annotation.retake.subtask"
"""int64 per frame, v2.1: what is being done, an index into tasks.jsonl; the place GR00T has for language."""
SOURCE_UID = "source.uid"
"""int64 per frame: which provenance record the episode has (provenance.uid_number). Tools that drop columns of
meta/episodes keep the features of frames, so this is what `retake provenance` finds records by."""
Columns = dict[str, np.ndarray]
"""Feature name → (T, n) or (T,) array, one row per frame."""


@dataclass(frozen=True)
class VideoOptions:
    """How videos are encoded. The defaults are LeRobot's: AV1, a key frame every second frame for random access."""

    codec: str = "libsvtav1"
    crf: int = 30
    gop: int = 2
    preset: str = "12"
    """SVT-AV1: 0 to 13; x264/x265: `medium` … ; empty = the encoder's own default."""
    pix_fmt: str = "yuv420p"

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise InputError(unknown_name("video codec", self.codec, CODECS))
        if not 0 <= self.crf <= 63 or self.gop < 1:
            raise InputError(f"crf {self.crf} must be within 0..63 and gop {self.gop} at least 1")
        if (self.codec == "libx264rgb") != (self.pix_fmt == "rgb24"):
            raise InputError(f"codec {self.codec!r} and pixel format {self.pix_fmt!r} do not go together")

    @staticmethod
    def of(codec: str, crf: int | None = None, gop: int = 2) -> VideoOptions:
        """The options of a codec's short or full name. Raises InputError listing the valid names."""
        if codec not in CODEC_NAMES:
            raise InputError(unknown_name("video codec", codec, CODEC_NAMES))
        name = CODEC_NAMES[codec]
        preset, default_crf, pix_fmt = CODECS[name]
        return VideoOptions(name, default_crf if crf is None else crf, gop, preset, pix_fmt)


CODECS: dict[str, tuple[str, int, str]] = {
    "libsvtav1": ("12", 30, "yuv420p"),
    "libx264": ("veryfast", 23, "yuv420p"),
    "libx265": ("veryfast", 26, "yuv420p"),
    "libx264rgb": ("veryfast", 0, "rgb24"),
}
"""Encoder → (preset, crf, pixel format). libx264rgb at crf 0 keeps every pixel exactly."""
CODEC_NAMES = {
    "av1": "libsvtav1", "h264": "libx264", "hevc": "libx265", "lossless": "libx264rgb", **{name: name for name in CODECS},
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """A named, half-open range of a state or action vector: GR00T's modality, and what `Schema.names` is grouped by."""

    name: str
    start: int
    end: int
    kind: Literal["arm", "fingers", "gripper", "ee_position", "ee_rotation"]
    unit: str
    robot: str


@dataclass(frozen=True)
class Vector:
    """A numeric feature: dtype and names of its entries; () names for a scalar."""

    dtype: str
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Number of entries per frame."""
        return max(len(self.names), 1)


_IN_JSON: dict[str, str] = {"own_action_slices": "action_slices"}
"""Field of `Schema` → what meta/retake.json calls it."""


@dataclass(frozen=True)
class Schema:
    """What every episode of a dataset shares. Two datasets with equal schemas can be appended or mixed."""

    fps: int
    robot_type: str
    vectors: Mapping[str, Vector]
    cameras: Mapping[str, tuple[int, int]]
    """Feature key (`observation.images.<name>`) → (width, height), px."""
    slices: tuple[Slice, ...] = ()
    """Meaning of the entries of `observation.state`, and of `action` unless `own_action_slices` says otherwise."""
    units: Mapping[str, str] = field(default_factory=dict)
    own_action_slices: Annotated[tuple[Slice, ...], OMITTED] = ()
    """Meaning of the entries of `action` where it has fewer than the state: what nothing commands is no action."""
    language: Annotated[bool, OMITTED] = False
    """Whether frames carry LeRobot's language columns (language.py)."""

    @property
    def action_slices(self) -> tuple[Slice, ...]:
        """Meaning of the entries of `action`."""
        return self.own_action_slices or self.slices

    def to_json(self) -> dict[str, Any]:
        """JSON form (meta/retake.json)."""
        fields: dict[str, Any] = encode(self)
        return {_IN_JSON.get(name, name): value for name, value in fields.items()}

    @staticmethod
    def from_json(data: Any, where: str) -> Schema:
        """The inverse of `to_json`. Raises ExportError naming `where`, the field, what was found and what would be valid."""
        named = {json: name for name, json in _IN_JSON.items()}
        known = {named.get(name, name): value for name, value in data.items()} if isinstance(data, Mapping) else data
        return decode(Schema, known, where, error=ExportError, ignore_unknown=True)

    def differences(self, other: Schema, here: str = "this", there: str = "the other") -> list[str]:
        """Why episodes of two datasets cannot share one, in words; empty when they can."""
        out = []
        if self.fps != other.fps:
            out.append(f"fps: {here} has {self.fps}, {there} {other.fps} (resample states and video together)")
        for key in sorted({*self.cameras, *other.cameras}):
            a, b = self.cameras.get(key), other.cameras.get(key)
            if a is None or b is None:
                out.append(f"camera {key}: only in {here if b is None else there}")
            elif a != b:
                out.append(f"camera {key}: {here} has {a[0]}x{a[1]}, {there} {b[0]}x{b[1]}")
        for key in sorted({*self.vectors, *other.vectors}):
            x, y = self.vectors.get(key), other.vectors.get(key)
            if x is None or y is None:
                out.append(f"feature {key}: only in {here if y is None else there}")
            elif x.width != y.width:
                out.append(f"feature {key}: {here} has {x.width} entries, {there} {y.width}")
            elif x.names != y.names:
                pairs = [f"{p!r} / {q!r}" for p, q in zip(x.names, y.names, strict=False) if p != q]
                out.append(f"feature {key}: entries differ in name ({here} / {there}): {', '.join(pairs[:6])}")
            elif x.dtype != y.dtype:
                out.append(f"feature {key}: {here} has dtype {x.dtype}, {there} {y.dtype}")
        if self.language != other.language:
            out.append(f"language columns: only in {here if self.language else there} (--no-language leaves them out)")
        for key in sorted({*self.units} & {*other.units}):
            if self.units[key] != other.units[key]:
                out.append(f"unit of {key}: {here} {self.units[key]}, {there} {other.units[key]}")
        return out


@dataclass(frozen=True)
class Segment:
    """Frames [start, start + length) of an encoded video file, to be copied without decoding where they can be."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True)
class LanguageRows:
    """LeRobot's two language columns of one episode: rows as dictionaries of their columns' fields (language.py)."""

    persistent: tuple[Mapping[str, Any], ...] = ()
    """What holds from its `timestamp` on; the same list stands on every frame."""
    events: Mapping[int, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """Frame → what is said of that frame alone."""


@dataclass(frozen=True)
class DatasetEpisode:
    """One episode to be written. Everything heavy is a function, called while it is being written."""

    uid: str
    """Identity: what it was made from. An episode whose uid a dataset already has is not written again."""
    task: str
    length: int
    columns: Callable[[], Columns]
    frames: Callable[[str], Iterator[UInt8[np.ndarray, "H W 3"]]]
    """RGB frames of a camera key, exactly `length` of them."""
    segment: Callable[[str], Segment | None]
    """The encoded source of a camera key, or None when there is none worth copying."""
    provenance: Mapping[str, Any]
    """Flat, JSON; keys without the `retake/` prefix (provenance.py)."""
    language: Callable[[], LanguageRows] | None = None
    """What is said of it, for formats with a place for that; None where nothing is."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What a single format needs: the source Episode's path, its window, cameras."""


@dataclass(frozen=True)
class Rejected:
    """A take that was not exported, and why."""

    run: str
    take: str
    reason: str


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    out: Path
    format: str
    episodes: int
    """In the dataset now."""
    frames: int
    added: int
    already_there: int
    rejected: tuple[Rejected, ...]
    domains: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
