#include "pairing.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace tvm_ffn {
namespace {

constexpr int64_t kWordBits = 64;

inline bool HasTwo(uint64_t rows) { return (rows & (rows - 1)) != 0; }

/*! \brief Which rows of each plane hold +1 and which -1, by column: `words` of 64 rows a plane. */
struct Signs {
  int64_t planes, words;
  std::vector<uint64_t> plus, minus;

  Signs(const int8_t* ternary, int64_t planes, int64_t rows, int64_t columns)
      : planes(planes),
        words((rows + kWordBits - 1) / kWordBits),
        plus(columns * planes * words),
        minus(columns * planes * words) {
    for (int64_t r = 0; r < planes * rows; ++r) {
      int64_t word = r / rows * words + r % rows / kWordBits;
      uint64_t bit = uint64_t{1} << (r % rows % kWordBits);
      for (int64_t c = 0; c < columns; ++c) {
        int8_t value = ternary[r * columns + c];
        if (value > 0) plus[c * planes * words + word] |= bit;
        if (value < 0) minus[c * planes * words + word] |= bit;
      }
    }
  }

  /*! \brief Additions that rows save by sharing the sums and the differences of two columns, in all planes. */
  int64_t Saving(int64_t a, int64_t b) const {
    int64_t saving = 0;
    for (int64_t plane = 0; plane < planes; ++plane) {
      saving += SavingOfPlane((a * planes + plane) * words, (b * planes + plane) * words);
    }
    return saving;
  }

 private:
  int64_t SavingOfPlane(int64_t a, int64_t b) const {
    int64_t same = 0, opposite = 0;
    for (int64_t w = 0; w < words; ++w) {
      uint64_t pa = plus[a + w], ma = minus[a + w], pb = plus[b + w], mb = minus[b + w];
      uint64_t equal = (pa & pb) | (ma & mb), unequal = (pa & mb) | (ma & pb);
      if (words == 1 && !HasTwo(equal) && !HasTwo(unequal)) return 0;  // as most pairs of sparse columns
      same += std::popcount(equal);
      opposite += std::popcount(unequal);
    }
    return std::max<int64_t>(same - 1, 0) + std::max<int64_t>(opposite - 1, 0);
  }
};

struct Pair {
  int32_t first, second;
};

}  // namespace

void MatchPairs(const int8_t* ternary, int64_t planes, int64_t rows, int64_t columns, int64_t window, int32_t* mate) {
  Signs signs(ternary, planes, rows, columns);
  std::vector<std::vector<Pair>> by_saving(planes * rows + 1);
  for (int64_t offset = 1; offset <= std::min(window, columns - 1); ++offset) {
    for (int64_t first = 0; first + offset < columns; ++first) {
      int64_t saving = signs.Saving(first, first + offset);
      if (saving > 0) by_saving[saving].push_back({static_cast<int32_t>(first), static_cast<int32_t>(first + offset)});
    }
  }
  std::fill(mate, mate + columns, -1);
  for (int64_t saving = planes * rows; saving > 0; --saving) {
    for (const Pair& pair : by_saving[saving]) {
      if (mate[pair.first] >= 0 || mate[pair.second] >= 0) continue;
      mate[pair.first] = pair.second;
      mate[pair.second] = pair.first;
    }
  }
}

}  // namespace tvm_ffn
