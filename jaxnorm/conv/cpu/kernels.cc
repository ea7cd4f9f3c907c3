// Convolutions of float32 images (N, H, W, C) and their gradients, for XLA on CPU.
//
// All results are sums of products that remain in registers until they are complete: a tile of P neighbouring pixels by
// V vectors of channels. In NHWC a row of the kernel meets kernel_width * C contiguous numbers, so that one loop is
// enough for every width. First, a band of an image is copied between zeros. Borders then need no special case, and the
// copy is in the cache. Loops over pixels have fixed lengths; results of a tile beyond the edge are not stored.
//
// Work is divided by images, and by rows if images are few or large, never by the number of threads. Partial sums are
// added in a fixed order. The result therefore depends neither on the number of threads nor on their order.

#include <exception>
#include <string>

#include "direct.h"
#include "winograd.h"

namespace {

using namespace jaxnorm;
using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Buffer>;

template <typename B>
Images images(const B& buffer) {
  auto d = buffer.dimensions();
  return {d[0], d[1], d[2], d[3]};
}

template <typename X, typename K, typename Y>
Convolution convolution(const X& x, const K& kernel, const Y& y, int64_t stride_y, int64_t stride_x, int64_t pad_y,
                        int64_t pad_x) {
  auto k = kernel.dimensions();  // (height, width, in, out)
  return {images(x), images(y), k[0], k[1], stride_y, stride_x, pad_y, pad_x};
}

// Reports lack of memory to XLA as an error. An exception would end the process.
template <typename Run>
ffi::Error guarded(const Run& run) {
  try {
    run();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string("in a convolution: ") + error.what());
  }
  return ffi::Error::Success();
}

ffi::Error forward(ffi::ThreadPool pool, Buffer x, Buffer kernel, Result y, int64_t stride_y, int64_t stride_x,
                   int64_t pad_y, int64_t pad_x, bool exact) {
  const Convolution conv = convolution(x, kernel, *y, stride_y, stride_x, pad_y, pad_x);
  const auto run = !exact && winograd::fits(conv) ? winograd::forward : direct::forward;
  return guarded([&] { run(pool, conv, x.typed_data(), kernel.typed_data(), y->typed_data()); });
}

ffi::Error input_gradient(ffi::ThreadPool pool, Buffer g, Buffer kernel, Result dx, int64_t stride_y, int64_t stride_x,
                          int64_t pad_y, int64_t pad_x, bool exact) {
  const Convolution conv = convolution(*dx, kernel, g, stride_y, stride_x, pad_y, pad_x);
  const auto run = !exact && winograd::fits(conv) ? winograd::input_gradient : direct::input_gradient;
  return guarded([&] { run(pool, conv, g.typed_data(), kernel.typed_data(), dx->typed_data()); });
}

ffi::Error kernel_gradient(ffi::ThreadPool pool, Buffer x, Buffer g, Result dkernel, int64_t stride_y, int64_t stride_x,
                           int64_t pad_y, int64_t pad_x, bool exact) {
  const Convolution conv = convolution(x, *dkernel, g, stride_y, stride_x, pad_y, pad_x);
  const auto run = !exact && winograd::fits(conv) ? winograd::kernel_gradient : direct::kernel_gradient;
  return guarded([&] { run(pool, conv, x.typed_data(), g.typed_data(), dkernel->typed_data()); });
}

}  // namespace

#define HANDLER(name, function)                                \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, function,                \
                                ffi::Ffi::Bind()               \
                                    .Ctx<ffi::ThreadPool>()    \
                                    .Arg<Buffer>()             \
                                    .Arg<Buffer>()             \
                                    .Ret<Buffer>()             \
                                    .Attr<int64_t>("stride_y") \
                                    .Attr<int64_t>("stride_x") \
                                    .Attr<int64_t>("pad_y")    \
                                    .Attr<int64_t>("pad_x")    \
                                    .Attr<bool>("exact"))

HANDLER(jaxnorm_conv_forward, forward);
HANDLER(jaxnorm_conv_input_gradient, input_gradient);
HANDLER(jaxnorm_conv_kernel_gradient, kernel_gradient);
