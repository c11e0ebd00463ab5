# SPDX-License-Identifier: Apache-2.0
"""`retake oscar run` from files, and what the commands do without torch or with wrong arguments."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from oscar_golden import converted, golden_call, pipeline, tensors, text_model
from PIL import Image
from safetensors.torch import save_file

from retake.core.errors import InputError
from retake.worker.oscar import cli


@pytest.fixture
def files(tmp_path):
    call = golden_call()
    Image.fromarray(call["first_frame"]).save(tmp_path / "first.png")
    np.savez(tmp_path / "skeleton.npz", skeleton=call["skeleton"][:5])
    run = tensors("sampling_run")
    save_file(
        {name: run[name].contiguous() for name in ("prompt_embeds", "negative_prompt_embeds")},
        tmp_path / "e.safetensors",
    )
    return tmp_path


def run(files, out, *extra, model=None):
    return cli.main([
        "run", "--model", str(model or converted()), "--first-frame", str(files / "first.png"),
        "--skeleton", str(files / "skeleton.npz"), "--out", str(out), "--frames", "5", "--height", "64", "--width", "64",
        "--steps", "2", "--device", "cpu", *extra,
    ])  # fmt: skip


def test_run_writes_the_pipelines_take_and_a_sidecar(files, capsys):
    out = files / "take.npz"
    assert run(files, out, "--embeds", str(files / "e.safetensors"), "--seed", "7") == 0
    assert "5 frames, tier resident, seed 7" in capsys.readouterr().out
    with np.load(out) as data:
        frames = data["frames"]
    call = golden_call(num_frames=5, num_inference_steps=2, skeleton=golden_call()["skeleton"][:5], seed=7)
    assert np.array_equal(frames, pipeline()(**call, exact_first_frame=True).frames[0])
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert sidecar["seeds"] == [7]
    assert sidecar["exact_first_frame"]
    assert sidecar["approximations"] == ["steps:2"]
    assert len(sidecar["inputs_sha256"]["skeleton"]) == 64
    with pytest.raises(InputError, match="exists already"):
        run(files, out, "--embeds", str(files / "e.safetensors"))


def test_run_takes_the_backends_kernels_attention_and_modes(files):
    out = files / "take.npz"
    extra = ["--kernels", "fused", "--attention", "native", "--approximate", "guidance-interval:low=0.2,high=0.9",
             "--embeds", str(files / "e.safetensors")]  # fmt: skip
    assert run(files, out, *extra) == 0
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert (sidecar["kernels"], sidecar["attention"]) == ("fused", "native")
    assert sidecar["approximations"] == ["guidance-interval:0.2-0.9", "steps:2"]


def test_run_with_a_prompt_fills_the_cache_and_writes_a_video(files):
    arguments = ["--prompt", "a desk", "--negative-prompt", "ugly", "--prompt-cache", str(files / "cache")]
    assert run(files, files / "take.mp4", *arguments, model=text_model()) == 0
    capture = cv2.VideoCapture(str(files / "take.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    capture.release()
    assert len(list((files / "cache").glob("*.safetensors"))) == 2
    assert sorted(p.name for p in files.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--out", "take.gif"], "must end in"),
        (["--embeds", "nowhere.safetensors"], "no readable safetensors"),
        (["--skeleton", "nowhere.mp4", "--prompt", "x"], "no skeleton at"),
        (["--model", "nowhere", "--prompt", "x"], "no model folder"),
        (["--prompt", "x", "--tier", "huge"], "unknown memory tier"),
        (["--prompt", "x", "--kernels", "quick"], "unknown kernels"),
        (["--prompt", "x", "--attention", "magic"], "unknown attention"),
        (["--prompt", "x", "--attention", "sage"], "approximate mode 'sage'"),
        (["--prompt", "x", "--approximate", "magic"], "unknown approximate mode"),
        (["--prompt", "x", "--approximate", "sparse-tile:reach"], "valid: reach=VALUE"),
        (["--prompt", "x", "--approximate", "first-block-cache:threshold=much"], "threshold is much"),
        ([], "found neither"),
    ],
)
def test_run_refuses_with_one_clear_error_and_writes_nothing(files, extra, message):
    before = sorted(files.iterdir())
    with pytest.raises(InputError, match=message):
        run(files, files / "new.npz", *extra)
    assert sorted(files.iterdir()) == before


def test_unknown_commands_and_missing_options_exit_with_2(capsys):
    for arguments in ([], ["paint"], ["convert", "--out", "x"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
    assert "--text-encoder" in capsys.readouterr().err


def test_help_needs_no_torch_and_the_lack_of_torch_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from retake.core.errors import MissingDependencyError\n"
        "from retake.worker.oscar import cli\n"
        "try: cli.main(['plan', '--free-gib', '8'])\n"
        "except MissingDependencyError as error: print(error)\n"
        "import retake.worker.oscar\n"
        "try: retake.worker.oscar.OscarPipeline\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("isaac-retake[oscar]") == 2
