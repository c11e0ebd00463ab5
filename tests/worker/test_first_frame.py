# SPDX-License-Identifier: Apache-2.0
"""Every diffusion backend's real pipeline class, end to end, with tiny random models written and loaded as real folders:
what reaches the pipeline, what comes back, and that the robot is the simulated one."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from first_frame_support import (
    MASKED,
    NAMES,
    PIXELS,
    SIZE,
    Guardrail,
    Seen,
    episode,
    make,
    maps,
    shared,
    source,
    spied,
    world,
)
from scenes import make_scene_episode

from retake.core.errors import Cancelled, InputError, MissingDependencyError, VariantError
from retake.core.files import read_json
from retake.core.variants import SourceFrame, load_catalogue, make_variant, make_variants, source_frame
from retake.core.variants.carry import CarryingBackend, carry
from retake.core.variants.controls import control_maps
from retake.core.variants.edges import structure_f1
from retake.core.variants.lock import GAIN_BOUNDS
from retake.core.variants.prompts import compose_prompts
from retake.core.variants.worlds import described_world
from retake.worker.first_frame.canvas import Canvas
from retake.worker.first_frame.conditioning import Conditioning, relit
from retake.worker.first_frame.z_image import control_architecture


@pytest.fixture(autouse=True)
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen's pipeline resizes its pictures to a megapixel whatever was asked; here to a fiftieth of it."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", PIXELS)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", 112 * 112)


@cache
def once(name: str) -> tuple[Any, Seen, np.ndarray]:
    """The picture of seed 1, made once for all tests that only look at it."""
    return rendered(name)


def rendered(name: str, seed: int = 1) -> tuple[Any, Seen, np.ndarray]:
    backend = shared(name)
    with spied(backend) as seen:
        frame = backend.render(source(), world(), seed)
    return backend, seen, frame


def expected(backend: Any) -> dict[str, np.ndarray]:
    """What the pipeline should see, made here from the simulator's arrays alone."""
    canvas: Canvas = backend.canvas((160, 120))
    keep = np.zeros(canvas.size[::-1], bool)
    keep[: canvas.inner[1], : canvas.inner[0]] = canvas.place(maps().keep, hard=True)[
        : canvas.inner[1], : canvas.inner[0]
    ]
    inverse = np.where(source().depth_m > 0, 1 / np.maximum(source().depth_m, 1e-6), 0)
    edges = np.where(maps().keep, maps().canny, maps().geometry)
    return {
        "picture": canvas.place(relit(source(), maps(), world(), 1)),
        "keep": keep,
        "inverse_depth": canvas.place(inverse.astype(np.float32), hard=True),
        "edges": canvas.place(edges, hard=True),
    }


def is_depth(image: np.ndarray, want: dict[str, np.ndarray]) -> bool:
    """Near is bright: the order of grey values is that of inverse depth, and nothing hit is black."""
    grey, near = image[..., 0].astype(float), want["inverse_depth"]
    hit = near > 0
    return bool(np.corrcoef(grey[hit], near[hit])[0, 1] > 0.95 and grey[~hit].max(initial=0) == 0)


def check_call(name: str, backend: Any, seen: Seen) -> None:
    """Raises AssertionError when the pipeline was not given what it should have been."""
    call, want = seen.call, expected(backend)
    width, height = backend.canvas((160, 120)).size
    prompts = compose_prompts(source().header, world())
    assert (call["height"], call["width"]) == (height, width)
    assert call["num_inference_steps"] == 2
    assert call["generator"].initial_seed() == 1
    controls = call.get("control_image", call.get("controls", []))
    controls = [np.asarray(c) for c in (controls if isinstance(controls, list) else [controls])]
    if name == "qwen-edit":
        picture, *controls = [np.asarray(image) for image in call["image"]]
        assert call["prompt"].startswith(prompts.image)
        assert call["negative_prompt"] == prompts.negative
        assert "depth map of picture 1" in call["prompt"]
    elif name != "cosmos-transfer":
        picture = np.asarray(call["image"])
    else:
        picture = want["picture"]
    if name != "qwen-edit":  # its text, looked at above, also says what the further pictures are
        assert call["prompt"] == (prompts.image if name == "flux2-klein" else prompts.scene)
    assert picture.shape == (height, width, 3)
    assert np.array_equal(picture, want["picture"])
    if name in MASKED:
        mask, cell = np.asarray(call["mask_image"]), {"sdxl": 8, "flux2-klein": 16}.get(name, 1)
        assert mask.shape == (height, width)
        assert set(np.unique(mask)) == {0, 255}
        assert not want["keep"][mask == 0].sum() < (mask == 0).sum(), "black is kept, and only the robot is kept"
        cells = want["keep"].reshape(height // cell, cell, width // cell, cell)
        assert np.array_equal(mask[::cell, ::cell] == 0, cells.all((1, 3)))
    if name in ("z-image", "qwen-edit", "sdxl"):
        assert is_depth(controls[0], want)
    if name == "sdxl":
        assert np.array_equal(controls[-1], np.repeat(want["edges"][..., None], 3, 2))
    if name == "cosmos-transfer":  # a canvas smaller than the capture: lines stay whole
        inner, lines = backend.canvas((160, 120)).inner, np.where(maps().keep, maps().canny, maps().geometry)
        found = controls[0][: inner[1], : inner[0], 0] > 0
        near = cv2.dilate(cv2.resize(lines, inner, interpolation=cv2.INTER_AREA), np.ones((3, 3), np.uint8)) > 0
        assert found.sum() > 0.4 * (near.sum() / 3)
        assert cv2.connectedComponents(found.astype(np.uint8))[0] <= cv2.connectedComponents(lines)[0]
        assert not (found & ~near).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_gets_pictures_masks_controls_and_prompts(name: str) -> None:
    backend, seen, frame = once(name)
    check_call(name, backend, seen)
    assert frame.shape == source().rgb.shape
    assert frame.dtype == np.uint8
    for pixels in seen.encoded:
        assert pixels.shape[-2:] == (seen.call["height"], seen.call["width"])
        assert -1.0 <= float(pixels.min()) < 0 < float(pixels.max()) <= 1.0 or float(pixels.std()) == 0


PLANTED = {
    "mask inverted": ("mask", lambda self, cell=1: 255 - MASK(self, cell)),
    "mask empty": ("mask", lambda self, cell=1: np.full_like(MASK(self, cell), 255)),
    "depth: far is bright": ("control", lambda self, name: 255 - CONTROL(self, name)),
    "depth and edges swapped": ("control", lambda self, name: CONTROL(self, {"depth": "edge", "edge": "depth"}[name])),
    "controls mirrored": ("control", lambda self, name: np.ascontiguousarray(CONTROL(self, name)[:, ::-1])),
}
MASK, CONTROL = Conditioning.mask, Conditioning.control


@pytest.mark.parametrize("name", ["z-image", "sdxl"])
@pytest.mark.parametrize("fault", PLANTED)
def test_planted_errors_in_masks_and_controls_are_noticed(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attribute, wrong = PLANTED[fault]
    monkeypatch.setattr(Conditioning, attribute, wrong)
    backend, seen, _ = rendered(name)
    with pytest.raises(AssertionError):
        check_call(name, backend, seen)


def test_a_picture_with_swapped_channels_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    of = Conditioning.of

    def swapped(*args: Any, **kwargs: Any) -> Conditioning:
        made = of(*args, **kwargs)
        object.__setattr__(made, "picture", np.ascontiguousarray(made.picture[..., ::-1]))
        return made

    monkeypatch.setattr(Conditioning, "of", staticmethod(swapped))
    backend, seen, _ = rendered("flux2-klein")
    with pytest.raises(AssertionError):
        check_call("flux2-klein", backend, seen)


def test_z_image_steers_by_depth_and_edges_in_one_pass() -> None:
    backend, seen, frame = once("z-image")
    pipe, want = backend.ready_pipeline(), expected(backend)
    assert len(seen.control) == 2 * 2, "two control maps in each of two steps"

    def latents(image: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            mode = pipe.vae.encode(pixels).latent_dist.mode()
        return (mode - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor

    (first, _), (second, kwargs) = seen.control[:2]
    context, other = first[3][0], second[3][0]
    assert context.shape[0] == 33
    keep = cv2.resize(
        want["keep"].astype(np.uint8), (context.shape[3], context.shape[2]), interpolation=cv2.INTER_NEAREST
    )
    agree = (context[16, 0].numpy() > 0.5) == (keep > 0)
    assert agree.mean() > 0.97, "channel 16 is 1 where pixels are kept"
    assert torch.allclose(other[:16, 0], latents(np.repeat(want["edges"][..., None], 3, 2))[0], atol=1e-3)
    kept_picture = np.where(want["keep"][..., None], want["picture"], 127.5)
    assert torch.allclose(context[17:, 0], latents(kept_picture)[0], atol=0.02), "only the kept picture is shown"
    assert torch.equal(context[16:], other[16:])
    assert kwargs["conditioning_scale"] == backend.controls["edge"]
    assert not pipe.controlnet._forward_hooks, "the extra map is gone after the picture"
    alone = make("z-image", controls={"depth": 0.45})
    assert not np.array_equal(alone.render(source(), world(), 1), frame), "the edges steer"


def test_sdxl_union_network_gets_each_map_under_its_own_type() -> None:
    _, seen, _ = once("sdxl")
    kwargs = seen.control[0][1]
    assert kwargs["control_type_idx"] == [1, 3]
    assert kwargs["control_type"][0].tolist() == [0, 1, 0, 1, 0, 0]
    assert [tuple(c.shape[1:]) for c in kwargs["controlnet_cond"]] == [(3, 128, 176)] * 2
    assert all(float(c.min()) >= 0 and float(c.max()) == 1.0 for c in kwargs["controlnet_cond"])


@pytest.mark.parametrize(("name", "cell"), [("sdxl", 8), ("flux2-klein", 16)])
def test_latent_masks_are_whole_cells(name: str, cell: int) -> None:
    backend, seen, _ = once(name)
    height, width = seen.call["height"], seen.call["width"]
    cells = expected(backend)["keep"].reshape(height // cell, cell, width // cell, cell).all((1, 3))
    found = seen.mask_latents[0][0].float().numpy().reshape(height // cell, width // cell)
    assert np.array_equal(found, 1.0 - cells)


def test_qwen_sees_two_pictures_and_knows_which_tokens_they_are() -> None:
    _, seen, _ = once("qwen-edit")
    kwargs = seen.text[0]
    grid, ids = kwargs["image_grid_thw"], kwargs["input_ids"]
    assert len(grid) == 2
    tokens = sum(int(g.prod()) // 4 for g in grid)
    assert int(kwargs["mm_token_type_ids"].sum()) == tokens
    assert int((ids == ids.max()).sum()) <= tokens
    assert [tuple(p.shape) for p in seen.encoded] == [(1, 3, 1, 128, 160)] * 2, "references and result share one grid"
    model = shared("qwen-edit").ready_pipeline().text_encoder.model
    assert model.rope_deltas is not None, "picture tokens got two-dimensional positions"


def test_cosmos_is_asked_for_one_still_and_always_guarded() -> None:
    backend, seen, _ = once("cosmos-transfer")
    call = seen.call
    assert (call["num_frames"], call["num_frames_per_chunk"], call["num_ar_conditional_frames"]) == (1, 5, 0)
    guardrail = backend.ready_pipeline().safety_checker
    assert isinstance(guardrail, Guardrail)
    assert guardrail.texts[-1] == call["prompt"]
    assert guardrail.clips[-1] == (1, 64, 96, 3)
    for refuse, told in (("text", "unsafe"), ("video", "guardrail")):
        with pytest.raises(VariantError, match=told):
            make("cosmos-transfer", safety_checker=Guardrail(refuse)).render(source(), world(), 1)
    with pytest.raises(MissingDependencyError, match="cosmos_guardrail"):
        make("cosmos-transfer", safety_checker=None)


@pytest.mark.parametrize("name", NAMES)
def test_robot_is_the_simulated_one_and_geometry_stays(name: str) -> None:
    (backend, _, lit), keep = once(name), maps().keep
    before = [a.copy() for a in (source().rgb, source().depth_m, source().normals, source().instance_ids)]
    assert np.array_equal(backend.render(source(), world(), 1), lit), "same seed, same picture"
    backend.relight = False
    try:
        plain = backend.render(source(), world(), 6)
    finally:
        backend.relight = True
    assert np.array_equal(plain[keep], source().rgb[keep]), "bit-equal before relighting"
    assert not np.array_equal(plain[~keep], lit[~keep]), "another seed, another picture"
    assert structure_f1(lit, source().rgb, keep) >= 0.98
    bright = keep & (source().rgb.min(-1) > 40) & (lit.max(-1) < 250)
    ratio = lit.astype(float)[bright] / source().rgb[bright]
    assert GAIN_BOUNDS[0] - 0.03 < ratio.min()
    assert ratio.max() < GAIN_BOUNDS[1] + 0.03
    gain = np.where(bright[..., None], lit / np.maximum(source().rgb.astype(float), 1), 0)
    weight = cv2.GaussianBlur(bright.astype(float), (0, 0), 1.5)
    smooth = cv2.GaussianBlur(gain, (0, 0), 1.5) / np.maximum(weight, 1e-6)[..., None]
    assert np.abs(gain - smooth)[bright].mean() < 0.04, "the gain is smooth"
    after = (source().rgb, source().depth_m, source().normals, source().instance_ids)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_variants_record_model_revision_licence_and_are_kept_without_loading(tmp_path: Path) -> None:
    backend = make("flux2-klein")
    [made] = make_variants(episode(), "front", tmp_path, worlds=[world()], backend=backend, seed=3)
    record = read_json(tmp_path / made.id / "variant.json")
    assert record["backend"] == "flux2-klein"
    assert record["model"] == "model"
    assert record["revision"].startswith("files:")
    assert record["licence"] == "Apache-2.0"
    fresh = make("flux2-klein")
    fresh.load = lambda: pytest.fail("a kept variant must not load the model")
    [kept] = make_variants(episode(), "front", tmp_path, worlds=[world()], backend=fresh, seed=3)
    assert kept == made
    changed = make("flux2-klein", steps=3)
    make_variant(source(), world(), changed, tmp_path / made.id, 3, episode_sha256=episode().content_sha256)
    assert read_json(tmp_path / made.id / "variant.json")["inputs"] != record["inputs"]


def test_a_world_in_words_is_painted_from_these_words(tmp_path: Path) -> None:
    told = described_world("a bakery at dawn")
    [made] = make_variants(episode(), "front", tmp_path, worlds=[told], backend=make("flux2-klein"), seed=3)
    assert "A bakery at dawn." in made.prompt
    assert made.world == told
    prompts = compose_prompts(episode().header, told)
    assert "A bakery at dawn." in prompts.image
    assert "A bakery at dawn." in prompts.scene
    assert "same pose" in prompts.image


@pytest.mark.parametrize(("name", "steps"), [("qwen-edit", 1), ("z-image", 1001), ("sdxl", -1)])
def test_steps_that_make_no_picture_are_refused(name: str, steps: int) -> None:
    """A single step of Qwen's scheduler is 0/0: said before a model of fifty gigabytes is loaded."""
    with pytest.raises(InputError, match=rf"steps {steps} \({2 if name == 'qwen-edit' else 1} … 1000\)"):
        make(name, steps=steps)


def test_progress_and_cancel_between_steps() -> None:
    backend, seen, calls = shared("flux2-klein"), [], []
    backend.progress = lambda done, total, note="": seen.append((done, total, note))
    backend.render(source(), world(), 1)
    assert seen == [(1, 2, "painting"), (2, 2, "painting")]

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        backend.render(source(), world(), 1, stop)
    assert len(seen) == 3, "heard after the first step"
    assert backend.render(source(), world(), 1).any(), "the model still works after a cancel"


def test_memory_tiers_give_the_same_picture_and_an_overflow_moves_down(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = once("z-image")[2].astype(int)
    for tier in ("model-offload", "group-offload"):
        backend = make("z-image", tier=tier)
        assert np.abs(backend.render(source(), world(), 1) - wanted).max() <= 1, tier
        assert backend.report["tier"] == tier
    backend = make("flux2-klein", tier="resident", pixels=PIXELS)
    paint, failed = backend._paint, []

    def full_once(*args: Any) -> np.ndarray:
        if not failed:
            failed.append(backend.tier)
            raise torch.OutOfMemoryError("full")
        return paint(*args)

    monkeypatch.setattr(backend, "_paint", full_once)
    backend.render(source(), world(), 1)
    assert (failed, backend.report["tier"]) == (["resident"], "model-offload")
    monkeypatch.setattr(backend, "_paint", lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(VariantError, match="smallest tier"):
        backend.render(source(), world(), 1)


def test_published_single_control_file_is_read_without_fetching(tmp_path: Path) -> None:
    folder = Path(shared("z-image").found["controlnet"].source)
    file = next(folder.glob("*.safetensors"))
    alone = tmp_path / "union"
    alone.mkdir()
    (alone / "Z-Image-Turbo-Fun-Controlnet-Union-2.1-8steps.safetensors").write_bytes(file.read_bytes())
    from_file = make("z-image", control=str(alone), licence="Apache-2.0").render(source(), world(), 1)
    assert np.abs(from_file.astype(int) - once("z-image")[2]).max() <= 1
    (alone / "other.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="exactly one"):
        make("z-image", control=str(alone)).render(source(), world(), 1)
    with pytest.raises(InputError, match=r"config\.json beside it"):
        control_architecture({"control_layers.0.x": torch.zeros(1)}, "lite.safetensors")


def test_broken_pictures_and_frames_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    backend = shared("flux2-klein")
    monkeypatch.setattr(backend, "picture", lambda result: np.full((*backend.canvas((160, 120)).size[::-1], 3), np.nan))
    with pytest.raises(VariantError, match="NaN"):
        backend.render(source(), world(), 1)
    monkeypatch.setattr(backend, "picture", lambda result: np.zeros((64, 64, 3)))
    with pytest.raises(VariantError, match="returned 64x64"):
        backend.render(source(), world(), 1)
    nobody = replace(source(), instance_ids=np.full_like(source().instance_ids, 2))
    with pytest.raises(VariantError, match="shows no robot"):
        backend.render(nobody, world(), 1)
    crowded = source().instance_ids.copy()
    crowded[1:] = 10
    with pytest.raises(VariantError, match=r"nothing is left to repaint|covers the whole"):
        backend.render(replace(source(), instance_ids=crowded), world(), 1)


def test_a_world_without_words_is_refused() -> None:
    known = load_catalogue()
    sections = {k: dict(v) for k, v in known.sections.items()}
    sections["subjects"] = {k: {**v, "prompt": ""} for k, v in sections["subjects"].items()}
    from retake.core.variants import Catalogue

    with pytest.raises(VariantError, match="empty"):
        make("flux2-klein", catalogue=Catalogue(sections, known.exclusions)).render(source(), world(), 1)


# -- further cameras of a world --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceFrame, SourceFrame]:
    """One moment of a fixed camera and of the hand's."""
    found = make_scene_episode(tmp_path_factory.mktemp("views") / "e", frames=12, size=SIZE, only=range(1), wrist=True)
    return source_frame(found, "front", 0), source_frame(found, "wrist", 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_further_camera_is_carried_and_only_the_rest_is_painted(
    name: str, views: tuple[SourceFrame, SourceFrame]
) -> None:
    """What both cameras see keeps the anchor's pixels; the model that painted the anchor is asked for what is missing, with
    the known pixels before it, and the robot is the simulated one."""
    front, wrist = views
    backend, gradient = shared(name), np.linspace(40, 215, SIZE[0], dtype=np.uint8)
    painted = np.repeat(np.repeat(gradient[None, :, None], SIZE[1], 0), 3, 2)
    carried = carry(front, painted, wrist)
    assert 0.02 < carried.share < 0.98
    carrying = CarryingBackend(backend, front, painted)
    with spied(backend) as seen:
        frame = carrying.render(wrist, world(), 1)
    call = seen.call
    keep = control_maps(wrist).keep
    sure = cv2.erode((carried.known & ~keep).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert np.array_equal(frame[sure], carried.frame[sure])
    assert (carrying.origin["kind"], carrying.origin["anchor"]) == ("carried", "front")
    assert carrying.origin["inpainted"] == pytest.approx(float((~carried.known & ~keep).mean()), abs=0.02)
    if backend.masked and name != "cosmos-transfer":
        mask = backend.canvas(SIZE).restore(np.repeat(np.asarray(call["mask_image"])[..., None], 3, 2))[..., 0] > 127
        assert mask[~carried.known & ~keep].mean() > 0.98
        assert mask[sure].mean() < 0.35  # cells of 16 px reach into what is known
    if name != "cosmos-transfer":  # that one reads control maps alone
        shown = call["image"][0] if isinstance(call["image"], list) else call["image"]
        given = backend.canvas(SIZE).restore(np.asarray(shown.resize(backend.canvas(SIZE).size)))
        assert np.abs(given[sure].astype(int) - carried.frame[sure]).mean() < 6


def test_nothing_missing_asks_no_model() -> None:
    backend, known = shared("z-image"), source().rgb
    assert backend.complete(source(), world(), 1, known, np.zeros(known.shape[:2], bool)) is known
