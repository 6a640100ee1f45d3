"""The same trivial round in Flower's simulation; run by federation.py with an interpreter that has flwr[simulation].

Arguments: number of float32 values, numbers of clients with commas between them.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

NUM_ROUNDS = 10


class TrivialClient(NumPyClient):
    """Adds 1 to every weight."""

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        """Return the weights, the number of samples and no metrics."""
        del config
        return [array + np.float32(1.0) for array in parameters], 100, {}


class TimedFedAvg(FedAvg):
    """FedAvg that notes when each round begins."""

    starts: list[float]

    def configure_fit(self, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        """Note the time."""
        self.starts.append(time.perf_counter())
        return super().configure_fit(*arguments, **settings)


def seconds_per_round(num_values: int, num_clients: int) -> float:
    """Return the median time from the beginning of one round to that of the next."""
    strategy = TimedFedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=num_clients,
        min_available_clients=num_clients,
        initial_parameters=ndarrays_to_parameters([np.zeros(num_values, dtype=np.float32)]),
    )
    strategy.starts = []
    parts = ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=NUM_ROUNDS))
    run_simulation(
        server_app=ServerApp(server_fn=lambda _: parts),
        client_app=ClientApp(client_fn=lambda _: TrivialClient().to_client()),
        num_supernodes=num_clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "_node_ip_address": "127.0.0.1", "include_dashboard": False},
        },
    )
    return median(np.diff(strategy.starts)[1:])


def main() -> None:
    """Print one line of JSON."""
    num_values, counts = int(sys.argv[1]), [int(part) for part in sys.argv[2].split(",")]
    rows = []
    for num_clients in counts:
        seconds = seconds_per_round(num_values, num_clients)
        rows.append(
            {
                "clients": num_clients,
                "ms_per_round": round(1e3 * seconds, 1),
                "client_rounds_per_s": round(num_clients / seconds, 1),
            }
        )
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
