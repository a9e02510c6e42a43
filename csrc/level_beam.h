// Beam search over the levels of one row of W, a block of columns at a time.
#ifndef TVM_FFN_CSRC_LEVEL_BEAM_H_
#define TVM_FFN_CSRC_LEVEL_BEAM_H_

#include <cstdint>
#include <vector>

#include "path_rows.h"

namespace tvm_ffn {

/*! The signed levels worth trying for a number: of every cost the nearest level, if nearer than all cheaper ones. */
class LevelTable {
 public:
  LevelTable(const float* costs, int64_t levels);

  /*! Calls visit(magnitude, cost) for each candidate of x >= 0, cheapest first. */
  template <class Visit>
  void ForEach(float x, const Visit& visit) const {
    const float half_steps = 2.f * x, last = static_cast<float>(half_steps_ - 1);
    const float* nearest = nearest_.data() + static_cast<int64_t>(half_steps < last ? half_steps : last) * classes_;
    float closest = nearest[0] - x;
    closest *= closest;
    visit(nearest[0], 0.f);
    for (int64_t cost = 1; cost < classes_; ++cost) {
      const float gap = nearest[cost] - x;
      if (gap * gap >= closest) continue;
      closest = gap * gap;
      visit(nearest[cost], static_cast<float>(cost));
    }
  }

 private:
  int64_t classes_, half_steps_;
  std::vector<float> nearest_;  // half_steps x classes: midpoints of levels are multiples of 1/2
};

/*!
 * min |e|^2 / 2 + price sum costs[|q_j|] over q, unit q + U^T e = target: the columns are fixed in turn, and of all
 * partial solutions only the `width` best are carried on.
 */
class LevelBeam {
 public:
  LevelBeam(const LevelTable& table, int64_t b, int64_t width)
      : table_(table), b_(b), width_(width), rows_(2 * b, width) {}

  /*! feedback: U, b x b; target: b, e on exit; q: b, written. Both have their entries `stride` apart. */
  void Search(const float* feedback, float price, float unit, float* target, float* q, int64_t stride);

 private:
  struct Path {
    float cost;          // so far
    int64_t row;         // b errors, or targets from the column in turn on, then b levels
    float level, error;  // of the column in turn
  };

  static bool Better(const Path& a, const Path& b);

  const LevelTable& table_;
  int64_t b_, width_;
  PathRows rows_;
  std::vector<Path> paths_, extended_;
};

}  // namespace tvm_ffn

#endif  // TVM_FFN_CSRC_LEVEL_BEAM_H_
