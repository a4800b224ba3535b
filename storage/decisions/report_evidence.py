"""What a report needs of what is kept: from which row of the audit on, which receipts, whose keys. Pure.

More evidence never makes a report wrong, less of it only makes it say less.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from config_manager.config.strict_json import JsonObject, is_object
from config_manager.config.wire import keyid
from config_manager.storage.decisions.devices import DEVICE
from config_manager.storage.decisions.ledger import Period, time_of
from config_manager.storage.decisions.replay import ACCEPT
from config_manager.storage.drifts import KeptReceipt
from config_manager.storage.state import Committed


class Needed:
    """Takes every row of the audit in order, and says from which one on a report needs them: what was wanted when its
    span begins, and the enrolments of its instances."""

    def __init__(self, span: Period, service: str | None, runs: Iterable[tuple[str, int]]) -> None:
        """service: None for every one. runs: (service, revision) that a receipt names."""
        self._span, self._service = span, service
        self._runs = set(runs)
        self._base: dict[str, int] = {}
        self._ran: list[int] = []
        self._open: dict[tuple[str, str], tuple[int, str]] = {}
        """(row, key) of what is enrolled"""
        self._ended: list[int] = []
        """rows of enrolments that ended within the span"""
        self._is_whole = False
        """rows were accepted as they lay: the chain is only whole from the first one on"""
        self._last = 0

    @property
    def first(self) -> int:
        """The number of the row; the newest one if there is nothing to say."""
        if self._is_whole:
            return 1
        enrolled = [seq for seq, _ in self._open.values()]
        return min(
            [*self._base.values(), *self._ran, *enrolled, *self._ended], default=max(1, self._last)
        )

    def take(self, seq: int, body: JsonObject) -> None:
        self._last = seq
        try:
            self._take(seq, body)
        except (LookupError, TypeError, ValueError, AttributeError):
            return

    def _take(self, seq: int, body: JsonObject) -> None:
        at = time_of(body["at"], self._span.end)
        if body["action"] == ACCEPT and "lay" in body.get("accepted", {}):
            self._is_whole = True
        for service in body.get("services", {}):
            if self._service not in (None, service):
                continue
            if (service, body["revision"]) in self._runs:
                self._ran.append(seq)
            if (at is not None and at <= self._span.begin) or service not in self._base:
                self._base[service] = seq
        if body["action"] in ("device.enrol", "device.revoke"):
            details = body["details"]
            if self._service in (None, details["service"]):
                name = (details["service"], details["instance"])
                self._take_device(seq, at, name, details.get("sign_keyid"))

    def _take_device(
        self, seq: int, at: float | None, name: tuple[str, str], key: str | None
    ) -> None:
        held = self._open.get(name)
        if held is not None and held[1] == key:
            return
        if held is not None and (at is None or at >= self._span.begin):
            self._ended.append(held[0])
        self._open.pop(name, None)
        if key is not None:
            self._open[name] = (seq, key)


def receipts_within(kept: Sequence[KeptReceipt], span: Period) -> list[KeptReceipt]:
    """Of one instance: those of the span, the one before and the one behind, and what says that it went meanwhile."""
    ordered = sorted(kept, key=lambda one: (one.boot_seq, one.seq))
    first = next((i for i, one in enumerate(ordered) if one.at >= span.begin), len(ordered))
    behind = max((i for i, one in enumerate(ordered) if one.at <= span.end), default=-1) + 1
    some = range(max(0, min(first, behind) - 1), min(behind + 1, len(ordered)))
    starts = {ordered[index].boot_seq for index in some}
    return [
        one
        for index, one in enumerate(ordered)
        if index in some or (one.gone and one.boot_seq in starts)
    ]


def keys_of(committed: Committed, rows: Iterable[JsonObject]) -> dict[str, bytes]:
    """The instances' public keys by id, as far as they are known: those that count, and those that these rows name."""
    texts = [row.get("sign_public") for row in committed.registered(DEVICE).values()]
    texts += [_details(body).get("sign_public") for body in rows]
    keys: dict[str, bytes] = {}
    for text in texts:
        with suppress(ValueError):  # a row that was altered; whoever verifies the report is told
            if isinstance(text, str):
                key = base64.b64decode(text)
                keys[keyid(key)] = key
    return keys


def _details(body: JsonObject) -> Mapping[str, object]:
    details = body.get("details")
    return details if is_object(details) else {}
