"""Dense layers whose matrix products are oneDNN's where that pays.

PyTorch multiplies float32 matrices by MKL, which leaves half of the vector units of AMD's processors idle; oneDNN,
which PyTorch has for convolutions and compiled models, does not. The two differ by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap

# oneDNN's fixed cost of some 12 microseconds pays above so many multiplications.
_ONEDNN_ABOVE = 2**19


def dense(inputs: Tensor, kernel: Tensor, bias: Tensor, *, is_hidden: bool) -> Tensor:
    """Return a layer's outputs inputs @ kernel + bias, [n, outputs], where it is a hidden one after a ReLU.

    Args:
        inputs: float32 [n, inputs].
        kernel: float32 [inputs, outputs].
        bias: float32 [outputs].
        is_hidden: whether the layer is a hidden one.
    """
    # The transforms of torch.func, vmap and grad, know nothing of oneDNN's products.
    is_transformed = any(debug_unwrap(tensor, recurse=False) is not tensor for tensor in (inputs, kernel))
    if is_transformed or not _pays(inputs, kernel):
        outputs = torch.addmm(bias, inputs, kernel)
        return torch.relu_(outputs) if is_hidden else outputs
    result: Tensor = _Dense.apply(inputs, kernel, bias, is_hidden)  # type: ignore[no-untyped-call]
    return result


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right of two float32 matrices, outside of the transforms of torch.func."""
    return _onednn_product(left, right) if _pays(left, right) else torch.mm(left, right)


class _Dense(torch.autograd.Function):
    """A layer whose products are oneDNN's, forward and backward."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kernel: Tensor, bias: Tensor, is_hidden: bool) -> Tensor:  # noqa: ANN401, FBT001  # apply takes no keywords
        """Return the outputs."""
        outputs = _onednn_product(inputs, kernel, bias, "relu" if is_hidden else "none")
        ctx.save_for_backward(inputs, kernel, outputs if is_hidden else None)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of inputs, kernel and bias."""
        inputs, kernel, outputs = ctx.saved_tensors
        slope = gradient if outputs is None else torch.ops.aten.threshold_backward(gradient, outputs, 0.0)
        of_inputs, of_kernel, of_bias, _ = ctx.needs_input_grad
        return (
            product(slope, kernel.t()) if of_inputs else None,
            _kernel_gradient(inputs, slope, kernel) if of_kernel else None,
            slope.sum(dim=0) if of_bias else None,
            None,
        )


def _kernel_gradient(inputs: Tensor, slope: Tensor, kernel: Tensor) -> Tensor:
    """Return the gradient in the kernel's own layout, so that nobody copies it."""
    return product(inputs.t(), slope) if kernel.is_contiguous() else product(slope.t(), inputs).t()


def _pays(left: Tensor, right: Tensor) -> bool:
    is_large = len(left) * right.numel() > _ONEDNN_ABOVE
    return is_large and left.device.type == "cpu" and _HAS_ONEDNN and bool(torch.backends.mkldnn.enabled)


def _onednn_product(left: Tensor, right: Tensor, bias: Tensor | None = None, after: str = "none") -> Tensor:
    # PyTorch has no other name for it; its compiled models call it too.
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.t(), bias, after, [], "")  # noqa: SLF001
    return result


_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
