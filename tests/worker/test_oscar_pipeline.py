# SPDX-License-Identifier: Apache-2.0
"""The pipeline's laws: takes are independent, caches change nothing, windows chain, memory tiers agree, input is checked."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch
from oscar_golden import converted, difference, golden_call, pipeline, tensors, text_model, text_pipeline
from PIL import Image

from retake.core.errors import Cancelled, InputError, TakeError
from retake.worker.oscar import OscarPipeline
from retake.worker.oscar import run as run_module
from retake.worker.oscar import vae as vae_stage
from retake.worker.oscar.schedule import make_noise
from retake.worker.oscar.tiers import TIERS

FULL = os.environ.get("RETAKE_FULL") == "1"


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def other_frames(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


def small_call(**changes):
    """Two steps, five frames: enough for laws that are about structure."""
    call = golden_call(num_frames=5, num_inference_steps=2, skeleton=golden_call()["skeleton"][:5])
    return {**call, **changes}


def test_list_of_takes_equals_single_calls_bit_for_bit(pipe):
    frames = other_frames(3)
    call = golden_call if FULL else small_call
    for seeds in ([42, 42, 42], [7, 8, 9]):
        seed = seeds[0] if len(set(seeds)) == 1 else seeds
        together = pipe(**call(first_frame=frames, seed=seed, output_type="pt")).frames
        alone = [
            pipe(**call(first_frame=f, seed=s, output_type="pt")).frames for f, s in zip(frames, seeds, strict=True)
        ]
        assert torch.equal(together, torch.cat(alone))


def test_one_seed_means_the_same_noise_and_shared_work_is_done_once(pipe):
    frame, other = other_frames(2)
    pipe.control_latents.clear()
    out = pipe(**small_call(first_frame=[frame, frame.copy(), other]))
    assert np.array_equal(out.frames[0], out.frames[1])
    assert not np.array_equal(out.frames[0], out.frames[2])
    assert out.seeds == (42, 42, 42)
    assert out.stats.skeleton_frames == 5  # one encode for three takes
    assert out.stats.first_frame_frames == 2  # two different pictures, one frame each
    assert out.stats.evaluations == 3 * 3 * 2
    assert out.stats.text_encodes == 0


def test_one_frame_many_seeds_gives_different_takes(pipe):
    out = pipe(**small_call(seed=[1, 2]))
    assert out.frames.shape[0] == 2
    assert not np.array_equal(out.frames[0], out.frames[1])


def test_a_run_is_repeatable_and_ignores_torch_seeds(pipe):
    torch.manual_seed(1)
    first = pipe(**small_call()).frames
    torch.manual_seed(2)
    assert np.array_equal(first, pipe(**small_call()).frames)


@pytest.mark.parametrize("tier", [tier.name for tier in TIERS])
def test_every_tier_gives_the_same_take(tier):
    frames = other_frames(2)
    pipe = pipeline()
    expected = pipe(**small_call(first_frame=frames, output_type="pt")).frames
    pipe.enable_memory_tier(tier, "cpu")
    out = pipe(**small_call(first_frame=frames, output_type="pt"))
    assert out.tier == tier
    if pipe.tier.exact or pipe.tier.tiled_decode:  # 64 pixels are below a tile: tiling has nothing to cut here
        assert torch.equal(out.frames, expected)
    assert difference(out.frames, expected) < 1e-4


def test_leaving_group_offload_restores_the_plain_forward():
    pipe = pipeline()
    expected = pipe(**small_call()).frames
    pipe.enable_memory_tier("group-offload", "cpu")
    pipe.enable_memory_tier("resident", "cpu")
    assert np.array_equal(pipe(**small_call()).frames, expected)


def test_release_and_planned_memory_bring_the_model_back():
    pipe = pipeline()
    expected = pipe(**small_call()).frames
    assert pipe.enable_planned_memory("cpu", 64, 64, 5, free_bytes=100 << 30).name == "resident-batched"
    assert pipe.enable_planned_memory("cpu", 64, 64, 5, free_bytes=1).name == "group-offload"
    pipe.release_memory()
    assert difference(pipe(**small_call()).frames, expected) <= 1


def test_memory_is_planned_for_one_window_of_the_model_unless_told_otherwise(monkeypatch):
    from retake.worker.oscar import planner

    pipe, asked = pipeline(), []
    real = planner.plan_for_modules

    def heard(*models, **size):
        asked.append(size)
        return real(*models, **size)

    monkeypatch.setattr(planner, "plan_for_modules", heard)
    pipe.enable_planned_memory("cpu", free_bytes=100 << 30)
    pipe.enable_planned_memory("cpu", 32, 48, 13, free_bytes=100 << 30)
    assert asked == [
        {"num_frames": 81, "height": 480, "width": 640}, {"num_frames": 13, "height": 32, "width": 48}
    ]  # fmt: skip


def failing_forward(pipe, failures):
    real, left = pipe.transformer.forward, [failures]

    def forward(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nmore")
        return real(*args, **kwargs)

    pipe.transformer.forward = forward


def test_out_of_memory_moves_one_tier_down_and_retries_once():
    pipe = pipeline()
    expected = pipe(**small_call()).frames
    failing_forward(pipe, 1)
    out = pipe(**small_call())
    assert (out.tier, out.retried) == ("staged", True)
    assert np.array_equal(out.frames, expected)
    assert out.report()["tier"] == "staged"


def test_a_tier_sends_the_text_encoder_off_the_device():
    """Or the retry one tier down would run beside 13 GiB that it does not need."""
    pipe = text_pipeline()
    moved = []
    pipe.text_encoder.to = lambda device: moved.append(str(device))
    failing_forward(pipe, 1)
    assert pipe(**small_call()).retried
    assert moved == ["cpu"]


def test_a_tier_follows_the_pipeline_to_another_device_and_tiling_stays_on():
    pipe = pipeline()
    expected = pipe(**small_call()).frames
    pipe.enable_vae_tiling()
    pipe.enable_memory_tier("staged", "cpu")
    assert pipe.vae.use_tiling
    pipe._tier_device = torch.device("meta")  # where it was; there is no second real device here
    assert pipe.to("cpu") is pipe
    assert (pipe.run_device.type, pipe.tier.name) == ("cpu", "staged")
    pipe.to(torch.float32)
    assert np.array_equal(pipe(**small_call()).frames, expected)
    pipe.disable_vae_tiling()
    assert not pipe.vae.use_tiling


def test_out_of_memory_goes_down_as_far_as_it_must():
    pipe = pipeline()
    expected = pipe(**small_call()).frames
    failing_forward(pipe, 2)
    out = pipe(**small_call())
    assert (out.tier, out.retried) == ("staged-tiled", True)
    assert out.frames.shape == expected.shape


def test_finished_takes_are_kept_when_a_later_one_runs_out_of_memory():
    """Two takes, three windows: the failing evaluation is in the second take of the second window."""
    call = small_call(skeleton=golden_call()["skeleton"][:13], seed=[1, 2])
    pipe = pipeline()
    expected = pipe(**call).frames
    windows = 3
    counted, real = [], pipe.transformer.forward
    per_take = 2 * 3  # guidance branches x (steps + 1)

    def forward(*arguments, **named):
        counted.append(1)
        if len(counted) == 3 * per_take + 2:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
        return real(*arguments, **named)

    pipe.transformer.forward = forward
    out = pipe(**call)
    assert out.retried
    assert np.array_equal(out.frames, expected)
    assert len(counted) == 2 * windows * per_take + 2  # only the failed take's two evaluations were done again


def test_an_error_that_is_not_about_memory_is_not_tried_again():
    pipe = pipeline()
    pipe.transformer.forward = lambda *_, **__: (_ for _ in ()).throw(
        RuntimeError("CUDA error: an illegal memory access")
    )
    with pytest.raises(RuntimeError, match="illegal memory access"):
        pipe(**small_call())
    assert pipe.tier.name == "resident"


def test_out_of_memory_in_the_smallest_tier_names_it():
    pipe = pipeline()
    pipe.enable_memory_tier("group-offload", "cpu")
    pipe.vae.encode = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no"))
    with pytest.raises(TakeError, match="smallest tier"):
        pipe(**small_call())


# -- length and first frame -------------------------------------------------------------------------------------------


def test_short_skeleton_is_frozen_and_cut_back(pipe):
    skeleton = golden_call()["skeleton"]
    call = {"num_frames": 13, "output_type": "np"}
    out = pipe(**small_call(skeleton=skeleton[:6], **call))
    frozen = np.concatenate([skeleton[:6], np.repeat(skeleton[5:6], 7, axis=0)])
    assert out.frames.shape[1] == 6
    assert np.array_equal(out.frames, pipe(**small_call(skeleton=frozen, **call)).frames[:, :6])
    assert out.windows[0].padding == 7
    latents = pipe(**small_call(skeleton=skeleton[:6], **{**call, "output_type": "latent"})).frames
    assert latents.shape[2] == 3  # 3 latent frames cover 6 pixel frames


@pytest.mark.parametrize("count", [6, 7, 8, 9])
def test_frame_counts_off_the_grid_lose_no_frame(pipe, count):
    out = pipe(**small_call(skeleton=golden_call()["skeleton"][:count], num_frames=count))
    assert out.frames.shape[1] == count
    assert out.windows[0].length == 9


def test_long_skeleton_equals_chaining_by_hand(pipe):
    skeleton = golden_call()["skeleton"][:12]
    out = pipe(**small_call(skeleton=skeleton))
    assert [(w.start, w.stop, w.length) for w in out.windows] == [(0, 5, 5), (4, 9, 5), (8, 12, 5)]
    first = pipe(**small_call(skeleton=skeleton[:5])).frames[0]
    second = pipe(**small_call(skeleton=skeleton[4:9], first_frame=first[-1], seed=42 + 7919)).frames[0]
    third = pipe(**small_call(skeleton=skeleton[8:], first_frame=second[-1], seed=42 + 2 * 7919)).frames[0]
    assert np.array_equal(out.frames[0], np.concatenate([first, second[1:], third[1:]]))
    assert [seam.frame for seam in out.seams[0]] == [4, 8]
    assert all(np.isfinite(seam.jump) for seam in out.seams[0])
    assert out.report()["windows"][2]["padding"] == 1


def test_long_takes_are_independent_too(pipe):
    frames = other_frames(2)
    call = {"skeleton": golden_call()["skeleton"][:9]}
    together = pipe(**small_call(first_frame=frames, **call)).frames
    assert np.array_equal(together[1], pipe(**small_call(first_frame=frames[1], **call)).frames[0])


def test_exact_first_frame_returns_the_frame_itself_and_default_does_not(pipe):
    frame = golden_call()["first_frame"]
    exact, default = pipe(**small_call(exact_first_frame=True)), pipe(**small_call())
    assert np.array_equal(exact.frames[0, 0], frame)
    assert not np.array_equal(default.frames[0, 0], frame)
    latents = pipe(**small_call(exact_first_frame=True, output_type="latent")).frames
    given = vae_stage.encode(pipe.vae, frame[None])
    assert torch.equal(latents[:, :, :1], given)
    free = pipe(**small_call(output_type="latent")).frames
    noise = make_noise(42, (1, 16, 2, 8, 8))[:, :, :1]
    assert difference(free[:, :, :1], given * 200 / 201 + noise / 201) < 1e-5  # the reference's frame 0
    assert torch.equal(latents[:, :, 1:], free[:, :, 1:])
    pt = pipe(**small_call(exact_first_frame=True, output_type="pt")).frames
    assert np.array_equal((pt[0, 0] * 255).round().byte().permute(1, 2, 0).numpy(), frame)


def test_one_frame_window_is_a_picture(pipe):
    out = pipe(**small_call(skeleton=golden_call()["skeleton"][:1], num_frames=1))
    assert out.frames.shape == (1, 1, 64, 64, 3)


# -- diffusers habits -------------------------------------------------------------------------------------------------


def test_callback_sees_every_step_and_can_replace_latents(pipe):
    seen = []

    def zero(owner, step, timestep, given):
        seen.append((owner is pipe, step, sorted(given)))
        return {"latents": torch.zeros_like(given["latents"])} if step == 2 else {}

    latents = pipe(**small_call(output_type="latent"), callback_on_step_end=zero).frames
    assert seen == [(True, 0, ["latents"]), (True, 1, ["latents"]), (True, 2, ["latents"])]
    assert not latents.any()


def test_cancel_stops_at_the_next_step_and_the_pipeline_stays_usable(pipe):
    expected = pipe(**small_call()).frames
    with pytest.raises(Cancelled):
        pipe(**small_call(), callback_on_step_end=lambda p, *_: p.cancel())
    assert np.array_equal(pipe(**small_call()).frames, expected)


def test_save_and_load_keep_every_bit(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "copy")
    again = OscarPipeline.from_pretrained(tmp_path / "copy", torch_dtype=torch.float32)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(again(**small_call()).frames, pipe(**small_call()).frames)


def test_tuple_output_and_pictures_as_pil_or_path(pipe, tmp_path):
    frame = golden_call()["first_frame"]
    Image.fromarray(frame).save(tmp_path / "first.png")
    np.save(tmp_path / "skeleton.npy", small_call()["skeleton"])
    (frames,) = pipe(**small_call(first_frame=Image.fromarray(frame)), return_dict=False)
    assert np.array_equal(frames, pipe(**small_call()).frames)
    by_path = pipe(**small_call(first_frame=tmp_path / "first.png", skeleton=str(tmp_path / "skeleton.npy")))
    assert np.array_equal(frames, by_path.frames)


def test_bfloat16_pipeline_runs_and_returns_float32_latents():
    pipe = pipeline(torch_dtype=torch.bfloat16)
    assert (pipe.transformer.dtype, pipe.vae.dtype) == (torch.bfloat16, torch.bfloat16)
    latents = pipe(**golden_call(output_type="latent")).frames
    assert latents.dtype == torch.float32
    reference = tensors("sampling_run")["latents_final"]
    assert float((latents - reference).square().mean().sqrt() / reference.square().mean().sqrt()) < 0.05


def test_safety_checker_can_refuse_prompts_and_frames(pipe):
    class Checker:
        def check_prompt(self, prompt):
            return "a forbidden word" if "forbidden" in prompt else None

        def check_frames(self, frames):
            assert frames.dtype == np.uint8
            assert frames.ndim == 4
            return "too dark" if self.strict else None

    checker = Checker()
    guarded = OscarPipeline.from_pretrained(text_model(), torch_dtype=torch.float32, safety_checker=checker)
    guarded.set_progress_bar_config(disable=True)
    checker.strict = False
    with pytest.raises(TakeError, match="refused the prompt: a forbidden word"):
        guarded(**small_call(prompt="forbidden", prompt_embeds=None))
    assert guarded(**small_call()).frames.shape[1] == 5
    checker.strict = True
    with pytest.raises(TakeError, match="refused the take: too dark"):
        guarded(**small_call())
    with pytest.raises(InputError, match="cannot be checked"):
        guarded(**small_call(output_type="latent"))


# -- overlap and approximate modes ------------------------------------------------------------------------------------


def test_overlapped_decode_runs_in_the_background(monkeypatch):
    pipe = pipeline()
    threads = []
    real = vae_stage.decode
    monkeypatch.setattr(
        run_module.vae_stage, "decode", lambda *a: (threads.append(threading.current_thread().name), real(*a))[1]
    )
    pipe.enable_memory_tier("resident-overlap", "cpu")
    pipe(**small_call(first_frame=other_frames(2)))
    assert all(name.startswith("retake-decode") for name in threads)
    assert len(threads) == 2


def test_an_error_in_the_background_decode_is_raised(monkeypatch):
    pipe = pipeline()
    pipe.enable_memory_tier("resident-overlap", "cpu")
    monkeypatch.setattr(run_module.vae_stage, "decode", lambda *_: (_ for _ in ()).throw(RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        pipe(**small_call(first_frame=other_frames(2)))


def test_first_block_cache_saves_blocks_is_labelled_and_can_be_turned_off():
    pipe = pipeline()
    calls = [0]
    pipe.transformer.transformer_blocks[1].attn1.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    call = small_call(num_inference_steps=20)
    exact = pipe(**call)
    exact_calls, calls[0] = calls[0], 0
    assert exact_calls == 42
    pipe.enable_approximation("first-block-cache", threshold=0.2)
    first = pipe(**call)
    assert calls[0] < exact_calls
    assert first.approximations == ("first-block-cache:0.2", "steps:20")
    assert np.array_equal(pipe(**call).frames, first.frames)  # no state leaks from one take into the next
    pipe.disable_approximations()
    again = pipe(**call)
    assert again.approximations == ("steps:20",)
    assert np.array_equal(again.frames, exact.frames)


def test_fp8_storage_is_labelled_and_irreversible():
    pipe = pipeline(torch_dtype=torch.bfloat16)
    exact = pipe(**small_call(output_type="latent")).frames
    pipe.enable_approximation("fp8-storage")
    assert pipe.transformer.transformer_blocks[0].ff.net[2].weight.dtype == torch.float8_e4m3fn
    assert pipe.transformer.transformer_blocks[0].norm1.linear_1.weight.dtype == torch.bfloat16
    out = pipe(**small_call(output_type="latent"))
    assert out.approximations == ("fp8-storage", "steps:2")
    assert bool(torch.isfinite(out.frames).all())
    assert not torch.equal(out.frames, exact)
    with pytest.raises(InputError, match="load the pipeline again"):
        pipe.disable_approximations()


def test_defaults_are_exact(pipe):
    assert pipe.approximations == ()
    assert not pipe.transformer.is_cache_enabled
    with pytest.raises(InputError, match="valid: first-block-cache, fp8"):
        pipe.enable_approximation("magic")


# -- bad input --------------------------------------------------------------------------------------------------------

NAN = torch.full((1, 12, 96), float("nan"))
BAD = {
    "empty skeleton": ({"skeleton": np.zeros((0, 64, 64, 3), np.uint8)}, "skeleton is empty"),
    "no skeleton frames": ({"skeleton": []}, "skeleton is empty"),
    "float skeleton": ({"skeleton": np.zeros((5, 64, 64, 3))}, "holds float64; give uint8"),
    "grey skeleton": ({"skeleton": np.zeros((5, 64, 64), np.uint8)}, "expected .T, H, W, 3."),
    "missing skeleton": ({"skeleton": "nowhere.mp4"}, "no skeleton at nowhere.mp4"),
    "alpha frame": ({"first_frame": np.zeros((64, 64, 4), np.uint8)}, "expected .H, W, 3."),
    "no frames": ({"first_frame": []}, "empty list"),
    "missing frame": ({"first_frame": "nowhere.png"}, "cannot read the first frame"),
    "nan embeddings": ({"prompt_embeds": NAN}, "1152 values that are NaN"),
    "nan negative": ({"negative_prompt_embeds": NAN}, "negative_prompt_embeds holds"),
    "narrow embeddings": ({"prompt_embeds": torch.zeros(1, 12, 64)}, r"expected \(1, L, 96\)"),
    "flat embeddings": ({"prompt_embeds": torch.zeros(12, 96)}, r"expected \(1, L, 96\)"),
    "integer embeddings": ({"prompt_embeds": torch.zeros(1, 12, 96, dtype=torch.long)}, "floating-point"),
    "both prompts": ({"prompt": "x"}, "found both"),
    "no prompt": ({"prompt_embeds": None}, "found neither"),
    "odd height": ({"height": 60}, "multiple of 16"),
    "no steps": ({"num_inference_steps": 0}, "valid: 1 to 999"),
    "fractional steps": ({"num_inference_steps": 2.5}, "whole number"),
    "guidance text": ({"guidance_scale": "much"}, "guidance_scale is 'much'"),
    "number as prompt": ({"prompt": 3, "prompt_embeds": None}, "prompt must be a text"),
    "infinite guidance": ({"guidance_scale": float("inf")}, "finite"),
    "negative seed": ({"seed": -1}, "0 to 4294967295"),
    "no seeds": ({"seed": []}, "empty list"),
    "mismatched counts": ({"first_frame": other_frames(2), "seed": [1, 2, 3]}, "first_frame has 2 entries for 3 takes"),
    "no window": ({"num_frames": 0}, "1 . 4k"),
    "output type": ({"output_type": "gif"}, "valid: latent, np, pt"),
    "fit name": ({"fit": "stretch"}, "valid: squeeze, crop, letterbox, error"),
    "long latents": ({"skeleton": golden_call()["skeleton"][:9], "output_type": "latent"}, "one window only"),
    "too large": ({"num_frames": 2000}, "exceed the model's largest latent"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error_before_any_work(pipe, case, monkeypatch):
    changes, message = BAD[case]
    monkeypatch.setattr(pipe, "stage", None)  # any work would fail differently
    with pytest.raises(InputError, match=message) as caught:
        pipe(**small_call(**changes))
    assert "\n" not in str(caught.value)


def test_another_aspect_ratio_is_refused_under_fit_error(pipe):
    wide = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(InputError, match=r"first_frame is 96x64 .*fit='error' forbids"):
        pipe(**small_call(first_frame=wide, fit="error"))
    assert pipe(**small_call(first_frame=wide)).first_frame_fits[0].source == (96, 64)
    pipe(**small_call(first_frame=np.zeros((128, 128, 3), np.uint8), fit="error"))  # same aspect, other size


def test_damaged_weights_are_an_error_not_a_black_video():
    pipe = pipeline()
    with torch.no_grad():
        pipe.transformer.proj_out.weight.fill_(float("nan"))
    with pytest.raises(TakeError, match="became NaN"):
        pipe(**small_call())
    pipe = pipeline()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(TakeError, match=r"decoding gave NaN .*torch.float32"):
        pipe(**small_call())


def test_foreign_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no model folder"):
        OscarPipeline.from_pretrained(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no model_index.json"):
        OscarPipeline.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="unknown memory tier"):
        pipeline().enable_memory_tier("huge")


def test_nothing_in_the_run_path_unpickles(monkeypatch):
    import pickle

    def refuse(*_args, **_kwargs):
        raise AssertionError("unpickled")

    converted()
    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    pipeline()(**small_call())


def test_object_video_reaches_a_model_with_an_object_embedding():
    """Zero weights change nothing, trained ones do, in every tier alike; other models refuse the video."""
    video = golden_call()["skeleton"][:, ::-1].copy()
    plain = pipeline()
    before = plain(**golden_call(output_type="latent")).frames
    with pytest.raises(InputError, match="no object embedding"):
        plain(**golden_call(object_video=video))
    plain.transformer.add_object_embed(16)
    with pytest.raises(InputError, match="give object_video"):
        plain(**golden_call())
    assert torch.equal(plain(**golden_call(object_video=video, output_type="latent")).frames, before)
    torch.nn.init.normal_(
        plain.transformer.object_embed.proj.weight, std=0.2, generator=torch.Generator().manual_seed(1)
    )
    trained = plain(**golden_call(object_video=video, output_type="latent")).frames
    assert difference(trained, before) > 1e-3
    with pytest.raises(InputError, match="they must agree"):
        plain(**golden_call(object_video=video[:3]))


def test_takes_of_their_own_share_the_skeleton_encode():
    pipe = pipeline()
    first, second = pipe(**small_call(seed=1)), pipe(**small_call(seed=2))
    assert (first.stats.skeleton_frames, second.stats.skeleton_frames) == (5, 0)
    other = small_call(seed=2, skeleton=golden_call()["skeleton"][::-1].copy())
    assert pipe(**other).stats.skeleton_frames > 0
    fresh = pipeline()
    assert np.array_equal(fresh(**small_call(seed=2)).frames, second.frames)
