# SPDX-License-Identifier: Apache-2.0
"""What each first-frame model is asked for, by name and number, and how Z-Image's and Qwen's own parts work: the pipelines are
stand-ins. Of retake.worker.first_frame.z_image, .sdxl, .qwen_edit, .flux2_klein and .cosmos_transfer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retake.core.errors import InputError
from retake.worker.first_frame import z_image
from retake.worker.first_frame.cosmos_transfer import CosmosTransferBackend, resize_without_torchvision
from retake.worker.first_frame.flux2_klein import Flux2KleinBackend
from retake.worker.first_frame.qwen_edit import IMAGE_TOKEN, PictureProcessor, QwenEditBackend, marked_picture_tokens
from retake.worker.first_frame.sdxl import SdxlBackend
from retake.worker.first_frame.z_image import ZImageBackend, added_controls, control_architecture

torch.set_num_threads(1)
PROMPTS: Any = SimpleNamespace(image="edit it", scene="a scene", negative="blur")
SHADES = {"depth": 10, "edge": 20, "seg": 30, "normal": 40}


class Inputs:
    """Pictures of one value each; a mask's value is its cell."""

    picture = np.full((4, 6, 3), 5, np.uint8)

    def control(self, name: str) -> np.ndarray:
        return np.full((4, 6, 3), SHADES[name], np.uint8)

    def mask(self, cell: int = 1) -> np.ndarray:
        return np.full((4, 6), cell, np.uint8)


def backend(kind: Any, **told: Any) -> Any:
    made = object.__new__(kind)
    made.guidance, made.controls = kind.default_guidance, dict(kind.default_controls)
    vars(made).update(told)
    return made


def shade(value: Any) -> Any:
    """Pictures as their value."""
    if isinstance(value, list):
        return [shade(one) for one in value]
    return int(np.asarray(value).flat[0]) if hasattr(value, "size") and hasattr(value, "mode") else value


def asked(kind: Any, **told: Any) -> dict[str, Any]:
    return {key: shade(value) for key, value in backend(kind, **told).arguments(None, Inputs(), PROMPTS).items()}


MODELS = {  # steps, fewest steps, guidance, pixels, sides, whether it paints in a mask
    ZImageBackend: (8, 1, 0.0, 1_000_000, 16, True), SdxlBackend: (30, 1, 6.0, 1_000_000, 16, True),
    QwenEditBackend: (40, 2, 4.0, 1_000_000, 32, False), Flux2KleinBackend: (4, 1, 1.0, 1_000_000, 16, True),
    CosmosTransferBackend: (36, 1, 3.0, 901_120, 16, False),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_has_its_publisher_s_numbers(kind):
    assert MODELS[kind] == (
        kind.default_steps, kind.least_steps, kind.default_guidance, kind.default_pixels, kind.multiple, kind.masked
    )  # fmt: skip


def test_z_image_is_asked_for_one_control_and_a_mask_of_pixels():
    call = {
        "prompt": "a scene", "negative_prompt": None, "guidance_scale": 0.0, "image": 5, "mask_image": 1, "control_image": 10,
        "controlnet_conditioning_scale": 0.45,
    }  # fmt: skip
    assert asked(ZImageBackend) == call
    assert asked(ZImageBackend, guidance=0.5) == {**call, "guidance_scale": 0.5, "negative_prompt": "blur"}
    assert asked(ZImageBackend, controls={}) == {**call, "controlnet_conditioning_scale": 0.0}
    steered = asked(ZImageBackend, controls={"normal": 0.7, "depth": 0.2})
    assert (steered["control_image"], steered["controlnet_conditioning_scale"]) == (40, 0.7)


def test_sdxl_is_asked_for_every_control_under_its_type():
    assert asked(SdxlBackend, controls={"seg": 0.1, "depth": 0.2, "normal": 0.3, "edge": 0.4}) == {
        "prompt": "a scene", "negative_prompt": "blur", "guidance_scale": 6.0, "strength": 1.0, "image": 5, "mask_image": 8,
        "control_image": [30, 10, 40, 20], "control_mode": [5, 1, 4, 3], "controlnet_conditioning_scale": [0.1, 0.2, 0.3, 0.4],
    }  # fmt: skip
    assert asked(SdxlBackend)["controlnet_conditioning_scale"] == [0.6, 0.6]


def test_flux_is_asked_for_an_edit_in_a_mask_of_its_cells():
    assert asked(Flux2KleinBackend) == {
        "prompt": "edit it", "guidance_scale": 1.0, "strength": 1.0, "image": 5, "mask_image": 16
    }  # fmt: skip


def test_qwen_is_told_which_picture_is_what():
    told = asked(QwenEditBackend, controls={"edge": 1.0, "depth": 1.0})
    assert told["image"] == [5, 20, 10]
    assert "Picture 2 shows the edges of picture 1." in told["prompt"]
    assert "Picture 3 is the depth map of picture 1" in told["prompt"]
    assert (told["negative_prompt"], told["true_cfg_scale"]) == ("blur", 4.0)
    assert asked(QwenEditBackend, controls={}) == {
        "image": [5], "prompt": "edit it", "negative_prompt": "blur", "true_cfg_scale": 4.0
    }  # fmt: skip


def test_cosmos_is_asked_for_a_still():
    told = asked(CosmosTransferBackend, controls={"seg": 0.3})
    assert (told["controls"], told["controls_conditioning_scale"], told["num_frames"]) == ([30], 0.3, 1)
    assert (told["num_ar_conditional_frames"], told["guidance_scale"], told["prompt"]) == (0, 3.0, "a scene")
    frames = np.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4, 1)
    assert np.array_equal(backend(CosmosTransferBackend).picture(SimpleNamespace(frames=frames)), frames[0, 0])


def test_a_resize_takes_the_nearest_and_replaces_no_other(monkeypatch):
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos

    monkeypatch.delattr(controlnet_cosmos, "transforms", raising=False)
    monkeypatch.setattr(transformer_cosmos, "transforms", "its own", raising=False)
    resize_without_torchvision()
    assert transformer_cosmos.transforms == "its own"
    mode = controlnet_cosmos.transforms.InterpolationMode.NEAREST
    board = torch.arange(4.0).reshape(1, 1, 2, 2)
    made = controlnet_cosmos.transforms.functional.resize(board, [4, 4], interpolation=mode)
    assert torch.equal(made, board.repeat_interleave(2, 2).repeat_interleave(2, 3))


# -- Z-Image's control network -----------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """Answers, per layer, the strength times the mean of the control latents."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def forward(self, hidden: Any, timestep: Any, caption: Any, context: Any, conditioning_scale: float = 1.0) -> Any:
        self.calls.append((context.clone(), conditioning_scale))
        value = conditioning_scale * context[:, :2].mean()
        return {0: value, 4: 10 * value}


class Encoder:
    """A VAE whose latents have two channels, of the picture's mean."""

    dtype = torch.float32
    config = SimpleNamespace(shift_factor=0.25, scaling_factor=4.0)

    def encode(self, pixels: torch.Tensor) -> Any:
        assert not torch.is_grad_enabled()
        latents = pixels.mean().expand(1, 2, 3, 3)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


@pytest.mark.parametrize("others", [{}, {"edge": 0.3}, {"edge": 0.3, "normal": 0.5}])
def test_further_controls_are_added_each_with_its_strength(others):
    network = Network()
    preprocess = lambda image: torch.full((1, 3, 4, 6), float(shade(image)))  # noqa: E731
    pipe = SimpleNamespace(
        controlnet=network,
        vae=Encoder(),
        image_processor=SimpleNamespace(preprocess=preprocess),
        _execution_device="cpu",
    )
    made = backend(ZImageBackend, controls={"depth": 0.45, **others})
    context = torch.arange(2 * 5.0).reshape(2, 5, 1, 1, 1).expand(2, 5, 1, 3, 3)
    alone = network("h", "t", "c", context, conditioning_scale=0.45)
    network.calls.clear()
    with made.context(pipe, Inputs()):
        found = network("h", "t", "c", context, conditioning_scale=0.45)
    latents = {name: (SHADES[name] - 0.25) * 4 for name in others}
    added = sum(scale * latents[name] for name, scale in others.items())
    assert float(found[0]) == pytest.approx(float(alone[0]) + added)
    assert float(found[4]) == pytest.approx(float(alone[4]) + 10 * added)
    assert [scale for _, scale in network.calls] == [0.45, *others.values()]
    for (seen, _), name in zip(network.calls[1:], others, strict=True):
        assert bool((seen[:, :2] == latents[name]).all())
        assert torch.equal(seen[:, 2:], context[:, 2:]), "the mask and the picture are the same for all"
    assert float(network("h", "t", "c", context, conditioning_scale=0.45)[0]) == float(alone[0]), (
        "nothing is added after"
    )


def test_what_was_hooked_is_let_go_where_the_pipeline_fails():
    network = Network()
    pipe = SimpleNamespace(controlnet=network)
    with pytest.raises(RuntimeError, match="no"), added_controls(pipe, []):
        raise RuntimeError("no")
    assert not network._forward_hooks


def published(**changes: Any) -> dict[str, torch.Tensor]:
    state = {f"control_layers.{k}.attention.norm_q.weight": torch.ones(6) for k in range(15)}
    state |= {f"control_noise_refiner.{k}.before_proj.weight": torch.ones(1) for k in range(2)}
    state["control_all_x_embedder.2-1.weight"] = torch.ones(24, 132)
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


def test_a_published_network_s_settings_are_read_off_its_tensors():
    assert control_architecture(published(), "n") == {
        "control_layers_places": list(range(0, 30, 2)), "control_refiner_layers_places": [0, 1], "control_in_dim": 33,
        "add_control_noise_refiner": "control_noise_refiner", "dim": 24, "n_refiner_layers": 2, "n_heads": 4, "n_kv_heads": 4,
    }  # fmt: skip
    more = published(**{"control_layers.15.x": torch.ones(1)})
    assert control_architecture(more, "n")["control_layers_places"][-1] == 30


@pytest.mark.parametrize("name", [
    "control_all_x_embedder.2-1.weight", "control_layers.0.attention.norm_q.weight",
    "control_noise_refiner.0.before_proj.weight", "control_layers.14.attention.norm_q.weight",
])  # fmt: skip
def test_a_network_of_another_kind_is_refused(name):
    with pytest.raises(InputError, match=r"n is not the full .* \(1[45] control layers, 15 expected\)"):
        control_architecture(published(**{name: None}), "n")


def test_a_network_whose_refiner_was_never_trained_is_refused():
    with pytest.raises(InputError, match="is not the full"):
        control_architecture(published(**{"control_noise_refiner.0.before_proj.weight": torch.zeros(3)}), "n")
    control_architecture(published(**{"control_noise_refiner.0.before_proj.weight": torch.tensor([0.0, 0, 1])}), "n")


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_folder_holds_one_control_file(tmp_path, names):
    for name in names:
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    told = "a.safetensors, b.safetensors" if names else "none"
    with pytest.raises(InputError, match=f"exactly one .safetensors file; found {told}$"):
        z_image.load_control(str(tmp_path), None, torch.float32)


@pytest.mark.parametrize(("local", "revision"), [(True, None), (False, "abc"), (False, None)])
def test_a_network_with_settings_is_loaded_by_its_class(tmp_path, monkeypatch, local, revision):
    from diffusers import ZImageControlNetModel

    (tmp_path / "config.json").write_text("{}")
    source = str(tmp_path) if local else "owner/name"
    monkeypatch.setattr(ZImageControlNetModel, "from_pretrained", lambda *words, **more: (words, more))
    words, more = z_image.load_control(source, revision, torch.bfloat16)
    assert words == (source,)
    assert more == {"torch_dtype": torch.bfloat16, **({"revision": revision} if revision else {})}


# -- Qwen's processor ----------------------------------------------------------------------------------------------------


class Words:
    """A tokenizer: the lines it is given, as they are."""

    def convert_tokens_to_ids(self, token: str) -> int:
        assert token == IMAGE_TOKEN
        return 99

    def __call__(self, text: list[str], padding: bool, return_tensors: str) -> dict[str, Any]:
        return {"input_ids": text, "attention_mask": (padding, return_tensors)}


def images(images: list[Any], return_tensors: str) -> dict[str, Any]:
    return {"pixel_values": len(images), "image_grid_thw": torch.tensor([[1, 2 * k, 4] for k in images])}


images.merge_size = 2  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize(("lines", "pictures", "counts"), [
    (["a # b # c"], [1, 3], [[2, 6]]), (["# x", "y # #"], [2, 1, 5], [[4], [2, 10]]), (["none"], [], [[]]),
])  # fmt: skip
def test_every_picture_has_a_token_per_merged_patch(lines, pictures, counts):
    made = PictureProcessor(Words(), images)
    text = [line.replace("#", IMAGE_TOKEN) for line in lines]
    found = made(text, pictures, padding=False, return_tensors="np", more=1) if pictures else made(text)
    assert made.image_token_id == 99
    wanted = []
    for line, numbers in zip(lines, counts, strict=True):
        first, *rest = line.split("#")
        wanted.append(first + "".join(IMAGE_TOKEN * n + piece for n, piece in zip(numbers, rest, strict=True)))
    assert found["input_ids"] == wanted
    assert found["attention_mask"] == ((False, "np") if pictures else (True, "pt"))
    assert ("image_grid_thw" in found) == bool(pictures)


def test_a_text_encoder_is_told_which_tokens_are_pictures_while_it_is_asked():
    seen: list[Any] = []

    class Text(torch.nn.Module):
        def forward(self, **call: Any) -> None:
            seen.append(call.get("mm_token_type_ids"))

    ids, grid = torch.tensor([[1, 99, 99, 2]]), torch.ones(1, 3)
    text = Text()

    def failing() -> None:
        text(input_ids=ids, image_grid_thw=grid)
        text(input_ids=ids)
        text(input_ids=ids, image_grid_thw=grid, mm_token_type_ids="given")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), marked_picture_tokens(text, 99):
        failing()
    text(input_ids=ids, image_grid_thw=grid)
    assert seen[0].tolist() == [[0, 1, 1, 0]]
    assert seen[1:] == [None, "given", None]


def test_a_folder_without_a_processor_is_not_the_model(tmp_path):
    with pytest.raises(InputError, match="has no folder 'processor'"):
        PictureProcessor.from_pretrained(str(tmp_path), Words())


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (480, 640), (512, 512)])
def test_qwen_s_canvas_is_what_its_pipeline_resizes_to(size):
    canvas = backend(QwenEditBackend).canvas(size)
    assert canvas.inner == canvas.size
    assert all(side % 32 == 0 for side in canvas.size)
    assert canvas.size[0] / canvas.size[1] == pytest.approx(size[0] / size[1], rel=0.05)
    assert canvas.size[0] * canvas.size[1] == pytest.approx(1024 * 1024, rel=0.05)
