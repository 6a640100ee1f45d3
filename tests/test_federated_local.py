"""What clients do in a round: FedProx, SCAFFOLD, FEDORA and Ditto against their definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from gridray.algorithms.architecture import FlatArchitecture
from gridray.algorithms.gradient import Step
from gridray.algorithms.registry import make_learner
from gridray.algorithms.td3_bc import Td3BcConfig, Td3BcNetworks
from gridray.config import parse_config
from gridray.errors import ConfigError, GridRayError
from gridray.federated.aggregators.registry import make_aggregator
from gridray.federated.config import FederateConfig
from gridray.federated.local.config import EnsembleConfig, LocalConfig
from gridray.federated.local.fedora import FedoraClient, FedoraNetworks
from gridray.federated.local.gradient_terms import ControlVariate, proximal_term
from gridray.federated.local.training import LocalTraining, TrainingSpec
from gridray.federated.updates import Broadcast, ClientUpdate, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

SIZES = (5, 2)
LEARNER = {"hidden_sizes": [8, 8]}
NUM_ROWS = 60


def rows(columns: Sequence[str], seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(NUM_ROWS + 1, SIZES[0])).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(NUM_ROWS, SIZES[1])).astype(np.float32)
    found = {
        "obs": obs[:-1],
        "new_obs": obs[1:],
        "actions": actions,
        "rewards": (obs[1:, 0] - actions[:, 0] ** 2).astype(np.float32),
        "terminateds": np.zeros(NUM_ROWS, dtype=bool),
    }
    return {name: found[name] for name in columns}


def training(algorithm: str = "iql", *, seed: int = 0, num_updates: int = 4, **local: Any) -> LocalTraining:
    spec = TrainingSpec(
        algorithm=algorithm,
        learner=LEARNER,
        local=LocalConfig(**local),
        observation_size=SIZES[0],
        action_size=SIZES[1],
        num_updates=num_updates,
        batch_size=16,
        seed=0,
    )
    return LocalTraining(spec, lambda columns: rows(columns, seed))


def broadcast_of(algorithm: str = "iql", *, controls: Arrays | None = None, seed: int = 3) -> Broadcast:
    learner = make_learner(algorithm, observation_size=SIZES[0], action_size=SIZES[1], config=LEARNER, seed=seed)
    return Broadcast(round=0, weights=learner.get_weights(), controls=controls or {})


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def distance(first: Arrays, second: Arrays, prefix: str) -> float:
    return float(sum(np.square(first[name] - second[name]).sum() for name in second if name.startswith(prefix)))


def test_proximal_term_is_the_gradient_of_the_squared_distance() -> None:
    parameters = {"actor.w": Parameter(torch.tensor([3.0, 1.0])), "critic.w": Parameter(torch.tensor([3.0]))}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    anchor = {"actor.w": np.array([1.0, 1.0], np.float32), "critic.w": np.array([0.0], np.float32)}
    proximal_term(anchor, {"actor": 0.5})(parameters)
    # 1 + 0.5 * (3 - 1) and 1 + 0.5 * (1 - 1); the critic has no pull.
    np.testing.assert_allclose(parameters["actor.w"].grad, [2.0, 1.0])
    np.testing.assert_allclose(parameters["critic.w"].grad, [1.0])


def test_fedprox_stays_nearer_to_the_global_weights_the_stronger_it_pulls() -> None:
    sent = broadcast_of()
    moved = {}
    for strength in (0.0, 0.1, 100.0):
        client = training(num_updates=40, proximal={"critic": strength})
        client.train(sent, rng())
        moved[strength] = distance(client.weights(), sent.weights, "critic")
    assert moved[0.0] > moved[0.1] > moved[100.0]


def test_no_pull_is_plain_training_bit_for_bit() -> None:
    sent = broadcast_of()
    plain, pulled = training(), training(proximal={"critic": 0.0})
    plain.train(sent, rng())
    pulled.train(sent, rng())
    assert digest(plain.weights()) == digest(pulled.weights())


def test_scaffold_cancels_drift_on_unlike_quadratics() -> None:
    """Two clients with losses a (w - m)^2 / 2 of unlike curvature: FedAvg misses the optimum, SCAFFOLD does not."""
    curvatures, minima, rate, num_steps = [1.0, 8.0], [0.0, 1.0], 0.1, 20
    optimum = np.average(minima, weights=curvatures)

    def run(*, corrected: bool) -> float:
        rule = make_aggregator("scaffold", num_clients=2)
        weights: Arrays = {"critic.w": np.zeros(1)}
        state, own = rule.init(weights), [{"critic.w": np.zeros(1)} for _ in minima]
        for index in range(60):
            updates = []
            for client, (curvature, minimum) in enumerate(zip(curvatures, minima, strict=True)):
                parameter = Parameter(torch.tensor(weights["critic.w"]))
                server = {"critic.w": state["control/critic.w"] if corrected else np.zeros(1)}
                control = ControlVariate(server, own[client] if corrected else {"critic.w": np.zeros(1)})
                for _ in range(num_steps):
                    parameter.grad = curvature * (parameter.detach() - minimum)
                    control({"critic.w": parameter})
                    parameter.data -= rate * parameter.grad
                updates.append(
                    ClientUpdate(
                        client=str(client),
                        round=index,
                        num_samples=1,
                        weights={"critic.w": parameter.detach().numpy()},
                        metrics={},
                        controls=control.change(),
                    )
                )
                own[client] = control.next_own()
            weights, state, _ = rule.update(state, weights, updates)
        return float(weights["critic.w"][0])

    assert run(corrected=True) == pytest.approx(optimum, abs=1e-6)
    assert abs(run(corrected=False) - optimum) > 0.2


def test_control_variates_stay_with_the_client_and_their_change_is_what_leaves() -> None:
    zero = {name: np.zeros_like(array) for name, array in broadcast_of().weights.items() if name.startswith("critic.")}
    client = training()
    client.train(broadcast_of(controls=zero), rng())
    first = client.control_change()
    assert set(first) == set(zero)
    own = {name: array for name, array in client.get_state().items() if name.startswith("control/")}
    assert digest({name.removeprefix("control/"): array for name, array in own.items()}) == digest(first)
    client.train(broadcast_of(controls=zero), rng())
    second = client.get_state()
    for name, change in client.control_change().items():
        np.testing.assert_allclose(second[f"control/{name}"], first[name] + change, rtol=1e-5, atol=1e-7)


def fedora_networks(**ensemble: Any) -> tuple[FedoraNetworks, Td3BcNetworks]:
    config = Td3BcConfig(hidden_sizes=(8, 8), target_noise=0.0)
    architecture = FlatArchitecture(*SIZES, config.hidden_sizes)
    torch.manual_seed(0)
    networks = FedoraNetworks(architecture, config, EnsembleConfig(**ensemble))
    torch.manual_seed(1)
    plain = Td3BcNetworks(architecture, config)
    plain.load_state_dict(networks.state_dict())
    return networks, plain


def tensors() -> dict[str, torch.Tensor]:
    found = rows(("obs", "new_obs", "actions", "rewards", "terminateds"))
    return {name: torch.as_tensor(array).float() for name, array in found.items()}


def test_fedora_without_its_parts_is_td3_bc() -> None:
    networks, plain = fedora_networks(optimism=False, actor_anchor=0.0)
    step = Step(1, torch.Generator().manual_seed(0))
    ours, theirs = networks.losses(tensors(), step), plain.losses(tensors(), step)
    assert {name: loss.item() for name, loss in ours.items()} == {name: loss.item() for name, loss in theirs.items()}


def test_optimism_takes_the_better_of_local_and_global_critic() -> None:
    networks, _ = fedora_networks()
    with torch.no_grad():
        # The local target critic is now below the global one by 5 everywhere.
        networks.target_critic.biases[-1].sub_(5.0)
    batch, actions = tensors(), torch.zeros(NUM_ROWS, SIZES[1])
    following = networks.normaliser.observations(batch["new_obs"])
    best = networks.target_critic(following, actions).amin(dim=0) - networks.next_penalty(batch, actions)
    torch.testing.assert_close(best, networks.critic(following, actions).amin(dim=0))
    with torch.no_grad():
        networks.target_critic.biases[-1].add_(10.0)
    assert not torch.as_tensor(networks.next_penalty(batch, actions)).any()


def test_anchor_and_decay_enter_the_actors_loss() -> None:
    networks, plain = fedora_networks(optimism=False, actor_anchor=2.0)
    with torch.no_grad():
        for module in (networks, plain):
            module.actor.mean.layers[-1].bias.add_(0.3)
    reference = networks._reference
    networks.take_reference(decay=0.25)
    networks._reference = reference
    step = Step(1, torch.Generator().manual_seed(0))
    local = plain.losses(tensors(), step)["actor_loss"].item()
    obs = networks.normaliser.observations(tensors()["obs"])
    squared = (networks.actor.greedy(obs) - reference[0].greedy(obs)).square().mean().item()
    assert networks.losses(tensors(), step)["actor_loss"].item() == pytest.approx(
        0.25 * local + 2.0 * squared, rel=1e-5
    )


def test_local_loss_decays_only_where_training_did_not_pay() -> None:
    client = FedoraClient(LEARNER, SIZES, EnsembleConfig(decay=0.5), seed=0)
    client.begin(1.0)
    client.end(2.0)
    assert client.decay == 1.0
    client.begin(1.0)
    client.end(1.0)
    assert client.decay == 0.5


def test_global_critic_is_no_part_of_what_a_client_sends() -> None:
    client = training("td3_bc", ensemble=EnsembleConfig())
    assert set(client.weights()) == set(broadcast_of("td3_bc").weights)


@pytest.mark.parametrize(
    ("algorithm", "local"),
    [
        ("td3_bc", {"ensemble": EnsembleConfig()}),
        ("iql", {"personal": 0.1}),
        ("iql", {"target_networks": "keep"}),
        ("td3_bc", {"target_networks": "copy", "optimiser": "reset"}),
    ],
)
def test_restored_client_trains_on_bit_for_bit(algorithm: str, local: dict[str, Any]) -> None:
    sent = broadcast_of(algorithm)
    client = training(algorithm, **local)
    client.train(sent, rng())
    restored = training(algorithm, **local)
    restored.set_state(client.get_state())
    for each in (client, restored):
        each.train(sent, rng())
    assert digest(restored.get_state()) == digest(client.get_state())


def test_target_networks_and_optimiser_follow_their_policy() -> None:
    names = [name for name in broadcast_of().weights if name.startswith("target_critic.")]
    sent = broadcast_of()
    without = Broadcast(round=0, weights={name: array for name, array in sent.weights.items() if name not in names})
    clients = {policy: training(target_networks=policy) for policy in ("average", "keep", "copy")}
    before = {policy: client.weights() for policy, client in clients.items()}
    for policy, client in clients.items():
        client.take(sent if policy == "average" else without)
    for name in names:
        np.testing.assert_array_equal(clients["average"].weights()[name], sent.weights[name])
        np.testing.assert_array_equal(clients["keep"].weights()[name], before["keep"][name])
        np.testing.assert_array_equal(clients["copy"].weights()[name], sent.weights[name.removeprefix("target_")])
    kept, reset = training(), training(optimiser="reset")
    for _ in range(2):
        kept.train(sent, rng())
        reset.train(sent, rng())
    assert kept.get_state()["state/step.critic.kernels.0"] == 8
    assert reset.get_state()["state/step.critic.kernels.0"] == 4


def test_personal_policy_is_pulled_to_the_global_one_and_acts_for_the_client() -> None:
    sent = broadcast_of(seed=5)
    moved = {}
    for strength in (0.0, 100.0):
        client = training(num_updates=60, personal=strength)
        client.train(sent, rng())
        moved[strength] = distance(client.learner().get_weights(), sent.weights, "actor")
        assert digest(client.learner().get_weights()) != digest(client.weights())
    assert moved[100.0] < moved[0.0]


def test_value_is_reported_on_held_out_rows() -> None:
    client = training(holdout_share=0.25)
    learner = make_learner("iql", observation_size=SIZES[0], action_size=SIZES[1], config=LEARNER, seed=0)
    held_out = rows(["obs"])["obs"][-15:]
    assert client.value() == pytest.approx(float(learner.state_values(held_out).mean()), rel=1e-5)
    with pytest.raises(GridRayError, match="no critics to value a state with"):
        training("bc").value()


def test_ensemble_losses_need_their_algorithm() -> None:
    data = {"algorithm": "iql", "clients": [{"name": "a", "dataset": "x"}], "local": {"ensemble": {}}}
    with pytest.raises(ConfigError, match="changes the losses of 'td3_bc', the algorithm is 'iql'"):
        parse_config(FederateConfig, data)
