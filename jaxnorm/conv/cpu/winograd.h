// 3x3 convolutions of stride 1 with 16 multiplications for four outputs, where the sum takes 36: F(2x2, 3x3) of Lavin
// and Gray, "Fast algorithms for convolutional neural networks" (2016, arXiv 1509.09308).
//
//   y = A' [(G w G') * (B' d B)] A,  for each tile of 2x2 outputs y and the 4x4 inputs d under it
//
// The products at each of the 16 places are matrix products over channels. The gradients are those of this formula. By
// x it is the same with the kernel rotated by 180 degrees; by w it is G' [sum over tiles of (B' d B) * (A g A')] G. All
// transforms are additions and halvings, which lose little: on random numbers the errors are 0.6 to 1.7 times those of
// the direct sum, which is longer. But they are relative to the largest input times the largest weight of an output.
// The errors of the direct sum are relative to its own terms.

#pragma once

#include "vectors.h"

namespace jaxnorm::winograd {

constexpr Index kPlaces = 16;
constexpr Index kTiles = 64;  // about this many at a time, so that their transforms are in the cache

inline bool fits(const Convolution& conv) {
  return conv.height == 3 && conv.width == 3 && conv.stride_y == 1 && conv.stride_x == 1 &&
         conv.x.channels % kLanes == 0 && conv.y.channels % kLanes == 0;
}

// Numbers from one place to the next. With a power of two, all places would share a few lines of the cache.
inline Index plane_size(Index tiles, Index channels) { return tiles * channels + kLanes; }

// Writes B' d B of all tiles in `down` rows of `across`, from the padded image, to[place][tile][channel].
inline void transform_inputs(const float* padded, Index channels, Index down, Index across, float* to) {
  const Index row = (2 * across + 2) * channels, plane = plane_size(down * across, channels);
  for (Index a = 0; a < down; ++a)
    for (Index b = 0; b < across; ++b)
      for (Index c = 0; c < channels; c += kLanes) {
        const float* d = padded + 2 * a * row + 2 * b * channels + c;
        Vector t[4][4];
        for (int j = 0; j < 4; ++j) {
          const Vector d0 = load(d + j * channels), d1 = load(d + row + j * channels),
                       d2 = load(d + 2 * row + j * channels), d3 = load(d + 3 * row + j * channels);
          t[0][j] = d0 - d2, t[1][j] = d1 + d2, t[2][j] = d2 - d1, t[3][j] = d1 - d3;
        }
        float* u = to + (a * across + b) * channels + c;
        for (int i = 0; i < 4; ++i) {
          store(u + (4 * i) * plane, t[i][0] - t[i][2]);
          store(u + (4 * i + 1) * plane, t[i][1] + t[i][2]);
          store(u + (4 * i + 2) * plane, t[i][2] - t[i][1]);
          store(u + (4 * i + 3) * plane, t[i][1] - t[i][3]);
        }
      }
}

// Writes A g A' of all tiles in `down` rows of `across`, from the rows of g, to[place][tile][channel].
inline void transform_gradients(const float* g, const Images& shape, Index rows, Index down, Index across, float* to) {
  const Index channels = shape.channels, plane = plane_size(down * across, channels);
  for (Index a = 0; a < down; ++a)
    for (Index b = 0; b < across; ++b)
      for (Index c = 0; c < channels; c += kLanes) {
        Vector d[2][2] = {}, t[4][2];
        for (int i = 0; i < 2 && 2 * a + i < rows; ++i)
          for (int j = 0; j < 2 && 2 * b + j < shape.width; ++j)
            d[i][j] = load(g + (2 * a + i) * shape.row() + (2 * b + j) * channels + c);
        for (int j = 0; j < 2; ++j)
          t[0][j] = d[0][j], t[1][j] = d[0][j] + d[1][j], t[2][j] = d[0][j] - d[1][j], t[3][j] = -d[1][j];
        float* u = to + (a * across + b) * channels + c;
        for (int i = 0; i < 4; ++i) {
          store(u + (4 * i) * plane, t[i][0]);
          store(u + (4 * i + 1) * plane, t[i][0] + t[i][1]);
          store(u + (4 * i + 2) * plane, t[i][0] - t[i][1]);
          store(u + (4 * i + 3) * plane, -t[i][1]);
        }
      }
}

// Writes y = A' m A of all tiles in `down` rows of `across`, from m[place][tile][channel]: `rows` rows, all columns.
inline void transform_outputs(const float* m, const Images& shape, Index rows, Index down, Index across, float* y) {
  const Index channels = shape.channels, plane = plane_size(down * across, channels);
  for (Index a = 0; a < down; ++a)
    for (Index b = 0; b < across; ++b)
      for (Index c = 0; c < channels; c += kLanes) {
        const float* from = m + (a * across + b) * channels + c;
        Vector t[2][4];
        for (int j = 0; j < 4; ++j) {
          const Vector m0 = load(from + j * plane), m1 = load(from + (4 + j) * plane),
                       m2 = load(from + (8 + j) * plane), m3 = load(from + (12 + j) * plane);
          t[0][j] = m0 + m1 + m2, t[1][j] = m1 - m2 - m3;
        }
        for (int i = 0; i < 2 && 2 * a + i < rows; ++i) {
          float* to = y + (2 * a + i) * shape.row() + 2 * b * channels + c;
          store(to, t[i][0] + t[i][1] + t[i][2]);
          if (2 * b + 1 < shape.width) store(to + channels, t[i][1] - t[i][2] - t[i][3]);
        }
      }
}

// G w G' in blocks of output channels, [block][place][c][o in block]. w(i, j, c, o) is a vector of weights from o.
template <typename Weight>
std::vector<float> transform_weights(ffi::ThreadPool pool, Index inputs, Index outputs, Index block, const Weight& w) {
  std::vector<float> weights(kPlaces * inputs * round_up(outputs, block));
  const Index plane = inputs * block;
  in_parallel(pool, std::min<Index>(inputs, kTasks), [&](Index task) {
    for (Index c = task; c < inputs; c += kTasks)
      for (Index o = 0; o < outputs; o += kLanes) {
        Vector t[4][3];
        for (int j = 0; j < 3; ++j) {
          const Vector w0 = w(0, j, c, o), w1 = w(1, j, c, o), w2 = w(2, j, c, o);
          const Vector even = 0.5f * (w0 + w2), odd = 0.5f * w1;
          t[0][j] = w0, t[1][j] = even + odd, t[2][j] = even - odd, t[3][j] = w2;
        }
        float* to = weights.data() + o / block * kPlaces * plane + c * block + o % block;
        for (int i = 0; i < 4; ++i) {
          const Vector even = 0.5f * (t[i][0] + t[i][2]), odd = 0.5f * t[i][1];
          store(to + (4 * i) * plane, t[i][0]);
          store(to + (4 * i + 1) * plane, even + odd);
          store(to + (4 * i + 2) * plane, even - odd);
          store(to + (4 * i + 3) * plane, t[i][2]);
        }
      }
  });
  return weights;
}

// The convolution of x with transformed weights, in blocks of `vectors` vectors.
inline void convolve(ffi::ThreadPool pool, const Images& in, const Images& out, Index pad_y, Index pad_x,
                     const std::vector<float>& weights, int vectors, const float* x, float* y) {
  const Index across = (out.width + 1) / 2, all = (out.height + 1) / 2, block = vectors * kLanes;
  const Index most = std::min(all, std::max<Index>(1, kTiles / across));  // rows of tiles at a time
  const Index bands = std::min((all + most - 1) / most, std::max<Index>(1, kTasks / in.count));
  const Index width = 2 * across + 2, pixels = vectors == 2 ? kPixels : kLong;
  const Tile product = vectors == 2 ? tile_for<kPixels, 2>(in.channels) : tile_for<kLong, 1>(in.channels);
  in_parallel(pool, in.count * bands, [&](Index task) {
    const Index n = task / bands, band = task % bands, end = (band + 1) * all / bands;
    for (Index first = band * all / bands; first < end; first += most) {
      const Index down = std::min(most, end - first), tiles = down * across, rows = 2 * down + 2;
      const Index padded_size = rows * width * in.channels;
      const Index plane = plane_size(tiles, in.channels), result = plane_size(tiles, out.channels);
      // A product reads up to its length beyond the last tile. It does not store these results.
      float* padded = scratch(padded_size + kPlaces * (plane + result) + pixels * in.channels);
      float* transformed = padded + padded_size;
      float* products = transformed + kPlaces * plane + pixels * in.channels;
      copy_padded(x + n * in.image(), in, 2 * first - pad_y, rows, width, pad_x, padded);
      transform_inputs(padded, in.channels, down, across, transformed);
      for (Index place = 0; place < kPlaces; ++place)
        for (Index o = 0; o < out.channels; o += block) {
          const float* w = weights.data() + (o / block * kPlaces + place) * in.channels * block;
          float* to = products + place * result + o;
          for (Index at = 0; at < tiles; at += pixels)
            product(transformed + place * plane + at * in.channels, 0, in.channels, 1, in.channels, w,
                    to + at * out.channels, out.channels, tiles - at, out.channels - o);
        }
      transform_outputs(products, out, out.height - 2 * first, down, across, y + n * out.image() + 2 * first * out.row());
    }
  });
}

inline void forward(ffi::ThreadPool pool, const Convolution& conv, const float* x, const float* kernel, float* y) {
  const Index ci = conv.x.channels, co = conv.y.channels;
  const int vectors = co > kLanes ? 2 : 1;
  const auto weights = transform_weights(pool, ci, co, vectors * kLanes, [&](int i, int j, Index c, Index o) {
    return load(kernel + ((i * 3 + j) * ci + c) * co + o);
  });
  convolve(pool, conv.x, conv.y, conv.pad_y, conv.pad_x, weights, vectors, x, y);
}

inline void input_gradient(ffi::ThreadPool pool, const Convolution& conv, const float* g, const float* kernel,
                           float* dx) {
  const Index ci = conv.x.channels, co = conv.y.channels;
  const int vectors = ci > kLanes ? 2 : 1;
  const auto weights = transform_weights(pool, co, ci, vectors * kLanes, [&](int i, int j, Index o, Index c) {
    const float* from = kernel + (((2 - i) * 3 + 2 - j) * ci + c) * co + o;
    Vector weights;
    for (int lane = 0; lane < kLanes; ++lane) weights[lane] = from[lane * co];
    return weights;
  });
  convolve(pool, conv.y, conv.x, 2 - conv.pad_y, 2 - conv.pad_x, weights, vectors, g, dx);
}

inline void kernel_gradient(ffi::ThreadPool pool, const Convolution& conv, const float* x, const float* g,
                            float* dkernel) {
  const Images &in = conv.x, &out = conv.y;
  const Index ci = in.channels, co = out.channels, across = (out.width + 1) / 2, all = (out.height + 1) / 2;
  const int vectors = co > kLanes ? 2 : 1;
  const Index block = vectors * kLanes, places = vectors == 2 ? kPixels : kLong;
  const Index inputs = round_up(ci, places), outputs = round_up(co, block), size = kPlaces * inputs * outputs;
  const auto add = vectors == 2 ? add_products<kPixels, 2> : add_products<kLong, 1>;
  const Index most = std::min(all, std::max<Index>(1, kTiles / across)), width = 2 * across + 2;
  const Index slices = slices_of((in.count + 1) / 2, size);
  Zeros sums_of_slices(slices * size);
  float* partial = sums_of_slices.data();
  in_parallel(pool, slices, [&](Index slice) {
    float* sums = partial + slice * size;
    for (Index n = slice * in.count / slices; n < (slice + 1) * in.count / slices; ++n)
      for (Index first = 0; first < all; first += most) {
        const Index down = std::min(most, all - first), tiles = down * across, rows = 2 * down + 2;
        const Index padded_size = rows * width * ci, x_plane = plane_size(tiles, ci), g_plane = plane_size(tiles, co);
        float* padded = scratch(padded_size + kPlaces * (x_plane + g_plane) + inputs + outputs);
        float *from_x = padded + padded_size, *from_g = from_x + kPlaces * x_plane + inputs;
        copy_padded(x + n * in.image(), in, 2 * first - conv.pad_y, rows, width, conv.pad_x, padded);
        transform_inputs(padded, ci, down, across, from_x);
        transform_gradients(g + n * out.image() + 2 * first * out.row(), out, out.height - 2 * first, down, across,
                            from_g);
        for (Index place = 0; place < kPlaces; ++place)
          for (Index c = 0; c < ci; c += places)
            for (Index o = 0; o < co; o += block)
              add(from_x + place * x_plane + c, 0, ci, from_g + place * g_plane + o, co, 1, tiles,
                  sums + (place * inputs + c) * outputs + o, outputs);
      }
  });
  in_parallel(pool, ci, [&](Index c) {
    for (Index o = 0; o < co; o += kLanes) {
      Vector s[4][4] = {}, t[3][4];
      for (Index slice = 0; slice < slices; ++slice)
        for (int place = 0; place < 16; ++place)
          s[place / 4][place % 4] += load(partial + slice * size + (place * inputs + c) * outputs + o);
      for (int j = 0; j < 4; ++j) {
        const Vector sum = 0.5f * (s[1][j] + s[2][j]);
        t[0][j] = s[0][j] + sum, t[1][j] = 0.5f * (s[1][j] - s[2][j]), t[2][j] = sum + s[3][j];
      }
      for (int i = 0; i < 3; ++i) {
        const Vector sum = 0.5f * (t[i][1] + t[i][2]);
        float* to = dkernel + (3 * i * ci + c) * co + o;
        store(to, t[i][0] + sum);
        store(to + ci * co, 0.5f * (t[i][1] - t[i][2]));
        store(to + 2 * ci * co, sum + t[i][3]);
      }
    }
  });
}

}  // namespace jaxnorm::winograd
