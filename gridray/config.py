"""Configuration at the edge: YAML or a mapping becomes a frozen dataclass, and a typo is an error."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

ConfigT = TypeVar("ConfigT")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def load_config(cls: type[ConfigT], path: Path) -> ConfigT:
    """Read a YAML file as an instance of the dataclass `cls`.

    Raises:
        ConfigError: The file cannot be read, is no YAML mapping, or has a key or value that `cls` does not allow.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"Configuration file '{path}' cannot be read ({error.strerror}): give the path of a YAML file"
        raise ConfigError(message) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"Configuration file '{path}' is not valid YAML: {error}"
        raise ConfigError(message) from error
    return parse_config(cls, {} if data is None else data, where=str(path))


def parse_yaml(text: str) -> Any:  # noqa: ANN401  # whatever the text holds
    """Return what a YAML text holds: plain data only, no key twice.

    Raises:
        yaml.YAMLError: it is not YAML, or gives a key twice.
    """
    # A safe loader with one rule more, which the linter cannot see.
    return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506


class _UniqueKeyLoader(yaml.CSafeLoader):
    """Safe loader that refuses a key given twice, where YAML's own would keep the last one."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if str(key.value) in seen:
            raise yaml.constructor.ConstructorError(
                "while reading a mapping", node.start_mark, f"key '{key.value}' is there twice", key.start_mark
            )
        seen.add(str(key.value))
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def parse_config(cls: type[ConfigT], data: Mapping[str, Any], *, where: str = "configuration") -> ConfigT:
    """Make an instance of the dataclass `cls` from plain data; nested dataclasses are checked the same way.

    Args:
        cls: Dataclass whose field names are the only keys allowed.
        data: Keys and values as YAML gives them.
        where: Name of the source, put in front of every error.

    Raises:
        ConfigError: Lists every unknown key (with the nearest valid one), missing key and wrong value.
    """
    if not hasattr(data, "keys"):
        message = f"{where}: expected a mapping of keys to values, got {type(data).__name__}"
        raise ConfigError(message)
    try:
        checked: ConfigT = _adapter(cls).validate_python(dict(data), extra="forbid")
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_explain(cls, detail)}" for detail in error.errors())) from error
    return checked


def _adapter(cls: Any) -> TypeAdapter[Any]:  # noqa: ANN401  # a dataclass
    """Return pydantic's view of a dataclass, which costs milliseconds to make."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _explain(cls: type[object], detail: ErrorDetails) -> str:
    location = detail["loc"]
    key = ".".join(str(part) for part in location)
    if detail["type"] == "missing":
        return f"required key '{key}' is missing: add it"
    if detail["type"] != "unexpected_keyword_argument":
        return f"key '{key}' has value {detail['input']!r}: {detail['msg']}"
    valid = _valid_keys(cls, location[:-1])
    nearest = get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    return f"unknown key '{key}': {hint}Valid keys: {', '.join(valid)}"


def _valid_keys(cls: type[object], parents: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the dataclass that stands at a location of the data."""
    candidates = list(_dataclasses_in(cls))
    for part in parents:
        hints = [get_type_hints(candidate) for candidate in candidates]
        inner = [found for hint in hints if part in hint for found in _dataclasses_in(hint[str(part)])]
        # List indices, mapping keys and union tags are no fields: the candidates stay as they are.
        candidates = inner or candidates
    return sorted({field.name for candidate in candidates for field in fields(candidate) if field.init})


def _dataclasses_in(hint: Any) -> Iterator[Any]:  # noqa: ANN401  # type hints have no common type
    if is_dataclass(hint):
        yield hint
    for argument in get_args(hint):
        yield from _dataclasses_in(argument)
