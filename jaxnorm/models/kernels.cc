// Convolutions of float32 images (N, H, W, C) and their gradients, for XLA on CPU.
//
// All three are sums of products that stay in registers: a tile of P neighbouring pixels by V vectors of channels
// collects its sum over a row of the kernel before it is written. In NHWC a row of the kernel meets kernel_width * C
// numbers that lie side by side, so one loop serves every width. A band of an image is copied between zeros first: that
// leaves no case for borders, and the copy lies in the cache. Loops over pixels have fixed lengths, and what a tile
// computes beyond the edge is not stored.
//
// Work is cut by images, and by rows where images are few or large, never by the number of threads, and partial sums are
// added in a fixed order: the result depends neither on how many threads there are nor on which is first.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Index = std::ptrdiff_t;

namespace {

// Tiles are kPixels by two vectors, or kLong by one: as many sums as hide the latency of an addition and leave registers
// for what they are made of.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kPixels = 8, kLong = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8, kPixels = 4, kLong = 8;
#else
constexpr int kLanes = 4, kPixels = 4, kLong = 8;
#endif
constexpr Index kSlices = 16;           // parts of the batch with a sum of their own in the weight's gradient
constexpr Index kTasks = 8;             // at least so many pieces of work, where there are as many rows
constexpr Index kBandBytes = 256 << 10; // of an image's band: a part of the second-level cache

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
inline Index round_up(Index value, Index to) { return (value + to - 1) / to * to; }

// Calls work(0) ... work(count - 1), in any order, on XLA's own threads and this one.
void in_parallel(ffi::ThreadPool pool, Index count, const std::function<void(Index)>& work) {
  struct Shared {
    std::atomic<Index> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();  // a thread may wake up when all is done and the caller gone
  auto run = [shared, count, &work] {
    for (Index index; (index = shared->next.fetch_add(1)) < count;) {
      work(index);
      if (shared->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_one();
      }
    }
  };
  Index helpers = std::min<Index>(pool.num_threads(), count) - 1;
  for (Index i = 0; i < helpers; ++i) pool.Schedule(decltype(run)(run));
  run();
  if (shared->done.load() < count) {
    std::unique_lock<std::mutex> lock(shared->mutex);
    shared->finished.wait(lock, [&] { return shared->done.load() == count; });
  }
}

float* scratch(Index size) {
  thread_local std::vector<float> buffer;
  if (static_cast<Index>(buffer.size()) < size) buffer.resize(size);
  return buffer.data();
}

struct Images {
  Index count, height, width, channels;
};

// Rows [first, first + rows) of an image between zeros, of which `before` stand at the left of each row.
void copy_padded(const float* image, const Images& shape, Index first, Index rows, Index width, Index before, float* to) {
  const Index c = shape.channels;
  // A window may begin within the image: the input's gradient meets no more of its columns than the output has.
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
// numbers apart in x, and V vectors of o. kStep is `step` where it is known ahead, else 0.
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

// y[n, top + a * down, left + b * across, o] =
//   the sum over i and j of x[n, a * stride_y + i - pad_y, (b * stride_x - pad_x) * C + j] weights[i, j, o]
struct Product {
  Images x, y;
  Index rows, length;                      // of the weights: i < rows, j < length
  Index stride_y, stride_x, pad_y, pad_x;
  Index top, left, down, across;
  Index height, width;                     // a < height, b < width
  int vectors;                             // of a block
  std::vector<float> weights;              // (blocks, rows, length, a block's channels)
};

// Arranges the weights w(i, j, o) in blocks of channels, with zeros where the last is not full.
template <typename Weight>
void pack(Product& product, const Weight& w) {
  const Index outputs = product.y.channels;
  product.vectors = outputs > kLanes ? 2 : 1;
  const Index block = product.vectors * kLanes, blocks = round_up(outputs, block) / block;
  product.weights.assign(blocks * product.rows * product.length * block, 0.0f);
  float* to = product.weights.data();
  for (Index b = 0; b < blocks; ++b)
    for (Index i = 0; i < product.rows; ++i)
      for (Index j = 0; j < product.length; ++j, to += block)
        for (Index o = b * block; o < std::min(outputs, (b + 1) * block); ++o) to[o - b * block] = w(i, j, o);
}

// Rows [first, last) of one image's product.
void compute_rows(const Product& p, const float* x, float* y, Index first, Index last) {
  const Index c = p.x.channels, pixels = p.vectors == 1 ? (p.width > kPixels ? kLong : kPixels) : kPixels;
  const Index tiled = round_up(p.width, pixels);
  const Index width = (tiled - 1) * p.stride_x + (p.length + c - 1) / c;
  const Index rows = (last - first - 1) * p.stride_y + p.rows;
  float* padded = scratch(rows * width * c);
  copy_padded(x, p.x, first * p.stride_y - p.pad_y, rows, width, p.pad_x, padded);
  const Index block = p.vectors * kLanes, step = p.stride_x * c;
  const Tile run = p.vectors == 2 ? tile_for<kPixels, 2>(step)
                   : pixels == kLong ? tile_for<kLong, 1>(step) : tile_for<kPixels, 1>(step);
  const Index y_step = p.across * p.y.channels;
  for (Index o = 0, b = 0; o < p.y.channels; o += block, ++b) {
    const float* weights = p.weights.data() + b * p.rows * p.length * block;
    for (Index row = first; row < last; ++row) {
      const float* from = padded + (row - first) * p.stride_y * width * c;
      float* to = y + ((p.top + row * p.down) * p.y.width + p.left) * p.y.channels + o;
      for (Index at = 0; at < p.width; at += pixels)
        run(from + at * step, width * c, step, p.rows, p.length, weights, to + at * y_step, y_step, p.width - at,
            p.y.channels - o);
    }
  }
}

// Products of the same images, which together fill y.
void compute(ffi::ThreadPool pool, const std::vector<Product>& products, const float* x, float* y) {
  const Images &in = products[0].x, &out = products[0].y;
  Index height = 1;
  for (const Product& p : products) height = std::max(height, p.height);
  const Index bytes = in.height * in.width * in.channels * static_cast<Index>(sizeof(float));
  const Index bands = std::min(height, std::max(round_up(bytes, kBandBytes) / kBandBytes, kTasks / in.count));
  in_parallel(pool, in.count * bands, [&](Index task) {
    const Index n = task / bands, band = task % bands;
    for (const Product& p : products) {
      const Index first = band * p.height / bands, last = (band + 1) * p.height / bands;
      if (first < last && p.width > 0)
        compute_rows(p, x + n * in.height * in.width * in.channels, y + n * out.height * out.width * out.channels, first,
                last);
    }
  });
}

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;

template <typename B>
Images images(const B& buffer) {
  auto d = buffer.dimensions();
  return {static_cast<Index>(d[0]), static_cast<Index>(d[1]), static_cast<Index>(d[2]), static_cast<Index>(d[3])};
}

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Result y, int64_t stride_y, int64_t stride_x,
                   int64_t pad_y, int64_t pad_x) {
  const Images k = images(kernel);  // (height, width, in, out)
  std::vector<Product> products(1);
  Product& p = products[0];
  p.x = images(x), p.y = images(*y);
  p.rows = k.count, p.length = k.height * k.width;
  p.stride_y = stride_y, p.stride_x = stride_x, p.pad_y = pad_y, p.pad_x = pad_x;
  p.top = p.left = 0, p.down = p.across = 1;
  p.height = p.y.height, p.width = p.y.width;
  const float* w = kernel.typed_data();
  pack(p, [&](Index i, Index j, Index o) { return w[(i * p.length + j) * k.channels + o]; });
  compute(pool, products, x.typed_data(), y->typed_data());
  return ffi::Error::Success();
}

// dx[s*a + r - p] = sum_i g[a - i] w[s*i + r]: for each position r within a stride a convolution of its own.
ffi::Error input_gradient(ffi::ThreadPool pool, Buffer g, Buffer kernel, Result dx, int64_t stride_y, int64_t stride_x,
                          int64_t pad_y, int64_t pad_x) {
  const Images k = images(kernel), in = images(g), out = images(*dx);
  const Index ci = k.width, co = k.channels;
  const float* w = kernel.typed_data();
  std::vector<Product> products;
  for (Index ry = 0; ry < stride_y; ++ry)
    for (Index rx = 0; rx < stride_x; ++rx) {
      Product p;
      p.x = in, p.y = out;
      const Index taps_y = k.count > ry ? (k.count - ry + stride_y - 1) / stride_y : 0;
      const Index taps_x = k.height > rx ? (k.height - rx + stride_x - 1) / stride_x : 0;
      p.rows = taps_y, p.length = taps_x * co;
      if (taps_x == 0) p.rows = 0;
      p.stride_y = p.stride_x = 1;
      // The first a whose s*a + r - p is not negative, and how many there are below the end.
      const Index ay = pad_y > ry ? (pad_y - ry + stride_y - 1) / stride_y : 0;
      const Index ax = pad_x > rx ? (pad_x - rx + stride_x - 1) / stride_x : 0;
      p.top = stride_y * ay + ry - pad_y, p.left = stride_x * ax + rx - pad_x;
      p.down = stride_y, p.across = stride_x;
      p.height = p.top < out.height ? (out.height - p.top + stride_y - 1) / stride_y : 0;
      p.width = p.left < out.width ? (out.width - p.left + stride_x - 1) / stride_x : 0;
      // Kernel rows in reverse: row i of the window is tap taps - 1 - i, and starts at g[a - (taps - 1)].
      p.pad_y = taps_y - 1 - ay, p.pad_x = taps_x - 1 - ax;
      pack(p, [&](Index i, Index j, Index c) {
        const Index tap_y = taps_y - 1 - i, tap_x = taps_x - 1 - j / co;
        return w[(((stride_y * tap_y + ry) * k.height + stride_x * tap_x + rx) * ci + c) * co + j % co];
      });
      products.push_back(std::move(p));
    }
  compute(pool, products, g.typed_data(), dx->typed_data());
  return ffi::Error::Success();
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

ffi::Error kernel_gradient(ffi::ThreadPool pool, Buffer x, Buffer g, Result dkernel, int64_t stride_y, int64_t stride_x,
                           int64_t pad_y, int64_t pad_x) {
  const Images in = images(x), out = images(g), k = images(*dkernel);
  const Index kernel_rows = k.count, length = k.height * k.width, co = k.channels;
  const int vectors = co > kLanes ? 2 : 1;
  const Index places = vectors == 2 ? kPixels : kLong;
  const Index lanes = round_up(co, vectors * kLanes), lines = round_up(length, places);
  const auto add = vectors == 2 ? add_products<kPixels, 2> : add_products<kLong, 1>;
  const Index slices = std::min(in.count, kSlices);
  const Index size = kernel_rows * lines * lanes;
  std::vector<float> partial(slices * size, 0.0f);
  const Index width = (out.width - 1) * stride_x + k.height, row_size = width * in.channels;
  const Index band = std::max<Index>(1, kBandBytes / (row_size * stride_y * static_cast<Index>(sizeof(float))));
  in_parallel(pool, slices, [&](Index slice) {
    float* sums = partial.data() + slice * size;
    for (Index n = slice * in.count / slices; n < (slice + 1) * in.count / slices; ++n) {
      for (Index first = 0; first < out.height; first += band) {
        const Index height = std::min(band, out.height - first), rows = (height - 1) * stride_y + kernel_rows;
        const Index padded_size = rows * row_size + lines, pixels = height * out.width;
        float* padded = scratch(padded_size + pixels * lanes);
        copy_padded(x.typed_data() + n * in.height * in.width * in.channels, in, first * stride_y - pad_y, rows, width,
                    pad_x, padded);
        std::fill_n(padded + rows * row_size, lines, 0.0f);
        const float* gradient = g.typed_data() + (n * out.height + first) * out.width * co;
        if (lanes != co) {  // channels that fill no vector get zeros beside them
          float* filled = padded + padded_size;
          for (Index pixel = 0; pixel < pixels; ++pixel) {
            std::memcpy(filled + pixel * lanes, gradient + pixel * co, co * sizeof(float));
            std::fill_n(filled + pixel * lanes + co, lanes - co, 0.0f);
          }
          gradient = filled;
        }
        for (Index i = 0; i < kernel_rows; ++i)
          for (Index at = 0; at < lines; at += places)
            for (Index o = 0; o < lanes; o += vectors * kLanes)
              add(padded + i * row_size + at, stride_y * row_size, stride_x * in.channels, gradient + o, lanes, height,
                  out.width, sums + (i * lines + at) * lanes + o, lanes);
      }
    }
  });
  float* result = dkernel->typed_data();
  for (Index i = 0; i < kernel_rows; ++i)
    for (Index j = 0; j < length; ++j)
      for (Index o = 0; o < co; ++o) {
        float total = 0;
        for (Index slice = 0; slice < slices; ++slice) total += partial[slice * size + (i * lines + j) * lanes + o];
        result[(i * length + j) * co + o] = total;
      }
  return ffi::Error::Success();
}

}  // namespace

#define HANDLER(name, function)                                       \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, function,                       \
                                ffi::Ffi::Bind()                      \
                                    .Ctx<ffi::ThreadPool>()           \
                                    .Arg<Buffer>()                    \
                                    .Arg<Buffer>()                    \
                                    .Ret<Buffer>()                    \
                                    .Attr<int64_t>("stride_y")        \
                                    .Attr<int64_t>("stride_x")        \
                                    .Attr<int64_t>("pad_y")           \
                                    .Attr<int64_t>("pad_x"))

HANDLER(jaxnorm_conv_forward, forward);
HANDLER(jaxnorm_conv_input_gradient, input_gradient);
HANDLER(jaxnorm_conv_kernel_gradient, kernel_gradient);
