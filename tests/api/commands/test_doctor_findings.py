"""Whatever /health says of a broker that is there, or of a database that contradicts what is known, doctor
says what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config_manager.actors.health import broker_reasons
from config_manager.actors.views import BrokerView
from config_manager.api.commands.doctor import ask_server
from config_manager.api.commands.doctor_findings import remedy
from config_manager.api.commands.remote import Server
from config_manager.storage.decisions.vouching import Foreign

ROLLBACK = "database: rollback-suspected: the database is at revision 1, but instance.json has seen revision 2"
LOST = "instance.json was missing: this start counts from what the database and the brokers know"


def test_each_reason_has_its_remedy_and_nothing_else_has_one() -> None:
    broker = BrokerView("mqtt://broker.test:1883", "connected")
    assert broker_reasons(broker) == []
    broker.set_aside = {"aaa": "it hung up 3 times at a message of 40,788 bytes"}
    broker.contested = {"system/config/svc1": 10}
    broker.leaves_health = True
    reasons = broker_reasons(broker)
    assert reasons == [
        "broker mqtt://broker.test:1883 keeps refusing aaa: it hung up 3 times at a message of 40,788 bytes",
        "broker mqtt://broker.test:1883: somebody else writes system/config/svc1 (10 times in a minute)",
        "broker mqtt://broker.test:1883: another config-manager is alive there; the health is left to it",
    ]
    assert len({remedy(reason) for reason in reasons} - {""}) == 3
    assert remedy("broker mqtt://broker.test:1883: connection refused") == ""


@pytest.mark.parametrize("reason", [ROLLBACK, LOST, Foreign("", "door", "why").reason])
def test_a_broker_that_says_our_own_words_calls_for_no_restore(reason: str) -> None:
    assert remedy(reason)
    closed = f"the broker closed the WebSocket: 1008 (policy violation) {reason}"
    assert remedy(f"broker ws://broker.test:80/mqtt: {closed}") == ""


def test_of_a_thousand_a_few_are_named_and_the_others_are_counted() -> None:
    broker = BrokerView("mqtt://broker.test:1883", "connected")
    broker.set_aside = {f"svc{number}": "it answered 135" for number in range(1000)}
    broker.contested = {f"system/config/svc{number}": 10 for number in range(1000)}
    reasons = broker_reasons(broker)
    assert len(reasons) == 22
    assert reasons[10] == "broker mqtt://broker.test:1883 keeps refusing 990 more"
    assert reasons[21] == "broker mqtt://broker.test:1883: somebody else writes 990 more"


def test_each_way_in_which_a_data_directory_contradicts_what_is_known_has_its_remedy() -> None:
    foreign = [Foreign("", "door", "why").reason, Foreign("registry", "token/eve", "why").reason]
    assert remedy(foreign[0]) == remedy(foreign[1])
    assert "config-manager audit verify" in remedy(foreign[0])
    assert "config-manager restore --accept" in remedy(ROLLBACK)
    assert "newer one" in remedy(ROLLBACK)
    assert "the next start" in remedy(LOST)
    told = [remedy(reason) for reason in (foreign[0], ROLLBACK, LOST)]
    page = (Path(__file__).resolve().parents[3] / "docs" / "security.md").read_text()
    for one in told:
        ((section,),) = [re.findall(r"docs/security\.md, ([\w ]+)\)", one)]
        assert f"## {section}\n" in page


@pytest.mark.parametrize("ok", [True, False])
def test_each_reason_is_a_finding_of_its_own_whether_the_server_is_well_or_not(
    monkeypatch: pytest.MonkeyPatch, ok: bool
) -> None:
    reasons = [LOST] if ok else [ROLLBACK, LOST]
    health: dict[str, object] = {
        "ok": ok, "mode": "normal" if ok else "read-only", "reasons": reasons, "revision": 1,
        "outbox_depth": 0, "broker": {}, "cache_available": True,
    }  # fmt: skip
    monkeypatch.setattr(Server, "health", lambda _: health)
    monkeypatch.setattr(Server, "get", lambda *_, **__: {"services": []})
    found = ask_server(Server("http://127.0.0.1:1", None))
    said = {one.detail: one for one in found if one.check == "server" and one.level != "ok"}
    assert list(said) == reasons
    assert {one.level for one in said.values()} == {"warning" if ok else "failed"}
    assert all(one.remedy for one in said.values())
