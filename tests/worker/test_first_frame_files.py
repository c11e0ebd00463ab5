# SPDX-License-Identifier: Apache-2.0
"""Model folders as retake.worker.first_frame.parts reads them: which revision, under which terms, how many parameters."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from retake.core.errors import InputError
from retake.worker.first_frame import parts
from retake.worker.first_frame.parts import SAMPLE_BYTES, ModelPart, card_licence, find, folder_revision, weights

PART = ModelPart("org/some-model", "Apache-2.0", "one file is enough")
COMMIT = "0123456789abcdef" * 2 + "01234567"


def write(path: Path, data: bytes | str = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def tensors(path: Path, **shapes: list[int]) -> Path:
    header: dict[str, Any] = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return write(path, struct.pack("<Q", len(text)) + text)


def test_parameters_are_counted_by_the_folder_they_lie_in(tmp_path):
    tensors(tmp_path / "alone.safetensors", a=[3, 4], b=[5])
    tensors(tmp_path / "also.safetensors", c=[2])
    tensors(tmp_path / "vae" / "one.safetensors", a=[7], scalar=[])
    tensors(tmp_path / "vae" / "deep" / "two.safetensors", a=[10, 10])
    tensors(tmp_path / ".cache" / "three.safetensors", a=[1000])
    tensors(tmp_path / "vae" / ".tmp" / "four.safetensors", a=[1000])
    write(tmp_path / "vae" / "notes.txt", "x")
    assert weights(tmp_path) == {"": 19, "vae": 108}
    write(tmp_path / "bad.safetensors", struct.pack("<Q", 100_000_001) + b"{}")
    with pytest.raises(InputError, match=r"bad\.safetensors is no safetensors file"):
        weights(tmp_path)


def test_a_download_says_its_commit_and_two_commits_say_nothing(tmp_path):
    notes = tmp_path / ".cache" / "huggingface" / "download"
    write(tmp_path / "weights.bin", b"x")
    plain = folder_revision(tmp_path)
    assert plain.startswith("files:")
    write(notes / "empty.metadata")
    assert folder_revision(tmp_path) == plain
    write(notes / "a.metadata", f" {COMMIT} \netag\n0\n")
    write(notes / "deep" / "b.metadata", f"{COMMIT}\nother\n")
    assert folder_revision(tmp_path) == COMMIT
    write(notes / "c.metadata", "f" * 40 + "\n")
    assert folder_revision(tmp_path) == plain


@pytest.mark.parametrize("size", [1, SAMPLE_BYTES, 3 * SAMPLE_BYTES, 3 * SAMPLE_BYTES + 1, 10 * SAMPLE_BYTES])
def test_a_fingerprint_knows_small_files_whole_and_large_ones_at_three_places(tmp_path, size):
    file = write(tmp_path / "deep" / "w.bin", bytes(size))

    def changed(at: int) -> bool:
        before = folder_revision(tmp_path)
        data = bytearray(size)
        data[at] = 1
        file.write_bytes(bytes(data))
        try:
            return folder_revision(tmp_path) != before
        finally:
            file.write_bytes(bytes(size))

    middle = size // 2
    seen = [0, min(size, SAMPLE_BYTES) - 1, size - 1, max(0, size - SAMPLE_BYTES), middle]
    assert all(changed(at) for at in seen)
    if size > 3 * SAMPLE_BYTES:
        assert changed(middle + SAMPLE_BYTES - 1)
    if size == 10 * SAMPLE_BYTES:
        unseen = [SAMPLE_BYTES, middle - 1, middle + SAMPLE_BYTES, size - SAMPLE_BYTES - 1]
        assert not any(changed(at) for at in unseen)


def test_a_fingerprint_knows_names_and_sizes_and_nothing_hidden(tmp_path):
    found = []
    for name in ("a", "b", "deep/a"):
        folder = tmp_path / name.replace("/", "-")
        write(folder / name, b"x")
        found.append(folder_revision(folder))
    write(tmp_path / "a" / ".git" / "config", b"y")
    write(tmp_path / "a" / ".hidden", b"y")
    assert folder_revision(tmp_path / "a") == found[0]
    large = write(tmp_path / "a" / "a", bytes(10 * SAMPLE_BYTES))
    found.append(folder_revision(tmp_path / "a"))
    large.write_bytes(bytes(10 * SAMPLE_BYTES + 1))
    found.append(folder_revision(tmp_path / "a"))
    assert len(set(found)) == 5


@pytest.mark.parametrize(("card", "licence"), [
    (None, ""), ("# only a title\n", ""), ("---\nlicense: apache-2.0\n---\ntext", "Apache-2.0"), ("---\ntags: [a]\n---\n", ""),
    ("---\nlicense: other\nlicense_name: nvidia-open-model-license\n---\n", "NVIDIA-Open-Model-License"),
    ("---\nlicense: [\n---\n", ""), ("---\n- a\n---\n", ""), ("text\n---\nlicense: mit\n---\n", ""),
])  # fmt: skip
def test_terms_stand_at_the_head_of_a_model_card(tmp_path, card, licence):
    if card is not None:
        write(tmp_path / "README.md", card)
    assert card_licence(tmp_path) == licence


def test_a_part_is_where_it_is_said_to_be_or_among_the_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(parts.MODELS_VARIABLE, raising=False)
    with pytest.raises(InputError, match="one file is enough"):
        find(PART, "", "", "", "x.model")
    write(tmp_path / "models" / "some-model" / "w.bin")
    usual = find(PART, "", "", "", "x.model")
    assert (usual.source, usual.licence, usual.is_hub) == ("models/some-model", "Apache-2.0", False)
    assert usual.folder == Path("models/some-model")
    monkeypatch.setenv(parts.MODELS_VARIABLE, str(tmp_path / "elsewhere"))
    write(tmp_path / "elsewhere" / "named" / "w.bin")
    assert find(ModelPart("org/some-model", "MIT", folder="named"), "", "", "", "x").source == str(
        tmp_path / "elsewhere" / "named"
    )
    write(tmp_path / "mine" / "w.bin")
    own = find(PART, str(tmp_path / "mine"), "r", "", "x.model")
    assert (own.licence, own.revision) == ("", "r"), "the published terms are of the published files"
    assert find(PART, "mine", "", "MIT", "x").licence == "MIT"


@pytest.mark.parametrize(("given", "revision", "hub"), [
    ("org/some-model", COMMIT, True), ("org/other.model_2", COMMIT, True), ("org/some-model", "main", False),
    ("org/some-model", COMMIT[:-1], False), ("org/some-model", COMMIT.upper(), False), ("./org/model", COMMIT, False),
    ("/org/model", COMMIT, False), ("org", COMMIT, False), ("a/b/c", COMMIT, False), ("-org/model", COMMIT, False),
])  # fmt: skip
def test_a_hub_id_is_pinned_to_a_commit(given, revision, hub):
    if hub:
        found = find(PART, given, revision, "", "x.model")
        assert (found.source, found.revision, found.is_hub) == (given, revision, True)
        assert found.licence == ("Apache-2.0" if given == PART.repo else "")
        assert find(PART, given, revision, "MIT", "x.model").licence == "MIT"
    else:
        with pytest.raises(InputError, match=r"x\.model"):
            find(PART, given, revision, "", "x.model")
