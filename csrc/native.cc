// Bindings that check shapes and types. Loaded by tvm_ffn/factorize/native.py.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <initializer_list>

#include "pairing.h"
#include "solver.h"

namespace tvm_ffn {
namespace {

using tvm::ffi::TensorView;

/*! The data of a contiguous array of the given type and shape; anything else is a ValueError naming it. */
void* Checked(const TensorView& array, const char* name, std::initializer_list<int64_t> shape, uint8_t code,
              uint8_t bits) {
  bool fits = array.IsContiguous() && array.ndim() == static_cast<int>(shape.size()) && array.dtype().code == code &&
              array.dtype().bits == bits && array.dtype().lanes == 1;
  int axis = 0;
  for (int64_t extent : shape) fits = fits && array.size(axis++) == extent;
  if (!fits)
    TVM_FFI_THROW(ValueError) << name << " is not a contiguous " << (code == kDLFloat ? "float" : "int") << int{bits}
                              << " array of the expected shape";
  return array.data_ptr();
}

float* Data(const TensorView& array, const char* name, std::initializer_list<int64_t> shape) {
  return static_cast<float*>(Checked(array, name, shape, kDLFloat, 32));
}

int Threads(int64_t threads) { return static_cast<int>(std::clamp<int64_t>(threads, 1, 64)); }

void BindGreedy(TensorView r, TensorView fallback, TensorView x, TensorView y, TensorView d, int64_t max_iterations,
                double tolerance, int64_t threads) {
  const int64_t m = r.size(0), n = r.size(1), k = d.size(0);
  Greedy(Data(r, "residual", {m, n}), m, n, k, Data(fallback, "fallback", {n}), Data(x, "x", {k, m}),
         Data(y, "y", {k, n}), Data(d, "d", {k}), max_iterations, tolerance, Threads(threads));
}

int64_t BindJointBlock(TensorView gram, TensorView s, TensorView z, TensorView d) {
  const int64_t b = s.size(0), n = s.size(1);
  return JointBlock(Data(gram, "gram", {b, b}), b, Data(s, "s", {b, n}), Data(z, "z", {b, n}), Data(d, "d", {b}), n);
}

int64_t BindTernaryBlock(TensorView gram, TensorView s, TensorView z) {
  const int64_t b = s.size(0), n = s.size(1);
  return TernaryBlock(Data(gram, "gram", {b, b}), b, Data(s, "s", {b, n}), Data(z, "z", {b, n}), n);
}

int64_t BindWeightedBlock(TensorView gram, TensorView h, TensorView s, TensorView y) {
  const int64_t b = s.size(0), k = s.size(1);
  return WeightedBlock(Data(gram, "gram", {k, k}), k, Data(h, "h", {b, b}), b, Data(s, "s", {b, k}),
                       Data(y, "y", {b, k}));
}

int64_t BindColumnBlock(TensorView gram, TensorView lower, TensorView inverse, TensorView feed, TensorView previous,
                        TensorView target, TensorView y, int64_t passes, int64_t width) {
  const int64_t b = target.size(0), k = target.size(1);
  return ColumnBlock(Data(gram, "gram", {k, k}), Data(lower, "lower", {k, k}), Data(inverse, "inverse", {k, k}), k,
                     Data(feed, "feed", {b, b}), b, Data(previous, "previous", {b, k}), Data(target, "target", {b, k}),
                     Data(y, "y", {b, k}), passes, std::clamp<int64_t>(width, 1, 1 << 10));
}

void BindLevelPass(TensorView feedback, double price, TensorView unit, TensorView costs, TensorView target,
                   TensorView q, int64_t width, int64_t threads) {
  const int64_t b = target.size(0), m = target.size(1), levels = costs.size(0);
  LevelPass(Data(feedback, "feedback", {b, b}), b, static_cast<float>(price), Data(unit, "unit", {m}), m,
            Data(costs, "costs", {levels}), levels, Data(target, "target", {b, m}), Data(q, "q", {b, m}),
            std::clamp<int64_t>(width, 1, 1 << 10), Threads(threads));
}

int64_t BindLevelDescent(TensorView h, double price, TensorView unit, TensorView costs, TensorView s, TensorView q,
                         int64_t threads) {
  const int64_t b = s.size(0), m = s.size(1), levels = costs.size(0);
  return LevelDescent(Data(h, "h", {b, b}), b, static_cast<float>(price), Data(unit, "unit", {m}), m,
                      Data(costs, "costs", {levels}), levels, Data(s, "s", {b, m}), Data(q, "q", {b, m}),
                      Threads(threads));
}

void BindMatchPairs(TensorView ternary, int64_t window, TensorView mate) {
  const int64_t planes = ternary.size(0), rows = ternary.size(1), columns = ternary.size(2);
  MatchPairs(static_cast<const int8_t*>(Checked(ternary, "ternary", {planes, rows, columns}, kDLInt, 8)), planes, rows,
             columns, window, static_cast<int32_t*>(Checked(mate, "mate", {columns}, kDLInt, 32)));
}

}  // namespace
}  // namespace tvm_ffn

TVM_FFI_DLL_EXPORT_TYPED_FUNC(greedy, tvm_ffn::BindGreedy);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(joint_block, tvm_ffn::BindJointBlock);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(ternary_block, tvm_ffn::BindTernaryBlock);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(weighted_block, tvm_ffn::BindWeightedBlock);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(column_block, tvm_ffn::BindColumnBlock);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(level_pass, tvm_ffn::BindLevelPass);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(level_descent, tvm_ffn::BindLevelDescent);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(match_pairs, tvm_ffn::BindMatchPairs);
