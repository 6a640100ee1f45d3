"""A policy for some kinds of devices, the utility's controls for the others."""

from __future__ import annotations

import numpy as np
import pytest

from gridray.errors import ConfigError
from gridray.policies.registry import make_policy
from gridray.policies.with_controls import WithControls
from gridray.tasks.registry import make_task


def test_only_the_named_kinds_do_what_the_policy_says() -> None:
    task = make_task("volt_var", {"feeder": "ieee13", "num_days": 10})
    state = task.new_state(3)
    task.reset(state, np.arange(3), np.array([0, 1, 2]), np.arange(3, dtype=np.uint64))
    seen, rng = task.observe(state), np.random.default_rng
    policy = WithControls(make_policy("random", task), task, ("pv", "battery"))
    assert policy.name == "random"
    actions = policy.act(seen, rng(5))
    is_own = np.array([c.name.startswith(("pv.", "battery.")) for c in task.action_channels])
    assert is_own.any()
    assert not is_own.all()
    np.testing.assert_array_equal(actions[:, is_own], make_policy("random", task).act(seen, rng(5))[:, is_own])
    controls = make_policy("utility_controls", task).act(seen, rng(0))
    np.testing.assert_array_equal(actions[:, ~is_own], controls[:, ~is_own])
    assert actions.dtype == np.float32


def test_kinds_that_the_task_does_not_command_are_refused() -> None:
    task = make_task("volt_var", {"feeder": "ieee13", "num_days": 10})
    with pytest.raises(
        ConfigError, match="kinds is \\['wind'\\], but 'volt_var' has no such device here: give some of"
    ):
        WithControls(make_policy("droop", task), task, ("wind",))
