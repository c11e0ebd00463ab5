# SPDX-License-Identifier: Apache-2.0
"""Models with random weights: tiny ones written as real model folders (tests, bench), full-size ones for counting.

The same classes as the published models, at other sizes. `FULL` holds the published sizes, as far as the classes'
defaults and model cards state them; its parameter counts are where the memory tiers of config/worker.yaml come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retake.core.errors import InputError, unknown_name
from retake.worker.first_frame.backend import quiet

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
MARK_IDS = {name: 257 + k for k, name in enumerate(MARKS)}
QWEN3_4B = {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_TINY = {
    "vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "max_position_embeddings": 2048,
}  # fmt: skip
PICTURE_TOKENS = {
    "image_token_id": MARK_IDS["<|image_pad|>"], "video_token_id": MARK_IDS["<|video_pad|>"],
    "vision_start_token_id": MARK_IDS["<|vision_start|>"], "vision_end_token_id": MARK_IDS["<|vision_end|>"],
}  # fmt: skip
"""Ids in the tokenizer made here, which has no merges."""
QWEN_VL_7B = {
    "text_config": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    },
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
    **PICTURE_TOKENS,
}  # fmt: skip
QWEN_VL_TINY = {
    "text_config": {
        "vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "max_position_embeddings": 4096, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256,
    },
    "vision_config": {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
        "spatial_merge_size": 2, "window_size": 56, "fullatt_block_indexes": [0],
    },
    **PICTURE_TOKENS,
}  # fmt: skip
KL_TINY = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64,
}  # fmt: skip
KL_FULL = {
    **KL_TINY, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 1024,
}  # fmt: skip
FLUX_KL = {
    "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1159,
    "scaling_factor": 0.3611,
}  # fmt: skip
WAN_TINY = {
    "base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "latents_mean": [0.0] * 16,
    "latents_std": [1.0] * 16,
}  # fmt: skip
SDXL_TINY = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "in_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": (2, 4),
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 1), "projection_class_embeddings_input_dim": 80, "cross_attention_dim": 64,
    "norm_num_groups": 8,
}  # fmt: skip
SDXL_FULL = {
    "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "in_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "transformer_layers_per_block": (1, 2, 10), "projection_class_embeddings_input_dim": 2816, "cross_attention_dim": 2048,
}  # fmt: skip
CLIP_TINY = {
    "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513, "vocab_size": 514, "hidden_size": 32,
    "intermediate_size": 37, "num_attention_heads": 2, "num_hidden_layers": 2, "projection_dim": 32, "hidden_act": "gelu",
}  # fmt: skip
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
COSMOS_TINY = {
    "num_attention_heads": 2, "attention_head_dim": 16, "mlp_ratio": 2.0, "text_embed_dim": 32, "adaln_lora_dim": 4,
    "max_size": (16, 64, 64), "rope_scale": (1.0, 3.0, 3.0), "extra_pos_embed_type": None, "img_context_dim_in": 32,
    "img_context_dim_out": 32, "use_crossattn_projection": True, "crossattn_proj_in_channels": 64,
    "encoder_hidden_states_channels": 32,
}  # fmt: skip
COSMOS_FULL = {
    "num_attention_heads": 16, "attention_head_dim": 128, "mlp_ratio": 4.0, "text_embed_dim": 1024, "adaln_lora_dim": 256,
    "max_size": (128, 240, 240), "rope_scale": (1.0, 3.0, 3.0), "extra_pos_embed_type": None, "img_context_dim_in": 1152,
    "img_context_dim_out": 2048, "use_crossattn_projection": True, "crossattn_proj_in_channels": 100352,
    "encoder_hidden_states_channels": 1024,
}  # fmt: skip
Config = Mapping[str, Any]
TINY: dict[str, dict[str, tuple[str, Config]]] = {
    "z-image": {
        "transformer": ("ZImageTransformer2DModel", {
            "dim": 32, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32,
            "axes_dims": [8, 4, 4], "axes_lens": [1024, 128, 128],
        }),
        "controlnet": ("ZImageControlNetModel", {
            "control_layers_places": list(range(0, 30, 2)), "control_refiner_layers_places": [0, 1], "control_in_dim": 33,
            "add_control_noise_refiner": "control_noise_refiner", "dim": 32, "n_refiner_layers": 2, "n_heads": 2,
            "n_kv_heads": 2,
        }),
        "text_encoder": ("Qwen3Model", {**QWEN3_TINY, "num_hidden_layers": 3}),
        "vae": ("AutoencoderKL", {**KL_TINY, **FLUX_KL, "mid_block_add_attention": False}),
    },
    "flux2-klein": {
        "transformer": ("Flux2Transformer2DModel", {
            "patch_size": 1, "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
            "num_attention_heads": 2, "joint_attention_dim": 96, "timestep_guidance_channels": 32,
            "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False,
        }),
        "text_encoder": ("Qwen3ForCausalLM", {**QWEN3_TINY, "num_hidden_layers": 28}),
        "vae": ("AutoencoderKLFlux2", {**KL_TINY, "latent_channels": 4, "use_quant_conv": False, "use_post_quant_conv": False}),
    },
    "qwen-edit": {
        "transformer": ("QwenImageTransformer2DModel", {
            "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32,
            "axes_dims_rope": (8, 4, 4),
        }),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration", QWEN_VL_TINY),
        "vae": ("AutoencoderKLQwenImage", WAN_TINY),
    },
    "sdxl": {
        "unet": ("UNet2DConditionModel", {**SDXL_TINY, "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "sample_size": 32}),
        "controlnet": ("ControlNetUnionModel", {
            **SDXL_TINY, "conditioning_embedding_out_channels": (8, 16, 16, 32), "num_trans_channel": 32,
            "num_trans_head": 2, "num_control_type": 6, "num_proj_channel": 32,
        }),
        "text_encoder": ("CLIPTextModel", CLIP_TINY),
        "text_encoder_2": ("CLIPTextModelWithProjection", CLIP_TINY),
        "vae": ("AutoencoderKL", {**KL_TINY, "latent_channels": 4}),
    },
    "cosmos-transfer": {
        "transformer": ("CosmosTransformer3DModel", {
            **COSMOS_TINY, "in_channels": 17, "num_layers": 2, "concat_padding_mask": True, "controlnet_block_every_n": 1,
            "img_context_num_tokens": 4,
        }),
        "controlnet": ("CosmosControlNetModel", {
            **COSMOS_TINY, "n_controlnet_blocks": 2, "in_channels": 18, "latent_channels": 18, "model_channels": 32,
        }),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration", QWEN_VL_TINY),
        "vae": ("AutoencoderKLWan", WAN_TINY),
    },
}  # fmt: skip
FULL: dict[str, dict[str, tuple[str, Config]]] = {
    "z-image": {
        "transformer": ("ZImageTransformer2DModel", {}),
        "controlnet": ("ZImageControlNetModel", {
            "control_layers_places": list(range(0, 30, 2)), "control_refiner_layers_places": [0, 1], "control_in_dim": 33,
            "add_control_noise_refiner": "control_noise_refiner",
        }),
        "text_encoder": ("Qwen3Model", QWEN3_4B),
        "vae": ("AutoencoderKL", {**KL_FULL, **FLUX_KL}),
    },
    "flux2-klein": {
        "transformer": ("Flux2Transformer2DModel", {
            "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
            "guidance_embeds": False,
        }),
        "text_encoder": ("Qwen3ForCausalLM", QWEN3_4B),
        "vae": ("AutoencoderKLFlux2", {}),
    },
    "qwen-edit": {
        "transformer": ("QwenImageTransformer2DModel", {}),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration", QWEN_VL_7B),
        "vae": ("AutoencoderKLQwenImage", {}),
    },
    "sdxl": {
        "unet": ("UNet2DConditionModel", {
            **SDXL_FULL, "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        }),
        "controlnet": ("ControlNetUnionModel", {**SDXL_FULL, "num_control_type": 6}),
        "text_encoder": ("CLIPTextModel", CLIP_L),
        "text_encoder_2": ("CLIPTextModelWithProjection", CLIP_G),
        "vae": ("AutoencoderKL", {**KL_FULL, "latent_channels": 4}),
    },
    "cosmos-transfer": {
        "transformer": ("CosmosTransformer3DModel", {
            **COSMOS_FULL, "in_channels": 17, "num_layers": 28, "concat_padding_mask": True, "controlnet_block_every_n": 7,
        }),
        "controlnet": ("CosmosControlNetModel", {
            **COSMOS_FULL, "n_controlnet_blocks": 4, "in_channels": 130, "latent_channels": 18, "model_channels": 2048,
        }),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration", QWEN_VL_7B),
        "vae": ("AutoencoderKLWan", {}),
    },
}  # fmt: skip
INDEX = {
    "z-image": "ZImagePipeline", "flux2-klein": "Flux2KleinPipeline", "qwen-edit": "QwenImageEditPlusPipeline",
    "sdxl": "StableDiffusionXLPipeline", "cosmos-transfer": "Cosmos2_5_TransferPipeline",
}  # fmt: skip
FLOW = {"shift": 3.0}
SHIFTED = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192}
SCHEDULERS: dict[str, tuple[str, Config]] = {
    "z-image": ("FlowMatchEulerDiscreteScheduler", FLOW),
    "flux2-klein": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}),
    "qwen-edit": ("FlowMatchEulerDiscreteScheduler", {**SHIFTED, "shift_terminal": 0.02}),
    "sdxl": ("EulerDiscreteScheduler", {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
        "timestep_spacing": "leading",
    }),
    "cosmos-transfer": ("UniPCMultistepScheduler", {
        "use_karras_sigmas": True, "use_flow_sigmas": True, "prediction_type": "flow_prediction", "sigma_max": 200.0,
        "sigma_min": 0.01,
    }),
}  # fmt: skip


def sizes_of(name: str, table: Mapping[str, Any] = TINY) -> Mapping[str, tuple[str, Config]]:
    """Component → (class, configuration). Raises InputError listing the backends."""
    if name not in table:
        raise InputError(unknown_name("diffusion backend", name, table))
    return table[name]


def build(class_name: str, config: Config) -> Any:
    """One component with random weights, on the current default device."""
    import diffusers
    import transformers

    if hasattr(diffusers, class_name):
        return getattr(diffusers, class_name)(**config).eval()
    made = getattr(transformers, class_name)
    return made(made.config_class(**config)).eval()


def parameters(name: str) -> dict[str, int]:
    """Parameters per component at full size, counted on the meta device: nothing is allocated."""
    import torch

    counts = {}
    for component, (class_name, config) in sizes_of(name, FULL).items():
        with torch.device("meta"):
            module = build(class_name, config)
        counts[component] = sum(p.numel() for p in module.parameters())
    return counts


def write_tiny(name: str, folder: Path, seed: int = 0) -> dict[str, str]:
    """A backend's model folders with tiny random weights, laid out as published; returns the options that load them."""
    with quiet():
        return _write_tiny(name, folder, seed)


def _write_tiny(name: str, folder: Path, seed: int) -> dict[str, str]:
    import diffusers
    import torch

    torch.manual_seed(seed)
    model, control = Path(folder) / "model", Path(folder) / "control"
    index: dict[str, Any] = {"_class_name": INDEX[name], "_diffusers_version": diffusers.__version__}
    if name == "flux2-klein":
        index["is_distilled"] = True
    for component, (class_name, config) in sizes_of(name).items():
        module = build(class_name, config)
        for weight in module.parameters():
            # Control networks start with zeros at their ends; then no control would do anything.
            if weight.ndim > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
        if component == "controlnet":
            module.save_pretrained(control)
            continue
        module.save_pretrained(model / component)
        index[component] = ["diffusers" if hasattr(diffusers, class_name) else "transformers", class_name]
    scheduler, settings = SCHEDULERS[name]
    getattr(diffusers, scheduler)(**settings).save_pretrained(model / "scheduler")
    index["scheduler"] = ["diffusers", scheduler]
    for component, make in _tokenizers(name).items():
        make().save_pretrained(model / component)
        index[component] = ["transformers", "CLIPTokenizer" if name == "sdxl" else "Qwen2Tokenizer"]
    if name == "qwen-edit":
        _picture_processor().save_pretrained(model / "processor")
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
    if name == "cosmos-transfer":
        index.update(controlnet=[None, None], safety_checker=[None, None])
    (model / "model_index.json").write_text(json.dumps(index, indent=1), "utf-8")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\nrandom weights\n", "utf-8")
    options = {"model": str(model)}
    if "controlnet" in sizes_of(name):
        (control / "README.md").write_text("---\nlicense: apache-2.0\n---\nrandom weights\n", "utf-8")
        options["control"] = str(control)
    return options


PIPELINES = {
    "z-image": "ZImageControlNetInpaintPipeline", "flux2-klein": "Flux2KleinInpaintPipeline",
    "qwen-edit": "QwenImageEditPlusPipeline", "sdxl": "StableDiffusionXLControlNetUnionInpaintPipeline",
}  # fmt: skip
"""Cosmos-Transfer is not made at random: it never runs without its guardrail."""


def random_backend(name: str, size: str = "tiny", device: str = "", **options: Any) -> Any:
    """A backend whose model has random weights and was never on disk: `tiny`, or `full` (the published size, for
    measuring time and memory on a card). What it paints is noise; only the robot is real.

    Raises InputError for an unknown name or size, and for `full` without a CUDA device.
    """
    import diffusers
    import torch

    from retake.core.variants.backends import image_backend

    tables = {"tiny": TINY, "full": FULL}
    if size not in tables:
        raise InputError(unknown_name("size of random models", size, tables))
    if name not in PIPELINES:
        raise InputError(unknown_name("backend with random weights", name, PIPELINES))
    if size == "full" and not torch.cuda.is_available():
        raise InputError("full-size random models are for measuring on a CUDA device; there is none here")
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if where == "cpu" else torch.bfloat16)
    try:
        with torch.device(where):
            parts = {part: build(*made) for part, made in sizes_of(name, tables[size]).items()}
    finally:
        torch.set_default_dtype(before)
    scheduler, settings = SCHEDULERS[name]
    parts["scheduler"] = getattr(diffusers, scheduler)(**settings)
    parts.update({part: make() for part, make in _tokenizers(name).items()})
    if name == "qwen-edit":
        from retake.worker.first_frame.qwen_edit import PictureProcessor

        parts["processor"] = PictureProcessor(parts["tokenizer"], _picture_processor())
    if name == "flux2-klein":
        parts["is_distilled"] = True
    with quiet():
        pipe = getattr(diffusers, PIPELINES[name])(**parts)
        pipe.set_progress_bar_config(disable=True)
    return image_backend(name, pipeline=pipe, licence="Apache-2.0", device=where, model=f"random, {size}", **options)


def _tokenizers(name: str) -> dict[str, Callable[[], Any]]:
    return {"tokenizer": _clip, "tokenizer_2": _clip} if name == "sdxl" else {"tokenizer": _qwen}


def _qwen() -> Any:
    """A byte-level Qwen2 tokenizer without merges, with a chat template."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocab = {letter: k for k, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab["<|endoftext|>"] = len(vocab)
    made = Qwen2Tokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", unk_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    made.chat_template = CHAT
    return made


def _clip() -> Any:
    """A byte-level CLIP tokenizer without merges."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: k for k, name in enumerate(names)}, merges=[], model_max_length=77)


def _picture_processor() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
