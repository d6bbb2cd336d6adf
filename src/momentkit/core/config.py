"""Frozen dataclasses from TOML: unknown and duplicate keys refused, file and key named."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from momentkit.core.errors import ConfigError
from momentkit.core.files import read_bytes

T = TypeVar("T")
MAX_CONFIG_BYTES = 1024**2


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a frozen dataclass of options from a mapping, checking names and types.

    Args:
        kind: the dataclass.
        values: option -> value, as TOML gives them; lists may stand for tuples.
        where: what the message names, such as "configs/a.toml [model]".

    Raises:
        ConfigError: an unknown option (the known ones are listed), a missing one, or a bad value.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - known):
        raise ConfigError(f"{where}: no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
    checked = checked_dataclass(
        kind, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False), frozen=True
    )
    try:
        validated = TypeAdapter(checked).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]) or "options"
        raise ConfigError(f"{where}: {option}: {first['msg'].lower()}, got {first['input']!r}") from error
    for name, value in values.items():  # pydantic would read "256" and true as numbers
        number = type(getattr(validated, name)) in (int, float)
        if number and type(value) not in (int, float):
            raise ConfigError(f"{where}: {name}: a number is wanted, got {value!r}")
    return kind(**{name: getattr(validated, name) for name in values})


def check_sizes(options: Any, *, multiple_of: int) -> None:
    """What holds for the options of every model of the family, as far as a model has them.

    Args:
        options: a frozen dataclass with `hidden` and `heads`.
        multiple_of: what `hidden` must be a multiple of, beside `heads`.

    Raises:
        ConfigError: a width, count, rate or weight that cannot be; the option is named.
    """
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    hidden, heads = values["hidden"], values["heads"]
    if not (hidden > 0 and heads > 0 and hidden % heads == 0 and hidden % multiple_of == 0):
        raise ConfigError(f"hidden must be a multiple of {multiple_of} and of heads, got {hidden}, {heads}")
    for name, value in values.items():
        if name.endswith("_layers") or name in ("queries", "decoder_loops", "video_dim", "text_dim"):
            if not value >= 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        elif name.endswith("dropout"):
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must lie in [0, 1), got {value}")
        elif (
            name.startswith(("weight_", "distill_memory", "text_positions", "background")) and not value >= 0
        ):
            raise ConfigError(f"{name} must not be negative, got {value}")


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as nested dictionaries.

    Raises:
        ConfigError: unreadable or not TOML (a duplicate key is not TOML); names file and line.
    """
    text = read_bytes(path, MAX_CONFIG_BYTES)
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def override(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Apply `section.key=value` settings from a command line to a copy of nested options.

    The value is read as TOML; what is no TOML is taken as a string.

    Raises:
        ConfigError: a setting without "=", or without a section.
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(f"--set takes section.key=value, got {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        if not isinstance(result.setdefault(section, {}), dict):
            raise ConfigError(f"--set {setting}: {section} is no section")
        result[section][key] = value
    return result
