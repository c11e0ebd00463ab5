# SPDX-License-Identifier: Apache-2.0
"""Around the first-frame models: sizes, files and their terms, what is chosen when, the worker's jobs, the bench."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))
from first_frame_support import NAMES, episode, make, maps, model, scratch, shared, source, world

from retake.core.errors import InputError, MissingDependencyError, VariantError
from retake.core.files import read_json
from retake.core.variants import bench, image_backend, make_variants
from retake.core.wire import VariantJob, VariantRequest
from retake.worker.execute import LocalRunner
from retake.worker.first_frame import backend as base
from retake.worker.first_frame import choose as choosing
from retake.worker.first_frame import memory, parts
from retake.worker.first_frame.canvas import ENLARGE, Canvas
from retake.worker.first_frame.choose import ORDER, auto_backend, choose, report
from retake.worker.first_frame.conditioning import Conditioning
from retake.worker.first_frame.random_models import FULL, TINY, parameters, random_backend
from retake.worker.memory import fitting_or_smallest
from retake.worker.settings import BackendSpec, load_settings

GIB = 1 << 30
sides = st.integers(8, 2000)


@given(sides, sides, st.sampled_from([16, 32]), st.integers(64 * 64, 2_000_000))
def test_canvas_sides_are_multiples_and_the_picture_comes_back_at_capture_size(w: int, h: int, m: int, px: int) -> None:
    canvas = Canvas.fit((w, h), px, m)
    assert canvas.size[0] % m == canvas.size[1] % m == 0
    assert all(0 <= c - i < m for c, i in zip(canvas.size, canvas.inner, strict=True))
    assert canvas.inner[0] <= max(w * ENLARGE, m) + 1
    x, y = canvas.squeeze
    if min(canvas.inner) > m:
        assert abs(x * w - y * w) <= 1.5 + w / h, "both axes are scaled alike, up to rounding"


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 2**31))
def test_masks_on_the_canvas_keep_their_polarity_and_place(w: int, h: int, seed: int) -> None:
    canvas = Canvas.fit((w, h), 128 * 96, 16)
    mask = np.zeros((h, w), bool)
    row, column = np.random.default_rng(seed).integers(0, (h - 6, w - 6))
    mask[row : row + 6, column : column + 6] = True
    placed = canvas.place(mask, hard=True)
    rows, columns = np.nonzero(placed[: canvas.inner[1], : canvas.inner[0]])
    sx, sy = canvas.squeeze
    assert abs((columns.mean() + 0.5) / sx - column - 3) < 1.0
    assert abs((rows.mean() + 0.5) / sy - row - 3) < 1.0
    picture = np.full((h, w, 3), 200, np.uint8)
    assert (canvas.restore(canvas.place(picture)) == 200).all()
    with pytest.raises(VariantError, match="meets a camera"):
        canvas.place(np.zeros((h + 1, w)))
    with pytest.raises(VariantError, match="asked for"):
        canvas.restore(np.zeros((h + 1, w, 3)))


def test_common_cameras_need_no_padding() -> None:
    for capture in ((640, 480), (1280, 720), (1920, 1080), (320, 240), (512, 512)):
        canvas = Canvas.fit(capture, 1_000_000, 16)
        assert canvas.inner == canvas.size, capture


@given(st.integers(1, 16))
def test_a_cell_is_painted_when_any_of_its_pixels_is(cell: int) -> None:
    cell = 2 ** (cell % 5)
    conditioning = Conditioning.of(source(), maps(), Canvas.fit((160, 120), 160 * 128, 16), world(), 1)
    mask = conditioning.mask(cell)
    assert mask.shape == conditioning.repaint.shape
    assert (mask[conditioning.repaint] == 255).all(), "never less than asked is painted"
    cells = mask[: mask.shape[0] // cell * cell].reshape(-1, cell, mask.shape[1] // cell, cell)
    assert (cells.min((1, 3)) == cells.max((1, 3))).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_model_says_how_to_get_it_and_what_works_now(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(parts.MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=r"hf download \S+/\S+ --revision") as caught:
        image_backend(name)
    assert str(tmp_path) in str(caught.value)
    assert "'procedural'" in str(caught.value)
    with pytest.raises(InputError, match="no model folder"):
        image_backend(name, model=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="pin its revision"):
        image_backend(name, model="some/model", revision="main")


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    for name in NAMES:
        with pytest.raises(MissingDependencyError, match=r"isaac-retake\[oscar\].*procedural"):
            image_backend(name)
    monkeypatch.undo()
    with pytest.raises(InputError, match="z-image"):
        image_backend("z-imag")


def test_wrong_options_and_files_are_refused(tmp_path: Path) -> None:
    for options, told in (
        ({"controls": {"depht": 1.0}}, "valid: depth"),
        ({"steps": -1}, "steps"),
        ({"pixels": 12}, "pixels"),
        ({"tier": "tiny"}, "resident"),
    ):
        with pytest.raises(InputError, match=told):
            make("z-image", **options)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"stepz": 3}, "steps"),
        ({"safety_checker": "off"}, "check_text_safety"),
        ({"pipeline": "mine"}, "set from Python"),
    ]
    for settings, told in wrong:
        with pytest.raises(InputError, match=told):
            image_backend("cosmos-transfer", **settings)
    with pytest.raises(InputError, match="stepz"):
        image_backend("z-image", stepz=3)
    with pytest.raises(InputError, match="one control"):
        make("cosmos-transfer", controls={"edge": 1.0, "depth": 1.0})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        make("flux2-klein", model=str(tmp_path / "model")).render(source(), world(), 1)


def test_revisions_and_licences_come_from_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "some-model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(bytes(400_000))
    part = parts.ModelPart("org/some-model", "Apache-2.0")
    plain = parts.find(part, str(folder), "", "", "model")
    assert plain.licence == "", "a folder without a card states nothing"
    assert plain.revision.startswith("files:")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert parts.find(part, str(folder), "", "", "model").licence == "CC-BY-NC-4.0"
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: nvidia-open-model-license\n---\n")
    assert parts.find(part, str(folder), "", "", "model").licence == "NVIDIA-Open-Model-License"
    assert parts.find(part, str(folder), "", "MIT", "model").licence == "MIT", "the user's own statement"
    data = bytearray(400_000)
    data[200_000] = 1
    (folder / "weights.safetensors").write_bytes(bytes(data))
    assert parts.find(part, str(folder), "", "", "model").revision != plain.revision
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "weights.safetensors.metadata").write_text(f"{'a' * 40}\netag\n0\n")
    assert parts.find(part, str(folder), "", "", "model").revision == "a" * 40
    hub = parts.find(part, "org/some-model", "b" * 40, "", "model")
    assert (hub.is_hub, hub.licence) == (True, "Apache-2.0")
    assert parts.find(part, "org/else", "b" * 40, "", "model").licence == "", "not the repository whose terms are known"


def test_only_commercial_fails_closed_on_unknown_terms(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "mine"
    shutil.copytree(model("flux2-klein")["model"], folder)
    (folder / "README.md").unlink()
    unknown = make("flux2-klein", model=str(folder))
    with pytest.raises(VariantError, match="no licence is stated"):
        make_variants(episode(), "front", tmp_path / "out", worlds=[world()], backend=unknown, only_commercial=True)
    assert not (tmp_path / "out").exists()


def place_models(root: Path, *names: str) -> None:
    """Tiny models under the published names."""
    for name in names:
        made = shared(name)
        for role, part in (("model", made.part), ("control", made.control_part)):
            if part is not None:
                (root / part.name).symlink_to(model(name)[role], target_is_directory=True)


def test_the_card_with_most_room_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda:0": 3 * GIB, "cuda:1": 12 * GIB, "cuda:2": 7 * GIB}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda card: (free[f"cuda:{str(card)[-1]}"], 16 * GIB))
    assert choosing._free_bytes() == 12 * GIB
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choosing._free_bytes() == 0


def test_auto_takes_the_best_open_model_that_is_here_and_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(parts.MODELS_VARIABLE, str(tmp_path))
    nothing = choose(80 * GIB)
    assert nothing.backend.name == "procedural"
    assert list(nothing.passed_over) == list(ORDER)
    assert auto_backend(only_commercial=True).name == "procedural"
    place_models(tmp_path, "sdxl", "flux2-klein", "z-image")
    best = choose(80 * GIB)
    assert (best.backend.name, best.tier) == ("z-image", "resident")
    assert report(best)[-1] == "chosen: z-image (resident)"
    assert choose(GIB).backend.name == "procedural"
    assert "1.0 are free" in choose(GIB).passed_over["z-image"]
    (tmp_path / "Z-Image-Turbo").unlink()
    assert choose(80 * GIB).backend.name == "flux2-klein"
    closed = tmp_path / "FLUX.2-klein-4B"
    closed.unlink()
    closed.mkdir()
    (closed / "README.md").write_text("---\nlicense: other\nlicense_name: flux-non-commercial-license\n---\n")
    choice = choose(80 * GIB)
    assert choice.backend.name == "sdxl"
    assert "FLUX-Non-Commercial-License" in choice.passed_over["flux2-klein"]


def test_tiers_follow_free_memory_and_the_configured_sizes_the_counts() -> None:
    plan = memory.needed({"transformer": 6 * 10**9, "controlnet": 3 * 10**9, "text_encoder": 4 * 10**9}, 1_000_000)
    assert plan["resident"] > plan["model-offload"] > plan["group-offload"]
    assert plan["model-offload"] > 18 * 10**9, "a control network is on the device together with its transformer"
    assert fitting_or_smallest(plan, 80 * GIB) == "resident"
    assert fitting_or_smallest(plan, 25 * GIB) == "model-offload"
    assert fitting_or_smallest(plan, 1) == "group-offload"
    specs = load_settings().backend_specs()
    counts = parameters("z-image")
    assert 6.0e9 < counts["transformer"] < 6.3e9, "the published size"
    for tier, size in specs["z-image"].tiers:
        assert memory.needed(counts, 1_000_000)[tier] <= size <= memory.needed(counts, 1_000_000)[tier] + 2 * GIB
    assert set(TINY) == set(FULL) == set(NAMES) <= set(specs)
    for name, frames in (("cosmos-transfer", 5), ("cosmos-sim", 93)):
        clip = memory.needed(parameters("cosmos-transfer"), 1280 * 704, frames=frames)
        assert all(clip[tier] <= size <= 1.25 * clip[tier] for tier, size in specs[name].tiers), name
    assert shared("z-image").plan()["resident"] < 5 * GIB
    for name in NAMES:
        assert specs[name].target.endswith(type(shared(name)).__name__)


def test_worker_job_makes_a_locked_first_frame_with_its_record(tmp_path: Path) -> None:
    backend = BackendSpec(
        "flux2-klein", "variant", "retake.worker.first_frame.flux2_klein:Flux2KleinBackend",
        {**model("flux2-klein"), "steps": 2, "pixels": 160 * 128},
    )  # fmt: skip
    runner, seen = LocalRunner({"flux2-klein": backend}), []
    # Random weights paint noise, which the gate refuses: here it is the job that is tried.
    request = VariantRequest(episode().path, "front", {"name": "kitchen"}, seed=2, gate=False)
    job = VariantJob(request, tmp_path / "kitchen", "flux2-klein")
    record = runner.run(job, lambda done, total, note="": seen.append((done, total, note)))
    runner.close()
    assert (1, 2, "painting") in seen
    assert record["run"]["tier"] == "cpu"
    assert record["run"]["canvas"]["size"] == [176, 128]
    assert record["licence"] == "Apache-2.0"
    assert read_json(tmp_path / "kitchen" / "variant.json")["revision"].startswith("files:")


def test_bench_measures_what_runs_and_says_why_the_rest_does_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(parts.MODELS_VARIABLE, str(tmp_path / "none"))
    arguments = [str(episode().path), "--frames", "1", "--json", str(tmp_path / "b.json")]
    assert bench.main([*arguments, "--backends", "procedural,folder,z-image"]) == 0
    text = capsys.readouterr().out
    assert "z-image           not measured: no model folder" in text
    data: dict[str, Any] = json.loads((tmp_path / "b.json").read_text())
    assert [row["backend"] for row in data["rows"]] == ["procedural", "folder", "z-image"]
    assert all(row["seconds"] > 0 for row in data["rows"][:2])
    with pytest.raises(InputError, match="valid: auto, cosmos-transfer"):
        bench.main([*arguments, "--backends", "nope"])
    with pytest.raises(InputError, match="retake run"):
        bench.main([str(tmp_path / "absent")])


@pytest.mark.parametrize("name", ["z-image", "qwen-edit", "sdxl", "flux2-klein"])
def test_random_models_run_without_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", 160 * 128)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", 112 * 112)
    backend = random_backend(name, "tiny", steps=2, pixels=64 * 64)
    assert backend.ready_pipeline()._progress_bar_config["disable"], "a stage shows its own progress"
    assert backend.render(source(), world(), 1).shape == source().rgb.shape
    assert backend.model == "random, tiny"


def test_full_size_random_models_are_for_cards_only() -> None:
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="CUDA"):
            random_backend("z-image", "full")
    with pytest.raises(InputError, match="valid: full, tiny"):
        random_backend("z-image", "medium")
    assert scratch().is_dir()
