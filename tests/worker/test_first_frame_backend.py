# SPDX-License-Identifier: Apache-2.0
"""What every first-frame model gets from its base: a size, a seed, a memory tier, and what becomes of its picture. The model
itself is a stand-in that a test writes. Of retake.worker.first_frame.backend, .canvas and .memory."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from first_frame_support import maps, source, world

from retake.core.errors import Cancelled, InputError, VariantError
from retake.core.variants.edges import structure_f1
from retake.core.variants.lock import lock_robot
from retake.worker import memory as device_memory
from retake.worker.first_frame import memory
from retake.worker.first_frame.backend import EDGES_KEPT, SHARES, DiffusionBackend, harmonise, quiet
from retake.worker.first_frame.canvas import ENLARGE, Canvas
from retake.worker.first_frame.conditioning import relit
from retake.worker.first_frame.memory import TIERS, needed
from retake.worker.first_frame.parts import ModelPart

GIB = 1 << 30


class Pipe:
    """A pipeline that paints what a test says."""

    def __init__(self, paint: Any = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.paint = paint or (lambda height, width: np.full((height, width, 3), 0.5))
        self.freed, self.num_timesteps = 0, 5

    def __call__(self, **call: Any) -> Any:
        self.calls.append(call)
        for step in range(call["num_inference_steps"]):
            assert call["callback_on_step_end"](self, step, 0, {}) == {}
        return SimpleNamespace(images=[self.paint(call["height"], call["width"])])

    def maybe_free_model_hooks(self) -> None:
        self.freed += 1

    def set_progress_bar_config(self, **_: Any) -> None:
        pass


class Own(DiffusionBackend):
    """A backend as another package would write it."""

    name = "own"
    part = ModelPart("org/own", "Apache-2.0")
    default_steps, default_guidance, default_pixels = 3, 1.5, 160 * 120
    known_controls, default_controls = ("depth", "edge"), {"depth": 0.5}
    made: list[Any] = []  # noqa: RUF012
    planned: dict[str, int] = {}  # noqa: RUF012

    def _find(self, *_: Any) -> dict[str, Any]:
        return {}

    def plan(self) -> dict[str, int]:
        return self.planned

    def load(self) -> Any:
        self.made.append(Pipe())
        return self.made[-1]

    def arguments(self, pipe: Any, inputs: Any, prompts: Any) -> dict[str, Any]:
        return {"image": inputs.picture}


def own(paint: Any = None, **options: Any) -> tuple[Own, Pipe]:
    pipe = Pipe(paint)
    return Own(pipeline=pipe, device="cpu", **options), pipe


def far_from_the_robot() -> np.ndarray:
    """Beside it the picture is mended, where a model that repaints it would leave a rim."""
    return cv2.dilate(maps().keep.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0


# -- a picture ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "drawn"), [(0, 0), (7, 7), (2**63 - 1, 2**63 - 1), (2**63 + 5, 5)])
def test_a_model_is_asked_for_its_own_size_by_the_frame_s_seed(seed, drawn):
    backend, pipe = own(steps=2)
    frame = backend.render(source(), world(), seed)
    (call,) = pipe.calls
    width, height = backend.canvas((160, 120)).size
    assert (call["height"], call["width"], call["num_inference_steps"], call["output_type"]) == (height, width, 2, "np")
    assert call["generator"].initial_seed() == drawn
    assert call["generator"].device.type == "cpu"
    assert frame.shape == source().rgb.shape
    assert backend.report["canvas"] == backend.canvas((160, 120)).to_json()
    assert 0 <= backend.report["seconds"] < 1000
    assert "peak_device_bytes" not in backend.report


def test_progress_is_told_of_as_many_steps_as_the_scheduler_takes():
    backend, pipe = own(steps=3)
    told: list[Any] = []
    backend.progress = lambda *at: told.append(at)
    pipe.num_timesteps = 2
    backend.render(source(), world(), 1)
    assert told == [(1, 2, "painting"), (2, 2, "painting"), (3, 3, "painting")]


@pytest.mark.parametrize(("value", "shown"), [(100.4, 100), (100.6, 101), (300, 255), (0.6, 1), (-9, None)])
def test_what_is_painted_is_rounded_and_a_black_picture_refused(value, shown):
    backend, _ = own(lambda height, width: np.full((height, width, 3), value / 255), relight=False)
    if shown is None:
        with pytest.raises(VariantError, match="black picture"):
            backend.render(source(), world(), 1)
        return
    frame = backend.render(source(), world(), 1)
    assert np.unique(frame[~maps().keep]).tolist() == [shown]
    assert np.array_equal(frame[maps().keep], source().rgb[maps().keep])


def test_what_a_pipeline_raises_is_told_and_its_hooks_are_freed():
    def odd(*_: Any) -> Any:
        raise ValueError("of the wrong shape")

    with pytest.raises(VariantError, match="own: of the wrong shape"):
        own(odd)[0].render(source(), world(), 1)

    def stopped(*_: Any) -> Any:
        raise Cancelled("enough")

    backend, pipe = own(stopped)
    with pytest.raises(Cancelled):
        backend.render(source(), world(), 1)
    assert pipe.freed == 1

    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        own(broken)[0].render(source(), world(), 1)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(VariantError, match="ran out of memory in its smallest tier"):
        own(full)[0].render(source(), world(), 1)  # a pipeline of one's own has no other tier

    def holes(height: int, width: int) -> Any:
        picture = np.full((height, width, 3), 0.5)
        picture[3, 4, 1] = np.inf
        return picture

    with pytest.raises(VariantError, match="NaN"):
        own(holes)[0].render(source(), world(), 1)


def test_a_model_that_paints_in_a_mask_leaves_no_word_about_the_robot_s_light():
    """Where it painted the robot green, the robot is lit as the world says; a model that repaints everything decides."""

    def green(height: int, width: int) -> Any:
        return np.tile([0.1, 0.9, 0.1], (height, width, 1))

    backend, _ = own(green)
    masked = backend.render(source(), world(), 1).astype(int)
    backend.masked = False
    free = backend.render(source(), world(), 1).astype(int)
    keep = maps().keep
    assert np.array_equal(masked[far_from_the_robot()], free[far_from_the_robot()])
    tint = [(one[keep][:, 1] - one[keep][:, [0, 2]].mean(1)).mean() for one in (masked, free)]
    assert tint[1] > tint[0] + 3
    lit = relit(source(), maps(), world(), 1)
    assert backend.report["relight_share"] in SHARES
    assert np.abs(masked[keep] - lit[keep]).mean() < 25


def test_what_is_known_of_another_camera_s_view_stays():
    backend, pipe = own()
    known = source().rgb
    missing = np.zeros(known.shape[:2], bool)
    assert backend.complete(source(), world(), 1, known, missing) is known
    assert pipe.calls == []
    missing[:, :50] = True
    found = backend.complete(source(), world(), 1, known, missing)
    assert np.array_equal(found[:, 50:], known[:, 50:])
    assert np.unique(found[:, :50]).tolist() == [128]


def test_as_much_of_the_light_is_taken_as_leaves_the_robot_s_edges():
    keep = maps().keep
    same, share = harmonise(source().rgb.copy(), source(), maps())
    assert share == 1
    assert np.abs(same[keep].astype(int) - source().rgb[keep]).max() <= 3
    dark = source().rgb.copy()
    dark[keep] = dark[keep] // 12
    frame, share = harmonise(dark, source(), maps())
    for larger in SHARES[: SHARES.index(share)]:
        mixed = dark.copy()
        mixed[keep] = np.round(larger * dark[keep] + (1 - larger) * source().rgb[keep])
        assert structure_f1(lock_robot(mixed, source(), maps()).frame, source().rgb, keep) < EDGES_KEPT
    assert structure_f1(frame, source().rgb, keep) >= EDGES_KEPT
    assert np.array_equal(frame[far_from_the_robot()], dark[far_from_the_robot()])


# -- options --------------------------------------------------------------------------------------------------------------


def test_options_are_taken_up_to_their_bounds_and_nothing_stands_for_the_default():
    for fine in ({"steps": 1}, {"steps": 1000}, {"pixels": 4096}, {"pixels": 4_200_000}, {"controls": {"edge": 1.0}}):
        own(**fine)
    for wrong in ({"steps": 1001}, {"steps": -1}, {"pixels": 4095}, {"pixels": 4_200_001}, {"controls": {"blur": 1.0}}):
        with pytest.raises(InputError):
            own(**wrong)
    plain, _ = own()
    assert plain.settings == {
        "steps": 3, "guidance": 1.5, "pixels": 160 * 120, "controls": {"depth": 0.5}, "keep_object": False, "relight": True,
    }  # fmt: skip
    stated, _ = own(steps=4, guidance=0.0, pixels=5000, controls={}, keep_object=True, relight=False)
    assert stated.settings == {
        "steps": 4, "guidance": 0.0, "pixels": 5000, "controls": {}, "keep_object": True, "relight": False,
    }  # fmt: skip
    with pytest.raises(InputError, match="set from Python"):
        Own(pipeline="mine")


def test_a_model_of_one_s_own_says_what_its_user_states():
    backend, _ = own(licence="MIT", model="x", revision="r")
    assert (backend.licence, backend.model, backend.revision) == ("MIT", "x", "r")


@pytest.mark.parametrize(("device", "dtype", "found"), [
    ("cpu", "", "float32"), ("cuda", "", "bfloat16"), ("cuda:1", "", "bfloat16"), ("cpu", "float16", "float16"),
])  # fmt: skip
def test_weights_are_small_on_a_card(device, dtype, found):
    assert Own(device=device, dtype=dtype).dtype == found


# -- memory ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A card whose free memory a test decides; a tier is applied in word only."""
    made = SimpleNamespace(free=20 * GIB, applied=[])
    monkeypatch.setattr(device_memory, "free_device_bytes", lambda device: made.free)
    monkeypatch.setattr(memory, "apply", lambda pipe, tier, device: made.applied.append((tier, device)))
    monkeypatch.setattr(gc, "collect", lambda: 0)  # a third of a second each time, with torch loaded
    monkeypatch.setattr(device_memory, "device_of_card", lambda card: f"cuda:{card}")
    monkeypatch.setattr(Own, "made", [])
    monkeypatch.setattr(Own, "planned", {"resident": 10 * GIB, "model-offload": 6 * GIB, "group-offload": 2 * GIB})
    return made


@pytest.mark.parametrize(("free", "margin", "tier"), [
    (20, 1, "resident"), (11, 1, "resident"), (11, 2, "model-offload"), (7, 1, "model-offload"), (6, 1, "group-offload"),
    (0, 1, "group-offload"),
])  # fmt: skip
def test_a_model_runs_in_the_fastest_tier_that_fits_beside_the_renderer(card, free, margin, tier):
    card.free = free * GIB
    backend = Own(device="cuda")
    backend.margin_bytes = margin * GIB
    pipe = backend.ready_pipeline()
    assert (card.applied, backend.tier) == ([(tier, "cuda")], tier)
    card.free = 100 * GIB
    assert backend.ready_pipeline() is pipe, "it stays where it is"
    backend.use_tier("auto")
    assert backend.ready_pipeline() is not pipe or tier == "resident"
    assert backend.tier == "resident"


def test_a_model_whose_size_is_not_known_is_tried_whole(card, monkeypatch):
    monkeypatch.setattr(Own, "planned", {})
    backend = Own(device="cuda")
    backend.ready_pipeline()
    assert backend.tier == TIERS[0]


def test_a_tier_that_is_named_is_the_one_that_runs(card):
    backend = Own(device="cuda", tier="group-offload")
    first = backend.ready_pipeline()
    assert backend.tier == "group-offload"
    for name, tier in (("model-offload", "model-offload"), ("", "resident"), ("cpu", "cpu")):
        backend.use_tier(name)
        pipe = backend.ready_pipeline()
        assert pipe is not first
        assert backend.tier == tier
        assert backend.ready_pipeline() is pipe
    assert card.applied == [("group-offload", "cuda"), ("model-offload", "cuda"), ("resident", "cuda")]
    assert backend.device == "cpu"
    with pytest.raises(InputError, match="memory tier"):
        backend.use_tier("tiny")
    with pytest.raises(InputError, match="memory tier"):
        Own(device="cuda", tier="tiny")


def test_another_card_gets_the_model_anew_and_the_same_one_keeps_it(card):
    backend = Own(device="cuda:0")
    pipe = backend.ready_pipeline()
    backend.use_card("0")
    assert backend.ready_pipeline() is pipe
    backend.use_card("1")
    assert backend.ready_pipeline() is not pipe
    assert card.applied == [("resident", "cuda:0"), ("resident", "cuda:1")]
    on_cpu = Own(device="cpu")
    on_cpu.use_card("1")
    assert on_cpu.device == "cpu"


def test_memory_that_runs_out_moves_one_tier_down_for_good(card, monkeypatch, caplog):
    """Painting is the stand-in's; which tier it fails in, a test says."""
    backend, fails = Own(device="cuda"), {"resident"}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5.0)

    def picture(result: Any) -> Any:
        if backend.tier in fails:
            raise torch.OutOfMemoryError("full")
        return np.asarray(result.images[0])

    monkeypatch.setattr(backend, "picture", picture)
    with caplog.at_level(logging.WARNING):
        backend.render(source(), world(), 1)
    assert backend.report["tier"] == "model-offload"
    assert backend.report["peak_device_bytes"] == 5
    assert len(Own.made) == 2
    backend.render(source(), world(), 1)
    assert len(Own.made) == 2
    fails.update(TIERS)
    with pytest.raises(VariantError, match="smallest tier: full"):
        backend.render(source(), world(), 1)
    assert [tier for tier, _ in card.applied] == list(TIERS)


def test_files_that_cannot_be_loaded_are_named(card, monkeypatch):
    def load(self: Own) -> Any:
        raise OSError("no such file")

    monkeypatch.setattr(Own, "load", load)
    with pytest.raises(InputError, match=r"the files of own .* cannot be loaded: no such file"):
        Own(device="cuda").ready_pipeline()


@pytest.mark.parametrize("pixels", [0, 10**6, 3 * 10**6])
def test_memory_is_counted_from_what_is_on_the_card_at_once(pixels):
    parts = {"transformer": 6 * 10**9, "controlnet": 10**9, "text_encoder": 4 * 10**9, "vae": 10**8}
    plan, none = needed(parts, pixels), needed({}, pixels)
    assert list(plan) == list(TIERS)
    assert len(set(none.values())) == 1
    work = none["resident"]
    assert plan["resident"] - work == 2 * sum(parts.values())
    assert plan["model-offload"] - work == 2 * 7 * 10**9, "a control network is there with its denoiser"
    assert plan["group-offload"] == work
    assert needed(parts, pixels, 4)["resident"] - work == 4 * sum(parts.values())
    larger = needed({**parts, "text_encoder": 9 * 10**9}, pixels)
    assert larger["model-offload"] - work == 2 * 9 * 10**9
    assert needed({"unet": 10}, pixels)["model-offload"] - work == 20
    assert work - needed({}, 0)["resident"] == pytest.approx(pixels * 3.2e3, rel=0.01), "3 GiB a megapixel"
    still, film = (needed(parts, pixels, frames=frames)["resident"] - plan["resident"] for frames in (5, 93))
    assert still >= pixels * 6e3, "a decoder of clips keeps more than one of pictures"
    assert film - still == 24 * 88 * pixels, "and the clip itself grows with its frames"


def test_libraries_are_quiet_and_as_loud_as_before_afterwards():
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    of_diffusers.set_verbosity_info()
    of_transformers.set_verbosity_warning()
    loud = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    assert loud[0] != loud[1]
    try:
        with contextlib.suppress(KeyError), quiet():
            warnings.warn("old", FutureWarning, stacklevel=1)
            assert of_diffusers.get_verbosity() == of_transformers.get_verbosity() == logging.ERROR
            raise KeyError  # whatever happens inside
        assert (of_diffusers.get_verbosity(), of_transformers.get_verbosity()) == loud
        assert of_transformers.is_progress_bar_enabled()
    finally:
        of_diffusers.set_verbosity(before[0])
        of_transformers.set_verbosity(before[1])


# -- sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "pixels", "multiple", "inner", "size"),
    [
        ((640, 480), 640 * 480, 16, (640, 480), (640, 480)), ((640, 480), 640 * 480 - 1, 16, (576, 432), (576, 432)),
        ((160, 120), 10**6, 16, (320, 240), (320, 240)), ((8, 8), 4096, 16, (16, 16), (16, 16)),
        ((100, 100), 10_000, 16, (96, 96), (96, 96)), ((1000, 10), 10_000, 16, (1000, 16), (1008, 16)),
        ((101, 70), 101 * 70, 32, (101, 70), (128, 96)),
    ],
)  # fmt: skip
def test_the_working_size_is_the_largest_exact_one_or_is_padded(capture, pixels, multiple, inner, size):
    canvas = Canvas.fit(capture, pixels, multiple)
    assert (canvas.inner, canvas.size) == (inner, size)
    assert canvas.squeeze == (inner[0] / capture[0], inner[1] / capture[1])
    assert max(canvas.squeeze) <= ENLARGE or min(capture) * ENLARGE < multiple
    assert canvas.to_json()["squeeze"] == pytest.approx(canvas.squeeze, abs=1e-6)


def test_a_camera_too_small_for_a_model_is_refused():
    Canvas.fit((8, 8), 10_000, 16)
    for capture in ((7, 100), (100, 7)):
        with pytest.raises(VariantError, match="too small"):
            Canvas.fit(capture, 10_000, 16)


def test_padding_repeats_the_border_and_is_cut_off_again():
    canvas = Canvas((40, 30), (40, 30), (48, 32))
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    placed = canvas.place(picture)
    assert np.array_equal(placed[:30, :40], picture)
    assert np.array_equal(placed[:30, 40:], np.repeat(picture[:, -1:], 8, 1))
    assert np.array_equal(placed[30:, :40], np.repeat(picture[-1:], 2, 0))
    assert np.array_equal(canvas.restore(placed), picture)
    assert canvas.restore(placed).flags.c_contiguous
    whole = Canvas.stretched((40, 30), (48, 48))
    assert (whole.inner, whole.size) == ((48, 48), (48, 48))
    mask = picture[..., 0] > 127
    assert set(np.unique(whole.place(picture[..., 0], hard=True))) <= set(np.unique(picture[..., 0]))
    assert whole.place(mask, hard=True).dtype == bool


@pytest.mark.parametrize(("size", "way"), [((20, 15), cv2.INTER_AREA), ((80, 60), cv2.INTER_CUBIC)])
def test_pictures_are_averaged_when_they_get_smaller_and_smooth_when_larger(size, way):
    picture = np.random.default_rng(1).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    canvas, back = Canvas.stretched((40, 30), size), Canvas.stretched(size, (40, 30))
    wanted = cv2.resize(picture, size, interpolation=way)
    assert np.array_equal(canvas.place(picture), wanted)
    assert np.array_equal(back.restore(picture), wanted)
