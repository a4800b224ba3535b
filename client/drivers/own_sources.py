"""The variables of a `BaseSettings`, read the way it reads them itself.

pydantic-settings' own sources are asked, so that prefixes, aliases, nested delimiters and JSON lists work
as their user knows them. The order is ours: environment, `.env`, delivered, secret files, defaults. A
source that is none of these can't be told from what an operator sets, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from pydantic import AliasPath, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
)
from pydantic_settings.sources.utils import parse_env_vars

from config_manager.client.model.complaints import complaints_about
from config_manager.client.model.guarded import attempt
from config_manager.client.model.judging import DoesNotFit, judging
from config_manager.client.model.overrides import (
    Override,
    Place,
    check,
    laid_over,
    no_value_in_json,
)
from config_manager.client.model.spelling import Key, taken_under
from config_manager.client.model.values import plain
from config_manager.client.model.words import Secrets
from config_manager.client.settings_source import DeliveredSource
from config_manager.client.state.env_file import OURS, Lines
from config_manager.config import strict_json
from config_manager.config.errors import SettingsInvalid

_PLACES: Mapping[str, Place] = {
    "EnvSettingsSource": "environment",
    "DotEnvSettingsSource": ".env",
    "SecretsSettingsSource": "secret file",
}
_ORDER = ("environment", ".env", "delivered", "secret file")
_OTHERS = ("InitSettingsSource", "DefaultSettingsSource")
"""These hold nothing here: nobody passes arguments, and the model knows its defaults."""


class Own(NamedTuple):
    """above: what shadows what is delivered. beneath: what that shadows."""

    above: dict[str, Override]
    beneath: dict[str, Override]


def read_own(
    model: type[BaseModel],
    prefix: str,
    environment: Mapping[str, str],
    env_file: Lines,
) -> Own:
    """By key. Raises SettingsInvalid: a variable does not fit, or a source can't be honoured."""
    above: dict[str, Override] = {}
    beneath: dict[str, Override] = {}
    for source in reversed(_sources(model, prefix, environment, env_file)):
        layer = beneath if source.place == "secret file" else above
        for key, override in source.overrides().items():
            value = override.value
            if key in layer:  # a nested variable adds to what a lower source says of the others
                value = laid_over({key: layer[key].value}, {key: value})[key]
            layer[key] = Override(override.place, override.name, value)
    check({**beneath, **above}, model)
    return Own(above, beneath)


def variable_names(model: type[BaseModel], prefix: str) -> dict[str, list[str]]:
    """By field: the variables that it is read from, with the prefix where one belongs."""
    target = model.model_config.get("env_prefix_target") or "variable"
    named: dict[str, list[str]] = {}
    for key, keys in taken_under(model).items():
        named[key] = []
        for head in map(_head, keys):
            has_prefix = target in ("all", "variable" if head == key else "alias")
            named[key].append(prefix + head if has_prefix else head)
    return named


def _head(key: Key) -> str:
    return str(key.path[0]) if isinstance(key, AliasPath) else key


@dataclass(frozen=True)
class _Source:
    """One of pydantic-settings' sources, and where it looks.

    names: see `variable_names`. spelled: the names as the source compares them → as they are written there.
    """

    model: type[BaseModel]
    place: Place
    source: PydanticBaseSettingsSource
    names: Mapping[str, list[str]]
    spelled: Mapping[str, str]

    def overrides(self) -> dict[str, Override]:
        data = self._data()
        found: dict[str, Override] = {}
        used = set[str]()
        for key, keys in taken_under(self.model).items():
            used.update(map(_head, keys))
            values = (_at(one, data) for one in keys)
            value = next((one for one in values if one is not PydanticUndefined), PydanticUndefined)
            if value is not PydanticUndefined:
                found[key] = self._override(self._name(key), value)
        if self.model.model_config.get("extra") == "allow":
            for key in data.keys() - used:
                if not key.upper().startswith(OURS):
                    found[key] = self._override(self.spelled.get(key, key), data[key])
        return found

    def _override(self, name: str, value: Any) -> Override:
        spelled = attempt(lambda: plain(value), PydanticUndefined)
        if attempt(lambda: strict_json.dumps(spelled), None) is None:
            raise no_value_in_json(name)
        return Override(self.place, name, spelled)

    def _name(self, key: str) -> str:
        """The variable that is set; of several that make one value, all."""
        held: Mapping[str, Any] = getattr(self.source, "env_vars", {})
        delimiter = getattr(self.source, "env_nested_delimiter", None)
        is_exact = getattr(self.source, "case_sensitive", False)
        names = self.names[key]
        wanted = names if is_exact else [name.lower() for name in names]
        own = [name for name in wanted if held.get(name) is not None][:1]
        if delimiter:
            within = tuple(name + delimiter for name in wanted)
            own += [name for name in held if name.startswith(within)]
        return ", ".join(self.spelled.get(name, name) for name in own) or names[0]

    def _data(self) -> dict[str, Any]:
        said, data = _asked(lambda: dict(self.source()), self.model)
        if said is None:
            return cast("dict[str, Any]", data)
        for key, info in self.model.model_fields.items():
            why_not = self._why_not(key, info)
            if why_not:
                raise SettingsInvalid(f"{self._name(key)}: {why_not}")
        raise SettingsInvalid(
            f"{self.model.__name__}: its {type(self.source).__name__} raised {said}"
        )

    def _why_not(self, key: str, info: FieldInfo) -> str | None:
        text: Any = None

        def read() -> None:
            nonlocal text
            text, _, is_complex = self.source.get_field_value(info, key)
            self.source.prepare_field_value(key, info, text, is_complex)

        said, _ = _asked(read, self.model)
        if said is None:
            return None
        if isinstance(text, str):
            complaint = complaints_about({key: text}, self.model).get(key)
            if complaint is not None and complaint.wants:
                return complaint.with_hint
        if said == "JSONDecodeError":
            return "not JSON, which it has to be for this type unless NoDecode is in its Annotated"
        return said


def _asked(ask: Callable[[], Any], model: type[BaseModel]) -> tuple[str | None, Any]:
    """What was raised, by its type, and what was answered."""
    try:
        with judging(model, Secrets()):
            return None, ask()
    except DoesNotFit as error:
        return str(error), None


def _at(key: Key, data: dict[str, Any]) -> Any:
    if isinstance(key, AliasPath):
        return cast("Any", key).search_dict_for_path(data)
    return data.get(key, PydanticUndefined)


# ── which there are ────────────────────────────────────────────────────────────────────────────


def _sources(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str], lines: Lines
) -> list[_Source]:
    assert issubclass(model, BaseSettings)
    _refuse_options(model)
    env = EnvSettingsSource(model, env_prefix=prefix)
    dotenv = DotEnvSettingsSource(model, env_file=None, env_prefix=prefix)
    spelled: dict[int, dict[str, str]] = {}
    for source, variables in ((env, environment), (dotenv, lines)):
        source.env_vars = parse_env_vars(
            variables, source.case_sensitive, source.env_ignore_empty, source.env_parse_none_str
        )
        spelled[id(source)] = {
            name if source.case_sensitive else name.lower(): name for name in variables
        }
    said, chosen = _asked(
        lambda: tuple(
            model.settings_customise_sources(
                model,
                init_settings=InitSettingsSource(model, init_kwargs={}),
                env_settings=env,
                dotenv_settings=dotenv,
                file_secret_settings=SecretsSettingsSource(model, env_prefix=prefix),
            )
        ),
        model,
    )
    if said is not None:
        raise SettingsInvalid(f"{model.__name__}.settings_customise_sources raised {said}")
    places: list[Place | Literal["delivered"] | None] = [
        _place_of(source, model) for source in chosen
    ]
    order = [_ORDER.index(place) for place in places if place is not None]
    if order != sorted(order):
        raise SettingsInvalid(
            f"{model.__name__}.settings_customise_sources has another order than environment, .env, what "
            "was delivered, secret files; leave it to this one, or open a class without it"
        )
    return [
        _Source(model, place, source, variable_names(model, prefix), spelled.get(id(source), {}))
        for place, source in zip(places, chosen, strict=True)
        if place is not None and place != "delivered"
    ]


def _place_of(source: Any, model: type[BaseModel]) -> Place | Literal["delivered"] | None:
    """None: it holds nothing here."""
    if isinstance(source, DeliveredSource):
        return "delivered"
    # a class of the user's is what it extends
    bases = (one for one in type(source).__mro__ if one.__module__.startswith("pydantic_settings."))
    kind = next((one.__name__ for one in bases), "")
    if kind in _OTHERS:
        return None
    if kind not in _PLACES:
        name = getattr(source, "__name__", type(source).__name__)
        raise _refusal(model, f"its source {name}")
    return _PLACES[kind]


def _refuse_options(model: type[BaseModel]) -> None:
    for option in ("cli_parse_args", "cli_settings_source", "nested_model_default_partial_update"):
        if model.model_config.get(option):
            raise _refusal(model, f"its option {option}")


def _refusal(model: type[BaseModel], what: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{model.__name__}: {what} can't be honoured while what an operator sets comes in; give the server "
        "what it holds, or put it into the environment, .env or the defaults, and open a class without it"
    )
