"""What is this machine, of all that a URL or a bind may name."""

from __future__ import annotations

import pytest

from config_manager.config.this_machine import connectable, is_loopback, is_this_machine


@pytest.mark.parametrize(
    ("host", "loopback", "this_machine", "asked_at"),
    [
        ("127.0.0.1", True, True, "127.0.0.1"),
        ("127.255.0.9", True, True, "127.255.0.9"),
        ("::1", True, True, "::1"),
        ("localhost", True, True, "localhost"),
        # others reach it, but who connects to it stays here
        ("0.0.0.0", False, True, "127.0.0.1"),
        ("::", False, True, "::1"),
        ("0:0::0", False, True, "::1"),
        # IPv4 within IPv6
        ("::ffff:127.0.0.1", True, True, "::ffff:127.0.0.1"),
        ("::ffff:0.0.0.0", False, True, "127.0.0.1"),
        ("::ffff:192.0.2.1", False, False, "::ffff:192.0.2.1"),
        ("192.0.2.1", False, False, "192.0.2.1"),
        ("2001:db8::1", False, False, "2001:db8::1"),
        ("localhost.example", False, False, "localhost.example"),
        ("", False, False, ""),
    ],
)
def test_loopback_and_every_address_are_this_machine_and_nothing_else(
    host: str, loopback: bool, this_machine: bool, asked_at: str
) -> None:
    assert (is_loopback(host), is_this_machine(host)) == (loopback, this_machine)
    assert connectable(host) == asked_at
