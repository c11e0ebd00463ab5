# SPDX-License-Identifier: Apache-2.0
"""`retake tune` from folders to weights that the pipeline loads, on the real loading code and tiny weights."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from oscar_golden import text_model
from tune_clips import make_clip

from retake.core.errors import InputError
from retake.core.files import write_json
from retake.core.video import write_video
from retake.worker.oscar import OscarPipeline
from retake.worker.tune import launch
from retake.worker.tune.cli import main
from retake.worker.tune.clips import find_clips
from retake.worker.tune.planning import check_fits, plan_training


@pytest.fixture(scope="module")
def model() -> Path:
    """A converted folder with a text encoder and its tokenizer."""
    return text_model()


def sample(folder: Path, seed: int, frames: int = 9) -> Path:
    """A sample in OSCAR's layout."""
    clip = make_clip(seed, frames)
    folder.mkdir(parents=True)
    write_video(folder / "rgb.mp4", clip.rgb(), 15.0)
    write_video(folder / "gripper_scenario.mp4", clip.skeleton(), 15.0)
    (folder / "caption.pickle").write_bytes(pickle.dumps({"caption": clip.caption}, protocol=4))
    with (folder / "physics.npz").open("wb") as stream:
        np.savez_compressed(stream, **clip.physics())
    np.savez(
        folder / "episode_meta.npz",
        joint_angles=np.zeros((frames, 3)), ee_pose=np.tile(np.eye(4), (frames, 1, 1)), gripper_openness=np.ones(frames),
        camera_intrinsic=np.array([[40.0, 0, 16], [0, 40, 16], [0, 0, 1]]), camera_extrinsic=np.eye(4),
        camera_is_per_frame=np.array(False),
    )  # fmt: skip
    write_json(
        folder / "provenance.json", {"domain": "composite", "trajectory_id": f"t{seed}", "licence_source": "CC0-1.0"}
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed in range(2):
        sample(root / f"retake_composite/e{seed}", seed)
    return root


def test_samples_in_oscars_layout_are_clips(data):
    clips = find_clips([data])
    assert [(c.frames, c.domain, c.terms) for c in clips] == [(9, "composite", "CC0-1.0")] * 2
    assert {c.episode for c in clips} == {"t0", "t1"}
    assert all(len(c.events) == 2 and len(list(c.rgb())) == 9 for c in clips)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_run_stop_resume_and_save(tmp_path, model, data, kind, capsys):
    out, saved = tmp_path / "tune", tmp_path / "saved"
    command = ["run", str(data), "--model", str(model), "--out", str(out), "--frames", "9", "--size", "32x32",
               "--lr", "0.05", "--warm-up", "0", "--object-weight", "2", "--validation", "0.5", "--save-every", "1",
               "--device", "cpu"]  # fmt: skip
    command += ["--lora", "--rank", "4"] if kind == "lora" else []
    assert main([*command, "--steps", "1"]) == 0
    assert main([*command, "--steps", "2"]) == 0
    lines = [json.loads(line) for line in (out / "curves" / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [0, 1]
    assert any("validation_falling" in line for line in lines)
    assert main(["save", str(out), "--model", str(model), "--out", str(saved)]) == 0
    assert "terms: CC0-1.0" in capsys.readouterr().out
    told = json.loads((saved / "tuned.json").read_text())
    assert told["step"] == 2
    assert told["average"]
    base = OscarPipeline.from_pretrained(model, torch_dtype=torch.float32, lazy_text_encoder=True)
    if kind == "lora":
        base.load_lora_weights(saved)
        assert base.get_active_adapters()
    else:
        tuned = OscarPipeline.from_pretrained(saved, torch_dtype=torch.float32, lazy_text_encoder=True)
        assert tuned.model_revision != base.model_revision
        pairs = zip(tuned.transformer.parameters(), base.transformer.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)
    with pytest.raises(InputError, match="exists already"):
        main(["save", str(out), "--model", str(model), "--out", str(saved)])


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, model, data):
    (bare := tmp_path / "bare").mkdir()
    out = tmp_path / "tune"
    for places, extra, says in (
        ([bare], [], "neither a run folder"),
        ([data], ["--validation", "0.01"], "leaves one side empty"),
        ([data], ["--domain", "recorded=1"], "domain"),
        ([data], ["--size", "30x32"], "multiples of 16"),
    ):
        command = [
            "run",
            *map(str, places),
            "--model",
            str(model),
            "--out",
            str(out),
            "--frames",
            "9",
            "--size",
            "32x32",
        ]
        with pytest.raises(InputError, match=says):
            main([*command, *extra, "--steps", "1", "--device", "cpu"])
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize(("key", "value"), [("source_episode_id", "f00d"), ("window_start", 8)])
def test_physics_of_another_episode_is_refused(tmp_path, key, value):
    """Same length, same size: only what both files say of themselves tells."""
    folder = sample(tmp_path / "retake_composite/e0", 0)
    truth = make_clip(0, 9).physics()

    def write(arrays):
        with (folder / "physics.npz").open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    stated = json.loads((folder / "provenance.json").read_text())
    write_json(folder / "provenance.json", {**stated, "source_episode_id": "beef", "window_start": 0})
    write({**truth, "source_episode_id": np.array("beef"), "window_start": np.array(0)})
    assert len(find_clips([tmp_path])) == 1
    write({**truth, "source_episode_id": np.array("beef"), "window_start": np.array(0), key: np.array(value)})
    with pytest.raises(InputError, match=rf"physics.npz is of another episode or window \({key} is {value}"):
        find_clips([tmp_path])


def test_weights_are_saved_and_judged_on_their_own_base_alone(tmp_path, model, data):
    out, saved, other = tmp_path / "tune", tmp_path / "saved", tmp_path / "other"
    command = ["run", str(data), "--model", str(model), "--out", str(out), "--frames", "9", "--size", "32x32", "--lora",
               "--rank", "2", "--steps", "1", "--device", "cpu"]  # fmt: skip
    assert main(command) == 0
    shutil.copytree(model, other)
    record = json.loads((other / "conversion.json").read_text())
    write_json(other / "conversion.json", {**record, "revision": "another"})
    with pytest.raises(InputError, match=r"was trained from base .* is another; give the same base"):
        main(["save", str(out), "--model", str(other), "--out", str(saved)])
    assert not saved.exists()
    with pytest.raises(InputError, match="was made with other base weights"):
        main([*command[:3], str(other), *command[4:-3], "2", "--device", "cpu"])
    assert main(["save", str(out), "--model", str(model), "--out", str(saved)]) == 0
    with pytest.raises(InputError, match=r"was trained from base .* is another; give the same base"):
        launch.eval_backends(other, saved, "cpu")
    with pytest.raises(InputError, match="neither a model folder nor a LoRA folder"):
        launch.eval_backends(model, tmp_path, "cpu")


@pytest.mark.parametrize(("card", "sharded", "says"), [
    ("cpu", False, "loaded"), ("cuda", True, "loaded"), ("cuda", False, "training needs .* GiB and cuda has 0.0 GiB free"),
])  # fmt: skip
def test_a_card_is_asked_for_memory_before_anything_is_loaded(tmp_path, model, data, monkeypatch, card, sharded, says):
    """The CPU is not: its memory is the machine's; and a sharded run needs a share that is not known here."""

    def load(*_: object, **__: object) -> None:
        raise InputError("loaded")

    monkeypatch.setattr(launch, "usable_device", lambda _: torch.device(card))
    monkeypatch.setattr(launch, "free_device_bytes", lambda _: 2**20)
    monkeypatch.setattr(launch.OscarPipeline, "from_pretrained", load)
    command = ["run", str(data), "--model", str(model), "--out", str(tmp_path), "--frames", "9", "--size", "32x32"]
    with pytest.raises(InputError, match=says):
        main([*command, "--steps", "1", *(["--shard"] if sharded else [])])


def test_plan_counts_a_step(model, capsys):
    assert (
        main(["plan", "--model", str(model), "--lora", "--rank", "4", "--frames", "9", "--size", "64x64", "--json"])
        == 0
    )
    lora = json.loads(capsys.readouterr().out)
    assert main(["plan", "--model", str(model), "--frames", "9", "--size", "64x64", "--json"]) == 0
    full = json.loads(capsys.readouterr().out)
    assert lora["parameters_trained"] < full["parameters_trained"]
    assert lora["peak"] < full["peak"]


def test_checkpointing_is_counted_and_too_little_memory_refused():
    from retake.worker.tune import LoraSettings, TuneConfig

    small = {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 32, "text_embed_dim": 32,
             "crossattn_proj_in_channels": 48, "adaln_lora_dim": 8}  # fmt: skip
    counted = [
        plan_training(
            TuneConfig(lora=LoraSettings(4, 4), gradient_checkpointing=on),
            transformer=small,
            frames=17,
            size=(128, 128),
        ).activations
        for on in (True, False)
    ]
    assert counted[0] < 0.6 * counted[1]
    plan = plan_training(TuneConfig(), transformer=small, frames=9, size=(64, 64))
    with pytest.raises(InputError, match="--lora"):
        check_fits(plan, plan.peak - 1, "cuda:0")
    check_fits(plan, plan.peak, "cuda:0")
