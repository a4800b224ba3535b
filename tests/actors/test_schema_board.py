"""What brokers send as schemas of instances is bounded, and what nobody names makes room."""

from __future__ import annotations

from typing import Any

from config_manager.actors import schema_board
from config_manager.actors.schema_board import Key, SchemaBoard, Standing
from config_manager.config import wire
from config_manager.config.strict_json import dumps_sorted
from config_manager.storage.decisions.instance_schemas import MOST_OF_A_SERVICE

NOW = 1_800_000_000.0


def schema(name: str, size: int = 0) -> bytes:
    return dumps_sorted({"type": "object", "title": name, "description": "x" * size})


class Board:
    def __init__(self, **limits: Any) -> None:
        self.standing: dict[str, Standing] = {}
        self.kept: set[str] = set()
        self.board = SchemaBoard(
            lambda _service, digest: self.standing.get(digest),
            lambda _service, digest: digest in self.kept,
            **limits,
        )

    def hears(self, payload: bytes, service: str = "lamp", digest: str | None = None) -> str | None:
        name = wire.digest(payload) if digest is None else digest
        return self.board.take(wire.schema_topic(service, name), payload, NOW)

    def has(self, payload: bytes, service: str = "lamp") -> bool:
        return self.board.heard(service, wire.digest(payload)) is not None


def test_what_is_no_schema_is_counted_and_not_kept() -> None:
    desk, good = Board(), schema("good")
    assert desk.hears(good, digest="ab" * 32) == "it has another digest than its topic names"
    assert desk.hears(good, digest="AB" * 32) == "its topic names no digest"
    assert desk.hears(good) is None
    assert desk.hears(schema("big", wire.MAX_SCHEMA_BYTES)) == "it is over 65536 bytes"
    assert desk.hears(schema("other"), service="UP") is not None
    assert desk.board.refused == 4
    assert desk.has(good)


def test_it_is_known_when_it_is_read_again_and_gone_when_its_topic_is_empty() -> None:
    desk, good = Board(), schema("good")
    for _ in range(2):
        assert desk.hears(good) is None
    assert desk.hears(b"", digest=wire.digest(good)) is None
    assert not desk.has(good)
    desk.kept.add(wire.digest(good))
    assert desk.hears(good) is None
    assert not desk.has(good)  # the database has it


def test_an_unfit_one_is_not_looked_at_again() -> None:
    desk, odd = Board(), b'{"b":1, "a":2}'
    desk.hears(odd)
    desk.board.unfit(Key("lamp", wire.digest(odd)))
    assert desk.hears(odd) is None
    assert not desk.has(odd)


def test_a_flood_takes_no_place_from_what_an_enrolled_instance_names() -> None:
    desk, good, claimed = Board(), schema("good"), schema("claimed")
    desk.standing = {wire.digest(good): "enrolled", wire.digest(claimed): "claimed"}
    desk.hears(good)
    desk.hears(claimed)
    for number in range(3 * MOST_OF_A_SERVICE):
        assert desk.hears(schema(f"flood {number}")) is None
    assert desk.has(good)
    assert desk.has(claimed)
    assert desk.board.candidates("lamp").keys() == desk.standing.keys()
    for number in range(MOST_OF_A_SERVICE):
        payload = schema(f"enrolled {number}")
        desk.standing[wire.digest(payload)] = "enrolled"
        desk.hears(payload)
    assert not desk.has(claimed)
    assert desk.hears(schema("one more")) == "there are too many schemas"


def test_all_services_together_are_bounded_too() -> None:
    desk = Board(most=3, max_total_bytes=5_000)
    for number in range(5):
        desk.hears(schema("x"), service=f"s{number}")
    assert [desk.has(schema("x"), f"s{number}") for number in range(5)] == [False] * 2 + [True] * 3
    desk.hears(schema("large", 4_900), service="large")
    assert desk.has(schema("large", 4_900), "large")
    assert [desk.has(schema("x"), f"s{number}") for number in (2, 3, 4)] == [False, False, True]
    assert schema_board.MAX_TOTAL_BYTES == 16 * 1024 * 1024
