// Which inputs of a block of ternary planes share their sums. The NumPy twin is in tvm_ffn/kernels/pairing.py.
#ifndef TVM_FFN_CSRC_PAIRING_H_
#define TVM_FFN_CSRC_PAIRING_H_

#include <cstdint>

namespace tvm_ffn {

/*!
 * Matches columns of ternary matrices at most `window` apart, greedily by the additions that a pair saves in all of
 * them; of equal ones the nearer, then the left one first. ternary: planes x rows x columns; mate: columns, the partner
 * of each or -1.
 */
void MatchPairs(const int8_t* ternary, int64_t planes, int64_t rows, int64_t columns, int64_t window, int32_t* mate);

}  // namespace tvm_ffn
#endif  // TVM_FFN_CSRC_PAIRING_H_
