"""Vectors of which values are an instance's own, and of what is equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate, Variant
from tests.config.vector_documents import DIGEST, UPDATE

OLD, OLDER, NEW = (wire.digest(name) for name in (b"old", b"older", b"new"))

RUNS = replace(
    UPDATE,
    revision=8,
    previous=DIGEST,
    config={"rate": 16000, "name": "Grüße ☃", "gain": 1},
    defaulted=("rate", "gain"),
    content="8",
    variants=(
        Variant((OLDER, OLD), {"hz": 16000, "name": "Grüße ☃"}, ("hz",)),
        Variant((OLD,), {"hz": 8000}, ()),
    ),
)
NEXT = replace(RUNS, revision=9, previous=wire.digest(RUNS.to_bytes()), content="9")
_OLD_ONE, _SECOND = RUNS.variants


def content_cases() -> list[dict[str, Any]]:
    """equal: whether `comes` gives a client of this schema what `runs` gave it."""

    def case(
        name: str,
        comes: ConfigUpdate,
        chosen: ConfigUpdate | Variant | None = None,
        *,
        equal: bool,
        schema: str | None = NEW,
    ) -> dict[str, Any]:
        own = chosen or comes
        return {
            "name": name,
            "schema": schema,
            "runs": RUNS.to_bytes().decode(),
            "comes": comes.to_bytes().decode(),
            "content": comes.content or wire.digest(comes.to_bytes()),
            "config": own.config,
            "defaulted": own.defaulted,
            "equal": equal,
        }

    other_variant = replace(_OLD_ONE, config={**_OLD_ONE.config, "name": "Hi"})
    return [
        case("decided anew, and the values stay", NEXT, equal=True),
        case("nothing new was decided", replace(NEXT, content="8"), equal=True),
        case("a message without a content", replace(NEXT, content=None), equal=True),
        case("members in another order",
             replace(NEXT, config=dict(reversed(NEXT.config.items()))), equal=True),
        case("defaulted in another order", replace(NEXT, defaulted=("gain", "rate")), equal=True),
        case("another value", replace(NEXT, config={**NEXT.config, "rate": 8000}), equal=False),
        case("another value under the same content",
             replace(NEXT, content="8", config={**NEXT.config, "rate": 8000}), equal=False),
        case("1 became 1.0", replace(NEXT, config={**NEXT.config, "gain": 1.0}), equal=False),
        case("1 became true", replace(NEXT, config={**NEXT.config, "gain": True}), equal=False),
        case("what was filled in was set", replace(NEXT, defaulted=("gain",)), equal=False),
        case("another version of a secret",
             replace(NEXT, secrets={"api_key": 3, "password": 1}), equal=False),
        case("the variant that names its schema", NEXT, _OLD_ONE, schema=OLDER, equal=True),
        case("of two that name it the first", NEXT, _OLD_ONE, schema=OLD, equal=True),
        case("its variant stays and the configuration does not",
             replace(NEXT, config={"rate": 8000}), _OLD_ONE, schema=OLD, equal=True),
        case("its variant is another one",
             replace(NEXT, variants=(other_variant,)), other_variant, schema=OLD, equal=False),
        case("the first variant goes, and the second names it",
             replace(NEXT, variants=(_SECOND,)), _SECOND, schema=OLD, equal=False),
        case("no variant names it any more", replace(NEXT, variants=()), schema=OLD, equal=False),
        case("a client without a schema", NEXT, schema=None, equal=True),
        case("a digest is compared as it is spelt", NEXT, schema=OLD.upper(), equal=True),
    ]  # fmt: skip
