/*!
 * \file aligned_alloc.h
 * \brief Host memory for tensors, aligned as generated code assumes.
 */
#ifndef TVM_FFN_RUNNER_ALIGNED_ALLOC_H_
#define TVM_FFN_RUNNER_ALIGNED_ALLOC_H_

#include <tvm/ffi/container/tensor.h>

#include <algorithm>
#include <cstdlib>

/*! \brief An allocator of `tvm::ffi::Tensor::FromNDAlloc`: 64-byte aligned host memory. */
struct AlignedAlloc {
  static constexpr size_t kAlignment = 64;

  void AllocData(DLTensor* tensor) {
    size_t bytes = std::max(tvm::ffi::GetDataSize(*tensor), size_t{1});
    tensor->data = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

#endif  // TVM_FFN_RUNNER_ALIGNED_ALLOC_H_
