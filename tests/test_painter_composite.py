# SPDX-License-Identifier: Apache-2.0
"""Composite and reprojected takes without a world: what they depend on, in which order frames are read and made, and which
takes they refuse to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overhead import overhead

from retake.core.episode import Episode
from retake.core.errors import Cancelled, TakeError
from retake.core.painter import composite, procedural, reproject
from retake.core.painter.composite import CompositeBackend, psnr
from retake.core.painter.dresser import Dresser
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.reproject import ReprojectBackend
from retake.core.takes import TakeRequest
from retake.core.variants import load_catalogue
from retake.core.variants.base import SourceFrame

SIZE = (64, 48)
SOURCE = overhead(SIZE)


@given(st.integers(1, 255), st.integers(1, 12))
def test_a_signal_to_noise_ratio_is_told_in_decibels_of_full_scale(off: int, every: int) -> None:
    """All pixels off by `off`, or one of `every`."""
    a = np.zeros((12, 10, 3), np.uint8)
    b = a.copy()
    b.reshape(-1)[::every] = off
    share = len(range(0, 360, every)) / 360
    assert psnr(a, b) == pytest.approx(20 * np.log10(255 / off) - 10 * np.log10(share), abs=1e-4)
    assert psnr(b, a) == psnr(a, b)
    assert psnr(b, b) == float("inf")


def test_what_backends_say_of_themselves() -> None:
    """Takes of one seed are enough, each may have a process of its own; and a world in words means nothing to the painter."""
    for backend in (CompositeBackend, ReprojectBackend):
        assert (backend.parallel, backend.reads_seed) == (True, False)
    assert (ProceduralBackend.parallel, ProceduralBackend.reads_prompts) == (True, False)


def asked(tmp_path: Path, **settings: Any) -> TakeRequest:
    return TakeRequest(tmp_path, "front", tmp_path, tmp_path, "p", frames=0, settings=settings)


def test_a_take_over_a_painted_frame_depends_on_the_frames_of_all_its_world_s_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(backend: str, *frames: str) -> dict[str, str]:
        monkeypatch.setattr(composite, "open_variant", lambda folder: SimpleNamespace(backend=backend))
        monkeypatch.setattr(
            composite, "beside", lambda folder: [(SimpleNamespace(frame_sha256=f), folder) for f in frames]
        )
        return CompositeBackend().further_inputs(asked(tmp_path))

    assert found(ProceduralBackend.name, "a") == {}
    told = [found("model", *frames)["matte"] for frames in ((), ("a",), ("b",), ("a", "b"))]
    assert len(set(told)) == 4
    assert found("model", "a") == {"matte": told[1]}


# -- reading ahead ------------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What was asked of the reading thread (which is always done at once), and what of it was taken back."""
    reader = SimpleNamespace(begun=[], cancelled=[])

    class Executor:
        def __init__(self, threads: int, **named: Any) -> None:
            assert threads == 1

        def __enter__(self) -> Executor:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def submit(self, function: Any, *given: Any) -> Any:
            reader.begun.append(given[-1])
            return SimpleNamespace(result=lambda: function(*given), cancel=lambda: reader.cancelled.append(given[-1]))

    monkeypatch.setattr(composite, "ThreadPoolExecutor", Executor)
    monkeypatch.setattr(composite, "source_frame", lambda episode, camera, index: numbered(index))
    return reader


def numbered(index: int) -> SourceFrame:
    return replace(SOURCE, index=index)


def test_frames_come_in_order_and_two_are_under_way_at_most(reader: SimpleNamespace) -> None:
    frames = composite._ahead(Episode.__new__(Episode), "front", range(3, 9), numbered(3))
    assert next(frames).index == 3
    assert reader.begun == [], "the first frame is known"
    for k in range(4, 9):
        assert next(frames).index == k
        assert reader.begun == [*range(4, min(k + 2, 9))]
    assert list(frames) == []
    assert reader.cancelled == []


def test_a_take_that_is_given_up_takes_back_what_it_asked_for(reader: SimpleNamespace) -> None:
    frames: Any = composite._ahead(Episode.__new__(Episode), "front", range(9), numbered(0))
    assert [next(frames).index, next(frames).index] == [0, 1]
    frames.close()
    assert (reader.begun, reader.cancelled) == ([1, 2], [2])


# -- frames of a take ---------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A take of frames 2 to 4 of an episode, without anything on disk; what draws is asked for its own colour."""
    sources = {k: numbered(k) for k in range(6)}
    header = SimpleNamespace(camera=lambda name: SimpleNamespace(size=SIZE))
    episode = SimpleNamespace(content_sha256="ab", header=header)
    variant = SimpleNamespace(
        backend="procedural", backend_version="4", world="world", seed=7,
        source={"episode_sha256": "ab", "camera": "front", "frame": 2},
    )  # fmt: skip
    first = np.full((48, 64, 3), 200, np.uint8)
    told = SimpleNamespace(variant=variant, first=first, drawn=200, made=[])

    class Painter:
        name, version = "procedural", "4"

        def dresser(self, *given: Any) -> Any:
            told.made.append(("painted", *given[1:]))
            return SimpleNamespace(
                render=lambda s: np.full((48, 64, 3), told.drawn if s.index == 2 else s.index, np.uint8)
            )

    def matte(reference: Any, first: Any, others: Any) -> Any:
        told.made.append(("matted", reference.index, others))
        return SimpleNamespace(render=lambda s: np.full((48, 64, 3), 100 + s.index, np.uint8))

    for name, value in {
        "open_episode": lambda path: episode, "window": lambda episode, request: range(2, 5),
        "open_variant": lambda path: variant, "read_frame": lambda path: told.first, "ProceduralBackend": Painter,
        "source_frame": lambda episode, camera, index: sources[index], "read_json": lambda path: {"recipe": "stored"},
        "stills_beside": lambda folder, episode, own: "others", "Matte": matte,
        "_ahead": lambda episode, camera, indices, first: (sources[k] for k in indices),
    }.items():  # fmt: skip
        monkeypatch.setattr(composite, name, value)
    return told


def frames_of(tmp_path: Path, **more: Any) -> list[np.ndarray]:
    return [frame[0, 0, 0] for frame in CompositeBackend().generate(asked(tmp_path), **more)]


def test_a_painted_first_frame_is_drawn_on_by_its_stored_recipe(told: SimpleNamespace, tmp_path: Path) -> None:
    steps: list[Any] = []
    assert frames_of(tmp_path, progress=lambda *step: steps.append(step)) == [200, 3, 4]
    assert told.made == [("painted", "world", 7, "stored")]
    assert steps == [(0, 3, ""), (1, 3, ""), (2, 3, ""), (3, 3, "")]
    told.drawn = 202  # 42 dB
    assert frames_of(tmp_path) == [200, 3, 4]
    told.drawn = 197  # 38.6 dB
    with pytest.raises(TakeError, match="drawn by another version"):
        frames_of(tmp_path)


@pytest.mark.parametrize(
    "foreign",
    [{"backend": "model"}, {"source": {"episode_sha256": "cd", "camera": "front", "frame": 2}},
     {"source": {"episode_sha256": "ab", "camera": "wrist", "frame": 2}},
     {"source": {"episode_sha256": "ab", "camera": "front", "frame": 0}}, {"source": {}}],
)  # fmt: skip
def test_over_a_frame_of_another_origin_everything_is_matted(
    told: SimpleNamespace, tmp_path: Path, foreign: dict[str, Any]
) -> None:
    vars(told.variant).update(foreign)
    assert frames_of(tmp_path) == [200, 103, 104]
    assert told.made == [("matted", 2, "others")]


def test_a_take_can_be_cancelled_before_every_frame(told: SimpleNamespace, tmp_path: Path) -> None:
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("stop")

    made = CompositeBackend().generate(asked(tmp_path), check_cancel=check)
    assert [next(made)[0, 0, 0], next(made)[0, 0, 0]] == [200, 3]
    with pytest.raises(Cancelled):
        next(made)


@pytest.mark.parametrize("shape", [(48, 63, 3), (47, 64, 3), (64, 48, 3)])
def test_a_first_frame_of_another_size_is_refused(
    told: SimpleNamespace, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    told.first = np.zeros(shape, np.uint8)
    with pytest.raises(TakeError, match="a composite needs the same size"):
        frames_of(tmp_path)


# -- another camera's take ----------------------------------------------------------------------------------------------


@pytest.fixture
def anchor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[SimpleNamespace, Callable[..., list[Any]]]:
    """The anchor's take and a call for three frames beside it: colours of the anchor in the left half, else the composite's."""
    take = SimpleNamespace(
        inputs={"episode": "ab"}, start=0, frames=3, size=(8, 6), camera="side", folder="takes/a", video="v",
        video_sha256="cd",
    )  # fmt: skip
    spec = SimpleNamespace(size=(8, 6))
    episode = SimpleNamespace(content_sha256="ab", header=SimpleNamespace(camera=lambda name: {"side": spec}[name]))
    known = np.zeros((6, 8), bool)
    known[:, :4] = True

    def carried(filmed_at: Any, picture: np.ndarray, own: Any) -> Any:
        assert (filmed_at, own) == (("side", picture[0, 0, 0] - 50), ("front", picture[0, 0, 0] - 50))
        return SimpleNamespace(known=known, frame=picture)

    class Behind:
        def further_inputs(self, request: Any) -> dict[str, str]:
            return {"matte": "ef"}

        def generate(self, request: Any, progress: Any, check_cancel: Any) -> Any:
            for k in range(3):
                progress(k + 1, 3, "")
                yield np.full((6, 8, 3), k, np.uint8)

    for name, value in {
        "open_take": lambda folder: take, "open_episode": lambda path: episode, "CompositeBackend": Behind, "carry": carried,
        "window": lambda episode, request: range(3), "source_frame": lambda episode, camera, index: (camera, index),
        "read_video": lambda path: (np.full((6, 8, 3), 50 + k, np.uint8) for k in range(5)),
    }.items():  # fmt: skip
        monkeypatch.setattr(reproject, name, value)
    return take, lambda **more: list(ReprojectBackend().generate(asked(tmp_path, take="takes/a"), **more))


def test_what_the_anchor_s_take_shows_is_taken_from_it_frame_by_frame(anchor: Any, tmp_path: Path) -> None:
    _, made = anchor
    steps: list[Any] = []
    for k, frame in enumerate(made(progress=lambda *step: steps.append(step))):
        assert (frame[:, :4] == 50 + k).all()
        assert (frame[:, 4:] == k).all()
    assert steps == [(1, 3, ""), (2, 3, ""), (3, 3, "")]
    found = ReprojectBackend().further_inputs(asked(tmp_path, take="takes/a"))
    assert found == {"anchor": "cd", "matte": "ef"}

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        made(check_cancel=stop)
    with pytest.raises(TakeError, match="needs the setting `take`"):
        list(ReprojectBackend().generate(asked(tmp_path)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"inputs": {"episode": "cd"}}, "another episode or window"), ({"inputs": {}}, "another episode or window"),
     ({"start": 1}, "another episode or window"), ({"frames": 2}, "has 2 frames; 3 are asked for"),
     ({"size": (8, 4)}, "its camera 8x6: it cannot be laid over")],
)  # fmt: skip
def test_an_anchor_s_take_of_something_else_is_refused(anchor: Any, changed: dict[str, Any], words: str) -> None:
    take, made = anchor
    vars(take).update(changed)
    with pytest.raises(TakeError, match=words):
        made()


def test_a_longer_take_of_the_anchor_is_looked_at_as_far_as_it_is_asked_for(anchor: Any) -> None:
    take, made = anchor
    take.frames = 5
    assert len(made()) == 3


# -- the painter --------------------------------------------------------------------------------------------------------


def test_a_stored_recipe_is_painted_as_it_was_stored_and_worlds_share_no_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the catalogue says by now; seed and name of a world both tell its grain."""
    seen: list[tuple[Any, int]] = []

    class Noted(Dresser):
        def __init__(self, reference: SourceFrame, recipe: Any, seed: int) -> None:
            seen.append((recipe, seed))

    monkeypatch.setattr(procedural, "Dresser", Noted)
    world = load_catalogue().preset("kitchen")
    for seed, recipe in ((0, {"own": 1}), (0, None), (1, None), (2**31, None)):
        ProceduralBackend().dresser(SOURCE, world, seed, recipe)
    ProceduralBackend().dresser(SOURCE, replace(world, name="other"), 0)
    assert seen[0][0] == {"own": 1}
    assert "surface" in seen[1][0]
    assert len({seed for _, seed in seen}) == 4
    assert [seed >> 32 for _, seed in seen[:4]] == [0, 0, 1, 2**31]
    assert {seed % 2**32 for _, seed in seen[:4]} == {seen[0][1]}, "the lower half is the name's"


def test_a_world_that_is_cancelled_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedural, "Dresser", lambda *given: pytest.fail("begun"))

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        ProceduralBackend().render(SOURCE, load_catalogue().preset("kitchen"), 0, stop)
