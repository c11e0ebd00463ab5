# SPDX-License-Identifier: Apache-2.0
"""Memory tiers of a first-frame pipeline: how much of it is on the device at once, and what that is expected to need.

Expected bytes: parameters counted in the model's files times the bytes of the dtype, plus stated assumptions for what
a forward and the decoder need. Not measured on a GPU; an out-of-memory error moves one tier down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retake.core.errors import InputError, unknown_name
from retake.worker.memory import CONTEXT_BYTES, GIB

TIERS = ("resident", "model-offload", "group-offload")
"""All on the device; one component at a time; one layer at a time. The same arithmetic; the last bit may differ."""
WORK_BYTES_PER_MEGAPIXEL = 3 * GIB
"""Assumption: activations of one forward or of the decoder at one million pixels in 16 bit."""
CLIP_BYTES_PER_MEGAPIXEL = 9 * GIB
"""The same for a pipeline that makes a clip: its decoder, which goes through a clip four frames at a time. Counted on the
meta device at 1280x704 in 16 bit, Cosmos-Transfer2.5's own classes: 8.2 GiB for 5 frames, 9.0 for 93; its denoiser and
control network stay below (0.7 and 7.8 GiB)."""
CLIP_BYTES_PER_PIXEL = 24
"""And for each frame of the clip: decoded pieces and the clip they are joined to (12), the clips given and controlling (12)."""


def check_tier(name: str) -> str:
    """The name itself. Raises InputError listing the tiers."""
    if name not in TIERS:
        raise InputError(unknown_name("memory tier", name, TIERS))
    return name


def needed(
    components: Mapping[str, int], pixels: int, bytes_per_parameter: int = 2, *, frames: int = 1
) -> dict[str, int]:
    """Expected peak device bytes per tier, from parameters per component. A control network is there with its denoiser.

    `frames`: how many the pipeline makes at once, each of `pixels`; 1 is a picture.
    """
    size = {name: count * bytes_per_parameter for name, count in components.items()}
    denoiser = sum(size.get(name, 0) for name in ("transformer", "unet", "controlnet"))
    per_megapixel = WORK_BYTES_PER_MEGAPIXEL if frames == 1 else CLIP_BYTES_PER_MEGAPIXEL
    work = (
        CONTEXT_BYTES
        + int(per_megapixel * pixels / 1e6)
        + (CLIP_BYTES_PER_PIXEL * pixels * frames if frames > 1 else 0)
    )
    return {
        "resident": sum(size.values()) + work,
        "model-offload": max(denoiser, *size.values(), 0) + work,
        "group-offload": work,
    }


def apply(pipe: Any, tier: str, device: str) -> None:
    """Put a freshly loaded pipeline (on the CPU) into a tier. On the CPU itself there is nothing to do."""
    import torch

    if tier == "resident":
        pipe.to(device)
    elif tier == "model-offload":
        _offload_whole_components(pipe)
        pipe.enable_model_cpu_offload(device=device)
    elif tier == "group-offload":
        pipe.enable_group_offload(onload_device=torch.device(device), offload_type="leaf_level")
        _keep_attention_projections(pipe, torch.device(device))
    else:
        check_tier(tier)


def _offload_whole_components(pipe: Any) -> None:
    """Every component comes to the device as a whole, whenever the pipeline offloads (it hooks them anew after each picture).

    accelerate's hook looks at a component's first parameter and leaves the rest where it is when that is there already. A
    Z-Image control network shares modules with its transformer: once it ran, the transformer's first parameter is on the
    device and most of its layers are not.
    """
    import torch

    enable = pipe.enable_model_cpu_offload

    def enable_whole(*args: Any, **kwargs: Any) -> None:
        enable(*args, **kwargs)
        for component in pipe.components.values():
            hook = getattr(component, "_hf_hook", None)
            if isinstance(component, torch.nn.Module) and hook is not None and hasattr(hook, "execution_device"):
                hook.pre_forward = _bringing_all(hook)

    pipe.enable_model_cpu_offload = enable_whole


def _bringing_all(hook: Any) -> Any:
    """The hook's `pre_forward`, and then whatever it left elsewhere."""
    usual = hook.pre_forward

    def pre_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        out = usual(module, *args, **kwargs)
        if any(tensor.device != hook.execution_device for tensor in (*module.parameters(), *module.buffers())):
            module.to(hook.execution_device)
        return out

    return pre_forward


def _keep_attention_projections(pipe: Any, device: Any) -> None:
    """`nn.MultiheadAttention` (in SDXL's ControlNet-Union) reads its output projection without calling it, so the hook that
    would bring the weights never runs: they stay on the device, a few megabytes."""
    import torch

    for component in pipe.components.values():
        if not isinstance(component, torch.nn.Module):
            continue
        for module in component.modules():
            if isinstance(module, torch.nn.MultiheadAttention):
                registry = getattr(module.out_proj, "_diffusers_hook", None)
                if registry is not None:
                    registry.remove_hook("group_offloading", recurse=False)
                module.out_proj.to(device)
