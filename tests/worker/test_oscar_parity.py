# SPDX-License-Identifier: Apache-2.0
"""Numbers of the reference, float32 on the CPU, from the real checkpoint format; and changes that must break them.

They hold retake.worker.oscar.transformer and its parts, retake.worker.oscar.layers, to what was published.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from oscar_golden import GOLDEN, difference, golden_call, pipeline, tensors, text_folder

from retake.worker.oscar import sampler, schedule, text
from retake.worker.oscar import vae as vae_stage
from retake.worker.oscar.sources import text_part

pytestmark = pytest.mark.parity
FORWARD, SAMPLING, VAE, TEXT = 1e-5, 1e-4, 1e-5, 1e-5


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def forward(model, **changes):
    golden = tensors("dit_forward")
    arguments = {
        "hidden_states": torch.cat([golden["x_B_C_T_H_W"], golden["i2v_WAN2PT1_cond_latents"]], dim=1),
        "timestep": (golden["timesteps_B_T"] * 0.001)[:, None, :, None, None],
        "encoder_hidden_states": golden["crossattn_emb"],
        "condition_mask": golden["condition_video_input_mask_B_C_T_H_W"],
        "padding_mask": golden["padding_mask"],
    }
    with torch.no_grad():
        return model(**{**arguments, **changes}).sample


def test_forward(pipe):
    assert difference(forward(pipe.transformer), tensors("dit_forward")["output"]) <= FORWARD


def test_forward_with_another_padding_mask(pipe):
    golden = tensors("dit_forward")
    out = forward(pipe.transformer, padding_mask=golden["padding_mask_b"])
    assert difference(out, golden["output_padding_mask_b"]) <= FORWARD
    assert difference(out, golden["output"]) > 100 * FORWARD


def test_forward_without_control(pipe):
    golden = tensors("dit_forward")
    out = forward(
        pipe.transformer, hidden_states=torch.cat([golden["x_B_C_T_H_W"], torch.zeros(1, 16, 5, 8, 8)], dim=1)
    )
    assert difference(out, golden["output_zero_control"]) <= FORWARD
    assert difference(out, golden["output"]) > 100 * FORWARD


def test_forward_from_shared_control_tokens_and_projected_text(pipe):
    """What the sampling loop calls: the same numbers, bit for bit."""
    golden, model = tensors("dit_forward"), pipe.transformer
    with torch.no_grad():
        shared = forward(
            model,
            hidden_states=golden["x_B_C_T_H_W"],
            control_tokens=model.embed_control(golden["i2v_WAN2PT1_cond_latents"]),
            encoder_hidden_states=model.project_text(golden["crossattn_emb"]),
            text_is_projected=True,
            padding_mask=None,
        )
    assert torch.equal(shared, forward(model))


def folded(state):
    """Our state dict under diffusers' class: [X | 0.1 A] as one patch embed."""
    state = dict(state)
    main, control = state.pop("patch_embed.proj.weight"), state.pop("control_embed.proj.weight")
    return {**state, "patch_embed.proj.weight": torch.cat([main[:, :64], 0.1 * control, main[:, 64:]], dim=1)}


def stock_model(config, state):
    """diffusers' own Cosmos transformer with these weights, q/k-norm eps corrected; the padding mask is a channel."""
    from diffusers import CosmosTransformer3DModel

    stock = CosmosTransformer3DModel(
        in_channels=34, out_channels=16, num_attention_heads=config["num_attention_heads"],
        attention_head_dim=config["attention_head_dim"], num_layers=config["num_layers"],
        mlp_ratio=config["mlp_ratio"], text_embed_dim=config["text_embed_dim"],
        adaln_lora_dim=config["adaln_lora_dim"], rope_scale=(1.0, 3.0, 3.0), concat_padding_mask=False,
        extra_pos_embed_type=None, use_crossattn_projection=True,
        crossattn_proj_in_channels=config["crossattn_proj_in_channels"],
        encoder_hidden_states_channels=config["text_embed_dim"],
    ).eval()  # fmt: skip
    stock.load_state_dict(folded(state))
    for name, module in stock.named_modules():
        if name.endswith(("norm_q", "norm_k")):
            module.eps = 1e-6
    return stock


def against_stock(seed):
    """Largest difference of our forward from diffusers' on a random architecture, size, batch and timesteps."""
    from retake.worker.oscar import OscarTransformer3DModel

    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    config = {
        "num_attention_heads": int(rng.integers(1, 5)), "attention_head_dim": int(rng.choice([24, 32, 40, 64])),
        "num_layers": int(rng.integers(1, 4)), "mlp_ratio": float(rng.choice([2.0, 4.0])),
        "text_embed_dim": int(rng.choice([32, 48])), "crossattn_proj_in_channels": int(rng.choice([40, 96])),
        "adaln_lora_dim": int(rng.choice([8, 16])),
    }  # fmt: skip
    ours = OscarTransformer3DModel(**config).eval()
    stock = stock_model(config, ours.state_dict())
    batch, frames, height, width = (
        int(n) for n in (rng.integers(1, 3), rng.integers(1, 6), *(2 * rng.integers(2, 7, 2)))
    )
    video = torch.randn(batch, 32, frames, height, width, generator=generator)
    mask = torch.randint(0, 2, (batch, 1, frames, 1, 1), generator=generator).float().expand(-1, -1, -1, height, width)
    text = torch.randn(batch, int(rng.integers(3, 20)), config["crossattn_proj_in_channels"], generator=generator)
    times = torch.rand(batch, 1, frames, 1, 1, generator=generator)
    with torch.no_grad():
        expected = stock(torch.cat([video, mask, torch.zeros_like(mask)], dim=1), times, text).sample
        return difference(ours(video, times, text, condition_mask=mask).sample, expected)


@pytest.mark.parametrize("seed", range(24 if os.environ.get("RETAKE_FULL") == "1" else 4))
def test_forward_equals_the_stock_class_on_any_architecture(seed):
    assert against_stock(seed) <= FORWARD


def test_forward_equals_the_stock_class_on_the_golden_weights(pipe):
    golden = tensors("dit_forward")
    mask = golden["condition_video_input_mask_B_C_T_H_W"]
    video = torch.cat([golden["x_B_C_T_H_W"], golden["i2v_WAN2PT1_cond_latents"], mask, torch.zeros_like(mask)], dim=1)
    times = (golden["timesteps_B_T"] * 0.001)[:, None, :, None, None]
    with torch.no_grad():
        out = stock_model(pipe.transformer.config, pipe.transformer.state_dict())(video, times, golden["crossattn_emb"])
    assert difference(out.sample, forward(pipe.transformer)) <= FORWARD


@pytest.mark.parametrize("change", ["weight", "rope"])
def test_a_changed_network_breaks_the_forward(change):
    model = pipeline().transformer
    if change == "weight":
        with torch.no_grad():
            model.transformer_blocks[0].attn1.to_v.weight.mul_(1.01)
    else:
        cos, sin = model.rope_tables(5, 8, 8, torch.device("cpu"))
        angle = torch.atan2(sin, cos) * 0.9
        key = next(iter(model._rope_cache))
        model._rope_cache = {key: (angle.cos(), angle.sin())}
    assert difference(forward(model), tensors("dit_forward")["output"]) > 100 * FORWARD


@pytest.mark.parametrize("steps", [1, 4, 5, 10, 20, 35, 50])
def test_schedule_is_exact(steps):
    golden = json.loads((GOLDEN / "schedules.json").read_text())[str(steps)]
    scheduler = schedule.make_scheduler()
    timesteps = schedule.start_schedule(scheduler, steps, "cpu")
    assert timesteps.tolist() == golden["timesteps"]
    assert scheduler.sigmas.tolist() == golden["sigmas"]


def test_unipc_on_golden_velocities_is_exact():
    run = tensors("sampling_run")
    scheduler = schedule.make_scheduler()
    state = run["noise"]
    for index, timestep in enumerate(schedule.start_schedule(scheduler, 5, "cpu")):
        state = scheduler.step(run["velocity_cfg"][index], timestep, state, return_dict=False)[0]
        assert torch.equal(state, run["sample_out"][index])


@pytest.mark.parametrize(
    "change", [{"solver_type": "bh1"}, {"solver_order": 1}, {"disable_corrector": [1, 2, 3, 4, 5]}]
)
def test_another_solver_leaves_the_golden_steps(change):
    run = tensors("sampling_run")
    scheduler = type(schedule.make_scheduler())(**{**schedule.SCHEDULER_CONFIG, **change})
    state, worst = run["noise"], 0.0
    for index, timestep in enumerate(schedule.start_schedule(scheduler, 5, "cpu")[:5]):
        state = scheduler.step(run["velocity_cfg"][index], timestep, state, return_dict=False)[0]
        worst = max(worst, difference(state, run["sample_out"][index]))
    assert worst > 1e-3


def test_noise_and_network_timesteps_are_exact():
    run = tensors("sampling_run")
    assert torch.equal(schedule.make_noise(42, (1, 16, 5, 8, 8)), run["noise"])
    for index, timestep in enumerate(run["timesteps"].tolist()):
        assert difference(schedule.net_timesteps(timestep, 5, "cpu") / 0.001, run["net_timesteps"][index]) < 1e-4


def test_sampling_run_step_by_step(pipe):
    run = tensors("sampling_run")
    seen = []

    def remember(_, index, timestep, given):
        seen.append((index, timestep))
        assert difference(given["latents"], run["sample_out"][index]) <= SAMPLING
        assert difference(given["velocity"], run["velocity_cfg"][index]) <= 10 * SAMPLING  # guidance amplifies by 13
        return {}

    pipe(
        **golden_call(output_type="latent"),
        callback_on_step_end=remember,
        callback_on_step_end_tensor_inputs=["latents", "velocity"],
    )
    assert seen == list(enumerate(run["timesteps"].tolist()))


def test_sampling_run_latents_and_frames(pipe):
    run = tensors("sampling_run")
    latents = pipe(**golden_call(output_type="latent")).frames
    assert latents.dtype == torch.float32
    assert latents.shape == (1, 16, 5, 8, 8)
    assert difference(latents, run["latents_final"]) <= SAMPLING
    expected = run["video_out"].clamp(-1, 1)
    video = pipe(**golden_call(output_type="pt")).frames
    assert difference(video.transpose(1, 2) * 2 - 1, expected) <= SAMPLING
    frames = pipe(**golden_call()).frames
    assert (frames.dtype, frames.shape) == (np.uint8, (1, 17, 64, 64, 3))
    reference = ((expected + 1) / 2 * 255).to(torch.uint8)[0].permute(1, 2, 3, 0).numpy()
    assert np.abs(frames[0].astype(int) - reference).max() <= 1  # a value on the edge may truncate either way
    assert (frames[0] != reference).mean() < 1e-3


def overwritten_state(transformer, conditions, state, timesteps, batched, index):
    """A wrong first-frame rule: the network is shown the running latents, not the given frame."""
    wrong = sampler.Conditions(
        conditions.noise, state[:, :, :1], conditions.control, conditions.text, conditions.negative
    )
    return EVALUATE(transformer, wrong, state, timesteps, batched, index)


def uniform_timesteps(timestep, frames, device):
    """A wrong first-frame rule: frame 0 is shown the noisy frames' timestep."""
    return torch.full((1, frames), float(timestep)) * 0.001


EVALUATE = sampler.evaluate


@pytest.mark.parametrize(
    "wrong",
    ["order 1", "no corrector", "shift instead of Karras", "first frame shown", "first frame time",
     "guidance form", "seed", "guidance", "steps", "control"],
)  # fmt: skip
def test_wrong_rules_break_the_sampling_run(wrong, monkeypatch):
    pipe = pipeline()
    changes = {}
    if wrong == "order 1":
        pipe.scheduler.register_to_config(solver_order=1)
    elif wrong == "no corrector":
        pipe.scheduler.register_to_config(disable_corrector=list(range(10)))
    elif wrong == "shift instead of Karras":
        pipe.scheduler.register_to_config(use_karras_sigmas=False, flow_shift=5.0)
    elif wrong == "first frame shown":
        monkeypatch.setattr(sampler, "evaluate", overwritten_state)
    elif wrong == "first frame time":
        monkeypatch.setattr(sampler, "net_timesteps", uniform_timesteps)
    elif wrong == "guidance form":
        monkeypatch.setattr(sampler, "guide", lambda c, u, g: u + g * (c - u))
    elif wrong == "seed":
        changes = {"seed": 43}
    elif wrong == "guidance":
        changes = {"guidance_scale": 7.0}
    elif wrong == "steps":
        changes = {"num_inference_steps": 6}
    elif wrong == "control":
        changes = {"skeleton": golden_call()["skeleton"][::-1].copy()}
    latents = pipe(**golden_call(output_type="latent", **changes)).frames
    assert difference(latents, tensors("sampling_run")["latents_final"]) > 10 * SAMPLING


def test_exact_sigma_as_network_timestep_breaks_the_sampling_run(monkeypatch):
    """The reference truncates 1000 * sigma; feeding sigma itself is the stock pipeline's way."""
    sigmas = dict(
        zip(tensors("sampling_run")["timesteps"].tolist(), tensors("sampling_run")["sigmas"].tolist(), strict=False)
    )
    real = sampler.net_timesteps
    monkeypatch.setattr(sampler, "net_timesteps", lambda t, n, d: real(1000 * sigmas[t], n, d))
    latents = pipeline()(**golden_call(output_type="latent")).frames
    assert difference(latents, tensors("sampling_run")["latents_final"]) > SAMPLING


def test_vae_encode_and_decode(pipe):
    golden = tensors("vae")
    with np.load(GOLDEN / "vae_pixels33.npz") as data:
        video = data["video"]
    assert difference(vae_stage.encode(pipe.vae, video), golden["latents_t33"]) <= VAE
    decoded = vae_stage.decode(pipe.vae, golden["latents_t33"])
    assert difference(decoded, golden["decoded_t33"].clamp(-1, 1)) <= VAE


def test_one_frame_encode_equals_the_reference_video_encode(pipe):
    """The reference encodes the first frame as a whole video; only latent frame 0 is used, and it sees frame 0 alone."""
    one = vae_stage.encode(pipe.vae, golden_call()["first_frame"][None])
    assert difference(one, tensors("vae")["latents_tiled"][:, :, :1]) <= VAE
    assert difference(one, tensors("sampling_run")["first_frame_latents"][:, :, :1]) <= VAE


def test_vae_statistics_in_bfloat16_round_as_the_reference_does(pipe):
    exact_mean, exact = vae_stage.statistics(pipe.vae)
    narrow = torch.nn.Module.to(pipeline().vae, torch.bfloat16)
    mean, rounded = vae_stage.statistics(narrow)
    assert mean.dtype == rounded.dtype == torch.bfloat16
    assert difference(mean, exact_mean) == pytest.approx(3.9e-3, abs=1e-4)
    assert float((rounded.float() / exact - 1).abs().max()) == pytest.approx(4.1e-3, abs=1e-4)


def text_embeddings(normalise=None, monkeypatch=None):
    from oscar_golden import scratch
    from transformers import Qwen2_5_VLTextModel

    part = text_part(text_folder(scratch() / "golden-text"))
    model = Qwen2_5_VLTextModel(part.config).eval()
    model.load_state_dict({name: entry.load() for name, entry in part.tensors.items()})
    if normalise is not None:
        monkeypatch.setattr(text, "normalise", normalise)
    return text.embed(model, tensors("text_encoder")["input_ids"])


def test_text_embeddings():
    assert difference(text_embeddings(), tensors("text_encoder")["embeddings"]) <= TEXT


def test_biased_deviation_breaks_the_text_embeddings(monkeypatch):
    def biased(h):
        return (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True, correction=0) + 1e-8)

    out = text_embeddings(biased, monkeypatch)
    assert difference(out, tensors("text_encoder")["embeddings"]) > 100 * TEXT


def test_bf16_checkpoint_gives_the_rounded_weights_and_their_numbers(pipe):
    """The bfloat16 variant of the checkpoint: its weights are the float32 ones rounded, and so is its run."""
    narrow = pipeline("dcp_quirks")
    rounded = pipeline()
    with torch.no_grad():
        for parameter in rounded.transformer.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    ours, theirs = narrow.transformer.state_dict(), rounded.transformer.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    latents = narrow(**golden_call(output_type="latent")).frames
    assert torch.equal(latents, rounded(**golden_call(output_type="latent")).frames)
    assert difference(latents, tensors("sampling_run")["latents_final"]) > SAMPLING  # rounding is visible


def test_bf16_run_keeps_the_float32_policy():
    """In bfloat16 the state, the timestep embedding, modulation and final layer stay float32."""
    model = pipeline(torch_dtype=torch.bfloat16).transformer
    assert model.dtype == torch.bfloat16
    seen = {}
    for name in (
        "time_embed.norm",
        "time_embed.t_embedder.linear_2",
        "transformer_blocks.0.norm1.linear_2",
        "proj_out",
    ):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.dtype}))
    model.get_submodule("transformer_blocks.0.ff").register_forward_hook(lambda _m, _i, out: seen.update(ff=out.dtype))
    out = forward(model)
    assert seen.pop("ff") == torch.bfloat16
    assert set(seen.values()) == {torch.float32}
    assert len(seen) == 4
    rms = float((out - tensors("dit_forward")["output"]).square().mean().sqrt())
    assert rms < 0.0121  # below a plain bfloat16 forward (reference figure, rms of the output 1.24)
