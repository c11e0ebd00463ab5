# SPDX-License-Identifier: Apache-2.0
"""A variant is a world: where its cameras lie, that one seed makes all of them, and that only whole worlds are delivered."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import arrow_driver
import numpy as np
import pytest
from export_runs import make_run, write_take
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core import migrate
from retake.core.episode import open_episode
from retake.core.errors import ExportError, RunError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.reader import Dataset
from retake.core.export.records import VideoOptions
from retake.core.files import read_json, write_json
from retake.core.run_layout import camera_in, is_name, is_take_of, name_of, take_id, variant_id, world_of
from retake.core.run_reader import RunReader
from retake.core.run_store import open_run
from retake.core.variants import make_gated_variants, select_worlds
from retake.core.variants.gated import read_missing

H264 = VideoOptions.of("h264", None, 2)
WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@given(WORDS, WORDS, st.integers(0, 99), st.integers(0, 2**40), st.sampled_from(["composite", "oscar"]))
def test_names_say_world_camera_window_and_seed(world, camera, start, seed, backend):
    variant = variant_id(world, camera, start)
    take = take_id(variant, backend, seed, start)
    assert is_name(variant)
    assert is_name(take)
    assert camera_in(variant) == camera_in(take) == camera
    assert world_of(variant) == (f"{world}-f{start}" if start else world)
    assert name_of(Path("run/takes") / take) == take
    assert is_take_of(take, variant)
    assert not is_take_of(take, variant_id(world, camera + "x", start))
    assert take_id(variant, backend, seed + 1, start) != take


@pytest.mark.parametrize("name", ["..", "a/..", "a/b/c", "/a", "a/", "", "a\\b", "a/b\0"])
def test_a_name_never_leads_out_of_the_run(name):
    assert not is_name(name)


# -- older runs ---------------------------------------------------------------------------------------------------------


def aged(run: Path) -> None:
    """The run as it lay before the cameras of a world stood beside each other."""
    first = open_episode(run / "episode").header.cameras[0].name

    def old(name: str) -> str:
        world, camera = world_of(name), camera_in(name)
        return world if camera == first else f"{world}-{camera}"

    for stage, record in (("variants", "variant.json"), ("takes", "take.json"), ("verdicts", "verdict.json")):
        for path in sorted(run.glob(f"{stage}/*/*/{record}")):
            data = read_json(path)
            for key in ("id", "variant", "take"):
                if key in data:
                    data[key] = old(data[key])
            write_json(path, data)
            name = old(name_of(path.parent))
            aside = run / stage / f"{name}.old"
            path.parent.rename(aside)
            if not any((run / stage / world_of(name_of(path.parent))).iterdir()):
                path.parent.parent.rmdir()
    for stage in ("variants", "takes", "verdicts"):
        for aside in (run / stage).glob("*.old"):
            aside.rename(aside.with_suffix(""))
    manifest = read_json(run / "run.json")
    config = {k: v for k, v in manifest["config"].items() if k != "cameras"}
    write_json(run / "run.json", {**manifest, "schema": "retake.run/1", "config": {**config, "camera": first}})


def contents(run: Path) -> dict[str, object]:
    return {
        p.relative_to(run).as_posix(): json.loads(p.read_text()) if p.suffix == ".json" else p.read_bytes()
        for stage in ("variants", "takes", "verdicts")
        for p in sorted((run / stage).rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def two_views(tmp_path_factory) -> Path:
    """A run whose names are those of the arrow: two worlds, two cameras."""
    run = tmp_path_factory.mktemp("worlds") / "run"
    make_run(run, takes=0, frames=4, cameras=("front", "wrist"))
    episode = open_episode(run / "episode")
    for world, label in enumerate(("bun_warehouse", "chips_belt")):
        for camera in ("front", "wrist"):
            write_take(run, episode, world, camera=camera, name=f"{label}-s42/{camera}")
            shutil.move(run / f"variants/{world:03d}/{camera}", run / f"variants/{label}/{camera}")
            for path, key in ((run / f"variants/{label}/{camera}/variant.json", "id"),
                              (run / f"takes/{label}-s42/{camera}/take.json", "variant")):  # fmt: skip
                write_json(path, {**read_json(path), key: f"{label}/{camera}"})
        (run / f"variants/{world:03d}").rmdir()
    write_json(
        run / "run.json", {"schema": "retake.run/2", "name": "run", "config": {"cameras": ["front"]}, "stages": {}}
    )
    return run


def test_an_older_run_is_refused_in_words_and_migrated_without_loss(two_views, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two_views, run)
    wanted = contents(run)
    aged(run)
    assert sorted(p.name for p in (run / "takes").iterdir()) == [
        "bun_warehouse-s42", "bun_warehouse-s42-wrist", "chips_belt-s42", "chips_belt-s42-wrist",
    ]  # fmt: skip
    with pytest.raises(RunError, match=r"layout 'retake.run/1'.*`retake migrate "):
        open_run(run)
    reader = RunReader(run)
    assert reader.takes() == ()
    assert {d.id for d in reader.damaged() if "`retake migrate" in d.reason and d.kind == "take"} == {
        p.name for p in (run / "takes").iterdir()
    }
    (run / "variants" / "gate.json").write_text("{}")
    done = migrate.migrate(run)
    assert len(done.takes) == len(done.variants) == 4
    assert contents(run) == wanted
    assert open_run(run).manifest()["config"] == {"cameras": ["front"]}
    assert all(reader.standing(take).status == "pass" for take in reader.takes())
    assert migrate.migrate(run) == migrate.Migrated()


@pytest.mark.parametrize("after", range(6))
def test_a_killed_migration_goes_on(two_views, tmp_path, monkeypatch, after):
    run = tmp_path / "run"
    shutil.copytree(two_views, run)
    wanted = contents(run)
    aged(run)
    real, count = Path.rename, [0]

    def rename(self, target):
        count[0] += 1
        if count[0] > 3 * after + 1:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            migrate.migrate(run)
    migrate.migrate(run)
    assert contents(run) == wanted


def test_what_cannot_be_migrated_is_named(tmp_path, two_views, capsys):
    with pytest.raises(RunError, match="is no run folder"):
        migrate.migrate(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(two_views, run)
    aged(run)
    (run / "takes/bun_warehouse-s42/take.json").write_text("{")
    shutil.copytree(run / "takes/chips_belt-s42", run / "takes/mine")
    assert migrate.main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "left as it was" in out
    assert {"chips_belt-s42/front", "mine/front"} <= {take.id for take in RunReader(run).takes()}
    write_json(run / "run.json", {"schema": "retake.run/9"})
    with pytest.raises(RunError, match=r"`retake migrate` knows 'retake.run/1'"):
        migrate.migrate(run)


# -- one seed for all cameras -------------------------------------------------------------------------------------------


@dataclass
class Sometimes:
    """The simulated picture, and for a camera's first attempts one that no gate lets pass."""

    fails: dict[str, int]
    """Camera → attempts that fail."""
    name: str = "sometimes"
    version: str = "1"
    licence: str = "Apache-2.0"
    calls: list[tuple[str, int]] = field(default_factory=list)

    def render(self, source, world, seed, check_cancel=lambda: None):
        self.calls.append((source.camera_name, seed))
        attempt = seed // 1_000_003
        shade = np.uint8(3 * attempt)
        return source.rgb[:, ::-1].copy() if attempt < self.fails.get(source.camera_name, 0) else source.rgb + shade


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    return make_scene_episode(tmp_path_factory.mktemp("views") / "e", frames=3, size=(320, 240), wrist=True)


KITCHEN = ("kitchen",)


@pytest.mark.parametrize("fails", [{"front": 1}, {"wrist": 1}, {"front": 1, "wrist": 2}])
def test_a_camera_that_fails_takes_the_others_to_the_next_seed(episode, tmp_path, fails):
    backend = Sometimes(fails)
    made = make_gated_variants(
        episode, ("front", "wrist"), tmp_path, worlds=select_worlds(KITCHEN), backend=backend, rerolls=2
    )
    assert made.missing == {}
    assert {v.id: v.seed for v in made.variants} == {
        f"kitchen/{c}": max(fails.values()) * 1_000_003 for c in ("front", "wrist")
    }
    calls = len(backend.calls)
    again = make_gated_variants(
        episode, ("front", "wrist"), tmp_path, worlds=select_worlds(KITCHEN), backend=backend, rerolls=2
    )
    assert again == made
    assert len(backend.calls) == calls, "nothing is made twice"


def test_a_world_that_one_camera_never_passes_keeps_the_others_and_names_it(episode, tmp_path):
    ask = {"worlds": select_worlds(KITCHEN), "backend": Sometimes({"wrist": 9}), "rerolls": 1}
    made = make_gated_variants(episode, ("front", "wrist"), tmp_path, **ask)
    assert [v.id for v in made.variants] == ["kitchen/front"]
    assert list(made.missing) == ["kitchen/wrist"]
    assert made.missing["kitchen/wrist"][0].startswith("wrist: ")
    assert read_missing(tmp_path) == made.missing
    assert not (tmp_path / "kitchen/wrist").exists()
    assert make_gated_variants(episode, ("front", "wrist"), tmp_path, **ask) == made
    assert "kitchen/wrist" in (tmp_path / "gate.md").read_text()
    none = make_gated_variants(
        episode, ("front", "wrist"), tmp_path, **{**ask, "backend": Sometimes({"wrist": 9, "front": 9}, version="2")}
    )
    assert none.variants == ()
    assert set(none.missing) == {"kitchen/front", "kitchen/wrist"}
    assert not (tmp_path / "kitchen").exists()


def test_frames_of_two_attempts_never_make_one_world(episode, tmp_path):
    """Front passes the first attempt alone, wrist the second alone: what stays is of one seed."""

    class Torn(Sometimes):
        def render(self, source, world, seed, check_cancel=lambda: None):
            good = {"front": 0, "wrist": 1}[source.camera_name] == seed // 1_000_003
            return source.rgb if good else source.rgb[:, ::-1].copy()

    made = make_gated_variants(
        episode, ("front", "wrist"), tmp_path, worlds=select_worlds(KITCHEN), backend=Torn({}), rerolls=1
    )
    assert [(v.id, v.seed) for v in made.variants] == [("kitchen/front", 0)]
    assert not (tmp_path / "kitchen/wrist").exists()


def test_one_command_makes_all_cameras_of_all_worlds(tmp_path, capsys, monkeypatch):
    def simulate(out_dir, *, seed, progress, **more):
        return make_scene_episode(out_dir, frames=3, size=(64, 48), seed=seed, wrist=True)

    monkeypatch.setattr(arrow_driver, "simulate", simulate)
    run = tmp_path / "run"
    small = [
        "--set",
        "variants.gate=false",
        "--set",
        "verdicts.enabled=false",
        "--force",
        "--worlds",
        "kitchen,bun_warehouse",
    ]
    assert arrow_driver.main(["run", "--run", str(run), "--set", "capture.simulator=scene", *small]) == 0
    reader = RunReader(run)
    views = {f"{w}/{c}" for w in ("kitchen", "bun_warehouse") for c in ("front", "wrist")}
    assert {v.id for v in reader.variants()} == views
    assert {t.id for t in reader.takes()} == {f"{world_of(v)}-s42/{camera_in(v)}" for v in views}
    assert reader.skeleton_cameras() == ["front", "wrist"]
    page = run.joinpath("report.html").read_text("utf-8")
    assert all(f'"id": "{v}"' in page for v in views)


# -- whole worlds as datasets -------------------------------------------------------------------------------------------


def exported(run: Path, out: Path, **selection) -> tuple[list[dict], dict[str, str]]:
    (report,) = export([run], out, ExportOptions(video=H264), Selection(**selection))
    rows = [row.provenance for row in Dataset(out).episodes()]
    assert len(rows) == report.episodes
    return rows, {r.take: r.reason for r in report.rejected}


def test_whole_worlds_go_and_incomplete_ones_are_listed_with_camera_and_reason(tmp_path):
    run = make_run(tmp_path / "r", takes=1, frames=4, cameras=("front", "wrist"))
    episode = open_episode(run / "episode")
    write_take(run, episode, 1, camera="front")
    write_take(run, episode, 1, camera="wrist", status="fail")
    write_take(run, episode, 2, camera="front")
    write_take(run, episode, 3, camera="wrist", status=None)
    rows, rejected = exported(run, tmp_path / "d")
    assert [row["camera_names"] for row in rows] == ["front,wrist"]
    assert rows[0]["camera_domains"] == "composite,composite"
    assert rows[0]["variant_id"] == "000"
    assert rejected["v001/wrist"] == "the verdict is fail (action)"
    assert rejected["v001/front"] == "its world is incomplete: camera wrist: the verdict is fail (action)"
    assert rejected["v002/wrist"] == "no take of it was made"
    assert "camera wrist: no take of it was made" in rejected["v002/front"]
    assert set(rejected) == {"v001/wrist", "v001/front", "v002/front", "v002/wrist", "v003/wrist"}


def test_a_camera_that_the_gate_refused_is_told_with_its_reason(tmp_path):
    run = make_run(tmp_path / "r", takes=1, frames=4, cameras=("front", "wrist"))
    write_take(run, open_episode(run / "episode"), 1, camera="front")
    write_json(run / "variants/gate.json", {"missing": {"x": {"cameras": {"001/wrist": ["wrist: too dark"]}}}})
    _, rejected = exported(run, tmp_path / "d")
    assert "first frame did not pass the gate: wrist: too dark" in rejected["v001/wrist"]


def test_mixed_worlds_go_only_when_allowed_and_say_each_cameras_domain(tmp_path):
    run = make_run(tmp_path / "r", takes=1, frames=4, cameras=("front", "wrist"))
    episode = open_episode(run / "episode")
    write_take(run, episode, 1, camera="front", domain="generated", backend="oscar")
    write_take(run, episode, 1, camera="wrist", name="v001c/wrist")
    write_take(run, episode, 2, camera="front")
    rows, rejected = exported(run, tmp_path / "strict")
    assert len(rows) == 1
    assert {"v001/front", "v001c/wrist", "v002/front"} <= set(rejected)
    rows, rejected = exported(run, tmp_path / "mixed", allow_mixed=True)
    told = {row["take_id"]: (row["domain"], row["camera_domains"]) for row in rows}
    assert told == {
        "v000/front+v000/wrist": ("composite", "composite,composite"),
        "v001/front+v001c/wrist": ("mixed", "generated,composite"),
        "v002/front": ("mixed", "composite,sim"),
    }
    assert rejected == {}


def test_cameras_of_different_size_keep_their_own(tmp_path):
    run = make_run(tmp_path / "r", takes=0, frames=4, cameras=("front", "wrist"))
    episode = open_episode(run / "episode")
    write_take(run, episode, 0, camera="front")
    write_take(run, episode, 0, camera="wrist", size=(128, 96))
    exported(run, tmp_path / "d")
    assert Dataset(tmp_path / "d").schema.cameras == {
        "observation.images.front": (64, 64), "observation.images.wrist": (128, 96),
    }  # fmt: skip


def test_nothing_whole_says_which_cameras_were_asked(tmp_path):
    run = make_run(tmp_path / "r", takes=1, frames=4, cameras=("front", "wrist"))
    shutil.rmtree(run / "verdicts/v000/wrist")
    with pytest.raises(ExportError, match=r"camera wrist: it has no verdict .*2 cameras were asked for .*--camera"):
        export([run], tmp_path / "d", ExportOptions(video=H264))
