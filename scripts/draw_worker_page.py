# SPDX-License-Identifier: Apache-2.0
"""Takes docs/images/worker_page.png: the worker's page in a headless Chromium, over a finished run.

`python scripts/draw_worker_page.py RUN` queues the run's takes once more with another seed (they are made and kept in a
copy, never in RUN) and takes the picture while the first of them is made. Needs Chromium and playwright.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from retake.core.run_layout import take_id
from retake.core.run_store import open_run
from retake.core.takes import TakeRequest
from retake.core.wire import TakeJob
from retake.core.worker_client import WorkerClient

ROOT = Path(__file__).resolve().parents[1]
FRAME = 620
"""Of 1000 on the scrubber: the object is on its way."""


def jobs(copy: Path) -> list[TakeJob]:
    """The run's takes with the next seed."""
    run, out = open_run(copy), []
    for take in run.takes():
        request = TakeRequest(
            run.episode, take.camera, run.skeleton(take.camera), run.variant_folder(take.variant), take.prompt,
            seed=take.seed + 1, frames=take.frames, start=take.start,
        )  # fmt: skip
        name = take_id(take.variant, take.backend, take.seed + 1)
        out.append(TakeJob(request, run.take_folder(name), take.backend))
    return out


def shoot(url: str, token: str, client: WorkerClient, wanted: list[TakeJob], out: Path) -> None:
    """Open the page, wait until a job is under way and the players are loaded, and save a picture."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1020})
        page.set_default_timeout(60_000)
        page.goto(f"{url}/#token={token}")
        page.wait_for_selector("#takes > li video")
        client.submit(wanted)
        until(page, "document.querySelector('.jobs progress')?.value > 15")
        until(page, "document.querySelector('.jobs img')?.naturalWidth > 0")
        until(page, "!document.querySelector('#takes .play').disabled")
        move = "v => { const s = document.querySelector('#takes input[type=range]'); s.value = v; "
        page.evaluate(move + "s.dispatchEvent(new Event('input')) }", FRAME)
        until(
            page,
            "[...document.querySelectorAll('#takes li:first-child video')].every(v => !v.seeking && v.readyState > 1)",
        )
        page.wait_for_timeout(500)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=str(out))
        browser.close()


def until(page: object, expression: str) -> None:
    """Poll an expression (the page's security policy forbids the driver's own way)."""
    end = time.monotonic() + 120
    while not page.evaluate(f"() => Boolean({expression})"):  # type: ignore[attr-defined]
        if time.monotonic() > end:
            raise TimeoutError(expression)
        time.sleep(0.2)


def main(argv: list[str]) -> int:
    """`RUN [OUT]`."""
    out = Path(argv[1]) if len(argv) > 1 else ROOT / "docs/images/worker_page.png"
    with tempfile.TemporaryDirectory() as folder:
        copy, state = Path(folder) / "runs" / Path(argv[0]).resolve().name, Path(folder) / "state"
        shutil.copytree(argv[0], copy)
        environment = {**os.environ, "RETAKE_WORKER_STATE": str(state)}
        command = [sys.executable, "-m", "retake.worker", "--port", "0", "--root", str(copy.parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            token = Path(ready["token_file"]).read_text().strip()
            shoot(ready["url"], token, WorkerClient(ready["url"], token), jobs(copy), out)
        finally:
            process.terminate()
            process.wait(30)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
