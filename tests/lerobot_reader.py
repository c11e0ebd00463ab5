# SPDX-License-Identifier: Apache-2.0
"""Runs inside `.lerobot-env`: open a dataset with lerobot's own `LeRobotDataset` and print what it reads as JSON.

Two things are replaced, and only these. torchvision's operator schemas are registered because its binary does not
match torch 2.13.0 (we use no operator of it). `decode_video_frames` is PyAV's decoding instead of
`torchvision.io.VideoReader`, which no longer exists; it keeps lerobot's contract, its tolerance included: for every
asked timestamp the nearest decoded frame, an error when that is further away than the tolerance.
"""

from __future__ import annotations

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
    import av

    wanted, best = list(timestamps), {}
    with av.open(str(video_path)) as container:
        for picture in container.decode(video=0):
            for i, t in enumerate(wanted):
                distance = abs(picture.time - t)
                if i not in best or distance < best[i][0]:
                    best[i] = (distance, None)
                    if distance <= tolerance_s:
                        best[i] = (distance, picture.to_ndarray(format="rgb24"))
    far = [(t, best[i][0]) for i, t in enumerate(wanted) if best[i][1] is None]
    assert not far, f"no frame within {tolerance_s} s of {far} in {video_path}"
    return torch.from_numpy(np.stack([best[i][1] for i in range(len(wanted))])).permute(0, 3, 1, 2).float() / 255


def load():
    """lerobot's dataset module with its decoder replaced."""
    register_schemas()
    import lerobot.datasets.lerobot_dataset as module

    module.decode_video_frames = decode
    return module


def main() -> None:
    """`--self-test`, or ROOT OUT.npz [DELTA…]: every frame of the dataset into an .npz, metadata to standard output."""
    module = load()
    if sys.argv[1] == "--self-test":
        print("lerobot reader:", module.CODEBASE_VERSION)
        return
    root, out, deltas = Path(sys.argv[1]), Path(sys.argv[2]), [float(x) for x in sys.argv[3:]]
    meta = module.LeRobotDatasetMetadata("retake/check", root=root)
    windows = {"action": deltas, meta.camera_keys[0]: deltas} if deltas else None
    data = module.LeRobotDataset("retake/check", root=root, delta_timestamps=windows)
    arrays: dict[str, list] = {}
    tasks = []
    for i in range(len(data)):
        item = data[i]
        tasks.append(item.pop("task"))
        for key, value in item.items():
            arrays.setdefault(key, []).append(value.numpy())
    np.savez(out, **{key.replace("/", "|"): np.stack(value) for key, value in arrays.items()})
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
