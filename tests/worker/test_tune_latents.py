# SPDX-License-Identifier: Apache-2.0
"""Windows and their latents on disk: what is encoded, once, under which name, and what a clip must hold. The VAE is a stand-in
that keeps what it is shown. Of retake.worker.tune.latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retake.core.errors import Cancelled, InputError
from retake.worker.tune import latents
from retake.worker.tune.clips import Clip
from retake.worker.tune.config import ObjectSupervision
from retake.worker.tune.latents import Encoded, LatentCache, collate, valid_frames

SIZE = (8, 6)
torch.set_num_threads(1)


class Window(SimpleNamespace):
    """Frames `start` to `stop`, the last one repeated up to `length`."""

    def take(self, video: np.ndarray) -> np.ndarray:
        part = video[self.start : self.stop]
        return np.concatenate([part, np.repeat(part[-1:], self.length - len(part), 0)])


def clip(uid: str, frames: int = 9, **more: Any) -> Clip:
    """The video shows ten times its number, the skeleton one more; each starts at every call."""
    shade = 10 * int(uid[-1])
    starts: list[str] = []

    def film(name: str, value: int, length: int) -> Any:
        starts.append(name)
        for index in range(length):
            starts.append("frame")
            yield np.full((6, 8, 3), value + index, np.uint8)

    known: dict[str, Any] = {
        "uid": uid, "episode": uid, "domain": "sim", "camera": "front", "caption": f"clip {uid}", "frames": frames, "fps": 10.0,
        "events": (), "rgb": lambda: film("rgb", shade, frames + 3), "skeleton": lambda: film("skeleton", shade + 1, frames),
        "physics": lambda: None, "terms": "", **more,
    }  # fmt: skip
    made = Clip(**known)
    object.__setattr__(made, "starts", starts)
    return made


def choice(of: Clip, start: int = 0, stop: int = 5, length: int = 5) -> Any:
    return SimpleNamespace(clip=of, window=Window(start=start, stop=stop, length=length))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the VAE was shown; its latents are the first value of each latent frame's first frame."""
    shown: list[np.ndarray] = []

    def encode(vae: Any, frames: np.ndarray) -> torch.Tensor:
        shown.append(frames)
        values = torch.from_numpy(frames[::4, 0, 0, 0].astype(np.float32))
        return values[None, None, :, None, None].expand(1, 2, -1, 1, 1)

    monkeypatch.setattr(latents.vae_stage, "encode", encode)
    monkeypatch.setattr(latents, "read_truth", lambda arrays, frames, size: SimpleNamespace(
        masks=np.zeros((frames, 1, 6, 8)), arrays=arrays, size=size, frames=frames
    ))  # fmt: skip
    monkeypatch.setattr(latents, "object_cells", lambda truth, part, length, size, fit: (
        np.full((length // 4 + 1, 1, 1), part.start + 0.25, np.float32), np.full((length // 4 + 1, 1, 1), 0.5, np.float32)
    ))  # fmt: skip
    monkeypatch.setattr(
        latents, "object_video", lambda truth, skeleton: np.full((truth.frames, 6, 8, 3), 200, np.uint8)
    )
    monkeypatch.setattr(latents, "drawn_on", lambda skeleton, glyphs: (skeleton // 2 + glyphs // 2).astype(np.uint8))
    return shown


PHYSICS: dict[str, Any] = {
    "object_masks": np.zeros((9, 1, 6, 1)), "mask_width": np.array(8), "object_movable": np.array([False, True]),
}  # fmt: skip


def cache(folder: Path, **objects: Any) -> LatentCache:
    return LatentCache(None, "vae", folder, SIZE, objects=ObjectSupervision(**objects) if objects else None)


# -- what is encoded --------------------------------------------------------------------------------------------------------


def test_every_window_is_encoded_once_and_every_clip_decoded_once(seen, tmp_path):
    one, two, kept = clip("a1"), clip("b2"), cache(tmp_path)
    choices = [choice(one), choice(two, 4, 9), choice(one, 4, 9), choice(one), choice(two, 2, 5, 5)]
    said: list[tuple[int, int, str]] = []
    cancelled: list[int] = []
    assert kept.prepare(choices, lambda *words: said.append(words), lambda: cancelled.append(1)) == 4
    assert said == [(k, 4, "encode") for k in range(1, 5)]
    assert len(cancelled) == 4
    assert (one.starts.count("rgb"), one.starts.count("skeleton"), one.starts.count("frame")) == (1, 1, 18)
    assert [int(frames[0, 0, 0, 0]) for frames in seen] == [10, 11, 14, 15, 24, 25, 22, 23]
    assert [frames.shape for frames in seen] == [(5, 6, 8, 3)] * 8
    assert kept.prepare(choices) == 0
    assert kept.prepare([*choices, choice(one, 1, 6)]) == 1
    assert (one.starts.count("rgb"), two.starts.count("rgb")) == (2, 1)
    found = kept.read(choices[4])
    assert (found.x0[0, 0].flatten().tolist(), found.control[0, 1].flatten().tolist()) == ([22, 24], [23, 25])
    assert found.valid.tolist() == [[1, 1]]
    assert (found.cells, found.falling, found.objects) == (None, None, None)
    new = choice(two, 0, 1)
    assert kept.read(new).valid.tolist() == [[1, 0]], "read encodes what is missing"
    kept.path(new).write_bytes(b"broken")
    assert kept.read(new).x0.shape == (1, 2, 2, 1, 1)


def test_a_cancelled_preparation_keeps_what_is_done(seen, tmp_path):
    left, kept = [2], cache(tmp_path)

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Cancelled("stop")

    choices = [choice(clip("a1"), k, k + 5) for k in range(4)]
    with pytest.raises(Cancelled):
        kept.prepare(choices, cancel=check)
    assert kept.prepare(choices) == 2


def test_what_latents_depend_on_is_in_their_name(tmp_path):
    one = clip("a1")
    base = choice(one)
    names = [
        LatentCache(None, vae, tmp_path, size, fit, ObjectSupervision(control=control)).path(base)
        for vae in ("v", "w") for size in ((8, 6), (6, 8)) for fit in ("squeeze", "pad") for control in ("none", "drawn", "embed")
    ]  # fmt: skip
    same = LatentCache(None, "v", tmp_path, (8, 6), objects=ObjectSupervision(weight=3.0, control="none"))
    assert same.path(base) == names[0], "the weight of objects changes no latents"
    others = [choice(one, 1), choice(one, 0, 4), choice(one, 0, 5, 9), choice(clip("b1"))]
    assert len({*names, *map(same.path, others)}) == 24 + 4
    assert same.path(choice(replace(one, caption="another"))) == names[0]
    plain = LatentCache(None, "v", tmp_path)
    assert (plain.size, plain.fit, plain.supervision) == ((640, 480), "squeeze", ObjectSupervision())


def test_windows_kept_without_objects_do_not_stand_for_supervised_ones(seen, tmp_path):
    asked = choice(clip("a1"))
    plain = LatentCache(None, "v", tmp_path, SIZE)
    assert plain.prepare([asked]) == 1
    wanting = LatentCache(None, "v", tmp_path, SIZE, objects=ObjectSupervision(weight=2.0))
    for ask in (wanting.read, lambda one: wanting.prepare([one])):
        with pytest.raises(InputError, match=r"object supervision is on, but 'clip a1' .* has no physics"):
            ask(asked)
    assert plain.prepare([asked]) == 0


@pytest.mark.parametrize(("size", "written"), [(("rgb", 8), "the video"), (("skeleton", 8), "the skeleton")])
def test_a_clip_that_ends_early_is_named(seen, tmp_path, size, written):
    name, frames = size
    short = clip("a1", **{name: lambda: (np.zeros((6, 8, 3), np.uint8) for _ in range(frames))})
    with pytest.raises(InputError, match=rf"{written} of 'clip a1' \(front\) ends after 8 of 9 frames"):
        cache(tmp_path).prepare([choice(short)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("call", "bad"), [(0, np.nan), (1, np.inf), (1, np.nan)])
def test_latents_that_are_no_numbers_are_not_kept(monkeypatch, tmp_path, call, bad):
    calls: list[int] = []

    def encode(vae: Any, frames: np.ndarray) -> torch.Tensor:
        calls.append(1)
        out = torch.zeros(1, 1, 2, 1, 1)
        out[0, 0, 1] = bad if len(calls) == call + 1 else 1
        return out

    monkeypatch.setattr(latents.vae_stage, "encode", encode)
    with pytest.raises(InputError, match="NaN or infinite latents of 'clip a1', frames 3 on"):
        cache(tmp_path).prepare([choice(clip("a1"), 3, 8)])
    assert not list(tmp_path.iterdir())


# -- objects ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["none", "drawn", "embed"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize("drawn", [False, True])
def test_objects_are_drawn_embedded_or_weighed_as_asked(seen, tmp_path, control, weight, drawn):
    one = clip("a1", physics=lambda: PHYSICS, objects_drawn=drawn)
    found = cache(tmp_path, control=control, weight=weight).read(choice(one, 2, 7))
    draws = control != "none" and not drawn
    assert found.x0[0, 0, 0] == 12
    assert found.control[0, 0, 0] == (106 if control == "drawn" and draws else 13)  # 13 // 2 + 200 // 2
    assert (found.objects is not None) == (control == "embed" and draws)
    assert found.objects is None or found.objects[0, 0, 0] == 200
    assert found.cells.flatten().tolist() == [2.25, 2.25]
    assert (found.cells.shape, found.falling.flatten().tolist()) == ((1, 2, 1, 1), [0.5, 0.5])


@pytest.mark.parametrize("control", ["none", "drawn", "embed"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_clip_without_physics_is_refused_where_objects_are_asked_for(seen, tmp_path, control, weight, drawn):
    kept, one = cache(tmp_path, control=control, weight=weight), clip("a1", objects_drawn=drawn)
    if weight or (control != "none" and not drawn):
        with pytest.raises(InputError, match=r"'clip a1' \(sim\) has no physics"):
            kept.read(choice(one))
    else:
        assert kept.read(choice(one)).cells is None


@pytest.mark.parametrize(("weight", "masks", "movable", "size"), [
    (0.0, True, True, (8, 6)), (0.0, True, False, None), (0.0, False, True, None), (0.0, False, False, None),
    (1.0, True, True, (8, 6)), (1.0, True, False, (8, 6)), (1.0, False, True, (0, 0)), (1.0, False, False, (0, 0)),
])  # fmt: skip
def test_physics_is_read_where_it_is_wanted_or_shows_something(seen, tmp_path, weight, masks, movable, size):
    arrays = {**PHYSICS, "object_movable": np.array([False, movable])}
    if not masks:
        del arrays["object_masks"]
    truth = cache(tmp_path, weight=weight)._truth(clip("a1", physics=lambda: arrays))
    assert (truth and truth.size) == size
    assert truth is None or truth.frames == 9


# -- batches ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5, 9, 13])
def test_a_latent_frame_is_valid_while_it_holds_a_real_one(length):
    for real in range(1, length + 1):
        groups = [[0], *([4 * k + 1 + j for j in range(4)] for k in range(length // 4))]
        for start in (0, 7):
            valid = valid_frames(Window(start=start, stop=start + real, length=length))
            assert valid.tolist() == [[float(min(group) < real) for group in groups]]


def encoded(value: float, **more: Any) -> Encoded:
    full = torch.full((1, 2, 3, 1, 1), value)
    return replace(Encoded(full, full + 0.1, torch.ones(1, 3)), **more)


def test_a_batch_joins_every_part_in_order():
    cells = torch.ones(1, 3, 1, 1)
    batch = collate([
        encoded(1, cells=cells, falling=cells * 2, objects=torch.ones(1, 2, 3, 1, 1)),
        encoded(2, objects=torch.zeros(1, 2, 3, 1, 1)),
        encoded(3, cells=cells * 3, falling=cells * 4, objects=torch.ones(1, 2, 3, 1, 1)),
    ])  # fmt: skip
    assert batch.x0[:, 0, 0, 0, 0].tolist() == [1, 2, 3]
    assert batch.control[:, 0, 0, 0, 0].tolist() == pytest.approx([1.1, 2.1, 3.1])
    assert batch.valid.shape == (3, 3)
    assert batch.cells[:, 0, 0, 0].tolist() == [1, 0, 3]
    assert batch.falling[:, 0, 0, 0].tolist() == [2, 0, 4]
    assert batch.objects[:, 0, 0, 0, 0].tolist() == [1, 0, 1]
    plain = collate([encoded(1), encoded(2)])
    assert (plain.cells, plain.falling, plain.objects, len(plain.x0)) == (None, None, None, 2)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_windows_that_do_not_go_together_are_refused(order):
    parts = [encoded(1, objects=torch.ones(1, 2, 3, 1, 1)), encoded(2)]
    with pytest.raises(InputError, match="some windows of the batch have objects and some have not"):
        collate([parts[k] for k in order])
    wide = [encoded(1), replace(encoded(2), x0=torch.ones(1, 2, 3, 1, 2))]
    with pytest.raises(InputError, match="different sizes"):
        collate([wide[k] for k in order])
