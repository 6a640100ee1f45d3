"""Log sum exp of Q over sampled actions, the costly part of conservative Q-learning, with its gradients by hand.

Thousands of actions pass both critics in every update. They are taken through forward and backward pass a few rows at a
time, so that what one product writes is still in the cache when the next reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gridray.algorithms.products import dense, product

if TYPE_CHECKING:
    from collections.abc import Sequence

# Hidden states of so many float32 per layer, forward and backward, stay in a second-level cache of 1 to 2 MB.
_CACHED_VALUES = 480 * 256


def mean_log_sum_exp(
    kernels: Sequence[Tensor], biases: Sequence[Tensor], rows: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Return log sum exp(Q - log density) over S actions per row, as mean over rows and sum over both critics.

    Args:
        kernels: of a `TwinCritic` without layer normalisation; they and the biases alone get gradients.
        biases: likewise.
        rows: observations [n, observation_size], actions [n, S, action_size], and logs of the densities that the
            actions were drawn from [n, S].
    """
    total: Tensor = _MeanLogSumExp.apply(*rows, *kernels, *biases)  # type: ignore[no-untyped-call]
    return total


class _MeanLogSumExp(torch.autograd.Function):
    """The gradients are known with the value: they are made in the forward pass and only scaled in the backward one."""

    @staticmethod
    def forward(ctx: Any, observations: Tensor, actions: Tensor, densities: Tensor, *weights: Tensor) -> Tensor:  # noqa: ANN401
        """Return the sum of the parts, and keep the sum of their gradients."""
        num_layers = len(weights) // 2
        gradients = [torch.zeros_like(weight) for weight in weights]
        total = observations.new_zeros(())
        widest = max(kernel.shape[2] for kernel in weights[:num_layers])
        num_rows = max(1, _CACHED_VALUES // (actions.shape[1] * widest))
        for critic in range(2):
            own = [weight[critic] for weight in weights]
            into = [gradient[critic] for gradient in gradients]
            parts = zip(*(torch.split(part, num_rows) for part in (observations, actions, densities)), strict=True)
            for part in parts:
                total += _add_part(part, len(observations), own, into, num_layers)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the kept gradients, scaled."""
        return (None, None, None, *(part * gradient for part in ctx.saved_tensors))


def _add_part(
    part: tuple[Tensor, ...], num_all: int, weights: list[Tensor], gradients: list[Tensor], num_layers: int
) -> Tensor:
    """Return one critic's value of these rows, over the number of all rows, and add its gradients."""
    observations, actions, densities = part
    kernels, biases = weights[:num_layers], weights[num_layers:]
    num_rows, num_samples, _ = actions.shape
    size, flat = observations.shape[1], actions.flatten(0, 1)
    # The observation's share of the first layer is the same for all actions of a row.
    seen = torch.addmm(biases[0], observations, kernels[0][:size])
    outputs = product(flat, kernels[0][size:]).view(num_rows, num_samples, -1).add_(seen[:, None]).flatten(0, 1)
    hidden = []
    for kernel, bias in zip(kernels[1:], biases[1:], strict=True):
        hidden.append(outputs.clamp_(min=0.0))
        outputs = dense(hidden[-1], kernel, bias[0], is_hidden=False)
    scores = outputs.view(num_rows, num_samples) - densities
    slope = (torch.softmax(scores, dim=1) / num_all).view(-1, 1)
    for index in range(num_layers - 1, 0, -1):
        before = hidden[index - 1]
        gradients[num_layers + index].add_(slope.sum(dim=0))
        gradients[index].add_(product(before.t(), slope))
        slope = torch.ops.aten.threshold_backward(product(slope, kernels[index].t()), before, 0.0)
    gradients[0][size:].add_(product(flat.t(), slope))
    summed = slope.view(num_rows, num_samples, -1).sum(dim=1)
    gradients[0][:size].addmm_(observations.t(), summed)
    gradients[num_layers].add_(summed.sum(dim=0))
    return torch.logsumexp(scores, dim=1).sum() / num_all
