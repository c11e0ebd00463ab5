# SPDX-License-Identifier: Apache-2.0
"""`retake variants` and worker jobs: what the gate lets pass is delivered, the rest is named; wrong requests are explained."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest
from scenes import make_scene_episode

from retake.core import cli
from retake.core.episode import open_episode
from retake.core.errors import InputError, VariantError
from retake.core.files import read_json
from retake.core.painter.procedural import ProceduralBackend
from retake.core.run_store import RunDirectory
from retake.core.variants import SourceFrame, image_backend, load_catalogue, open_variant, source_frame
from retake.core.variants.make import read_frame
from retake.core.variants.worlds import described_world
from retake.core.wire import VariantJob, VariantRequest


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    return make_scene_episode(tmp_path_factory.mktemp("cli") / "recorded", frames=30, size=(160, 120))


def retake(*arguments) -> int:
    return cli.main([str(a) for a in arguments])


def painted(folder: Path, *names: str, source: SourceFrame) -> None:
    """Good pictures of presets, as a user's own."""
    folder.mkdir(exist_ok=True)
    for name in names:
        frame = ProceduralBackend().render(source, load_catalogue().preset(name), 0)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


def mirror(picture: Path) -> None:
    write = cv2.cvtColor(read_frame(picture)[:, ::-1], cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(picture), write)


def test_a_bare_episode_and_its_run_folder_mean_the_same(episode, tmp_path, capsys):
    import shutil

    shutil.copytree(episode.path, tmp_path / "e")
    assert retake("variants", tmp_path / "e", "--preset", "kitchen", "--count", "3", "--seed", "5") == 0
    assert "variants: 4 of 4" in capsys.readouterr().out
    run = RunDirectory(tmp_path / "e-run")
    made = [open_variant(p.parent) for p in sorted(run.variants_folder.glob("*/*/variant.json"))]
    assert len(made) == 4
    assert {v.world.environment for v in made} == {"kitchen"}
    assert {v.source["episode_sha256"] for v in made} == {episode.content_sha256}
    assert all(read_json(run.variants_folder / v.id / "variant.json")["gate"]["checks"] for v in made)
    for name in ("contact_sheet.png", "gate.md", "gate.json"):
        assert (run.variants_folder / name).is_file()
    stamps = {p: p.stat().st_mtime_ns for p in run.variants_folder.rglob("*") if p.is_file()}
    assert retake("variants", run.path, "--preset", "kitchen", "--count", "3", "--seed", "5") == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in run.variants_folder.rglob("*") if p.is_file()}


def test_what_fails_the_gate_is_named_and_never_delivered(episode, tmp_path, capsys):
    import shutil

    shutil.copytree(episode.path, tmp_path / "e")
    source = source_frame(episode, "front", 0)
    painted(tmp_path / "mine", "kitchen", "bun_warehouse", source=source)
    mirror(tmp_path / "mine/bun_warehouse.png")
    ask = ["variants", tmp_path / "e", "--preset", "kitchen,bun_warehouse", "--backend", "folder",
           "--set", f"variants.settings={{folder: '{tmp_path / 'mine'}', licence: CC0-1.0}}"]  # fmt: skip
    assert retake(*ask, "--only-commercial") == 3
    out = capsys.readouterr()
    assert "variants: 1 of 2" in out.out
    assert re.search(r"missing bun_warehouse/front: .*robot_edges", out.err)
    run = RunDirectory(tmp_path / "e-run")
    assert [v.id for v in run.variants()] == ["kitchen/front"]
    assert retake("report", run.path) == 0
    assert re.search(r'"missing": \{"bun_warehouse/front": \["robot_edges', run.report.read_text("utf-8"))
    # Nothing at all passes: no delivery, and the text says which check refused.
    shutil.copyfile(tmp_path / "mine/bun_warehouse.png", tmp_path / "mine/kitchen.png")
    assert retake(*ask) == 2
    assert "none of 2 worlds passed the gate; kitchen/front: " in capsys.readouterr().err
    assert not list(run.variants_folder.glob("*/*/variant.json"))
    # With the gate off the same pictures are taken as they are.
    assert retake(*ask, "--set", "variants.gate=false") == 0
    # Terms nobody stated are refused, also for pictures that are there already.
    unstated = [*ask[:-1], f"variants.settings={{folder: '{tmp_path / 'mine'}'}}"]
    assert retake(*unstated, "--only-commercial") == 2
    assert "no licence is stated; config/licences.yaml lists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "mars"], r"unknown preset 'mars'; valid: .*bun_warehouse.*kitchen"),
        (["--preset", ","], r"no worlds were asked for: no presets, no prompts, and the count is 0"),
        (["--preset", ""], r"no presets, no prompts"),
        (["--count", "-1"], r"needs a number 0 or more"),
        (["--rerolls", "-1"], r"variants.rerolls needs a number 0 or more; found -1"),
        (["--backend", "crayons"], r"unknown image backend 'crayons'; valid: .*procedural"),
        (["--set", "variants.settings={colour: red}"], r"unexpected keyword argument 'colour'; it has: catalogue"),
        (["--set", "variants.depth_estimator=eyes"], r"unknown depth estimator 'eyes'"),
        (["--camera", "roof"], r"no camera 'roof'; it has: .*front"),
    ],
)
def test_wrong_requests_are_explained(episode, tmp_path, capsys, arguments, message):
    import shutil

    shutil.copytree(episode.path, tmp_path / "e")
    assert retake("variants", tmp_path / "e", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list((tmp_path / "e-run/variants").glob("*/*/variant.json"))


def test_an_episode_without_maps_is_refused(tmp_path, capsys):
    make_scene_episode(tmp_path / "e", frames=30, size=(48, 36), shadows=False, channels=("rgb", "depth"))
    assert retake("variants", tmp_path / "e", "--force") == 2
    assert "recorded no instances, normals" in capsys.readouterr().err


def test_only_commercial_reaches_the_backend_and_is_asked_again_after_rendering(episode, tmp_path, monkeypatch):
    from retake.core.variants import backends, make_gated_variants, select_worlds

    told: list[bool] = []

    class Chooses(ProceduralBackend):
        """Chooses its model when it renders, as a diffusion backend does."""

        parallel = False

        def __init__(self, only_commercial: bool = False) -> None:
            super().__init__()
            told.append(only_commercial)

        def render(self, *arguments, **options):
            self.licence = "non-commercial research"
            return super().render(*arguments, **options)

    monkeypatch.setitem(backends.BACKENDS, "chooses", "chooses:it")
    monkeypatch.setattr(backends.plugins, "load", lambda reference, extra="": Chooses)
    ask = {"worlds": select_worlds(("kitchen",)), "backend": "chooses"}
    with pytest.raises(VariantError, match="'non-commercial research' forbids commercial use"):
        make_gated_variants(episode, "front", tmp_path, only_commercial=True, **ask)
    assert told == [True]
    assert not (tmp_path / "kitchen").exists()
    assert make_gated_variants(episode, "front", tmp_path, **ask).variants[0].licence == "non-commercial research"
    # What lies there under terms that do not allow it is refused, too.
    with pytest.raises(VariantError, match="non-commercial research"):
        make_gated_variants(episode, "front", tmp_path, only_commercial=True, **ask)
    assert image_backend("procedural", only_commercial=True).licence == "Apache-2.0"


def test_worker_jobs_pass_the_same_gate(episode, tmp_path):
    execute = pytest.importorskip("retake.worker.execute")
    settings = pytest.importorskip("retake.worker.settings")
    painted(tmp_path / "mine", "kitchen", source=source_frame(episode, "front", 0))

    def specs(licence: str):
        target, options = (
            "retake.core.variants.folder:FolderBackend",
            {"folder": str(tmp_path / "mine"), "licence": licence},
        )
        return {"folder": settings.BackendSpec("folder", "variant", target, options)}

    def job(name: str, **more) -> VariantJob:
        request = VariantRequest(episode.path, "front", {"name": "kitchen"}, **more)
        return VariantJob(request, tmp_path / name, "folder")

    record = execute.LocalRunner(specs("CC0-1.0")).run(job("good", only_commercial=True))
    assert record["source"]["episode_sha256"] == episode.content_sha256
    assert {c["name"] for c in record["gate"]["checks"]} >= {"robot_edges", "scene_shift"}
    with pytest.raises(VariantError, match="no licence is stated"):
        execute.LocalRunner(specs("")).run(job("closed", only_commercial=True))
    mirror(tmp_path / "mine/kitchen.png")
    with pytest.raises(VariantError, match=r"kitchen: none of 2 attempts passed the gate; the last: .*robot_edges"):
        execute.LocalRunner(specs("CC0-1.0")).run(job("bad", rerolls=1))
    assert not (tmp_path / "bad").exists()
    with pytest.raises(InputError, match="frame 99"):
        execute.LocalRunner(specs("CC0-1.0")).run(job("late", index=99))


def test_variants_of_another_camera_or_first_frame_stand_beside_the_first(tmp_path):
    recorded = make_scene_episode(tmp_path / "e", frames=30, size=(160, 120), wrist=True)
    path = recorded.path
    cameras = [c.name for c in open_episode(path).header.cameras]
    assert cameras[0] == "front"
    run = ("--set", "variants.gate=false", "--preset", "bun_warehouse")
    assert retake("variants", path, *run, "--camera", "front") == 0
    variants = tmp_path / "e-run" / "variants"
    first = {p: p.read_bytes() for p in variants.glob("*/*/*") if p.is_file()}
    assert retake("variants", path, *run, "--camera", cameras[1]) == 0
    assert retake("variants", path, *run, "--camera", "front", "--set", "takes.start=2") == 0
    names = ["bun_warehouse-f2/front", "bun_warehouse/front", f"bun_warehouse/{cameras[1]}"]
    assert sorted(p.parent.relative_to(variants).as_posix() for p in variants.glob("*/*/variant.json")) == names
    assert {p: p.read_bytes() for p in first} == first
    views = {
        open_variant(variants / n).source["camera"] + str(open_variant(variants / n).source["frame"]) for n in names
    }
    assert views == {"front0", "front2", cameras[1] + "0"}


def test_a_prompt_is_a_world_for_backends_that_read(episode, tmp_path, capsys):
    import shutil

    shutil.copytree(episode.path, tmp_path / "e")
    text = "a bakery at dawn, flour in the air"
    assert retake("variants", tmp_path / "e", "--prompt", text) == 2
    assert re.search(
        r"'procedural' paints from recipes and cannot read 'a bakery at dawn.*folder", capsys.readouterr().err
    )
    name = described_world(text).name
    frame = ProceduralBackend().render(source_frame(episode, "front", 0), load_catalogue().preset("bakery"), 0)
    pictures = tmp_path / "mine"
    pictures.mkdir()
    cv2.imwrite(str(pictures / f"{name}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    own = ("--backend", "folder", "--set", f"variants.settings={{folder: {pictures}, licence: CC0-1.0}}")
    assert retake("variants", tmp_path / "e", "--prompt", text, "--prompt", " ", *own) == 0
    assert "variants: 1 of 1" in capsys.readouterr().out
    made = open_variant(RunDirectory(tmp_path / "e-run").variant_folder(f"{name}/front"))
    assert made.world.prompt == text
    assert "A bakery at dawn, flour in the air." in made.prompt
    with pytest.raises(VariantError, match="describes no world"):
        described_world(" ?")
    assert described_world(f"  {text}").name == name != described_world(text + "!").name
