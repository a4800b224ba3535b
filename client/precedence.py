"""Where each value comes from: environment, `.env`, what was delivered, the model's own defaults.

Pure: strings and documents in, an instance of the service's own model and an account of it out.

    environment    STT_WORKER_VAD_THRESHOLD=0.6, the service's name and the key in capitals; it wins
    .env           the same names in a file
    delivered      what an operator set; a key that the *server* only filled in is not taken from
                   there: the service's own default stands, for it may be newer than the server
    default        the model's

An override (of the environment or `.env`) shadows what an operator sets, so its name is reported
with every receipt.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar, cast, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ErrorType

from config_manager.config import strict_json
from config_manager.config.documents import ConfigUpdate
from config_manager.config.errors import SettingsInvalid
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject

M = TypeVar("M", bound=BaseModel)

MASK = "********"
"""What is shown in a secret's place."""

Origin = Literal["environment", ".env", "delivered", "default"]


class DoesNotFit(ValueError):
    """The values are not what the service's own model takes; the message names each key. only_lacks:
    nothing is wrong but that there is no value for some."""

    def __init__(self, words: str, *, only_lacks: bool = False) -> None:
        super().__init__(words)
        self.only_lacks = only_lacks


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a key has its value.

    name: the variable that set it, for environment and .env. revision, at, correlation_id: of the
    configuration that delivered it, or that is shadowed. shadowed: the delivered value that an
    override hides, else None. server_default: what the server filled in where nobody set the key.
    """

    key: str
    value: Any
    origin: Origin
    name: str | None = None
    revision: int | None = None
    at: str | None = None
    correlation_id: str | None = None
    shadowed: Any = None
    server_default: Any = None

    def __str__(self) -> str:
        where = {
            "environment": f"from the environment ({self.name})",
            ".env": f"from .env ({self.name})",
            "delivered": f"delivered in revision {self.revision} of {self.at}",
            "default": "the model's default; nobody set it",
        }[self.origin]
        said = f"{self.key} = {self.value!r}: {where}"
        if self.shadowed is not None:
            said += f"; it shadows {self.shadowed!r} of revision {self.revision}"
        return said


@dataclass(frozen=True)
class Effective(Generic[M]):
    """What the service runs with, and why. Immutable."""

    values: M
    held: M
    """equal to `values`, and never handed out: a list in those can be changed by who has it"""
    explanations: Mapping[str, Explanation]
    update: ConfigUpdate | None
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    """what was delivered sealed for it, whether the model has a field for it or not"""

    @cached_property
    def overrides(self) -> tuple[str, ...]:
        """The keys that environment or .env decide, sorted: names, never values."""
        return tuple(
            sorted(
                key
                for key, why in self.explanations.items()
                if why.origin in ("environment", ".env")
            )
        )


def env_prefix(service: str) -> str:
    """`stt-worker` → `STT_WORKER_`."""
    return service.upper().replace("-", "_") + "_"


class Layers(Generic[M]):
    """A model and the overrides that were read at start: the environment does not change later."""

    def __init__(
        self,
        model: type[M],
        prefix: str,
        *,
        environment: Mapping[str, str],
        env_file: Mapping[str, str | None] | None = None,
    ) -> None:
        """Raises SettingsInvalid, naming the variable, where an override does not fit its key."""
        self.model = model
        self._frozen = _frozen(model)
        self._names = {
            alias: key
            for key, info in model.model_fields.items()
            for alias in _aliases(info)
            if alias not in model.model_fields
        }
        self._overrides: dict[str, tuple[Origin, str, Any]] = {}
        upper_environment = {name.upper(): value for name, value in environment.items()}
        upper_file = {name.upper(): value for name, value in (env_file or {}).items()}
        for key, info in model.model_fields.items():
            name = (prefix + key).upper()
            if (text := upper_environment.get(name)) is not None:
                self._overrides[key] = ("environment", name, _parsed(name, text, info))
            elif (text := upper_file.get(name)) is not None:
                self._overrides[key] = (".env", name, _parsed(name, text, info))

    def effective(
        self, update: ConfigUpdate | None, secrets: Mapping[str, Secret] | None = None
    ) -> Effective[M]:
        """Everything merged; update None: nothing was delivered yet. secrets: those of the update.

        Raises DoesNotFit.
        """
        known = secrets or {}
        delivered: JsonObject = {}
        filled_in: JsonObject = {}
        if update is not None:
            named = {self._names.get(k, k): (k, v) for k, v in update.config.items()}
            delivered = {name: v for name, (k, v) in named.items() if k not in update.defaulted}
            filled_in = {name: v for name, (k, v) in named.items() if k in update.defaulted}
        opened = {k: s.reveal() for k, s in known.items() if k in self.model.model_fields}
        overridden = {key: value for key, (_, _, value) in self._overrides.items()}
        given = {**delivered, **opened, **overridden}
        try:
            # as JSON, so that a strict model takes "2026-01-01" for a date as it would from a file
            held = self._frozen.model_validate_json(strict_json.dumps(given))
        except ValidationError as error:
            lacks = all(item["type"] == "missing" for item in error.errors(include_url=False))
            raise DoesNotFit(_in_words(error), only_lacks=lacks) from None
        values = _freeze_within(_copied(held))
        return Effective(
            values,
            held,
            {
                key: self._explain(
                    key,
                    MASK if key in opened else getattr(values, key),
                    {**delivered, **dict.fromkeys(opened, MASK)},
                    filled_in,
                    update,
                )
                for key in self.model.model_fields
            },
            update,
            known,
        )

    def incomplete(self) -> Effective[M]:
        """What stands in, never to be run with, until a model without defaults has its values."""
        values = self._frozen.model_construct()
        return Effective(
            values,
            values,
            {k: self._explain(k, None, {}, {}, None) for k in self.model.model_fields},
            None,
        )

    def _explain(
        self,
        key: str,
        value: Any,
        delivered: JsonObject,
        filled_in: JsonObject,
        update: ConfigUpdate | None,
    ) -> Explanation:
        revision, at, correlation_id = (
            (update.revision, update.issued_at, update.correlation_id)
            if update is not None
            else (None, None, None)
        )
        if key in self._overrides:
            origin, name, _ = self._overrides[key]
            return Explanation(
                key, value, origin, name, revision, at, correlation_id, shadowed=delivered.get(key)
            )
        if key in delivered:
            return Explanation(key, value, "delivered", None, revision, at, correlation_id)
        return Explanation(key, value, "default", server_default=filled_in.get(key))


def _aliases(info: FieldInfo) -> list[str]:
    """Other names under which a field's value may be delivered."""
    alias = info.validation_alias
    choices: list[Any] = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str)]


def _frozen(model: type[M]) -> type[M]:
    """The same model, immutable: two tasks that look at `current` must see the same. Its fields go by
    their own names, as everything above spells them, whatever aliases they have."""
    return cast("type[M]", _made_frozen(model))


def _freeze_within(values: M) -> M:
    """The models in there immutable too, where pydantic made them: as values, in lists, in mappings."""
    for inner in (*values.__dict__.values(), *(values.model_extra or {}).values()):
        _freeze(inner)
    return values


def _freeze(value: Any) -> None:
    if isinstance(value, BaseModel):
        _freeze_within(value)
        frozen = _made_frozen(type(value))
        if frozen is not type(value):
            object.__setattr__(value, "__class__", frozen)
    elif isinstance(value, Mapping):
        for inner in value.values():
            _freeze(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            _freeze(inner)


def _copied(values: M) -> M:
    try:
        return values.model_copy(deep=True)
    except (TypeError, copy.Error):  # a validator made something that can't be copied
        return values


def _read_back(model: type[BaseModel], state: dict[Any, Any]) -> BaseModel:
    frozen = _made_frozen(model)
    values = frozen.__new__(frozen)
    values.__setstate__(state)
    return values


@cache
def _made_frozen(model: type[BaseModel]) -> type[BaseModel]:
    if model.model_config.get("frozen") and not any(map(_aliases, model.model_fields.values())):
        return model

    def equals(self: BaseModel, other: object) -> bool:
        """As the model's own, which would tell the copy from what it is a copy of."""
        return (
            isinstance(other, model)
            and self.__dict__ == other.__dict__
            and self.model_extra == other.model_extra
        )

    def reduced(self: BaseModel) -> tuple[Any, ...]:
        """For pickle, which finds by this class's name only what it is a copy of."""
        return _read_back, (model, self.__getstate__())

    return type(
        model.__name__,
        (model,),
        {
            "model_config": ConfigDict(frozen=True, populate_by_name=True),
            "__module__": model.__module__,
            "__qualname__": model.__qualname__,
            "__doc__": model.__doc__,
            **({"__eq__": equals} if model.__eq__ is BaseModel.__eq__ else {}),
            **({"__reduce__": reduced} if model.__reduce__ is BaseModel.__reduce__ else {}),
        },
    )


def _parsed(name: str, text: str, field: FieldInfo) -> Any:
    """A variable's text as JSON value of the field's type."""
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = Annotated[kind, constraint]
    adapter = TypeAdapter[Any](kind)
    try:
        value = adapter.validate_strings(text)
    except ValidationError as as_text:
        try:
            value = adapter.validate_json(text)  # lists and objects are written as JSON
        except ValidationError:
            raise SettingsInvalid(f"{name}: {_in_words(as_text)}") from None
    return _as_json(name, text, value, adapter)


def _as_json(name: str, text: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
    """What reads back as the value; its own dump often does, but a secret's is a row of stars."""
    spelled: list[Callable[[], Any]] = [
        lambda: adapter.dump_python(value, mode="json"),
        lambda: text,
        lambda: strict_json.loads(text.encode()),
    ]
    for spell in spelled:
        with suppress(ValueError, TypeError):  # not JSON at all, or nothing that the type takes
            candidate = spell()
            if adapter.validate_json(strict_json.dumps(candidate)) == value:
                return candidate
    raise SettingsInvalid(f"{name}: this text has no equal in JSON")


def _in_words(error: ValidationError) -> str:
    """Which key, and what is wrong with it; never the value, which may be a secret."""
    said = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "import_error":
            message = "cannot be imported"
        elif item["type"] in _QUOTING or item["type"] not in _PYDANTICS_OWN:
            message = _without(item["input"], message)
        said.append(f"{where}: {message}" if where else message)
    return "; ".join(said)


_QUOTING = ("union_tag_invalid", "value_error", "assertion_error")
"""Errors whose words may hold the value: a validator's author writes what he likes."""

_PYDANTICS_OWN = frozenset(get_args(ErrorType))


def _without(value: Any, message: str) -> str:
    for text in sorted(_texts(value), key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", "…", message)
    return message


def _texts(value: Any) -> set[str]:
    """Every scalar in there, as a message would spell it."""
    if isinstance(value, BaseModel):
        return _texts(dict(value))
    if isinstance(value, Mapping):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return set().union(*map(_texts, value))
    return {text for text in (str(value), repr(value)) if text}
