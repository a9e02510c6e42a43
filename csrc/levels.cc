#include <algorithm>
#include <cmath>
#include <vector>

#include "level_beam.h"
#include "solver.h"
#include "team.h"
#include "vector_ops.h"

namespace tvm_ffn {
namespace {

constexpr int64_t kRows = 64;  // rows of W worked on at a time: a block of columns of them stays in the cache

}  // namespace

void LevelPass(const float* feedback, int64_t b, float price, const float* unit, int64_t m, const float* costs,
               int64_t levels, float* target, float* q, int64_t width, int threads) {
  if (width > 1) {
    const LevelTable table(costs, levels);
    RunTeam(threads, [&](int t) {
      LevelBeam beam(table, b, width);
      const auto [first, last] = Share(m, 1, threads, t);
      for (int64_t i = first; i < last; ++i) beam.Search(feedback, price, unit[i], target + i, q + i, m);
    });
    return;
  }
  RunTeam(threads, [&](int t) {
    const auto [first, last] = Share(m, kRows, threads, t);
    float chosen[kRows];
    for (int64_t begin = first; begin < last; begin += kRows) {
      const int64_t rows = std::min(kRows, last - begin);
      const float* units = unit + begin;
      for (int64_t j = 0; j < b; ++j) {
        float* tj = target + j * m + begin;
        const float u = feedback[j * b + j];
        NearestLevel(tj, units, 2.f * price * u * u, costs, levels, chosen, rows);
        for (int64_t i = 0; i < rows; ++i) tj[i] = (tj[i] - units[i] * chosen[i]) / u;
        std::copy(chosen, chosen + rows, q + j * m + begin);
        for (int64_t l = j + 1; l < b; ++l) Axpy(-feedback[j * b + l], tj, target + l * m + begin, rows);
      }
    }
  });
}

int64_t LevelDescent(const float* h, int64_t b, float price, const float* unit, int64_t m, const float* costs,
                     int64_t levels, float* s, float* q, int threads) {
  std::vector<int64_t> changes(threads, 0);
  RunTeam(threads, [&](int t) {
    const auto [first, last] = Share(m, kRows, threads, t);
    float wanted[kRows], chosen[kRows];
    for (int64_t begin = first; begin < last; begin += kRows) {
      const int64_t rows = std::min(kRows, last - begin);
      const float* units = unit + begin;
      for (int64_t j = 0; j < b; ++j) {
        const float weight = h[j * b + j];
        const float* sj = s + j * m + begin;
        float* qj = q + j * m + begin;
        for (int64_t i = 0; i < rows; ++i) wanted[i] = sj[i] / weight + units[i] * qj[i];
        NearestLevel(wanted, units, 2.f * price / weight, costs, levels, chosen, rows);
        int64_t changed = 0;
        for (int64_t i = 0; i < rows; ++i) {
          changed += chosen[i] != qj[i];
          wanted[i] = units[i] * (chosen[i] - qj[i]);
          qj[i] = chosen[i];
        }
        if (changed == 0) continue;
        changes[t] += changed;
        for (int64_t l = j + 1; l < b; ++l) Axpy(-h[j * b + l], wanted, s + l * m + begin, rows);
      }
    }
  });
  int64_t total = 0;
  for (int64_t count : changes) total += count;
  return total;
}

}  // namespace tvm_ffn
