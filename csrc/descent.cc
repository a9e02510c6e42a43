#include <vector>

#include "solver.h"
#include "vector_ops.h"

namespace tvm_ffn {

int64_t JointBlock(const float* gram, int64_t b, float* s, float* z, float* d, int64_t n) {
  std::vector<float> target(n), fitted(n), delta(n);
  int64_t changes = 0;
  for (int64_t i = 0; i < b; ++i) {
    const float g = gram[i * b + i];
    if (g <= 0.f) continue;
    float *si = s + i * n, *zi = z + i * n;
    std::copy(si, si + n, target.begin());
    Axpy(d[i] * g, zi, target.data(), n);
    Support support = FitTernary(target.data(), n, fitted.data());
    // Threshold iteration finds a good support, not always a better one than there was.
    const double count = Dot(zi, zi, n), total = Dot(target.data(), zi, n);
    if (support.total * support.total * count <= total * total * static_cast<double>(support.count)) {
      std::copy(zi, zi + n, fitted.begin());
      support = {static_cast<int64_t>(count), total};
    }
    const float scale =
        support.count ? static_cast<float>(support.total / (static_cast<double>(support.count) * g)) : 0.f;
    for (int64_t j = 0; j < n; ++j) {
      changes += fitted[j] != zi[j];
      delta[j] = scale * fitted[j] - d[i] * zi[j];
    }
    std::copy(fitted.begin(), fitted.end(), zi);
    d[i] = scale;
    for (int64_t l = i + 1; l < b; ++l) {
      if (gram[l * b + i] != 0.f) Axpy(-gram[l * b + i], delta.data(), s + l * n, n);
    }
  }
  return changes;
}

int64_t TernaryBlock(const float* gram, int64_t b, float* s, float* z, int64_t n) {
  std::vector<float> delta(n);
  int64_t changes = 0;
  for (int64_t i = 0; i < b; ++i) {
    const float g = gram[i * b + i];
    if (g <= 0.f) continue;
    const int64_t changed = RoundToTernary(g, s + i * n, z + i * n, delta.data(), n);
    if (changed == 0) continue;
    changes += changed;
    for (int64_t l = i + 1; l < b; ++l) {
      if (gram[l * b + i] != 0.f) Axpy(-gram[l * b + i], delta.data(), s + l * n, n);
    }
  }
  return changes;
}

int64_t WeightedBlock(const float* gram, int64_t k, const float* h, int64_t b, float* s, float* y) {
  std::vector<float> moved(k);  // G (new y_j - old y_j)
  int64_t changes = 0;
  for (int64_t j = 0; j < b; ++j) {
    const float weight = h[j * b + j];
    if (weight <= 0.f) continue;
    const float* sj = s + j * k;
    float* yj = y + j * k;
    std::fill(moved.begin(), moved.end(), 0.f);
    int64_t changed = 0;
    for (int64_t i = 0; i < k; ++i) {
      const float g = gram[i * k + i];
      if (g <= 0.f) continue;
      const float u = sj[i] + weight * (g * yj[i] - moved[i]);
      const float half = 0.5f * weight * g;
      const float rounded = u > half ? 1.f : (u < -half ? -1.f : 0.f);
      if (rounded == yj[i]) continue;
      Axpy(rounded - yj[i], gram + i * k, moved.data(), k);
      yj[i] = rounded;
      ++changed;
    }
    if (changed == 0) continue;
    changes += changed;
    for (int64_t q = j + 1; q < b; ++q) Axpy(-h[j * b + q], moved.data(), s + q * k, k);
  }
  return changes;
}

}  // namespace tvm_ffn
