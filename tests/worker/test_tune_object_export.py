# SPDX-License-Identifier: Apache-2.0
"""Exports with objects in their control videos: learnt from as they are, like the run folder read with the option on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_tune_cli
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.export import ExportOptions, Selection, export, oscar
from retake.core.export.physics import physics_arrays
from retake.core.files import read_json, write_json
from retake.core.skeleton import make_skeleton, skeleton_frames
from retake.core.skeleton.objects import draw_control
from retake.worker.oscar.fit import plan_fit
from retake.worker.oscar.object_control import drawn_on
from retake.worker.tune.cli import main
from retake.worker.tune.clips import Clip, find_clips, objects_in_control
from retake.worker.tune.config import ObjectSupervision
from retake.worker.tune.latents import LatentCache

model, data = test_tune_cli.model, test_tune_cli.data
SIM = Selection(include_sim=True)
FRAMES = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The falling packet at the model's size and in a wrist camera, one frame in three, with its skeletons."""
    folder = tiny_run.make_run(tmp_path_factory.mktemp("drawn"))
    shutil.rmtree(folder / "episode")
    episode = make_scene_episode(folder / "episode", frames=15, size=(640, 480), only=range(2, 2 + FRAMES))
    shutil.rmtree(folder / "skeleton")
    make_skeleton(episode, "front", folder / "skeleton" / "front")
    return folder


@pytest.fixture(scope="module")
def exports(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The run's pictures exported without and with objects."""
    root = tmp_path_factory.mktemp("exports")
    for drawn in (False, True):
        export([run], root / str(drawn), ExportOptions("oscar", object_control=drawn), SIM)
    return {drawn: root / str(drawn) for drawn in (False, True)}


def control(clip: Clip, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> np.ndarray:
    """The control video (T, H, W, 3) that a training with that object control has encoded."""
    from retake.worker.tune import latents
    from retake.worker.tune.sampling import Sampler

    shown: list[np.ndarray] = []

    def encode(vae: Any, frames: np.ndarray) -> Any:
        import torch

        shown.append(frames)
        return torch.zeros(1, 1, 1, 1, 1)

    monkeypatch.setattr(latents.vae_stage, "encode", encode)
    cache = LatentCache(None, "none", tmp_path / option / clip.uid[:8], objects=ObjectSupervision(control=option))
    cache.prepare(Sampler([clip], FRAMES).choices[:1])
    return shown[1].astype(int)


def test_an_export_is_read_like_its_run_folder(
    run: Path, exports: dict[bool, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As near as the codec is to the skeleton alone; and never drawn twice."""
    ((folder,), (plain,), (drawn,)) = (find_clips([place], SIM) for place in (run, exports[False], exports[True]))
    assert (folder.objects_drawn, plain.objects_drawn, drawn.objects_drawn) == (False, False, True)
    wanted, without = (control(folder, option, monkeypatch, tmp_path) for option in ("drawn", "none"))
    as_exported = control(drawn, "drawn", monkeypatch, tmp_path)
    codec = np.abs(control(plain, "none", monkeypatch, tmp_path) - without).mean()
    assert np.abs(as_exported - wanted).mean() < 1.5 * codec + 0.05
    assert np.abs(as_exported - without).mean() > 2 * codec
    assert np.abs(control(plain, "drawn", monkeypatch, tmp_path) - wanted).mean() < 1.5 * codec + 0.05
    episode = open_episode(run / "episode")
    skeleton = np.stack(list(skeleton_frames(episode, "front")))
    exact = np.stack(list(draw_control(skeleton, physics_arrays(episode, "front", 0, FRAMES))))
    assert np.array_equal(exact, wanted)  # what the export writes, before the codec


@given(st.sampled_from([(640, 480), (256, 192), (96, 64), (480, 320)]), st.integers(0, 2**32 - 1))
def test_drawing_over_resized_skeletons_is_drawing_before_resizing(size: tuple[int, int], seed: int) -> None:
    """Exact where nothing is resized; else within rounding, but where both strokes share a pixel: of a glyph that covers a of it,
    between nothing and as much as fits beside the glyph is seen of the stroke below, so a mixture is off by a (1 - a) <= 1/4.
    """
    rng = np.random.default_rng(seed)
    skeleton, glyphs = np.zeros((1, 192, 256, 3), np.uint8), np.zeros((1, 192, 256, 3), np.uint8)
    for image, colour in ((skeleton, (255, 255, 0)), (glyphs, (255, 0, 255))):
        x, y = rng.integers(0, 250, 2) % (250, 186)
        image[0, y : y + 3, :] = colour
        image[0, :, x : x + 3] = colour
    both = np.where(glyphs.any(-1, keepdims=True), glyphs, skeleton)
    fit = plan_fit((256, 192), size, "squeeze")
    found, wanted = drawn_on(fit.apply(skeleton), fit.apply(glyphs)).astype(int), fit.apply(both).astype(int)
    if size == (256, 192):
        assert np.array_equal(found, wanted)
    mixed = fit.apply(skeleton).any(-1) & (fit.apply(glyphs).max(-1) > 0) & (fit.apply(glyphs).max(-1) < 255)
    assert np.abs(found - wanted)[~mixed].max() <= 1
    assert np.abs(found - wanted).max() <= 255 / 4 + 1


def test_what_was_found_is_said_and_what_does_not_fit_refused(run: Path, exports: dict[bool, Path]) -> None:
    mixture = find_clips([run, exports[False], exports[True]], SIM)
    assert len(mixture) == 3
    for option in ("none", "embed"):
        with pytest.raises(
            InputError, match=rf"1 of 3 clips have objects drawn .* is '{option}' here; valid: --object-c"
        ):
            objects_in_control(mixture, option)
        assert objects_in_control(mixture[:2], option) == ""
    assert "taken as they are; those of the other 2 are drawn in the same way" in objects_in_control(mixture, "drawn")
    assert objects_in_control(mixture[2:], "drawn").endswith("taken as they are")


@pytest.mark.parametrize("stated", [{"version": "retake.object-control/9"}, "other", {"glyph": "?"}])
def test_another_glyph_is_refused(exports: dict[bool, Path], tmp_path: Path, stated: Any) -> None:
    shutil.copytree(exports[True], tmp_path / "d")
    (sample,) = oscar.samples(tmp_path / "d")
    provenance = read_json(sample / "provenance.json")
    write_json(sample / "provenance.json", {**provenance, "object_control": stated})
    with pytest.raises(
        InputError, match=r"and this version of Retake draws and reads 'retake.object-control/1'; export"
    ):
        find_clips([tmp_path / "d"])


def tune(places: list[Path], model: Path, out: Path, *options: str) -> int:
    return main(["run", *map(str, places), "--model", str(model), "--out", str(out), "--frames", "5", "--size", "32x32",
                 "--steps", "1", "--device", "cpu", "--include-sim", *options])  # fmt: skip


def test_the_command_says_it_once_and_leaves_nothing_where_it_refuses(
    run: Path, exports: dict[bool, Path], model: Path, tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(InputError, match="1 of 2 clips have objects drawn into their control videos"):
        tune([run, exports[True]], model, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    assert tune([run, exports[True]], model, tmp_path / "out", "--object-control", "drawn") == 0
    assert capsys.readouterr().out.count("1 of 2 clips have objects drawn") == 1
    saved = tmp_path / "saved"
    assert main(["save", str(tmp_path / "out"), "--model", str(model), "--out", str(saved)]) == 0
    with pytest.raises(
        InputError, match="was tuned to read objects from its control video; tune on with --object-control"
    ):
        tune([run], saved, tmp_path / "on")
    with pytest.raises(InputError, match="which distillation does not draw"):
        main(
            [
                "distil",
                str(run),
                "--model",
                str(saved),
                "--out",
                str(tmp_path / "few"),
                "--include-sim",
                "--device",
                "cpu",
            ]
        )
    with pytest.raises(InputError, match=r"1 of 1 clips have objects drawn .*; valid: run folders, or exports without"):
        main(["distil", str(exports[True]), "--model", str(model), "--out", str(tmp_path / "few"), "--device", "cpu"])
    assert not (tmp_path / "few" / "checkpoints").exists()


def test_drawn_objects_need_no_physics_beside_them(exports: dict[bool, Path], model: Path, tmp_path: Path) -> None:
    """Their weight does."""
    shutil.copytree(exports[True], tmp_path / "d")
    (oscar.samples(tmp_path / "d")[0] / "physics.npz").unlink()
    assert tune([tmp_path / "d"], model, tmp_path / "out", "--object-control", "drawn") == 0
    with pytest.raises(InputError, match="1 of 1 clips have no physics"):
        tune([tmp_path / "d"], model, tmp_path / "weighted", "--object-control", "drawn", "--object-weight", "2")


def test_canvases_are_learnt_from_where_their_export_drew_the_objects(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.make_run(tmp_path / "made"), folder)
    shutil.rmtree(folder / "episode")
    make_scene_episode(folder / "episode", frames=15, size=(96, 64), only=range(2, 2 + FRAMES), wrist=True)
    for drawn in (True, False):
        export([folder], tmp_path / str(drawn), ExportOptions("oscar-canvas", object_control=drawn), SIM)
    assert tune([tmp_path / "True"], model, tmp_path / "out", "--object-control", "drawn", "--object-weight", "2") == 0
    with pytest.raises(InputError, match="export them drawn"):
        tune([tmp_path / "False"], model, tmp_path / "not", "--object-control", "drawn")
