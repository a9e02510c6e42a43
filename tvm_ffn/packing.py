"""The library of an artefact in a quarter of its bytes on disk: bzip2, which every board's ``bunzip2`` reads.

Weights as code repeat themselves: resnet18's 43 MB of it take 9.7 MB packed (xz 10.5 in ten times the time, gzip
14.1), less than its int8 weights. The file is several streams in a row, which are packed, and unpacked before the first
run, on all cores: one to two seconds for these 43 MB on one (xz half of that, gzip a tenth).
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tvm_ffn.host import cores

_STREAM_BYTES = 4 * 900_000  # unpacked; bzip2 packs blocks of 900 kB each by itself
_START = re.compile(re.escape(b"BZh91AY&SY"))  # of a stream that is not empty, as `pack` writes it


def pack(library: Path, packed: Path) -> None:
    """Write ``packed``, the bzip2 form of the file ``library``."""
    content = library.read_bytes()
    _convert(content, range(0, len(content), _STREAM_BYTES), bz2.compress, packed)


def unpack(packed: Path, library: Path) -> None:
    """Write ``library`` from what `pack` wrote, unchanged since: a stream that is missing is not noticed."""
    content = packed.read_bytes()
    later = (match.start() for match in _START.finditer(content, 1))
    _convert(content, [0, *later], bz2.decompress, library)


def _convert(content: bytes, starts: Sequence[int], convert: Callable[[bytes], bytes], place: Path) -> None:
    """Write the converted pieces of ``content`` that begin at ``starts``."""
    pieces = [content[first:end] for first, end in zip(starts, [*starts[1:], len(content)], strict=True)]
    with ThreadPoolExecutor(cores()) as pool, place.open("wb") as target:
        target.writelines(pool.map(convert, pieces))
