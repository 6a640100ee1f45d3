"""Words and numbers of one OpenDSS command line."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from gridray.errors import FeederError

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSING: Final = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'"}
MAX_NUMBER = 1e100

_QUOTED = r"\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|\"[^\"]*\"|'[^']*'"
_COMMENT = re.compile(rf"{_QUOTED}|(!|//)")
_PARAMETER = re.compile(rf"[\s,]*(?:([^\s,=\"'(\[{{][^\s,=]*|{_QUOTED})\s*=\s*)?({_QUOTED}|[^\s,=]+)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(rf"{_QUOTED}|[^\s,|]+")

Parameter = tuple[str | None, str]


class ScriptError(FeederError):
    """What is wrong with a command, without its place; the script adds file and line and goes on with the next."""


def without_comment(line: str) -> str:
    """Return the line up to its first ! or // outside quotes."""
    if "!" not in line and "//" not in line:
        return line
    for match in _COMMENT.finditer(line):
        if match[1]:
            return line[: match.start()]
    return line


def parameters(line: str) -> list[Parameter]:
    """Split "a=1 [2 3] b" into (name or None, value as written) pairs.

    Raises:
        ScriptError: a quote or bracket is not closed.
    """
    found: list[Parameter] = []
    at, end = 0, len(line.rstrip(" \t,\r\n\f\v"))
    while at < end:
        match = _PARAMETER.match(line, at)
        if match is None or match.end() == at or (match[1] is None and match[2] is None):
            raise ScriptError(f"'{line[at : at + 40].strip()}' does not read as name=value: correct it")
        name, value = match[1], match[2] or ""
        if value and value[0] in CLOSING and (len(value) == 1 or value[-1] != CLOSING[value[0]]):
            raise ScriptError(f"{value[:40]} opens with {value[0]} and is not closed: add {CLOSING[value[0]]}")
        found.append((text(name).lower() if name else None, value))
        at = match.end()
    return found


def text(raw: str) -> str:
    """Return the value without the quotes or brackets around it."""
    return raw[1:-1].strip() if raw and raw[0] in CLOSING else raw


def words(raw: str) -> list[str]:
    """Return the members of a list, as written."""
    return _WORD.findall(text(raw))


def number(raw: str) -> float:
    """Return a number, or what RPN maths in quotes or brackets gives.

    Raises:
        ScriptError: it is neither, or not finite.
    """
    if _NUMBER.fullmatch(raw):
        value = float(raw)
    elif raw and raw[0] in CLOSING:
        value = _reverse_polish(text(raw))
    else:
        raise ScriptError(f"'{raw[:40]}' is not a number: give one")
    if not abs(value) <= MAX_NUMBER:
        raise ScriptError(f"'{raw[:40]}' is not a finite number below {MAX_NUMBER:g}: correct it")
    return value


def numbers(raw: str) -> tuple[float, ...]:
    """Return the numbers of a list; one number is a list of one."""
    return tuple(number(word) for word in words(raw))


def matrix(raw: str) -> tuple[tuple[float, ...], ...]:
    """Return a full symmetric matrix from rows divided by |, lower triangle or full.

    Raises:
        ScriptError: the rows are neither.
    """
    rows = [tuple(number(word) for word in _WORD.findall(row)) for row in text(raw).split("|")]
    rows = [row for row in rows if row]
    n = len(rows)
    if n == 1 and len(rows[0]) > 1:
        raise ScriptError(f"{raw[:40]} is one row of {len(rows[0])} numbers: divide rows of a matrix by |")
    if [len(row) for row in rows] not in ([n] * n, list(range(1, n + 1))):
        raise ScriptError(f"{raw[:40]} has rows of {[len(row) for row in rows]} numbers: give a square or a triangle")
    return tuple(tuple(rows[max(i, j)][min(i, j)] for j in range(n)) for i in range(n))


def yes(raw: str) -> bool:
    """Return whether the value says yes.

    Raises:
        ScriptError: it says neither yes nor no.
    """
    first = text(raw)[:1].lower()
    if first not in {"y", "t", "n", "f"}:
        raise ScriptError(f"'{raw[:40]}' is neither yes nor no: give yes or no")
    return first in {"y", "t"}


_UNARY: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "sqr": lambda x: x * x,
    "inv": lambda x: 1.0 / x,
    "ln": math.log,
    "log10": math.log10,
    "exp": math.exp,
    "sin": lambda x: math.sin(math.radians(x)),
    "cos": lambda x: math.cos(math.radians(x)),
    "tan": lambda x: math.tan(math.radians(x)),
    "asin": lambda x: math.degrees(math.asin(x)),
    "acos": lambda x: math.degrees(math.acos(x)),
    "atan": lambda x: math.degrees(math.atan(x)),
}
_BINARY: dict[str, Callable[[float, float], float]] = {
    "+": lambda y, x: y + x,
    "-": lambda y, x: y - x,
    "*": lambda y, x: y * x,
    "/": lambda y, x: y / x,
    "^": math.pow,
    "atan2": lambda y, x: math.degrees(math.atan2(y, x)),
}


def _reverse_polish(expression: str) -> float:
    stack: list[float] = []
    try:
        for word in re.split(r"[\s,]+", expression.lower()):
            _push(stack, word)
    except (ArithmeticError, ValueError) as error:
        raise ScriptError(f"the maths '{expression[:40]}' has no value ({error}): correct it") from error
    except IndexError as error:
        raise ScriptError(f"the maths '{expression[:40]}' lacks a number: correct it") from error
    if not stack:
        raise ScriptError("a number is missing between brackets: give one")
    return stack[-1]


def _push(stack: list[float], word: str) -> None:
    if _NUMBER.fullmatch(word):
        stack.append(float(word))
    elif word in _BINARY:
        x, y = stack.pop(), stack.pop()
        stack.append(_BINARY[word](y, x))
    elif word in _UNARY:
        stack.append(_UNARY[word](stack.pop()))
    elif word == "pi":
        stack.append(math.pi)
    elif word == "swap":
        stack[-1], stack[-2] = stack[-2], stack[-1]
    elif word == "rollup":
        stack.insert(0, stack.pop())
    elif word == "rolldn":
        stack.append(stack.pop(0))
    elif word:
        raise ScriptError(f"'{word[:40]}' is not a number: give one")
