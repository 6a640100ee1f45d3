"""Limits on what one utility, or one unit of its data, can change: clipped updates and clipped gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gridray.errors import FederationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Losses = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

# Gradients of so many units are held at a time.
_UNITS_AT_ONCE = 32


class Clipped(NamedTuple):
    """An update whose norm is at most the limit.

    values: float64 [num_values].
    norm: Euclidean norm before.
    """

    values: NDArray[np.float64]
    norm: float


def clip_update(update: NDArray[np.floating], limit: float) -> Clipped:
    """Scale an update [num_values] down to the limit where its norm is above it.

    Raises:
        FederationError: a value is not finite.
    """
    values = np.asarray(update, dtype=np.float64)
    norm = float(np.linalg.norm(values))
    if not np.isfinite(norm):
        raise FederationError("The update has values that are NaN or infinite: lower learning_rate, or check the data")
    if norm <= limit:
        return Clipped(values, norm)
    # Rounded down, so that the norm of the result is not above the limit by an ulp.
    return Clipped(values * (limit / norm * (1.0 - 1e-12)), norm)


def network_of(name: str) -> str:
    """Return the network that a parameter belongs to: the part of its name before the first dot."""
    return name.partition(".")[0]


def clipped_gradients(
    networks: nn.Module, losses: Losses, batch: Mapping[str, Tensor], clip: float
) -> dict[str, Tensor]:
    """Return the sum over units of each unit's gradient, which has norm clip at most.

    Every network has an equal part of the clip, clip / sqrt(number of networks), so that the large gradients of critics
    do not drown the actor's. The whole of a unit's gradient is clipped, however many rows it has.

    Args:
        networks: holds the parameters; those that require no gradient are left out.
        losses: batch of one unit -> named scalar losses of which the sum is minimised; uses `networks`.
        batch: column -> [num_units, rows_per_unit, ...]; num_units may be 0.
        clip: largest norm of one unit's gradient over all parameters.
    """
    module = _Losses(networks, losses)
    parameters = {name: tensor.detach() for name, tensor in networks.named_parameters() if tensor.requires_grad}
    frozen: dict[str, Tensor] = {
        name: tensor for name, tensor in networks.named_parameters() if not tensor.requires_grad
    }
    frozen |= dict(networks.named_buffers())

    def loss(trained: Mapping[str, Tensor], unit: Mapping[str, Tensor]) -> Tensor:
        state = {f"networks.{name}": tensor for name, tensor in (frozen | dict(trained)).items()}
        total: Tensor = functional_call(module, state, (unit,))
        return total

    per_unit = vmap(grad(loss), in_dims=(None, 0), randomness="different")
    limit = clip / np.sqrt(len({network_of(name) for name in parameters}))
    total = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    num_units = len(next(iter(batch.values())))
    for start in range(0, num_units, _UNITS_AT_ONCE):
        part = {name: column[start : start + _UNITS_AT_ONCE] for name, column in batch.items()}
        gradients = per_unit(parameters, part)
        for name, factor in _factors(gradients, limit).items():
            total[name] += torch.tensordot(factor, gradients[name], dims=1)
    return total


class _Losses(nn.Module):
    """Gives losses the form of a module, so that their parameters can be replaced."""

    def __init__(self, networks: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.networks = networks
        self._losses = losses

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses of one unit."""
        return torch.stack(list(self._losses(batch).values())).sum()


def _factors(gradients: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """Return, by parameter, the factor [num_units] that brings each network's gradient of a unit down to the limit."""
    squares: dict[str, Tensor] = {}
    for name, gradient in gradients.items():
        square = gradient.flatten(1).square().sum(dim=1)
        squares[network_of(name)] = squares.get(network_of(name), torch.zeros_like(square)) + square
    by_network = {
        network: (limit / square.sqrt().clamp_min(1e-30)).clamp_max(1.0) for network, square in squares.items()
    }
    return {name: by_network[network_of(name)] for name in gradients}
