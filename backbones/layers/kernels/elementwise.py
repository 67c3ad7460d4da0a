"""Activations and their derivatives inside kernels. Single precision; NaN and infinity as in torch."""

import triton
import triton.language as tl


@triton.jit
def activate(x, slope, ACT: tl.constexpr):
    """Return the activation of ``x``; ``slope`` is that of leaky and prelu below zero."""
    if ACT == "relu":
        x = tl.where(x <= 0, 0.0, x)
    if ACT == "leaky" or ACT == "prelu":
        x = tl.where(x > 0, x, x * slope)
    if ACT == "mish":
        grown = tl.exp(tl.minimum(x, 20.0))
        product = grown * (grown + 2.0)
        x = tl.where(x > 20.0, x, x * (product / (product + 2.0)))
    if ACT == "swish":
        x = x / (1.0 + tl.exp(-x))
    return x


@triton.jit
def differentiate(gradient, x, slope, ACT: tl.constexpr):
    """Return the gradient of the input ``x`` of an activation."""
    if ACT == "relu":
        gradient = tl.where(x <= 0, 0.0, gradient)
    if ACT == "leaky" or ACT == "prelu":
        gradient = tl.where(x > 0, gradient, gradient * slope)
    if ACT == "mish":
        grown = tl.exp(tl.minimum(x, 20.0))
        product = grown * (grown + 2.0)
        tanh = product / (product + 2.0)
        inner = tanh + x * (1.0 - tanh * tanh) * (grown / (1.0 + grown))
        gradient = gradient * tl.where(x > 20.0, 1.0 + 0.0 * x, inner)  # NaN at infinity, as torch
    if ACT == "swish":
        gate = 1.0 / (1.0 + tl.exp(-x))
        gradient = gradient * gate * (1.0 + x * (1.0 - gate))
    return gradient
