"""What a service is told: its configuration, signed by a config key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, NotADocument, members
from config_manager.config.names import Mark
from config_manager.config.strict_json import JsonObject

MAX_CONTENT = 40
"""Characters of a content id."""
MAX_VARIANTS = 8
MAX_VARIANT_DEPTH = strict_json.MAX_DEPTH - 2
"""How deep a variant's values may nest: they stand two levels further down than `config`, and readers of 0.1.0
refuse what is deeper than `config` may be."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The same configuration as code takes it that was built with one of these schemas (their digests)."""

    schemas: tuple[str, ...]
    config: JsonObject
    defaulted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """One service's configuration, or its tombstone (`deleted`).

    content: the id of the decision that it came from, the same in a later message that decides nothing new;
    None before 0.6.0. variants: at most one of them is for an instance; `config` is for everyone else. Both
    are left out of the message if there is nothing to say, and readers of 0.1.0 ignore them.
    """

    service: str
    topic: str
    config_epoch: str
    epoch_seq: int
    revision: int
    previous: str | None
    issued_at: str
    not_after: str | None = field(default=None, kw_only=True)
    config: JsonObject
    defaulted: tuple[str, ...]
    secrets: Mapping[str, int]
    deleted: bool
    correlation_id: str
    critical: tuple[str, ...] = ()
    content: str | None = None
    variants: tuple[Variant, ...] = ()

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch_seq, self.revision)

    def to_bytes(self) -> bytes:
        said = {"format": 1, **members(self), "secrets": dict(self.secrets)}
        if self.content is None:
            del said["content"]
        if not self.variants:
            del said["variants"]
        else:
            said["variants"] = [members(one) for one in self.variants]
        return strict_json.dumps(said)

    @classmethod
    def parse(cls, payload: bytes) -> ConfigUpdate:
        return Fields.parse(payload, cls, with_format=True).read(
            cls, secrets=Fields.integers, content=content_id, variants=_variants
        )


def content_id(fields: Fields, name: str) -> str | None:
    """A content id, which may be missing."""
    content = fields.optional_text(name)
    if content is not None and not 1 <= len(content) <= MAX_CONTENT:
        raise NotADocument(f"{fields.place(name)}: expected 1 to {MAX_CONTENT} characters")
    return content


def _variants(fields: Fields, name: str) -> tuple[Variant, ...]:
    given = fields.objects(name)
    if len(given) > MAX_VARIANTS:
        raise NotADocument(f"{name}: expected at most {MAX_VARIANTS}")
    return tuple(one.read(Variant) for one in given)
