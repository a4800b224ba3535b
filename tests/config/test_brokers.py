"""Where brokers are: what the URL may say, and that its password never shows."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.brokers import Auto, BrokerAddress, Nothing, parse_mqtt_urls
from config_manager.config.errors import SettingsInvalid
from tests.kit.documents import STEADY

GOOD: dict[str, BrokerAddress | Auto | Nothing] = {
    "mqtt://h": BrokerAddress("h", 1883),
    "mqtt://h/": BrokerAddress("h", 1883),
    "mqtts://h": BrokerAddress("h", 8883, tls=True),
    "mqtt://h:65535": BrokerAddress("h", 65535),
    "mqtt://[::1]:5": BrokerAddress("::1", 5),
    "mqtt://u@h:1": BrokerAddress("h", 1, username="u"),
    "mqtts://u:p@h:1": BrokerAddress("h", 1, True, "u", "p"),
    "mqtt://u%40x:p%2F%3A%25%2C@h": BrokerAddress("h", 1883, False, "u@x", "p/:%,"),
    "ws://h": BrokerAddress("h", 80, path="/mqtt"),
    "ws://h/": BrokerAddress("h", 80, path="/"),
    "wss://h": BrokerAddress("h", 443, tls=True, path="/mqtt"),
    "ws://h:15675/ws": BrokerAddress("h", 15675, path="/ws"),
    "wss://u:p@h:1/a/b-c_d.e": BrokerAddress("h", 1, True, "u", "p", path="/a/b-c_d.e"),
    "auto:": Auto(None),
    "auto:1": Auto(1),
    "auto:65535": Auto(65535),
    "none:": Nothing(),
}


@pytest.mark.parametrize("text", GOOD)
def test_a_place_is_parsed(text: str) -> None:
    assert parse_mqtt_urls(text) == (GOOD[text],)


def test_several_places_keep_their_order() -> None:
    assert parse_mqtt_urls(" , ".join(GOOD)) == tuple(GOOD.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "h:1883",
        "auto",
        "auto:0",
        "auto:65536",
        "auto:-1",
        "auto:1x",
        "auto:\u0663",
        "auto:" + "1" * 5000,
        "none",
        "none:1",
        "mqtt:",
        "mqtt:h",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://u:p@",
        "mqtt://h:0",
        "mqtt://h:65536",
        "mqtt://h:x",
        "mqtt://h:-1",
        "mqtt://[::1",
        "mqtt://h/topic",
        "mqtt://h#x",
        "ws://h/mqtt#x",
        "ws://h/mqtt x",
        "ws://h/\u00fc",
        "ws://:80",
        "wss://h:0",
        "mqtt://h h",
        "mqtt://h\n.example",
        "mqtt://u:p/w@h",
        "MQTT://h",
        "http://h",
        "tcp://h:1883",
        "mqtt://h,",
        ",mqtt://h",
    ],
)
def test_what_is_no_place_stops_the_start_and_names_the_variable(text: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^CONFIG_MANAGER_MQTT_URL: expected mqtt://"):
        parse_mqtt_urls(text)


@pytest.mark.parametrize(
    "text", ["mqtt://u:hunter2@h:x", "mqtt://u:hunter2@h/x", "x://u:hunter2@h"]
)
def test_the_message_never_holds_the_password(text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        parse_mqtt_urls(text)
    assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize(
    "password", ["hunter2#w", "12#w", "hunter2/w", "12/w", "a,b", "12,b", "12?w", "[x"]
)
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_a_password_that_breaks_the_url_is_told_how_it_is_written(
    scheme: str, password: str
) -> None:
    with pytest.raises(SettingsInvalid, match="percent-encode # / , ") as caught:
        parse_mqtt_urls(f"{scheme}://user:{password}@host")
    assert password not in caught.value.detail
    [address] = parse_mqtt_urls(f"{scheme}://user:{quote(password, safe='')}@host")
    assert isinstance(address, BrokerAddress)
    assert (address.host, address.username, address.password) == ("host", "user", password)
    assert password not in str(address)


def test_what_has_no_password_is_not_told_of_one(tmp_path: Path) -> None:
    for text in ("mqtt://h#x", f"mqtts://user:password@h?ca={tmp_path}/none"):
        with pytest.raises(SettingsInvalid) as caught:
            parse_mqtt_urls(text)
        assert "percent" not in caught.value.detail


def test_an_address_never_shows_its_userinfo_but_ipv6_in_brackets() -> None:
    [address] = parse_mqtt_urls("mqtts://me:hunter2@[::1]:8883")
    assert str(address) == "mqtts://[::1]:8883"
    assert "hunter2" not in repr(address)
    assert str(BrokerAddress("h", 1883, username="me", password="hunter2")) == "mqtt://h:1883"
    for url in ("ws://h:80/mqtt", "wss://[::1]:443/", "wss://h:8084/a/b"):
        assert str(*parse_mqtt_urls(url)) == url


@STEADY
@given(st.text() | st.text("mqtsau:/o@[]%,0123h", max_size=20).map(lambda text: "mqtt://" + text))
def test_any_text_is_places_or_is_refused(text: str) -> None:
    try:
        places = parse_mqtt_urls(text)
    except SettingsInvalid:
        return
    for place in places:
        if isinstance(place, BrokerAddress):
            assert place.host
            assert 0 < place.port < 65536


def test_a_brokers_own_authority_and_our_certificate_stand_in_its_url(tmp_path: Path) -> None:
    for name in ("ca.pem", "me.pem", "me.key"):
        (tmp_path / name).touch()
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "me.pem", "me.key"))
    [address] = parse_mqtt_urls(f"mqtts://a?ca={ca}&cert={cert}&key={key}")
    assert address == BrokerAddress("a", 8883, tls=True, ca=ca, cert=cert, key=key)
    assert str(address) == "mqtts://a:8883"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mqtt://a?ca={here}", "only these are known"),
        ("mqtts://a?ca={here}&ca={here}", "only these are known"),
        ("mqtts://a?password=x", "only these are known"),
        ("ws://a/mqtt?ca={here}", "only these are known"),
        ("wss://a?token=x", "only these are known"),
        ("mqtts://a?key={here}", "cert="),
        ("mqtts://user:secret@a?ca={here}-not", "no such file"),
        ("mqtts://a?ca", "only these are known"),
    ],
)
def test_what_else_stands_there_is_refused(url: str, words: str, tmp_path: Path) -> None:
    here = tmp_path / "file.pem"
    here.touch()
    with pytest.raises(SettingsInvalid) as caught:
        parse_mqtt_urls(url.format(here=here))
    assert words in caught.value.detail
    assert "secret" not in caught.value.detail


def test_files_that_are_no_certificates_are_an_os_error(tmp_path: Path) -> None:
    """So that a broker's turn ends like any other that can't be reached, and is tried again."""
    here = tmp_path / "file.pem"
    here.write_text("not a certificate")
    with pytest.raises(OSError, match=r"\[X509|\[SSL|no certificate"):
        BrokerAddress("a", 8883, tls=True, ca=here).tls_context()
    assert BrokerAddress("a", 1883).tls_context() is None


@pytest.mark.parametrize("host", ["broker..local", ".local", "a" * 64, f"{'a' * 64}.example"])
def test_a_host_that_cannot_be_looked_up_is_named(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="CONFIG_MANAGER_MQTT_URL: mqtt://") as caught:
        parse_mqtt_urls(f"mqtt://good:1883,mqtt://me:secret@{host}:1883")
    assert host in caught.value.detail
    assert "secret" not in caught.value.detail


def test_what_may_be_of_a_password_is_not_shown_as_a_host() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        parse_mqtt_urls("mqtts://to..ken?x@host")
    assert "to..ken" not in caught.value.detail


@pytest.mark.parametrize(
    "host", ["localhost.", "xn--mnchen-3ya.de", "münchen.de", "a_b", "10.0.0.1"]
)
def test_other_hosts_may_be_looked_up(host: str) -> None:
    assert parse_mqtt_urls(f"mqtt://{host}") == (BrokerAddress(host, 1883),)


def test_files_that_do_not_load_stop_a_start(tmp_path: Path) -> None:
    here = tmp_path / "file.pem"
    here.write_text("not a certificate")
    for address, named in (
        (BrokerAddress("a", 8883, tls=True, ca=here), f"mqtts://a:8883: ca={here}: "),
        (BrokerAddress("a", 8883, tls=True, cert=here), f"mqtts://a:8883: cert={here}: "),
    ):
        with pytest.raises(SettingsInvalid) as caught:
            address.check_files()
        assert caught.value.detail.startswith(f"CONFIG_MANAGER_MQTT_URL: {named}")
