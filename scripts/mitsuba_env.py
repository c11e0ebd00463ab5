# SPDX-License-Identifier: Apache-2.0
"""Make `.mitsuba-env`: the path tracer of the painter bench (Mitsuba 3, BSD 3-clause), a tool of the bench alone.

Mitsuba's vectorised CPU variant compiles with the system's LLVM, 16 or later (Debian: `apt install libllvm19`); another
copy can be named by DRJIT_LIBLLVM_PATH.
"""

from __future__ import annotations

from tool_env import make

PACKAGES = ("mitsuba==3.9.1", "numpy>=2,<2.5")
CHECK = (
    "import mitsuba as mi, drjit as dr; mi.set_variant('llvm_ad_rgb'); "
    "print('mitsuba', mi.__version__, dr.sum(mi.Float(1, 2)))"
)
ADVICE = "Mitsuba is there, but its LLVM variant does not start; install libLLVM 16 or later, or set DRJIT_LIBLLVM_PATH"

if __name__ == "__main__":
    make(".mitsuba-env", PACKAGES, CHECK, ADVICE)
