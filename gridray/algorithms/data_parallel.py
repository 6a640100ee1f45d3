"""Several learners train one policy by Ray Train: each takes a part of every batch, and gradients are averaged.

All draw the same batches and take every size-th row from their own on, so that averaged gradients are those of the
whole batch: the result is that of one learner but for rounding, and either can go on from the other's checkpoint. (The
scale of Q in TD3+BC's loss and the noise of targets are each learner's own.)
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray.train
import torch
from ray.train.torch import TorchTrainer
from torch import distributed

from gridray.algorithms.gauges import TrainingGauges
from gridray.algorithms.train import (
    HistoryRow,
    TrainConfig,
    Training,
    TrainResult,
    is_streamed,
    run_to_end,
    write_result,
)
from gridray.cluster.runtime import ray_session
from gridray.datasets.dataset import OfflineDataset
from gridray.errors import ConfigError, GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch.nn import Parameter

ALGORITHMS = ("bc", "cql", "iql", "rebrac", "td3_bc")
"""Those whose weights move by gradients alone; awr and iql_lagrange keep averages of their own batches besides."""
SCRATCH = ".ray_train"


def train_in_parallel(config: TrainConfig, out: Path, num_workers: int) -> TrainResult:
    """Train a policy with several learners, one CPU each, or one GPU each where the configured device is one.

    Args:
        config: the run; batch_size is that of all learners together.
        out: as of `gridray.algorithms.train.train`; on several machines a folder that all of them share.
        num_workers: learners.

    Raises:
        ConfigError: the algorithm, the batch size or a stream cannot be divided.
        GridRayError: a learner failed.
    """
    if config.algorithm not in ALGORITHMS:
        raise ConfigError(f"'{config.algorithm}' trains with one worker only: give one of {', '.join(ALGORITHMS)}")
    if config.batch_size % num_workers:
        raise ConfigError(f"batch_size is {config.batch_size}: give a multiple of the {num_workers} workers")
    start = None if config.start is None else config.start.absolute()
    config, out = replace(config, dataset=config.dataset.absolute(), start=start), out.absolute()
    if is_streamed(config, OfflineDataset.open(config.dataset)):
        raise ConfigError("Several workers read their data from memory: leave out --stream, or give one worker")
    scaling = ray.train.ScalingConfig(
        num_workers=num_workers, use_gpu=str(config.learner.get("device", "cpu")).startswith("cuda")
    )
    run = ray.train.RunConfig(name="run", storage_path=str(out / SCRATCH))
    # Its plans are no news to who asked for a policy.
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    try:
        with ray_session():
            TorchTrainer(
                _learn, train_loop_config={"config": config, "out": out}, scaling_config=scaling, run_config=run
            ).fit()
    except ray.train.TrainingFailedError as error:
        reason = str(error).strip().splitlines()[-1]
        raise GridRayError(f"Training with {num_workers} workers failed: {reason}") from error
    finally:
        shutil.rmtree(out / SCRATCH, ignore_errors=True)
    rows = json.loads((out / "history.json").read_text(encoding="utf-8"))
    return TrainResult(bundle=out / "policy", history=tuple(HistoryRow(**row) for row in rows))


def _learn(settings: dict[str, Any]) -> None:
    """Train in one worker; the first one writes."""
    config, out = settings["config"], settings["out"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    dataset = OfflineDataset.open(config.dataset)
    training = Training(config, dataset, part=(rank, context.get_world_size()))
    training.learner.set_gradient_terms([_average])
    is_first = rank == 0
    run_to_end(training, config, out, TrainingGauges(config.algorithm) if is_first else None, is_writer=is_first)
    if is_first:
        write_result(training, config, dataset, out)


def _average(parameters: Mapping[str, Parameter]) -> None:
    """Replace gradients by their mean over the workers."""
    gradients = [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
