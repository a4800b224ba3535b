"""Where we send a POST to: what is taken as such a URL, and what of it is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.http_target import HttpTarget, parse_http_target


def test_a_url_becomes_what_a_connection_and_a_request_need() -> None:
    assert parse_http_target("https://Example.org/hook?key=1") == HttpTarget(
        True, "example.org", 443, "Example.org", "/hook?key=1"
    )
    assert parse_http_target("https://[2001:db8::1]:8443") == HttpTarget(
        True, "2001:db8::1", 8443, "[2001:db8::1]:8443", "/"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9:80", "localhost:8080", "[::1]:8080"])
def test_http_is_taken_to_this_machine(host: str) -> None:
    assert not parse_http_target(f"http://{host}/").tls


@pytest.mark.parametrize("host", ["example.org", "192.168.0.1", "localhost.example.org", "0.0.0.0"])
def test_http_to_anywhere_else_has_to_be_meant(host: str) -> None:
    with pytest.raises(ValueError, match='say "plain": true'):
        parse_http_target(f"http://{host}/")
    assert parse_http_target(f"http://{host}/", plain=True).host == host


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "expected https"),
        ("ftp://example.org", "expected https"),
        ("https:///hook", "expected https"),
        ("https://example.org:0/", "expected https"),
        ("https://example.org:65536/", "expected https"),
        ("https://[::1/", "expected https"),
        ("https://a b/", "percent-encode"),
        ("https://example.org/\r\nX: y", "percent-encode"),
        ("https://exämple.org/", "percent-encode"),
        ("https://me:secret@example.org/", "user and password"),
        ("https://example.org/#top", "#"),
        ("https://example.org/" + "x" * 2048, "2048 characters"),
    ],
)
def test_what_is_no_target_is_refused_and_not_shown(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        parse_http_target(url)
    assert "secret" not in str(refused.value)


def test_what_may_be_a_password_is_not_shown() -> None:
    assert str(parse_http_target("https://hooks.example.org/T0/s3cret?k=s3cret")) == (
        "https://hooks.example.org"
    )


def test_a_path_goes_below_that_of_the_url() -> None:
    for url in ("https://example.org/otlp", "https://example.org/otlp/"):
        assert parse_http_target(url).below("/v1/traces").path == "/otlp/v1/traces"
    assert parse_http_target("https://example.org").below("/v1/traces").path == "/v1/traces"


@given(st.text())
def test_any_text_is_a_target_or_a_valueerror(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            target = parse_http_target(url)
        except ValueError:
            continue
        assert target.path.startswith("/")
        assert " " not in target.path + target.authority
