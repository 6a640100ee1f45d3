"""Policy bundles: a directory of one safetensors file and a manifest that binds it to its task and feeder."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer
from safetensors import SafetensorError

from gridray import __version__
from gridray.algorithms.actions import action_grid
from gridray.algorithms.device_layout import DeviceLayout, device_layout
from gridray.algorithms.device_policy import device_weight_shapes
from gridray.algorithms.policy import Head, LearnedPolicy, policy_weight_shapes
from gridray.algorithms.settings import Shape
from gridray.errors import BundleError, ConfigError
from gridray.tasks.base import ActionChannel, ObservationChannel  # pydantic reads them at run time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner
    from gridray.tasks.base import Task

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "policy.safetensors"
DEVICES: Final = "devices.safetensors"
FileName = Literal["policy.safetensors", "devices.safetensors"]
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_LAYOUT_BYTES = 256 * 2**20
_MAX_HEADER_BYTES = 2**16


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class NetworkSizes(_Strict):
    """Sizes of the actor, and how its outputs become actions."""

    observation_size: int = Field(ge=1, le=100_000)
    action_size: int = Field(ge=1, le=100_000)
    policy: Shape = "flat"
    hidden_sizes: tuple[int, ...] = Field(max_length=16)
    head: Head = "tanh"


class TaskReference(_Strict):
    """Task by name, with the configuration that `make_task` takes."""

    name: str
    config: dict[str, Any]


class FeederReference(_Strict):
    """Feeder by name and SHA-256 of its content."""

    name: str
    hash: str = Field(pattern="^[0-9a-f]{64}$")


class FileDigest(_Strict):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(_Strict):
    """Everything about a policy but its weights."""

    format: Literal["gridray-policy"] = "gridray-policy"
    format_version: Literal[1] = 1
    gridray_version: str
    algorithm: str
    network: NetworkSizes
    task: TaskReference
    feeder: FeederReference
    observation_channels: tuple[ObservationChannel, ...]
    action_channels: tuple[ActionChannel, ...]
    files: dict[FileName, FileDigest] = Field(min_length=1)
    provenance: dict[str, Any]

    @field_serializer("observation_channels", "action_channels")
    def _with_names(self, channels: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [channel._asdict() for channel in channels]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A policy that was checked when it was loaded, with its manifest."""

    path: Path
    manifest: Manifest
    policy: LearnedPolicy

    def policy_for(self, task: Task) -> LearnedPolicy:
        """Return the policy for a task: the same one, or a policy of devices on that task's feeder.

        Raises:
            BundleError: it is another task, or for a flat policy another feeder or other channels.
        """
        if self.manifest.network.policy == "flat":
            self.check_task(task)
            return self.policy
        if task.name != self.manifest.task.name:
            raise BundleError(
                f"Bundle '{self.path}' is for task '{self.manifest.task.name}', not '{task.name}': "
                "use a bundle that was trained for this task"
            )
        return self.policy.on(device_layout(task), task.action_channels)

    def check_task(self, task: Task) -> None:
        """Refuse a task on another feeder, or with other channels, than the policy was trained for.

        Raises:
            BundleError: names what differs.
        """
        remedy = "use a bundle that was trained for this task"
        if task.name != self.manifest.task.name:
            raise BundleError(
                f"Bundle '{self.path}' is for task '{self.manifest.task.name}', not '{task.name}': {remedy}"
            )
        found = task.feeder.content_hash()
        if found != self.manifest.feeder.hash:
            raise BundleError(
                f"Bundle '{self.path}' is for feeder '{self.manifest.feeder.name}' ({self.manifest.feeder.hash[:12]}), "
                f"the task has '{task.feeder.name}' ({found[:12]}): {remedy}"
            )
        self._check_channels("observation", self.manifest.observation_channels, task.observation_channels, remedy)
        self._check_channels("action", self.manifest.action_channels, task.action_channels, remedy)

    def _check_channels(self, kind: str, own: tuple[Any, ...], given: tuple[Any, ...], remedy: str) -> None:
        if len(own) != len(given):
            raise BundleError(
                f"Bundle '{self.path}' has {len(own)} {kind} channels, the task has {len(given)}: {remedy}"
            )
        for index, (mine, other) in enumerate(zip(own, given, strict=True)):
            if mine != other:
                raise BundleError(
                    f"Bundle '{self.path}' has {mine} as {kind} channel {index}, the task has {other}: {remedy}"
                )


def save_bundle(path: Path, *, learner: Learner, task: Task, provenance: Mapping[str, Any]) -> Bundle:
    """Write the learner's policy as a bundle; a bundle already at `path` is replaced.

    Args:
        path: directory to write; it is written aside and renamed, so it is whole or not there.
        learner: only the actor and the observations' normaliser are written, no critic.
        task: the task that the policy is for.
        provenance: plain values that say how the policy came about.

    Raises:
        BundleError: learner and task differ in size, or `path` holds something that is no bundle.
    """
    sizes = (learner.observation_size, learner.action_size)
    channels = (len(task.observation_channels), len(task.action_channels))
    if learner.shape == "flat" and sizes != channels:
        raise BundleError(f"Learner has {sizes} observations and actions, task '{task.name}' {channels}: train on it")
    network = NetworkSizes(
        observation_size=channels[0],
        action_size=channels[1],
        policy=learner.shape,
        hidden_sizes=learner.hidden_sizes,
        head=learner.policy().head,
    )
    return _write_bundle(path, learner.policy(), network, task, provenance)


def adapt_bundle(bundle: Bundle, path: Path, *, task: Task) -> Bundle:
    """Write a policy of devices as a bundle for another feeder, to serve it there; see `save_bundle`.

    Raises:
        BundleError: the policy is flat, or the task another one.
    """
    network = bundle.manifest.network
    if network.policy == "flat":
        raise BundleError(
            f"Bundle '{bundle.path}' has a flat policy, which is for one feeder: train a local or graph one"
        )
    sizes = {"observation_size": len(task.observation_channels), "action_size": len(task.action_channels)}
    provenance = bundle.manifest.provenance
    return _write_bundle(path, bundle.policy_for(task), network.model_copy(update=sizes), task, provenance)


def _write_bundle(
    path: Path, policy: LearnedPolicy, network: NetworkSizes, task: Task, provenance: Mapping[str, Any]
) -> Bundle:
    files: dict[FileName, bytes] = {WEIGHTS: safetensors.numpy.save(policy.weights)}
    if network.policy != "flat":
        files[DEVICES] = safetensors.numpy.save(device_layout(task).arrays())
    if path.exists() and not (path / MANIFEST).is_file() and any(path.iterdir()):
        raise BundleError(f"'{path}' holds something that is no bundle: give another directory")
    manifest = Manifest(
        gridray_version=__version__,
        algorithm=policy.name,
        network=network,
        task=TaskReference(name=task.name, config=task.config_dict()),
        feeder=FeederReference(name=task.feeder.name, hash=task.feeder.content_hash()),
        observation_channels=task.observation_channels,
        action_channels=task.action_channels,
        files={
            name: FileDigest(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
            for name, content in files.items()
        },
        provenance=dict(provenance),
    )
    aside = path.with_name(f".partial-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, content in files.items():
        (aside / name).write_bytes(content)
    (aside / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    bundle = load_bundle(aside)
    if path.exists():
        shutil.rmtree(path)
    aside.rename(path)
    return replace(bundle, path=path)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle after checking its manifest, its files and every array.

    Raises:
        BundleError: names the file and what is wrong with it.
    """
    path = Path(path)
    manifest = _read_manifest(path / MANIFEST)
    for entry in sorted(path.iterdir()):
        if entry.name not in {MANIFEST, *manifest.files} or entry.is_symlink() or not entry.is_file():
            raise BundleError(f"'{entry}' is not listed in the manifest as a plain file: remove it")
    network = manifest.network
    grid = action_grid(manifest.action_channels) if network.head == "mixed" else None
    layout = None
    if network.policy == "flat":
        if grid is not None and not len(grid.discrete):
            raise BundleError(f"'{path / MANIFEST}' has a mixed head but no action that is a choice: make it anew")
        num_outputs = network.action_size if grid is None else grid.num_outputs
        shapes = policy_weight_shapes(network.observation_size, num_outputs, network.hidden_sizes)
    else:
        layout = _read_layout(path / DEVICES, manifest)
        is_graph, is_mixed = network.policy == "graph", grid is not None
        shapes = device_weight_shapes(network.hidden_sizes, is_graph=is_graph, is_mixed=is_mixed)
    weights = _read_weights(path / WEIGHTS, manifest, shapes)
    policy = LearnedPolicy(manifest.algorithm, weights, head=network.head, grid=grid, layout=layout)
    return Bundle(path=path, manifest=manifest, policy=policy)


def _read_manifest(file: Path) -> Manifest:
    try:
        size = file.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise BundleError(f"'{file}' has {size} bytes, a manifest has at most {MAX_MANIFEST_BYTES}: make it anew")
        manifest = Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BundleError(
            f"'{file}' cannot be read ({error.strerror}): give the directory of a bundle made by `gridray train`"
        ) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in detail['loc']) or 'document'}: {detail['msg']}"
            for detail in error.errors()
        )
        raise BundleError(f"'{file}' is no manifest of a policy: {problems}") from error
    for kind, size, channels in (
        ("observation", manifest.network.observation_size, manifest.observation_channels),
        ("action", manifest.network.action_size, manifest.action_channels),
    ):
        if size != len(channels):
            raise BundleError(f"'{file}' has {len(channels)} {kind} channels but {kind}_size {size}: make it anew")
    network = manifest.network
    if min(network.hidden_sizes, default=1) < 1:
        raise BundleError(f"'{file}' has hidden_sizes {network.hidden_sizes}: widths are 1 or more")
    if network.policy != "flat" and not network.hidden_sizes:
        raise BundleError(f"'{file}' has no hidden_sizes, policy '{network.policy}' needs one layer or more")
    needed = {WEIGHTS} if network.policy == "flat" else {WEIGHTS, DEVICES}
    if manifest.files.keys() != needed:
        raise BundleError(f"'{file}' must list the files {', '.join(sorted(needed))}: make it anew")
    return manifest


def _read_layout(file: Path, manifest: Manifest) -> DeviceLayout:
    network = manifest.network
    try:
        layout = DeviceLayout.from_arrays(_read_arrays(file, manifest.files[DEVICES], MAX_LAYOUT_BYTES))
    except ConfigError as error:
        raise BundleError(f"'{file}': {error}") from error
    if (layout.num_observations, len(layout.slot_of_action)) != (network.observation_size, network.action_size):
        raise BundleError(f"'{file}' has other numbers of observations or actions than the manifest: make it anew")
    return layout


def _read_weights(file: Path, manifest: Manifest, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    most = 4 * sum(int(np.prod(shape)) for shape in shapes.values()) + _MAX_HEADER_BYTES
    weights = _read_arrays(file, manifest.files[WEIGHTS], most)
    found = {name: array.shape for name, array in weights.items()}
    if found != shapes:
        name = min(set(found.items()) ^ set(shapes.items()))[0]
        raise BundleError(f"'{file}': array '{name}' is {found.get(name)}, the network needs {shapes.get(name)}")
    for name, array in weights.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(f"'{file}': array '{name}' must be finite float32, it is {array.dtype}: make it anew")
    if not (weights["normaliser.observation_std"] > 0.0).all():
        raise BundleError(f"'{file}': normaliser.observation_std has values that are not above 0: make it anew")
    return weights


def _read_arrays(file: Path, listed: FileDigest, most: int) -> dict[str, NDArray[Any]]:
    try:
        size = file.stat().st_size
        if size != listed.bytes or size > most:
            raise BundleError(
                f"'{file}' has {size} bytes, the manifest allows {min(listed.bytes, most)}: copy it again"
            )
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != listed.sha256:
            raise BundleError(f"'{file}' has another SHA-256 than the manifest says: copy the bundle again")
        arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(content)
    except OSError as error:
        raise BundleError(f"'{file}' cannot be read ({error.strerror}): copy the bundle again") from error
    except SafetensorError as error:
        raise BundleError(f"'{file}' is no safetensors file ({error}): make the bundle anew") from error
    return arrays
