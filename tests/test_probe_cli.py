# SPDX-License-Identifier: Apache-2.0
"""`retake train-probe`: what its words change of a training, which packs it uses, and what it prints. Nothing is learnt here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.errors import InputError, RunError
from retake.core.progress import silent
from retake.worker.probe import cli
from retake.worker.probe.settings import Settings


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    made: list[Any] = []
    monkeypatch.chdir(tmp_path)

    def train(packs: Any, out: Path, settings: Settings, **more: Any) -> Any:
        made.append((packs, out, settings, more))
        return SimpleNamespace(parameters=12, steps=3, seconds=1.6, loss=0.12345, folder=out)

    parts = {"retake.worker.probe.train:train": train, "retake.worker.probe.train:admit": lambda *asked: None}
    monkeypatch.setattr(cli, "load", lambda reference, extra: parts[reference])
    monkeypatch.setattr(cli, "_facts", lambda path, args, masks, stop: path)
    monkeypatch.setattr(cli, "pack", lambda path, folder, **more: ("packed", path, folder, more["progress"] is silent))
    monkeypatch.setattr(cli, "open_pack", lambda path: ("opened", path))
    return made


def test_the_runs_of_the_data_sets_tell_what_is_background(calls, monkeypatch):
    """Their packs know it, and lie beside those that do not."""
    given = []
    monkeypatch.setattr(cli, "backgrounds", lambda runs: ("masks of", *runs))
    monkeypatch.setattr(cli, "pack", lambda path, folder, **more: given.append((folder.name, more["masks"])))
    assert cli.main(["data", "--out", "o", "--quiet"]) == 0
    assert cli.main(["data", "--runs", "r/a", "r/b", "--augment", "textures", "--out", "o", "--quiet"]) == 0
    (plain, nothing), (masked, masks) = given
    assert nothing is None
    assert masks == ("masks of", Path("r/a"), Path("r/b"))
    assert masked == f"{plain}-masked"
    with pytest.raises(InputError, match="--runs is for --augment textures; asked is --augment none"):
        cli.main(["data", "--runs", "r/a", "--out", "o", "--quiet"])
    assert len(given) == 2


@pytest.mark.parametrize(("words", "changes"), [
    ("", {}), ("--steps 7", {"steps": 7}), ("--batch 5", {"batch": 5}), ("--rate 0.5", {"rate": 0.5}), ("--seed 4", {"seed": 4}),
    ("--augment jitter", {"augment": "jitter"}), ("--threads 3", {"threads": 3}), ("--shares 1 3", {"shares": (1.0, 3.0)}),
    ("--shuffle-actions", {"shuffle_actions": True}),
])  # fmt: skip
def test_a_word_changes_what_it_names(calls, capsys, words, changes):
    assert cli.main(["data", "--out", "o", *words.split()]) == 0
    (packs, out, settings, more), *_ = calls
    assert settings == replace(Settings(), **changes)
    assert out == Path("o")
    assert len(packs) == 1
    assert capsys.readouterr().out.splitlines() == ["12 parameters, 3 steps, 2 s, loss 0.1235", "o"]
    more["check_cancel"]()
    assert more["progress"] is not silent


def test_packs_are_made_by_place_or_opened_where_they_are(calls, tmp_path):
    for name in ("a/train", "b/train"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready" / "pack.json").write_text("{}")
    cli.main(["a/train", "b/train", "ready", "a/train", "--out", "o", "--quiet"])
    one, other, ready, same = calls[0][0]
    assert ready == ("opened", Path("ready"))
    assert one == same
    assert [(kind, path, quiet) for kind, path, _, quiet in (one, other)] == [
        ("packed", Path("a/train"), True), ("packed", Path("b/train"), True),
    ]  # fmt: skip
    assert one[2] != other[2], "two data sets of one name"
    assert {folder.parent for _, _, folder, _ in (one, other)} == {Path("o/packs")}
    assert all(folder.name.startswith("train-") for _, _, folder, _ in (one, other))
    assert calls[0][3]["progress"] is silent
    cli.main(["a/train", "--out", "o", "--packs", "p"])
    assert calls[1][0][0][2] == Path("p") / one[2].name
    assert calls[1][0][0][3] is False
    (tmp_path / "ready" / "meta").mkdir()
    (tmp_path / "ready" / "meta" / "info.json").write_text("{}")
    cli.main(["ready", "--out", "o"])
    assert calls[2][0][0][0] == "packed", "a data set is read as one, whatever lies beside it"


@pytest.mark.parametrize(("field", "fine", "wrong"), [
    ("steps", 1, 0), ("batch", 1, 0), ("threads", 1, 0), ("seed", 0, -1), ("rate", 1e-9, 0.0), ("rate", 1e9, float("inf")),
    ("shares", (0.0, 1.0), (0.0, 0.0)), ("shares", (1.0,), (1.0, -0.1)), ("augment", "textures", "magic"),
    ("shares", (1e308,), (1e308, 1e308)), ("shares", (1.0,), (float("nan"),)), ("seed", 2**64 - 1, 2**64),
    ("batch", 65536, 65537), ("threads", 1024, 1025),
])  # fmt: skip
def test_settings_are_taken_up_to_their_bounds(field, fine, wrong):
    assert getattr(Settings(**{field: fine}), field) == fine
    with pytest.raises(InputError, match=field[:6]):
        Settings(**{field: wrong})


def test_a_folder_is_held_and_has_no_lock_when_its_policy_is_done(calls, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "pack", lambda *given, **more: seen.append(cli.main(["data", "--out", "o"])))
    with pytest.raises(RunError, match="written by another process"):
        cli.main(["data", "--out", "o"])
    assert not (tmp_path / "o").exists()
    monkeypatch.setattr(cli, "pack", lambda *given, **more: seen.append((tmp_path / "o" / ".lock").exists()))
    cli.main(["data", "--out", "o"])
    assert seen == [True]
    assert not list((tmp_path / "o").iterdir())


def test_what_is_refused_is_refused_before_anything_is_packed(calls, tmp_path, monkeypatch):
    def refuse(*asked: Any) -> None:
        raise InputError("no")

    monkeypatch.setattr(cli, "load", lambda reference, extra: refuse)
    monkeypatch.setattr(cli, "pack", None)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in ("new/probe", "mine"):
        with pytest.raises(InputError, match="no"):
            cli.main(["data", "--out", out])
    with pytest.raises(RunError, match="file is a file; choose another folder with --out"):
        cli.main(["data", "--out", "file"])
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["file", "mine", "mine/notes.txt"]
