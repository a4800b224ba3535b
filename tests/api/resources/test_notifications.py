"""Notifications over REST: added (the only time the secret is shown), listed, tested, removed; a real receiver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from standardwebhooks import Webhook

from tests.api.resources.test_tokens import is_as_described
from tests.kit.asgi import Answer, Caller, running
from tests.kit.receivers import (
    Manners,
    Received,
    Receiver,
    hangs,
    hangs_up,
    receiving,
    says,
    says_raw,
)

TARGETS = "/api/v1/notifications"
DOOR = "/api/v1/config/door"


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Caller]:
    async with running(tmp_path) as system:
        yield Caller(system)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


async def add(rest: Caller, url: object = "https://example.org/hook", **body: Any) -> Answer:
    return await rest.ask("POST", TARGETS, {"name": "chat", "url": url, **body})


async def listed(rest: Caller) -> list[Any]:
    answer = await rest.ask("GET", TARGETS)
    is_as_described("Notifications", answer.json)
    found: list[Any] = answer.json["notifications"]
    return found


async def audited(rest: Caller) -> list[Any]:
    entries = (await rest.ask("GET", "/api/v1/audit")).json["entries"]
    rows = [json.loads(entry["body"]) for entry in entries]
    return [row for row in rows if row["action"].startswith("notification.")]


async def test_each_change_arrives_signed_with_the_secret_that_was_shown_once(
    rest: Caller, receiver: Receiver
) -> None:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    added = await add(rest, url)
    assert (added.status, added.headers["cache-control"]) == (201, "no-store")
    is_as_described("AddedNotification", added.json)
    secret = added.json["secret"]
    await rest.ask("PUT", DOOR, {"volume": 2})
    written = await rest.ask("PUT", DOOR, {"volume": 3}, headers={"X-Request-ID": "why-not"})
    taken_back = await rest.ask("POST", "/api/v1/config/epoch/rollback", {"last": True})
    assert taken_back.status == 200
    with trio.fail_after(10):
        _, change, rollback = await receiver.until(3)
    body = Webhook(secret).verify(change.body, change.headers)
    assert body["revision"] == written.json["revision"]
    assert (body["type"], body["services"], body["correlation_id"]) == (
        *("revision", ["door"]),
        "why-not",
    )
    assert Webhook(secret).verify(rollback.body, rollback.headers)["type"] == "rollback"
    assert change.headers["webhook-id"] != rollback.headers["webhook-id"]
    assert change.headers["content-type"] == "application/json"
    assert change.headers["user-agent"].startswith("config-manager")
    [one] = await listed(rest)
    assert (one["url"], one["state"], one["waiting"], one["created_by"]) == (
        *(url, "ok", 0),
        "bootstrap",
    )
    again = await rest.ask("GET", TARGETS)
    assert secret.encode() not in again.body
    [row] = await audited(rest)
    assert row["details"] == {
        "name": "chat",
        "to": f"http://127.0.0.1:{receiver.port}",
        "events": ["revision", "rollback", "refused", "drift"],
        "services": ["*"],
    }


async def test_a_test_says_what_came_back_and_is_audited(rest: Caller, receiver: Receiver) -> None:
    added = await add(rest, f"http://127.0.0.1:{receiver.port}/")
    good = await rest.ask("POST", TARGETS + "/chat/test")
    is_as_described("Tested", good.json)
    assert good.json == {"name": "chat", "delivered": True, "status": 204, "why": None}
    [sent] = receiver.received
    body = Webhook(added.json["secret"]).verify(sent.body, sent.headers)
    assert (body["type"], body["name"]) == ("test", "chat")
    receiver.manners = says(302, "Location: /elsewhere")
    bad = await rest.ask("POST", TARGETS + "/chat/test?reason=why+not")
    assert (bad.status, bad.json["delivered"], bad.json["status"]) == (200, False, 302)
    assert bad.json["why"] == "the answer was 302"
    tests = [row for row in await audited(rest) if row["action"] == "notification.test"]
    assert [(row["details"]["delivered"], row["reason"]) for row in tests] == [
        (True, None),
        (False, "why not"),
    ]
    assert (await rest.ask("POST", TARGETS + "/nobody/test")).status == 404


async def test_a_test_is_sent_once_for_one_key(rest: Caller, receiver: Receiver) -> None:
    await add(rest, f"http://127.0.0.1:{receiver.port}/")
    key = {"Idempotency-Key": "once"}
    assert (await rest.ask("POST", TARGETS + "/chat/test", headers=key)).status == 200
    assert (await rest.ask("POST", TARGETS + "/chat/test", headers=key)).status == 409
    assert len(receiver.received) == 1


async def test_a_removed_one_is_gone_with_its_secret_and_its_name_is_free(rest: Caller) -> None:
    assert (await add(rest)).status == 201
    taken = await add(rest)
    assert (taken.status, taken.json["type"]) == (409, "/problems/conflict")
    removed = await rest.ask("DELETE", TARGETS + "/chat")
    is_as_described("RemovedNotification", removed.json)
    assert removed.json == {"name": "chat", "removed": True}
    assert await listed(rest) == []
    assert (await rest.ask("DELETE", TARGETS + "/chat")).status == 404
    assert (await add(rest)).status == 201
    verified = await rest.ask("GET", "/api/v1/audit/verify")
    assert verified.json["ok"] is True


async def test_what_nobody_can_be_told_by_is_refused_and_says_where(rest: Caller) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": "No Name"}, "/name"),
        ({"name": 7}, "/name"),
        ({"url": None}, "/url"),
        ({"url": "ftp://example.org"}, "/url"),
        ({"url": "http://example.org/"}, "/url"),
        ({"url": "http://192.168.0.1/"}, "/url"),
        ({"url": "https://me:secret@example.org/"}, "/url"),
        ({"events": []}, "/events"),
        ({"events": ["change"]}, "/events"),
        ({"events": "revision"}, "/events"),
        ({"services": ["NO"]}, "/services/0"),
        ({"plain": "yes"}, "/plain"),
        ({"secret": "whsec_mine"}, "/secret"),
    ]
    for body, pointer in wrong:
        answer = await add(rest, **{"url": "https://example.org/", **body})
        assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-values"), body
        assert [one["pointer"] for one in answer.json["errors"]] == [pointer]
        assert b"secret@" not in answer.body
    assert await listed(rest) == []


async def test_plain_http_to_another_machine_is_taken_if_it_is_meant(rest: Caller) -> None:
    added = await add(rest, "http://192.168.0.1/hook", plain=True, events=["drift", "drift"])
    assert (added.status, added.json["plain"], added.json["events"]) == (201, True, ["drift"])


async def test_there_are_sixteen_at_most(rest: Caller) -> None:
    for number in range(16):
        assert (await add(rest, name=f"to-{number}")).status == 201
    assert (await add(rest, name="one-more")).status == 409


async def test_a_secret_of_a_target_is_sealed_with_the_others_and_no_services(
    rest: Caller, receiver: Receiver
) -> None:
    """A rotation of the secrets key takes it along, and no call about secrets shows it."""
    added = await add(rest, f"http://127.0.0.1:{receiver.port}/")
    assert (await rest.ask("GET", "/api/v1/secrets")).json["secrets"] == []
    shown = await rest.ask("POST", "/api/v1/secrets/config-manager/chat/reveal", {})
    assert shown.status == 400
    rotating = await rest.ask("POST", "/api/v1/secrets/rotate-key")
    assert rotating.status == 202
    with trio.fail_after(10):
        while (await rest.ask("GET", "/api/v1/secrets/rotate-key")).json["state"] != "idle":
            await trio.sleep(0.01)
    test = await rest.ask("POST", TARGETS + "/chat/test")
    assert test.json["delivered"] is True
    sent = receiver.received[-1]
    Webhook(added.json["secret"]).verify(sent.body, sent.headers)


@pytest.mark.torture
async def test_targets_of_any_manners_hold_up_neither_each_other_nor_a_write(rest: Caller) -> None:
    async def trickles(stream: trio.abc.Stream, _received: Received) -> None:
        for byte in b"HTTP/1.1 204 No Content\r\n" * 100:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.5)

    manners: dict[str, Manners] = {
        "good": says(204),
        "hangs": hangs,
        "hangs-up": hangs_up,
        "redirects": says(307, "Location: https://example.org/"),
        "trickles": trickles,
        "fails": says(500, body=b"x" * 100_000),
        "babbles": says_raw(b"\x00" * 1_000_000),
    }
    async with AsyncExitStack() as stack:
        there = {
            name: await stack.enter_async_context(receiving(how)) for name, how in manners.items()
        }
        for name, one in there.items():
            assert (await add(rest, f"http://127.0.0.1:{one.port}/", name=name)).status == 201
        assert (await add(rest, "http://127.0.0.1:9/", name="nobody")).status == 201
        for n in range(20):
            assert (await rest.ask("PUT", DOOR, {"volume": n % 10})).status in (200, 201)
        with trio.fail_after(10):
            await there["good"].until(20)
        with trio.fail_after(30):
            while "ok" in {one["state"] for one in await listed(rest) if one["name"] != "good"}:
                await trio.sleep(0.1)
        shown = {one["name"]: one for one in await listed(rest)}
        assert shown.pop("good")["state"] == "ok"
        assert {one["waiting"] for one in shown.values()} == {20}
        why = {name: one["last_error"] for name, one in shown.items()}
        for name, part in (
            ("hangs", "within 10 s"),
            ("hangs-up", "hung up"),
            ("redirects", "307"),
            ("trickles", "within 10 s"),
            ("fails", "500"),
            ("babbles", "no HTTP answer"),
            ("nobody", "refused"),
        ):
            assert part in why[name], why
        assert {one.most_at_once for one in there.values()} == {1}
        for one in there.values():
            assert {"1"} == {
                received.headers["webhook-id"].rpartition("-")[2] for received in one.received
            } or one is there["good"]
        assert (await rest.ask("GET", "/health")).json["ok"] is True
