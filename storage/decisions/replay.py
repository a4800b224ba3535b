"""What the rows of the audit say is there, by taking them in order. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from config_manager.config import strict_json
from config_manager.config.audit import GENESIS
from config_manager.config.strict_json import JsonObject
from config_manager.storage.state import (
    AuditEntry,
    HistoryEntry,
    HistoryRow,
    KeyChange,
    SchemaActivation,
    TakenBack,
)

BEGIN = "vouched"
"""The action of the row that begins to vouch for what an earlier version wrote."""
ACCEPT = "restore"
"""The action of the row with which an operator accepts what is kept."""

_SECRET, _SECRET_DELETE = "secret", "secret-delete"
_OF_VALUES = frozenset({"put", "patch", "delete", "epoch"})
"""Actions that leave the registry alone."""


class HistoryChain:
    """A hash over the history of one service, oldest first. Worked out from the audit's rows and from the
    history's own, it must be the same."""

    def __init__(self) -> None:
        self.value = b""

    def take(self, about: Sequence[object], changes: bytes) -> None:
        """about: revision, version, epoch_seq, at, by, action, reason, correlation_id. changes: JSON as
        the store keeps it."""
        self.value = hashlib.sha256(self.value + strict_json.dumps(about) + changes).digest()


@dataclass(slots=True)
class Expected:
    """One service, as the rows say.

    row: the number of its newest one. digest: of its payload; None if its newest row names none. retired:
    secret → last version, of those that are deleted. kept_secrets: of a deleted service, as its newest row
    names them. history_before: up to this version its history was accepted as it lay (`restore --accept`),
    and can't be told from the rows.
    """

    row: int = 0
    revision: int = 0
    version: int = 0
    at: str = ""
    by: str = ""
    correlation_id: str = ""
    digest: str | None = None
    deleted: bool = True
    stored: JsonObject = field(default_factory=dict[str, Any])
    secrets: dict[str, int] = field(default_factory=dict[str, int])
    retired: dict[str, int] = field(default_factory=dict[str, int])
    kept_secrets: dict[str, int] = field(default_factory=dict[str, int])
    history: HistoryChain = field(default_factory=HistoryChain)
    history_before: int = 0

    def change(self, action: str, changes: Sequence[Sequence[Any]], floor: int) -> None:
        """Take what a row says of its values and secrets. floor: every new version is above it."""
        if action == _SECRET:
            name = changes[0][0]
            last = max(self.secrets.get(name, 0), self.retired.pop(name, 0), floor)
            self.secrets[name] = last + 1
            self.deleted = False
        elif action == _SECRET_DELETE:
            name = changes[0][0]
            self.retired[name] = self.secrets.pop(name, 0)
        else:
            self.deleted = action == "delete"
            for key, _, new, *nulls in changes:
                if new is None and not (nulls and "new" in nulls[0]):
                    self.stored.pop(key, None)
                else:
                    self.stored[key] = new


class Replay:
    """Takes the rows from the first one on. It skips rows that this server did not write; `ChainCheck` reports them."""

    def __init__(self) -> None:
        self.services: dict[str, Expected] = {}
        self.registry: dict[str, dict[str, str]] = {}
        self.schemas: dict[tuple[str, int], str] = {}
        """(service, number) → the digest of each version that was put or adopted"""
        self.activations: dict[tuple[str, int], SchemaActivation] = {}
        self.taken_back: dict[tuple[str, int], TakenBack] = {}
        """both by (service, revision)"""
        self.schemas_as_they_lie = False
        """some were accepted as they were stored"""
        self.registry_row = 0
        """the newest row that names one of the registry's"""
        self.epochs: dict[int, str] = {}
        self.epoch_seq = 1
        self.revision = 0
        self.accepted_epoch = 0
        """the newest epoch in which an operator accepted what was kept (`restore`)"""
        self.secret_floor = 0
        """what was given up then may have secrets up to this version"""
        self.names_digests = False
        """some row was written by a version that names digests"""
        self.registry_is_silent = False
        """some row changed the registry without naming what"""
        self.silent_row = 0
        """the newest such row"""
        self.end = (0, GENESIS)
        """number and hash of the last row as it lies"""

    def take(self, row: AuditEntry) -> None:
        self.end = (row.seq, row.hash)
        try:
            self._take(orjson.loads(row.body), row.seq)
        except (ValueError, LookupError, TypeError, AttributeError):
            return

    @property
    def is_silent(self) -> bool:
        """Whether no row vouches for some of it, because an earlier version of this server wrote that."""
        return (
            not self.names_digests
            or self.registry_is_silent
            or any(one.digest is None for one in self.services.values())
        )

    def _take(self, body: JsonObject, seq: int) -> None:
        before, self.revision, self.epoch_seq = self.revision, body["revision"], body["epoch_seq"]
        if body["action"] == ACCEPT:
            self.accepted_epoch, self.secret_floor = body["epoch_seq"], body["revision"]
        if "config_epoch" in body:
            self.epochs[body["epoch_seq"]] = body["config_epoch"]
        self._take_accepted(body.get("accepted", {}))
        for service, changes in body.get("services", {}).items():
            self._take_service(service, changes, body, seq)
        if body["action"] == ACCEPT:  # it names every service that there is
            accepted = body.get("services", {})
            self.services = {name: one for name, one in self.services.items() if name in accepted}
        for service, digest in body.get("digests", {}).items():
            self.services.setdefault(service, Expected()).digest = digest
        for service, secrets in body.get("secrets", {}).items():
            one = self.services[service]
            one.secrets, one.kept_secrets = dict(secrets), dict(secrets)
        self._take_registry(body, seq)
        self._take_schemas(body, before + 1)

    def _take_schemas(self, body: JsonObject, revision: int) -> None:
        """revision: from which on a schema counts that came with this row."""
        if "lay" in body.get("accepted", {}):
            self.schemas, self.activations, self.taken_back = {}, {}, {}
            self.schemas_as_they_lie = True
        details = body.get("details", {})
        made = details.get("schemas", [])
        if body["action"] == "schema" and "source" in details:
            made = [details]
        for one in made:
            service, version = one["service"], one["version"]
            if "deleted" not in one:
                self.schemas[service, version] = one["digest"]
            self.activations[service, revision] = SchemaActivation(service, revision, version)
        for service, taken in body.get("taken_back", {}).items():
            keys = None if taken["keys"] is None else tuple(taken["keys"])
            about = (service, body["revision"], taken["after"], taken["upto"], keys)
            self.taken_back[service, body["revision"]] = TakenBack._make(about)

    def _take_accepted(self, accepted: JsonObject) -> None:
        """Take over the history before a `restore`, if it was accepted as it was stored."""
        for service, (version, history) in accepted.get("history", {}).items():
            one = self.services.setdefault(service, Expected())
            one.version, one.history.value = version, bytes.fromhex(history)
            one.history_before = version

    def _take_service(
        self, service: str, changes: Sequence[Sequence[Any]], body: JsonObject, seq: int
    ) -> None:
        one, action = self.services.setdefault(service, Expected()), body["action"]
        one.row = seq
        one.version += 1
        one.digest, one.kept_secrets = None, {}  # until this row names them
        one.revision, one.at, one.by = body["revision"], body["at"], body["by"]
        one.correlation_id = body["correlation_id"]
        is_deleted = service in body.get("deleted", ())
        one.change("delete" if is_deleted else action, changes, self.secret_floor)
        about = (
            one.revision,
            one.version,
            body["epoch_seq"],
            one.at,
            one.by,
            action,
            body["reason"],
            one.correlation_id,
        )
        one.history.take(about, orjson.dumps(changes))

    def _take_registry(self, body: JsonObject, seq: int) -> None:
        names_all = body["action"] in (BEGIN, ACCEPT)
        if names_all:
            self.registry, self.registry_is_silent = {}, False
        self.names_digests |= names_all or "registry" in body or "digests" in body
        if "registry" in body:
            self.registry_row = seq
            for kind, rows in body["registry"].items():
                kept = self.registry.setdefault(kind, {})
                for key, digest in rows.items():
                    kept[key] = digest
                    if digest is None:
                        del kept[key]
        elif "digests" not in body and body["action"] not in _OF_VALUES:
            self.registry_is_silent, self.silent_row = True, seq


def history_in(
    rows: Iterable[AuditEntry], versions: Mapping[str, int], epochs: Mapping[int, str]
) -> Iterator[HistoryRow]:
    """The history of these services, as the audit's rows have it. versions: service → the version after which
    it is wanted. epochs: number → id."""
    counted = Counter[str]()
    for row in rows:
        try:
            body = orjson.loads(row.body)
            services = versions.keys() & body.get("services", {}).keys()
        except (ValueError, AttributeError):
            continue
        for service in services:
            counted[service] += 1
            if counted[service] <= versions[service]:
                continue
            entry = HistoryEntry(
                revision=body["revision"],
                version=counted[service],
                config_epoch=body.get("config_epoch") or epochs.get(body["epoch_seq"], ""),
                epoch_seq=body["epoch_seq"],
                at=body["at"],
                by=body["by"],
                action=body["action"],
                reason=body["reason"],
                correlation_id=body["correlation_id"],
                changes=tuple(map(KeyChange.from_list, body["services"][service])),
            )
            yield HistoryRow(service, entry)
