"""Faster forms of layers on a CPU; same parameters, same results but for rounding.

What is faster was measured over shapes (section `layers` of the benchmark, docs/performance.md).
It is decided by shapes alone, never by a clock, so that a training takes the same way every time.

Shapes: B batch, I and O channels in and out, C channels of a depthwise convolution, h × w and
h' × w' the maps in and out.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

MAX_LINEAR_PIXELS = 16
"""Up to so many pixels, h · w, a 1×1 convolution is computed as a matrix product."""

MAX_GRAM_PRODUCTS = {3: 36, 5: 4096, 7: 4096}
"""By the side of a kernel, the largest h · w · h' · w' up to which a depthwise convolution has its
weight gradient by the Gram product. A side between two takes the smaller's, a larger the last."""

MIN_GRAM_BATCH = 16
"""Below this batch the Gram product's many small calls cost more than they save."""

_COPYING_ACTIVATIONS = (nn.Hardswish, nn.SiLU, nn.Mish)
"""Their gradient needs their input: autograd copies it before it is overwritten in place."""

_Pair = tuple[int, ...]  # of the map's two directions


class SmallMapConv2d(nn.Conv2d):
    """A convolution that knows shorter ways where the map is small.

    On a single pixel all but the middle of the kernel meets the padding: what is left is a matrix
    product, or with one channel a group an elementwise one. On a map of few pixels a dense 1×1
    convolution is a matrix product too, and a depthwise one has its weight gradient by
    `depthwise_conv2d`. There the CPU's own kernels cost several times their arithmetic.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, O, h', w') for an input of (B, I, h, w)."""
        num_pixels = input.shape[2] * input.shape[3]
        if num_pixels == 1:
            return self._convolve_single_pixels(input)
        if input.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            if self._is_pointwise and num_pixels <= MAX_LINEAR_PIXELS:
                pixels = input.permute(0, 2, 3, 1)
                return F.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
            if self.takes_gram(input):
                return depthwise_conv2d(
                    input, self.weight, self.bias, stride=self.stride, padding=self._padding
                )
        return super().forward(input)

    @property
    def _padding(self) -> _Pair:
        return self.kernel_size[0] // 2, self.kernel_size[1] // 2

    @property
    def _is_pointwise(self) -> bool:
        return self.groups == 1 and self.kernel_size == self.stride == (1, 1)

    def takes_gram(self, input: Tensor) -> bool:
        """Return whether a weight gradient will be wanted that a Gram product gives faster."""
        if self.groups == 1 or not self.weight.requires_grad or not torch.is_grad_enabled():
            return False
        if input.dtype != torch.float32 or len(input) < MIN_GRAM_BATCH:
            return False
        (height, width), (down, right) = input.shape[2:], self.stride
        product = height * width * -(-height // down) * -(-width // right)
        sides = [side for side in MAX_GRAM_PRODUCTS if side <= max(self.kernel_size)]
        return bool(sides) and product <= MAX_GRAM_PRODUCTS[max(sides)]

    def _convolve_single_pixels(self, input: Tensor) -> Tensor:
        middle = self.weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2]
        pixels = input.flatten(1)
        if self.groups == 1:
            outputs = F.linear(pixels, middle, self.bias)
        else:
            outputs = pixels * middle[:, 0]
            if self.bias is not None:
                outputs = outputs + self.bias
        return outputs[:, :, None, None]


def use_faster_layers(net: nn.Module) -> None:
    """Change a network's layers to their faster forms where that can be, in place.

    Convolutions become `SmallMapConv2d`: plain ones, dense or depthwise, padded so that a pixel
    gives a pixel. Activations whose input autograd keeps no longer overwrite it. Parameters,
    their names and the modules' identities stay as they are.
    """
    for module in net.modules():
        if isinstance(module, _COPYING_ACTIVATIONS):
            module.inplace = False
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
            continue
        is_depthwise = module.groups == module.in_channels == module.out_channels
        is_centred = all(size % 2 == 1 for size in module.kernel_size) and module.padding == tuple(
            size // 2 for size in module.kernel_size
        )
        if is_centred and module.dilation == (1, 1) and (module.groups == 1 or is_depthwise):
            module.__class__ = SmallMapConv2d


def depthwise_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: _Pair, padding: _Pair
) -> Tensor:
    """Convolve every channel by its own kernel, with the weight gradient by a Gram product.

    With X (C, h·w, B) the input and G (C, h'·w', B) the gradient of the output, X Gᵀ holds for
    every channel the products of each input position with each output position, summed over the
    batch. A constant matrix of zeros and ones adds up those that belong to a tap of the kernel.
    That is more arithmetic than the gradient needs, but all of it in matrix products. The output
    and the other gradients are torch's own. It can be differentiated twice.

    Args:
        input: (B, C, h, w) float32 or float64, best in channels_last memory format.
        weight: (C, 1, k, l).
        bias: (C,) or None.
        stride: down and right.
        padding: zeros above and below, left and right.

    Returns:
        (B, C, h', w').
    """
    output: Tensor = _DepthwiseConv2d.apply(input, weight, bias, stride, padding)
    return output


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(input, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (input, weight) = gradients, ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        input_gradient = weight_gradient = None
        if needs_input:
            input_gradient = conv2d_input(
                input.shape, weight, gradient, stride, padding, groups=len(weight)
            )
        if needs_weight:
            map_size, kernel_size = tuple(input.shape[2:]), tuple(weight.shape[2:])
            # torch.compile looks through a cache, and warns of it.
            make_taps = _taps.__wrapped__ if torch.compiler.is_compiling() else _taps
            taps = make_taps(map_size, kernel_size, stride, padding).to(input)
            weight_gradient = (_gram(input, gradient) @ taps).view_as(weight)
        return (
            input_gradient,
            weight_gradient,
            gradient.sum((0, 2, 3)) if needs_bias else None,
            None,
            None,
        )


def _gram(input: Tensor, gradient: Tensor) -> Tensor:
    """Return (C, h·w·h'·w'): the products of all positions, summed over the batch."""
    # Few samples at a time: one transposition of a whole batch misses the cache at every number.
    size = 16 if input.shape[2] * input.shape[3] <= 16 else 8
    chunks = zip(_split_batch(input, size), _split_batch(gradient, size), strict=True)
    first, second = next(chunks)
    products = torch.bmm(first, second.transpose(1, 2))
    for first, second in chunks:
        products.baddbmm_(first, second.transpose(1, 2))
    return products.flatten(1)


def _split_batch(maps: Tensor, size: int) -> list[Tensor]:
    """Bring maps (B, C, h, w) to chunks of (C, h·w, size), the last one maybe smaller."""
    batch, channels, height, width = maps.shape
    pixels = maps.permute(0, 2, 3, 1).reshape(batch, -1)
    whole = batch - batch % size
    chunks = list(pixels[:whole].unflatten(0, (-1, size)).transpose(1, 2).contiguous())
    if whole < batch:
        chunks.append(pixels[whole:].t().contiguous())
    return [chunk.view(height * width, channels, -1).transpose(0, 1) for chunk in chunks]


@functools.lru_cache(maxsize=64)
def _taps(map_size: _Pair, kernel_size: _Pair, stride: _Pair, padding: _Pair) -> Tensor:
    """Return (h·w·h'·w', k·l): 1 where an input meets an output through a tap of the kernel."""
    num_pixels = map_size[0] * map_size[1]
    pixels = torch.eye(num_pixels).view(num_pixels, 1, *map_size)
    patches = F.unfold(pixels, kernel_size, padding=padding, stride=stride)
    return patches.transpose(1, 2).flatten(0, 1).contiguous()
