"""Idempotency-Key on every kind of write, on a real SQLCipher file: what is answered again, and what
is kept for it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.kit.asgi import TOKEN, Answer, Caller, on_disk, with_the_key

DOOR = "/api/v1/config/door"
TOKENS = "/api/v1/tokens"
CI = {"name": "ci", "role": "write"}


class Desk:
    """A server on SQLCipher, and its file as somebody with the key sees it."""

    def __init__(self, rest: Caller, data: Path) -> None:
        self.rest = rest
        self._data = data

    async def ask(
        self, key: str, method: str, path: str, body: Any = None, token: str = TOKEN
    ) -> Answer:
        headers = {"Idempotency-Key": key}
        return await self.rest.ask(method, path, body, headers=headers, token=token)

    def kept(self) -> list[tuple[str, bytes, bytes]]:
        with with_the_key(self._data) as reader:
            rows: list[tuple[str, bytes, bytes]] = reader.execute(
                "SELECT key, fingerprint, answer FROM idempotency ORDER BY at"
            ).fetchall()
            return rows

    @property
    def audit_rows(self) -> int:
        return self.rest.system.view.committed.audit_seq


@asynccontextmanager
async def serving(data: Path) -> AsyncIterator[Desk]:
    async with on_disk(data) as system:
        yield Desk(Caller(system), data)


async def test_what_is_kept_of_a_secrets_request_tells_nothing_of_the_secret(
    tmp_path: Path,
) -> None:
    body = b'{"service":"door","name":"pin","value":"1234"}'
    async with serving(tmp_path) as desk:
        assert (await desk.ask("k", "POST", "/api/v1/secrets", body)).status == 201
        ((_, fingerprint, answer),) = desk.kept()
        assert b"1234" not in answer
        # whoever reads the row can't try all pins: everything else of the request is known to him
        terms = ("POST", "/api/v1/secrets", "application/json", "", "")
        unkeyed = "\n".join(terms).encode() + b"\n" + body
        for hashed in (hashlib.sha256, hashlib.sha512, hashlib.blake2b, hashlib.md5):
            for text in (unkeyed, body, b"1234", hashlib.sha256(unkeyed).digest()):
                assert fingerprint not in hashed(text).digest()
        again = await desk.ask("k", "POST", "/api/v1/secrets", body)
        assert (again.status, again.json["version"]) == (201, 1)
        other = await desk.ask("k", "POST", "/api/v1/secrets", body.replace(b"1234", b"1235"))
        assert other.status == 422


async def test_two_installations_keep_different_fingerprints_of_one_request(tmp_path: Path) -> None:
    kept = []
    for name in ("one", "two"):
        async with serving(tmp_path / name) as desk:
            await desk.ask("k", "PUT", DOOR, {"a": 1})
            kept.append(desk.kept()[0][1])
    assert kept[0] != kept[1]


async def test_a_repetition_is_recognised_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        async with serving(tmp_path) as desk:
            assert (await desk.ask("k", "PUT", DOOR, {"a": 1})).json["revision"] == 1


async def test_a_token_is_made_once_and_its_repetition_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        made = await desk.ask("k", "POST", TOKENS, CI)
        assert made.status == 201
        rows = desk.audit_rows
        again = await desk.ask("k", "POST", TOKENS, CI)
        assert (again.status, again.json["type"]) == (409, "/problems/conflict")
        assert "is shown once" in again.json["detail"]
        assert (await desk.ask("k", "POST", TOKENS, {**CI, "role": "read"})).status == 422
        assert desk.audit_rows == rows
        assert all(
            made.json["token"].encode() not in part for row in desk.kept() for part in row[1:]
        )
        assert (await desk.rest.ask("GET", DOOR, token=made.json["token"])).status == 404


async def test_a_revocation_is_answered_again_as_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        await desk.ask("k1", "POST", TOKENS, CI)
        one = await desk.ask("k2", "DELETE", TOKENS + "/ci")
        rows = desk.audit_rows
        two = await desk.ask("k2", "DELETE", TOKENS + "/ci")
        assert (one.status, two.status) == (200, 200)
        assert one.body == two.body
        assert desk.audit_rows == rows
        assert (await desk.ask("k3", "DELETE", TOKENS + "/ci")).status == 404


async def test_a_refused_administration_uses_no_key_up(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        assert (await desk.ask("k", "DELETE", TOKENS + "/ci")).status == 404
        await desk.rest.ask("POST", TOKENS, CI)
        assert (await desk.ask("k", "DELETE", TOKENS + "/ci")).status == 200


async def test_a_key_is_the_callers_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        token = (await desk.rest.ask("POST", TOKENS, CI)).json["token"]
        one = await desk.ask("k", "PUT", DOOR, {"a": 1})
        two = await desk.ask("k", "PUT", DOOR, {"b": 2}, token=token)
        assert (one.status, two.status) == (201, 200)
        assert (await desk.ask("k", "PUT", DOOR, {"a": 1})).json["revision"] == 1
        assert (await desk.ask("k", "PUT", DOOR, {"a": 1}, token=token)).status == 422


async def test_a_key_of_a_write_is_none_for_an_administration(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        assert (await desk.ask("k", "PUT", DOOR, {})).status == 201
        assert (await desk.ask("k", "POST", TOKENS, CI)).status == 422
        assert (await desk.ask("k2", "POST", TOKENS, CI)).status == 201
        assert (await desk.ask("k2", "PUT", DOOR, {})).status == 422


async def test_a_key_is_rotated_once_however_often_it_is_asked_under_one_idempotency_key(
    tmp_path: Path,
) -> None:
    path, body = "/api/v1/trust/rotate", {"role": "config"}
    async with serving(tmp_path) as desk:
        first = await desk.ask("k", "POST", path, body)
        assert (first.status, first.json["version"]) == (200, 2)
        files, rows = sorted((tmp_path / "keys").iterdir()), desk.audit_rows
        again = await desk.ask("k", "POST", path, body)
        assert (again.status, again.json["type"]) == (409, "/problems/conflict")
        assert (await desk.ask("k", "POST", path, {"role": "beacon"})).status == 422
        assert sorted((tmp_path / "keys").iterdir()) == files
        assert desk.audit_rows == rows
        assert desk.rest.system.trust.current.version == 2
        assert (await desk.ask("k2", "POST", path, body)).json["version"] == 3


async def test_an_enrolment_token_is_made_once_and_its_repetition_is_told_so(
    tmp_path: Path,
) -> None:
    path, body = "/api/v1/devices/tokens", {"service": "door"}
    async with serving(tmp_path) as desk:
        made = await desk.ask("k", "POST", path, body)
        assert made.status == 201
        again = await desk.ask("k", "POST", path, body)
        assert (again.status, "token" in again.json) == (409, False)
        assert all(
            made.json["token"].encode() not in part for row in desk.kept() for part in row[1:]
        )
