# SPDX-License-Identifier: Apache-2.0
"""Any moving picture as the frames that an episode's clock asks for: presentation time stamps decide, not frame numbers.

Read are video files (their rotation is applied), folders of numbered PNG or JPEG pictures (one per episode frame),
GIF, animated WebP, APNG and AVIF. Time counts from the first frame that is presented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.errors import InputError
from retake.core.files import sha256_bytes, sha256_file
from retake.core.video import open_av, read_video, shown_picture, true_size, video_fps

Image = UInt8[np.ndarray, "H W 3"]

PICTURES = (".png", ".jpg", ".jpeg")
COARSEST = 0.6
"""Share of the episode's rate below which frames are too far apart to be compared by their times."""
_SAME_RATE = 0.01
_SIGNATURES = ((b"GIF8", 0), (b"WEBP", 8), (b"\x89PNG", 0), (b"ftypavi", 4))


@dataclass(frozen=True)
class Timed:
    """One presented picture."""

    time_s: float
    """Seconds after the first one."""
    image: Image


@dataclass(frozen=True)
class Clip:
    """A moving picture that can be read from its beginning any number of times."""

    path: Path
    fps: float
    """Mean presentation rate; 0 where none is stated (a folder of pictures)."""
    timed: bool
    """Whether pictures are compared by their presentation times; else one by one, in order."""
    sha256: str
    times_s: tuple[float, ...] = ()
    """Presentation times of all pictures; empty where they are compared one by one."""

    def pictures(self) -> Iterator[Image]:
        """Every presented picture, in order."""
        return (timed.image for timed in _timed_pictures(self.path))

    def shown(self, fps: float) -> list[int]:
        """For every episode frame that the clip plays through, the picture whose time is nearest."""
        return shown_at(np.array(self.times_s), fps)

    def frames(self, fps: float) -> Iterator[Image]:
        """One picture per episode frame at `fps` frames per second."""
        if not self.timed:
            yield from self.pictures()
            return
        wanted, place = self.shown(fps), 0
        for index, image in enumerate(self.pictures()):
            while place < len(wanted) and wanted[place] == index:
                yield image
                place += 1
            if place == len(wanted):
                return


def shown_at(times_s: Float64[np.ndarray, "N"], fps: float) -> list[int]:
    """For every frame at `fps` per second that pictures at these times (s, rising) play through, the nearest picture's number."""
    last = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / fps
    count = int(np.floor((times_s[-1] + last) * fps + 0.25))
    wanted = np.arange(max(count, 1)) / fps
    after = np.clip(np.searchsorted(times_s, wanted), 0, len(times_s) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(times_s[before] - wanted) <= np.abs(times_s[after] - wanted)
    return np.where(nearer, before, after).tolist()


def open_clip(path: Path, fps: float) -> Clip:
    """A clip for an episode of `fps` frames per second. Raises InputError for what holds no pictures."""
    path = Path(path)
    if path.is_dir():
        files = numbered(path)
        return Clip(path, 0.0, False, sha256_bytes(*(sha256_file(file).encode() for file in files)))
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a video file or a folder of numbered pictures")
    stated = 0.0 if _is_animation(path) else video_fps(path)
    times = _times(path)
    if len(times) < 2:
        return Clip(path, stated, False, sha256_file(path))
    step = np.diff(times)
    rate = 1 / float(step.mean()) if step.mean() > 0 else 0.0
    # Frames of the episode's own rate need no clock, and one slipped stamp does not move all that follow.
    steady = bool(abs(rate * float(np.median(step)) - 1) < 0.02 and step.max() < 1.5 * float(np.median(step)))
    timed = rate > 0 and not (steady and abs(rate / fps - 1) <= _SAME_RATE)
    return Clip(path, rate if timed or not stated else stated, timed, sha256_file(path), tuple(times) if timed else ())


def numbered(folder: Path) -> list[Path]:
    """The pictures of a folder by the last number in their names. Raises InputError where there are none or two alike."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES and re.search(r"\d", file.stem)]
    if not files:
        raise InputError(
            f"{folder} holds no numbered .png or .jpg pictures (frame_0000.png, …); expected one per frame"
        )
    order = sorted(files, key=lambda file: (int(re.findall(r"\d+", file.stem)[-1]), file.name))
    numbers = [int(re.findall(r"\d+", file.stem)[-1]) for file in order]
    for a, b, file in zip(numbers, numbers[1:], order[1:], strict=False):
        if a == b:
            raise InputError(f"{folder} holds two pictures numbered {a} (the second is {file.name}); expected one")
        if b - a != 1:
            raise InputError(f"{folder} lacks picture {a + 1}: {file.name} comes next; expected every frame's picture")
    return order


def is_pictures(folder: Path) -> bool:
    """Whether a folder holds pictures of its own (a run folder does not)."""
    return any(file.suffix.lower() in PICTURES and re.search(r"\d", file.stem) for file in folder.iterdir())


def _is_animation(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(16)
    return any(head[at : at + len(mark)] == mark for mark, at in _SIGNATURES)


def _timed_pictures(path: Path) -> Iterator[Timed]:
    if path.is_dir():
        for number, file in enumerate(numbered(path)):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise InputError(f"{file} is not a readable picture")
            yield Timed(float(number), np.ascontiguousarray(image[..., ::-1]))
        return
    if _is_animation(path):
        yield from _animation(path)
        return
    av = open_av()
    if av is None:
        yield from (Timed(float(number), image) for number, image in enumerate(read_video(path)))
        return
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} holds no video stream")
            width, height = true_size(container)
            first = None
            for picture in container.decode(video=0):
                time = picture.time
                first = time if first is None else first
                image = shown_picture(av, picture)[:height, :width]
                yield Timed(0.0 if time is None else float(time - first), _turn_to_display(image, picture.rotation))
    except av.FFmpegError as error:
        raise InputError(f"{path} is not a readable video: {error}") from error


def _turn_to_display(image: Image, degrees: float) -> Image:
    """As a player shows it: turned by the display matrix's angle (counter-clockwise), in quarter turns."""
    quarters = round((degrees or 0.0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _animation(path: Path) -> Iterator[Timed]:
    read: Any = getattr(cv2, "imreadanimation", None)
    if read is None:
        raise InputError(
            f"{path} is an animated picture, which OpenCV {cv2.__version__} does not read (4.11 or newer does); "
            "expected a video file"
        )
    ok, animation = read(str(path))
    if not ok or not len(animation.frames):
        raise InputError(f"{path} is not a readable animated picture")
    time = 0.0
    for image, duration_ms in zip(animation.frames, np.asarray(animation.durations).ravel(), strict=True):
        yield Timed(time, np.ascontiguousarray(image[..., 2::-1]))
        time += max(float(duration_ms), 1.0) / 1000


def _times(path: Path) -> list[float]:
    """Presentation times of all frames, s; empty where the file states none."""
    if _is_animation(path):
        return [timed.time_s for timed in _animation(path)]
    av = open_av()
    if av is None:
        return []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} holds no video stream")
            stream = container.streams.video[0]
            stamps = [p.pts for p in container.demux(stream) if p.pts is not None and p.size]
            base = float(stream.time_base)
    except av.FFmpegError as error:
        raise InputError(f"{path} is not a readable video: {error}") from error
    stamps.sort()
    return [(stamp - stamps[0]) * base for stamp in stamps]
