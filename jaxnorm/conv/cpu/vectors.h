// Common to all kernels: vectors, tasks for threads, padded copies, and the two products in registers.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace jaxnorm {

namespace ffi = xla::ffi;
using Index = std::ptrdiff_t;

// Tiles are kPixels by two vectors, or kLong by one: enough sums to hide the latency of an addition, and few enough to
// leave registers for the factors.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kPixels = 8, kLong = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8, kPixels = 4, kLong = 8;
#else
constexpr int kLanes = 4, kPixels = 4, kLong = 8;
#endif
constexpr Index kSlices = 16;  // the most parts of a batch that have separate sums in the gradient by the weights
constexpr Index kTasks = 8;    // the fewest tasks, if there are as many rows
constexpr Index kSums = 4 << 20;  // the most numbers in those sums, unless one sum is larger: 16 MiB
constexpr Index kCache = 256 << 10;  // bytes: a part of the second-level cache

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
inline Index round_up(Index value, Index to) { return (value + to - 1) / to * to; }

// Calls work(0) ... work(count - 1), in any order, on XLA's threads and this one. An exception of one call is thrown
// again here after all have ended.
inline void in_parallel(ffi::ThreadPool pool, Index count, const std::function<void(Index)>& work) {
  struct Shared {
    std::atomic<Index> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr thrown;
  };
  auto shared = std::make_shared<Shared>();  // a thread may start after the caller has returned
  auto run = [shared, count, &work] {
    for (Index index; (index = shared->next.fetch_add(1)) < count;) {
      try {
        work(index);
      } catch (...) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->thrown = std::current_exception();
      }
      if (shared->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_one();
      }
    }
  };
  const Index helpers = std::min<Index>(pool.num_threads(), count) - 1;
  try {
    for (Index i = 0; i < helpers; ++i) pool.Schedule(decltype(run)(run));
  } catch (const std::bad_alloc&) {  // the threads that have been scheduled, and this one, do all
  }
  run();
  if (shared->done.load() < count) {
    std::unique_lock<std::mutex> lock(shared->mutex);
    shared->finished.wait(lock, [&] { return shared->done.load() == count; });
  }
  if (shared->thrown) std::rethrow_exception(shared->thrown);
}

// Memory of this thread, valid until its next call.
inline float* scratch(Index size) {
  thread_local std::vector<float> buffer;
  if (static_cast<Index>(buffer.size()) < size) {
    buffer.clear();  // so that its numbers are not copied
    buffer.resize(size);
  }
  return buffer.data();
}

// The number of parts of `count` images whose sums have `size` numbers each. It depends on shapes only, not on threads.
inline Index slices_of(Index count, Index size) {
  return std::min({count, kSlices, std::max<Index>(1, kSums / size)});
}

// Other memory of this thread, filled with zeros. The destructor frees it if it is large.
class Zeros {
 public:
  explicit Zeros(Index size) { buffer_.assign(size, 0.0f); }
  ~Zeros() {
    if (static_cast<Index>(buffer_.size()) > kSums) std::vector<float>().swap(buffer_);
  }
  Zeros(const Zeros&) = delete;
  Zeros& operator=(const Zeros&) = delete;
  float* data() { return buffer_.data(); }

 private:
  static thread_local std::vector<float> buffer_;
};

inline thread_local std::vector<float> Zeros::buffer_;

struct Images {
  Index count, height, width, channels;

  Index row() const { return width * channels; }
  Index image() const { return height * row(); }
};

// y[n,a,b,o] = the sum over i, j, c of x[n, a * stride_y + i - pad_y, b * stride_x + j - pad_x, c] kernel[i,j,c,o]
struct Convolution {
  Images x, y;
  Index height, width;  // of the kernel
  Index stride_y, stride_x, pad_y, pad_x;
};

// Copies rows [first, first + rows) of an image between zeros, `before` of them at the left of each row.
inline void copy_padded(const float* image, const Images& shape, Index first, Index rows, Index width, Index before,
                        float* to) {
  const Index c = shape.channels;
  // A window may begin within the image, because the input's gradient needs no more columns than the output has.
  const Index skipped = std::min(std::max<Index>(0, -before), shape.width);
  const Index left = std::min(std::max<Index>(0, before), width);
  const Index length = std::min(shape.width - skipped, width - left);
  for (Index row = first; row < first + rows; ++row, to += width * c) {
    if (row < 0 || row >= shape.height) {
      std::fill_n(to, width * c, 0.0f);
      continue;
    }
    std::fill_n(to, left * c, 0.0f);
    std::memcpy(to + left * c, image + (row * shape.width + skipped) * c, length * c * sizeof(float));
    std::fill_n(to + (left + length) * c, (width - left - length) * c, 0.0f);
  }
}

// y[pixel, o] = the sum over `rows` rows of `length` numbers of x[pixel, row, at] w[row, at, o], for P pixels, `step`
// numbers apart in x, and V vectors of o. kStep is `step` if it is known at compile time, else 0.
template <int P, int V, int kStep>
inline void tile(const float* x, Index x_row, Index step, Index rows, Index length, const float* w, float* y,
                 Index y_step, Index pixels, Index channels) {
  if (kStep) step = kStep;
  Vector sums[P][V] = {};
  for (Index row = 0; row < rows; ++row, x += x_row) {
    for (Index at = 0; at < length; ++at, w += V * kLanes) {
      Vector weights[V];
      for (int v = 0; v < V; ++v) weights[v] = load(w + v * kLanes);
      for (int p = 0; p < P; ++p)
        for (int v = 0; v < V; ++v) sums[p][v] += weights[v] * x[p * step + at];
    }
  }
  for (int p = 0; p < P && p < pixels; ++p)
    for (int v = 0; v < V && v * kLanes < channels; ++v) {
      float* to = y + p * y_step + v * kLanes;
      if (channels - v * kLanes >= kLanes)
        store(to, sums[p][v]);
      else
        std::memcpy(to, &sums[p][v], (channels - v * kLanes) * sizeof(float));
    }
}

using Tile = void (*)(const float*, Index, Index, Index, Index, const float*, float*, Index, Index, Index);

template <int P, int V>
Tile tile_for(Index step) {
  switch (step) {
    case 16: return tile<P, V, 16>;
    case 32: return tile<P, V, 32>;
    case 64: return tile<P, V, 64>;
    default: return tile<P, V, 0>;
  }
}

// sums[c, o] += the sum over pixels of x[pixel, c] g[pixel, o], for C places c and V vectors of o.
template <int C, int V>
void add_products(const float* x, Index x_row, Index step, const float* g, Index channels, Index height, Index width,
                  float* sums, Index stride) {
  Vector total[C][V] = {};
  for (Index row = 0; row < height; ++row) {
    const float* at = x + row * x_row;
    for (Index column = 0; column < width; ++column, at += step, g += channels) {
      Vector values[V];
      for (int v = 0; v < V; ++v) values[v] = load(g + v * kLanes);
      for (int c = 0; c < C; ++c)
        for (int v = 0; v < V; ++v) total[c][v] += values[v] * at[c];
    }
  }
  for (int c = 0; c < C; ++c)
    for (int v = 0; v < V; ++v) {
      float* to = sums + c * stride + v * kLanes;
      store(to, load(to) + total[c][v]);
    }
}

}  // namespace jaxnorm
