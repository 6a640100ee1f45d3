"""A client's rounds of training: what it takes from the broadcast, what stays its own, and what it ends up with."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gridray.algorithms.registry import make_learner, task_learner
from gridray.federated.local.fedora import FedoraClient
from gridray.federated.local.gradient_terms import ControlVariate, proximal_term
from gridray.federated.sharing import NORMALISER, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner
    from gridray.federated.local.config import LocalConfig
    from gridray.federated.updates import Broadcast
    from gridray.tasks.base import Task

_STATE, _OWN, _CONTROL, _PERSONAL, _PERSONAL_STATE = "state/", "own/", "control/", "personal/", "personal_state/"
_DECAY = "decay"
Arrays = dict[str, "NDArray[Any]"]


class TrainingSpec(NamedTuple):
    """What a client trains.

    learner: configuration of the algorithm.
    num_updates: gradient steps of a round.
    task: needed where actions are choices, and by policies of devices; sizes are enough for others.
    """

    algorithm: str
    learner: Mapping[str, Any]
    local: LocalConfig
    observation_size: int
    action_size: int
    num_updates: int
    batch_size: int
    seed: int
    task: Task | None = None


class LocalTraining:
    """Learner of one client, and its personal one if there is one; all in memory, nothing read or written here."""

    def __init__(self, spec: TrainingSpec, load: Callable[[Sequence[str]], dict[str, NDArray[Any]]]) -> None:
        """Start with weights that follow from the seed alone; load is asked for the columns of batches."""
        self._spec = spec
        self._ensemble = self._new_ensemble()
        self._learner: Learner = self._new_learner() if self._ensemble is None else self._ensemble.learner
        self._columns = load(self._learner.columns)
        num_rows = len(self._columns["obs"])
        self._num_trained = max(1, num_rows - int(num_rows * spec.local.holdout_share))
        self._personal = None if spec.local.personal is None else self._new_learner()
        self._controls: Arrays = {}
        self._change: Arrays = {}
        self._steps: Callable[[Broadcast], dict[str, float]] | None = None

    @property
    def num_trained(self) -> int:
        """Rows of the dataset that are trained on, the first ones."""
        return self._num_trained

    @property
    def num_updates(self) -> int:
        """Gradient steps of a round."""
        return self._spec.num_updates

    def shared_learner(self) -> Learner:
        """Return the learner whose weights are shared."""
        return self._learner

    def set_steps(self, steps: Callable[[Broadcast], dict[str, float]]) -> None:
        """Let this function take a round's steps of the shared learner, in place of plain updates."""
        self._steps = steps

    def take(self, broadcast: Broadcast) -> None:
        """Replace the shared weights by the global ones; what is not broadcast stays, or if a target, is copied."""
        weights = self._learner.get_weights() | broadcast.weights
        if self._spec.local.target_networks == "copy":
            targets = [name for name in weights if name.startswith(TARGET)]
            weights |= {name: weights[name.removeprefix(TARGET)] for name in targets}
        self._learner.set_weights(weights)

    def train(self, broadcast: Broadcast, rng: np.random.Generator) -> dict[str, float]:
        """Train a round from the global weights; return the means of what the learner's updates gave."""
        self.take(broadcast)
        if self._spec.local.optimiser == "reset":
            self._learner.reset_optimiser()
        control = self._control_variate(broadcast)
        pull = proximal_term(broadcast.weights, self._spec.local.proximal)
        self._learner.set_gradient_terms([control, pull] if control else [pull] if self._spec.local.proximal else [])
        if self._ensemble is not None:
            self._ensemble.begin(self.value())
        metrics = self._run(self._learner, rng) if self._steps is None else self._steps(broadcast)
        if self._ensemble is not None:
            self._ensemble.end(self.value())
            metrics["local_decay"] = self._ensemble.decay
        if control:
            self._change, self._controls = control.change(), control.next_own()
        if self._personal is not None and self._spec.local.personal is not None:
            scales = {name: array for name, array in broadcast.weights.items() if name.startswith(NORMALISER)}
            self._personal.set_weights(self._personal.get_weights() | scales)
            pull = proximal_term(broadcast.weights, dict.fromkeys(_networks(broadcast), self._spec.local.personal))
            self._personal.set_gradient_terms([pull])
            metrics |= {f"personal_{name}": mean for name, mean in self._run(self._personal, rng).items()}
        return metrics

    def weights(self) -> Arrays:
        """Return the weights of the learner that is shared."""
        return self._learner.get_weights()

    def control_change(self) -> Arrays:
        """Return by how much the control variates moved in this round."""
        return self._change

    def value(self) -> float:
        """Return the mean value of the held-out states, or of all where none are held out."""
        rows = self._columns["obs"][self._num_trained :]
        return float(self._learner.state_values(rows if len(rows) else self._columns["obs"]).mean(dtype=np.float64))

    def learner(self) -> Learner:
        """Return the learner that acts for this client: the personal one if there is one."""
        return self._learner if self._personal is None else self._personal

    def learners(self) -> dict[str, Learner]:
        """Return the learners by the prefix of what is reported about them: the shared one, and `personal_`."""
        return {"": self._learner} | ({} if self._personal is None else {"personal_": self._personal})

    def get_state(self) -> Arrays:
        """Return all that the next round needs and the broadcast does not bring."""
        state = _under(_STATE, self._learner.get_training_state()) | _under(_CONTROL, self._controls)
        state |= _under(_OWN, self._learner.get_weights())
        if self._ensemble is not None:
            state[_DECAY] = np.array([self._ensemble.decay])
        if self._personal is not None:
            state |= _under(_PERSONAL, self._personal.get_weights())
            state |= _under(_PERSONAL_STATE, self._personal.get_training_state())
        return state

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `get_state` returned."""
        self._learner.set_weights(_below(_OWN, state))
        self._learner.set_training_state(_below(_STATE, state))
        self._controls = _below(_CONTROL, state)
        if self._ensemble is not None:
            self._ensemble.decay = float(state[_DECAY][0])
        if self._personal is not None:
            self._personal.set_weights(_below(_PERSONAL, state))
            self._personal.set_training_state(_below(_PERSONAL_STATE, state))

    def _new_ensemble(self) -> FedoraClient | None:
        if self._spec.local.ensemble is None:
            return None
        task = self._spec.task or (self._spec.observation_size, self._spec.action_size)
        return FedoraClient(self._spec.learner, task, self._spec.local.ensemble, seed=self._spec.seed)

    def _new_learner(self) -> Learner:
        spec = self._spec
        if spec.task is not None:
            return task_learner(spec.algorithm, spec.task, config=spec.learner, seed=spec.seed)
        return make_learner(
            spec.algorithm,
            observation_size=spec.observation_size,
            action_size=spec.action_size,
            config=spec.learner,
            seed=spec.seed,
        )

    def _control_variate(self, broadcast: Broadcast) -> ControlVariate | None:
        if not broadcast.controls:
            return None
        own = {name: np.zeros_like(array) for name, array in broadcast.controls.items()} | self._controls
        return ControlVariate(broadcast.controls, own)

    def _run(self, learner: Learner, rng: np.random.Generator) -> dict[str, float]:
        totals: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for _ in range(self._spec.num_updates):
            rows = rng.integers(self._num_trained, size=self._spec.batch_size)
            batch = {name: column[rows] for name, column in self._columns.items()}
            for name, value in learner.update(batch).items():
                totals[name] += value
                counts[name] += 1
        return {name: total / counts[name] for name, total in totals.items()}


def _networks(broadcast: Broadcast) -> set[str]:
    return {name.partition(".")[0] for name in broadcast.weights}


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
