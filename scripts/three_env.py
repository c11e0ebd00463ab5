# SPDX-License-Identifier: Apache-2.0
"""Make `.three-env`: three.js and meshoptimizer (both MIT) for the painter bench, tools of the bench alone.

It is drawn by a headless Chromium with its software WebGL (SwiftShader): no GPU, no display. npm fetches the two packages;
Chromium is the system's (Debian: `apt install chromium`), or the one that RETAKE_CHROMIUM names.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tool_env import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "prove"))
from chromium import PROGRAM, Browser

TARGET = ROOT / ".three-env"
PACKAGES = ("three@0.187.0", "meshoptimizer@1.3.0")


def main() -> None:
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("three.js comes by npm, which is not here (Debian: `apt install npm`)")
    if PROGRAM is None:
        sys.exit(
            "three.js is drawn by Chromium, which is not here (Debian: `apt install chromium`); or name it by RETAKE_CHROMIUM"
        )
    TARGET.mkdir(exist_ok=True)
    subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(TARGET), *PACKAGES], check=True
    )
    browser = Browser("about:blank")
    told = browser.call("(() => { const gl = new OffscreenCanvas(8, 8).getContext('webgl2'); "
                        "return gl ? gl.getParameter(gl.VERSION) : null; })()")  # fmt: skip
    browser.close()
    if told is None:
        sys.exit("Chromium is there, but without WebGL 2; a build with SwiftShader is needed")
    print(*PACKAGES, "on", told)


if __name__ == "__main__":
    main()
