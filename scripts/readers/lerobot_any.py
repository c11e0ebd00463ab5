# SPDX-License-Identifier: Apache-2.0
"""Runs inside a LeRobot environment of any version: ROOT OUT.npz → every frame, window, statistic; or an edit of a dataset.

`read ROOT OUT.npz`, `edit ROOT OUT_DIR` (delete, split, merge: LeRobot 0.4 and newer), `convert ROOT` (v2.1 → v3.0 in
place: 0.4 and newer), `decode FILE OUT.npz` (torchcodec). Prints JSON. Its frame decoder is PyAV with LeRobot's own
tolerance, because torchvision no longer has the one that older versions ask for; `read-itself ROOT OUT.npz` leaves LeRobot
the decoder it chooses itself, torchcodec where that is installed.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import contextlib

from lerobot_reader import decode, register_schemas


def modules(replaced: bool = True):
    """(dataset module, its package's name); its decoder is PyAV where `replaced`."""
    register_schemas()
    for name in ("lerobot.datasets", "lerobot.common.datasets"):
        try:
            found = importlib.import_module(f"{name}.lerobot_dataset")
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("lerobot"):
                raise
            continue
        if not replaced:
            return found, name
        users = [found]
        for other in ("dataset_reader", "video_utils"):
            with contextlib.suppress(ModuleNotFoundError):
                users.append(importlib.import_module(f"{name}.{other}"))
        for module in users:
            if hasattr(module, "decode_video_frames"):
                module.decode_video_frames = lambda path, stamps, tolerance, *more, **named: decode(
                    path, stamps, tolerance
                )
        return found, name
    raise SystemExit("no lerobot here")


def read_itself(root: Path, out: Path) -> dict:
    """`read` with LeRobot's own choice of a decoder, which must be torchcodec."""
    import torchcodec.decoders  # its sentence about missing libraries, not LeRobot's silent second choice

    return read(root, out, modules(replaced=False), "torchcodec") | {"decoder": f"torchcodec {torchcodec.__version__}"}


def read(root: Path, out: Path, found: tuple[Any, str] | None = None, decoder: str = "") -> dict:
    """Every item, a window of actions and pictures, statistics. Raises AssertionError where it decodes not with `decoder`."""
    module, name = found or modules()
    data = module.LeRobotDataset("retake/check", root=root)
    chosen = getattr(data, "_video_backend", None) or getattr(data, "video_backend", "")
    assert decoder in ("", chosen), f"LeRobot decodes with {chosen!r} here; {decoder!r} was asked for"
    arrays, tasks, language = {}, [], []
    for i in range(len(data)):
        item = data[i]
        tasks.append(item.pop("task"))
        language.append({k: item.pop(k) for k in list(item) if k.startswith("language_")})
        for key, value in item.items():
            if hasattr(value, "numpy"):
                arrays.setdefault(key, []).append(value.numpy())
    named: Any = {key.replace("/", "|"): np.stack(value) for key, value in arrays.items()}
    np.savez(out, **named)
    camera = data.meta.camera_keys[0]
    deltas = {"action": [0.0, 1 / data.fps, 2 / data.fps], camera: [-1 / data.fps, 0.0]}
    windowed = module.LeRobotDataset("retake/check", root=root, delta_timestamps=deltas)
    window = windowed[1]
    return {
        "frames": len(data), "episodes": data.meta.total_episodes, "fps": data.fps, "tasks": tasks, "module": name,
        "window_action": window["action"].numpy().tolist(), "window_images": list(window[camera].shape),
        "stats": {k: {s: np.asarray(v).tolist() for s, v in d.items()} for k, d in (data.meta.stats or {}).items()},
        "language": language[:1] + language[-1:],
        "columns": list(getattr(getattr(data.meta, "episodes", None), "column_names", []) or []),
    }  # fmt: skip


def edit(root: Path, out: Path) -> dict:
    """Delete episode 1, split in two, merge the halves: what remains of each."""
    module, name = modules()
    tools = importlib.import_module(f"{name}.dataset_tools")
    data = module.LeRobotDataset("retake/check", root=root)
    result = {}
    made = {"delete": tools.delete_episodes(data, [1], output_dir=out / "delete", repo_id="retake/delete")}
    halves = tools.split_dataset(data, {"a": [0, 1], "b": list(range(2, data.meta.total_episodes))}, output_dir=out)
    made |= {f"split {k}": v for k, v in halves.items()}
    made["merge"] = tools.merge_datasets(
        [halves["a"], halves["b"]], output_repo_id="retake/merge", output_dir=out / "merge"
    )
    for key, one in made.items():
        result[key] = {
            "root": str(one.root), "frames": len(one), "episodes": one.meta.total_episodes,
            "uids": [int(one[i]["source.uid"]) for i in range(0, len(one))],
            "provenance_columns": sum(c.startswith("retake/") for c in one.meta.episodes.column_names),
            "q99": "q99" in (one.meta.stats or {}).get("action", {}),
        }  # fmt: skip
    return result


def convert(root: Path) -> dict:
    """LeRobot's own converter of v2.1 to v3.0, in place."""
    modules()
    for name in ("lerobot.datasets.v30", "lerobot.scripts"):
        try:
            module = importlib.import_module(f"{name}.convert_dataset_v21_to_v30")
            break
        except ModuleNotFoundError:
            continue
    else:
        raise SystemExit("this version has no converter")
    # 0.4 looks for the dataset under root/repo_id, later versions at root itself.
    where = root.parents[1] if name.endswith("v30") else root
    module.convert_dataset("retake/check", root=str(where), push_to_hub=False, force_conversion=True)
    return {"version": json.loads((root / "meta/info.json").read_text())["codebase_version"]}


def torchcodec(file: Path, out: Path) -> dict:
    """Frames as torchcodec decodes them on the CPU."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(file), device="cpu")
    np.savez(out, frames=np.stack([f.permute(1, 2, 0).numpy() for f in decoder]))
    return {"frames": len(decoder)}


if __name__ == "__main__":
    what, arguments = sys.argv[1], [Path(a) for a in sys.argv[2:]]
    print(
        json.dumps(
            {"read": read, "read-itself": read_itself, "edit": edit, "convert": convert, "decode": torchcodec}[what](
                *arguments
            ),
            default=str,
        )
    )
