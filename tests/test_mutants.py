# SPDX-License-Identifier: Apache-2.0
"""The tool that plants faults: none that nothing could notice, each alone, in a module's functions without importing it again."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.append(str(SCRIPTS))
from mutants import with_sample  # noqa: E402
from mutation import session  # noqa: E402
from mutation.faults import faults, plant  # noqa: E402
from mutation.session import Patience, patch  # noqa: E402

MODULES = sorted((SCRIPTS.parent / "exts/retake.core/retake/core").glob("*.py"))

WITHOUT = """
import math, json, logging
import numpy as np
from functools import lru_cache
log = logging.getLogger()
def f(a, b, text):
    assert a < b, 1
    log.info("%d", 1)
    json.dumps(a, indent=2)
    np.asarray(a).reshape(-1)
    np.asarray(a).astype(float, copy=False)
    zip(a, b, strict=True)
    math.hypot(a, b)
    np.maximum(a, b)
    f(a, a, text)
    return text.rsplit(".", 1)[-1], text.split(".", 1)[0]
@lru_cache(maxsize=3)
def g():
    raise ValueError(1 + 2)
"""


def test_no_fault_is_planted_that_nothing_could_notice() -> None:
    found = {fault.text: fault.what for fault in faults(WITHOUT, "m")}
    dropped = {text: what for text, what in found.items() if what == "statement dropped"}
    # The statements themselves may be dropped, and zip and f mean something else with their arguments exchanged.
    assert set(found) - set(dropped) <= {"zip(a, b, strict=True)"}


@pytest.mark.parametrize("path", MODULES[::6], ids=lambda path: path.stem)
def test_a_fault_changes_one_thing_and_its_key_is_its_own(path: Path) -> None:
    source = path.read_text("utf-8")
    found, plain = faults(source, path.name), ast.unparse(ast.parse(source)).splitlines()
    assert len({fault.key for fault in found}) == len(found)
    for fault in found[::7]:
        changed = plant(source, fault.number).splitlines()
        different = [a for a, b in zip(plain, changed, strict=False) if a != b]
        assert different or len(plain) != len(changed), fault
        assert fault.span[0] <= fault.line <= fault.span[1]


SOURCE = """
LIMIT = 3


def plain(a, b):
    return a < b


def outer():
    limit = 5

    def inner(a):
        return a + limit

    return inner


class Thing:
    size = 4

    @property
    def double(self):
        return self.size * 2
"""


def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "planted.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(
    ("text", "what", "takes", "after"),
    [
        ("return a < b", "Lt → LtE", True, lambda m: m.plain(1, 1)),
        ("return a + limit", "Add → Sub", True, lambda m: m.outer()(1) == -4),
        ("limit = 5", "5 → 6", True, lambda m: m.outer()(1) == 7),
        ("return self.size * 2", "2 → 3", True, lambda m: m.Thing().double == 12),
        ("LIMIT = 3", "3 → 4", False, lambda m: m.LIMIT == 3),
        ("size = 4", "4 → 5", False, lambda m: m.Thing().double == 8),
    ],
)
def test_functions_get_the_fault_and_what_importing_executes_does_not(tmp_path, text, what, takes, after) -> None:
    made = module(tmp_path)
    held = made.plain  # as another module holds what it imported
    (fault,) = (f for f in faults(SOURCE, "m") if (f.text, f.what) == (text, what))
    assert fault.in_function == takes
    assert patch(made.__file__, SOURCE, fault.number) == takes
    assert after(made)
    assert held is made.plain


def test_no_sample_of_the_page_is_lost_when_another_one_is_judged() -> None:
    def judged(kind: str, seed: int, **asked: int) -> dict:
        rows = [{"package": name, "key": f"{seed} {name} {k}"} for name, count in asked.items() for k in range(count)]
        return {"kind": kind, "seed": seed, "asked": asked, "mutants": rows}

    samples = with_sample([], judged("unseen", 1, core=2, isaac=1))
    samples = with_sample(samples, judged("tuned", 2, usd=1))
    samples[0]["note"] = "of old"
    samples = with_sample(samples, judged("unseen", 3, worker=2))
    samples = with_sample(samples, judged("earlier", 1, usd=3, isaac=2))
    assert [(one["kind"], one["seed"]) for one in samples] == [
        ("unseen", 3),
        ("unseen", 1),
        ("earlier", 1),
        ("tuned", 2),
    ]
    assert samples[1]["asked"] == {"core": 2}
    assert samples[1]["note"] == "of old"
    assert samples[2]["asked"] == {"usd": 3, "isaac": 2}
    samples = with_sample(samples, judged("earlier", 1, core=1))
    assert [(one["kind"], one["seed"]) for one in samples] == [("unseen", 3), ("earlier", 1), ("tuned", 2)]
    assert [row["package"] for row in samples[1]["mutants"]] == ["core", "usd", "usd", "usd", "isaac", "isaac"]


@pytest.mark.parametrize(
    ("share", "over"),
    [(1.0, 40), (0.1, None), (0.0, 102), (None, 102)],
    ids=["computes for ever", "is given little", "sleeps", "where nobody tells"],
)
def test_who_computes_too_long_or_sleeps_hangs_and_who_is_given_little_does_not(monkeypatch, share, over) -> None:
    clock = [1000.0]
    used = (lambda group: None) if share is None else (lambda group: share * (clock[0] - 1000.0))
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(session, "group_cpu_s", used)
    patience, ended = Patience(1, 100.0, 39.0), None
    for second in range(360):
        clock[0] = 1000.0 + second
        if patience.over():
            ended = second
            break
    assert (ended is None) == (over is None)
    assert over is None or abs(ended - over) <= 3


def test_a_process_group_s_time_is_what_it_computed() -> None:
    import os

    before = session.group_cpu_s(os.getpgid(0))
    if before is None:
        pytest.skip("this system does not tell")
    sum(k * k for k in range(3_000_000))
    after = session.group_cpu_s(os.getpgid(0))
    assert before < after
