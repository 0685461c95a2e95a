"""Speech-out step: compiled kernels for what a vocoder's training spends its time on. Knows nothing about training.

vocoder_kernels.c computes what `AntiAliasedSnake` and the narrow `Convolution`s of `decoders.audio.unit_bigvgan`
compute; without a C compiler the recipe trains with those classes as they are, several times slower.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.audio.unit_bigvgan import AntiAliasedSnake, Convolution

WIDEST = 16  # channels; beyond, the library's convolution is as fast
SHORTEST = 16  # samples, one tile of the kernel


@functools.cache
def kernel() -> ctypes.CDLL | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, folder = Path(__file__).with_suffix(".c"), Path(tempfile.mkdtemp(prefix="omni-kernels-"))
    part, library = folder / "kernels.o", folder / "kernels.so"
    subprocess.run([compiler, "-O3", "-march=native", "-ffast-math", "-fPIC", "-c", source, "-o", part], check=True)
    # Linked apart, without -ffast-math, which would make loading it flush denormals to zero in the whole process.
    subprocess.run([compiler, "-shared", part, "-o", library, "-lm"], check=True)
    return ctypes.CDLL(str(library))


def pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def longs(*values: int) -> list[ctypes.c_long]:
    return [ctypes.c_long(value) for value in values]


def sizes(x: Tensor) -> list[ctypes.c_long]:
    return longs(x.shape[0] * x.shape[1], x.shape[1], x.shape[2])


class FusedSnake(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> Tensor:
        x, alpha, inverse_beta, taps = (value.contiguous() for value in (x, alpha, inverse_beta, taps))
        ctx.save_for_backward(x, alpha, inverse_beta, taps)
        y, scratch = torch.empty_like(x), x.new_empty(8 * (x.shape[-1] + 16))
        kernel().snake_forward(*pointers(x, alpha, inverse_beta, taps, y, scratch), *sizes(x))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, inverse_beta, taps = ctx.saved_tensors
        d_x, scratch = torch.empty_like(x), x.new_empty(8 * (x.shape[-1] + 16))
        d_alpha, d_inverse = torch.zeros_like(alpha), torch.zeros_like(alpha)
        gradient = gradient.contiguous()
        arguments = pointers(x, gradient, alpha, inverse_beta, taps, d_x, d_alpha, d_inverse, scratch)
        kernel().snake_backward(*arguments, *sizes(x))
        return d_x, d_alpha, d_inverse, None


def fused(layer: AntiAliasedSnake, x: Tensor) -> Tensor:  # [batch, channels, time] -> the same
    alpha, beta = layer.act.alpha, layer.act.beta
    if layer.act.logscale:
        alpha, beta = alpha.exp(), beta.exp()
    return FusedSnake.apply(x.float(), alpha, (beta + 1e-9).reciprocal(), layer.upsample.filter.view(-1))


class NarrowConvolution(torch.autograd.Function):
    """Zero-padded, of equal length, channels a multiple of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return convolve(x, weight.permute(2, 1, 0).contiguous(), bias, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient, kernel_size = gradient.contiguous(), weight.shape[2]
        back = weight.flip(2).permute(2, 0, 1).contiguous()  # [kernel, outputs, inputs]
        d_x = convolve(gradient, back, x.new_zeros(x.shape[1]), ctx.dilation)
        reach = (kernel_size - 1) * ctx.dilation // 2
        padded = functional.pad(x, (reach, reach))
        d_weight = x.new_zeros(kernel_size, x.shape[1], gradient.shape[1])
        shape = longs(x.shape[1], gradient.shape[1], kernel_size, ctx.dilation, padded.shape[2], x.shape[2])
        for one, one_gradient in zip(padded, gradient, strict=True):
            kernel().convolve_weight_gradient(*pointers(one, one_gradient, d_weight), *shape)
        return d_x, d_weight.permute(2, 1, 0), gradient.sum(dim=(0, 2)), None


def convolve(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """[batch, inputs, time], [kernel, inputs, outputs] -> [batch, outputs, time]"""
    reach = (weight.shape[0] - 1) * dilation // 2
    padded = functional.pad(x, (reach, reach))
    y = x.new_empty(x.shape[0], weight.shape[2], x.shape[2])
    shape = longs(x.shape[1], weight.shape[2], weight.shape[0], dilation, padded.shape[2], x.shape[2])
    for one, made in zip(padded, y, strict=True):
        kernel().convolve(*pointers(one, weight, bias, made), *shape)
    return y


def narrow(layer: Convolution, x: Tensor) -> Tensor:
    if x.shape[2] < SHORTEST:
        return layer.conv(x)
    return NarrowConvolution.apply(x.float(), layer.conv.weight, layer.conv.bias, layer.conv.dilation[0])


def is_narrow(layer: nn.Module) -> bool:
    if not isinstance(layer, Convolution) or layer.before != layer.after or layer.conv.bias is None:
        return False
    inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
    return max(inputs, outputs) <= WIDEST and inputs % 4 == outputs % 4 == 0


def quicken(network: nn.Module) -> nn.Module:
    """Lets the layers of the network that have a kernel run on it, if there is a compiler."""
    if kernel() is not None:
        for layer in network.modules():
            if isinstance(layer, AntiAliasedSnake):
                layer.forward = functools.partial(fused, layer)
            elif is_narrow(layer):
                layer.forward = functools.partial(narrow, layer)
    return network
