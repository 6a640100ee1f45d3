"""The tasks that can be named in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gridray.config import parse_config
from gridray.errors import ConfigError
from gridray.tasks.curtailment import Curtailment, CurtailmentConfig
from gridray.tasks.ev_charging import EvCharging, EvChargingConfig
from gridray.tasks.reconfiguration import Reconfiguration, ReconfigurationConfig
from gridray.tasks.storage import Storage, StorageConfig
from gridray.tasks.volt_var import VoltVar, VoltVarConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridray.tasks.base import Task

TASKS: dict[str, tuple[type[Any], type[Any]]] = {
    Curtailment.name: (Curtailment, CurtailmentConfig),
    EvCharging.name: (EvCharging, EvChargingConfig),
    Reconfiguration.name: (Reconfiguration, ReconfigurationConfig),
    Storage.name: (Storage, StorageConfig),
    VoltVar.name: (VoltVar, VoltVarConfig),
}
"""Task name -> (task class, its configuration class)."""


def make_task(name: str, config: Mapping[str, Any] | None = None) -> Task:
    """Return the named task with this configuration.

    Raises:
        ConfigError: no such task, or a key or value that its configuration does not have.
    """
    if name not in TASKS:
        raise ConfigError(f"There is no task '{name}': give one of {', '.join(sorted(TASKS))}.")
    task_class, config_class = TASKS[name]
    task: Task = task_class(parse_config(config_class, dict(config or {}), where=f"task '{name}'"))
    return task
