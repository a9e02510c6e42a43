"""The semidiscrete decomposition against the loops of its authors written in NumPy, side by side, at equal error.

    python -m benchmarks.solver [--shapes 64x576 128x1152] [--rank-ratio 1.0] [--sweeps 20] [--threads 1]

The authors' algorithm (arXiv 1611.01972, algorithms 1 and 2): terms are fitted one after another, each to the residual
of all others, which is computed anew for every term; the support of a ternary vector is found by a sort.
Both sides use one thread unless told otherwise. Ours does as many sweeps as it needs to reach the other's error
within 0.2 %. 512x4608 takes the NumPy loops some ten minutes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from tvm_ffn.factorize import Factors, factorize, response_error
from tvm_ffn.factorize.native import fastest_backend
from tvm_ffn.factorize.products import single_threaded_blas

TOLERANCE = 1e-3
MOST_ITERATIONS = 100
FEWEST_SWEEPS = 4
EQUAL = 2e-3


def weights(m: int, n: int, seed: int = 0) -> np.ndarray:
    """Weights as a trained convolution has them: rows of different norm, correlated inside 3x3 windows, long tails."""
    rng = np.random.default_rng(seed)
    windows = rng.standard_t(6, (m, n // 9 if n % 9 == 0 else n, 1)) + 0.7 * rng.standard_normal((m, 1, 1))
    w = windows + (rng.standard_normal((*windows.shape[:2], 9)) if n % 9 == 0 else 0.0)
    return (w.reshape(m, n) * rng.uniform(0.5, 1.5, (m, 1))).astype(np.float32)


def sorted_support(s: np.ndarray) -> np.ndarray:
    """The ternary x that maximises (s . x)^2 / (x . x): the largest |s|, as many as is best."""
    order = np.argsort(-np.abs(s))
    gains = np.cumsum(np.abs(s[order])) ** 2 / np.arange(1, len(s) + 1)
    x = np.zeros_like(s)
    chosen = order[: int(np.argmax(gains)) + 1]
    x[chosen] = np.sign(s[chosen])
    return x


def fit_term(residual: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Alternate x, y and d for one term until the gain stops growing."""
    gain = -1.0
    for _ in range(MOST_ITERATIONS):
        x = sorted_support(residual @ y)
        y = sorted_support(residual.T @ x)
        total, count = float(x @ residual @ y), float((x @ x) * (y @ y))
        if total**2 / count <= gain * (1 + TOLERANCE):
            break
        gain = total**2 / count
    return x, total / count, y


def authors_loops(w: np.ndarray, rank: int, sweeps: int) -> Factors:
    """Greedy decomposition and improved sweeps, the residual computed anew for each term."""
    m, n = w.shape
    x, d, y = np.zeros((m, rank), np.float32), np.zeros(rank, np.float32), np.zeros((n, rank), np.float32)
    for term in range(rank):
        residual = w - (x[:, :term] * d[:term]) @ y[:, :term].T
        x[:, term], d[term], y[:, term] = fit_term(residual, np.ones(n, np.float32))
    for _ in range(sweeps):
        for term in range(rank):
            d[term] = 0
            residual = w - (x * d) @ y.T
            x[:, term], d[term], y[:, term] = fit_term(residual, y[:, term])
    return Factors(x.astype(np.int8), d, y.astype(np.int8), np.ones(m, np.float32))


def compare(m: int, n: int, rank: int, sweeps: int, threads: int) -> float:
    """Print one row; returns how many times faster ours is."""
    w = weights(m, n)
    begin = time.perf_counter()
    with single_threaded_blas():
        theirs = response_error(w, authors_loops(w, rank, sweeps), None)
    their_time = time.perf_counter() - begin
    for ours_sweeps in range(FEWEST_SWEEPS, 4 * sweeps + FEWEST_SWEEPS):
        begin = time.perf_counter()
        factors = factorize(w, rank, method="sdd", sweeps=ours_sweeps, threads=threads)
        our_time = time.perf_counter() - begin
        ours = response_error(w, factors, None)
        if ours <= theirs * (1 + EQUAL):
            break
    else:
        raise SystemExit(f"{m}x{n}: {ours_sweeps} sweeps end at error {ours:.4f}, above the other's {theirs:.4f}")
    ratio = their_time / our_time
    left = f"{f'{m}x{n}':>10} {rank:5d} | {sweeps:6d} {theirs:8.4f} {their_time:9.2f} s"
    print(f"{left} | {ours_sweeps:6d} {ours:8.4f} {our_time:9.3f} s | {ratio:7.1f}x", flush=True)
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["64x576", "128x1152"], metavar="MxN")
    parser.add_argument("--rank-ratio", type=float, default=1.0, help="terms per row (default 1)")
    parser.add_argument("--sweeps", type=int, default=20, help="of the NumPy loops (default 20)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    backend = fastest_backend(options.threads).name
    factorize(weights(8, 18), 8, method="sdd")  # load everything before the clock runs
    print(f"{'':>16} | {'the authors, NumPy':^27} | {f'ours, {backend}, {options.threads} thread(s)':^27} |")
    columns = f"{'sweeps':>6} {'error':>8} {'time':>11}"
    print(f"{'shape':>10} {'rank':>5} | {columns} | {columns} | {'ratio':>8}")
    ratios = []
    for shape in options.shapes:
        m, n = (int(extent) for extent in shape.split("x"))
        ratios.append(compare(m, n, max(1, round(options.rank_ratio * min(m, n))), options.sweeps, options.threads))
    print(f"slowest ratio {min(ratios):.1f}x (target 20x)")


if __name__ == "__main__":
    main()
