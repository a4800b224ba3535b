"""`config-manager serve`: settings in, the whole system up, until a signal or a failure ends it."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator
from functools import partial

import structlog
import trio

from config_manager.actors.actor import RestartLimit
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import System, running_system
from config_manager.api.rest.forwarded import ReverseProxies
from config_manager.api.server.app import RestApp
from config_manager.api.server.listening import serve as serve_http
from config_manager.api.server.tls import Certificate
from config_manager.config.descriptors import guard_stderr
from config_manager.config.ending import ENDING, SIGNALS
from config_manager.config.errors import ConfigManagerError, the_reason
from config_manager.config.lines import LineWriter
from config_manager.config.logging import configure, flush
from config_manager.config.reverse_proxies import parse_public_url, parse_trusted_proxies
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage.store import DatabaseUnavailable

GC_THRESHOLD = 50_000
"""Young objects before a collection: the default of 700 costs a fifth of a GET's p99."""
_SWITCH_INTERVAL_S = 0.0001
"""How long a thread that comes back from the disk may wait for the interpreter. A busy event loop
releases it for microseconds at a time, which a waiting thread misses: with Python's 5 ms each commit
took that long, and a PUT at 16 connections 15 ms instead of 9 (bench/)."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError if it can't start, and OSError or
    DatabaseUnavailable, of which `api.commands.local.disk_explained` makes errors of ours."""
    guard_stderr()
    lines = configure(
        settings.log_format or ("console" if settings.dev else "json"), settings.log_level
    )
    lines.held = True
    try:
        trio.run(
            _serve, settings, lines, strict_exception_groups=True, instruments=[_OneWriteAPass()]
        )
    except BaseExceptionGroup as group:
        raise the_reason(
            group,
            ConfigManagerError,
            RestartLimit,
            KeyboardInterrupt,
            OSError,
            DatabaseUnavailable,
        ) from group
    finally:
        lines.held = False
        lines.drain()
        ENDING.over()


class _OneWriteAPass(trio.abc.Instrument):
    """Writes the log before the event loop waits: each line in the pass that made it, and again those
    that could not be written."""

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        flush()


async def _serve(settings: Settings, lines: LineWriter) -> None:
    # around everything: a second signal while the tree closes must not raise KeyboardInterrupt in it
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, nursery.cancel_scope)
            await _run_all(settings, lines)


async def _run_all(settings: Settings, lines: LineWriter) -> None:
    certificate = None
    if settings.tls_cert_file is not None:
        certificate = Certificate(settings.tls_cert_file, settings.tls_key_file)
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
    ) as system:
        app = RestApp(
            system,
            dev=settings.dev,
            writes_per_minute=settings.writes_per_minute,
            proxies=_proxies_of(settings),
        )
        bind = settings.bind_address
        async with trio.open_nursery() as http:
            serve_app = partial(serve_http, on_stop=app.stop, certificate=certificate)
            port: int = await http.start(serve_app, app, bind.host, bind.port)
            host = f"[{bind.host}]" if ":" in bind.host else bind.host
            scheme = "http" if certificate is None else "https"
            _say_ready(settings, system, f"{scheme}://{host}:{port}", lines)
            http.start_soon(_make_the_rest, app)
            sys.setswitchinterval(_SWITCH_INTERVAL_S)
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 20, 20)


def _proxies_of(settings: Settings) -> ReverseProxies:
    public_url = None if settings.public_url is None else parse_public_url(settings.public_url)
    return ReverseProxies(parse_trusted_proxies(settings.trusted_proxies), public_url)


async def _make_the_rest(app: RestApp) -> None:
    await app.make_quart_soon()
    gc.freeze()


async def _stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        ENDING.heed()
        scope.cancel()


def _say_ready(settings: Settings, system: System, url: str, lines: LineWriter) -> None:
    mqtt_url = ",".join(map(str, system.brokers)) or "none:"
    public = {} if settings.public_url is None else {"public_url": settings.public_url}
    structlog.get_logger().info(
        "ready", url=url, **public, mqtt_url=mqtt_url, data_dir_mode=system.view.mode
    )
    if settings.dev:
        broker = system.brokers[0] if system.brokers else None
        lines.msg(_what_to_try(url, mqtt_url, broker.port if broker else None).encode())


def _what_to_try(url: str, mqtt_url: str, mqtt_port: int | None) -> str:
    at = "" if mqtt_port in (None, 1883) else f" -p {mqtt_port}"
    return f"""
  config-manager is ready at {url} (docs: {url}/docs), MQTT at {mqtt_url}

  Try, in another terminal:
    curl -s {url}/api/v1/config/stt-worker
    curl -s -X PUT {url}/api/v1/config/stt-worker \\
         -H 'Content-Type: application/json' -d '{{"whisper_model": "small.en"}}'
    mosquitto_sub -h localhost{at} -t 'system/config/#' -v

  Ctrl-C stops it.

"""
