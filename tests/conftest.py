"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Give the path of a model or image set beside the repository; the test is skipped where it is absent."""

    def locate(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs {name} in {SHARED}, which is not part of the repository")
        return path

    return locate


@pytest.fixture(scope="session", autouse=True)
def private_cache() -> Iterator[Path]:
    """Keep solutions of this run in a temporary folder, never in the user's cache."""
    with tempfile.TemporaryDirectory(prefix="tvm_ffn-cache-") as folder:
        os.environ["TVM_FFN_CACHE"] = folder
        yield Path(folder)
        del os.environ["TVM_FFN_CACHE"]
