"""Rates of `tvm_ffn.cost` from the times that `benchmarks.cost_model` measured.

    python -m benchmarks.rate_fit OUT.json --clock 3.66 --fastest-add 0.5

Prints the rates of each family in the order of `tvm_ffn.cost.Rates`, and how far they are from the times; also with the
rates of each shape fitted to the other shapes only, to see what they are worth for a shape that was not measured.
"""

from __future__ import annotations

import argparse
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np


def main() -> None:
    """Parse the command line, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--clock", type=float, required=True, help="GHz of the core while it measured")
    parser.add_argument(
        "--fastest-add", type=float, required=True, help="cycles of a vector addition, if no other limits"
    )
    options = parser.parse_args()
    found = json.loads(options.measurements.read_text())
    for family in dict.fromkeys(case["family"] for case in found):
        cases = [case for case in found if case["family"] == family]
        shapes = np.array([re.sub("-(ratio|zeros|[0-9.]+$).*", "", case["name"]) for case in cases])
        shares = np.array([case["counts"] for case in cases])
        shares /= np.array([[case["nanoseconds"] * options.clock] for case in cases])
        rates = fitted(shares, options.fastest_add)
        others = {shape: fitted(shares[shapes != shape], options.fastest_add) for shape in set(shapes)}
        unseen = [share @ others[shape] for share, shape in zip(shares, shapes, strict=True)]
        print(
            f"{family:10} {_errors(shares @ rates)}, unseen shapes {_errors(np.array(unseen))}", rates.round(3).tolist()
        )


def fitted(shares: np.ndarray, fastest_add: float) -> np.ndarray:
    """Rates for counts (cases, counts) divided by measured cycles: of all subsets of counts that get no negative rate
    the one with the least squares of relative errors, an addition taking at least ``fastest_add`` cycles."""
    rest = 1 - fastest_add * shares[:, 0]
    best, least = np.zeros(shares.shape[1]), np.inf
    used = np.flatnonzero(shares.any(axis=0))
    for size in range(1, min(len(used), len(shares)) + 1):
        for chosen in map(list, combinations(used, size)):
            rates = np.linalg.lstsq(shares[:, chosen], rest, rcond=None)[0]
            error = np.square(shares[:, chosen] @ rates - rest).sum()
            if (rates >= 0).all() and error < least:
                best, least = np.zeros(shares.shape[1]), error
                best[chosen] = rates
    best[0] += fastest_add
    return best


def _errors(ratios: np.ndarray) -> str:
    """Predicted over measured time: smallest and largest."""
    return f"{ratios.min():.2f} to {ratios.max():.2f}"


if __name__ == "__main__":
    main()
