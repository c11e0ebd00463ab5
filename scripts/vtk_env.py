# SPDX-License-Identifier: Apache-2.0
"""Make `.vtk-env`: the rasteriser of the painter bench (VTK, BSD 3-clause), a tool of the bench alone.

VTK's wheel renders without a display through EGL; Mesa's software driver is enough (Debian: `apt install libegl1
libgl1-mesa-dri`).
"""

from __future__ import annotations

from tool_env import make

PACKAGES = ("vtk==9.7.2", "numpy>=2,<2.5")
CHECK = (
    "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.SetSize(32, 32); w.Render(); "
    "print('vtk', vtk.vtkVersion().GetVTKVersion(), w.GetClassName(), w.SupportsOpenGL()); exit(not w.SupportsOpenGL())"
)
ADVICE = "VTK is there, but it cannot render without a display; install Mesa's EGL (libegl1, libgl1-mesa-dri)"

if __name__ == "__main__":
    make(".vtk-env", PACKAGES, CHECK, ADVICE)
