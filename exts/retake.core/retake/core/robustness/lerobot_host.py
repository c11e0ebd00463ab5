# SPDX-License-Identifier: Apache-2.0
"""Runs under an interpreter that has lerobot (0.4 or newer): a policy folder, asked over standard streams.

Imports nothing of Retake. Protocol: see lerobot_policy.py.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys

import numpy as np


def _write(stream, **arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    stream.write(struct.pack("<q", len(data)) + data)
    stream.flush()


def import_torchvision() -> None:
    """Import torchvision as it is. Only one that then turns out to have no operators gets the schemas it misses.

    A torchvision whose binary does not match torch registers no operators, and its import ends in a RuntimeError. A healthy
    one registers its own, and the process would be aborted if they were there before.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):
            library.define(schema)
    import_torchvision.keep = library


def _load(folder: str):
    """(policy, preprocessor, postprocessor); processors are None for folders of before lerobot 0.4."""
    import torch

    torch.set_num_threads(2)
    import_torchvision()
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(folder)
    config.device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = get_policy_class(config.type).from_pretrained(folder, config=config).eval().to(config.device)
    try:
        before, after = make_pre_post_processors(config, pretrained_path=folder)
    except FileNotFoundError:
        before = after = None
    return policy, before, after, config.device


def _infer(policy, before, after, device, data):
    import torch

    batch = {}
    for key in data.files:
        value = data[key]
        if key == "task":
            batch[key] = [str(value)]
        elif key.startswith("observation.images."):
            batch[key] = torch.from_numpy(value).permute(2, 0, 1).float()[None].to(device) / 255
        else:
            batch[key] = torch.from_numpy(value)[None].to(device)
    policy.reset()
    with torch.inference_mode():
        actions = policy.predict_action_chunk(before(batch) if before else batch)
        actions = after(actions) if after else actions
    return actions[0].float().cpu().numpy()


def serve(load) -> None:
    """Answer until standard input ends; `load()` gives the function from an observation's arrays to actions (H, A)."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # what libraries print must not enter the protocol
    infer = load()
    _write(out, ready=np.array(True))
    while len(head := sys.stdin.buffer.read(8)) == 8:
        body = sys.stdin.buffer.read(struct.unpack("<q", head)[0])
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as data:
                answer = {"actions": infer(data)}
        except Exception as error:
            answer = {"error": np.array(f"{type(error).__name__}: {error}")}
        _write(out, **answer)


def main() -> None:
    """The policy folder that the command line names."""

    def load():
        loaded = _load(sys.argv[1])
        return lambda data: _infer(*loaded, data)

    serve(load)


if __name__ == "__main__":
    main()
