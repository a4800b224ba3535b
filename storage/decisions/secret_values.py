"""The two decisions that open stored secrets: to show one, and to seal a service's for one of its devices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from config_manager.config import wire
from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.errors import Conflict, NotFound, TooLarge
from config_manager.config.secret import Secret
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided
from config_manager.storage.decisions.devices import Delivery, Device, KeepDelivery
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.secret_rows import key_of
from config_manager.storage.state import Committed


@dataclass(frozen=True, slots=True)
class Revealed:
    """A secret's value, for the caller that asked; the audit row that says so is committed."""

    version: int
    updated_at: str
    value: Secret


@dataclass(frozen=True, kw_only=True)
class RevealSecret:
    """Show a secret's value: a write, because the audit has it first. version: None is the newest."""

    service: str
    name: str
    version: int | None = None

    def decide(self, before: Committed, on: Equipped) -> Decided[Revealed]:
        known = before.services.get(self.service)
        if known is None or self.name not in known.secrets:
            raise NotFound(f"{self.service} has no secret of this name")
        version = self.version or known.secrets[self.name]
        sealed = on.stored.secret(self.service, self.name, version)
        if sealed is None:
            raise NotFound(f"{self.service} has no version {version} of this secret")
        revealed = Revealed(version, sealed.updated_at, on.tools.open(sealed))
        details = {"service": self.service, "name": self.name, "version": version}
        return administered(before, on, "secret.reveal", details, (), revealed)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Seal a service's secrets for one of its devices, and keep that.

    Refused with TooLarge if they fit no message, and with Conflict while one is being changed: then asking
    again helps.
    """

    device: Device

    def decide(self, before: Committed, on: Equipped) -> Decided[None]:
        device, tools = self.device, on.tools
        state = before.live(device.service)
        wanted = dict(state.secrets) if state is not None else {}
        mark = state.mark if state is not None else before.mark
        empty = Sealed(device.service, device.instance, mark.epoch_seq, mark.revision, {})
        values: dict[str, SealedValue] = {}
        for row in on.stored.secrets(device.service):
            if wanted.get(row.name) == row.version:
                values[row.name] = tools.seal_for_device(
                    tools.open(row),
                    sealed=empty,
                    name=row.name,
                    version=row.version,
                    public=device.seal_public,
                )
        if values.keys() != wanted.keys():  # written in this very batch, not in the store yet
            raise Conflict("the secrets are being changed")
        payload = replace(empty, secrets=values).to_bytes()
        size = wire.envelope_size(len(payload), "")
        if size > wire.MAX_ENVELOPE_BYTES:
            raise TooLarge(
                f"the secrets of {device.service} would be a message of {size} bytes; "
                f"services take at most {wire.MAX_ENVELOPE_BYTES}"
            )
        made = Delivery(payload, wanted, device.sign_keyid)
        mac = tools.delivery_mac(key_of(device.service, device.instance), made)
        return KeepDelivery(device, replace(made, mac=mac)).decide(before, on)
