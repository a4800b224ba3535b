"""Whatever /health says of a broker that is there, doctor says what to do about it."""

from __future__ import annotations

from config_manager.actors.health import broker_reasons
from config_manager.actors.views import BrokerView
from config_manager.api.doctor_remedies import remedy


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


def test_of_a_thousand_a_few_are_named_and_the_others_are_counted() -> None:
    broker = BrokerView("mqtt://broker.test:1883", "connected")
    broker.set_aside = {f"svc{number}": "it answered 135" for number in range(1000)}
    broker.contested = {f"system/config/svc{number}": 10 for number in range(1000)}
    reasons = broker_reasons(broker)
    assert len(reasons) == 22
    assert reasons[10] == "broker mqtt://broker.test:1883 keeps refusing 990 more"
    assert reasons[21] == "broker mqtt://broker.test:1883: somebody else writes 990 more"
