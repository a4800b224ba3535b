"""The audit over REST, on a real SQLCipher file that somebody with its key edits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import trio

from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config import strict_json, wire
from config_manager.config.audit import chain
from config_manager.config.trust import Distrust, judge_audit_export, judge_root
from config_manager.storage.decisions.vouching import Vouching
from tests.kit.asgi import Answer, Caller, on_disk, with_the_key

AUDIT = "/api/v1/audit"
DOOR = "/api/v1/config/door"


EDITED = (
    "UPDATE audit SET body = CAST(replace(body, 'bootstrap', 'somebody') AS BLOB) WHERE seq = %d"
)


def is_as_described(name: str, body: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": openapi(ROUTES)["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)


class Desk(Caller):
    """A server on a file, and a hand with the file's key."""

    data: Path

    async def write(self, count: int) -> None:
        for number in range(count):
            assert (await self.ask("PUT", DOOR, {"n": number})).status in (200, 201)

    async def verdict(self, query: str = "") -> Any:
        answer = await self.ask("GET", f"{AUDIT}/verify{query}")
        assert answer.status == 200, answer.body
        is_as_described("AuditVerdict", answer.json)
        return answer.json

    async def found(self) -> tuple[int, str] | None:
        problem = (await self.verdict())["problem"]
        return None if problem is None else (problem["seq"], problem["kind"])

    def edit(self, *statements: str) -> None:
        with with_the_key(self.data, read_only=False) as connection:
            for statement in statements:
                connection.execute(statement)

    def rewrite_from(self, first: int) -> None:
        """Every row from this one on, with another author, each hash made to fit; the counters too."""
        with with_the_key(self.data, read_only=False) as connection:
            previous = connection.execute(
                "SELECT hash FROM audit WHERE seq = ?", (first - 1,)
            ).fetchone()[0]
            rows = connection.execute(
                "SELECT seq, body FROM audit WHERE seq >= ? ORDER BY seq", (first,)
            ).fetchall()
            for seq, body in rows:
                value = {**json.loads(body), "by": "mallory", "previous": previous}
                data = strict_json.dumps(value)
                previous = chain(previous, data)
                connection.execute(
                    "UPDATE audit SET body = ?, hash = ? WHERE seq = ?", (data, previous, seq)
                )
            connection.execute("UPDATE counters SET audit_head = ?", (previous,))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with on_disk(tmp_path) as system:
        desk = Desk(system)
        desk.data = tmp_path
        yield desk


# ── reading ────────────────────────────────────────────────────────────────────────────────────


async def page(desk: Desk, query: str = "") -> Answer:
    answer = await desk.ask("GET", AUDIT + query)
    assert answer.status == 200
    is_as_described("Audit", answer.json)
    return answer


async def test_every_row_says_who_did_what_and_can_be_checked_by_hand(desk: Desk) -> None:
    made = await desk.ask(
        "POST", "/api/v1/tokens?reason=he+started", {"name": "ci", "role": "write"}
    )
    headers = {"X-Request-ID": "r-1"}
    await desk.ask("PUT", DOOR, {"a": 1}, token=made.json["token"], headers=headers)
    got = (await page(desk)).json
    bodies = [json.loads(entry["body"]) for entry in got["entries"]]
    assert [(b["action"], b["by"], b["reason"]) for b in bodies] == [
        ("token.accept", "settings", None),
        ("token.create", "bootstrap", "he started"),
        ("put", "ci", None),
    ]
    assert bodies[2]["correlation_id"] == "r-1"
    previous = "0" * 64
    for entry in got["entries"]:
        data = previous.encode() + entry["body"].encode()
        assert entry["hash"] == hashlib.sha256(data).hexdigest()
        previous = entry["hash"]
    assert (got["head"], got["rows"], got["next_after"]) == (previous, 3, None)


async def test_refusals_are_in_it_by_the_name_of_who_was_refused(desk: Desk) -> None:
    made = await desk.ask("POST", "/api/v1/tokens", {"name": "ci", "role": "read"})
    for number in range(3):
        headers = {"X-Request-ID": f"r-{number}"}
        await desk.ask("PUT", DOOR, {}, token=made.json["token"], headers=headers)
    await desk.ask("GET", DOOR, token="a-guess")
    with trio.fail_after(5):
        while desk.system.view.committed.audit_seq < 4:
            await desk.system.view.changed()
    rows = [json.loads(entry["body"]) for entry in (await page(desk, "?after=2")).json["entries"]]
    assert [(row["action"], row["by"]) for row in rows] == [
        ("access.refused", "ci"),
        ("access.refused", "anonymous"),
    ]
    assert rows[0]["details"]["refusals"] == [
        {
            "call": "PUT /api/v1/config/{service}",
            "service": "door",
            "client": "192.0.2.1",
            "error": "forbidden",
            "count": 3,
            "request_id": "r-2",
        }
    ]
    assert rows[1]["details"]["refusals"][0]["client"] == "192.0.2.1"
    assert "a-guess" not in json.dumps(rows)


async def test_pages_follow_one_another_without_a_gap(desk: Desk) -> None:
    await desk.write(24)
    seen: list[int] = []
    query = "?limit=7"
    while True:
        got = (await page(desk, query)).json
        seen += [entry["seq"] for entry in got["entries"]]
        if got["next_after"] is None:
            break
        query = f"?limit=7&after={got['next_after']}"
    assert seen == list(range(1, 26))
    assert (await page(desk, "?after=25")).json["entries"] == []


async def test_a_page_of_large_rows_is_cut_by_their_size(desk: Desk) -> None:
    for letter in "abcdefghijklmnopqrst":
        assert (await desk.ask("PUT", DOOR, {"text": letter * 180_000})).status in (200, 201)
    got = await page(desk, "?limit=1000")
    with with_the_key(desk.data) as connection:
        (total,) = connection.execute("SELECT sum(length(body)) FROM audit").fetchone()
    assert 4 * 1024 * 1024 <= len(got.body) < 6 * 1024 * 1024 < total
    assert got.json["next_after"] is not None
    assert (await desk.verdict())["rows"] == 21


@pytest.mark.parametrize("query", ["?limit=0", "?limit=1001", "?after=-1", "?after=a", "?before=1"])
async def test_a_query_that_is_none_is_400(desk: Desk, query: str) -> None:
    assert (await desk.ask("GET", AUDIT + query)).status == 400


# ── verifying ──────────────────────────────────────────────────────────────────────────────────


async def test_a_whole_chain_verifies_while_others_write(desk: Desk) -> None:
    await desk.write(5)
    verdict = await desk.verdict()
    assert verdict == {
        "ok": True,
        "rows": 6,
        "head": desk.system.view.committed.audit_head,
        "problem": None,
        "not_audited": [],
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.write, 30)
        for _ in range(10):
            assert (await desk.verdict())["ok"]


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (
            [EDITED % 4],
            (4, "altered"),
        ),
        (["UPDATE audit SET body = CAST(body || ' ' AS BLOB) WHERE seq = 9"], (9, "altered")),
        (["UPDATE audit SET hash = 'x' WHERE seq = 5"], (5, "altered")),
        (["UPDATE audit SET revision = 77 WHERE seq = 6"], (6, "altered")),
        (["DELETE FROM audit WHERE seq = 3"], (3, "removed")),
        (["DELETE FROM audit WHERE seq = 9"], (9, "removed")),
        (["DELETE FROM audit WHERE seq < 4"], (1, "removed")),
        (["DELETE FROM audit"], (1, "removed")),
        (
            ["DELETE FROM audit WHERE seq = 3"]
            + [f"UPDATE audit SET seq = {seq - 1} WHERE seq = {seq}" for seq in range(4, 10)],
            (3, "removed"),
        ),
        (
            [
                "UPDATE audit SET seq = 100 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = 7",
                "UPDATE audit SET seq = 7 WHERE seq = 100",
            ],
            (3, "reordered"),
        ),
    ],
)
async def test_an_edited_row_is_found_and_named(
    desk: Desk, statements: list[str], found: tuple[int, str]
) -> None:
    await desk.write(8)
    assert await desk.found() is None
    desk.edit(*statements)
    assert await desk.found() == found


async def test_a_chain_rewritten_to_fit_is_not_the_one_that_the_server_signs(desk: Desk) -> None:
    await desk.write(5)
    kept = desk.system.view.committed.audit_head
    desk.rewrite_from(3)
    assert await desk.found() == (6, "head")
    assert kept == desk.system.view.committed.audit_head


async def test_a_hash_that_was_kept_can_be_asked_for(desk: Desk) -> None:
    await desk.write(3)
    kept = desk.system.view.committed.audit_head
    await desk.write(3)
    assert (await desk.verdict(f"?contains={kept}"))["ok"]
    other = (await desk.verdict("?contains=" + "ab" * 32))["problem"]
    assert other["kind"] == "head"
    assert (await desk.ask("GET", f"{AUDIT}/verify?contains=xyz")).status == 400


async def test_an_administration_moves_the_head_and_bookkeeping_does_not(desk: Desk) -> None:
    heads = [desk.system.view.committed.audit_head]
    await desk.ask("POST", "/api/v1/tokens", {"name": "ci", "role": "read"})
    heads.append(desk.system.view.committed.audit_head)
    await desk.ask("DELETE", "/api/v1/tokens/ci")
    heads.append(desk.system.view.committed.audit_head)
    await desk.ask("GET", DOOR)
    assert len({*heads}) == 3
    assert desk.system.view.committed.revision == 0
    assert (await desk.verdict())["head"] == heads[-1]


async def test_fifty_thousand_rows_are_read_in_pages_and_checked_in_seconds(desk: Desk) -> None:
    with with_the_key(desk.data, read_only=False) as connection:
        rows, previous = connection.execute("SELECT audit_seq, audit_head FROM counters").fetchone()
        connection.execute("BEGIN IMMEDIATE")
        for seq in range(rows + 1, 50_001):
            body = strict_json.dumps(
                {"seq": seq, "previous": previous, "revision": 0, "by": "ada", "note": "x" * 300}
            )
            previous = chain(previous, body)
            connection.execute("INSERT INTO audit VALUES (?, 0, ?, ?)", (seq, body, previous))
        seal = Vouching(bytes.fromhex((desk.data / "keys/instance.key").read_text())).seal(
            50_000, previous, 1
        )
        connection.execute(
            "UPDATE counters SET audit_seq = ?, audit_head = ?, audit_seal = ?",
            (50_000, previous, seal),
        )
        connection.execute("COMMIT")
    await reopen(desk)
    largest = 0.0

    async def others_go_on() -> None:
        nonlocal largest
        while True:
            began = trio.current_time()
            assert (await desk.ask("GET", DOOR)).status == 404
            largest = max(largest, trio.current_time() - began)
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others_go_on)
        began = time.perf_counter()
        verdict = await desk.verdict()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    assert (verdict["ok"], verdict["rows"]) == (True, 50_000)
    assert took < 8
    assert largest < 0.5, "nobody waits for the whole of it"
    desk.edit("DELETE FROM audit WHERE seq = 31415")
    assert await desk.found() == (31415, "removed")


async def reopen(desk: Desk) -> None:
    """Have the storing actor load what was written past it."""
    desk.system.storing.crash(RuntimeError("drill"))
    with trio.fail_after(10):
        while desk.system.view.committed.audit_seq < 50_000:
            await desk.system.view.changed()


# ── export ─────────────────────────────────────────────────────────────────────────────────────


async def test_the_end_of_an_export_is_signed_by_the_config_role_and_names_who(desk: Desk) -> None:
    await desk.write(3)
    got = await desk.ask("GET", f"{AUDIT}/export")
    assert got.status == 200
    is_as_described("Envelope", got.json)
    envelope = wire.parse_envelope(got.body)
    root = judge_root((desk.data / "trust" / "root.json").read_bytes(), None, time.time())
    export = judge_audit_export(envelope, root)
    committed = desk.system.view.committed
    assert (export.rows, export.head) == (committed.audit_seq, committed.audit_head)
    assert (export.exported_by, export.revision) == ("bootstrap", 3)
    forged = wire.Envelope(
        envelope.payload_type,
        envelope.payload.replace(b'"bootstrap"', b'"somebody!"'),
        envelope.signatures,
    )
    with pytest.raises(Distrust, match="bad-signature"):
        judge_audit_export(forged, root)


# ── while nobody looks ─────────────────────────────────────────────────────────────────────────


def copied(data: Path, name: str) -> None:
    """The database alone, put aside or back; a stopped server leaves no log beside it."""
    for suffix in ("-wal", "-shm"):
        (data / f"config.db{suffix}").unlink(missing_ok=True)
    source, target = ("config.db", "old.db") if name == "aside" else ("old.db", "config.db")
    (data / target).write_bytes((data / source).read_bytes())


async def test_a_database_put_back_to_before_a_revocation_does_not_bring_the_token_back(
    tmp_path: Path,
) -> None:
    """No revision tells the two apart: only the audit does."""
    async with on_disk(tmp_path) as system:
        made = await Caller(system).ask("POST", "/api/v1/tokens", {"name": "ci", "role": "write"})
    copied(tmp_path, "aside")
    async with on_disk(tmp_path) as system:
        assert (await Caller(system).ask("DELETE", "/api/v1/tokens/ci")).status == 200
    copied(tmp_path, "back")
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        health = (await rest.ask("GET", "/health")).json
        assert health["mode"] == "read-only"
        assert "rollback-suspected" in health["reasons"][0]
        assert (await rest.ask("GET", DOOR, token=made.json["token"])).status == 401


async def test_an_audit_rewritten_to_fit_behind_a_stopped_server_is_noticed_by_its_witness(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        desk = Desk(system)
        await desk.write(5)
    desk.data = tmp_path
    desk.rewrite_from(4)
    async with on_disk(tmp_path) as system:
        health = (await Caller(system).ask("GET", "/health")).json
        said = " ".join(health["reasons"])
        assert "row 6 of its audit is not the one that instance.json knows" in said


async def test_an_unaltered_database_starts_normal_however_often(tmp_path: Path) -> None:
    for _ in range(3):
        async with on_disk(tmp_path) as system:
            await Caller(system).ask("PUT", DOOR, {})
            assert system.view.mode == "normal"
            assert (await Desk(system).verdict())["ok"]
