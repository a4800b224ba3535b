"""What an instance says of itself: receipts, numbered and signed by its own key."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Generic, Literal

from nacl.signing import SigningKey

from config_manager.client.model.guarded import attempt
from config_manager.client.model.precedence import Merged
from config_manager.client.model.values import M
from config_manager.client.model.words import Secrets, spelt
from config_manager.client.rules.events import Source
from config_manager.client.rules.kept import Kept, Poison, Version
from config_manager.client.rules.subscriber import Subscriber
from config_manager.client.rules.todo import PublishReceipt
from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Attempt, Receipt, Running, Stage
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World, rfc3339


class Account(Generic[M]):
    """What an instance runs, and how far its last attempt to change that came. Each receipt that it makes
    counts as newer than the one before."""

    def __init__(
        self,
        subscriber: Subscriber,
        effective: Merged[M],
        schema: str,
        sign_key: bytes,
        boot_seq: int,
        world: World,
    ) -> None:
        """effective: what runs before anything was delivered. schema: the digest of the model's."""
        self.effective = effective
        self.source: Literal["broker", "last-known-good", "defaults"] = "defaults"
        self.running: Version | None = None
        self.attempt: Attempt | None = None
        self.correlation_id: str | None = None
        self.boot_seq = boot_seq
        self.is_gone = False
        self._received: tuple[int, float] | None = None
        """revision and time (Unix seconds) of what the service decides on, or decided on last"""
        self._seq = 0
        self._subscriber = subscriber
        self._signing_key = SigningKey(sign_key)
        self._schema = schema
        self._world = world

    def start_anew(self, boot_seq: int) -> None:
        """From now on receipts are of this start: those of an earlier number count no more."""
        self.boot_seq, self._seq = boot_seq, 0

    def runs(self, effective: Merged[M], source: Source, version: Version) -> None:
        self.effective, self.source, self.running = effective, source, version
        self.correlation_id = version[0].correlation_id

    def moves(self, effective: Merged[M], version: Version) -> None:
        """What runs goes by a newer message. effective: the same values, as of that."""
        self.effective, self.source, self.running = effective, "broker", version
        self.correlation_id = version[0].correlation_id

    def attempted(
        self,
        update: ConfigUpdate,
        stage: Stage,
        reason: str | None = None,
        candidate: Merged[M] | None = None,
    ) -> None:
        """candidate: what is about to run."""
        said = None if reason is None else spelt(self.hidden(candidate).without(reason))
        deaths = self._subscriber.trial.deaths_of(update.revision)
        now = self._world.clock.now()
        if stage == "received":
            self._received = update.revision, now
        took_ms = self._took_ms(update.revision, now) if stage != "received" else None
        self.attempt = Attempt(
            update.revision, stage, said, deaths, update.content, self._time(), took_ms
        )

    def stays_poisoned(self, revision: int, poison: Poison, detail: str) -> None:
        """At a start: this revision, the newest, is what the service died of."""
        deaths = self._subscriber.trial.deaths_of(revision)
        content = poison.content if poison.content != poison.digest else None
        self.attempt = Attempt(revision, "poisoned", detail, deaths, content, self._time())

    def hidden(self, candidate: Merged[M] | None) -> Secrets:
        """What no words may hold: the secrets of what runs, and of what is about to run."""
        runs = self.effective.hidden
        return runs | candidate.hidden if candidate is not None else runs

    def receipt(self, *, gone: bool = False) -> PublishReceipt:
        """The receipt as of now, signed by the instance's own key. gone: also the will."""
        self._seq += 1
        running = None
        if self.running is not None:
            update, envelope = self.running
            running = Running(update.epoch_seq, update.revision, envelope.digest, update.content)
        document = Receipt(
            service=self._subscriber.service,
            instance=self._subscriber.instance,
            boot_seq=self.boot_seq,
            seq=self._seq,
            running=running,
            last_attempt=self.attempt,
            source=self.source,
            freshness=self._subscriber.freshness.in_words,
            overrides=self.effective.overrides,
            schema=self._schema,
            library=library(),
            correlation_id=self.correlation_id,
            gone=gone or self.is_gone,
            at=self._time(),
        )
        return self._signed(document)

    def cannot_keep(self, kept: Kept, error: OSError, shown: Receipt) -> PublishReceipt:
        """While the disk does not take it: everything as it was shown last, and why. Each later receipt has to
        be made after this one."""
        self._seq += 1
        revision = kept.seen.mark.revision if kept.seen is not None else 0
        why = spelt(f"cannot keep: {error.strerror or type(error).__name__}")
        deaths = self._subscriber.trial.deaths_of(revision)
        attempted = Attempt(revision, "deferred", why, deaths, at=self._time())
        return self._signed(replace(shown, seq=self._seq, last_attempt=attempted, at=self._time()))

    def _signed(self, document: Receipt) -> PublishReceipt:
        data = attempt(lambda: self._enveloped(document), b"")
        if not data:  # what a text raises must not end the driver: the receipt goes without it
            document = replace(document, last_attempt=None)
        if not data or len(data) > wire.MAX_RECEIPT_BYTES:
            document = replace(document, overrides=(), correlation_id=None)
            data = self._enveloped(document)
        topic = wire.status_topic(self._subscriber.service, self._subscriber.instance)
        return PublishReceipt(topic, data, document)

    def _enveloped(self, document: Receipt) -> bytes:
        payload = document.to_bytes()
        signed = self._signing_key.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
        keyid = wire.keyid(self._signing_key.verify_key.encode())
        signatures = (Signature(keyid, signed),)
        return Envelope(wire.RECEIPT, payload, signatures, document.correlation_id).to_bytes()

    def _took_ms(self, revision: int, now: float) -> int | None:
        """Since this revision was received; None if that was another start, or the clock was set back since."""
        if self._received is None or self._received[0] != revision:
            return None
        took = now - self._received[1]
        return round(took * 1000) if 0 <= took < 2**31 else None

    def _time(self) -> str:
        """Now; a clock outside every calendar counts as being at its beginning."""
        return attempt(lambda: rfc3339(self._world.clock.now()), rfc3339(0))


@cache
def library() -> str:
    """This library, and its version."""
    try:
        return f"config-manager-python {version('config-manager')}"
    except PackageNotFoundError:  # run from a copied tree
        return "config-manager-python"
