# SPDX-License-Identifier: Apache-2.0
"""Runs inside `.lerobot-env`: open a dataset with lerobot's own `LeRobotDataset` and print what it reads as JSON.

Two things are replaced, and only these. torchvision's operator schemas are registered because its binary does not
match torch 2.13.0 (we use no operator of it). `decode_video_frames` is PyAV's decoding instead of
`torchvision.io.VideoReader`, which no longer exists; it keeps lerobot's contract, its tolerance included: for every
asked timestamp the nearest decoded frame, an error when that is further away than the tolerance.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch


def register_schemas() -> None:
    """What `import torchvision` needs to find before it registers fake versions of its operators."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    register_schemas.keep = library  # type: ignore[attr-defined]


def decode(video_path, timestamps, tolerance_s, backend=None):
    """float32 (N, 3, H, W) in [0, 1]: frames at `timestamps` seconds. Sequential decode, so nothing is hidden by seeks."""
    times, frames = decoded(str(video_path))
    nearest = [int(np.abs(times - t).argmin()) for t in timestamps]
    far = [(t, times[i]) for t, i in zip(timestamps, nearest, strict=True) if abs(times[i] - t) > tolerance_s]
    assert not far, f"no frame within {tolerance_s} s of {far} in {video_path}"
    return torch.from_numpy(np.stack([frames[i] for i in nearest])).permute(0, 3, 1, 2).float() / 255


@functools.cache
def decoded(path: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Presentation times (s) and RGB frames of a whole (small) file, decoded in order: nothing is hidden by seeks."""
    import av

    with av.open(path) as container:
        pictures = [(picture.time, picture.to_ndarray(format="rgb24")) for picture in container.decode(video=0)]
    return np.array([t for t, _ in pictures]), [frame for _, frame in pictures]


def load():
    """lerobot's dataset module with its decoder replaced."""
    register_schemas()
    import lerobot.datasets.lerobot_dataset as module

    module.decode_video_frames = decode
    return module


def save_items(data, out: Path) -> list[str]:
    """Every item's arrays, stacked, into an .npz; returns the task texts."""
    arrays: dict[str, list] = {}
    tasks = []
    for i in range(len(data)):
        item = data[i]
        tasks.append(item.pop("task"))
        for key, value in item.items():
            arrays.setdefault(key, []).append(value.numpy())
    np.savez(out, **{key.replace("/", "|"): np.stack(value) for key, value in arrays.items()})
    return tasks


def make_policy(folder: str, width: int) -> None:
    """A tiny ACT policy with random weights and its processors, as lerobot saves them."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    torch.manual_seed(0)
    config = ACTConfig(
        device="cpu", chunk_size=4, n_action_steps=4, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1,
        n_decoder_layers=1, use_vae=False, pretrained_backbone_weights=None, push_to_hub=False,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (width,)),
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (width,))},
    )  # fmt: skip
    ACTPolicy(config).save_pretrained(folder)
    unit = {"mean": torch.zeros(width), "std": torch.ones(width)}
    pixels = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.ones(3, 1, 1)}
    stats = {"observation.state": unit, "action": unit, "observation.images.front": pixels}
    for part in make_pre_post_processors(config, dataset_stats=stats):
        part.save_pretrained(folder)


def main() -> None:
    """`--self-test`, or ROOT OUT.npz [DELTA…]: every frame into an .npz, metadata to standard output; with DELTA s every
    window into OUT.windows.npz, too."""
    module = load()
    if sys.argv[1] == "--self-test":
        print("lerobot reader:", module.CODEBASE_VERSION)
        return
    if sys.argv[1] == "--make-policy":
        make_policy(sys.argv[2], int(sys.argv[3]))
        return
    root, out, deltas = Path(sys.argv[1]), Path(sys.argv[2]), [float(x) for x in sys.argv[3:]]
    meta = module.LeRobotDatasetMetadata("retake/check", root=root)
    data = module.LeRobotDataset("retake/check", root=root)
    tasks = save_items(data, out)
    if deltas:
        windows = {"action": deltas, meta.camera_keys[0]: deltas}
        save_items(
            module.LeRobotDataset("retake/check", root=root, delta_timestamps=windows), out.with_suffix(".windows.npz")
        )
    from lerobot.datasets.compute_stats import get_feature_stats

    numeric = {}
    for key, feature in meta.features.items():
        if feature["dtype"] == "float32" and key != "timestamp":
            values = np.stack(data.hf_dataset.with_format("numpy")[key])
            for episode in range(meta.total_episodes):
                rows = meta.episodes[episode]
                part = values[rows["dataset_from_index"] : rows["dataset_to_index"]]
                stats = get_feature_stats(part, axis=0, keepdims=False)
                numeric.setdefault(key, []).append({k: np.asarray(v).tolist() for k, v in stats.items()})
    episode_columns = [c for c in meta.episodes.column_names]
    print(json.dumps({
        "version": str(meta._version), "fps": meta.fps, "episodes": meta.total_episodes, "frames": len(data),
        "tasks": tasks, "columns": episode_columns, "stats": numeric,
        "dataset_stats": {k: {s: np.asarray(v).tolist() for s, v in d.items()} for k, d in meta.stats.items()},
        "lengths": list(meta.episodes["length"]),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
