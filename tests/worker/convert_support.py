# SPDX-License-Identifier: Apache-2.0
"""Conversions of the golden checkpoint, whole and damaged in every way."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import torch
from oscar_golden import GOLDEN, golden_call

from retake.worker.oscar import OscarPipeline

VAE = GOLDEN / "worldsim_tiny_wanvae.safetensors"
FULL = os.environ.get("RETAKE_FULL") == "1"


def command(checkpoint, out, *extra, vae=VAE):
    return ["convert", "--checkpoint", str(checkpoint), "--vae", str(vae), "--out", str(out), *map(str, extra)]


def run_golden(folder):
    pipe = OscarPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe(**golden_call(output_type="latent")).frames


def copy_checkpoint(tmp_path):
    return shutil.copytree(GOLDEN / "dcp", tmp_path / "dcp")


def nothing_left(tmp_path, *allowed):
    return sorted(p.name for p in tmp_path.iterdir() if p.name not in allowed) == []


def full_size_shapes():
    return {
        name: tuple(shape) for name, shape in json.loads((GOLDEN / "full_model_keys_shapes.json").read_text()).items()
    }


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def evil_metadata(folder, marker):
    (folder / "model" / ".metadata").write_bytes(pickle.dumps(Evil(marker)))


def truncated_shard(folder, _):
    shard = folder / "model" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:100_000])


def flipped_shard(folder, _):
    shard = folder / "model" / "__0_0.distcp"
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    shard.write_bytes(data)


def escaping_metadata(folder, _):
    path = folder / "model" / ".metadata"
    path.write_bytes(path.read_bytes().replace(b"\x0c__0_0.distcp", b"\x0c/../x.distcp"))


CHECKPOINTS = {
    "missing": (lambda folder, _: shutil.rmtree(folder), "no checkpoint folder"),
    "no metadata": (lambda folder, _: (folder / "model" / ".metadata").unlink(), "has no .metadata"),
    "no shard": (lambda folder, _: (folder / "model" / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
    "truncated shard": (truncated_shard, "is truncated"),
    "damaged shard": (flipped_shard, "damaged"),
    "truncated metadata": (
        lambda folder, _: (folder / "model" / ".metadata").write_bytes(
            (folder / "model" / ".metadata").read_bytes()[:999]
        ),
        "damaged",
    ),
    "empty metadata": (lambda folder, _: (folder / "model" / ".metadata").write_bytes(b""), "damaged"),
    "foreign metadata": (
        lambda folder, _: (folder / "model" / ".metadata").write_bytes(pickle.dumps({"a": 1})),
        "no distributed-checkpoint metadata",
    ),
    "code in metadata": (evil_metadata, "refused: the pickle asks for posix.system"),
    "path out of the folder": (escaping_metadata, "outside the checkpoint folder"),
}
