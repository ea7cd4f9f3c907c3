// Convolutions of any kernel and stride, as sums of products over rows of the kernel.

#pragma once

#include "vectors.h"

namespace jaxnorm::direct {

// y[n, top + a * down, left + b * across, o] =
//   the sum over i and j of x[n, a * stride_y + i - pad_y, (b * stride_x - pad_x) * C + j] weights[i, j, o]
struct Product {
  Images x, y;
  Index rows, length;                      // of the weights: i < rows, j < length
  Index stride_y, stride_x, pad_y, pad_x;
  Index top, left, down, across;
  Index height, width;                     // a < height, b < width
  int vectors;                             // of a block
  std::vector<float> weights;              // (blocks, rows, length, channels of a block)
};

// Arranges the weights w(i, j, o) in blocks of channels, with zeros if the last block is not full.
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

// Computes rows [first, last) of one image's product.
inline void compute_rows(const Product& p, const float* x, float* y, Index first, Index last) {
  const Index c = p.x.channels, pixels = p.vectors == 1 ? (p.width > kPixels ? kLong : kPixels) : kPixels;
  const Index tiled = round_up(p.width, pixels);
  const Index width = (tiled - 1) * p.stride_x + (p.length + c - 1) / c;
  // A product without rows (stride longer than the kernel) reads nothing. Its pointers remain within the copy.
  const Index rows = (last - first - 1) * p.stride_y + std::max<Index>(1, p.rows);
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

// Computes products of the same images, which together fill y.
inline void compute(ffi::ThreadPool pool, const std::vector<Product>& products, const float* x, float* y) {
  const Images &in = products[0].x, &out = products[0].y;
  Index height = 1;
  for (const Product& p : products) height = std::max(height, p.height);
  const Index bytes = in.image() * static_cast<Index>(sizeof(float));
  const Index bands = std::min(height, std::max(round_up(bytes, kCache) / kCache, kTasks / in.count));
  in_parallel(pool, in.count * bands, [&](Index task) {
    const Index n = task / bands, band = task % bands;
    for (const Product& p : products) {
      const Index first = band * p.height / bands, last = (band + 1) * p.height / bands;
      if (first < last && p.width > 0)
        compute_rows(p, x + n * in.image(), y + n * out.image(), first, last);
    }
  });
}

inline void forward(ffi::ThreadPool pool, const Convolution& conv, const float* x, const float* kernel, float* y) {
  std::vector<Product> products(1);
  Product& p = products[0];
  p.x = conv.x, p.y = conv.y;
  p.rows = conv.height, p.length = conv.width * conv.x.channels;
  p.stride_y = conv.stride_y, p.stride_x = conv.stride_x, p.pad_y = conv.pad_y, p.pad_x = conv.pad_x;
  p.top = p.left = 0, p.down = p.across = 1;
  p.height = conv.y.height, p.width = conv.y.width;
  pack(p, [&](Index i, Index j, Index o) { return kernel[(i * p.length + j) * conv.y.channels + o]; });
  compute(pool, products, x, y);
}

// dx[s * a + r - p] = the sum over i of g[a - i] w[s * i + r]: one convolution for each position r in a stride.
inline void input_gradient(ffi::ThreadPool pool, const Convolution& conv, const float* g, const float* kernel,
                           float* dx) {
  const Index ci = conv.x.channels, co = conv.y.channels, sy = conv.stride_y, sx = conv.stride_x;
  std::vector<Product> products;
  for (Index ry = 0; ry < sy; ++ry)
    for (Index rx = 0; rx < sx; ++rx) {
      Product p;
      p.x = conv.y, p.y = conv.x;
      const Index taps_y = conv.height > ry ? (conv.height - ry + sy - 1) / sy : 0;
      const Index taps_x = conv.width > rx ? (conv.width - rx + sx - 1) / sx : 0;
      p.rows = taps_x ? taps_y : 0, p.length = taps_x * co;
      p.stride_y = p.stride_x = 1;
      // The first a for which s * a + r - p is not negative, and the number of values of a up to the end.
      const Index ay = conv.pad_y > ry ? (conv.pad_y - ry + sy - 1) / sy : 0;
      const Index ax = conv.pad_x > rx ? (conv.pad_x - rx + sx - 1) / sx : 0;
      p.top = sy * ay + ry - conv.pad_y, p.left = sx * ax + rx - conv.pad_x, p.down = sy, p.across = sx;
      p.height = p.top < p.y.height ? (p.y.height - p.top + sy - 1) / sy : 0;
      p.width = p.left < p.y.width ? (p.y.width - p.left + sx - 1) / sx : 0;
      // The last tap meets the first row of the window.
      p.pad_y = taps_y - 1 - ay, p.pad_x = taps_x - 1 - ax;
      pack(p, [&](Index i, Index j, Index c) {
        const Index row = sy * (taps_y - 1 - i) + ry, column = sx * (taps_x - 1 - j / co) + rx;
        return kernel[((row * conv.width + column) * ci + c) * co + j % co];
      });
      products.push_back(std::move(p));
    }
  compute(pool, products, g, dx);
}

inline void kernel_gradient(ffi::ThreadPool pool, const Convolution& conv, const float* x, const float* g,
                            float* dkernel) {
  const Images &in = conv.x, &out = conv.y;
  const Index length = conv.width * in.channels, co = out.channels;
  const int vectors = co > kLanes ? 2 : 1;
  const Index places = vectors == 2 ? kPixels : kLong;
  const Index lanes = round_up(co, vectors * kLanes), lines = round_up(length, places);
  const auto add = vectors == 2 ? add_products<kPixels, 2> : add_products<kLong, 1>;
  const Index size = conv.height * lines * lanes, slices = slices_of(in.count, size);
  Zeros sums_of_slices(slices * size);
  float* partial = sums_of_slices.data();
  const Index width = (out.width - 1) * conv.stride_x + conv.width, row_size = width * in.channels;
  const Index band = std::max<Index>(1, kCache / (row_size * conv.stride_y * static_cast<Index>(sizeof(float))));
  in_parallel(pool, slices, [&](Index slice) {
    float* sums = partial + slice * size;
    for (Index n = slice * in.count / slices; n < (slice + 1) * in.count / slices; ++n)
      for (Index first = 0; first < out.height; first += band) {
        const Index height = std::min(band, out.height - first), rows = (height - 1) * conv.stride_y + conv.height;
        const Index padded_size = rows * row_size + lines, pixels = height * out.width;
        float* padded = scratch(padded_size + pixels * lanes);
        copy_padded(x + n * in.image(), in, first * conv.stride_y - conv.pad_y, rows, width, conv.pad_x, padded);
        std::fill_n(padded + rows * row_size, lines, 0.0f);
        const float* gradient = g + n * out.image() + first * out.row();
        if (lanes != co) {  // add zeros to channels that do not fill a vector
          float* filled = padded + padded_size;
          for (Index pixel = 0; pixel < pixels; ++pixel) {
            std::memcpy(filled + pixel * lanes, gradient + pixel * co, co * sizeof(float));
            std::fill_n(filled + pixel * lanes + co, lanes - co, 0.0f);
          }
          gradient = filled;
        }
        for (Index i = 0; i < conv.height; ++i)
          for (Index at = 0; at < lines; at += places)
            for (Index o = 0; o < lanes; o += vectors * kLanes)
              add(padded + i * row_size + at, conv.stride_y * row_size, conv.stride_x * in.channels, gradient + o,
                  lanes, height, out.width, sums + (i * lines + at) * lanes + o, lanes);
      }
  });
  for (Index i = 0; i < conv.height; ++i)
    for (Index j = 0; j < length; ++j) {
      float* to = dkernel + (i * length + j) * co;
      std::fill_n(to, co, 0.0f);
      for (Index slice = 0; slice < slices; ++slice) {
        const float* from = partial + slice * size + (i * lines + j) * lanes;
        for (Index o = 0; o < co; ++o) to[o] += from[o];
      }
    }
}

}  // namespace jaxnorm::direct
