"""The secrets that were sealed to this instance, sans I/O.

A configuration names its secrets and their versions, and a sealed document brings the values. Both must be
here before either is applied, whichever comes first. The last few documents are kept as they came, because
what runs may still need the versions before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from config_manager.client.rules.kept import are_enough, merged
from config_manager.config import trust, wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import Root
from config_manager.config.documents.sealed import Sealed
from config_manager.config.names import Mark
from config_manager.config.sealing import NotSealedForThis, open_sealed
from config_manager.config.secret import Secret
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope

_KEPT = 3
_BEFORE_ANY_DATE = float("-inf")


@dataclass(frozen=True, slots=True)
class _Delivered:
    sealed: Sealed
    envelope: Envelope
    values: Mapping[str, Secret]


class Deliveries:
    """What was delivered to one instance of one service, the newest first."""

    def __init__(
        self,
        service: str,
        instance: str,
        seal_key: bytes,
        kept: Sequence[Envelope],
        roots: Sequence[Root],
    ) -> None:
        """seal_key: the instance's X25519 key. kept: what `kept` was. roots: all that were ever trusted."""
        self.topic = wire.sealed_topic(service, instance)
        self._service = service
        self._instance = instance
        self._seal_key = seal_key
        self._delivered: list[_Delivered] = []
        for envelope in reversed(kept):
            for root in reversed(roots):
                try:
                    self._take(self._judge(envelope, root, _BEFORE_ANY_DATE), root)
                except Distrust:
                    continue
                break

    @property
    def kept(self) -> tuple[Envelope, ...]:
        """What must survive a restart."""
        return tuple(one.envelope for one in self._delivered)

    @property
    def mark(self) -> Mark | None:
        """Of the newest."""
        return self._delivered[0].sealed.mark if self._delivered else None

    def receive(self, payload: bytes, root: Root, now: float) -> bool:
        """A message on `topic`. Returns whether it is news; raises Distrust. now: wall clock."""
        return self._take(self._judge(trust.open_envelope(payload), root, now), root)

    def values(
        self, update: ConfigUpdate, root: Root, *, at_a_start: bool = False
    ) -> Mapping[str, Secret] | None:
        """The secrets that a configuration names, in its versions; None if they are not here: none that too
        few of the root's keys vouch for, but at a start, if there are no others."""
        role = root.roles["config"]
        good = [one for one in self._delivered if are_enough(one.envelope.signers, role)]
        for one in (*good, *(self._delivered if at_a_start else ())):
            if all(
                name in one.values and one.sealed.secrets[name].version == version
                for name, version in update.secrets.items()
            ):
                return {name: one.values[name] for name in update.secrets}
        return None if update.secrets else {}

    def _judge(self, envelope: Envelope, root: Root, now: float) -> _Delivered:
        envelope = trust.verified(envelope, wire.SEALED, "config", root, now)
        sealed = trust.parse_verified(envelope.payload, Sealed.parse)
        if (sealed.service, sealed.instance) != (self._service, self._instance):
            raise Distrust(
                "wrong-service",
                f"secrets sealed for {sealed.service[:64]}/{sealed.instance[:64]}, not for "
                f"{self._service}/{self._instance}",
            )
        try:
            values = {name: open_sealed(sealed, name, self._seal_key) for name in sealed.secrets}
        except NotSealedForThis as error:
            raise Distrust("malformed", f"sealed secrets: {error}") from None
        return _Delivered(sealed, envelope, values)

    def _take(self, new: _Delivered, root: Root) -> bool:
        """Take a document. The mark never goes back, unless a key that the root no longer lists had pushed it forward."""
        good = root.roles["config"].keyids
        highest = max(
            (
                one.sealed.mark
                for one in self._delivered
                if any(signature.keyid in good for signature in one.envelope.signatures)
            ),
            default=None,
        )
        if highest is not None and new.sealed.mark < highest:
            raise Distrust(
                "rolled-back",
                f"sealed secrets of revision {new.sealed.revision} after {highest.revision}",
            )
        others: list[_Delivered] = []
        for one in self._delivered:
            if one.envelope.payload != new.envelope.payload:
                others.append(one)
                continue
            both = merged(one.envelope, new.envelope, root.roles["config"])
            if both is one.envelope:
                return False
            new = replace(new, envelope=both)
        # a thief's must not displace what runs needs
        others.sort(key=lambda one: not are_enough(one.envelope.signers, root.roles["config"]))
        self._delivered = [new, *others][:_KEPT]
        return True
