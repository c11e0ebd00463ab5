# SPDX-License-Identifier: Apache-2.0
"""Video to video on tiny models of the real classes: what each control shows, that frame 0 is the variant's, that the
control decides the picture, and what is refused."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from first_frame_support import PIXELS, SIZE, Guardrail, model, scratch, world
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.errors import Cancelled, InputError, MissingDependencyError, TakeError
from retake.core.skeleton import make_skeleton
from retake.core.takes import make_take
from retake.core.takes.base import TakeRequest
from retake.core.takes.fan_out import video_backend_class
from retake.core.variants import SourceFrame, image_backend, make_variant, source_frame
from retake.worker.backends.control_clip import CONTROLS, control_clip
from retake.worker.backends.cosmos_sim import CosmosSimBackend
from retake.worker.memory import GIB
from retake.worker.settings import load_settings

FRAMES = range(5)


def backend(control: str = "edge", **options: Any) -> CosmosSimBackend:
    given = {"safety_checker": Guardrail(), "steps": 1, "pixels": PIXELS // 4, "device": "cpu", **options}
    return CosmosSimBackend(**model("cosmos-transfer"), controls={control: 1.0}, **given)


@cache
def episode() -> Episode:
    return make_scene_episode(scratch() / "film", frames=12, size=SIZE, only=range(9))


@cache
def sources() -> list[SourceFrame]:
    return [source_frame(episode(), "front", index) for index in FRAMES]


@cache
def request_() -> TakeRequest:
    root = scratch() / "run"
    if not root.exists():
        make_skeleton(episode(), "front", root / "skeleton" / "front")
        found = source_frame(episode(), "front", 0)
        make_variant(found, world(), image_backend("procedural"), root / "variants" / "one", 1)
    return TakeRequest(
        episode=episode().path, camera="front", skeleton=root / "skeleton" / "front", variant=root / "variants" / "one",
        prompt="a tidy kitchen", seed=1, frames=len(FRAMES),
    )  # fmt: skip


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_show_what_was_simulated(control):
    clip = control_clip(episode(), "front", FRAMES, control)
    width, height = episode().header.camera("front").size
    assert clip.shape == (5, height, width, 3)
    assert clip.dtype == np.uint8
    ids = np.stack([frame.instance_ids for frame in sources()])
    depth = np.stack([frame.depth_m for frame in sources()])
    if control == "edge":
        assert set(np.unique(clip)) == {0, 255}
        assert 0.001 < (clip > 0).mean() < 0.3
    elif control == "seg":
        assert bool((clip[ids == 0] == 0).all())
        for one in np.unique(ids)[1:]:  # one colour per object, the same in every frame
            assert len(np.unique(clip[ids == one], axis=0)) == 1
    elif control == "depth":
        assert bool((clip[depth <= 0] == 0).all())
        near, far = (depth == depth[depth > 0].min()), (depth == depth.max())
        assert clip[near].min() == 255
        assert clip[far].max() < 32
    else:
        rgb = np.stack([frame.rgb for frame in sources()])
        assert np.abs(clip.mean((1, 2)) - rgb.mean((1, 2))).max() < 4  # colours stay
        detail = lambda frames: np.mean([cv2.Laplacian(f, cv2.CV_32F).var() for f in frames])  # noqa: E731
        assert detail(clip) < 0.05 * detail(rgb)


def test_depth_is_scaled_once_over_the_clip():
    """The same distance has the same grey in every frame, whatever else comes into view."""
    clip = control_clip(episode(), "front", FRAMES, "depth")[..., 0].astype(int)
    depth = np.stack([frame.depth_m for frame in sources()])
    still = (np.abs(depth - depth[0]).max(0) < 1e-4) & (depth[0] > 0)
    assert still.mean() > 0.2
    assert np.ptp(clip[:, still], axis=0).max() <= 1


@pytest.mark.parametrize("control", CONTROLS)
def test_a_take_begins_with_the_variant_and_follows_its_control(control, tmp_path):
    made = backend(control)
    request = request_()
    take = make_take(request, made, tmp_path / "take")
    assert (take.backend, take.domain, take.frames) == ("cosmos-sim", "generated", 5)
    assert (
        take.licence == made.licence == "Apache-2.0"
    )  # what the card of these files states; the published ones are under
    assert {part.licence for part in (made.part, made.control_part)} == {"NVIDIA Open Model License"}
    assert take.size == tuple(episode().header.camera("front").size)
    frames = list(made.generate(request))
    first = cv2.cvtColor(cv2.imread(str(request.variant / "frame.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(frames[0], first)
    assert made.report["cosmos_sim"]["control"] == control
    pipe, seen = made.ready_pipeline(), []
    forward = pipe.controlnet.forward
    pipe.controlnet.forward = lambda *a, **k: seen.append(k) or forward(*a, **k)
    again = list(made.generate(request))
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))  # the seed decides
    condition = seen[0]["condition_mask"]
    assert bool((condition[:, :, 0] == 1).all())
    assert not bool(condition[:, :, 1:].any())
    pipe.controlnet.forward = lambda *a, **k: forward(*a, **{**k, "controls_latents": 0 * k["controls_latents"]})
    without = list(made.generate(request))
    assert not np.array_equal(without[2], frames[2])


def test_a_long_take_goes_on_from_its_last_frame():
    made = backend()
    request = TakeRequest(**{**request_().__dict__, "frames": 9, "settings": {"chunk": 5}})
    notes: list[tuple[int, int]] = []
    assert len(list(made.generate(request, lambda done, total, note="": notes.append((done, total))))) == 9
    assert made.report["cosmos_sim"]["chunks"] == 2
    assert notes[-1] == (2, 2)


def test_what_is_refused():
    made = backend()
    base = request_().__dict__
    for changes, words in (
        ({"settings": {"control": "depth"}}, "trained for 'edge'"),
        ({"settings": {"chunk": 6}}, "1 \\+ 4k"),
        ({"settings": {"steps": 0}}, "give 1 to 1000"),
        ({"settings": {"strength": float("nan")}}, "finite number"),
        ({"settings": {"speed": 1}}, "setting of the cosmos-sim backend"),
        ({"prompt": " "}, "needs a prompt"),
    ):
        with pytest.raises(InputError, match=words):
            list(made.generate(TakeRequest(**{**base, **changes})))
    with pytest.raises(InputError, match="valid: blur, depth, edge, seg"):
        control_clip(episode(), "front", FRAMES, "normals")
    with pytest.raises(TakeError, match="at least one frame"):
        control_clip(episode(), "front", (), "edge")
    with pytest.raises(InputError, match="control of backend 'cosmos-sim'"):
        backend("canny")
    with pytest.raises(MissingDependencyError, match="guardrail"):
        CosmosSimBackend(**model("cosmos-transfer"))
    for refused in ("text", "video"):
        with pytest.raises(TakeError, match=r"unsafe|black"):
            list(backend(safety_checker=Guardrail(refused)).generate(request_()))

    def stop() -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        list(made.generate(request_(), check_cancel=stop))


def test_memory_is_planned_for_the_clip_that_is_made(monkeypatch):
    """Not for one picture: the decoder of a clip and the clips beside it count 10 GiB at the default size, a picture 3."""
    made = backend(pixels=1280 * 704)
    clip = made.plan()
    monkeypatch.setattr(CosmosSimBackend, "frames_at_once", 1)
    assert all(7 * GIB < clip[tier] - size < 8 * GIB for tier, size in made.plan().items())


def test_the_worker_and_the_command_line_know_it():
    assert video_backend_class("cosmos-sim") is CosmosSimBackend
    spec = load_settings().backend_specs()["cosmos-sim"]
    assert (spec.kind, spec.target.rpartition(":")[2]) == ("take", "CosmosSimBackend")
    assert "guardrail" in CosmosSimBackend.obstacle()
