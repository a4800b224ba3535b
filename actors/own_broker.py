"""`auto:` starts and watches a broker of our own on loopback, and starts it again when it dies.

Mosquitto if it is installed, else the bundled one. Its port is kept in the data directory, so clients find it
after a restart. The kernel ends it with us, even after kill -9.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import structlog
import trio

from config_manager.actors.actor import Actor, Handler, RestartPolicy, idle
from config_manager.config.brokers import BrokerAddress
from config_manager.config.disk_errors import is_read_only
from config_manager.config.errors import PortTaken
from config_manager.config.settings import ENV_PREFIX
from config_manager.config.world import World, backoff_s

_DEFAULT_PORT = 1883
_FREE_PORT_S = 3.0
"""An orphan of ours may take that long to die; then its port counts as taken."""
_START_S = 10.0
_STOP_S = 1.0
_BACKOFF_S = (0.1, 5.0)

_MOSQUITTO_CONF = """\
# Written by config-manager at each start; edits are lost. For a broker of your own, see --mqtt-url.
listener {port} 127.0.0.1
allow_anonymous true
{user}# the default of 1000 silently drops retained messages for a new subscriber
max_queued_messages 100000
message_size_limit 4194304
# without it deliveries stall for 40 ms now and then
set_tcp_nodelay true
# what is retained lies in our database, encrypted; after a restart we fill it again
persistence false
log_type error
log_type warning
log_dest stderr
"""


class OwnBroker(NamedTuple):
    address: BrokerAddress
    actor: Actor


@asynccontextmanager
async def own_broker(data_dir: Path, port: int | None, world: World) -> AsyncGenerator[OwnBroker]:
    """A running broker of our own. port: exactly this one, or None to choose. Raises PortTaken, and OSError
    if its files can't be written, unless the whole file system is read-only."""
    folder = data_dir / "broker"
    with _nothing_where_read_only():
        world.disk.make_directory(folder)
    chosen = await _choose_port(folder / "port", port, world)
    address = BrokerAddress("127.0.0.1", chosen)

    @asynccontextmanager
    async def life() -> AsyncGenerator[Handler]:
        process = await _start(folder, chosen, world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_running, process, folder, chosen, world)
            try:
                yield idle
            finally:
                nursery.cancel_scope.cancel()

    actor = Actor("broker", life, RestartPolicy(mailbox=1, grace=_STOP_S + 1))
    async with actor.running():
        yield OwnBroker(address, actor)


async def _keep_running(
    process: subprocess.Popen[bytes], folder: Path, port: int, world: World
) -> None:
    """The broker's death is no crash of ours: it is started again, for ever, a little later each time."""
    first, longest = _BACKOFF_S
    failures = 0
    log = structlog.get_logger()
    try:
        while True:
            started = trio.current_time()
            await _ended(process)
            failures = failures + 1 if trio.current_time() - started < longest else 0
            log.warning("broker died", returncode=process.poll(), port=port)
            pause = backoff_s(failures, first_s=first, longest_s=longest)
            await trio.sleep(pause * (1 + world.randomness.fraction()) / 2)
            try:
                process = await _start(folder, port, world)
            except (OSError, trio.TooSlowError) as error:
                log.error("broker not started", error=str(error) or "it does not listen")
            else:
                log.info("broker started again", port=port, pid=process.pid)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _choose_port(kept_in: Path, wanted: int | None, world: World) -> int:
    kept: int | None = None
    with suppress(OSError, ValueError):
        kept = int(world.disk.read(kept_in))
    first = wanted or kept or _DEFAULT_PORT
    # our own orphan may still hold the kept port
    deadline = trio.current_time() + (_FREE_PORT_S if kept == first else 0)
    while not _is_free(first):
        if trio.current_time() >= deadline:
            if wanted is not None:
                raise PortTaken(
                    f"MQTT port {wanted} is taken; choose another with auto:PORT, "
                    f"or use that broker with --mqtt-url mqtt://127.0.0.1:{wanted}"
                )
            first = any_free_port()
            break
        await trio.sleep(0.05)
    if first != kept:
        with _nothing_where_read_only():
            world.disk.write_atomic(kept_in, f"{first}\n".encode())
    return first


@contextmanager
def _nothing_where_read_only() -> Generator[None]:
    """On a read-only file system the broker starts from the files that are there."""
    try:
        yield
    except OSError as error:
        if not _takes_no_writes(error):
            raise


def _takes_no_writes(error: OSError) -> bool:
    """A missing folder could not be made for the same reason."""
    return is_read_only(error) or isinstance(error, FileNotFoundError)


def _is_free(port: int) -> bool:
    """Nothing listens there, on IPv4 or IPv6 loopback: `localhost` must mean our broker."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((host, port)) == 0:
                return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _start(folder: Path, port: int, world: World) -> subprocess.Popen[bytes]:
    """Start it and wait until it listens; raises OSError or TooSlowError."""
    with _log_file(folder) as log_file:
        # Popen, not trio.run_process: the kernel sends the death signal when the *thread* that forked ends,
        # and Trio's worker threads end long before we do
        process = subprocess.Popen(  # noqa: ASYNC220, S603  milliseconds; our own command line
            _command(folder, port, world),
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            # a broker is not trusted with tokens and passwords
            env={k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)},
            start_new_session=True,  # Ctrl-C ends us first: we say goodbye through the broker
        )
    try:
        with trio.fail_after(_START_S):
            while True:
                if process.poll() is not None:
                    raise OSError(
                        f"the broker ended with {process.returncode}; see {folder / 'broker.log'}"
                    )
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        return process
                await trio.sleep(0.01)
    except BaseException:
        process.kill()
        raise


def _command(folder: Path, port: int, world: World) -> list[str]:
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    bundled = [sys.executable, "-m", "config_manager.actors.bundled_broker", str(port)]
    if mosquitto is None:
        return bundled
    # as root it would change to a user of its own, which can't write here
    user = "user root\n" if os.geteuid() == 0 else ""
    conf = folder / "mosquitto.conf"
    text = _MOSQUITTO_CONF.format(port=port, user=user, folder=folder.absolute())
    command = [mosquitto, "-c", str(conf)]
    if not (world.disk.exists(conf) and world.disk.read(conf) == text.encode()):
        try:
            # not needed if it is there: the disk may be full
            world.disk.write_atomic(conf, text.encode())
        except OSError as error:
            if not _takes_no_writes(error):
                raise
            return bundled  # this one needs no file
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def _log_file(folder: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with _nothing_where_read_only():
        return os.fdopen(os.open(folder / "broker.log", flags, 0o600), "ab")
    return Path(os.devnull).open("ab")


async def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return  # reaped: its id may belong to another program by now
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.poll()


async def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(_STOP_S):
            await _ended(process)
        if process.poll() is None:
            process.kill()
            await _ended(process)
    process.wait()
