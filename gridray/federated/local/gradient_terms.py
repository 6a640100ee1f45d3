"""Terms that clients add to their gradients: FedProx's pull and SCAFFOLD's correction."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from gridray.federated.aggregators.grouped import group_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Parameter

    from gridray.algorithms.base import GradientTerm
    from gridray.federated.updates import Weights


def proximal_term(anchor: Weights, strengths: Mapping[str, float]) -> GradientTerm:
    """Return FedProx's term: the gradient of strength / 2 * |weight - anchor|^2, by network group.

    Li et al., "Federated optimization in heterogeneous networks", MLSys 2020. Weights of no group are free.
    """
    groups: defaultdict[float, list[str]] = defaultdict(list)
    for name in anchor:
        if strength := strengths.get(group_of(name, strengths), 0.0):
            groups[strength].append(name)
    tensors = {name: torch.tensor(anchor[name]) for names in groups.values() for name in names}

    def apply(parameters: Mapping[str, Parameter]) -> None:
        for strength, names in groups.items():
            found = [name for name in names if name in parameters and parameters[name].grad is not None]
            weights = [parameters[name].detach() for name in found]
            anchors = [tensors[name].to(weight.device) for name, weight in zip(found, weights, strict=True)]
            if found:
                differences = torch._foreach_sub(weights, anchors)  # noqa: SLF001  # torch's only batched difference
                torch._foreach_add_(gradients(parameters, found), differences, alpha=strength)

    return apply


class ControlVariate:
    """SCAFFOLD's client: adds server's minus own control variate to every gradient, and averages the gradients it saw.

    Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning", ICML 2020. The next control
    variate is the round's mean gradient without the correction: for plain gradient steps that is the paper's option II,
    and it also means something under Adam, whose steps are not gradients.
    """

    def __init__(self, server: Weights, own: Weights) -> None:
        """Take both control variates, of the same names and shapes."""
        self._own = {name: torch.tensor(own[name]) for name in server}
        self._correction = {name: torch.tensor(server[name]) - self._own[name] for name in server}
        self._sums = {name: torch.zeros_like(tensor) for name, tensor in self._own.items()}
        self._num_steps = 0

    def __call__(self, parameters: Mapping[str, Parameter]) -> None:
        """Count and correct the gradients of one step."""
        names = [name for name in self._sums if name in parameters and parameters[name].grad is not None]
        found = gradients(parameters, names)
        self._num_steps += 1
        if names:
            torch._foreach_add_([self._sums[name] for name in names], [gradient.cpu() for gradient in found])
            corrections = [self._correction[name] for name in names]
            torch._foreach_add_(found, [tensor.to(found[0].device) for tensor in corrections])

    def next_own(self) -> dict[str, NDArray[Any]]:
        """Return the client's control variate for its next round."""
        return {name: (total / max(self._num_steps, 1)).numpy() for name, total in self._sums.items()}

    def change(self) -> dict[str, NDArray[Any]]:
        """Return by how much the client's control variate moves, which the server is told."""
        return {name: array - self._own[name].numpy() for name, array in self.next_own().items()}


def gradients(parameters: Mapping[str, Parameter], names: list[str]) -> list[Tensor]:
    """Return the gradients of these parameters that have one."""
    return [gradient for name in names if (gradient := parameters[name].grad) is not None]
