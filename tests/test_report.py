# SPDX-License-Identifier: Apache-2.0
"""The report page: in a real headless Chromium, from disk and served; byte ranges; escaping; the sprite fallback."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from pathlib import Path

import arrow_driver
import pytest

from retake.core.report.page import render
from retake.core.report.serve import make_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run with spaces"
    assert arrow_driver.main(["run", "--run", str(path), *arrow_driver.SMALL]) == 0
    return path


@pytest.fixture
def page():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 1000})
        tab.problems = []
        tab.on("console", lambda m: tab.problems.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda e: tab.problems.append(str(e)))
        tab.on("requestfailed", lambda r: tab.problems.append(r.url) if "ERR_ABORTED" not in str(r.failure) else None)
        yield tab
        browser.close()


def times(tab) -> list[float]:
    return tab.evaluate("[...document.querySelectorAll('video')].map(v => v.currentTime)")


@pytest.mark.browser
@needs_chromium
def test_videos_play_and_scrub_together_from_disk(run, page):
    page.goto((run / "report.html").as_uri())
    page.wait_for_function(
        "document.querySelectorAll('video').length >= 3 && [...document.querySelectorAll('video')].every(v => v.readyState >= 2)"
    )
    page.click("#play")
    page.wait_for_function("state.frame > 8")
    playing = times(page)
    assert min(playing) > 0.2
    assert max(playing) - min(playing) < 0.25
    page.click("#play")
    page.fill("#scrub", "12")
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(v => Math.abs(v.currentTime * fps - 12.5) < 0.6)"
    )
    assert "frame 12" in page.inner_text("#clock")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("state.frame") == 13
    for k in range(len(page.query_selector_all(".world"))):
        page.click(f".world >> nth={k}")
        page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
    assert page.evaluate("[...document.querySelectorAll('img')].filter(i => i.complete).every(i => i.naturalWidth > 0)")
    assert page.evaluate("document.querySelectorAll('.chart svg polyline').length") >= 3
    assert page.problems == []


@pytest.mark.browser
@needs_chromium
def test_it_plays_when_served(run, page):
    with make_server(run) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/report.html")
        page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
        page.fill("#scrub", "20")
        page.wait_for_function(
            "[...document.querySelectorAll('video')].every(v => Math.abs(v.currentTime * fps - 20.5) < 0.6)"
        )
        assert page.problems == []
        page.goto("about:blank")
        server.shutdown()


@pytest.mark.browser
@needs_chromium
def test_without_h264_the_page_shows_sprites(run, page, tmp_path, monkeypatch):
    from retake.core import pipeline
    from retake.core.run_store import open_run

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "report")
    monkeypatch.setenv("RETAKE_NO_PYAV", "1")
    for name in ("takes", "skeleton"):
        shutil.rmtree(copy / name)
    assert arrow_driver.main(["run", "--run", str(copy), *arrow_driver.SMALL]) == 0
    page.goto(pipeline.report(open_run(copy)).as_uri())
    page.wait_for_function("document.querySelectorAll('canvas').length >= 3")
    page.fill("#scrub", "10")
    page.wait_for_timeout(200)
    lit = page.evaluate(
        "[...document.querySelectorAll('canvas')].map(c => { const s = document.createElement('canvas'); return c.width > 0; })"
    )
    assert all(lit)
    assert page.problems == []


def told(run: Path) -> Path:
    """The page of a run whose takes stand in every way, of two seeds and of two cameras."""
    text = (run / "report.html").read_text("utf-8")
    before, rest = text.split('<script type="application/json" id="data">')
    raw, after = rest.split("</script>", 1)
    data = json.loads(raw)
    data["cameras"].append({**data["cameras"][0], "name": "wrist", "skeleton": None})
    good, failing, other = data["variants"]
    first = good["takes"][0]
    untold = ["gripper_event: no opening or closing whose fingers are large enough to tell: 3 px", "wrist_turn: <b>no</b> depth",
              "fall_acceleration: 4 frames of free flight, 5 needed", "object_posture: <b>no</b> depth"]  # fmt: skip
    judged = {"status": "pass", "probability": 0.9, "checks": [], "untold": untold}
    good["takes"] = [
        {**first, "id": "good-1", "seed": 1, "status": "pass", "reason": "", "verdict": judged},
        {**first, "id": "good-2", "seed": 2, "status": "fail", "reason": "arm_offset: 9 px, limit 5"},
        {**first, "id": "good-3", "seed": 2, "status": "damaged", "reason": "take.mp4 was changed", "clip": None},
    ]
    failing["takes"] = [{**failing["takes"][0], "id": "f", "seed": 1, "status": "fail", "reason": "lag: 3 frames",
                         "approximations": ["fp8", "steps:8"]}]  # fmt: skip
    for take in other["takes"]:
        take.update(id="w", seed=1, camera="wrist", status="pass", reason="")
    page = run / "told.html"
    page.write_text(f'{before}<script type="application/json" id="data">{json.dumps(data)}</script>{after}', "utf-8")
    return page


def cards(page) -> dict[str, str]:
    return {c.query_selector("b").inner_text(): c.inner_text() for c in page.query_selector_all(".world")}


@pytest.mark.browser
@needs_chromium
def test_selectors_worst_verdicts_and_reasons(run, page):
    page.goto(told(run).as_uri())
    shown = cards(page)
    assert len(shown) == 2, "variants of the wrist camera do not stand beside the front simulation"
    first, second = shown.values()
    assert "1 of 3 takes: damaged" in first, "the worst of all seeds, not the first take"
    assert "take.mp4 was changed" in first
    assert "fail" in second
    assert "lag: 3 frames" in second
    page.select_option("#seed", "1")
    first, second = cards(page).values()
    assert "pass" in first
    assert "fail" in second
    page.check("#failed")
    assert len(cards(page)) == 1
    assert page.inner_text("figure[data-take] .why") == "fail: lag: 3 frames"
    assert "seed 1 · approximate: fp8, steps:8" in page.inner_text("figure[data-take]")
    page.select_option("#seed", "")
    page.select_option("#layout", "all")
    ids = page.evaluate("[...document.querySelectorAll('figure[data-take]')].map(f => f.dataset.take)")
    assert ids == ["good-2", "f"], "failed takes that can be played"
    page.uncheck("#failed")
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
    page.click("#play")
    page.wait_for_function("state.frame > 8")
    playing = times(page)
    assert len(playing) == 5  # simulation, skeleton, three takes
    assert max(playing) - min(playing) < 0.25
    page.click("#play")
    page.select_option("#camera", label="wrist")
    ids = page.evaluate("[...document.querySelectorAll('figure[data-take]')].map(f => f.dataset.take)")
    assert ids == ["w"]
    assert "approximate" not in page.inner_text("#stage")
    assert "wrist camera" in page.inner_text("#stage")
    assert "front camera" not in page.inner_text("#stage")
    page.check("#failed")
    assert "No take of this camera and seed failed." in page.inner_text("#worlds")
    assert page.problems == []


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("layout", ["one", "all"])
def test_a_narrow_screen_needs_no_sideways_scrolling(run, page, layout):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(told(run).as_uri())
    page.select_option("#layout", layout)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
@needs_chromium
def test_what_a_verdict_could_not_tell_is_a_line_of_its_own(run, page):
    page.goto(told(run).as_uri())
    page.select_option("#seed", "1")
    row = page.query_selector("#verdict tr:has(.untold)")
    assert row.query_selector("th").inner_text() == "Not told:"
    shown = [line.inner_text() for line in row.query_selector_all(".untold > span")]
    assert shown == [
        "gripper_event no opening or closing whose fingers are large enough to tell: 3 px",
        "wrist_turn, object_posture <b>no</b> depth",
        "fall_acceleration 4 frames of free flight, 5 needed",
    ]
    page.click(".world >> nth=1")
    assert page.query_selector(".untold") is None, "verdicts from before, and those that told everything"
    assert page.problems == []


def test_ranges_are_served(run):
    video = "/report/simulation_front.mp4"
    size = (run / video[1:]).stat().st_size
    with make_server(run) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
        for wanted, status, length in (
            (None, 200, size), ("bytes=0-9", 206, 10), ("bytes=10-", 206, size - 10), ("bytes=-5", 206, 5),
            (f"bytes={size + 5}-", 416, None), ("bytes=abc", 200, size),
        ):  # fmt: skip
            connection.request("GET", video, headers={"Range": wanted} if wanted else {})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == status
            if length is not None:
                assert len(body) == length
        (run.parent / "secret.txt").write_text("not of this run")
        for outside in ("/../secret.txt", "/%2e%2e/secret.txt", "/report/../../secret.txt"):
            connection.request("GET", outside)
            answer = connection.getresponse()
            assert (answer.status, b"not of this run" in answer.read()) == (404, False)
        connection.close()
        server.shutdown()


def test_text_cannot_break_out_of_the_page():
    data = {"name": "r", "episode": {"task": "</script><script>alert(1)</script>"}}
    html = render(data)
    assert "<script>alert(1)" not in html
    assert "&lt;/script&gt;" in html


@pytest.mark.parametrize("port", [99999, -1])
def test_a_port_that_cannot_be_had_is_explained(tmp_path, port):
    from retake.core.errors import InputError
    from retake.core.report.serve import serve

    with pytest.raises(InputError, match="0 takes any free one"):
        serve(tmp_path, port=port, browser=False)
