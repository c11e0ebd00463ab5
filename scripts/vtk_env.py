# SPDX-License-Identifier: Apache-2.0
"""Make `.vtk-env`: the rasteriser of the painter bench (VTK, BSD 3-clause), a tool of the bench alone.

VTK's wheel renders without a display through EGL; Mesa's software driver is enough (Debian: `apt install libegl1
libgl1-mesa-dri`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / ".vtk-env"
PACKAGES = ("vtk==9.7.2", "numpy>=2,<2.5")
CHECK = (
    "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.SetSize(32, 32); w.Render(); "
    "print('vtk', vtk.vtkVersion().GetVTKVersion(), w.GetClassName(), w.SupportsOpenGL()); exit(not w.SupportsOpenGL())"
)


def main() -> None:
    python = TARGET / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(TARGET)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    done = subprocess.run([str(python), "-c", CHECK], check=False)
    if done.returncode:
        sys.exit("VTK is there, but it cannot render without a display; install Mesa's EGL (libegl1, libgl1-mesa-dri)")


if __name__ == "__main__":
    main()
