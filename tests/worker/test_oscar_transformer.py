# SPDX-License-Identifier: Apache-2.0
"""What the transformer takes in which form, and that no way to run it (batched, fused, checkpointed) changes what it says.
Its numbers are held by test_oscar_parity; its parts are those of retake.worker.oscar.layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from retake.worker.oscar.costs import FULL_TRANSFORMER, meta_transformer
from retake.worker.oscar.fused import set_kernels
from retake.worker.oscar.transformer import OscarTransformer3DModel

SMALL = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 24, "text_embed_dim": 16,
         "crossattn_proj_in_channels": 20, "adaln_lora_dim": 4, "mlp_ratio": 2.0}  # fmt: skip
FRAMES, HEIGHT, WIDTH = 3, 4, 6
torch.set_num_threads(1)


def made(**changes: Any) -> OscarTransformer3DModel:
    torch.manual_seed(0)
    return OscarTransformer3DModel(**{**SMALL, **changes}).eval()


def inputs(batch: int = 1, seed: int = 1) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 32, FRAMES, HEIGHT, WIDTH, generator=draw),
        "timestep": torch.rand(batch, FRAMES, generator=draw),
        "encoder_hidden_states": torch.randn(batch, 5, 20, generator=draw),
        "condition_mask": torch.randint(0, 2, (batch, 1, FRAMES, 1, 1), generator=draw).float().expand(-1, -1, -1, HEIGHT, WIDTH),
    }  # fmt: skip


def run(model: OscarTransformer3DModel, given: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**given).sample


@pytest.fixture(scope="module")
def model() -> OscarTransformer3DModel:
    return made()


def test_without_a_word_it_has_the_published_size():
    found = meta_transformer({}, torch.float32).config
    assert {name: found[name] for name in FULL_TRANSFORMER} == FULL_TRANSFORMER
    assert found["object_channels"] == 0
    frames, height, width = found["max_size"]
    assert frames >= 21
    assert (height, width) >= (60, 80)


def test_what_is_left_out_is_nothing(model):
    given = inputs()
    plain = run(model, {**given, "condition_mask": None})
    zeros = {"condition_mask": torch.zeros(1, 1, FRAMES, HEIGHT, WIDTH), "padding_mask": torch.zeros(1, 1, 9, 9)}
    assert torch.equal(run(model, {**given, **zeros}), plain)
    assert not torch.equal(run(model, given), plain)
    padding = torch.zeros(1, 1, HEIGHT, WIDTH)
    padding[..., 2:] = 1
    padded = run(model, {**given, "padding_mask": padding})
    assert not torch.equal(padded, run(model, given))
    larger = padding.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert torch.equal(run(model, {**given, "padding_mask": larger}), padded)
    with torch.no_grad():
        assert torch.equal(model(**given, return_dict=False)[0], model(**given).sample)
    assert run(model, given).dtype == torch.float32


def test_a_time_may_be_given_in_three_forms(model):
    given = inputs(2)
    times = given["timestep"]
    assert torch.equal(run(model, {**given, "timestep": times[:, None, :, None, None]}), run(model, given))
    one = times[:, :1]
    same = run(model, {**given, "timestep": one.expand(-1, FRAMES)})
    assert torch.equal(run(model, {**given, "timestep": one[:, 0]}), same)
    assert torch.equal(run(model, {**given, "timestep": one}), same)
    with pytest.raises(ValueError, match="timestep has shape"):
        run(model, {**given, "timestep": times[:, None]})


def test_every_frame_has_its_own_time_and_every_video_its_own_text(model):
    given = inputs(2)
    both = run(model, given)
    for k in range(2):
        alone = run(model, {name: value[k : k + 1] for name, value in given.items()})
        torch.testing.assert_close(both[k : k + 1], alone, atol=1e-5, rtol=1e-5)
    changed = given["timestep"].clone()
    changed[0, 1] += 0.5
    other = run(model, {**given, "timestep": changed})
    assert not torch.allclose(other[0], both[0], atol=1e-4)
    torch.testing.assert_close(other[1], both[1], atol=1e-5, rtol=1e-5)


def test_the_skeleton_may_come_as_latents_or_as_tokens_that_videos_share(model):
    given = inputs(2)
    given["hidden_states"][:, 16:] = given["hidden_states"][:1, 16:]
    latents, control = given["hidden_states"].split(16, dim=1)
    with torch.no_grad():
        tokens = model.embed_control(control[:1])
        text = model.project_text(given["encoder_hidden_states"])
    assert tokens.shape == (1, FRAMES * HEIGHT * WIDTH // 4, 48)
    shared = {**given, "hidden_states": latents, "control_tokens": tokens, "encoder_hidden_states": text}
    found = run(model, {**shared, "text_is_projected": True})
    torch.testing.assert_close(found, run(model, given), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(
        run(model, {**shared, "text_is_projected": True, "control_tokens": 0 * tokens}), found, atol=1e-4
    )
    for channels in (16, 31, 33):
        with pytest.raises(ValueError, match=r"give 16 latent \+ 16 control channels, or 16 and control_tokens"):
            run(model, {**given, "hidden_states": torch.zeros(2, channels, FRAMES, HEIGHT, WIDTH)})


def test_objects_change_nothing_until_they_are_learnt():
    model, given = made(), inputs()
    objects = torch.randn(1, 7, FRAMES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3))
    plain = run(model, given)
    with pytest.raises(ValueError, match="has no object embedding"):
        run(model, {**given, "object_latents": objects})
    model.add_object_embed(7)
    assert model.config["object_channels"] == 7
    assert torch.equal(run(model, {**given, "object_latents": objects}), plain)
    torch.nn.init.normal_(model.object_embed.proj.weight)
    moved = run(model, {**given, "object_latents": objects})
    assert not torch.allclose(moved, plain, atol=1e-4)
    assert torch.equal(run(model, given), plain)
    # what objects add stands beside the skeleton's tokens, at full weight
    latents, control = given["hidden_states"].split(16, dim=1)
    with torch.no_grad():
        tokens = model.embed_control(control) + model.embed_objects(objects)
    assert torch.equal(run(model, {**given, "hidden_states": latents, "control_tokens": tokens}), moved)
    whole = made(object_channels=7)
    assert torch.equal(run(whole, {**given, "object_latents": objects}), run(whole, given))


def test_tables_of_places_are_kept_for_the_size_that_runs(model):
    cpu = torch.device("cpu")
    first = model.rope_tables(FRAMES, HEIGHT, WIDTH, cpu)
    assert [table.shape for table in first] == [(FRAMES * HEIGHT * WIDTH // 4, 1, 24)] * 2
    assert model.rope_tables(FRAMES, HEIGHT, WIDTH, cpu) is first
    assert model.rope_tables(FRAMES, WIDTH, HEIGHT, cpu)[0].shape == first[0].shape
    again = model.rope_tables(FRAMES, HEIGHT, WIDTH, cpu)
    assert again is not first
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("batch", [1, 2])
def test_fused_blocks_say_the_same_with_and_without_gradients(batch):
    model, given = made(), inputs(batch)
    plain = run(model, given)
    assert torch.equal(model(**given).sample.detach(), plain)
    set_kernels(model, "fused")
    torch.testing.assert_close(run(model, given), plain, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(model(**given).sample.detach(), plain, atol=2e-5, rtol=1e-5)


def test_checkpoints_save_memory_only_where_something_is_learnt():
    model, given = made(), inputs()
    model(**given).sample.square().sum().backward()
    wanted = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    calls: list[Any] = []
    model.enable_gradient_checkpointing()
    real = model._gradient_checkpointing_func
    model._gradient_checkpointing_func = lambda block, *rest: calls.append(block) or real(block, *rest)
    run(model, given)
    assert calls == []
    model(**given).sample.square().sum().backward()
    assert calls == list(model.transformer_blocks)
    for name, value in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(value.grad, wanted[name], atol=1e-4, rtol=1e-4)
    model.disable_gradient_checkpointing()
    model(**given)
    assert len(calls) == len(model.transformer_blocks)
