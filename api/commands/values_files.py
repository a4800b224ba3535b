"""Files that hold a service's values: JSON, TOML or YAML, read so that nothing means something else than it says."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, cast

from config_manager.api.commands.options import file_of
from config_manager.config.errors import SettingsInvalid

Values = dict[str, Any]

_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def read_values(path: Path) -> Values:
    """The object that a file holds, by its suffix; `-` is JSON from stdin. Raises SettingsInvalid."""
    if str(path) == "-":
        return _object("stdin, read as JSON", _json, sys.stdin.buffer.read())
    readers = {".json": _json, ".toml": _toml, ".yaml": _yaml, ".yml": _yaml}
    reader = readers.get(path.suffix)
    if reader is None:
        raise SettingsInvalid(f"{path}: expected a file .json, .toml, .yaml or .yml")
    with file_of("", path):
        data = path.read_bytes()
    return _object(str(path), reader, data)


def _object(where: str, reader: Callable[[str], Any], data: bytes) -> Values:
    try:
        value = reader(data.decode())
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(f"{where}: {error or 'nested too deep'}") from None
    if not isinstance(value, dict):
        raise SettingsInvalid(f"{where}: expected an object: key → value")
    return cast("Values", value)


def _json(text: str) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> Values:
        made = dict(found)
        if len(made) != len(found):
            raise ValueError("a key stands twice in one object")
        return made

    return json.loads(text, object_pairs_hook=pairs)


def _toml(text: str) -> Any:
    return _without_times(tomllib.loads(text))


def _without_times(value: Any) -> Any:
    """As it is. Raises ValueError for what only TOML has."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {key: _without_times(one) for key, one in members.items()}
    if isinstance(value, list):
        return [_without_times(one) for one in cast("Sequence[Any]", value)]
    if isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"{value} is a date or a time: write it in quotes")


def _yaml(text: str) -> Any:
    yaml: Any = import_module("yaml")
    try:
        return yaml.load(text, _strict_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{at}{error.problem or error}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


@cache
def _strict_loader() -> Any:
    """YAML as people read it: `no`, `22:00` and `0777` are texts, a key stands once, and nothing refers to something
    else, which could be as large as anything."""
    yaml: Any = import_module("yaml")

    def refuse(problem: str, mark: Any) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    def compose(loader: Any, parent: Any, index: Any) -> Any:
        if loader.check_event(yaml.AliasEvent):
            refuse("aliases (*) are not read: write it out", loader.peek_event().start_mark)
        return yaml.SafeLoader.compose_node(loader, parent, index)

    def mapping(loader: Any, node: Any) -> Values:
        made: Values = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                refuse("a key has to be text", key_node.start_mark)
            if key in made:
                refuse(f"{key[:80]!r} is there already", key_node.start_mark)
            made[key] = loader.construct_object(value_node, deep=True)
        return made

    def text(_: Any, node: Any) -> Any:
        return _plain(node.value) if node.style is None else node.value

    members: dict[str, Any] = {"yaml_implicit_resolvers": {}, "compose_node": compose}
    strict: Any = type("StrictLoader", (yaml.SafeLoader,), members)
    strict.add_constructor("tag:yaml.org,2002:map", mapping)
    strict.add_constructor("tag:yaml.org,2002:str", text)
    return strict


def _plain(text: str) -> Any:
    """A value without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    return float(text) if found[1] or found[2] else int(text)
