"""The payloads that get signed, one class per payload type: built here, parsed here, nowhere else.

Writers serialise once and sign those bytes; readers parse only bytes whose signature they checked
(`config_manager.config.trust`). Readers ignore fields they don't know, except where `critical`
names one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from config_manager.config import strict_json
from config_manager.config.names import Mark
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import keyid

_MAX_DEPTH = strict_json.MAX_DEPTH + 1
"""What a request may nest is a member of the document that carries it, one level further down."""


class NotADocument(ValueError):
    """A payload that verified but does not have its type's fields; the message names the field."""


class UnknownCritical(ValueError):
    """The payload's `critical` names a field that this version does not understand."""


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """One service's configuration, or its tombstone (`deleted`)."""

    service: str
    topic: str
    config_epoch: str
    epoch_seq: int
    revision: int
    previous: str | None
    issued_at: str
    config: JsonObject
    defaulted: tuple[str, ...]
    secrets: Mapping[str, int]
    deleted: bool
    correlation_id: str
    not_after: str | None = None
    critical: tuple[str, ...] = ()

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch_seq, self.revision)

    def to_bytes(self) -> bytes:
        return strict_json.dumps(
            {
                "format": 1,
                "service": self.service,
                "topic": self.topic,
                "config_epoch": self.config_epoch,
                "epoch_seq": self.epoch_seq,
                "revision": self.revision,
                "previous": self.previous,
                "issued_at": self.issued_at,
                "not_after": self.not_after,
                "config": self.config,
                "defaulted": self.defaulted,
                "secrets": dict(self.secrets),
                "deleted": self.deleted,
                "correlation_id": self.correlation_id,
                "critical": self.critical,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> ConfigUpdate:
        fields = _Fields.parse(payload, known=_CONFIG_UPDATE_FIELDS)
        if fields.integer("format") != 1:
            raise NotADocument("format: expected 1")
        return cls(
            service=fields.text("service"),
            topic=fields.text("topic"),
            config_epoch=fields.text("config_epoch"),
            epoch_seq=fields.integer("epoch_seq"),
            revision=fields.integer("revision"),
            previous=fields.optional_text("previous"),
            issued_at=fields.text("issued_at"),
            not_after=fields.optional_text("not_after"),
            config=fields.object("config"),
            defaulted=fields.texts("defaulted"),
            secrets={
                name: fields.number(v, "secrets") for name, v in fields.object("secrets").items()
            },
            deleted=fields.boolean("deleted"),
            correlation_id=fields.text("correlation_id"),
            critical=fields.texts("critical"),
        )


_CONFIG_UPDATE_FIELDS = frozenset(
    [
        "format",
        "service",
        "topic",
        "config_epoch",
        "epoch_seq",
        "revision",
        "previous",
        "issued_at",
        "not_after",
        "config",
        "defaulted",
        "secrets",
        "deleted",
        "correlation_id",
        "critical",
    ]
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every service should hold: service → (revision, digest of its payload)."""

    config_epoch: str
    epoch_seq: int
    revision: int
    services: Mapping[str, tuple[int, str]]

    def to_bytes(self) -> bytes:
        return strict_json.dumps(
            {
                "config_epoch": self.config_epoch,
                "epoch_seq": self.epoch_seq,
                "revision": self.revision,
                "services": dict(self.services),
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Snapshot:
        fields = _Fields.parse(payload, known=_SNAPSHOT_FIELDS)
        services: dict[str, tuple[int, str]] = {}
        for name, pair in fields.object("services").items():
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], str):  # noqa: PLR2004
                raise NotADocument("services: expected [revision, digest]")
            services[name] = (fields.number(pair[0], "services"), pair[1])
        return cls(
            fields.text("config_epoch"),
            fields.integer("epoch_seq"),
            fields.integer("revision"),
            services,
        )


_SNAPSHOT_FIELDS = frozenset(["config_epoch", "epoch_seq", "revision", "services", "critical"])


@dataclass(frozen=True, slots=True)
class Beacon:
    """Proof of life: how far the publisher has come, rising by (boot_seq, seq), good for valid_s."""

    config_epoch: str
    epoch_seq: int
    revision: int
    snapshot: str
    root_version: int
    audit_head: str
    boot_seq: int
    seq: int
    issued_at: str
    valid_s: int

    @property
    def order(self) -> tuple[int, int]:
        return (self.boot_seq, self.seq)

    def to_bytes(self) -> bytes:
        return strict_json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def parse(cls, payload: bytes) -> Beacon:
        fields = _Fields.parse(payload, known=frozenset((*cls.__slots__, "critical")))
        return cls(
            config_epoch=fields.text("config_epoch"),
            epoch_seq=fields.integer("epoch_seq"),
            revision=fields.integer("revision"),
            snapshot=fields.text("snapshot"),
            root_version=fields.integer("root_version"),
            audit_head=fields.text("audit_head"),
            boot_seq=fields.integer("boot_seq"),
            seq=fields.integer("seq"),
            issued_at=fields.text("issued_at"),
            valid_s=fields.integer("valid_s"),
        )


@dataclass(frozen=True, slots=True)
class RootKey:
    """A public key in the root; past `not_after` (RFC 3339, or never) it is as good as absent."""

    public: bytes
    not_after: str | None = None


@dataclass(frozen=True, slots=True)
class KeyRole:
    """Who may sign for a role: `threshold` distinct keys of `keyids`."""

    keyids: tuple[str, ...]
    threshold: int


ROLES = ("root", "config", "beacon")


@dataclass(frozen=True, slots=True)
class Root:
    """The trust root: which keys sign what. Version n is signed by n's and n-1's root keys."""

    version: int
    issued_at: str
    keys: Mapping[str, RootKey]
    roles: Mapping[str, KeyRole] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return strict_json.dumps(
            {
                "version": self.version,
                "issued_at": self.issued_at,
                "keys": {
                    key_id: {
                        "keytype": "ed25519",
                        "public": base64.b64encode(key.public).decode(),
                        "not_after": key.not_after,
                    }
                    for key_id, key in self.keys.items()
                },
                "roles": {
                    name: {"keyids": role.keyids, "threshold": role.threshold}
                    for name, role in self.roles.items()
                },
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Root:
        fields = _Fields.parse(payload, known=_ROOT_FIELDS)
        keys: dict[str, RootKey] = {}
        for key_id, item in fields.object("keys").items():
            key = _Fields.of(item, f"keys.{key_id[:16]}")
            if key.text("keytype") != "ed25519":
                continue  # a key type we can't check is a key we don't have
            public = _public_key(key.text("public"))
            if keyid(public) != key_id:
                raise NotADocument(f"keys: {key_id[:16]} is not the digest of its key")
            keys[key_id] = RootKey(public, key.optional_text("not_after"))
        roles: dict[str, KeyRole] = {}
        for name, item in fields.object("roles").items():
            role = _Fields.of(item, f"roles.{name[:16]}")
            keyids, threshold = role.texts("keyids"), role.integer("threshold")
            if not 1 <= threshold <= len(set(keyids)):
                raise NotADocument(
                    f"roles.{name[:16]}: threshold {threshold} of {len(keyids)} keys"
                )
            roles[name] = KeyRole(keyids, threshold)
        if missing := [name for name in ROLES if name not in roles]:
            raise NotADocument(f"roles: {', '.join(missing)} missing")
        return cls(fields.integer("version"), fields.text("issued_at"), keys, roles)


_ROOT_FIELDS = frozenset(["version", "issued_at", "keys", "roles", "critical"])


def _public_key(text: str) -> bytes:
    try:
        public = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotADocument("keys: public is not base64") from None
    if len(public) != 32:  # noqa: PLR2004  RFC 8032: an Ed25519 public key
        raise NotADocument("keys: public is not 32 bytes")
    return public


@dataclass(frozen=True, slots=True)
class SealedValue:
    """One secret's version, sealed to one instance (`config.sealing`)."""

    version: int
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A service's secrets for one of its instances. epoch_seq, revision: the service's, when this was
    sealed; a later one never goes back."""

    service: str
    instance: str
    epoch_seq: int
    revision: int
    secrets: Mapping[str, SealedValue]

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch_seq, self.revision)

    def to_bytes(self) -> bytes:
        return strict_json.dumps(
            {
                "format": 1,
                "service": self.service,
                "instance": self.instance,
                "epoch_seq": self.epoch_seq,
                "revision": self.revision,
                "secrets": {
                    name: {
                        "version": value.version,
                        "ciphertext": base64.b64encode(value.ciphertext).decode(),
                    }
                    for name, value in self.secrets.items()
                },
                "critical": [],
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Sealed:
        fields = _Fields.parse(payload, known=_SEALED_FIELDS)
        if fields.integer("format") != 1:
            raise NotADocument("format: expected 1")
        secrets: dict[str, SealedValue] = {}
        for name, item in fields.object("secrets").items():
            value = _Fields.of(item, f"secrets.{name[:64]}")
            try:
                ciphertext = base64.b64decode(value.text("ciphertext"), validate=True)
            except (binascii.Error, ValueError):
                raise NotADocument(f"secrets.{name[:64]}.ciphertext: not base64") from None
            secrets[name] = SealedValue(value.integer("version"), ciphertext)
        return cls(
            fields.text("service"),
            fields.text("instance"),
            fields.integer("epoch_seq"),
            fields.integer("revision"),
            secrets,
        )


_SEALED_FIELDS = frozenset(
    ["format", "service", "instance", "epoch_seq", "revision", "secrets", "critical"]
)


@dataclass(frozen=True, slots=True)
class Running:
    """What an instance runs."""

    epoch_seq: int
    revision: int
    digest: str


Stage = Literal[
    "received", "deferred", "applied", "healthy", "refused", "restart-required", "poisoned"
]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last configuration an instance was given, and how far it got with it. deaths: how often in
    a row the service died within its bake time; readers of 0.1.0 don't know it."""

    revision: int
    stage: Stage
    reason: str | None = None
    deaths: int = 0

    def to_object(self) -> JsonObject:
        """As in a receipt: `deaths` is left out if there were none."""
        said: JsonObject = {"revision": self.revision, "stage": self.stage, "reason": self.reason}
        return {**said, "deaths": self.deaths} if self.deaths else said


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an instance says it runs, signed by its own key; rising by (boot_seq, seq).

    running: None while it runs on its model's defaults alone. source: where that came from.
    overrides: the keys that its environment decides. gone: the will.
    """

    service: str
    instance: str
    boot_seq: int
    seq: int
    running: Running | None
    last_attempt: Attempt | None
    source: Literal["broker", "last-known-good", "defaults"]
    freshness: str
    overrides: tuple[str, ...]
    schema: str
    library: str
    correlation_id: str | None
    gone: bool
    at: str

    @property
    def order(self) -> tuple[int, int]:
        return (self.boot_seq, self.seq)

    def to_bytes(self) -> bytes:
        attempt = self.last_attempt and self.last_attempt.to_object()
        return strict_json.dumps({**asdict(self), "last_attempt": attempt})

    @classmethod
    def parse(cls, payload: bytes) -> Receipt:
        fields = _Fields.parse(payload, known=frozenset((*cls.__slots__, "critical")))
        running, attempt = None, None
        if fields.present("running"):
            item = _Fields.of(fields.object("running"), "running")
            running = Running(
                item.integer("epoch_seq"), item.integer("revision"), item.text("digest")
            )
        if fields.present("last_attempt"):
            item = _Fields.of(fields.object("last_attempt"), "last_attempt")
            attempt = Attempt(
                item.integer("revision"),
                cast("Stage", item.text("stage")),
                item.optional_text("reason"),
                item.integer("deaths") if item.present("deaths") else 0,
            )
        return cls(
            service=fields.text("service"),
            instance=fields.text("instance"),
            boot_seq=fields.integer("boot_seq"),
            seq=fields.integer("seq"),
            running=running,
            last_attempt=attempt,
            source=cast("Any", fields.text("source")),
            freshness=fields.text("freshness"),
            overrides=fields.texts("overrides"),
            schema=fields.text("schema"),
            library=fields.text("library"),
            correlation_id=fields.optional_text("correlation_id"),
            gone=fields.boolean("gone"),
            at=fields.text("at"),
        )


@dataclass(frozen=True, slots=True)
class AuditExport:
    """The end of the audit when it was exported: row number `rows` has the hash `head`, and with it
    every row before it is what it was."""

    rows: int
    head: str
    config_epoch: str
    epoch_seq: int
    revision: int
    exported_at: str
    exported_by: str

    def to_bytes(self) -> bytes:
        return strict_json.dumps({"format": 1, **asdict(self)})

    @classmethod
    def parse(cls, payload: bytes) -> AuditExport:
        fields = _Fields.parse(payload, known=frozenset((*cls.__slots__, "format", "critical")))
        if fields.integer("format") != 1:
            raise NotADocument("format: expected 1")
        return cls(
            rows=fields.integer("rows"),
            head=fields.text("head"),
            config_epoch=fields.text("config_epoch"),
            epoch_seq=fields.integer("epoch_seq"),
            revision=fields.integer("revision"),
            exported_at=fields.text("exported_at"),
            exported_by=fields.text("exported_by"),
        )


class _Fields:
    """Reads typed fields out of a verified payload, and says which one is wrong."""

    def __init__(self, value: JsonObject, where: str = "") -> None:
        self._value = value
        self._where = where

    @classmethod
    def parse(cls, payload: bytes, *, known: frozenset[str]) -> _Fields:
        try:
            value = strict_json.loads_object(payload, max_depth=_MAX_DEPTH)
        except strict_json.NotStrictJson as error:
            raise NotADocument(str(error)) from None
        fields = cls(value)
        if unknown := [name for name in fields.texts("critical") if name not in known]:
            raise UnknownCritical(f"critical names {unknown[0][:64]!r}, unknown to this version")
        return fields

    @classmethod
    def of(cls, value: Any, where: str) -> _Fields:
        if not isinstance(value, dict):
            raise NotADocument(f"{where}: expected an object")
        return cls(value, where + ".")

    def _wrong(self, name: str, expected: str) -> NotADocument:
        return NotADocument(f"{self._where}{name}: expected {expected}")

    def present(self, name: str) -> bool:
        return self._value.get(name) is not None

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._value.get(name) is None else self.text(name)

    def integer(self, name: str) -> int:
        return self.number(self._value.get(name), name)

    def number(self, value: Any, name: str) -> int:
        if type(value) is not int or not 0 <= value < strict_json.MAX_INTEGER:
            raise self._wrong(name, "an integer of 0 to 2^53 - 1")
        return value

    def boolean(self, name: str) -> bool:
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def object(self, name: str) -> JsonObject:
        value = self._value.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._value.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of strings")
        return tuple(value)
