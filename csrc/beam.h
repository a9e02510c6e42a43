// Beam search for the ternary point nearest to a target in a lattice.
#ifndef TVM_FFN_CSRC_BEAM_H_
#define TVM_FFN_CSRC_BEAM_H_

#include <cstdint>
#include <vector>

#include "path_rows.h"

namespace tvm_ffn {

/*!
 * min |L^T z - q| over ternary z, fixed from the last coordinate to the first; after each coordinate only the `width`
 * nearest partial points are carried on. Width 1 is Babai's nearest plane with clipping, which visits the same points
 * as GPTQ in the reverse order (arXiv 2507.18553).
 */
class Beam {
 public:
  Beam(int64_t k, int64_t width) : k_(k), width_(width), rows_(k, width) {}

  /*! lower: L, k x k; q: k. Returns how many points there are, at most `width`. */
  int64_t Search(const float* lower, const float* q);

  /*! The index-th nearest point found: k entries, the caller may change them. */
  float* Point(int64_t index) { return rows_.Row(paths_[index].row); }

 private:
  struct Path {
    float cost;   // squared distance so far
    int64_t row;  // of rows_: what is left of q below the coordinate in turn, z from there on
    float value;  // z of the coordinate in turn
  };

  static bool Nearer(const Path& a, const Path& b);

  int64_t k_, width_;
  PathRows rows_;
  std::vector<Path> paths_, extended_;
};

}  // namespace tvm_ffn

#endif  // TVM_FFN_CSRC_BEAM_H_
