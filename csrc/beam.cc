#include "beam.h"

#include <algorithm>
#include <tuple>

#include "vector_ops.h"

namespace tvm_ffn {

int64_t Beam::Search(const float* lower, const float* q) {
  paths_.assign(1, {0.f, 0, 0.f});
  std::copy(q, q + k_, Row(0));
  for (int64_t i = k_ - 1; i >= 0; --i) {
    const float* l = lower + i * k_;
    extended_.clear();
    for (const Path& path : paths_) {
      for (const float value : {-1.f, 0.f, 1.f}) {
        const float gap = Row(path.row)[i] - value * l[i];
        extended_.push_back({path.cost + gap * gap, path.row, value});
      }
    }
    paths_.swap(extended_);
    if (static_cast<int64_t>(paths_.size()) > width_) {
      std::nth_element(paths_.begin(), paths_.begin() + width_, paths_.end(), Nearer);
      paths_.resize(width_);
    }
    Separate();
    for (const Path& path : paths_) {
      float* row = Row(path.row);
      if (path.value != 0.f) Axpy(-path.value, l, row, i);
      row[i] = path.value;
    }
  }
  std::sort(paths_.begin(), paths_.end(), Nearer);
  return static_cast<int64_t>(paths_.size());
}

bool Beam::Nearer(const Path& a, const Path& b) {
  return std::tie(a.cost, a.row, a.value) < std::tie(b.cost, b.row, b.value);
}

/*! Of several paths that share a row the first keeps it; the others get copies in rows that no path holds. */
void Beam::Separate() {
  held_.assign(2 * width_, false);
  claimed_.assign(2 * width_, false);
  for (const Path& path : paths_) held_[path.row] = true;
  int64_t free = 0;
  for (Path& path : paths_) {
    if (claimed_[path.row]) {
      while (held_[free]) ++free;
      std::copy(Row(path.row), Row(path.row) + k_, Row(free));
      path.row = free;
      held_[free] = true;
    }
    claimed_[path.row] = true;
  }
}

}  // namespace tvm_ffn
