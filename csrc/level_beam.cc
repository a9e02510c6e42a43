#include "level_beam.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "vector_ops.h"

namespace tvm_ffn {

LevelTable::LevelTable(const float* costs, int64_t levels)
    : classes_(static_cast<int64_t>(*std::max_element(costs, costs + levels)) + 1), half_steps_(2 * levels) {
  nearest_.resize(half_steps_ * classes_);
  for (int64_t h = 0; h < half_steps_; ++h) {
    const float x = 0.5f * static_cast<float>(h) + 0.25f;
    for (int64_t cost = 0; cost < classes_; ++cost) {
      float& nearest = nearest_[h * classes_ + cost];
      nearest = -1e9f;  // a cost that no level has is never the nearest
      for (int64_t level = 0; level < levels; ++level) {
        const float magnitude = static_cast<float>(level);
        if (costs[level] == static_cast<float>(cost) && std::fabs(magnitude - x) < std::fabs(nearest - x)) {
          nearest = magnitude;
        }
      }
    }
  }
}

void LevelBeam::Search(const float* feedback, float price, float unit, float* target, float* q, int64_t stride) {
  paths_.assign(1, {0.f, 0, 0.f, 0.f});
  for (int64_t j = 0; j < b_; ++j) rows_.Row(0)[j] = target[j * stride];
  for (int64_t j = 0; j < b_; ++j) {
    const float u = feedback[j * b_ + j];
    extended_.clear();
    for (const Path& path : paths_) {
      const float wanted = rows_.Row(path.row)[j];
      table_.ForEach(std::fabs(wanted) / unit, [&](float magnitude, float cost) {
        const float level = wanted < 0.f ? -magnitude : magnitude;
        const float error = (wanted - unit * level) / u;
        extended_.push_back({path.cost + (0.5f * error * error + price * cost), path.row, level, error});
      });
    }
    paths_.swap(extended_);
    if (static_cast<int64_t>(paths_.size()) > width_) {
      std::nth_element(paths_.begin(), paths_.begin() + width_, paths_.end(), Better);
      paths_.resize(width_);
    }
    rows_.Separate(&paths_);
    for (const Path& path : paths_) {
      float* row = rows_.Row(path.row);
      Axpy(-path.error, feedback + j * b_ + j + 1, row + j + 1, b_ - j - 1);
      row[j] = path.error;
      row[b_ + j] = path.level;
    }
  }
  const float* best = rows_.Row(std::min_element(paths_.begin(), paths_.end(), Better)->row);
  for (int64_t j = 0; j < b_; ++j) {
    target[j * stride] = best[j];
    q[j * stride] = best[b_ + j];
  }
}

bool LevelBeam::Better(const Path& a, const Path& b) {
  return std::tie(a.cost, a.row, a.level) < std::tie(b.cost, b.row, b.level);
}

}  // namespace tvm_ffn
