"""Layers by oneDNN give what plain ones give, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from gridray.algorithms.products import _ONEDNN_ABOVE, _pays, dense, product


def layer(num_rows: int, num_inputs: int, num_outputs: int, *, is_transposed: bool = False) -> tuple[Tensor, ...]:
    """Return inputs, kernel and bias; the kernel as `nn.Linear` stores it, or as `TwinCritic` does."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_rows, num_inputs, generator=generator)
    shape = (num_outputs, num_inputs) if is_transposed else (num_inputs, num_outputs)
    kernel = torch.randn(shape, generator=generator)
    return inputs, kernel.t() if is_transposed else kernel, torch.randn(num_outputs, generator=generator)


@pytest.mark.parametrize("is_hidden", [True, False])
@pytest.mark.parametrize("is_transposed", [True, False])
def test_outputs_and_gradients_are_those_of_float64(*, is_hidden: bool, is_transposed: bool) -> None:
    small, large = layer(100, 60, 70, is_transposed=is_transposed), layer(100, 90, 70, is_transposed=is_transposed)
    assert not _pays(*small[:2])
    assert _pays(*large[:2]) == torch.backends.mkldnn.is_available()
    for parts in (small, large):
        own = [part.requires_grad_() for part in parts]
        exact = [part.detach().double().requires_grad_() for part in parts]
        outputs = dense(own[0], own[1], own[2], is_hidden=is_hidden)
        expected = exact[0] @ exact[1] + exact[2]
        expected = expected.clamp(min=0.0) if is_hidden else expected
        np.testing.assert_allclose(outputs.detach(), expected.detach(), atol=1e-4)
        gradients = torch.autograd.grad(outputs.square().sum(), own)
        for found, wanted in zip(gradients, torch.autograd.grad(expected.square().sum(), exact), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_frozen_kernel_passes_gradients_to_the_inputs_alone() -> None:
    inputs, kernel, bias = layer(100, 90, 70)
    (found,) = torch.autograd.grad(dense(inputs.requires_grad_(), kernel, bias, is_hidden=False).sum(), [inputs])
    np.testing.assert_allclose(found, kernel.sum(dim=1).expand(100, -1), atol=1e-4)


def test_gradients_of_units_by_vmap_are_those_of_each_unit() -> None:
    inputs, kernel, bias = layer(200, 90, 70)
    units = inputs.view(2, 100, 90)
    assert len(units[0]) * kernel.numel() > _ONEDNN_ABOVE

    def loss(weight: Tensor, unit: Tensor) -> Tensor:
        return dense(unit, weight, bias, is_hidden=True).sum()

    per_unit = vmap(grad(loss), in_dims=(None, 0))(kernel, units)
    for found, unit in zip(per_unit, units, strict=True):
        weight = kernel.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(loss(weight, unit), weight)
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_onednn_is_left_out_where_pytorch_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right, _ = layer(100, 90, 70)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not _pays(left, right)


def test_product_is_the_product() -> None:
    left, right, _ = layer(100, 90, 70)
    np.testing.assert_allclose(product(left, right), left.double() @ right.double(), atol=1e-4)
