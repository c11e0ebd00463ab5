# SPDX-License-Identifier: Apache-2.0
"""A user's own policy or task: where it finds what it imports, which files it is made of, and what is said of a broken one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from retake.core.errors import InputError
from retake.core.robustness import own_code
from retake.core.robustness.own_code import files_of, folder_of, importable, named_object


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing of one test stays imported for the next."""
    known, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(own_code, "_brought", {})
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]
    sys.path[:] = path


def file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_finds_what_lies_beside_it_and_says_so(tmp_path):
    file(tmp_path / "own_helper_a.py", "VALUE = 3\n")
    mine = file(tmp_path / "mine.py", "from own_helper_a import VALUE\ndef act():\n    return VALUE\n")
    before = list(sys.path)
    assert named_object(f"{mine}:act", "policy")() == 3
    assert sys.path == before
    assert files_of(str(mine)) == [mine, tmp_path / "own_helper_a.py"]
    assert folder_of(str(mine)) == tmp_path


def test_two_folders_may_each_have_a_helper(tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        file(tmp_path / name / "own_helper_b.py", f"VALUE = {value}\n")
        file(tmp_path / name / "mine.py", "import own_helper_b\ndef act():\n    return own_helper_b.VALUE\n")
    acts = [named_object(f"{tmp_path / name / 'mine.py'}:act", "policy") for name in ("a", "b")]
    assert [act() for act in acts] == [1, 2]
    assert files_of(str(tmp_path / "b" / "mine.py")) == [tmp_path / "b" / "mine.py", tmp_path / "b" / "own_helper_b.py"]


def test_what_is_installed_is_not_hidden_by_what_lies_beside_a_file(tmp_path):
    file(tmp_path / "yaml.py", "VALUE = 1\n")
    mine = file(tmp_path / "mine.py", "import yaml\nact = yaml.safe_load\n")
    assert named_object(f"{mine}:act", "policy")("[1]") == [1]
    assert files_of(str(mine)) == [mine]


def test_a_module_lies_in_the_working_directory_and_is_made_of_its_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file(tmp_path / "own_package" / "__init__.py", "")
    file(tmp_path / "own_package" / "part.py", "from own_package.other import act\n")
    file(tmp_path / "own_package" / "other.py", "import own_aside\ndef act():\n    return own_aside.VALUE\n")
    file(tmp_path / "own_aside.py", "VALUE = 5\n")
    assert named_object("own_package.part:act", "policy")() == 5
    names = [path.relative_to(tmp_path).as_posix() for path in files_of("own_package.part")]
    assert names == ["own_package/part.py", "own_aside.py", "own_package/__init__.py", "own_package/other.py"]
    assert folder_of("own_package.part") == tmp_path
    assert files_of("nowhere_imported") == []
    assert files_of("sys") == [], "built in"


def test_what_an_environment_in_the_folder_brings_is_not_the_user_s(tmp_path):
    place = file(tmp_path / "env" / "site-packages" / "own_library.py", "VALUE = 7\n").parent
    mine = file(
        tmp_path / "mine.py", f"import sys\nsys.path.append({str(place)!r})\nfrom own_library import VALUE as act\n"
    )
    assert named_object(f"{mine}:act", "policy") == 7
    assert files_of(str(mine)) == [mine]


def test_files_of_one_name_in_two_places_are_two_modules(tmp_path):
    mine = [file(tmp_path / name / "mine.py", "class Act:\n    pass\n") for name in ("a", "b")]
    one, two = (named_object(f"{path}:Act", "policy") for path in mine)
    assert one.__module__ != two.__module__
    assert sys.modules[one.__module__].Act is one
    assert sys.modules[two.__module__].Act is two


@pytest.mark.parametrize("spec", ["mine.py", "mine.py:", "mine.py:not a name", ":act", "1"])
def test_what_names_nothing_is_told_the_forms_there_are(spec):
    if spec == ":act":
        with pytest.raises((InputError, ValueError)):
            named_object(spec, "policy")
        return
    with pytest.raises(InputError, match=r"expected module:function, file.py:function, zero$"):
        named_object(spec, "policy", "zero")
    with pytest.raises(InputError, match=r"expected module:function, file.py:function$"):
        named_object(spec, "policy")


def test_what_is_broken_says_how_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken = file(tmp_path / "broken.py", "VALUE = 1\nraise KeyError('half')\n")
    file(tmp_path / "own_broken.py", "1 / 0\n")
    known = set(sys.modules)
    for spec, told in (
        (f"{broken}:act", r"broken\.py fails when it is loaded: KeyError: 'half'"),
        (f"{tmp_path / 'none.py'}:act", r"none\.py does not exist"),
        ("own_broken:act", "module 'own_broken' fails when it is loaded: ZeroDivisionError"),
        ("own_nowhere:act", "module 'own_nowhere' cannot be imported, neither from what is installed nor from"),
        ("json:nothing", "json has no 'nothing'"),
    ):
        with pytest.raises(InputError, match=told):
            named_object(spec, "policy")
    assert not {name for name in set(sys.modules) - known if "broken" in name}


def test_the_path_is_as_it_was_though_the_user_s_code_changed_it(tmp_path):
    with importable(tmp_path):
        assert sys.path[-1] == str(tmp_path)
        sys.path.append("/theirs")
    assert sys.path[-1] == "/theirs"
    assert str(tmp_path) not in sys.path
    sys.path.append(str(tmp_path))
    with importable(tmp_path):
        assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path), "what was there before stays"
    with importable(None):
        pass
    with importable(tmp_path / "x"):
        sys.path.remove(str(tmp_path / "x"))
