# SPDX-License-Identifier: Apache-2.0
"""What the page shows of the roots: takes, newest first, whatever state they are in; their parts; runs to ask takes of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worker_support import Place, make_place, specs

from retake.core.errors import WorkerError
from retake.worker import gallery
from retake.worker.execute import Context, Loaded, execute
from retake.worker.gallery import Gallery
from retake.worker.roots import OutsideRootsError, Roots


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run with three takes of three frames; the second begins at frame 1."""
    place = make_place(tmp_path_factory.mktemp("gallery"), frames=4, variants=2)
    loaded = Loaded()
    for number in range(3):
        job = place.job(number, f"take{number}", frames=3)
        job = replace(job, request=replace(job.request, start=number % 2))
        execute(job, specs()["sleepy"], loaded, Context("j", str(number)))
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    shutil.copytree(made.run, tmp_path / "root" / "run")
    return Place(tmp_path / "root", made.frames)


def age(place: Place, **seconds: float) -> None:
    """When the takes were made."""
    for name, when in seconds.items():
        os.utime(place.run / "takes" / name / "front" / "take.json", (when, when))


def gallery_of(place: Place, limit: int = 100) -> Gallery:
    return Gallery(Roots.of([place.root]), place.root.parent / "cache", limit)


def test_the_newest_come_first_and_no_more_than_wanted(place):
    age(place, take0=2000, take1=3000, take2=1000)
    shown = gallery_of(place).takes()
    assert [(one.folder.parent.name, one.made_s) for one in shown] == [
        ("take1", 3000),
        ("take0", 2000),
        ("take2", 1000),
    ]
    assert [one.key for one in gallery_of(place, 2).takes()] == [one.key for one in shown[:2]]
    age(place, take0=3000, take2=3000)
    keys = [one.key for one in gallery_of(place).takes()]
    assert keys == sorted(keys), "made in one moment, they always stand in the same order"
    assert set(keys) == {one.key for one in shown}
    for one in shown:
        found = gallery_of(place).find(one.key)
        assert found is not None
        assert found.folder == one.folder
    assert gallery_of(place).find("0" * 20) is None


def test_a_take_says_what_it_is(place):
    first = next(one for one in gallery_of(place).takes() if one.folder.parent.name == "take0")
    told = first.to_json()
    assert {key: told[key] for key in ("id", "run", "episode", "verdict", "variant", "backend", "seed", "frames", "fps")} == {
        "id": "take0/front", "run": "run", "episode": "run", "verdict": "not judged", "variant": "v0/front",
        "backend": "sleepy", "seed": 0, "frames": 3, "fps": 15.0,
    }  # fmt: skip
    assert told["reason"]
    assert told["parts"] == ["frame", "sidecar", "simulation", "skeleton", "take"]
    assert json.loads(json.dumps(told)) == told


def test_what_shows_the_same_simulation_has_one_source(place, tmp_path):
    sources = {one.folder.parent.name: one.source for one in gallery_of(place).takes()}
    assert sources["take0"] == sources["take2"] != sources["take1"]
    shutil.copytree(place.run, place.root / "other")
    assert len({one.source for one in gallery_of(place).takes()}) == 4


def test_a_take_that_cannot_be_read_is_shown_as_damaged(place):
    (place.run / "takes/take1/front/take.json").write_text("{")
    (place.run / "takes/take3/front").mkdir(parents=True)
    shown = {one.folder.parent.name: one for one in gallery_of(place).takes()}
    assert sorted(shown) == ["take0", "take1", "take2"], "one that is being made is none yet"
    hurt = shown["take1"]
    assert (hurt.standing.status, hurt.take) == ("damaged", None)
    told = hurt.to_json()
    assert (told["verdict"], told["parts"], told["variant"], told["seed"]) == ("damaged", ["sidecar"], "", 0)
    it = gallery_of(place)
    assert it.media(hurt, "sidecar") == (hurt.folder / "take.json", "application/json")
    assert it.media(hurt, "take") is None
    assert len(told["source"]) == len(shown["take0"].source)


def test_what_leads_out_of_the_roots_is_not_shown(place, tmp_path):
    it, outside = gallery_of(place), tmp_path / "outside"
    keys = {one.folder.parent.name: one.key for one in it.takes()}
    shutil.move(place.run / "takes/take1", outside)
    (place.run / "takes/take1").symlink_to(outside)
    assert sorted(one.folder.parent.name for one in it.takes()) == ["take0", "take2"]
    assert it.find(keys["take1"]) is None
    shown = it.takes()[0]
    assert shown.take is not None
    shutil.move(shown.take.video, tmp_path / "video.mp4")
    shown.take.video.symlink_to(tmp_path / "video.mp4")
    with pytest.raises(OutsideRootsError):
        it.media(shown, "take")


def test_a_browser_gets_files_as_they_are_and_films_of_pictures_once(place, monkeypatch):
    shown = next(one for one in gallery_of(place).takes() if one.folder.parent.name == "take1")
    it, ran, code = gallery_of(place), [], 0

    def run(command: list[str], **options: Any) -> Any:
        ran.append(command)
        if code == 0:
            Path(command[4]).parent.mkdir(exist_ok=True)
            Path(command[4]).write_bytes(b"film")
        return subprocess.CompletedProcess(command, code, "", "first\n" + "x" * 400 + " the end\n")

    monkeypatch.setattr(gallery.subprocess, "run", run)
    assert it.media(shown, "take") == (place.run / "takes/take1/front/take.mp4", "video/mp4")
    assert it.media(shown, "frame") == (place.run / "variants/v0/front/frame.png", "image/png")
    assert it.media(shown, "sidecar") == (place.run / "takes/take1/front/take.json", "application/json")
    assert it.media(shown, "something") is None
    assert ran == []
    film = it.media(shown, "simulation")
    assert film is not None
    assert film == it.media(shown, "simulation")
    assert film[1] == "video/mp4"
    source = place.run / "episode/cameras/front/rgb"
    assert ran == [[sys.executable, "-m", "retake.worker.media", str(source), str(film[0]), "1", "3", "15.0"]]
    assert it.media(shown, "skeleton") != film
    assert len(ran) == 2
    os.utime(source, (1, 1))
    assert it.media(shown, "simulation") != film, "recorded anew"
    code = 2
    os.utime(source, (2, 2))
    with pytest.raises(WorkerError, match=r"the simulation video cannot be shown: x{292} the end$"):
        it.media(shown, "simulation")

    def hangs(command: list[str], **options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(gallery.subprocess, "run", hangs)
    with pytest.raises(WorkerError, match="took longer than"):
        it.media(shown, "simulation")


def test_runs_that_takes_can_be_asked_for_say_where_they_go(place):
    for name, lacks in (
        ("a", "skeleton"), ("b", "variants"), ("c", "episode/complete.json"), ("d", "variants/v0/front/frame.png"),
        ("e", "episode/episode.json"),
    ):  # fmt: skip
        shutil.copytree(place.run, place.root / name)
        gone = place.root / name / lacks
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    runs = gallery_of(place).runs(["composite", "sleepy"])
    assert [one["name"] for one in runs] == ["d", "run"]
    assert [[v["id"] for v in one["variants"]] for one in runs] == [["v1/front"], ["v0/front", "v1/front"]]
    run = runs[1]
    assert (run["path"], run["episode"], run["task"]) == (
        str(place.run), str(place.run / "episode"), "pick up the packet",
    )  # fmt: skip
    assert (run["cameras"], run["skeletons"]) == (["front"], {"front": str(place.run / "skeleton/front")})
    variant = run["variants"][0]
    assert (variant["camera"], variant["prompt"]) == ("", "a packet on a table, variant 0")
    assert variant["outputs"] == {
        "composite": str(place.run / "takes/v0-s{seed}/front"), "sleepy": str(place.run / "takes/v0-sleepy-s{seed}/front"),
    }  # fmt: skip
