# SPDX-License-Identifier: Apache-2.0
"""Configuration: the file mirrors the code, overrides work, mistakes are explained."""

from __future__ import annotations

import pytest

from retake.core.codec import merged
from retake.core.config import RunConfig, config_path, load_config, load_yaml, set_value
from retake.core.errors import InputError


def test_the_documented_file_states_exactly_the_defaults():
    content = load_yaml(config_path("retake.yaml"))
    assert merged(RunConfig(), content, "config/retake.yaml") == RunConfig()

    def keys(data, prefix=""):
        return {prefix + k for k in data} | {
            x for k, v in data.items() if isinstance(v, dict) for x in keys(v, k + ".")
        }

    assert keys(content) == keys(RunConfig().to_json())


def test_overrides_reach_nested_values(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("takes: {seed: 9}\nskeleton: {size: [320, 240]}\n")
    config = load_config(file, ("capture.seed=7", "check.coverage_frames=1", "variants.presets=[a, b]"))
    assert (config.takes.seed, config.skeleton.size, config.capture.seed) == (9, (320, 240), 7)
    assert config.check.coverage_frames == 1.0
    assert config.variants.presets == ("a", "b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("takes.sed=1", "unknown setting 'sed'; valid: .*seed"),
        ("takes.seed=abc", "needs a whole number; found 'abc'"),
        ("takes", "expected section.key=value"),
        ("takes=3", "takes needs a mapping of settings"),
        ("variants.presets=[1]", "presets.0. needs text; found 1"),
    ],
)
def test_mistakes_are_explained(override, message):
    with pytest.raises(InputError, match=message):
        load_config(None, (override,))


def test_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_config(tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not readable YAML"):
        load_config(tmp_path / "bad.yaml")


def test_settings_below_a_mapping_of_free_names_add_up():
    """`--set capture.overrides.a=1 --set capture.overrides.b=2`: both hold, and a whole mapping replaces both."""
    config = set_value(
        set_value(RunConfig(), "capture.overrides.drives=fill"), "capture.overrides.randomise.friction=0"
    )
    assert config.capture.overrides == {"drives": "fill", "randomise": {"friction": 0}}
    config = set_value(config, "capture.overrides.randomise.object_yaw_deg=0")
    assert config.capture.overrides["randomise"] == {"friction": 0, "object_yaw_deg": 0}
    assert set_value(config, "capture.overrides={fps: 10}").capture.overrides == {"fps": 10}
    with pytest.raises(InputError):
        set_value(config, "capture.nothing.a=1")
