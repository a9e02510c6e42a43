"""The library of an artefact in a quarter of its bytes on disk: bzip2, which every board's ``bunzip2`` reads.

Weights as code repeat themselves: resnet18's 43 MB of it take 9.7 MB packed (xz 10.5 in ten times the time, gzip
14.1), less than its int8 weights, for 1.1 s of unpacking before the first run.
"""

from __future__ import annotations

import bz2
import shutil
from pathlib import Path

_CHUNK = 1 << 20  # bytes read at a time


def pack(library: Path, packed: Path) -> None:
    """Write ``packed``, the bzip2 form of the file ``library``."""
    with library.open("rb") as source, bz2.open(packed, "wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def unpack(packed: Path, library: Path) -> None:
    """Write ``library`` from what `pack` wrote; OSError or EOFError where that is damaged."""
    with bz2.open(packed, "rb") as source, library.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
