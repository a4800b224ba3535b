"""A board of instances with everything that it looks at: receipts, changes, a broker, and a clock that the test turns."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, ClassVar

from nacl.signing import SigningKey

from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.drift_log import DriftEvent
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.views import BrokerView, CommittedView, Confirmations
from config_manager.config import wire
from config_manager.config.documents.receipt import Running
from config_manager.config.names import Epoch
from config_manager.config.wire import Envelope, Signature, digest, signed_bytes
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.devices import DEVICE, sign_key_of
from config_manager.storage.decisions.forgotten import FORGOTTEN, Forgotten, forgotten
from config_manager.storage.state import Committed, ServiceState
from tests.kit.documents import make_receipt

START = 1_800_000_000.0
EPOCH = Epoch(1, "00000000-0000-4000-8000-000000000001")
KEY = SigningKey(bytes(range(32)))


class Fleet:
    """passed: seconds, on both clocks, unless another monotonic one is given."""

    _said: ClassVar[dict[tuple[str, str], bytes]] = {}

    def __init__(
        self,
        services: dict[str, int] | None = None,
        *,
        age_s: float = 0.0,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """services: each with its revision, committed `age_s` before the board is made."""
        self.passed = 0.0
        self._monotonic = monotonic or (lambda: self.passed)
        self.seq = 0
        committed = Committed(EPOCH, 0, 0, "", {}, {})
        self.view = CommittedView(committed)
        for service, revision in (services or {}).items():
            self.commit(service, revision, at=START - age_s)
        self.broker = BrokerView("mqtt://a")
        self.confirmations = Confirmations([self.broker])
        self.statuses = StatusBoard(
            lambda *key: sign_key_of(self.view.committed, *key),
            lambda *key: forgotten(self.view.committed, *key),
        )
        self.board = DriftBoard(self.view, self.statuses, self.confirmations, self, self._monotonic)

    def now(self) -> float:
        return START + self._monotonic()

    def commit(
        self, service: str, revision: int, *, at: float | None = None, **fields: Any
    ) -> None:
        payload = f"{service} {revision}".encode()
        state = ServiceState(
            service=service,
            revision=revision,
            version=revision,
            epoch=EPOCH,
            stored={},
            effective={},
            defaulted=(),
            secrets={},
            deleted=False,
            updated_at=rfc3339(self.now() if at is None else at),
            updated_by="ada",
            correlation_id=f"change-{revision}",
            payload=payload,
            digest=digest(payload),
        )
        now = self.view.committed
        services = {**now.services, service: replace(state, **fields)}
        self.view.replace(replace(now, revision=revision, services=services))
        if hasattr(self, "board"):
            self.board.catch_up()  # as its actor does at once

    def confirm(self, service: str, revision: int) -> None:
        self.confirmations.note(self.broker, service, revision)

    def enrol(self, service: str, instance: str) -> None:
        key = base64.b64encode(KEY.verify_key.encode()).decode()
        row = {
            "sign_public": key,
            "seal_public": key,
            "enrolled_at": rfc3339(self.now()),
            "enrolled_by": "ada",
        }
        self.register(DEVICE, f"{service}/{instance}", row)

    def register(self, kind: str, key: str, row: dict[str, Any]) -> None:
        now = self.view.committed
        rows = {**now.registered(kind), key: row}
        self.view.replace(replace(now, registry={**now.registry, kind: rows}))

    def hear(self, service: str, instance: str, revision: int | None, **fields: Any) -> None:
        """It says that it runs this revision."""
        self.seq += 1
        running = None
        if revision is not None:
            running = Running(1, revision, digest(f"{service} {revision}".encode()))
        values: dict[str, Any] = {
            "service": service,
            "instance": instance,
            "seq": self.seq,
            "running": running,
            "at": rfc3339(self.now()),
        }
        payload = make_receipt(**{**values, **fields}).to_bytes()
        signed = KEY.sign(signed_bytes(wire.RECEIPT, payload)).signature
        keyid = wire.keyid(KEY.verify_key.encode())
        envelope = Envelope(wire.RECEIPT, payload, (Signature(keyid, signed),)).to_bytes()
        self._said[service, instance] = envelope
        self.repeat(service, instance, retained=False)
        self.board.catch_up()  # as its actor does at once

    def repeat(self, service: str, instance: str, *, retained: bool = True) -> None:
        """What it said last comes from the broker again. Also what it said to a fleet before this one."""
        topic = wire.status_topic(service, instance)
        envelope = self._said[service, instance]
        self.statuses.take("mqtt://a", topic, envelope, retained=retained, now=self.now())

    def forget(self, service: str, instance: str) -> None:
        known = self.statuses.status(service, instance)
        assert known is not None
        mark = Forgotten(known.keyid, *known.receipt.order, until=self.now())
        self.register(FORGOTTEN, f"{service}/{instance}", asdict(mark))

    def state(self, service: str, instance: str) -> str:
        judged = self.board.one(service, instance)
        return "unknown" if judged is None else judged.state

    def events(self) -> list[DriftEvent]:
        return list(self.board.events_after(0))

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(one.event, one.instance, one.state) for one in self.events()]
