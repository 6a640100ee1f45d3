"""A loaded bundle as the server needs it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridray.algorithms.bundle import MANIFEST, load_bundle
from gridray.policies.base import Policy  # dataclasses read their annotations
from gridray.serving import schemas
from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ServedPolicy:
    """A policy, and what its bundle tells about it; policy_id is the SHA-256 of the bundle's manifest."""

    policy: Policy
    policy_id: str
    task: str
    algorithm: str
    feeder_name: str
    feeder_hash: str
    observation_channels: tuple[ObservationChannel, ...]
    action_channels: tuple[ActionChannel, ...]

    @property
    def model(self) -> str:
        """Name under which the Open Inference Protocol knows the policy."""
        return f"{self.task}-{self.feeder_name}"

    def info(self) -> schemas.PolicyInfo:
        """Return what an operator must know to ask for set-points."""
        return schemas.PolicyInfo(
            model=self.model,
            policy_id=self.policy_id,
            task=self.task,
            algorithm=self.algorithm,
            feeder=schemas.FeederInfo(name=self.feeder_name, hash=self.feeder_hash),
            observations=[
                schemas.ObservationInfo(name=channel.name, unit=channel.unit, nominal=channel.offset)
                for channel in self.observation_channels
            ],
            actions=[schemas.ActionInfo(**channel._asdict()) for channel in self.action_channels],
        )

    def metadata(self) -> schemas.ModelMetadata:
        """Return the model's metadata of the Open Inference Protocol."""
        num_observations, num_actions = len(self.observation_channels), len(self.action_channels)
        return schemas.ModelMetadata(
            name=self.model,
            versions=[self.policy_id],
            platform="gridray",
            inputs=[schemas.TensorMetadata(name="observations", datatype="FP64", shape=[-1, num_observations])],
            outputs=[schemas.TensorMetadata(name="actions", datatype="FP32", shape=[-1, num_actions])],
        )


def load_served(path: Path) -> ServedPolicy:
    """Load a bundle after checking every hash in it.

    Raises:
        BundleError: The bundle is missing, damaged or of another format.
    """
    bundle = load_bundle(path)
    manifest = bundle.manifest
    return ServedPolicy(
        policy=bundle.policy,
        policy_id=hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest(),
        task=manifest.task.name,
        algorithm=manifest.algorithm,
        feeder_name=manifest.feeder.name,
        feeder_hash=manifest.feeder.hash,
        observation_channels=manifest.observation_channels,
        action_channels=manifest.action_channels,
    )
