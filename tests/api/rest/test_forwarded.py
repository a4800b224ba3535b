"""Whom a request is from, where proxies say so: the rule alone, then over REST in log, limits and audit."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from config_manager.api.rest.forwarded import (
    MOST_HOPS,
    MOST_TOLD,
    ReverseProxies,
    base_url_of,
    caller_of,
)
from config_manager.api.rest.limits import FAILED_LOGINS
from config_manager.config.reverse_proxies import parse_public_url, parse_trusted_proxies
from tests.kit.asgi import TOKEN, Answer, Caller, running

TRUSTED = parse_trusted_proxies("10.0.0.0/8, fd00::/8")
PROXY = "10.0.0.1"
DOOR = "/api/v1/config/door"

PROXIES = st.one_of(
    st.integers(0, 2**24 - 1).map(lambda n: str(ip_address(10 << 24 | n))),
    st.integers(0, 2**120 - 1).map(lambda n: str(ip_address(0xFD << 120 | n))),
)
CALLERS = st.one_of(
    st.ip_addresses(v=4, network="192.0.2.0/24").map(str),
    st.ip_addresses(v=6, network="2001:db8::/32").map(str),
)
BYTES = st.binary(max_size=60)
WRITTEN = (
    st.sampled_from(["{}", " {}\t", "{}:4711", "::ffff:{}"]),
    st.sampled_from(["{}", "\t{} ", "[{}]", "[{}]:4711"]),
)


def lines(value: bytes, *more: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"h"), *((b"x-forwarded-for", one) for one in (value, *more))]


@st.composite
def written(draw: Any, addresses: st.SearchStrategy[str]) -> tuple[str, bytes]:
    """An address, and how a proxy may write it."""
    address = draw(addresses)
    form = draw(WRITTEN[":" in address])
    return address, form.format(address).encode()


@given(BYTES, st.lists(BYTES), CALLERS)
@settings(derandomize=True, deadline=None)
def test_who_is_not_trusted_is_who_is_connected_whatever_it_says(
    first: bytes, others: list[bytes], peer: str
) -> None:
    assert caller_of(peer, lines(first, *others), TRUSTED) == peer
    assert caller_of(PROXY, lines(first, *others), parse_trusted_proxies("")) == PROXY


@given(st.lists(BYTES), written(CALLERS), st.lists(written(PROXIES), max_size=9), st.data())
@settings(derandomize=True, deadline=None)
def test_the_caller_is_the_rightmost_that_is_no_proxy_whatever_it_wrote_itself(
    own: list[bytes], caller: tuple[str, bytes], proxies: list[tuple[str, bytes]], data: Any
) -> None:
    """However the entries are spread over headers, and whatever stands left of what the first proxy wrote."""
    entries = [*own, caller[1], *(one for _, one in proxies)]
    ends = sorted(data.draw(st.sets(st.integers(1, len(entries)), max_size=4)) | {len(entries)})
    values = [b",".join(entries[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    assert caller_of(PROXY, lines(*values), TRUSTED) == caller[0]


@given(st.lists(BYTES), st.sampled_from([PROXY, "fd00::1", "192.0.2.1", "2001:db8::1"]))
@settings(derandomize=True, deadline=None)
def test_rubbish_is_never_an_error_and_never_a_caller(values: list[bytes], peer: str) -> None:
    found = caller_of(peer, [(b"x-forwarded-for", value) for value in values], TRUSTED)
    assert found is not None
    assert str(ip_address(found)) == found


@pytest.mark.parametrize(
    ("value", "caller"),
    [
        (b"", PROXY),
        (b",, ,", PROXY),
        (b"unknown", PROXY),
        (b"192.0.2.1, unknown", PROXY),  # who called the proxy, it does not say
        (b"192.0.2.1, _hidden, 10.0.0.2", "10.0.0.2"),
        (b"192.0.2.1,, 10.0.0.2,", "192.0.2.1"),
        (b"10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a proxy itself asks
        (b"192.0.2.9, 192.0.2.1", "192.0.2.1"),
        (b"for=192.0.2.1", PROXY),
        (b'"192.0.2.1"', PROXY),
        (b"192.0.2.1:", PROXY),
        (b"192.0.2.1:x", PROXY),
        (b"192.0.2.1:\xb2", PROXY),
        (b"[2001:db8::1", PROXY),
        (b"[2001:db8::1]x", PROXY),
        (b"[192.0.2.1]:80", "192.0.2.1"),
        (b"2001:DB8::0:1", "2001:db8::1"),
        (b"fe80::1%eth0", PROXY),
        (b"192.000.002.001", PROXY),
        (b"3221225985", PROXY),
    ],
)
def test_one_entry_and_another(value: bytes, caller: str) -> None:
    assert caller_of(PROXY, lines(value), TRUSTED) == caller


def test_a_socket_for_both_kinds_of_addresses_shows_the_same_proxy() -> None:
    assert caller_of("::ffff:10.0.0.1", lines(b"192.0.2.1"), TRUSTED) == "192.0.2.1"
    assert caller_of("::ffff:192.0.2.7", lines(b"192.0.2.1"), TRUSTED) == "192.0.2.7"
    assert caller_of(None, lines(b"192.0.2.1"), TRUSTED) is None


def test_of_ten_thousand_entries_only_the_newest_are_read() -> None:
    hops = b",".join([b"192.0.2.1"] + [b"10.0.0.2"] * (MOST_HOPS - 1))
    assert caller_of(PROXY, lines(hops), TRUSTED) == "192.0.2.1"
    assert caller_of(PROXY, lines(b"10.0.0.3," + hops), TRUSTED) == "192.0.2.1"
    one_more = hops + b",10.0.0.2"
    assert caller_of(PROXY, lines(one_more), TRUSTED) == "10.0.0.2"
    assert caller_of(PROXY, lines(*[b"10.0.0.2"] * 10_000), TRUSTED) == "10.0.0.2"
    assert caller_of(PROXY, lines(b"," * 10_000), TRUSTED) == PROXY


# ── where callers find us ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("is_proxied", "headers", "url"),
    [
        (False, {"host": "a.example:8081"}, "http://a.example:8081"),
        (True, {"host": "a.example"}, "http://a.example"),
        (True, {"host": "a.example", "proto": "HTTPS"}, "https://a.example"),
        (True, {"host": "[2001:db8::1]", "proto": "https"}, "https://[2001:db8::1]"),
        (True, {"host": "a.example", "prefix": "/config/"}, "http://a.example/config"),
        (False, {"host": "a.example", "proto": "https", "prefix": "/x"}, "http://a.example"),
        (True, {"host": "a.example", "proto": "ftp", "prefix": "//evil"}, "http://a.example"),
        (True, {"host": "a.example", "proto": "https, http"}, "http://a.example"),
        (True, {"host": "<script>"}, "http://127.0.0.1:8081"),
        (True, {}, "http://127.0.0.1:8081"),
    ],
)
def test_where_a_caller_finds_us(is_proxied: bool, headers: dict[str, str], url: str) -> None:
    sent = [
        (name.encode() if name == "host" else b"x-forwarded-" + name.encode(), value.encode())
        for name, value in headers.items()
    ]
    assert str(base_url_of("http", sent, is_proxied=is_proxied)) == url


def test_a_header_that_stands_there_twice_says_nothing() -> None:
    for name, values in (
        (b"x-forwarded-proto", (b"https", b"https")),
        (b"x-forwarded-prefix", (b"/a", b"/b")),
    ):
        sent = [(b"host", b"a"), *((name, value) for value in values)]
        assert str(base_url_of("http", sent, is_proxied=True)) == "http://a"


# ── over REST ──────────────────────────────────────────────────────────────────────────────────

BEHIND = "10.0.0.0/8, fd00::/8"


def behind(**more: Any) -> ReverseProxies:
    return ReverseProxies(parse_trusted_proxies(BEHIND), **more)


async def asked(
    rest: Caller, caller: str, *, method: str = "GET", token: str = TOKEN, peer: str = PROXY
) -> Answer:
    body: dict[str, Any] | None = {} if method == "PUT" else None
    headers = {"X-Forwarded-For": caller}
    return await rest.ask(method, DOOR, body, token=token, headers=headers, client=peer)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_callers_behind_one_proxy_are_limited_one_by_one(
    tmp_path: Path, fast_path: bool
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, fast_path=fast_path, proxies=behind())
        guesses = [await asked(rest, "192.0.2.9", token="a-guess") for _ in range(60)]
        assert [a.status for a in guesses] == [401] * FAILED_LOGINS + [429] * (60 - FAILED_LOGINS)
        assert (await asked(rest, "192.0.2.10", token="a-guess")).status == 401
        assert (await asked(rest, "192.0.2.9", method="PUT")).status == 201, "a valid one"
        # an IPv6 site is one caller, whichever of its addresses it takes
        for number in range(FAILED_LOGINS):
            assert (await asked(rest, f"2001:db8::{number:x}", token="a-guess")).status == 401
        assert (await asked(rest, "2001:db8::ffff", token="a-guess")).status == 429
        assert (await asked(rest, "2001:db8:0:1::1", token="a-guess")).status == 401


@pytest.mark.parametrize("fast_path", [True, False])
async def test_who_is_no_proxy_of_ours_can_be_nobody_else(tmp_path: Path, fast_path: bool) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, fast_path=fast_path, proxies=behind())
        for number in range(FAILED_LOGINS):
            spoofed = f"198.51.100.{number}"
            refused = await asked(rest, spoofed, token="a-guess", peer="192.0.2.9")
            assert refused.status == 401
        assert (await asked(rest, PROXY, token="a-guess", peer="192.0.2.9")).status == 429


@pytest.mark.parametrize("fast_path", [True, False])
async def test_log_and_audit_name_the_callers_address(tmp_path: Path, fast_path: bool) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, fast_path=fast_path, proxies=behind())
        with structlog.testing.capture_logs() as logged:
            assert (await asked(rest, "198.51.100.1, 192.0.2.1", method="PUT")).status == 201
            assert (await asked(rest, "2001:DB8::1", method="PUT", peer="fd00::1")).status == 200
            assert (await asked(rest, "192.0.2.3", token="a-guess")).status == 401
        lines = [line["client"] for line in logged if line["event"] == "request"]
        assert lines == ["192.0.2.1", "2001:db8::1", "192.0.2.3"]
        rows = (await rest.ask("GET", "/api/v1/audit")).json["entries"]
        assert [json.loads(row["body"]).get("client") for row in rows] == [
            None,  # the token of the settings: nobody asked for it
            "192.0.2.1",
            "2001:db8::1",
        ]
        assert (await rest.ask("GET", "/api/v1/audit/verify")).json["ok"]


async def test_an_operator_who_forgot_the_setting_is_told_once_a_peer_and_not_without_end(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, proxies=behind())
        with structlog.testing.capture_logs() as logged:
            for _ in range(3):
                await asked(rest, "198.51.100.1", peer="192.0.2.1")
                await asked(rest, "198.51.100.1")
            for number in range(2 * MOST_TOLD):
                await asked(rest, "198.51.100.1", peer=f"192.0.2.{number}")
        told = [line for line in logged if line["event"] == "X-Forwarded-For ignored"]
        assert [line["client"] for line in told][:2] == ["192.0.2.1", "192.0.2.0"]
        assert len(told) == MOST_TOLD
        assert "CONFIG_MANAGER_TRUSTED_PROXIES" in told[0]["detail"]


async def test_dev_stands_behind_no_proxy_whatever_the_settings_say(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, dev=True, proxies=behind())
        for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded"):
            answer = await rest.ask("GET", DOOR, headers={name: "127.0.0.1"}, client=PROXY)
            assert answer.status == 403


async def test_the_pages_example_has_a_token_where_one_is_wanted(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        for dev in (False, True):
            page = await Caller(system, dev=dev).ask("GET", "/docs")
            example = page.body.decode().partition("<pre>")[2].partition("</pre>")[0]
            assert ('-H "Authorization: Bearer $CONFIG_MANAGER_TOKEN"' in example) is not dev
            assert example.count("\\\n") == example.count("\n")


async def test_the_page_shows_where_its_reader_finds_us_and_no_cache_keeps_it(
    tmp_path: Path,
) -> None:
    sent = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/config"}
    async with running(tmp_path) as system:
        rest = Caller(system, proxies=behind())
        for peer, url in (
            (PROXY, "https://config.example/config"),
            ("192.0.2.1", "http://config.example"),
        ):
            page = await rest.ask("GET", "/docs", headers=sent, client=peer)
            assert f"curl -X PUT {url}/api/v1/config/stt-worker" in page.body.decode()
            assert page.headers["cache-control"] == "no-store"
        public = parse_public_url("https://other.example")
        rest = Caller(system, proxies=behind(public_url=public))
        page = await rest.ask("GET", "/docs", headers=sent, client=PROXY)
        assert "curl -X PUT https://other.example/api/" in page.body.decode()
