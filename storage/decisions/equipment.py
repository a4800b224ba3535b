"""What a decision may use that is not in the committed state. Whatever is random, a key or a disk is passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.secret import Secret
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.devices import Delivery
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.state import Committed, KeptPlan, SchemaVersion, SealedSecret

A_co = TypeVar("A_co", covariant=True)

Seal = Callable[[str, str, int, Secret, str], SealedSecret]
"""(service, name, version, value, at) → the sealed secret."""


class SealForDevice(Protocol):
    """See `config.sealing.seal`. Raises KeyUnusable."""

    def __call__(
        self, value: Secret, *, sealed: Sealed, name: str, version: int, public: bytes
    ) -> SealedValue: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What is the same for every decision.

    new_id: makes an epoch's id. seal: with the key that seals as of this state. open: raises SecretUnreadable.
    delivery_mac: of a delivery to this `service/instance`. keyed: an HMAC for fingerprints of requests. A request may
    hold a secret, and a fingerprint without a key could be compared with guesses.
    """

    shapes: Shapes
    new_id: Callable[[], str]
    seal: Callable[[Committed], Seal]
    open: Callable[[SealedSecret], Secret]
    seal_for_device: SealForDevice
    delivery_mac: Callable[[str, Delivery], str]
    keyed: Callable[[bytes], bytes]


class Stored(Protocol):
    """What a decision may look up. Each may raise DatabaseUnavailable."""

    def secrets(self, service: str) -> Sequence[SealedSecret]:
        """The newest version of each of the service's secrets that are in the store."""
        ...

    def secret(self, service: str, name: str, version: int) -> SealedSecret | None:
        """One version, unless it is not kept."""
        ...

    def schemas(self, service: str) -> Sequence[SchemaVersion]:
        """The newest version of the service's schema from each source."""
        ...

    def plan(self, plan_id: str) -> KeptPlan | None:
        """One plan, unless it is not kept."""
        ...


@dataclass(frozen=True, slots=True)
class Equipped(Occasion):
    """An occasion, with what deciding may use."""

    tools: Tools
    stored: Stored


class Decidable(Protocol[A_co]):
    """Something that is to be written."""

    def decide(self, before: Committed, on: Equipped, /) -> Decided[A_co]:
        """Raises a `config.errors.Refusal`; then nothing happens."""
        ...
