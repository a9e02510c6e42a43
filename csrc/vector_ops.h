// The vector loops everything else is made of. Each is compiled for several instruction sets and the
// loader picks one (vector_ops.cc), so one wheel is fast everywhere.
#ifndef TVM_FFN_CSRC_VECTOR_OPS_H_
#define TVM_FFN_CSRC_VECTOR_OPS_H_

#include <cstdint>

namespace tvm_ffn {

/*! A ternary vector's support: how many entries are non-zero and the sum of |s| over them. */
struct Support {
  int64_t count;
  double total;
};

/*! sum_j a_j b_j */
float Dot(const float* a, const float* b, int64_t n);

/*! out_r = sum_j rows[r * stride + j] v_j for r = 0..3: four rows share one read of v. */
void Dot4(const float* rows, int64_t stride, const float* v, int64_t n, float* out);

/*! y += alpha x */
void Axpy(float alpha, const float* x, float* y, int64_t n);

/*! y += sum_r alpha_r x_r over four vectors: one read and write of y for four updates. */
void Axpy4(const float* alpha, const float* const* x, float* y, int64_t n);

/*! y += alpha x; returns the new sum of y in *sum and of its squares in *squares. */
void AxpyWithSums(float alpha, const float* x, float* y, int64_t n, float* sum, float* squares);

/*! out_j += factor sum_i weight_i a_ij for columns j in [begin, end) of a (m x n); rows of weight 0 are skipped. */
void AddRows(const float* a, int64_t m, int64_t n, const float* weight, float factor, int64_t begin, int64_t end,
             float* out);

/*!
 * z in {-1,0,1}^n that maximises (s . z)^2 / (z . z) by threshold iteration: the best support is
 * {|s_j| > t} with t half the mean of |s| over it, so t <- mean(|s|, |s| > t) / 2 from t = 0 rises to a
 * fixed point in a few passes, where a sort would take n log n.
 */
Support FitTernary(const float* s, int64_t n, float* z);

/*! delta_j = new z_j - z_j for the scalar problem min_z g z^2 / 2 - (s_j + g z_j) z; writes z; returns changes. */
int64_t RoundToTernary(float g, const float* s, float* z, float* delta, int64_t n);

/*!
 * q_i, an integer of magnitude below `levels`, that minimises (wanted_i - unit_i q)^2 + price costs[|q|]; of equal
 * ones the smaller magnitude. costs[0] is 0, unit_i > 0.
 */
void NearestLevel(const float* wanted, const float* unit, float price, const float* costs, int64_t levels, float* q,
                  int64_t n);

}  // namespace tvm_ffn

#endif  // TVM_FFN_CSRC_VECTOR_OPS_H_
