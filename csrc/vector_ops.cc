// Plain loops; this file alone is compiled with -fassociative-math so that reductions vectorise.
#include "vector_ops.h"

#include <algorithm>
#include <cmath>

// One clone per x86-64 level, chosen by the loader (needs glibc's ifunc); the compiler's default elsewhere.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 12)
#define TVM_FFN_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TVM_FFN_MULTIVERSION
#endif

namespace tvm_ffn {

TVM_FFN_MULTIVERSION float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0.f;
  for (int64_t j = 0; j < n; ++j) sum += a[j] * b[j];
  return sum;
}

TVM_FFN_MULTIVERSION void Dot4(const float* rows, int64_t stride, const float* v, int64_t n, float* out) {
  const float *a = rows, *b = rows + stride, *c = b + stride, *d = c + stride;
  float s0 = 0.f, s1 = 0.f, s2 = 0.f, s3 = 0.f;
  for (int64_t j = 0; j < n; ++j) {
    s0 += a[j] * v[j];
    s1 += b[j] * v[j];
    s2 += c[j] * v[j];
    s3 += d[j] * v[j];
  }
  out[0] = s0;
  out[1] = s1;
  out[2] = s2;
  out[3] = s3;
}

TVM_FFN_MULTIVERSION void Axpy(float alpha, const float* __restrict x, float* __restrict y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] += alpha * x[j];
}

TVM_FFN_MULTIVERSION void Axpy4(const float* alpha, const float* const* x, float* __restrict y, int64_t n) {
  const float* __restrict a = x[0], * __restrict b = x[1], * __restrict c = x[2], * __restrict d = x[3];
  const float f0 = alpha[0], f1 = alpha[1], f2 = alpha[2], f3 = alpha[3];
  for (int64_t j = 0; j < n; ++j) y[j] += (a[j] * f0 + b[j] * f1) + (c[j] * f2 + d[j] * f3);
}

void AddRows(const float* a, int64_t m, int64_t n, const float* weight, float factor, int64_t begin, int64_t end,
             float* out) {
  float alpha[4];
  const float* rows[4];
  int held = 0;
  for (int64_t i = 0; i < m; ++i) {
    if (weight[i] == 0.f) continue;
    alpha[held] = factor * weight[i];
    rows[held++] = a + i * n + begin;
    if (held == 4) {
      Axpy4(alpha, rows, out + begin, end - begin);
      held = 0;
    }
  }
  for (int r = 0; r < held; ++r) Axpy(alpha[r], rows[r], out + begin, end - begin);
}

TVM_FFN_MULTIVERSION void AxpyWithSums(float alpha, const float* __restrict x, float* __restrict y, int64_t n,
                                       float* sum, float* squares) {
  float s = 0.f, q = 0.f;
  for (int64_t j = 0; j < n; ++j) {
    float v = y[j] + alpha * x[j];
    y[j] = v;
    s += v;
    q += v * v;
  }
  *sum = s;
  *squares = q;
}

TVM_FFN_MULTIVERSION Support FitTernary(const float* __restrict s, int64_t n, float* __restrict z) {
  constexpr int64_t kChunk = 1024;  // float sums stay short; chunks are added in double
  float threshold = 0.f;
  int64_t previous = -1;
  Support support{0, 0.0};
  while (true) {
    int64_t count = 0;
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += kChunk) {
      const int64_t end = std::min(n, begin + kChunk);
      float part = 0.f, above = 0.f;
      for (int64_t j = begin; j < end; ++j) {
        const float magnitude = std::fabs(s[j]);
        part += magnitude > threshold ? magnitude : 0.f;
        above += magnitude > threshold ? 1.f : 0.f;
      }
      total += part;
      count += static_cast<int64_t>(above);
    }
    support = {count, total};
    if (count == 0 || count == previous) break;
    previous = count;
    threshold = static_cast<float>(0.5 * total / static_cast<double>(count));
  }
  for (int64_t j = 0; j < n; ++j) z[j] = (s[j] > threshold ? 1.f : 0.f) - (s[j] < -threshold ? 1.f : 0.f);
  return support;
}

TVM_FFN_MULTIVERSION int64_t RoundToTernary(float g, const float* __restrict s, float* __restrict z,
                                            float* __restrict delta, int64_t n) {
  const float half = 0.5f * g;
  float changes = 0.f;
  for (int64_t j = 0; j < n; ++j) {
    const float u = s[j] + g * z[j];
    const float rounded = (u > half ? 1.f : 0.f) - (u < -half ? 1.f : 0.f);
    delta[j] = rounded - z[j];
    changes += rounded != z[j] ? 1.f : 0.f;
    z[j] = rounded;
  }
  return static_cast<int64_t>(changes);
}

TVM_FFN_MULTIVERSION void NearestLevel(const float* __restrict wanted, const float* __restrict unit, float price,
                                       const float* __restrict costs, int64_t levels, float* __restrict q, int64_t n) {
  constexpr int64_t kChunk = 64;
  float target[kChunk], weight[kChunk], best[kChunk], level[kChunk];
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t size = std::min(kChunk, n - begin);
    for (int64_t i = 0; i < size; ++i) {
      const float inverse = 1.f / unit[begin + i];
      target[i] = std::fabs(wanted[begin + i]) * inverse;
      weight[i] = price * inverse * inverse;
      best[i] = target[i] * target[i];
      level[i] = 0.f;
    }
    for (int64_t l = 1; l < levels; ++l) {
      const float magnitude = static_cast<float>(l), cost = costs[l];
      for (int64_t i = 0; i < size; ++i) {
        const float gap = target[i] - magnitude;
        const float value = gap * gap + weight[i] * cost;
        const bool better = value < best[i];
        best[i] = better ? value : best[i];
        level[i] = better ? magnitude : level[i];
      }
    }
    for (int64_t i = 0; i < size; ++i) q[begin + i] = wanted[begin + i] < 0.f ? -level[i] : level[i];
  }
}

}  // namespace tvm_ffn
