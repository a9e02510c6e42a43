#include <vector>

#include "solver.h"
#include "team.h"
#include "vector_ops.h"

namespace tvm_ffn {
namespace {

constexpr int64_t kRows = 4;          // rows of one Dot4
constexpr int64_t kColumns = 64;      // a multiple of every vector width and unrolling
constexpr double kExhausted = 1e-12;  // of |R|^2 at the start: below float32's resolution

/*! out_i = r_i . v for rows [begin, end); begin is a multiple of kRows. */
void MultiplyRows(const float* r, int64_t n, const float* v, int64_t begin, int64_t end, float* out) {
  int64_t i = begin;
  for (; i + kRows <= end; i += kRows) Dot4(r + i * n, n, v, n, out + i);
  for (; i < end; ++i) out[i] = Dot(r + i * n, v, n);
}

}  // namespace

void Greedy(float* r, int64_t m, int64_t n, int64_t k, const float* fallback, float* x, float* y, float* d,
            int64_t max_iterations, double tolerance, int threads) {
  // Shared between the threads, written in disjoint shares between barriers.
  std::vector<float> by_row(m), by_column(n), row_sum(m), row_energy(m);
  Barrier barrier(threads);

  RunTeam(threads, [&](int t) {
    const auto [row_begin, row_end] = Share(m, kRows, threads, t);
    const auto [column_begin, column_end] = Share(n, kColumns, threads, t);
    // Every thread computes the same x and y for itself: cheaper than one more barrier.
    std::vector<float> xc(m), previous(m), step(m), yc(n);
    double start_energy = -1.0;

    for (int64_t i = row_begin; i < row_end; ++i)
      AxpyWithSums(0.f, r + i * n, r + i * n, n, &row_sum[i], &row_energy[i]);
    for (int64_t c = 0; c < k; ++c) {
      barrier.Wait();
      double energy = 0.0;
      for (int64_t i = 0; i < m; ++i) energy += row_energy[i];
      if (start_energy < 0.0) start_energy = energy;
      if (energy <= kExhausted * start_energy) break;

      double scale = 0.0;
      for (int attempt = 0; attempt < 2 && scale == 0.0; ++attempt) {
        double gain = -1.0;
        std::fill(previous.begin(), previous.end(), 0.f);
        std::fill(by_column.begin() + column_begin, by_column.begin() + column_end, 0.f);
        if (attempt == 1) std::copy(fallback, fallback + n, yc.begin());
        for (int64_t iteration = 0; iteration < max_iterations; ++iteration) {
          const bool from_ones = attempt == 0 && iteration == 0;  // R 1 is kept up to date with R
          if (!from_ones) MultiplyRows(r, n, yc.data(), row_begin, row_end, by_row.data());
          barrier.Wait();
          const Support sx = FitTernary(from_ones ? row_sum.data() : by_row.data(), m, xc.data());
          // R^T x moves only with the rows whose x changed.
          for (int64_t i = 0; i < m; ++i) step[i] = xc[i] - previous[i];
          previous = xc;
          AddRows(r, m, n, step.data(), 1.f, column_begin, column_end, by_column.data());
          barrier.Wait();
          const Support sy = FitTernary(by_column.data(), n, yc.data());
          if (sx.count == 0 || sy.count == 0) {
            scale = 0.0;
            break;
          }
          const double cells = static_cast<double>(sx.count) * static_cast<double>(sy.count);
          scale = sy.total / cells;
          const double now = sy.total * scale;
          if (iteration > 0 && now <= gain * (1.0 + tolerance)) break;
          gain = now;
        }
        barrier.Wait();
      }
      if (scale == 0.0) break;
      for (int64_t i = row_begin; i < row_end; ++i) {
        if (xc[i] == 0.f) continue;
        const float alpha = -static_cast<float>(scale) * xc[i];
        AxpyWithSums(alpha, yc.data(), r + i * n, n, &row_sum[i], &row_energy[i]);
      }
      if (t == 0) {
        std::copy(xc.begin(), xc.end(), x + c * m);
        std::copy(yc.begin(), yc.end(), y + c * n);
        d[c] = static_cast<float>(scale);
      }
    }
  });
}

}  // namespace tvm_ffn
