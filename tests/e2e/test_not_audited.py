"""Somebody with the database's key, and no other, edits what is kept: nothing of it is signed, and it is named."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config_manager.client.state.identity import load_identity
from config_manager.config import trust, wire
from config_manager.config.documents.sealed import Sealed
from config_manager.config.sealing import open_sealed
from tests.kit.earlier import CLIENT, SERVER, VERSIONS, Earlier
from tests.kit.kept import (
    OURS,
    Kept,
    ask,
    contents,
    edit,
    forget_cache,
    keep,
    next_beacon,
    not_audited,
    ours,
    retained_by,
    says_beacon,
)
from tests.kit.long import few_in_the_suite
from tests.kit.processes import MOSQUITTO, TOKEN, Processes, listening
from tests.kit.shell import Ended, in_process

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@dataclass(frozen=True)
class Filled:
    """eve: a token that may read."""

    kept: Kept
    eve: str


@pytest.fixture(scope="module")
def filled(module_shop: tuple[Processes, Path]) -> Filled:
    """Of a server with two services and a token beside its first."""
    processes, directory = module_shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "first", broker.url)
    server.put("app", {"n": 1})
    server.put("app", {"n": 2})
    told = server.http.post("/api/v1/tokens", json={"name": "eve", "role": "read"})
    server.put("other", {"x": 1})
    return Filled(keep(server, broker, directory / "kept"), told.json()["token"])


@dataclass(frozen=True)
class Foreign:
    """One edit. is_taken: of these, nothing is served where there is no cache."""

    statement: str
    reasons: tuple[str, ...]
    is_taken: tuple[str, ...] = ()


FOREIGN = {
    "a payload": Foreign(
        """UPDATE outbox SET payload = CAST(replace(CAST(payload AS TEXT), '"n":2', '"n":666') AS BLOB)"""
        " WHERE service = 'app'",
        ("not-audited: app",),
        ("app",),
    ),
    "stored values": Foreign(
        """UPDATE configurations SET stored = '{"n":666}', effective = '{"n":666}' WHERE service = 'app'""",
        ("not-audited: app",),
        ("app",),
    ),
    "history": Foreign(
        "UPDATE history SET by = 'mallory', changes = '[]' WHERE service = 'app' AND revision = 1",
        ("not-audited: history app",),
    ),
    "a token made admin": Foreign(
        """UPDATE registry SET value = replace(value, '"read"', '"admin"') WHERE key = 'eve'""",
        ("not-audited: registry token/eve",),
        ("eve",),
    ),
    "a row of the audit": Foreign(
        "UPDATE audit SET body = CAST(CAST(body AS TEXT) || ' ' AS BLOB) WHERE seq = 3",
        ("not-audited: audit 3",),
    ),
}
OF_ROWS = [name for name in FOREIGN if name != "a row of the audit"]


@pytest.fixture
def edited(
    filled: Filled, shop: tuple[Processes, Path], request: pytest.FixtureRequest
) -> tuple[Path, Foreign]:
    """A copy, edited as the parameter says."""
    name, with_cache = request.param
    data = filled.kept.copy(shop[1] / "data")
    edit(data, FOREIGN[name].statement)
    if not with_cache:
        forget_cache(data)
    return data, FOREIGN[name]


EACH = [(name, True) for name in FOREIGN] + [(name, False) for name in OF_ROWS]
each = pytest.mark.parametrize(
    "edited",
    EACH,
    indirect=True,
    ids=[f"{name}, {'cache kept' if cached else 'no cache'}" for name, cached in EACH],
)


def verify(*where: str) -> Ended:
    return in_process("audit", "verify", *where, CONFIG_MANAGER_TOKEN=TOKEN)


def names_it(reasons: tuple[str, ...], *where: str) -> None:
    """`audit verify` is exit 5 there and names it, for people and for programs."""
    told = verify(*where)
    (reason,) = reasons
    of_row = reason.removeprefix("not-audited: audit ")
    assert told.code == 5, told
    assert (f"row {of_row} (altered)" if of_row != reason else reason) in told.said
    told = verify(*where, "--json")
    (verdict,) = told.lines
    assert (told.code, verdict["ok"]) == (5, False)
    if of_row != reason:
        assert verdict["problem"]["seq"] == int(of_row)
    else:
        assert ([one["reason"] for one in verdict["not_audited"]], verdict["problem"]["kind"]) == (
            [reason],
            "not-audited",
        )
        assert reason in verdict["problem"]["detail"]


@each
def test_what_nobody_wrote_is_named_and_neither_signed_nor_served_and_the_rest_goes_on(
    edited: tuple[Path, Foreign], filled: Filled, shop: tuple[Processes, Path]
) -> None:
    data, foreign = edited
    processes, directory = shop
    is_cached = (data / "config.lkg").exists()
    names_it(foreign.reasons, "--data-dir", str(data))

    broker = filled.kept.broker(processes, directory / "broker")
    server = processes.server(data, broker.url, start=False)
    with listening(broker.port) as listener:
        server.start()
        health = server.get("/health")
        said = health.json()
        assert (health.status_code, said["ok"], said["mode"]) == (503, False, "read-only")
        assert tuple(not_audited(server)) == foreign.reasons
        assert "restore --accept" in " ".join(said["reasons"])

        is_app_served = is_cached or "app" not in foreign.is_taken
        told = server.get("/api/v1/config/app")
        assert told.status_code == (200 if is_app_served else 404), told.text
        assert not is_app_served or told.json()["config"] == {"n": 2}
        assert server.get("/api/v1/config/other").json()["config"] == {"x": 1}
        assert b"666" not in server.get("/api/v1/config").content
        eve = {"Authorization": f"Bearer {filled.eve}"}
        may_enter = is_cached or "eve" not in foreign.is_taken
        told = server.get("/api/v1/config/other", headers=eve)
        assert told.status_code == (200 if may_enter else 401)
        assert server.get("/api/v1/tokens", headers=eve).status_code == (403 if may_enter else 401)

        for service in ("app", "other"):
            told = server.put(service, {"n": 4})
            assert (told.status_code, told.json()["type"]) == (503, "/problems/read-only")
            assert int(told.headers["Retry-After"]) >= 1
        told = server.http.post("/api/v1/tokens", json={"name": "mine", "role": "admin"})
        assert told.status_code == 503
        names_it(foreign.reasons, "--url", server.url)
        assert not any(line["event"] == "published" for line in server.process.lines)
        listener.message(wire.KEEPALIVE_TOPIC)
        assert server.stop() == 0
        listener.message(wire.HEALTH_TOPIC, lambda payload: b'"shutdown"' in payload)
        heard = listener.messages
    assert ours(retained_by(broker)) == ours(filled.kept.retained)
    assert {p for t, p, _ in heard if t.startswith(OURS)} <= set(filled.kept.retained.values())
    assert not any(says_beacon(p) for t, p, _ in heard if t == wire.KEEPALIVE_TOPIC)


def test_where_the_audit_itself_is_broken_and_no_cache_verifies_it_does_not_start(
    filled: Filled, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    data = filled.kept.copy(directory / "data")
    edit(data, FOREIGN["a row of the audit"].statement)
    forget_cache(data)
    code, told = processes.run(
        *("serve", "--data-dir", str(data), "--bind", "127.0.0.1:0", "--mqtt-url", "none:")
    )
    said = "\n".join(told.text)
    assert code == 3, said
    assert "not-audited: audit 3" in said
    assert "restore --accept" in said


def test_many_are_not_all_listed_but_counted(filled: Filled, shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    data = filled.kept.copy(directory / "data")
    edit(
        data,
        "UPDATE registry SET key = 'mallory' WHERE key = 'eve'",
        *(
            f"INSERT INTO registry SELECT kind, 'm{n}', value FROM registry WHERE key = 'mallory'"
            for n in range(20)
        ),
    )
    server = processes.server(data, "none:")
    assert len(not_audited(server)) == 9
    assert not_audited(server)[-1] == "not-audited: 14 more"
    assert len(server.get("/api/v1/audit/verify").json()["not_audited"]) == 22


# ── what earlier versions wrote ────────────────────────────────────────────────────────────────


BEFORE_DIGESTS = [earlier for earlier in VERSIONS if earlier.version in ("0.1.0", "0.2.0")]
"""Their rows of the audit name none."""


@pytest.fixture(
    params=few_in_the_suite(BEFORE_DIGESTS, BEFORE_DIGESTS[:1]),
    ids=lambda earlier: earlier.version,
)
def earlier(request: pytest.FixtureRequest) -> Earlier:
    made: Earlier = request.param
    return made


@pytest.fixture
def theirs(earlier: Earlier, shop: tuple[Processes, Path]) -> Iterator[Path]:
    yield earlier.copy(SERVER, shop[1] / "data")


def vouched(data: Path) -> list[dict[str, Any]]:
    rows = [json.loads(body) for (body,) in ask(data, "SELECT body FROM audit ORDER BY seq")]
    return [row for row in rows if row["action"] == "vouched"]


def test_its_audit_verifies_before_any_server_of_today_has_opened_it_and_nothing_is_changed(
    theirs: Path,
) -> None:
    before = contents(theirs)
    assert verify("--data-dir", str(theirs)).code == 0
    assert before.items() <= contents(theirs).items()


def test_the_first_start_vouches_once_for_what_an_earlier_version_wrote(
    theirs: Path, shop: tuple[Processes, Path]
) -> None:
    processes, _ = shop
    server = processes.server(theirs, "none:")
    assert (server.health()["mode"], server.health()["reasons"]) == ("normal", [])
    assert server.get("/api/v1/audit/verify").json()["ok"] is True
    assert server.stop() == 0
    (row,) = vouched(theirs)
    payloads = ask(theirs, "SELECT service, payload FROM outbox")
    assert len(payloads) > 3
    assert row["digests"] == {service: wire.digest(payload) for service, payload in payloads}
    assert row["by"] == "config-manager"
    server.start()
    assert server.put("door", {"greeting": "from today"}).status_code == 200
    assert server.stop() == 0
    assert vouched(theirs) == [row], "the second start has nothing to vouch for"
    assert verify("--data-dir", str(theirs)).code == 0

    edit(theirs, """UPDATE configurations SET stored = '{"greeting":"x"}' WHERE service = 'door'""")
    forget_cache(theirs)
    server.start()
    assert not_audited(server) == ["not-audited: door"]
    assert verify("--url", server.url).code == 5


def test_what_was_edited_before_the_first_start_is_not_vouched_for(
    theirs: Path, shop: tuple[Processes, Path]
) -> None:
    processes, _ = shop
    edit(theirs, """UPDATE configurations SET stored = '{"greeting":"x"}' WHERE service = 'door'""")
    assert verify("--data-dir", str(theirs)).code == 5
    server = processes.server(theirs, "none:")
    assert not_audited(server) == ["not-audited: door"]
    assert server.stop() == 0
    assert vouched(theirs) == []


def test_what_neither_witness_nor_cache_knows_of_is_not_vouched_for(
    theirs: Path, earlier: Earlier, shop: tuple[Processes, Path]
) -> None:
    """Its rows name no digests: whoever has the database's key could have written all of it."""
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    earlier.fill(broker.port)
    before = retained_by(broker)
    (theirs / "instance.json").unlink()
    forget_cache(theirs)
    code, told = processes.run(
        *("serve", "--data-dir", str(theirs), "--bind", "127.0.0.1:0", "--mqtt-url", broker.url)
    )
    said = "\n".join(told.text)
    assert code == 3, said
    assert f"not-audited: audit {earlier.expected['audit']['rows']}" in said
    assert "restore --accept" in said
    assert vouched(theirs) == []
    assert retained_by(broker) == before


def test_devices_that_an_earlier_version_enrolled_can_open_what_is_delivered(
    theirs: Path, earlier: Earlier, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    earlier.fill(broker.port)
    client = earlier.expected["client"]
    identity = load_identity(earlier.copy(CLIENT, directory / "state"))
    server = processes.server(theirs, broker.url)
    topic = wire.sealed_topic(client["service"], client["instance"])

    def opens(message: bytes, pin: str) -> bool:
        envelope = trust.open_envelope(message)
        payload = trust.verify(envelope, wire.SEALED, "config", server.root(), time.time())
        return open_sealed(Sealed.parse(payload), "pin", identity.seal_key).reveal() == pin

    with listening(broker.port) as listener:
        next_beacon(listener)
        assert opens(listener.message(topic), client["pin"])
        body = {"service": client["service"], "name": "pin", "value": "a newer pin"}
        assert server.http.post("/api/v1/secrets", json=body).status_code == 201
        listener.message(topic, lambda message: opens(message, "a newer pin"))
    assert server.stop() == 0
    assert verify("--data-dir", str(theirs)).code == 0
    forget_cache(theirs)
    edit(theirs, "UPDATE registry SET value = json_set(value, '$.mac', '') WHERE kind = 'delivery'")
    server.start()
    key = f"{client['service']}/{client['instance']}"
    assert not_audited(server) == [f"not-audited: registry delivery/{key}"]
