"""Several ways to brokers: none twice, and a client id for each."""

from __future__ import annotations

import pytest

from config_manager.actors.mqtt.broker_ways import Ways, ways_to_brokers
from config_manager.config.errors import SettingsInvalid


@pytest.mark.parametrize(
    "text",
    [
        "mqtt://a:1883,mqtt://a:1883",
        "mqtt://a,mqtt://a:1883",
        "mqtt://A.example.,mqtt://a.example/",
        "mqtt://me:secret@a,mqtt://you:secret@a",
        "mqtt://[::1]:1883,mqtt://[0:0:0:0:0:0:0:1]:1883",
        "mqtts://a:1883,mqtt://a:1883",
        "ws://a,ws://you:secret@a:80/mqtt",
        "auto:,auto:",
        "auto:1884,auto:1885",
    ],
)
def test_one_place_twice_is_refused_without_telling_who_logs_in(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="is named twice") as caught:
        ways_to_brokers(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "none:",
        "none:,none:",
        "mqtt://a,mqtts://a",
        "ws://a/one,ws://a/two,wss://a",
        "mqtt://a,mqtt://a:1884,mqtt://b,auto:",
    ],
)
def test_different_places_are_taken(text: str) -> None:
    assert len(ways_to_brokers(text)) == len(text.split(","))


def test_each_way_of_each_process_has_a_client_id_of_its_own_that_says_whose_it_is() -> None:
    instance = "0123456789abcdef"
    mine, copy = Ways(instance, "aaaaaaaa-1"), Ways(instance, "bbbbbbbb-1")
    ids = [mine.client_id(0), mine.client_id(1), copy.client_id(0), copy.client_id(1)]
    assert len(set(ids)) == 4
    assert mine.client_id(0) == "config-manager-01234567-1-aaaaaaaa"
    assert not any("." in one for one in ids)
