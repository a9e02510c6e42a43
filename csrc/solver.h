// The solver's loops. Matrices are row-major float32; ternary entries are -1.f, 0.f, 1.f.
// The NumPy twin of each function, which the tests compare with, is in tvm_ffn/factorize/reference.py.
#ifndef TVM_FFN_CSRC_SOLVER_H_
#define TVM_FFN_CSRC_SOLVER_H_

#include <cstdint>

namespace tvm_ffn {

/*!
 * Greedy semidiscrete decomposition R ~ sum_c d_c x_c y_c^T (O'Leary and Peleg 1983; Kolda and O'Leary 1998):
 * each term alternates x <- best ternary for R y, y <- best ternary for R^T x until the gain
 * (x^T R y)^2 / (|x|^2 |y|^2) grows by less than `tolerance`, then R -= d x y^T.
 * y starts at all ones, or at `fallback` (n) where R 1 = 0. Terms after R is exhausted stay zero.
 * r: m x n, residual in place; x: k x m, y: k x n, d: k, zeroed by the caller.
 */
void Greedy(float* r, int64_t m, int64_t n, int64_t k, const float* fallback, float* x, float* y, float* d,
            int64_t max_iterations, double tolerance, int threads);

/*!
 * One pass over a block of terms, each with its best scale: minimise |T - A diag(d) Z|^2 over rows z_i and d_i.
 * gram = A^T A of the block: b x b; s = A^T (T - A diag(d) Z), the block's rows: b x n, in place; z: b x n; d: b.
 * The error never rises. Returns the number of entries of z that changed.
 */
int64_t JointBlock(const float* gram, int64_t b, float* s, float* z, float* d, int64_t n);

/*! The same with the scales inside A: minimise tr(Z^T G Z) / 2 - tr(B^T Z); s = B - G Z, the block's rows. */
int64_t TernaryBlock(const float* gram, int64_t b, float* s, float* z, int64_t n);

/*!
 * One pass over a block of columns of Y in the metric of H: minimise tr(Y^T G Y H) / 2 - tr(B^T Y).
 * gram: k x k; h: b x b block of H; s = (B - G Y H)^T: b x k, in place; y: b x k, column j of Y in row j.
 */
int64_t WeightedBlock(const float* gram, int64_t k, const float* h, int64_t b, float* s, float* y);

/*!
 * A block of the column pass: for each column j in turn, y_j = ternary point near V^-1 w_j, its error fed forward.
 * With t_j = V^T w_j, G = V^T V, residual correlation s_j = t_j - G y_j:
 *   t_j <- t_j - sum_{i<j} feed_ij s_i,  feed_ij = U_ij / U_ii
 *   y_j = the best of descent from the previous y_j and from points near L^-1 t_j in the ridged lattice (beam.h)
 * lower: k x k Cholesky factor L of G + ridge, inverse: L^-1; gram: k x k; feed: b x b; previous = G y_j: b x k;
 * target: b x k, t_j on entry and s_j on exit; y: b x k in place.
 */
int64_t ColumnBlock(const float* gram, const float* lower, const float* inverse, int64_t k, const float* feed,
                    int64_t b, const float* previous, float* target, float* y, int64_t passes, int64_t width);

/*!
 * Levels: W_i ~ unit_i q_i for every row i of W, q integers in (-levels, levels), costs[|q|] non-zero digits each.
 * W and q are held by column (column j of W in row j, m entries) and every row of W is a problem of its own, so
 * threads share the rows. One block of columns of the pass that feeds errors forward, with U of H^-1 = U^T U:
 *   q_j = argmin (target_j - unit q)^2 / 2 + price U_jj^2 costs[|q|]
 *   target_j <- e_j = (target_j - unit q_j) / U_jj;  target_l <- target_l - U_jl e_j for the later l of the block
 * Width 1 takes each column's best as it comes; otherwise a beam of that width looks for better sequences
 * (level_beam.h), and the best one at the end of the block is kept.
 * feedback: b x b block of U; target: b x m in place, the errors e on exit; q: b x m, written.
 */
void LevelPass(const float* feedback, int64_t b, float price, const float* unit, int64_t m, const float* costs,
               int64_t levels, float* target, float* q, int64_t width, int threads);

/*!
 * One pass of coordinate descent over a block of columns: minimise tr(E H E^T) / 2 + price sum costs[|q|].
 * h: b x b block of H, its diagonal positive; s = (E H)^T: b x m, in place; q: b x m in place.
 * Returns the number of entries of q that changed.
 */
int64_t LevelDescent(const float* h, int64_t b, float price, const float* unit, int64_t m, const float* costs,
                     int64_t levels, float* s, float* q, int threads);

}  // namespace tvm_ffn

#endif  // TVM_FFN_CSRC_SOLVER_H_
