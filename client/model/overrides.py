"""What the environment and `.env` say instead of what is delivered: text in, JSON values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from config_manager.client.model.complaints import Complaint, complaints_about
from config_manager.client.model.guarded import attempt
from config_manager.client.model.validating import has_own_sources
from config_manager.config import strict_json
from config_manager.config.errors import SettingsInvalid
from config_manager.config.strict_json import JsonObject

Place = Literal["environment", ".env", "secret file"]


@dataclass(frozen=True, slots=True)
class Override:
    """One key's value from a variable: its place, its name, and the JSON value of its text."""

    place: Place
    name: str
    value: Any = field(repr=False)


def env_prefix(service: str) -> str:
    """`stt-worker` → `STT_WORKER_`."""
    return service.upper().replace("-", "_") + "_"


def prefix_of(model: type[BaseModel], service: str) -> str:
    """A `BaseSettings`' own, which may be none; else the service's name."""
    if has_own_sources(model):
        return str(model.model_config.get("env_prefix") or "")
    return env_prefix(service)


def read_overrides(
    model: type[BaseModel],
    prefix: str,
    environment: Mapping[str, str],
    env_file: Mapping[str, str | None],
) -> dict[str, Override]:
    """By key; the environment wins. Raises SettingsInvalid, naming the variable, if a text does not fit
    its key."""
    said: dict[str, tuple[Place, str | None]] = {
        name.upper(): (".env", text) for name, text in env_file.items()
    }
    said |= {name.upper(): ("environment", text) for name, text in environment.items()}
    found: dict[str, _Read] = {}
    for key, info in model.model_fields.items():
        name = (prefix + key).upper()
        place, text = said.get(name, ("environment", None))
        if text is not None:
            found[key] = _read(place, name, text, info)
    if found:
        _settle(found, model)
    return {key: Override(one.place, one.name, one.value) for key, one in found.items()}


def json_in(text: str) -> Any:
    """The JSON value that a text is; the text itself if it is none."""
    try:
        return strict_json.loads(text.encode())
    except (ValueError, TypeError):
        return text


def no_value_in_json(name: str) -> SettingsInvalid:
    """What is raised for a variable whose value can't be told in JSON."""
    return SettingsInvalid(
        f"{name}: JSON has no value for this (NaN or infinity, say); leave the variable out, or write "
        "another value"
    )


_NOTHING = object()


def check(overrides: Mapping[str, Override], model: type[BaseModel]) -> None:
    """Raises SettingsInvalid, naming the variable, if the model does not take a value."""
    read = {
        key: _Read(one.place, one.name, [one.value], fits=False) for key, one in overrides.items()
    }
    if read:
        _settle(read, model)


def laid_over(below: JsonObject, above: JsonObject) -> JsonObject:
    """As pydantic-settings merges its sources: objects key by key, however deep."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        merged[key] = laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


@dataclass
class _Read:
    """A variable, and what its text may mean: the first meaning that the model takes is its value.

    fits: the field's type alone takes the first meaning.
    """

    place: Place
    name: str
    meanings: list[Any]
    fits: bool
    at: int = 0
    complaints: list[Complaint] = field(default_factory=list[Complaint])

    @property
    def value(self) -> Any:
        return self.meanings[self.at]

    def refused(self, complaint: Complaint) -> bool:
        """The model refused this meaning. Whether there is another."""
        self.complaints.append(complaint)
        if self.at + 1 < len(self.meanings):
            self.at += 1
            return True
        if self.fits:
            self.at = 0  # the model's own rules are against it, and merging the layers says so
        return False

    @property
    def complaint(self) -> str:
        # of a text that is a list or an object, what is wrong within it says more
        is_json = isinstance(self.meanings[-1], list | dict)
        said = self.complaints[-1 if is_json else 0]
        return said.words if is_json else said.with_hint


def _read(place: Place, name: str, text: str, info: FieldInfo) -> _Read:
    if attempt(text.encode, None) is None:
        raise SettingsInvalid(f"{name}: not UTF-8")
    adapter = attempt(lambda: _adapter(info), None)  # a reference that nobody resolved, say
    value = _NOTHING if adapter is None else attempt(lambda: _parsed(adapter, text), _NOTHING)
    if adapter is None or value is _NOTHING:
        # its own validators may take it all the same: as text, or as JSON
        meanings = [text] if json_in(text) == text else [text, json_in(text)]
        return _Read(place, name, meanings, fits=False)
    spelled = _as_json(text, value, adapter)
    if spelled is _NOTHING:
        raise no_value_in_json(name)
    meanings = [spelled] if spelled == text else [spelled, text]
    return _Read(place, name, meanings, fits=True)


def _settle(found: dict[str, _Read], model: type[BaseModel]) -> None:
    """Choose each variable's meaning. Raises SettingsInvalid if the model takes none of them.

    A validator that runs before the type may want the text: `a,b` for a list, or `5 ` for a number.
    """
    settled = set[str]()
    while True:
        complaints = complaints_about({key: one.value for key, one in found.items()}, model)
        asked = {key: complaint for key in found if (complaint := complaints.get(key)) is not None}
        if not asked and None in complaints:
            asked = {
                key: complaints[None]
                for key, one in found.items()
                if not one.fits and key not in settled and _is_cured_without(key, found, model)
            }
        for key in [key for key in asked if key not in settled]:
            if found[key].refused(asked[key]):
                break
            settled.add(key)
            if not found[key].fits:
                raise SettingsInvalid(f"{found[key].name}: {found[key].complaint}")
        else:
            return


def _is_cured_without(key: str, found: dict[str, _Read], model: type[BaseModel]) -> bool:
    others = {other: one.value for other, one in found.items() if other != key}
    return None not in complaints_about(others, model)


def _adapter(info: FieldInfo) -> TypeAdapter[Any]:
    kind: Any = info.annotation
    for constraint in info.metadata:
        kind = Annotated[kind, constraint]
    return TypeAdapter[Any](kind)


def _parsed(adapter: TypeAdapter[Any], text: str) -> Any:
    """A variable's text as the field's type alone takes it; raises what that raises."""
    try:
        return adapter.validate_strings(text)
    except ValidationError:
        return adapter.validate_json(text)  # lists and objects are written as JSON


def _as_json(text: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
    """What reads back as the value; its own dump often does, but a secret's is a row of stars."""
    spelled: list[Callable[[], Any]] = [
        lambda: adapter.dump_python(value, mode="json"),
        lambda: text,
        lambda: strict_json.loads(text.encode()),
    ]
    for spell in spelled:
        candidate = attempt(spell, _NOTHING)
        if _same(_read_back(candidate, adapter), value, otherwise=False):
            return candidate
    # the type's values may equal nothing but themselves, or can't be compared; NaN does neither
    for candidate in (text, json_in(text)):
        one, other = (_read_back(candidate, adapter) for _ in range(2))
        is_judged = one is _NOTHING or _same(one, other, otherwise=False)
        if not is_judged and _same(value, value, otherwise=True):
            return candidate
    return _NOTHING


def _read_back(candidate: Any, adapter: TypeAdapter[Any]) -> Any:
    return attempt(lambda: adapter.validate_json(strict_json.dumps(candidate)), _NOTHING)


def _same(one: Any, other: Any, *, otherwise: bool) -> bool:
    return one is not _NOTHING and attempt(lambda: bool(one == other), otherwise)
