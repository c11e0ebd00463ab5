# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: hypothesis profiles (reduced by default, full with RETAKE_FULL=1)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("reduced", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("full" if os.environ.get("RETAKE_FULL") == "1" else "reduced")
