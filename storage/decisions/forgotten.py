"""Instances that an operator forgot: what is kept so that their old receipts stay away.

Registry kind `forgotten`, by `service/instance`. A broker that was away when the instance was forgotten still
retains its receipt. When the server reads that receipt, perhaps after a restart, this row tells it from a receipt
of an instance that came back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from config_manager.config.documents.receipt import Receipt
from config_manager.config.strict_json import JsonObject
from config_manager.storage.state import Committed, RegistryRow

FORGOTTEN = "forgotten"
MOST = 1_000
"""Rows that are kept. They are in memory and in every cache file, and matter only while a broker is away."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How far an instance had come when it was forgotten.

    keyid, boot_seq, seq: of its newest receipt. until (Unix seconds): when it was forgotten, or the last time
    on its own clock if that is later. schema: the digest that its receipt named; None in rows of 0.5.0 and older.
    """

    keyid: str
    boot_seq: int
    seq: int
    until: float
    schema: str | None = None

    def covers(self, receipt: Receipt, keyid: str, at: float, *, retained: bool) -> bool:
        """Whether the forgotten instance said this, and not one that came back.

        keyid, at: the receipt's signer and time. retained: MQTT's flag.
        """
        if not (retained or receipt.gone):
            return False  # a message that was just published: the instance is back
        is_its_own = keyid == self.keyid
        if is_its_own and receipt.gone and receipt.boot_seq == self.boot_seq:
            return True  # this broker noticed its end later than others
        # an instance that is back may count from a lower number (state from a backup) or have another key (new
        # state): then its receipt has a later time
        is_older = not is_its_own or receipt.order <= (self.boot_seq, self.seq)
        return is_older and at <= self.until


def key_of(service: str, instance: str) -> str:
    return f"{service}/{instance}"


def forgotten(committed: Committed, service: str, instance: str) -> Forgotten | None:
    row = committed.registered(FORGOTTEN).get(key_of(service, instance))
    return None if row is None else Forgotten(**{k: v for k, v in row.items() if v is not None})


def newly_forgotten(
    rows: Mapping[str, JsonObject], before: Mapping[str, JsonObject]
) -> list[tuple[str, str]]:
    """(service, instance) of each row that is new or has changed."""
    names = [key.partition("/") for key, row in rows.items() if before.get(key) != row]
    return [(service, instance) for service, _, instance in names]


def rows_after(
    committed: Committed, service: str, instance: str, what: Forgotten
) -> tuple[RegistryRow, ...]:
    """The row of an instance that is forgotten now. The oldest rows make room."""
    key = key_of(service, instance)
    others = {k: row for k, row in committed.registered(FORGOTTEN).items() if k != key}
    oldest = sorted(others, key=lambda k: float(others[k]["until"]))
    over = oldest[: max(0, len(others) + 1 - MOST)]
    return (
        *(RegistryRow(FORGOTTEN, k, None) for k in over),
        RegistryRow(FORGOTTEN, key, asdict(what)),
    )
