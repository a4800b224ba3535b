"""Where each value comes from: environment, `.env`, what was delivered, the model's own defaults.

Pure: strings and documents in, an instance of the service's own model and an account of it out.

    environment    STT_WORKER_VAD_THRESHOLD=0.6, the service's name and the key in capitals; it wins
    .env           the same names in a file
    delivered      what an operator set. If only the *server* filled a key in, it is not taken: the
                   service's own default stands, because it may be newer than the server
    secret file    in the `secrets_dir` of a `BaseSettings`; no other model has one
    default        the model's

An override (of the environment or `.env`) shadows what an operator sets, so its name is reported
with every receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any, ForwardRef, Generic, Literal

from pydantic import BaseModel

from config_manager.client.model.freezing import freeze
from config_manager.client.model.guarded import attempt
from config_manager.client.model.judging import judging
from config_manager.client.model.overrides import Override, laid_over
from config_manager.client.model.type_walk import types_within
from config_manager.client.model.validating import Validator, has_own_sources
from config_manager.client.model.values import M, keys_of, value_of
from config_manager.client.model.words import Secrets, secrets_in, texts_in
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.secret import MASK, Secret
from config_manager.config.strict_json import JsonObject

_NO_VALUE = object()

Origin = Literal["environment", ".env", "delivered", "secret file", "default"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a key has its value.

    name: of the variable, or the secret file, that set it. revision, at, correlation_id: of the
    configuration that delivered it, or that is shadowed. shadowed: the delivered value that an
    override hides, else None. server_default: what the server filled in if nobody set the key. variant: it was
    delivered for the schema that the service was built with, and others get other values.
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
    variant: bool = False

    def __str__(self) -> str:
        where = {
            "environment": f"from the environment ({self.name})",
            ".env": f"from .env ({self.name})",
            "delivered": f"delivered in revision {self.revision}{' (variant)' if self.variant else ''} of {self.at}",
            "secret file": f"from a secret file ({self.name})",
            "default": "the model's default; nobody set it",
        }[self.origin]
        said = f"{self.key} = {self.value!r}: {where}"
        if self.shadowed is not None:
            said += f"; it shadows {self.shadowed!r} of revision {self.revision}"
        return said


@dataclass(frozen=True)
class Merged(Generic[M]):
    """What the service runs with, and why. Immutable.

    held: equal to `values`, and never handed out: a caller can change a list in those. secrets: what was
    delivered sealed for it, whether the model has a field for it or not. hidden: what no words of anybody
    may hold. made_anew: keys whose value a factory makes anew each time, and what was given for each: JSON,
    or None. following: keys whose factory takes the other values.
    """

    values: M
    held: M
    explanations: Mapping[str, Explanation]
    update: ConfigUpdate | None
    secrets: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    hidden: Secrets = field(default_factory=Secrets, repr=False)
    made_anew: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    following: frozenset[str] = frozenset()

    @cached_property
    def overrides(self) -> tuple[str, ...]:
        """The keys that environment or .env decide, sorted: names, never values."""
        why = self.explanations
        return tuple(sorted(key for key in why if why[key].origin in ("environment", ".env")))

    def changed_since(self, old: Merged[M]) -> frozenset[str]:
        """The keys whose value differs. If a factory makes a value anew each time, what was given counts."""
        keys = {*keys_of(old.held), *keys_of(self.held)}
        anew = old.made_anew.keys() & self.made_anew.keys() & keys
        following = old.following & self.following
        changed = {key for key in keys - anew - following if _differ(old.held, self.held, key)}
        changed |= {key for key in anew if old.made_anew[key] != self.made_anew[key]}
        if changed:
            changed |= {key for key in following if _differ(old.held, self.held, key)}
        return frozenset(changed)


def _differ(old: BaseModel, new: BaseModel, key: str) -> bool:
    """Whether a key's value differs; so does one that can't be compared."""
    one, other = value_of(old, key, _NO_VALUE), value_of(new, key, _NO_VALUE)
    return one is not other and attempt(lambda: bool(one != other), True)


@dataclass(frozen=True, slots=True)
class _Layered:
    """One configuration, by layer: the fields' own names → JSON values.

    delivered: what an operator set. filled_in: what only the server filled in, its defaults: told of and
    never run with. unsealed: secrets that were delivered sealed for this service.
    """

    delivered: JsonObject
    filled_in: JsonObject
    unsealed: JsonObject
    update: ConfigUpdate | None


class Layers(Generic[M]):
    """A model and the overrides that were read at start: the environment does not change later."""

    def __init__(
        self,
        model: type[M],
        overrides: Mapping[str, Override] | None = None,
        beneath: Mapping[str, Override] | None = None,
    ) -> None:
        """By key. overrides: of the environment and `.env`. beneath: of secret files."""
        self.model = model
        self._validator = Validator(model)
        self._has_own_sources = has_own_sources(model)
        self._overrides = overrides or {}
        self._beneath = beneath or {}
        self._secret_keys = {
            key for key, info in model.model_fields.items() if _holds_secrets(info.annotation)
        }

    def merge(
        self, update: ConfigUpdate | None, secrets: Mapping[str, Secret] | None = None
    ) -> Merged[M]:
        """All layers as one; update None: nothing was delivered yet. secrets: those of the update.

        Raises DoesNotFit, whatever the model's own code raises.
        """
        known = secrets or {}
        layered = self._layered(update, known)
        above = {key: override.value for key, override in self._overrides.items()}
        beneath = {key: override.value for key, override in self._beneath.items()}
        layers = (beneath, layered.delivered, layered.unsealed, above)
        given = reduce(laid_over if self._has_own_sources else dict[str, Any].__or__, layers)
        # values that no error may quote: they were not validated yet
        hidden: list[str | bytes] = [one.reveal() for one in known.values()]
        for layer in (layered.delivered, above):
            hidden += texts_in([layer[key] for key in self._secret_keys & layer.keys()])
        hidden += texts_in(beneath)
        with judging(self.model, Secrets(hidden)):
            held = self._validator.validate(given)
            # a caller can change a list in there; what can't be copied is shared
            values = freeze(attempt(lambda: held.model_copy(deep=True), held))
            return Merged(
                values,
                held,
                {key: self._explain(key, values, layered) for key in keys_of(values)},
                update,
                known,
                Secrets.of(values, also=hidden),
                {key: given.get(key) for key in self._validator.made_anew},
                self._validator.following - given.keys(),
            )

    def moved(self, runs: Merged[M], update: ConfigUpdate) -> Merged[M]:
        """The same, as of an update that says what runs."""
        layered = self._layered(update, runs.secrets)
        explanations = {key: self._explain(key, runs.values, layered) for key in runs.explanations}
        return replace(runs, update=update, explanations=explanations)

    def incomplete(self) -> Merged[M]:
        """A placeholder, never to be run with, until a model without defaults has its values."""
        values = self._validator.incomplete()
        nothing = _Layered({}, {}, {}, None)
        explanations = {key: self._explain(key, values, nothing) for key in self.model.model_fields}
        return Merged(values, values, explanations, None)

    def _layered(self, update: ConfigUpdate | None, known: Mapping[str, Secret]) -> _Layered:
        config = update.config if update is not None else {}
        defaulted = update.defaulted if update is not None else ()
        names, fields = self._validator.names, self.model.model_fields
        named = {names.get(key, key): (key, value) for key, value in config.items()}
        # a `BaseSettings` forbids what it does not know unless it says otherwise: that is meant for its
        # variables, and an operator may set a key for a release to come
        if self._has_own_sources and self.model.model_config.get("extra") != "allow":
            named = {name: said for name, said in named.items() if name in fields}
        unsealed = {names.get(key, key): secret.reveal() for key, secret in known.items()}
        return _Layered(
            {name: value for name, (key, value) in named.items() if key not in defaulted},
            {name: value for name, (key, value) in named.items() if key in defaulted},
            {name: value for name, value in unsealed.items() if name in fields},
            update,
        )

    def _explain(self, key: str, values: M, layered: _Layered) -> Explanation:
        value = MASK if key in layered.unsealed else value_of(values, key)
        is_secret = key in self._secret_keys or bool(secrets_in(value_of(values, key)))
        update = layered.update
        revision, at, correlation_id = (
            (update.revision, update.issued_at, update.correlation_id)
            if update is not None
            else (None, None, None)
        )

        def shown(layer: JsonObject) -> Any:
            return MASK if is_secret and layer.get(key) is not None else layer.get(key)

        if key in self._overrides:
            override = self._overrides[key]
            shadowed = MASK if key in layered.unsealed else shown(layered.delivered)
            return Explanation(
                key, value, override.place, override.name, revision, at, correlation_id, shadowed
            )
        if key in layered.delivered or key in layered.unsealed:
            variant = update is not None and bool(update.variants)
            return Explanation(
                key, value, "delivered", None, revision, at, correlation_id, variant=variant
            )
        if key in self._beneath:
            file = self._beneath[key]
            return Explanation(key, MASK, file.place, file.name)
        return Explanation(key, value, "default", server_default=shown(layered.filled_in))


def _holds_secrets(annotation: Any) -> bool:
    """Whether a field's type, or one within it, is one of pydantic's secret types."""
    return any(
        hasattr(kind, "get_secret_value")
        or (isinstance(kind, str | ForwardRef) and "Secret" in str(kind))
        for kind in types_within(annotation)
    )
