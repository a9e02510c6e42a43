// A handful of threads that run one function together and meet at barriers.
#ifndef TVM_FFN_CSRC_TEAM_H_
#define TVM_FFN_CSRC_TEAM_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

namespace tvm_ffn {

/*! A reusable barrier: spins shortly, because phases last microseconds, then sleeps and leaves the core to others. */
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}

  void Wait() {
    const int64_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
      return;
    }
    for (int spin = 0; spin < kSpins; ++spin) {
      if (phase_.load(std::memory_order_acquire) != phase) return;
    }
    phase_.wait(phase, std::memory_order_acquire);
  }

 private:
  static constexpr int kSpins = 40000;  // some 20 microseconds
  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<int64_t> phase_{0};
};

/*! Runs body(thread index) on `threads` threads, the caller being thread 0, and returns when all are done. */
inline void RunTeam(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (std::thread& thread : others) thread.join();
}

/*!
 * Thread t's share of [0, n) in whole grains. Cut points fall on multiples of the grain, so each element
 * meets the same unrolled or tail code, and the same rounding, whatever the number of threads.
 */
inline std::pair<int64_t, int64_t> Share(int64_t n, int64_t grain, int threads, int t) {
  const int64_t grains = (n + grain - 1) / grain;
  return {std::min(n, grains * t / threads * grain), std::min(n, grains * (t + 1) / threads * grain)};
}

}  // namespace tvm_ffn

#endif  // TVM_FFN_CSRC_TEAM_H_
