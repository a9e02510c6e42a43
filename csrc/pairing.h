// Which inputs of a ternary block share their sums. The NumPy twin is in tvm_ffn/kernels/pairing.py.
#ifndef TVM_FFN_CSRC_PAIRING_H_
#define TVM_FFN_CSRC_PAIRING_H_

#include <cstdint>

namespace tvm_ffn {

/*!
 * Matches columns of a ternary matrix at most `window` apart, greedily by the additions that a pair saves; of equal
 * ones the nearer, then the left one first. ternary: rows x columns; mate: columns, the partner of each or -1.
 */
void MatchPairs(const int8_t* ternary, int64_t rows, int64_t columns, int64_t window, int32_t* mate);

}  // namespace tvm_ffn
#endif  // TVM_FFN_CSRC_PAIRING_H_
