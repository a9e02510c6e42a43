"""Into how many parts of its outputs a layer is cut, so that few tiles keep all threads busy."""

from __future__ import annotations

BUSY = 0.9  # of the threads' time: more parts cost more than is won
PARTS_A_THREAD = 3


def output_parts(tiles: int, threads: int, *rows: int) -> int:
    """The fewest equal parts of each of ``rows`` outputs, times ``tiles`` pieces of work, that keep ``threads`` busy
    for all but a tenth of the time; where none do, those that come closest."""

    def busy(parts: int) -> float:
        pieces = tiles * parts
        return pieces / (-(-pieces // threads) * threads)

    possible = [p for p in range(1, PARTS_A_THREAD * threads + 1) if all(count % p == 0 for count in rows)]
    return next((parts for parts in possible if busy(parts) >= BUSY), max(possible, key=busy))
