"""The folder of results: what comes back, what counts as damaged, what goes when it is full."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tvm_ffn.cache import VARIABLE, Cache

VALUES = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "b.0": np.array([1.5])}


def same(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return arrays


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new")
    assert cache.load("k", same) is None
    cache.store("k", VALUES)
    found = cache.load("k", same)
    assert found is not None and found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name], value)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["k.npz"]
    assert "1 entry" in cache.describe()


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"", lambda b: b[:60] + b"?" * 8 + b[68:]])
def test_a_damaged_entry_is_absent_and_replaced(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    cache.store("k", VALUES)
    path = tmp_path / "k.npz"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "tvm_ffn"):
        assert cache.load("k", same) is None
    assert "k.npz is damaged" in caplog.text
    cache.store("k", VALUES)
    assert cache.load("k", same) is not None


def test_an_entry_of_something_else_is_absent(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store("k", VALUES)
    assert cache.load("k", lambda arrays: arrays["other"]) is None


def test_the_oldest_go_first_and_reading_renews(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for age, key in enumerate("abc"):
        cache.store(key, VALUES)
        os.utime(tmp_path / f"{key}.npz", (1000 + age, 1000 + age))
    assert cache.load("a", same) is not None
    cache.limit = 3 * (tmp_path / "a.npz").stat().st_size
    cache.store("d", VALUES)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]


def test_a_folder_that_cannot_be_written_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "tvm_ffn"):
        Cache(tmp_path / "file").store("k", VALUES)
    assert "not cached" in caplog.text


@pytest.mark.parametrize("value", ["", "0"])
def test_switched_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    cache = Cache.of_user()
    cache.store("k", VALUES)
    assert cache.folder is None and cache.load("k", same) is None and cache.describe().startswith("off")


def test_the_default_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert Cache.of_user().folder == tmp_path
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Cache.of_user().folder == tmp_path / "xdg" / "tvm_ffn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache.of_user().folder == tmp_path / ".cache" / "tvm_ffn"
