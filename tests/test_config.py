"""Configuration: what is right becomes a dataclass, what is wrong is named with its remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gridray.config import load_config, parse_config
from gridray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """One entry of a list of nested configurations."""

    name: str
    dataset: Path


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Configuration with every shape that the project's own ones have."""

    rounds: int = 3
    learning_rate: float = 3e-4
    hidden_sizes: tuple[int, ...] = (256, 256)
    clients: tuple[ClientConfig, ...] = ()
    teacher: ClientConfig | None = None
    by_name: dict[str, ClientConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the one rule that types cannot say."""
        if self.rounds < 1:
            message = f"rounds is {self.rounds}: give at least 1"
            raise ConfigError(message)


def test_yaml_file_becomes_nested_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    client = "{name: north, dataset: data/n}"
    path.write_text(
        f"rounds: 5\nlearning_rate: 1e-3\nhidden_sizes: [8, 8]\nclients: [{client}]\n"
        f"teacher: {client}\nby_name: {{n: {client}}}\n"
    )
    config = load_config(RunConfig, path)
    expected = ClientConfig(name="north", dataset=Path("data/n"))
    assert config.rounds == 5
    # YAML 1.1 takes 1e-3 for a string, because it has no dot: the field's type makes it a number all the same.
    assert config.learning_rate == 1e-3
    assert config.hidden_sizes == (8, 8)
    assert (config.clients, config.teacher, config.by_name) == ((expected,), expected, {"n": expected})


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# nothing but a comment\n")
    assert load_config(RunConfig, path) == RunConfig()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"learning_rte": 1.0}, ["here.yaml", "'learning_rte'", "did you mean 'learning_rate'"]),
        ({"clients": [{"name": "n", "data_set": "d"}]}, ["'clients.0.data_set'", "did you mean 'dataset'"]),
        ({"teacher": {"names": "n"}}, ["'teacher.names'", "did you mean 'name'"]),
        ({"by_name": {"north": {"names": "n"}}}, ["'by_name.north.names'", "did you mean 'name'"]),
        ({"zzz": 1}, ["'zzz'", "Valid keys: by_name, clients, hidden_sizes"]),
        ({"clients": [{"name": "n"}]}, ["required key 'clients.0.dataset' is missing"]),
        ({"rounds": "many"}, ["key 'rounds' has value 'many'", "integer"]),
        ({"rounds": 0}, ["rounds is 0: give at least 1"]),
        (["rounds"], ["here.yaml", "expected a mapping", "list"]),
    ],
)
def test_error_names_key_rule_and_remedy(data: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(RunConfig, data, where="here.yaml")
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(RunConfig, {"rouns": 1, "learning_rate": "fast", "teacher": {"name": "n"}})
    assert len(str(caught.value).splitlines()) == 3


def test_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_config(RunConfig, tmp_path / "missing.yaml")


def test_broken_yaml_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("rounds: [1, 2\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(RunConfig, path)


def test_key_that_is_there_twice_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("rounds: 3\nsize: 1\nrounds: 30\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="key 'rounds' is there twice"):
        load_config(RunConfig, path)
