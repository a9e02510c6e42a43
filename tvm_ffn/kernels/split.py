"""Into how many parts of its outputs a layer is cut, so that few tiles keep all threads busy, and what is summed up of
a part stays in the caches."""

from __future__ import annotations

BUSY = 0.9  # of the threads' time: more parts cost more than is won
PARTS_A_THREAD = 3


def output_parts(tiles: int, threads: int, *rows: int, least: int = 1) -> int:
    """The fewest equal parts of each of ``rows`` outputs, ``least`` or more if they can be cut so, that times ``tiles``
    pieces of work keep ``threads`` busy for all but a tenth of the time; where none do, those that come closest."""

    def busy(parts: int) -> float:
        pieces = tiles * parts
        return pieces / (-(-pieces // threads) * threads)

    most = max(PARTS_A_THREAD * threads, 2 * least)
    possible = [p for p in range(1, most + 1) if all(count % p == 0 for count in rows)]
    enough = [p for p in possible if p >= least] or possible[-1:]
    return next((parts for parts in enough if busy(parts) >= BUSY), max(enough, key=busy))
