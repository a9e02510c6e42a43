#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "solver.h"
#include "team.h"
#include "vector_ops.h"

namespace tvm_ffn {
namespace {

constexpr int64_t kRows = 32;     // rows of L^-1 handed out at a time
constexpr int64_t kColumns = 64;  // a multiple of every vector width and unrolling

/*! Coordinate descent on y^T G y / 2 - t^T y from y; s = t - G y is kept up to date. */
void Descend(const float* gram, int64_t k, float* s, float* y, int64_t passes) {
  for (int64_t pass = 0; pass < passes; ++pass) {
    bool changed = false;
    for (int64_t i = 0; i < k; ++i) {
      const float g = gram[i * k + i];
      const float u = s[i] + g * y[i], half = 0.5f * g;
      const float rounded = u > half ? 1.f : (u < -half ? -1.f : 0.f);
      if (rounded == y[i]) continue;
      Axpy(y[i] - rounded, gram + i * k, s, k);
      y[i] = rounded;
      changed = true;
    }
    if (!changed) return;
  }
}

/*! y^T G y / 2 - t^T y = -y^T (t + s) / 2 */
double Value(const float* t, const float* s, const float* y, int64_t k) {
  double sum = 0.0;
  for (int64_t i = 0; i < k; ++i) sum -= 0.5 * static_cast<double>(y[i]) * (static_cast<double>(t[i]) + s[i]);
  return sum;
}

/*! rows [begin, end) of q = L^-1 t; L^-1 is lower triangular with zeros stored above the diagonal. */
void ForwardRows(const float* inverse, int64_t k, const float* t, int64_t begin, int64_t end, float* q) {
  int64_t i = begin;
  for (; i + 4 <= end; i += 4) Dot4(inverse + i * k, k, t, i + 4, q + i);
  for (; i < end; ++i) q[i] = Dot(inverse + i * k, t, i + 1);
}

/*!
 * Babai's nearest plane with clipping: min |L^T z - q|, from the last coordinate to the first
 * (Zhang et al. 2025: the GPTQ order of the same lattice). q is destroyed.
 */
void NearestPlane(const float* lower, int64_t k, float* q, float* z) {
  for (int64_t i = k - 1; i >= 0; --i) {
    const float rounded = std::clamp(std::nearbyint(q[i] / lower[i * k + i]), -1.f, 1.f);
    z[i] = rounded;
    if (rounded != 0.f) Axpy(-rounded, lower + i * k, q, i);
  }
}

/*! s = t - G z over columns [begin, end) */
void Residual(const float* gram, int64_t k, const float* t, const float* z, int64_t begin, int64_t end, float* s) {
  std::copy(t + begin, t + end, s + begin);
  float alpha[4];
  const float* rows[4];
  int held = 0;
  for (int64_t i = 0; i < k; ++i) {
    if (z[i] == 0.f) continue;
    alpha[held] = -z[i];
    rows[held++] = gram + i * k + begin;
    if (held == 4) {
      Axpy4(alpha, rows, s + begin, end - begin);
      held = 0;
    }
  }
  for (int r = 0; r < held; ++r) Axpy(alpha[r], rows[r], s + begin, end - begin);
}

}  // namespace

int64_t ColumnBlock(const float* gram, const float* lower, const float* inverse, int64_t k, const float* feed,
                    int64_t b, const float* previous, float* target, float* y, int64_t passes, int threads) {
  std::vector<float> q(k), z(k), sz(k), sy(k), chosen(k);
  Barrier barrier(threads);
  std::atomic<int64_t> next_rows{0};
  int64_t changes = 0;

  RunTeam(threads, [&](int thread) {
    const auto [column_begin, column_end] = Share(k, kColumns, threads, thread);
    std::vector<float> t(k);
    for (int64_t j = 0; j < b; ++j) {
      // Each thread has its own copy of t_j; the rows s_i, i < j, are final.
      std::copy(target + j * k, target + (j + 1) * k, t.begin());
      for (int64_t i = 0; i < j; ++i) {
        if (feed[i * b + j] != 0.f) Axpy(-feed[i * b + j], target + i * k, t.data(), k);
      }
      // Thread 0 descends from the previous column while the others begin q = L^-1 t, then helps.
      if (thread == 0) {
        for (int64_t i = 0; i < k; ++i) sy[i] = t[i] - previous[j * k + i];
        std::copy(y + j * k, y + (j + 1) * k, chosen.begin());
        Descend(gram, k, sy.data(), chosen.data(), passes);
      }
      for (int64_t begin = next_rows.fetch_add(kRows); begin < k; begin = next_rows.fetch_add(kRows)) {
        ForwardRows(inverse, k, t.data(), begin, std::min(k, begin + kRows), q.data());
      }
      barrier.Wait();
      if (thread == 0) {
        next_rows.store(0);
        NearestPlane(lower, k, q.data(), z.data());
      }
      barrier.Wait();
      Residual(gram, k, t.data(), z.data(), column_begin, column_end, sz.data());
      barrier.Wait();
      if (thread == 0) {
        Descend(gram, k, sz.data(), z.data(), passes);
        const bool rounded_wins = Value(t.data(), sz.data(), z.data(), k) < Value(t.data(), sy.data(), chosen.data(), k);
        const std::vector<float>& best = rounded_wins ? z : chosen;
        const std::vector<float>& residual = rounded_wins ? sz : sy;
        for (int64_t i = 0; i < k; ++i) changes += best[i] != y[j * k + i];
        std::copy(best.begin(), best.end(), y + j * k);
        std::copy(residual.begin(), residual.end(), target + j * k);
      }
      barrier.Wait();
    }
  });
  return changes;
}

}  // namespace tvm_ffn
