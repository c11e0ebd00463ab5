# SPDX-License-Identifier: Apache-2.0
"""Conversion: anything wrong with a checkpoint is one clear error and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from convert_support import CHECKPOINTS, FULL, VAE, Evil, command, copy_checkpoint, nothing_left
from oscar_golden import GOLDEN, text_folder
from safetensors.torch import load_file, save_file

from retake.core.errors import Cancelled, InputError, TakeError
from retake.worker.oscar import cli
from retake.worker.oscar import convert as convert_module
from retake.worker.oscar.convert import convert


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_bad_checkpoints_are_one_clear_error_and_leave_nothing(tmp_path, case):
    damage, message = CHECKPOINTS[case]
    folder, marker = copy_checkpoint(tmp_path), tmp_path / "marker"
    damage(folder, marker)
    with pytest.raises(InputError, match=message) as caught:
        convert(folder, VAE, None, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert nothing_left(tmp_path, "dcp")


def test_code_inside_a_shard_is_refused(tmp_path):
    folder, marker = copy_checkpoint(tmp_path), tmp_path / "marker"
    with (folder / "model" / ".metadata").open("rb") as stream:
        metadata = pickle.load(stream)
    shard = folder / "model" / "__2_0.distcp"
    torch.save(Evil(marker), shard)
    for index, info in metadata.storage_data.items():
        if index.fqn == "net.final_layer.linear.weight":
            info.relative_path, info.offset, info.length = shard.name, 0, shard.stat().st_size
    (folder / "model" / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(InputError, match=r"refused: the pickle asks for posix.system"):
        convert(folder, VAE, None, tmp_path / "out")
    assert not marker.exists()
    assert nothing_left(tmp_path, "dcp")


def test_bad_vae_files(tmp_path):
    marker = tmp_path / "marker"
    weights = load_file(VAE)
    cases = {}
    torch.save({"x": Evil(marker)}, tmp_path / "evil.pth")
    cases["evil.pth"] = "refused: the pickle asks for posix.system"
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(marker)))
    cases["raw.pth"] = "refused|damaged"
    torch.save([1, 2], tmp_path / "list.pth")
    cases["list.pth"] = "holds a list, not a state dict"
    torch.save({**weights, "epoch": 3}, tmp_path / "more.pth")
    cases["more.pth"] = "holds more than tensors: epoch"
    (tmp_path / "cut.safetensors").write_bytes(VAE.read_bytes()[:5000])
    cases["cut.safetensors"] = "no readable safetensors"
    (tmp_path / "text.safetensors").write_text("hello")
    cases["text.safetensors"] = "no readable safetensors"
    save_file({k: v for k, v in weights.items() if k != "decoder.conv1.bias"}, tmp_path / "less.safetensors")
    cases["less.safetensors"] = "missing: decoder.conv_in.bias"
    save_file({**weights, "more": torch.zeros(1)}, tmp_path / "extra.safetensors")
    cases["extra.safetensors"] = "unexpected: more"
    save_file({**weights, "conv1.bias": torch.zeros(31)}, tmp_path / "shape.safetensors")
    cases["shape.safetensors"] = r"wrong shape: quant_conv.bias is \[31\], expected \[32\]"
    save_file({**weights, "quant_conv.bias": weights["conv1.bias"] + 1}, tmp_path / "twice.safetensors")
    cases["twice.safetensors"] = "names the same weight twice"
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    cases["foreign.safetensors"] = "not a Wan 2.1 VAE"
    cases["absent.pth"] = "no file at"
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            convert(GOLDEN / "dcp", tmp_path / name, None, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert not marker.exists()


def test_bad_text_encoders(tmp_path):
    def broken(name, **changes):
        folder = text_folder(tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        weights.update(changes.get("add", {}))
        for key in changes.get("drop", ()):
            del weights[key]
        save_file(weights, folder / "model.safetensors")
        if "config" in changes:
            raw = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**raw, **changes["config"]}))
        return folder

    key = "model.layers.1.mlp.up_proj.weight"
    cases = [
        (broken("less", drop=[key]), "missing: layers.1.mlp.up_proj.weight"),
        (broken("more", add={"model.layers.9.x": torch.zeros(1)}), "unexpected: layers.9.x"),
        (broken("twice", add={"norm.weight": torch.zeros(64)}), "names the same weight twice: norm.weight"),
        (broken("stray", add={"adapter.weight": torch.zeros(1)}), "unexpected: adapter.weight"),
        (broken("shape", add={key: torch.zeros(95, 64)}), "wrong shape: layers.1.mlp.up_proj.weight"),
        (broken("kind", config={"model_type": "llama"}), "of type 'llama'"),
        (broken("layers", config={"num_hidden_layers": 4}), "missing: layers.3"),
        (broken("head", drop=["model.embed_tokens.weight"]), "found 0 token embeddings"),
        (tmp_path / "absent", "no transformers folder"),
    ]
    for folder, message in cases:
        with pytest.raises(InputError, match=message):
            convert(GOLDEN / "dcp", VAE, folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_nan_weights_are_refused_and_nothing_is_left(tmp_path):
    weights = load_file(VAE)
    weights["conv2.bias"][3] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match=r"post_quant_conv.bias holds NaN"):
        convert(GOLDEN / "dcp", tmp_path / "nan.safetensors", None, tmp_path / "out")
    assert nothing_left(tmp_path, "nan.safetensors")


def test_existing_folders_are_never_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    convert(GOLDEN / "dcp", VAE, None, out)  # an empty folder is fine
    before = (out / "conversion.json").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        convert(GOLDEN / "dcp", VAE, None, out)
    assert (out / "conversion.json").read_bytes() == before


def test_full_size_needs_accepted_terms(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(convert_module.terms, "FULL_SIZE_PARAMETERS", 900_000)
    arguments = command(GOLDEN / "dcp", tmp_path / "out", "--no-text-encoder")
    with pytest.raises(InputError, match=r"vae \(0.00 B\) is a full-size model.*--accept-terms"):
        cli.main(arguments)
    assert "Terms of the weights" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert cli.main([*arguments, "--accept-terms"]) == 0
    monkeypatch.undo()
    assert convert_module.terms.needs_acceptance(127_000_000)  # the VAE, the smallest real part


def test_out_of_disk_is_seen_before_and_survived_during(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(InputError, match=r"out of disk: .* needs 0.023 GB, .* has 0.001 GB free"):
        convert(GOLDEN / "dcp", VAE, None, tmp_path / "out")
    monkeypatch.undo()
    real, calls = convert_module.save_file, []

    def full_disk(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)

    monkeypatch.setattr(convert_module, "save_file", full_disk)
    with pytest.raises(TakeError, match="out of disk while converting"):
        convert(GOLDEN / "dcp", VAE, None, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_cancelling_leaves_nothing(tmp_path):
    count = [0]

    def cancel():
        count[0] += 1
        if count[0] == 100:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        convert(GOLDEN / "dcp", VAE, None, tmp_path / "out", check_cancel=cancel)
    assert nothing_left(tmp_path)


SLOW = """
import sys, time, torch
torch.set_num_threads(1)
from retake.core.errors import Cancelled
from retake.worker.oscar import cli, convert
real = convert.save_file
def slow(*args, **kwargs):
    real(*args, **kwargs)
    print("writing", flush=True)
    time.sleep(60)
convert.save_file = slow
try:
    cli.main(sys.argv[1:])
except Cancelled:
    sys.exit(130)
"""


def test_a_killed_conversion_leaves_no_folder_and_the_next_one_cleans_up(tmp_path):
    running = {}
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL) if FULL else (signal.SIGTERM, signal.SIGKILL):
        folder = tmp_path / how.name
        folder.mkdir()
        arguments = command(GOLDEN / "dcp", folder / "out", "--no-text-encoder")
        running[how] = (
            folder,
            subprocess.Popen(
                [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ),
        )
    for how, (folder, process) in running.items():
        with process:
            assert process.stdout is not None
            assert any(line.strip() == "writing" for line in process.stdout)
            process.send_signal(how)
            process.stdout.close()
            code = process.wait(timeout=60)
        assert not (folder / "out").exists()
        if how == signal.SIGKILL:
            assert len(list(folder.glob(".out.*.tmp"))) == 1
            convert(GOLDEN / "dcp", VAE, None, folder / "out")
            assert nothing_left(folder, "out")
        else:
            assert code == 130
            assert nothing_left(folder)
