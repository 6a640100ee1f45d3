"""Networks over sets of devices: weights are shared by devices of a kind, so that they do not depend on the feeder.

A device's view and, in critics, its set-points enter a layer of its kind; the layers after it are the same for all
kinds. In a graph each of these layers also reads the means of the device's neighbours along the feeder. Actors end in a
layer of the kind; critics and values in two on the mean and the sum over devices (Zaheer et al., "Deep sets", 2017).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gridray.algorithms.actors import DeterministicActor, GaussianActor, MixedActor, SquashedActor
from gridray.algorithms.device_layout import NUM_LOGITS, RELATIONS
from gridray.algorithms.networks import Critic, Normalisation, SplitNetwork
from gridray.errors import ConfigError
from gridray.tasks.view_layout import KINDS, MAX_ACTIONS, WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.algorithms.actions import ActionGrid
    from gridray.algorithms.actors import LikelihoodActor
    from gridray.algorithms.device_layout import DeviceLayout

SUM_SCALE = 0.1
"""Of sums over devices, so that those of some ten devices are as large as means."""
MAX_ROUNDS = 3
_ROWS_AT_ONCE = 16


class DeviceArchitecture(NamedTuple):
    """Networks over the devices of a layout; is_graph: whether devices hear their neighbours.

    grid: of a mixed head; it may be without choices, as a feeder may be without devices that have any.
    """

    layout: DeviceLayout
    hidden_sizes: tuple[int, ...]
    is_graph: bool
    grid: ActionGrid | None = None

    @property
    def observation_size(self) -> int:
        """Number of observations of the task."""
        return self.layout.num_observations

    @property
    def action_size(self) -> int:
        """Number of actions of the task."""
        return len(self.layout.slot_of_action)

    def normalisation(self, *, has_cost: bool = False) -> Normalisation:
        """Return scales of the features of a view, for all devices the same."""
        return ViewNormalisation(self.layout, has_cost=has_cost)

    def likelihood_actor(self) -> LikelihoodActor:
        """Return a mixed actor where there is a grid, else a Gaussian one; devices of a kind share their spreads."""
        spreads = (len(KINDS), MAX_ACTIONS)
        slots = self.layout.slot_of_action
        kinds = self.layout.kind_index[slots // MAX_ACTIONS]
        shared = kinds * MAX_ACTIONS + slots % MAX_ACTIONS
        if self.grid is None:
            return GaussianActor(self._mean(1), spreads, torch.from_numpy(shared))
        shared = shared[self.grid.continuous]
        return MixedActor(self._mean(1 + NUM_LOGITS), spreads, self.grid, torch.from_numpy(shared))

    def deterministic_actor(self) -> DeterministicActor:
        """Return an actor with one action per observation."""
        return DeterministicActor(self._mean(1))

    def squashed_actor(self) -> SquashedActor:
        """Return a soft actor."""
        mean = self._mean(1)
        return SquashedActor(mean, SetPoints(self.layout, self.hidden_sizes[-1], 1, None))

    def twin_critic(self, *, layer_norm: bool = False) -> DeviceCritic:
        """Return twin critics."""
        return DeviceCritic(self, num_networks=2, num_extra=MAX_ACTIONS, layer_norm=layer_norm)

    def value(self) -> DeviceValue:
        """Return a value function."""
        return DeviceValue(self, num_networks=1, num_extra=0, layer_norm=False)

    def _mean(self, num_outputs: int) -> DeviceMean:
        return DeviceMean(self, num_outputs)


class ViewNormalisation(Normalisation):
    """Scales of views; the networks read [n, num_devices, WIDTH]."""

    def __init__(self, layout: DeviceLayout, *, has_cost: bool = False) -> None:
        super().__init__(WIDTH, has_cost=has_cost)
        self._layout = layout

    def prepare(self, raw: Tensor) -> Tensor:
        """Return the views [n, num_devices, WIDTH] of the task's observations."""
        return torch.from_numpy(self._layout.views(raw.cpu().numpy())).to(raw.device)


class Dense(nn.Module):
    """N layers side by side; weight: float32 [N, inputs, outputs], bias: float32 [N, 1, outputs]."""

    def __init__(self, num_networks: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = _parameters((num_networks,), num_inputs, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs [..., N, n, outputs] of [..., N, n, inputs]."""
        outputs: Tensor = torch.matmul(inputs, self.weight) + self.bias
        return outputs


class KindDense(nn.Module):
    """N layers side by side, for each kind of device its own; weight: float32 [N, num_kinds, inputs, outputs]."""

    kind: Tensor

    def __init__(self, layout: DeviceLayout, num_networks: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = _parameters((num_networks, len(KINDS)), num_inputs, num_outputs)
        self.register_buffer("kind", torch.from_numpy(layout.kind_index), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs [D, N, n, outputs] of [D, N or 1, n, inputs]."""
        return torch.matmul(inputs, self.of_devices(self.weight)) + self.of_devices(self.bias)

    def of_devices(self, part: Tensor) -> Tensor:
        """Return weights or biases of each device, [D, N, ...]."""
        return part.index_select(1, self.kind).transpose(0, 1)


class Neighbours(nn.Module):
    """Means over a device's neighbours in each relation, behind what is its own; 0 where it has none."""

    receiver: Tensor
    sender: Tensor
    share: Tensor

    def __init__(self, layout: DeviceLayout) -> None:
        super().__init__()
        receiver, sender, share = layout.messages()
        self.register_buffer("receiver", torch.from_numpy(receiver), persistent=False)
        self.register_buffer("sender", torch.from_numpy(sender), persistent=False)
        self.register_buffer("share", torch.from_numpy(share)[:, None, None, None], persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [D, N, n, (1 + number of relations) * width] of [D, N, n, width]."""
        sent = hidden.index_select(0, self.sender) * self.share
        empty = hidden.new_zeros(len(RELATIONS) * len(hidden), *hidden.shape[1:])
        received = empty.index_add(0, self.receiver, sent)
        return torch.cat((hidden, *received.chunk(len(RELATIONS))), dim=-1)


class DeviceEncoder(nn.Module):
    """A hidden state of every device, in N networks side by side."""

    def __init__(
        self, architecture: DeviceArchitecture, *, num_networks: int, num_extra: int, layer_norm: bool = False
    ) -> None:
        super().__init__()
        first, *others = architecture.hidden_sizes
        self.embed = KindDense(architecture.layout, num_networks, WIDTH + num_extra, first)
        self.neighbours = Neighbours(architecture.layout) if architecture.is_graph else nn.Identity()
        heard = 1 + len(RELATIONS) if architecture.is_graph else 1
        self.layers = nn.ModuleList(
            Dense(num_networks, heard * before, after)
            for before, after in zip(architecture.hidden_sizes, others, strict=False)
        )
        self.norms = nn.ModuleList(
            LayerScale(num_networks, size) if layer_norm else nn.Identity() for size in architecture.hidden_sizes
        )

    def forward(self, devices: Tensor) -> Tensor:
        """Return [D, N, n, hidden_sizes[-1]] of features of devices [n, D, WIDTH + num_extra]."""
        return self.deepened(self.embed(by_device(devices)))

    def deepened(self, embedded: Tensor) -> Tensor:
        """Return the same of what the first layer gave."""
        hidden: Tensor = self.norms[0](torch.relu(embedded))
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            hidden = norm(torch.relu(layer(self.neighbours(hidden))))
        return hidden


class LayerScale(nn.Module):
    """Layer normalisation of N networks side by side; gain, shift: float32 [N, 1, width]."""

    def __init__(self, num_networks: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_networks, 1, width))
        self.shift = nn.Parameter(torch.zeros(num_networks, 1, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the same shape, [..., N, n, width]."""
        scaled = functional.layer_norm(hidden, hidden.shape[-1:])
        return torch.addcmul(self.shift, scaled, self.gain)


class SetPoints(nn.Module):
    """An actor's last layer, of each kind its own: what comes out stands where the task's actions do.

    Without a grid [n, num_actions * num_outputs]; with one as `MixedActor` reads it.
    """

    continuous: Tensor
    discrete: Tensor

    def __init__(self, layout: DeviceLayout, width: int, num_outputs: int, grid: ActionGrid | None) -> None:
        super().__init__()
        self.kinds = KindDense(layout, 1, width, MAX_ACTIONS * num_outputs)
        slots = layout.slot_of_action
        self.num_outputs = num_outputs
        self.num_choices = 0 if grid is None else grid.values.shape[1]
        continuous, discrete = (slots, slots[:0]) if grid is None else (slots[grid.continuous], slots[grid.discrete])
        self.register_buffer("continuous", torch.from_numpy(continuous), persistent=False)
        self.register_buffer("discrete", torch.from_numpy(discrete), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return outputs of hidden states [D, 1, n, width]."""
        outputs = self.kinds(hidden).squeeze(1)
        by_row = outputs.transpose(0, 1)
        slots = by_row.reshape(len(by_row), -1, self.num_outputs)
        means = slots.index_select(1, self.continuous)[..., 0]
        logits = slots.index_select(1, self.discrete)[..., 1 : 1 + self.num_choices]
        return torch.cat((means, logits.flatten(1)), dim=1)


class DeviceMean(SplitNetwork):
    """An actor's network: each device sees its own view, and in a graph what its neighbours tell."""

    def __init__(self, architecture: DeviceArchitecture, num_outputs: int) -> None:
        super().__init__()
        self.encoder = DeviceEncoder(architecture, num_networks=1, num_extra=0)
        grid = architecture.grid if num_outputs > 1 else None
        self.head = SetPoints(architecture.layout, architecture.hidden_sizes[-1], num_outputs, grid)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the devices' hidden states."""
        hidden: Tensor = self.encoder(inputs)
        return hidden

    def last(self, hidden: Tensor) -> Tensor:
        """Return the set-points, where the task's actions stand."""
        outputs: Tensor = self.head(hidden)
        return outputs


class PooledNetwork(nn.Module):
    """N functions side by side of all devices together, whatever their order and number."""

    def __init__(
        self, architecture: DeviceArchitecture, *, num_networks: int, num_extra: int, layer_norm: bool
    ) -> None:
        super().__init__()
        width = architecture.hidden_sizes[-1]
        self.encoder = DeviceEncoder(
            architecture, num_networks=num_networks, num_extra=num_extra, layer_norm=layer_norm
        )
        self.pooled = Dense(num_networks, 2 * width, width)
        self.readout = Dense(num_networks, width, 1)

    def outputs(self, devices: Tensor) -> Tensor:
        """Return [N, n] of features of devices [n, D, WIDTH + num_extra]."""
        return self.joined(self.encoder(devices))

    def joined(self, hidden: Tensor) -> Tensor:
        """Return [N, n] of hidden states [D, N, n, width]."""
        total = hidden.sum(dim=0)
        pooled = torch.cat((total / len(hidden), SUM_SCALE * total), dim=2)
        values: Tensor = self.readout(torch.relu(self.pooled(pooled)))
        return values.squeeze(2)


class DeviceValue(PooledNetwork):
    """A value function."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return values [n, 1] of views [n, D, WIDTH]."""
        return self.outputs(observations).transpose(0, 1)


class DeviceCritic(PooledNetwork, Critic):
    """Two Q functions side by side."""

    slot: Tensor

    def __init__(
        self, architecture: DeviceArchitecture, *, num_networks: int, num_extra: int, layer_norm: bool
    ) -> None:
        super().__init__(architecture, num_networks=num_networks, num_extra=num_extra, layer_norm=layer_norm)
        # A device that lacks a set-point has the column of zeros behind the actions.
        index = architecture.layout.action_index
        slot = np.where(index < 0, architecture.action_size, index).ravel()
        self.register_buffer("slot", torch.from_numpy(slot), persistent=False)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n] of views [n, D, WIDTH] and actions [n, action_size]."""
        return self.outputs(torch.cat((observations, self._set_points(actions)), dim=2))

    def frozen(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n] that pass gradients to the actions and none to the critics."""
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        values: Tensor = functional_call(self, weights, (observations, actions))
        return values

    def mean_log_sum_exp(self, observations: Tensor, actions: Tensor, densities: Tensor) -> Tensor:
        """Return log sum exp(Q - log density) over sampled actions; see `Critic`."""
        total = observations.new_zeros(())
        # A few rows at a time stay in the cache, forward and backward.
        for part in zip(
            *(torch.split(rows, _ROWS_AT_ONCE) for rows in (observations, actions, densities)), strict=True
        ):
            total = total + checkpoint(self._log_sum_exp, *part, use_reentrant=False)
        return total / len(actions)

    def _log_sum_exp(self, observations: Tensor, actions: Tensor, densities: Tensor) -> Tensor:
        """Return log sum exp over samples, summed over rows and critics."""
        num_rows, num_samples, _ = actions.shape
        embed = self.encoder.embed
        # The view's share of the first layer is the same for all actions of a row.
        seen = embed(by_device(functional.pad(observations, (0, MAX_ACTIONS))))
        weight = embed.of_devices(embed.weight)[:, :, WIDTH:]
        done = torch.matmul(by_device(self._set_points(actions.flatten(0, 1))), weight)
        values = self.joined(self.encoder.deepened(seen.repeat_interleave(num_samples, dim=2) + done))
        return torch.logsumexp(values.view(2, num_rows, num_samples) - densities, dim=2).sum()

    def _set_points(self, actions: Tensor) -> Tensor:
        """Return actions by device, [n, D, MAX_ACTIONS]."""
        slots = functional.pad(actions, (0, 1)).index_select(1, self.slot)
        return slots.view(len(actions), -1, MAX_ACTIONS)


def by_device(rows: Tensor) -> Tensor:
    """Return [D, 1, n, features] of [n, D, features]."""
    return rows.transpose(0, 1).unsqueeze(1)


def check_sizes(hidden_sizes: Sequence[int], *, is_graph: bool) -> None:
    """Refuse sizes that no network over devices has.

    Raises:
        ConfigError: there are none, or more rounds of messages than a graph has.
    """
    if not hidden_sizes:
        raise ConfigError("hidden_sizes is empty: a policy of devices needs one layer or more")
    if is_graph and not 1 <= len(hidden_sizes) - 1 <= MAX_ROUNDS:
        raise ConfigError(
            f"hidden_sizes has {len(hidden_sizes)} layers: in policy 'graph' each but the first is a round of "
            f"messages, give 2 to {MAX_ROUNDS + 1}"
        )


def _parameters(leading: tuple[int, ...], num_inputs: int, num_outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return weights and biases with the bound of nn.Linear's."""
    bound = 1.0 / math.sqrt(num_inputs)
    weight = torch.empty(*leading, num_inputs, num_outputs).uniform_(-bound, bound)
    bias = torch.empty(*leading, 1, num_outputs).uniform_(-bound, bound)
    return nn.Parameter(weight), nn.Parameter(bias)
