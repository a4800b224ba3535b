"""The settings about reverse proxies: which addresses are believed, and where callers find the server."""

from __future__ import annotations

import pytest

from config_manager.config.reverse_proxies import (
    address_of,
    is_authority,
    parse_prefix,
    parse_public_url,
    parse_trusted_proxies,
)


@pytest.mark.parametrize(
    ("text", "address", "is_trusted"),
    [
        ("", "127.0.0.1", False),
        (" , ", "127.0.0.1", False),
        ("127.0.0.1,::1", "127.0.0.1", True),
        ("127.0.0.1,::1", "::1", True),
        ("127.0.0.1, ::1", "127.0.0.2", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("::ffff:10.0.0.0/104", "10.255.0.1", True),
        ("::ffff:10.0.0.0/104", "::ffff:11.0.0.1", False),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("fd00::/8", "fdff::1", True),
        ("fd00::/8", "10.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),  # what a socket for both kinds shows
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.0/8", "::10.0.0.1", False),
    ],
)
def test_who_is_believed(text: str, address: str, is_trusted: bool) -> None:
    assert (address_of(address) in parse_trusted_proxies(text)) == is_trusted


def test_what_is_no_address_is_nobodys() -> None:
    for text in ("", "unknown", "1.2.3", "1.2.3.4.5", "010.0.0.1", "fe80::1%eth0", "1" * 9999):
        assert address_of(text) is None
    assert None not in parse_trusted_proxies("::1")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "any caller could say to be another one"),
        ("::ffff:0:0/96", "any caller could say to be another one"),
        ("0.0.0.0/1, 128.0.0.0/1", "any caller could say to be another one"),
        ("proxy.example", "expected such as 127.0.0.1"),
    ],
)
def test_a_mistake_is_told_with_what_to_say_instead(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_trusted_proxies(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://example.org", "https://example.org"),
        ("https://Example.org:8443/", "https://example.org:8443"),
        ("https://example.org/a/b-c/", "https://example.org/a/b-c"),
        ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("HTTPS://192.0.2.1", "https://192.0.2.1"),
    ],
)
def test_a_public_url_is_shown_without_its_last_slash(text: str, shown: str) -> None:
    assert str(parse_public_url(text)) == shown


@pytest.mark.parametrize(
    "path",
    [
        *("a", "//a", "/a//b", "/..", "/a/../b", "/./a", "/a b", "/a?b", '/"', "/%2e", "/a" * 200),
        *("/$(id)", "/a;id", "/a&id", "/a'b'", "/*", "/a!b"),  # in the command that /docs shows
    ],
)
def test_what_could_lead_elsewhere_is_no_prefix(path: str) -> None:
    assert parse_prefix(path) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b", "u@h", "h/", "h:x", "h:0", "h:70000", "h:", "[::1", "[::g]", "[1.2.3.4]x"),
        *("<b>", "-h", "h-", "h" * 300, "[::1]]"),
    ],
)
def test_what_is_more_than_a_host_and_a_port_is_no_authority(text: str) -> None:
    assert not is_authority(text)
