"""Files and folders that appear complete or not at all.

Content is written to a hidden temporary place beside the destination and renamed at the end. Whatever goes wrong
before (a full disk, Ctrl-C) removes the temporary place and leaves the destination as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tvm_ffn.errors import OutputError


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the destination."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Raise OutputError unless something can be created at ``path`` (its missing parents are created later)."""
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is not a folder")
    with output_errors(path):
        descriptor, probe = tempfile.mkstemp(prefix=".tvm_ffn-", dir=parent)
        os.close(descriptor)
        os.unlink(probe)


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` create a temporary file of the same suffix, then move it to ``path``."""
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder")
        path = path.resolve()
        with _temporary_folder(path) as folder:
            temporary = folder / path.name
            write(temporary)
            os.replace(temporary, path)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` fill a temporary folder, then put it in the place of ``path``.

    An existing folder is moved aside first and removed only when the new one is in place; it comes back if that fails.
    """
    with output_errors(path):
        path = path.resolve()
        with _temporary_folder(path) as folder:
            new, old = folder / "new", folder / "old"
            new.mkdir()
            fill(new)
            existed = path.exists()
            if existed:
                os.rename(path, old)
            try:
                os.rename(new, path)
            except BaseException:
                if existed:
                    os.rename(old, path)
                raise


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder on the destination's file system, gone at the end; after a failure its new parents are gone too."""
    created = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
    except BaseException:
        for parent in created:
            with contextlib.suppress(OSError):  # not made yet, or somebody else's by now
                parent.rmdir()
        raise
