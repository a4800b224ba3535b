"""What the client finds out about a service's configuration: the events of `Subscriber`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from config_manager.client.rules.root_chain import Link
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.trust import Distrust, Reason
from config_manager.config.wire import Envelope

Source: TypeAlias = Literal["broker", "last-known-good"]
StaleReason: TypeAlias = Literal[
    "no-beacon", "withheld", "expired", "root-withheld", "signer-revoked"
]


@dataclass(frozen=True, slots=True)
class Offered:
    """A configuration was accepted, and the service decides on it: see `Trial`."""

    update: ConfigUpdate
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Applied:
    """Run this from now on; also if the publisher decided anew on the values that run already. signer_revoked: the kept envelope's key is no longer good."""

    update: ConfigUpdate
    envelope: Envelope
    source: Source
    signer_revoked: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was turned down; what runs is untouched."""

    reason: Reason
    detail: str

    @classmethod
    def by(cls, verdict: Distrust) -> Refused:
        return cls(verdict.reason, verdict.detail)


@dataclass(frozen=True, slots=True)
class Deleted:
    """The publisher deleted the configuration; the running values stay."""

    update: ConfigUpdate


@dataclass(frozen=True, slots=True)
class Moved:
    """What runs goes by a newer message, which decides nothing new: keep that, apply nothing."""

    update: ConfigUpdate
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Resigned:
    """The same configuration under another valid signature: keep it, apply nothing."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Stale:
    """What runs may be out of date. since: monotonic seconds, by the driver's clock."""

    reason: StaleReason
    since: float


@dataclass(frozen=True, slots=True)
class Fresh:
    """What runs is what the publisher wants, proved within the last beacon's validity."""


@dataclass(frozen=True, slots=True)
class RootTrusted:
    """A newer root is trusted: it must be on disk before anything that follows from it."""

    link: Link


News: TypeAlias = Applied | Refused | Deleted | Stale | Fresh
"""What a service can act on, and `client run` prints."""

Event: TypeAlias = News | Moved | Offered | Resigned | RootTrusted
