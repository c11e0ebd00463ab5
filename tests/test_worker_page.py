# SPDX-License-Identifier: Apache-2.0
"""The page in a real headless Chromium: submit, watch progress, cancel, play a take; and what it must never do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from worker_support import ServiceProcess, all_done, make_place, make_tuning, settings_for, wait_for

from retake.worker.tune.folder import only_writer

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; `apt-get install chromium` brings one"),
]


def until(page: Any, expression: str) -> None:
    """Poll a JavaScript expression (the page's security policy forbids the driver's own way, which uses eval)."""
    wait_for(lambda: page.evaluate(f"() => Boolean({expression})"), 60, expression)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    tmp = tmp_path_factory.mktemp("page")
    process = ServiceProcess(make_place(tmp / "root", 12, (160, 120), variants=2), tmp / "state", settings_for(tmp)[1])
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make sync` brings it")
    with api.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(worker: ServiceProcess, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 1100})
    made, problems = context.new_page(), []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on(
        "request",
        lambda request: (
            None if request.url.startswith((worker.url, "blob:", "data:")) else problems.append(request.url)
        ),
    )
    made.set_default_timeout(30_000)
    made.goto(f"{worker.url}/#token={worker.client._token}")
    made.wait_for_selector("#connection.live")
    yield made
    assert problems == [], "errors, or something loaded from elsewhere"
    context.close()


def test_submit_watch_cancel_play(worker: ServiceProcess, page: Any) -> None:
    assert "token" not in page.url, "the token leaves the address bar"
    page.click("#new")
    page.wait_for_selector("#new-dialog[open]")
    assert page.locator("#new-variants option").count() == 2
    page.select_option("#new-backend", "sleepy")
    page.fill("#new-frames", "12")
    page.fill("#new-settings", '{"sleep_s": 0.25}')
    page.click("#new-submit")
    page.wait_for_selector("#new-dialog", state="hidden")
    page.wait_for_selector(".jobs .tag.running")
    until(page, "document.querySelector('.jobs progress')?.value > 1")
    until(page, "document.querySelector('.jobs img')?.naturalWidth > 0")
    # The one still queued is cancelled, the running one is let through.
    page.locator(".jobs li", has=page.locator(".tag.queued")).get_by_role("button", name="Cancel").first.click()
    wait_for(lambda: worker.client.status().counts["cancelled"] == 1)
    wait_for(lambda: worker.client.status().counts["done"] == 1)
    page.get_by_role("button", name="Stopped").click()
    page.wait_for_selector(".jobs .tag.cancelled")
    page.wait_for_selector("#takes > li")
    play = page.locator("#takes .play").first
    play.scroll_into_view_if_needed()
    until(page, "!document.querySelector('#takes .play').disabled")
    assert page.locator("#takes video").count() == 3
    play.click()
    until(page, "document.querySelector('#takes output').textContent.startsWith('frame 12')")
    times = page.evaluate("[...document.querySelectorAll('#takes li:first-child video')].map(v => v.currentTime)")
    assert max(times) - min(times) < 2 / 15, f"the three are not in step: {times}"
    page.evaluate(
        "const s = document.querySelector('#takes input[type=range]'); s.value = 500; s.dispatchEvent(new Event('input'))"
    )
    until(page, "document.querySelector('#takes output').textContent.startsWith('frame 7')")


HELD_BACK = """() => {
  const real = window.fetch;
  const gate = new Promise((go) => { window.letGo = go; });
  window.shown = [];
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    const states = (String(path).match(/state=([a-z]+)/) || [])[1];
    if (!states) return answer;
    if (states === "failed") { window.held = true; await gate; }
    const read = answer.json.bind(answer);
    answer.json = async () => { const data = await read(); setTimeout(() => window.shown.push(states), 50); return data; };
    return answer;
  };
}"""
"""Answers about stopped jobs wait in the browser for `letGo`; `shown`: the first state of each answer the page dealt with."""


def test_an_answer_that_comes_late_shows_no_other_tab(worker: ServiceProcess, page: Any) -> None:
    [failed] = worker.client.submit([worker.place.job(78, name="hail", error="it hails", max_attempts=1)])
    wait_for(lambda: worker.client.job(failed.id).state == "failed")
    page.click("#pause")
    wait_for(lambda: worker.client.status().paused)
    [waiting] = worker.client.submit([worker.place.job(79, name="patient")])
    page.wait_for_selector(f"#job-{waiting.id} .tag.queued")
    page.evaluate(HELD_BACK)
    page.get_by_role("button", name="Stopped").click()
    until(page, "window.held")
    page.get_by_role("button", name="Active").click()
    until(page, "window.shown.includes('running')")
    page.evaluate("() => window.letGo()")
    until(page, "window.shown.includes('failed')")
    assert page.locator(f"#job-{waiting.id}").count() == 1, "the rows of the tab that is chosen stay"
    assert page.locator(f"#job-{failed.id}").count() == 0, "the rows of the tab left behind do not come"
    worker.client.cancel(waiting.id)
    page.click("#pause")
    wait_for(lambda: not worker.client.status().paused)


def test_an_answer_of_before_a_job_failed_does_not_take_it_away(worker: ServiceProcess, page: Any) -> None:
    page.click("#pause")
    wait_for(lambda: worker.client.status().paused)
    [failing] = worker.client.submit([worker.place.job(80, name="sleet", error="it sleets", max_attempts=1)])
    page.wait_for_selector(f"#job-{failing.id} .tag.queued")
    page.evaluate(HELD_BACK)
    page.get_by_role("button", name="Stopped").click()
    until(page, "window.held")
    page.click("#pause")
    page.wait_for_selector(f"#job-{failing.id} .tag.failed")
    page.evaluate("() => window.letGo()")
    until(page, "window.shown.filter((state) => state === 'failed').length > 1")
    assert page.locator(f"#job-{failing.id} .tag.failed").count() == 1


def test_pause_retry_log_and_filters(worker: ServiceProcess, page: Any) -> None:
    if page.locator("#pause").text_content() != "Resume":
        page.click("#pause")
    until(page, "document.querySelector('#pause').textContent === 'Resume'")
    assert worker.client.status().paused
    [failing] = worker.client.submit([worker.place.job(77, name="stormy", error="it rains", max_attempts=1)])
    page.get_by_role("button", name="Active").click()
    page.wait_for_selector(f"#job-{failing.id} .tag.queued")
    page.click("#pause")
    page.get_by_role("button", name="Stopped").click()
    page.wait_for_selector(f"#job-{failing.id} .tag.failed")
    assert "it rains" in page.locator(f"#job-{failing.id}").text_content()
    page.get_by_role("button", name="Log stormy/front").click()
    page.wait_for_selector("#log-dialog[open]")
    assert "it rains" in page.locator("#log-text").text_content()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Retry stormy/front").click()
    wait_for(lambda: "queued again" in worker.client.log(failing.id))
    all_done(worker.client, [worker.client.submit([worker.place.job(5, name="sunny")])[0].id])
    page.wait_for_selector("#takes h3:text('sunny')")
    assert page.locator("#filter-verdict option").count() >= 2
    page.select_option("#filter-verdict", "not judged")
    page.wait_for_selector("#takes > li")


def test_text_of_others_stays_text(worker: ServiceProcess, page: Any) -> None:
    job = worker.place.job(6, name="x-img", error="<img src=x onerror=alert(1)><b>bold</b>", max_attempts=1)
    worker.client.submit([job])
    page.get_by_role("button", name="Stopped").click()
    page.wait_for_selector(".job-error:text('<img src=x')")
    assert page.locator(".job-error b").count() == 0


def test_without_a_token_nothing_is_shown(worker: ServiceProcess, browser: Any) -> None:
    context = browser.new_context()
    made = context.new_page()
    made.goto(worker.url)
    made.wait_for_selector("#sign-in:visible")
    assert made.locator("#main").is_hidden()
    made.fill("#token", "wrong")
    made.keyboard.press("Enter")
    until(made, "document.querySelector('#sign-in-error').textContent.includes('token')")
    made.fill("#token", worker.client._token)
    made.keyboard.press("Enter")
    made.wait_for_selector("#connection.live")
    context.close()


def test_every_control_has_a_name_and_the_keyboard_reaches_it(page: Any) -> None:
    nameless = page.evaluate("""[...document.querySelectorAll('button, select, input, textarea, progress, video')].filter(e =>
        !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label') || e.hidden)).map(e => e.outerHTML)""")
    assert nameless == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"new", "pause", "release"} <= reached


def test_another_origin_cannot_drive_the_worker(worker: ServiceProcess, browser: Any) -> None:
    """A hostile page on another port of this machine tries with the real token and gets nothing."""
    import http.server
    import threading

    class Hostile(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html>hostile")

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    context = browser.new_context()
    try:
        made = context.new_page()
        made.goto(f"http://127.0.0.1:{server.server_port}/")
        script = """async ([url, token]) => {
            const tries = [["GET", "/api/status"], ["POST", "/api/queue/pause"], ["POST", "/api/release"]], out = [];
            for (const [method, path] of tries) for (const mode of ["cors", "no-cors"]) {
                const headers = mode === "cors" ? { Authorization: `Bearer ${token}` } : {};
                try {
                    const a = await fetch(url + path, { method, mode, headers });
                    out.push(a.type === "opaque" ? "opaque" : await a.text());
                } catch { out.push("blocked"); }
            }
            return out; }"""
        result = made.evaluate(script, [worker.url, worker.client._token])
        assert set(result) <= {"blocked", "opaque"}
        assert not worker.client.status().paused
    finally:
        context.close()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_narrow_screen_needs_no_sideways_scrolling(worker: ServiceProcess, page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    name = "a_rather_long_name_of_a_take_that_is_one_single_word"
    failing = worker.place.job(9, name=name + "_too", error="/" + "long" * 40, max_attempts=1)
    made = worker.client.submit([worker.place.job(8, name=name), failing])
    all_done(worker.client, [made[0].id])
    page.wait_for_selector(f"#takes h3:text('{name}')")
    width = "document.documentElement.scrollWidth"
    for tab in ("Done", "Stopped", "Active"):
        page.get_by_role("button", name=tab).click()
        page.wait_for_timeout(200)
        assert page.evaluate(width) <= 390, tab
    page.click("#new")
    page.wait_for_selector("#new-dialog[open]")
    assert page.evaluate(width) <= 390
    assert page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.querySelector('#new-dialog'))")


def test_a_training_is_watched_and_asked_to_stop(worker: ServiceProcess, page: Any) -> None:
    folder = make_tuning(worker.place.root / "drop")
    with only_writer(folder):
        page.wait_for_selector("#tuning-list .tag.running")
        until(page, "document.querySelectorAll('#tuning-list polyline').length === 1")  # one value is no curve
        until(page, "document.querySelector('#tuning-list .validation img')?.naturalWidth === 96")
        line = page.locator("#tuning-list .job-line").first.text_content()
        assert "step 10 of 100 · loss 0.9910 · objects in free fall 0.5000 · 2.0 s per step · about 3 min left" in line
        page.get_by_role("button", name="Stop drop").click()
        wait_for(lambda: (folder / "stop").exists())
    page.wait_for_selector("#tuning-list .tag.stopped")
    assert "retake tune run runs/a --out drop" in page.locator("#tuning-list").text_content()
    assert page.get_by_role("button", name="Stop drop").count() == 0
