# SPDX-License-Identifier: Apache-2.0
"""Dataset: accepted takes as training data (docs/datasets.md).

`export` and `mix` write datasets. Heavy packages (pyarrow, PyAV, h5py) are imported when used and come with the extra
`export` (`errors.install_hint`).
"""

from retake.core.export.api import ExportOptions, export
from retake.core.export.collect import Selection
from retake.core.export.mix import MixSource, mix
from retake.core.export.records import ExportReport, VideoOptions
from retake.core.export.split import Split

__all__ = [
    "ExportOptions",
    "ExportReport",
    "MixSource",
    "Selection",
    "Split",
    "VideoOptions",
    "export",
    "mix",
]
