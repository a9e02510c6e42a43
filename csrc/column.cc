#include <algorithm>
#include <vector>

#include "beam.h"
#include "solver.h"
#include "vector_ops.h"

namespace tvm_ffn {
namespace {

constexpr int64_t kPolished = 4;  // of the beam's points: descent from the others rarely ends lower

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

/*! s = t - G z */
void Residual(const float* gram, int64_t k, const float* t, const float* z, float* s) {
  std::copy(t, t + k, s);
  AddRows(gram, k, k, z, -1.f, 0, k, s);
}

}  // namespace

int64_t ColumnBlock(const float* gram, const float* lower, const float* inverse, int64_t k, const float* feed,
                    int64_t b, const float* previous, float* target, float* y, int64_t passes, int64_t width) {
  std::vector<float> t(k), q(k), s_point(k), kept(k), s_kept(k);
  Beam nearest(k, width);
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
    const int64_t points = std::min(nearest.Search(lower, q.data()), kPolished);
    double best = Value(t.data(), s_kept.data(), kept.data(), k);
    for (int64_t p = 0; p < points; ++p) {
      float* point = nearest.Point(p);
      Residual(gram, k, t.data(), point, s_point.data());
      Descend(gram, k, s_point.data(), point, passes);
      const double value = Value(t.data(), s_point.data(), point, k);
      if (value >= best) continue;
      best = value;
      std::copy(point, point + k, kept.begin());
      s_kept.swap(s_point);
    }
    for (int64_t i = 0; i < k; ++i) changes += kept[i] != yj[i];
    std::copy(kept.begin(), kept.end(), yj);
    std::copy(s_kept.begin(), s_kept.end(), tj);
  }
  return changes;
}

}  // namespace tvm_ffn
