// Where the partial solutions of a beam search keep their vectors.
#ifndef TVM_FFN_CSRC_PATH_ROWS_H_
#define TVM_FFN_CSRC_PATH_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tvm_ffn {

/*! A pool of 2 x `width` rows of `length` floats; a path names its row, and extensions of one path first share it. */
class PathRows {
 public:
  PathRows(int64_t length, int64_t width) : length_(length), width_(width), rows_(2 * width * length) {}

  float* Row(int64_t row) { return rows_.data() + row * length_; }

  /*! Of several paths that share a row the first keeps it; the others get copies in rows that no path holds. */
  template <class Path>
  void Separate(std::vector<Path>* paths) {
    held_.assign(2 * width_, false);
    claimed_.assign(2 * width_, false);
    for (const Path& path : *paths) held_[path.row] = true;
    int64_t free = 0;
    for (Path& path : *paths) {
      if (claimed_[path.row]) {
        while (held_[free]) ++free;
        std::copy(Row(path.row), Row(path.row) + length_, Row(free));
        path.row = free;
        held_[free] = true;
      }
      claimed_[path.row] = true;
    }
  }

 private:
  int64_t length_, width_;
  std::vector<float> rows_;
  std::vector<bool> held_, claimed_;
};

}  // namespace tvm_ffn

#endif  // TVM_FFN_CSRC_PATH_ROWS_H_
