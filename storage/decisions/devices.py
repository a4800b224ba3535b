"""Devices: instances that enrolled with keys of their own, and so may receive secrets.

Registry kinds: `enrolment`, by the hash of its one-time token, until that is used. By `service/instance`: `device`,
`delivery` (what it should hold now) and `sent` (the newest version of each secret that it was ever sent; it may
still have it, whatever became of the delivery).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from config_manager.config.enrolment import Enrolment
from config_manager.config.errors import Conflict, Forbidden, NotAuthenticated, NotFound
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import keyid
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.administration import administered, noted
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.secret_rows import key_of
from config_manager.storage.state import Committed, RegistryRow

ENROLMENT, DEVICE, DELIVERY, SENT = "enrolment", "device", "delivery", "sent"


@dataclass(frozen=True, slots=True)
class Device:
    """An instance's public keys (raw), who let it in, and whether that still holds."""

    service: str
    instance: str
    sign_public: bytes
    seal_public: bytes
    enrolled_at: str
    enrolled_by: str
    revoked_at: str | None = None

    @property
    def sign_keyid(self) -> str:
        return keyid(self.sign_public)

    def to_row(self) -> RegistryRow:
        return RegistryRow(
            DEVICE,
            key_of(self.service, self.instance),
            {
                "sign_public": base64.b64encode(self.sign_public).decode(),
                "seal_public": base64.b64encode(self.seal_public).decode(),
                "enrolled_at": self.enrolled_at,
                "enrolled_by": self.enrolled_by,
                "revoked_at": self.revoked_at,
            },
        )

    @classmethod
    def of(cls, key: str, value: JsonObject) -> Device:
        service, _, instance = key.partition("/")
        return cls(
            service,
            instance,
            base64.b64decode(value["sign_public"]),
            base64.b64decode(value["seal_public"]),
            value["enrolled_at"],
            value["enrolled_by"],
            value.get("revoked_at"),
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one device should hold: the exact payload that is signed, and which versions are in it. mac: proves
    that this server sealed it (`storage.decisions.vouching`); empty if an earlier version did."""

    payload: bytes
    versions: Mapping[str, int]
    sign_keyid: str
    mac: str = ""

    @classmethod
    def of(cls, value: JsonObject) -> Delivery:
        return cls(
            value["payload"].encode(), value["versions"], value["sign_keyid"], value.get("mac", "")
        )

    def to_row(self, device: Device) -> RegistryRow:
        value: JsonObject = {
            "payload": self.payload.decode(),
            "versions": dict(self.versions),
            "sign_keyid": self.sign_keyid,
            "mac": self.mac,
        }
        return RegistryRow(DELIVERY, key_of(device.service, device.instance), value)


def devices(committed: Committed) -> list[Device]:
    """Every device that ever enrolled, by service and instance; revoked ones too."""
    return [Device.of(key, row) for key, row in sorted(committed.registered(DEVICE).items())]


def enrolled(committed: Committed, service: str, instance: str) -> Device | None:
    """The device, unless it never enrolled or was revoked."""
    row = committed.registered(DEVICE).get(key_of(service, instance))
    device = None if row is None else Device.of(key_of(service, instance), row)
    return device if device is not None and device.revoked_at is None else None


def sign_key_of(committed: Committed, service: str, instance: str) -> bytes | None:
    """The public key of an enrolled instance's receipts; None if it is not enrolled."""
    device = enrolled(committed, service, instance)
    return None if device is None else device.sign_public


def delivery(committed: Committed, device: Device) -> Delivery | None:
    row = committed.registered(DELIVERY).get(key_of(device.service, device.instance))
    return None if row is None else Delivery.of(row)


def could_read(committed: Committed, device: Device) -> Mapping[str, int]:
    """Secret → version of everything that it was sent and that nobody has set anew since. Deleted secrets are
    among them: they may still be valid elsewhere."""
    state = committed.services.get(device.service)
    current: Mapping[str, int] = state.secrets if state is not None else {}
    return {
        name: version
        for name, version in _sent(committed, device).items()
        if current.get(name, version) <= version
    }


def _sent(committed: Committed, device: Device) -> Mapping[str, int]:
    row = committed.registered(SENT).get(key_of(device.service, device.instance), {})
    versions = row.get("versions")
    if not isinstance(versions, dict):  # the row is bookkeeping: nothing vouches for its form
        return {}
    sent = cast("Mapping[str, object]", versions)
    return {name: number for name, number in sent.items() if isinstance(number, int)}


@dataclass(frozen=True, slots=True)
class AllowEnrolment:
    """A one-time token for an instance of a service (None: for any instance). expires_at: RFC 3339."""

    token_hash: str
    service: str
    instance: str | None
    expires_at: str

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        over = tuple(
            RegistryRow(ENROLMENT, key, None)
            for key, row in before.registered(ENROLMENT).items()
            if parse_rfc3339(row["expires_at"]) <= on.now
        )
        row = RegistryRow(
            ENROLMENT,
            self.token_hash,
            {
                "service": self.service,
                "instance": self.instance,
                "expires_at": self.expires_at,
                "created_by": on.by,
            },
        )
        details: dict[str, Any] = {
            "service": self.service,
            "instance": self.instance,
            "expires_at": self.expires_at,
        }
        return administered(before, on, "device.allow", details, (*over, row), None)


@dataclass(frozen=True, slots=True)
class Enrol:
    """An instance shows its token and its keys.

    Refused with NotAuthenticated (token unknown, used or expired; proof wrong), Forbidden (the token is for
    another service or instance) or Conflict (another device has the name).
    """

    what: Enrolment
    proof: bytes

    def decide(self, before: Committed, on: Occasion) -> Decided[Device]:
        what = self.what
        row = before.registered(ENROLMENT).get(what.token_sha256)
        if row is None or parse_rfc3339(row["expires_at"]) <= on.now:
            raise NotAuthenticated(
                "this enrolment token is not known: it was used, or its time is over; ask for "
                "another one (config-manager devices token)"
            )
        if row["service"] != what.service or row.get("instance") not in (None, what.instance):
            raise Forbidden("this enrolment token is for another service or instance")
        if not what.is_proved_by(self.proof):
            raise NotAuthenticated("the proof was not made with the key that is to be enrolled")
        key = key_of(what.service, what.instance)
        held = enrolled(before, what.service, what.instance)
        if held is not None and held.sign_public != what.sign_public:
            raise Conflict(
                f"{what.service}/{what.instance} is enrolled with other keys; revoke it first, or "
                "choose another name (--instance)"
            )
        device = Device(
            what.service,
            what.instance,
            what.sign_public,
            what.seal_public,
            on.at,
            row["created_by"],
        )
        rows = (
            RegistryRow(ENROLMENT, what.token_sha256, None),
            device.to_row(),
            # what was sealed to an earlier key does not open with these
            RegistryRow(DELIVERY, key, None),
            # an earlier device of this name was sent other secrets, which are marked
            *((RegistryRow(SENT, key, None),) if held is None else ()),
        )
        details: dict[str, Any] = {
            "service": what.service,
            "instance": what.instance,
            "sign_keyid": device.sign_keyid,
            # so that its receipts can be checked by whoever has this row alone
            "sign_public": base64.b64encode(device.sign_public).decode(),
            "allowed_by": row["created_by"],
        }
        return administered(before, on, "device.enrol", details, rows, device)


@dataclass(frozen=True, slots=True)
class RevokeDevice:
    """Deliver nothing to it any more, and mark what it could read to be changed.

    Answers the names of those secrets. Refused with NotFound.
    """

    service: str
    instance: str

    def decide(self, before: Committed, on: Occasion) -> Decided[list[str]]:
        device = enrolled(before, self.service, self.instance)
        if device is None:
            raise NotFound(f"no device {self.service}/{self.instance} is enrolled")
        readable = could_read(before, device)
        state = before.services.get(self.service)
        kept: Mapping[str, int] = state.secrets if state is not None else {}
        marks = tuple(
            RegistryRow(
                secret_rows.MARK,
                key_of(self.service, name),
                {"version": version, "why": f"{self.instance} could read it", "at": on.at},
            )
            for name, version in readable.items()
            if name in kept
        )
        rows = (
            replace(device, revoked_at=on.at).to_row(),
            RegistryRow(DELIVERY, key_of(self.service, self.instance), None),
            *marks,
        )
        details: dict[str, Any] = {
            "service": self.service,
            "instance": self.instance,
            "secrets": sorted(readable),
        }
        return administered(before, on, "device.revoke", details, rows, sorted(readable))


@dataclass(frozen=True, slots=True)
class KeepDelivery:
    """Bookkeeping: keep what was sealed for a device, so that the same bytes go out after a crash."""

    device: Device
    made: Delivery

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        if enrolled(before, self.device.service, self.device.instance) != self.device:
            raise NotFound("it was revoked meanwhile")
        versions = {**_sent(before, self.device), **self.made.versions}
        sent = RegistryRow(
            SENT, key_of(self.device.service, self.device.instance), {"versions": versions}
        )
        return noted(before, on, (self.made.to_row(self.device), sent))
