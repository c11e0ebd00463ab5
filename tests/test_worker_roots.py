# SPDX-License-Identifier: Apache-2.0
"""Which folders the worker touches, how deep it looks into them, and what it takes away after a job that was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from retake.core.errors import InputError
from retake.worker.leftovers import sweep
from retake.worker.roots import OutsideRootsError, Roots


def marked(folder: Path) -> bool:
    return (folder / "here").exists()


def mark(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "here").touch()
    return folder


def test_results_are_found_three_levels_deep_and_nothing_is_looked_for_below_them(tmp_path):
    wanted = [mark(tmp_path / name) for name in ("a", "b/one", "b/two")]
    for name in ("a/inside", "b/c/too deep", ".hidden", "b/.hidden"):
        mark(tmp_path / name)
    assert Roots.of([tmp_path]).holding(marked) == wanted
    mark(tmp_path)
    assert Roots.of([tmp_path]).holding(marked) == [tmp_path]


def test_a_folder_of_two_roots_is_found_once(tmp_path):
    run = mark(tmp_path / "project" / "run")
    other = mark(tmp_path / "other")
    roots = Roots.of([tmp_path / "project", tmp_path, tmp_path / "project", other])
    assert roots.folders == (tmp_path / "project", tmp_path, other)
    assert roots.holding(marked) == [run, other]


def test_a_root_is_a_folder_and_never_everything(tmp_path):
    (tmp_path / "file").touch()
    for wrong, says in (
        ([tmp_path / "file"], "no such folder"),
        ([tmp_path, "/"], "whole file system"),
        ([], "at least one"),
    ):
        with pytest.raises(InputError, match=says):
            Roots.of(wrong)


def test_a_path_inside_is_its_real_one_and_any_other_is_refused(tmp_path):
    root, beside = tmp_path / "root", tmp_path / "root2"
    for folder in (root / "run", beside):
        folder.mkdir(parents=True)
    (root / "link").symlink_to(root / "run")
    (root / "away").symlink_to(beside)
    roots = Roots.of([tmp_path / "root"])
    for path, real in (
        (root, root),
        (root / "link" / "new", root / "run" / "new"),
        (str(root / "run" / ".." / "x"), root / "x"),
        (f"{root}/{'n/' * 1000}", root / Path(*["n"] * 1000)),
    ):
        assert roots.inside(path) == real
    for path in (beside, root / "away" / "x", root / "..", "/"):
        with pytest.raises(OutsideRootsError, match="outside the worker's roots"):
            roots.inside(path, "episode")
    longest = f"{root}/{'n/' * 4096}"[:4096]
    roots.inside(longest)
    for path in ("", "run", f"{root}/a\0b", longest + "n"):
        with pytest.raises(InputError, match="episode"):
            roots.inside(path, "episode")


def test_a_folder_is_one_and_holds_what_it_must(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "whole", root / "empty", root / "leads away", outside):
        folder.mkdir(parents=True)
    for path in (root / "whole" / "x.json", root / "file", outside / "x.json"):
        path.touch()
    (root / "leads away" / "x.json").symlink_to(outside / "x.json")
    roots = Roots.of([root])
    assert roots.folder(root / "whole", "episode", "x.json") == root / "whole"
    assert roots.folder(root / "empty", "episode") == root / "empty"
    for name, says in (("file", "is no folder"), ("nothing", "is no folder"), ("empty", "holds no x.json")):
        with pytest.raises(InputError, match=says):
            roots.folder(root / name, "episode", "x.json")
    with pytest.raises(OutsideRootsError):
        roots.folder(root / "leads away", "episode", "x.json")


# -- after an interrupted job -----------------------------------------------------------------------------------------


def files(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
    return folder


@pytest.mark.parametrize("remove_empty", [True, False])
def test_what_was_begun_goes_and_with_it_the_folders_that_are_empty_then(tmp_path, remove_empty):
    output = files(tmp_path / "run/takes/world-s1/front", "take.mp4", ".take.mp4.tmp")
    for name in (".front.1.tmp", ".front.2.tmp"):
        files(output.parent / name, "frame.png")
    sweep(output, remove_empty=remove_empty)
    assert output.exists() != remove_empty
    assert output.parent.exists() != remove_empty
    assert list(output.parent.glob(".*")) == []
    assert list(output.glob("*")) == []
    assert (tmp_path / "run/takes").is_dir()


def test_results_and_what_is_of_others_stay(tmp_path):
    whole = files(tmp_path / "takes/w/front", "take.mp4", "take.json")
    sweep(whole)
    assert sorted(p.name for p in whole.iterdir()) == ["take.json", "take.mp4"]
    notes = files(tmp_path / "takes/w/notes", "notes.txt")
    sweep(notes)
    assert (notes / "notes.txt").exists()
    side = files(tmp_path / "takes/w/left", "take.mp4")
    files(side.parent / ".other.1.tmp", "frame.png")
    sweep(side)
    assert not side.exists()
    assert (side.parent / ".other.1.tmp" / "frame.png").exists(), "of the camera beside it"
    assert side.parent.is_dir()
    alone = files(tmp_path / "scratch/deep/one", "take.mp4")
    sweep(alone)
    assert alone.parent.is_dir(), "only a world's folder goes with its last camera"
    odd = files(tmp_path / "takes/w/[ab]", "take.mp4")
    files(odd.parent / ".a.1.tmp", "x")
    files(odd.parent / ".[ab].1.tmp", "x")
    sweep(odd)
    assert (odd.parent / ".a.1.tmp").exists()
    assert not (odd.parent / ".[ab].1.tmp").exists()
    sweep(tmp_path / "takes" / "nothing" / "front")
