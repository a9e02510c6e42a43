#include "beam.h"

#include <algorithm>
#include <tuple>

#include "vector_ops.h"

namespace tvm_ffn {

int64_t Beam::Search(const float* lower, const float* q) {
  paths_.assign(1, {0.f, 0, 0.f});
  std::copy(q, q + k_, rows_.Row(0));
  for (int64_t i = k_ - 1; i >= 0; --i) {
    const float* l = lower + i * k_;
    extended_.clear();
    for (const Path& path : paths_) {
      for (const float value : {-1.f, 0.f, 1.f}) {
        const float gap = rows_.Row(path.row)[i] - value * l[i];
        extended_.push_back({path.cost + gap * gap, path.row, value});
      }
    }
    paths_.swap(extended_);
    if (static_cast<int64_t>(paths_.size()) > width_) {
      std::nth_element(paths_.begin(), paths_.begin() + width_, paths_.end(), Nearer);
      paths_.resize(width_);
    }
    rows_.Separate(&paths_);
    for (const Path& path : paths_) {
      float* row = rows_.Row(path.row);
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

}  // namespace tvm_ffn
