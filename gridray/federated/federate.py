"""Run a federation from its configuration to a saved policy."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gridray.algorithms.bundle import save_bundle
from gridray.cluster.runtime import ray_session
from gridray.federated.coordinator import RoundRecord
from gridray.federated.rounds import Federation, run_round, start_federation
from gridray.federated.sites import InProcess, RayActors, Sites
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.federated.config import FederateConfig


@dataclass(frozen=True, kw_only=True)
class FederationResult:
    """Outcome of a federation.

    bundle: directory of the policy bundle.
    history: one record per round.
    weights: final global weights, parameter name -> array.
    """

    bundle: Path
    history: tuple[RoundRecord, ...]
    weights: dict[str, NDArray[Any]]


def federate(
    config: FederateConfig,
    out: Path,
    on_progress: Callable[[RoundRecord], None] | None = None,
    *,
    use_ray: bool = True,
) -> FederationResult:
    """Train one policy on the datasets of all clients, none of which leaves its client.

    Args:
        config: the federation.
        out: directory for the bundle (`policy/`), `history.json` and the state of each round; where it holds a
            stopped run of the same configuration, that run is continued, with equal results.
        on_progress: called after each round of this call.
        use_ray: run coordinator and clients as actors; otherwise all in this process, with equal results.

    Raises:
        FederationError: clients disagree on channels, too few of them answer, or `out` holds another run.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if use_ray:
            stack.enter_context(ray_session())
        sites: Sites = RayActors(config.timeout_s) if use_ray else InProcess()
        stack.callback(sites.stop)
        federation = start_federation(sites, config, out)
        for _ in range(len(federation.history()), config.rounds):
            record = run_round(federation)
            if on_progress is not None:
                on_progress(record)
        history = federation.history()
        last = sites.value(sites.call(federation.coordinator, "weights"))
        # Arrays from Ray's object store are read-only and end with it.
        weights = {name: np.array(array) for name, array in last.items()}
    federation.learner.set_weights(weights)
    (out / "history.json").write_text(json.dumps([asdict(record) for record in history], indent=1), encoding="utf-8")
    return FederationResult(bundle=_save(config, out / "policy", federation, history), history=history, weights=weights)


def _save(config: FederateConfig, path: Path, federation: Federation, history: tuple[RoundRecord, ...]) -> Path:
    provenance = {
        "kind": "federated",
        "aggregator": config.aggregator,
        "algorithm": config.algorithm,
        "rounds": len(history),
        "local_updates": config.local_updates,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "clients": {
            name: {
                "num_samples": client.num_samples,
                "data_sha256": client.data_sha256,
                "feeder_hash": client.feeder_hash,
            }
            for name, client in federation.descriptions.items()
        },
        "weights_sha256": history[-1].weights_sha256,
    }
    description = next(iter(federation.descriptions.values()))
    task = make_task(description.task, description.task_config)
    save_bundle(path, learner=federation.learner, task=task, provenance=provenance)
    return path
