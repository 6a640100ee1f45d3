"""The learner that all gradient algorithms share: batches in, one fused Adam step, named arrays out."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gridray.algorithms.base import NEXT_ACTIONS, TRAINING_COLUMNS
from gridray.algorithms.policy import LearnedPolicy
from gridray.errors import ConfigError, GridRayError
from gridray.tasks.view_layout import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.algorithms.actors import Actor
    from gridray.algorithms.architecture import Architecture
    from gridray.algorithms.base import GradientTerm, Normaliser, Weights
    from gridray.algorithms.networks import Normalisation
    from gridray.algorithms.settings import NetworkSettings, Shape

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Step(NamedTuple):
    """Where training is: the number of updates before this one, and the source of its random numbers."""

    num_updates: int
    generator: torch.Generator


class Networks(nn.Module):
    """Networks and losses of one algorithm; a subclass adds its own networks.

    has_mixed_actions: whether its actor can choose.
    columns, cost_column: see `Learner`.
    """

    has_mixed_actions: ClassVar[bool] = False
    columns: tuple[str, ...] = TRAINING_COLUMNS
    cost_column: str | None = None
    normaliser: Normalisation
    actor: Actor

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return named scalar losses; their sum is minimised, and no network gets gradients from two of them."""
        raise NotImplementedError

    def reports(self) -> dict[str, Tensor]:
        """Return named scalars to show beside the losses of the last batch; none, but where an algorithm has some."""
        return {}

    def state_values(self, observations: Tensor) -> Tensor:
        """Return the values [n] of prepared observations: the value function's, or the lower critic's.

        Raises:
            GridRayError: the algorithm has neither.
        """
        scaled = self.normaliser.observations(observations)
        parts = dict(self.named_children())
        if "value" in parts:
            values: Tensor = parts["value"](scaled).squeeze(1)
        elif "critic" in parts:
            values = parts["critic"](scaled, self.actor.greedy(scaled)).amin(dim=0)
        else:
            raise GridRayError(
                "This algorithm has no critics to value a state with: use another, such as iql or td3_bc"
            )
        return values

    def actor_rate(self, num_updates: int) -> float:
        """Return the factor on the actor's learning rate after so many updates."""
        del num_updates
        return 1.0

    def follow(self, num_updates: int) -> None:
        """Move what no gradient moves, such as target networks, after the step that followed so many updates."""


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Take denormal numbers for 0 within the block, in this thread.

    Adam's moments of units that never fire decay to such numbers, which cost a hundred times a normal one.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch built without CUDA asserts
        raise ConfigError(
            f"device is '{name}', which PyTorch cannot use here ({str(error).splitlines()[0]}): give 'cpu', or 'cuda' "
            "where there is a GPU"
        ) from error


class GradientLearner:
    """One algorithm's networks with their optimiser; implements `Learner`."""

    def __init__(
        self, name: str, networks: Networks, settings: NetworkSettings, architecture: Architecture, *, seed: int
    ) -> None:
        """Move the networks to the configured device and give them an optimiser and random numbers."""
        self.name = name
        self.shape: Shape = settings.policy
        self.hidden_sizes = settings.hidden_sizes
        self.observation_size = architecture.observation_size
        self.action_size = architecture.action_size
        self._layout = architecture.layout
        self.columns = networks.columns
        self.cost_column = networks.cost_column
        self._device = _device(settings.device)
        self._networks = networks.to(self._device)
        self._settings = settings
        actor = list(networks.actor.parameters())
        others = [
            parameter
            for name, parameter in networks.named_parameters()
            if parameter.requires_grad and not name.startswith("actor.")
        ]
        self._groups = [part for part in (actor, others) if part]
        groups = [{"params": part} for part in self._groups]
        self._optimiser = torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)
        self._generator = torch.Generator(settings.device).manual_seed(seed)
        self._num_updates = 0
        self._parameters = dict(networks.named_parameters())
        self._gradient_terms: tuple[GradientTerm, ...] = ()

    @denormals_as_zero()
    def update(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Take one gradient step; see `Learner.update`."""
        tensors = self.prepared(batch)
        losses = self._networks.losses(tensors, self.next_step)
        stacked = torch.stack(list(losses.values()))
        values = dict(zip(losses, stacked.detach().tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise GridRayError(
                    f"{self.name}: {name} is {value} after {self._num_updates} updates, it must be finite: "
                    "lower learning_rate, or look for outliers in the dataset's rewards"
                )
        self._optimiser.zero_grad(set_to_none=True)
        stacked.sum().backward()  # type: ignore[no-untyped-call]
        self._descend()
        return values | {name: float(value) for name, value in self._networks.reports().items()}

    @property
    def networks(self) -> Networks:
        """Networks and losses, for those who make gradients in another way and give them to `descend`."""
        return self._networks

    @property
    def next_step(self) -> Step:
        """Where training is before the next update."""
        return Step(self._num_updates, self._generator)

    @denormals_as_zero()
    def descend(self, gradients: Mapping[str, Tensor]) -> None:
        """Take one step along these gradients by parameter name, in place of those of a batch's losses."""
        for name, parameter in self._parameters.items():
            parameter.grad = gradients.get(name)
        self._descend()

    def get_weights(self) -> Weights:
        """Return copies of all weights."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self._networks.state_dict().items()}

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take weights of the same names and shapes."""
        own = self._networks.state_dict()
        check_weights(self.name, {name: tuple(tensor.shape) for name, tensor in own.items()}, weights)
        for name, tensor in own.items():
            tensor.copy_(torch.tensor(weights[name]))

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Take the statistics as weights."""
        own = self.get_weights()
        values = {
            f"normaliser.{name}": np.atleast_1d(np.asarray(value, dtype=np.float32))
            for name, value in normaliser._asdict().items()
        }
        self.set_weights(own | {name: value for name, value in values.items() if name in own})

    def get_training_state(self) -> Weights:
        """Return Adam's moments by weight name, the count of updates, and the random numbers' state."""
        state: Weights = {
            "num_updates": np.array([self._num_updates], dtype=np.int64),
            "generator": self._generator.get_state().numpy().copy(),
        }
        for name, parameter in self._networks.named_parameters():
            for key, tensor in self._optimiser.state.get(parameter, {}).items():
                state[f"{key}.{name}"] = np.atleast_1d(tensor.cpu().numpy().copy())
        return state

    def set_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the state that `get_training_state` returned."""
        self._num_updates = int(state["num_updates"][0])
        self._generator.set_state(torch.tensor(state["generator"]))
        self._optimiser.state.clear()
        for name, parameter in self._networks.named_parameters():
            if f"step.{name}" in state:
                arrays = {key: torch.tensor(state[f"{key}.{name}"], device=self._device) for key in _MOMENTS}
                arrays["step"] = arrays["step"].reshape(())
                self._optimiser.state[parameter] = arrays

    def reset_optimiser(self) -> None:
        """Forget Adam's moments."""
        self._optimiser.state.clear()

    def set_gradient_terms(self, terms: Sequence[GradientTerm]) -> None:
        """Call these on the parameters between the gradients' computation and each step."""
        self._gradient_terms = tuple(terms)

    def state_values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values of observations; see `Learner.state_values`."""
        with torch.no_grad():
            raw = torch.as_tensor(observations).to(self._device)
            values = self._networks.state_values(self._networks.normaliser.prepare(raw))
        found: NDArray[np.float32] = values.cpu().numpy()
        return found

    def policy(self) -> LearnedPolicy:
        """Return the greedy policy of the present weights."""
        return LearnedPolicy.from_weights(
            self.name, self.get_weights(), grid=self._networks.actor.grid, layout=self._layout
        )

    def observation_rows(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the normaliser's statistics are of; see `Learner.observation_rows`."""
        return observations if self._layout is None else self._layout.views(observations).reshape(-1, WIDTH)

    def prepared(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return a batch as the networks' losses read it.

        Raises:
            GridRayError: a column is missing, of another width or not finite.
        """
        sizes = (self.observation_size, self.action_size)
        tensors = finite_tensors(batch, self.columns, sizes, self._device)
        for name in tensors.keys() & {"obs", "new_obs"}:
            tensors[name] = self._networks.normaliser.prepare(tensors[name])
        return tensors

    def _descend(self) -> None:
        rate = self._settings.learning_rate * self._networks.actor_rate(self._num_updates)
        self._optimiser.param_groups[0]["lr"] = rate
        for term in self._gradient_terms:
            term(self._parameters)
        if self._settings.max_grad_norm is not None:
            for group in self._groups:
                nn.utils.clip_grad_norm_(group, self._settings.max_grad_norm)
        self._optimiser.step()
        self._networks.follow(self._num_updates)
        self._num_updates += 1


def check_weights(name: str, own: Mapping[str, tuple[int, ...]], weights: Mapping[str, NDArray[Any]]) -> None:
    """Refuse weights that are not of these names and shapes.

    Raises:
        GridRayError: names the first that is missing, unknown, or of another shape.
    """
    if missing := sorted(own.keys() - weights.keys()):
        raise GridRayError(f"Weights lack {missing[0]!r}: give every array of a {name} learner")
    if unknown := sorted(weights.keys() - own.keys()):
        raise GridRayError(f"Weights have {unknown[0]!r}, which a {name} learner does not know: leave it out")
    for key, shape in own.items():
        if weights[key].shape != shape:
            raise GridRayError(
                f"Weight {key!r} has shape {weights[key].shape}, this learner's has {shape}: "
                "use the same observation_size, action_size and hidden_sizes"
            )


def finite_tensors(
    batch: Mapping[str, Any], columns: tuple[str, ...], sizes: tuple[int, int], device: torch.device
) -> dict[str, Tensor]:
    """Return these columns as float32 tensors; sizes are those of observations and actions.

    Raises:
        GridRayError: a column is missing, of another width or not finite.
    """
    widths = {"obs": sizes[0], "new_obs": sizes[0], "actions": sizes[1], NEXT_ACTIONS: sizes[1]}
    tensors = {}
    for name in columns:
        if name not in batch:
            raise GridRayError(f"Batch has no column {name!r}: its columns are {', '.join(batch)}")
        tensor = torch.as_tensor(batch[name]).to(device, torch.float32)
        if name in widths and tensor.shape[1:] != (widths[name],):
            raise GridRayError(
                f"Column {name!r} of the batch has shape {tuple(tensor.shape)}, "
                f"this learner needs [n, {widths[name]}]: train and data must be of one task"
            )
        tensors[name] = tensor
    # One sum per column finds NaN and infinity at the cost of reading it once.
    sums = torch.stack([tensor.sum() for tensor in tensors.values()]).tolist()
    for name, total in zip(tensors, sums, strict=True):
        if not math.isfinite(total):
            raise GridRayError(f"Column {name!r} of the batch has NaN or infinite values: record the data anew")
    return tensors
