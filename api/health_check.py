"""`python -m config_manager.api.health_check`: exit 0 if the server of this environment is healthy, else 1.

The image's HEALTHCHECK. It finds the server by the settings that `serve` reads; it does not know the flags
of `serve`. It prints what `/health` answers, or why there is no answer; Docker keeps that.
"""

from __future__ import annotations

import http.client
import ssl
import sys

import click

from config_manager.config.errors import SettingsInvalid
from config_manager.config.settings import Settings, load_settings
from config_manager.config.this_machine import connectable

_TIMEOUT_S = 5.0
_OK = 200


def main() -> int:
    try:
        status, said = _ask(load_settings())
    except SettingsInvalid as error:
        status, said = 0, error.detail
    except (OSError, http.client.HTTPException) as error:
        status, said = 0, f"no answer: {error!r}"
    click.echo(said)
    return 0 if status == _OK else 1


def _ask(settings: Settings) -> tuple[int, str]:
    """By http.client, which uses no proxy; urllib would take one from the environment."""
    host, port = connectable(settings.bind_address.host), settings.bind_address.port
    connection = (
        http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        if settings.tls_cert_file is None
        else http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=_any_certificate())
    )
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _any_certificate() -> ssl.SSLContext:
    """The certificate names the server as others call it, not as this host does. No token is sent, and
    the answer says no more than that the server lives."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    sys.exit(main())
