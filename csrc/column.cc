#include <algorithm>
#include <cmath>
#include <vector>

#include "solver.h"
#include "vector_ops.h"

namespace tvm_ffn {
namespace {

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

/*! q = L^-1 t; L^-1 is lower triangular with zeros stored above the diagonal. */
void ForwardSubstitute(const float* inverse, int64_t k, const float* t, float* q) {
  int64_t i = 0;
  for (; i + 4 <= k; i += 4) Dot4(inverse + i * k, k, t, i + 4, q + i);
  for (; i < k; ++i) q[i] = Dot(inverse + i * k, t, i + 1);
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

/*! s = t - G z */
void Residual(const float* gram, int64_t k, const float* t, const float* z, float* s) {
  std::copy(t, t + k, s);
  AddRows(gram, k, k, z, -1.f, 0, k, s);
}

}  // namespace

int64_t ColumnBlock(const float* gram, const float* lower, const float* inverse, int64_t k, const float* feed,
                    int64_t b, const float* previous, float* target, float* y, int64_t passes) {
  std::vector<float> t(k), q(k), rounded(k), s_rounded(k), kept(k), s_kept(k);
  int64_t changes = 0;
  for (int64_t j = 0; j < b; ++j) {
    float *tj = target + j * k, *yj = y + j * k;
    std::copy(tj, tj + k, t.begin());
    for (int64_t i = 0; i < j; ++i) {
      if (feed[i * b + j] != 0.f) Axpy(-feed[i * b + j], target + i * k, t.data(), k);
    }
    for (int64_t i = 0; i < k; ++i) s_kept[i] = t[i] - previous[j * k + i];
    std::copy(yj, yj + k, kept.begin());
    Descend(gram, k, s_kept.data(), kept.data(), passes);

    ForwardSubstitute(inverse, k, t.data(), q.data());
    NearestPlane(lower, k, q.data(), rounded.data());
    Residual(gram, k, t.data(), rounded.data(), s_rounded.data());
    Descend(gram, k, s_rounded.data(), rounded.data(), passes);

    const bool wins = Value(t.data(), s_rounded.data(), rounded.data(), k) < Value(t.data(), s_kept.data(), kept.data(), k);
    const std::vector<float>&best = wins ? rounded : kept, &residual = wins ? s_rounded : s_kept;
    for (int64_t i = 0; i < k; ++i) changes += best[i] != yj[i];
    std::copy(best.begin(), best.end(), yj);
    std::copy(residual.begin(), residual.end(), tj);
  }
  return changes;
}

}  // namespace tvm_ffn
