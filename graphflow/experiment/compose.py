"""From words on a command line to a checked `Config`; what is wrong with them is said in one sentence.

Hydra's grammar, groups and composition are used as they are. Overrides are checked against the dataclasses first, since
Hydra's own messages for a misspelt key, an unknown name or an enum take many lines and suggest nothing.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from graphflow.errors import unknown_name
from graphflow.experiment.config import GROUPS, Config, register
from graphflow.paths import CONF


class ConfigError(ValueError):
    """The configuration is wrong; the message is one sentence: key, what was given, what is allowed."""


def compose(overrides: Sequence[str] = ()) -> Config:
    """The checked configuration.

    Args:
        overrides: Hydra overrides without sweeps, for example ``["kv=stateless", "engine.concurrency=4"]``.

    Raises:
        ConfigError: A key, a name, a type or a value is wrong.
    """
    return to_config(compose_raw(check(overrides)))


def compose_raw(overrides: Sequence[str]) -> DictConfig:
    """Compose without building the dataclasses: unchecked ranges, interpolations left in.

    Raises:
        ConfigError: Hydra or OmegaConf refuse the overrides.
    """
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            return hydra_compose(config_name="config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(sentence(error)) from None


def to_config(raw: DictConfig) -> Config:
    """Build the dataclasses: the one place where OmegaConf ends.

    Raises:
        ConfigError: A value is missing or out of range.
    """
    OmegaConf.resolve(raw)
    try:
        config = OmegaConf.to_object(raw)
    except OmegaConfBaseException as error:
        raise ConfigError(sentence(error)) from None
    except ValueError as error:
        raise ConfigError(_with_group(raw, error)) from None
    assert isinstance(config, Config)
    return config


def check(overrides: Sequence[str]) -> list[str]:
    """Overrides in the form that OmegaConf takes (enum values by member name), each checked against the dataclasses.

    Raises:
        ConfigError: An override cannot be parsed, or names an unknown key, group option or enum value.
    """
    parser = OverridesParser.create()
    checked = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            raise ConfigError(f"{text!r} is not of the form key=value, for example kv=stateless") from None
        checked.append(_check_one(override, text))
    return checked


def expand(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Each choice of each sweep once, the others at their first choice: enough to check every value of a sweep."""
    parser = OverridesParser.create()
    choices = []
    for override in parser.parse_overrides(list(overrides)):
        key = override.get_key_element()
        swept = override.is_sweep_override() and isinstance(override.value(), ChoiceSweep)
        options = (
            [f"{key}={option}" for option in override.sweep_string_iterator()] if swept else [override.input_line or ""]
        )
        choices.append(options)
    first = [options[0] for options in choices]
    yield first
    for place, options in enumerate(choices):
        for option in options[1:]:
            yield [*first[:place], option, *first[place + 1 :]]


def group_options(group: str) -> list[str]:
    """Names in one config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def sentence(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one sentence, with the key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    key = getattr(error, "full_key", None) or getattr(cause, "full_key", None)
    if cause is not None and isinstance(cause, OmegaConfBaseException):
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if not key or key in text else f"{key}: {text}"


def _check_one(override: Override, text: str) -> str:
    key = override.key_or_group
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        return text
    if override.type in (OverrideType.ADD, OverrideType.DEL):
        _resolve(key)
        sign = "+" if override.type is OverrideType.ADD else "~"
        raise ConfigError(f"{sign}{key} is not allowed: the keys are fixed; write {key}=value to change one")
    if key in GROUPS and "." not in key:
        for option in _choices(override):
            if option not in group_options(key):
                raise ConfigError(f"{key}: {unknown_name(key, option, group_options(key))}")
        return text
    kind = _resolve(key)
    return _enum_names(override, kind, text) if isinstance(kind, type) and issubclass(kind, Enum) else text


def _choices(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(option) for option in override.sweep_string_iterator()]
    return [str(override.value())]


def _resolve(key: str) -> Any:
    """Type of the field that a dotted key names.

    Raises:
        ConfigError: There is no such field.
    """
    kind: Any = Config
    parts = key.split(".")
    for place, part in enumerate(parts):
        prefix = ".".join(parts[:place])
        if not dataclasses.is_dataclass(kind):
            if typing.get_origin(kind) in (dict, list) or kind in (dict, list):
                return Any
            raise ConfigError(f"{key}: {prefix} is a single value and has no key {part!r}")
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        if part not in names:
            full = [f"{prefix}.{name}" if prefix else name for name in names]
            raise ConfigError(unknown_name("key", f"{prefix}.{part}" if prefix else part, full))
        kind = hints[part]
    return kind


def _enum_names(override: Override, kind: type[Enum], text: str) -> str:
    by_value = {str(member.value): member.name for member in kind}
    by_value |= {member.name: member.name for member in kind}
    names = []
    for option in _choices(override):
        if option not in by_value:
            allowed = [str(member.value) for member in kind]
            raise ConfigError(unknown_name(f"value of {override.key_or_group}", option, allowed))
        names.append(by_value[option])
    return f"{override.get_key_element()}={','.join(names)}"


def _with_group(raw: DictConfig, error: ValueError) -> str:
    """The message of a range check, with the group in front where the dataclass did not know it."""
    for group in (*GROUPS, "fit", "trials"):
        try:
            OmegaConf.to_object(raw[group])
        except ValueError as found:
            message = " ".join(str(found).split())
            return message if message.startswith(group) else f"{group}.{message}"
    return " ".join(str(error).split())


def resolved(config: Config) -> dict[str, Any]:
    """The configuration as plain values, enums by value: what the record keeps and the run id is made of."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Path():
            return str(value)
        case _:
            return value


def usage() -> str:
    """The config groups and the names in them, for the help text."""
    width = max(map(len, GROUPS))
    lines = (f"  {group:<{width}}  {', '.join(group_options(group))}" for group in GROUPS)
    return "\n".join(chain(["Groups and names:"], lines))
