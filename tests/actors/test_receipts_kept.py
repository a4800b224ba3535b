"""What waits to be kept while nothing takes it."""

from __future__ import annotations

from dataclasses import replace

from config_manager.actors.receipt_reading import InstanceStatus
from config_manager.actors.receipts_kept import ReceiptsToKeep
from config_manager.actors.statuses import HeardReceipt
from tests.kit import documents as d


def test_who_talks_without_end_while_nothing_is_kept_fills_no_memory() -> None:
    now = 0.0
    receipts = ReceiptsToKeep(lambda _service, _instance: "in-line", lambda: now)
    envelope = bytes(64 * 1024)
    for seq in range(1_000):
        now += 60
        receipt = replace(d.RECEIPT, seq=seq, overrides=(f"key-{seq}",))
        status = InstanceStatus(
            receipt, "k", 0.0, seq, False, "A", 0.0, 0.0, 0.0, len(envelope), verified=True
        )
        receipts.hear(HeardReceipt(status, receipt, 0.0, envelope))
    waiting = receipts.take(10_000)
    assert len(waiting) <= 512
    assert waiting[-1].seq == 999
