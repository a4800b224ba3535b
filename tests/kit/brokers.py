"""Brokers that nobody here wrote, each started for real: the rows of docs/brokers.md.

Where a program is missing, `missing` says which. A broker is given a directory and chooses a port.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import trustme

from tests.kit.processes import MOSQUITTO, Process, Processes, answers, eventually, free_port
from tests.kit.secure_broker import DEPLOY, SecureBroker

_OPEN = ("warning", "anonymous writes")
_OLD = ("note", "MQTT version")
_FEW = ("warning", "retained messages")
_SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


class RealBroker:
    """One of a kind. name: as in docs/brokers.md. needs: programs. scheme, path: of its URL. doctor: what doctor
    says of it, as (level, check)."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    scheme: ClassVar[str] = "mqtt"
    path: ClassVar[str] = ""
    starts_within: ClassVar[float] = 10
    doctor: ClassVar[set[tuple[str, str]]] = {_OPEN}

    def __init__(self, processes: Processes, directory: Path) -> None:
        self.processes = processes
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.process: Process | None = None
        self.prepare()

    @classmethod
    def missing(cls) -> str | None:
        """The program that is not installed here."""
        return next((name for name in cls.needs if shutil.which(name, path=_SBIN) is None), None)

    def url(self, user: str) -> str:
        """For config-manager, or for a service."""
        del user
        return f"{self.scheme}://127.0.0.1:{self.port}{self.path}"

    def prepare(self) -> None:
        """Before the first start."""

    def start(self) -> None:
        self.process = self.launch()
        eventually(
            lambda: answers(self.port), within=self.starts_within, what=f"{self.name} listens"
        )

    def launch(self) -> Process:
        raise NotImplementedError

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def forget(self) -> None:
        """Lose all that was retained, while it is down."""


class Mosquitto(RealBroker):
    name = "Mosquitto, as Debian ships it"
    needs = ("mosquitto",)
    doctor = {_OPEN, _FEW}
    lines: ClassVar[tuple[str, ...]] = ("persistence true",)

    def conf(self) -> str:
        return "\n".join((f"listener {self.port} 127.0.0.1", "allow_anonymous true", *self.lines))

    def prepare(self) -> None:
        as_root = "\nuser root" if os.geteuid() == 0 else ""
        text = f"{self.conf()}\npersistence_location {self.directory}/{as_root}\n"
        (self.directory / "mosquitto.conf").write_text(text)

    def launch(self) -> Process:
        assert MOSQUITTO is not None
        return self.processes.start([MOSQUITTO, "-c", str(self.directory / "mosquitto.conf")])

    def forget(self) -> None:
        (self.directory / "mosquitto.db").unlink(missing_ok=True)


class OurMosquitto(Mosquitto):
    name = "Mosquitto with `deploy/mosquitto.conf`"
    doctor = {_OPEN}

    def conf(self) -> str:
        text = (DEPLOY / "mosquitto.conf").read_text()
        for said, here in (
            ("listener 1883", f"listener {self.port} 127.0.0.1"),
            ("persistence_location /mosquitto/data/", ""),
        ):
            assert said in text
            text = text.replace(said, here)
        return text


class MosquittoOverWebSocket(Mosquitto):
    name = "Mosquitto, `protocol websockets`"
    doctor = {_OPEN, ("warning", "speed")}
    scheme = "ws"
    path = "/mqtt"

    def conf(self) -> str:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "protocol websockets",
            f"listener {free_port()} 127.0.0.1",  # Debian's 2.0.11 ends if there is no other
            "allow_anonymous true",
            "persistence true",
            "max_queued_messages 100000",
        ]
        return "\n".join(lines)


class SecureMosquitto(RealBroker):
    name = "Mosquitto with `deploy/mosquitto-secure.conf` and `deploy/mosquitto-acl`"
    needs = ("mosquitto", "mosquitto_passwd")
    doctor = set()

    def prepare(self) -> None:
        self._broker = SecureBroker(self.processes, self.directory, trustme.CA())
        self._broker.kill()
        self.port = self._broker.port

    def url(self, user: str) -> str:
        return self._broker.url(user)

    def start(self) -> None:
        self._broker.start()

    def kill(self) -> None:
        self._broker.kill()

    def forget(self) -> None:
        (self.directory / "mosquitto.db").unlink(missing_ok=True)


class Nats(RealBroker):
    name = "nats-server"
    needs = ("nats-server",)
    doctor = {_OPEN, _OLD}

    def listeners(self) -> str:
        return f'mqtt {{ listen: "127.0.0.1:{self.port}" }}'

    def prepare(self) -> None:
        (self.directory / "nats.conf").write_text(f"""\
server_name: one
listen: "127.0.0.1:{free_port()}"
jetstream {{ store_dir: "{self.directory}/store" }}
{self.listeners()}
""")

    def launch(self) -> Process:
        program = shutil.which("nats-server", path=_SBIN)
        assert program is not None
        return self.processes.start([program, "-c", str(self.directory / "nats.conf")])

    def forget(self) -> None:
        shutil.rmtree(self.directory / "store")


class NatsOverWebSocket(Nats):
    name = "nats-server, `websocket`"
    scheme = "ws"
    path = "/mqtt"

    def listeners(self) -> str:
        return f"""\
mqtt {{ listen: "127.0.0.1:{free_port()}" }}
websocket {{ listen: "127.0.0.1:{self.port}", no_tls: true }}
"""


class Bundled(RealBroker):
    name = "the bundled one (amqtt)"
    needs = ()
    doctor = {_OPEN, _OLD}

    def launch(self) -> Process:
        module = "config_manager.actors.bundled_broker"
        return self.processes.start([sys.executable, "-m", module, str(self.port)])


class Aedes(RealBroker):
    name = "aedes"
    needs = ("node", "npm")
    doctor = {_OPEN, _OLD}
    version = "1.2.0"
    starts_within = 20

    def prepare(self) -> None:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent", f"aedes@{self.version}"],
            cwd=self.directory,
            check=True,
            timeout=120,
        )
        (self.directory / "broker.mjs").write_text("""\
import { createServer } from 'node:net'
import { Aedes } from 'aedes'
const aedes = await Aedes.createBroker()
createServer(aedes.handle).listen(Number(process.argv[2]), '127.0.0.1')
""")

    def launch(self) -> Process:
        return self.processes.start(["node", "broker.mjs", str(self.port)], cwd=self.directory)


class RabbitMq(RealBroker):
    name = "RabbitMQ"
    needs = ("rabbitmq-server",)
    doctor = {_OPEN, _OLD, _FEW}
    starts_within = 60

    def prepare(self) -> None:
        (self.directory / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        (self.directory / "rabbitmq.conf").write_text(f"""\
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}
mqtt.allow_anonymous = true
""")

    def launch(self) -> Process:
        here = str(self.directory)
        if self.process is None:  # else it leaves a daemon behind
            self._epmd = str(free_port())
            self.processes.start(["epmd", "-port", self._epmd])
        # Debian's own command runs it as another user, to whom this directory is closed
        (program,) = Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server")
        return self.processes.start(
            [str(program)],
            cwd=self.directory,
            env={
                "HOME": here,
                "ERL_EPMD_PORT": self._epmd,
                "RABBITMQ_NODENAME": f"cm{self.port}@localhost",
                "RABBITMQ_BASE": here,
                "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
                "RABBITMQ_LOG_BASE": f"{here}/log",
                "RABBITMQ_LOGS": "-",
                "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
                "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
                "RABBITMQ_DIST_PORT": str(free_port()),
            },
        )

    def forget(self) -> None:
        shutil.rmtree(self.directory / "mnesia")


class Ejabberd(RealBroker):
    name = "ejabberd (mod_mqtt)"
    needs = ("ejabberdctl",)
    starts_within = 60
    doctor = set()

    def url(self, user: str) -> str:
        """Anonymous ones need a name and a password, too: any."""
        return f"mqtt://{user}%40localhost:any@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        (self.directory / "ejabberd.yml").write_text(f"""\
hosts: [localhost]
loglevel: warning
host_config:
  localhost:
    auth_method: [anonymous]
    anonymous_protocol: both
    allow_multiple_connections: true
listen:
  - port: {self.port}
    ip: "127.0.0.1"
    module: mod_mqtt
modules:
  mod_mqtt:
    match_retained_limit: infinity
    max_queue: 100000
""")

    def launch(self) -> Process:
        here = str(self.directory)
        libraries = next(Path("/usr/lib").glob("*/ejabberd-*"))
        # Debian's own command runs it as another user, to whom this directory is closed
        return self.processes.start(
            ["erl", "-noinput", "-mnesia", "dir", f'"{here}/spool"', "-s", "ejabberd"],
            cwd=self.directory,
            env={
                "HOME": here,
                "ERL_LIBS": str(libraries.parent),
                "EJABBERD_CONFIG_PATH": f"{here}/ejabberd.yml",
                "EJABBERD_LOG_PATH": f"{here}/ejabberd.log",
            },
        )

    def forget(self) -> None:
        shutil.rmtree(self.directory / "spool")


BROKERS: tuple[type[RealBroker], ...] = (
    Mosquitto,
    OurMosquitto,
    SecureMosquitto,
    MosquittoOverWebSocket,
    Nats,
    NatsOverWebSocket,
    Bundled,
    Aedes,
    Ejabberd,
    RabbitMq,
)
