# SPDX-License-Identifier: Apache-2.0
"""Help of an import: of the format that is named, wherever it stands, and of the command where none is."""

from __future__ import annotations

import pytest

from retake.core.importers.cli import FORMATS, _help_asked


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_format_whose_options_are_asked_for(name: str) -> None:
    for flag in ("-h", "--help"):
        assert (
            _help_asked([name, flag]) == _help_asked([flag, name]) == _help_asked(["--x", name, "file", flag]) == name
        )
    assert _help_asked([name]) == _help_asked(["-h"]) == _help_asked([]) == _help_asked([name, "-help"]) == ""
    other = next(format_ for format_ in sorted(FORMATS) if format_ != name)
    assert _help_asked([name, other, "-h"]) == name
