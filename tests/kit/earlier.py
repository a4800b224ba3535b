"""What released versions left behind in `tests/data`: the code of each, its server's and its clients' files.

Shared by the tests that open them with today's code and by `tests/data/make.py`, which made them.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import sysconfig
import zipfile
from functools import cached_property, partial
from operator import eq
from pathlib import Path
from typing import Any

from tests.kit.processes import Server, listening

DATA = Path(__file__).resolve().parents[1] / "data"

SERVER, CLIENT, ON_TRIAL = "server", "client", "client-on-trial"
"""The directories of a version's folder that a server or a client goes on with."""

EXPECTED, RETAINED, RECOVERY_KEY, EXPORT = (
    "expected.json",
    "retained.jsonl",
    "recovery-key",
    "audit-export.jsonl",
)

_THEIRS = """
import sys
sys.path[:0] = [{code!r}]
sys.path += {packages!r}
import config_manager.client
assert config_manager.client.__file__ == {code!r} + "/config_manager/client/__init__.py"
"""

_COMMAND = """
sys.argv[0] = "config-manager"
from config_manager.api.main import main
main()
"""

SERVICE_PROGRAM = """
import json, signal, sys
from pydantic import BaseModel, SecretStr
from config_manager.client import Config

class Settings(BaseModel):
    greeting: str = "the model's own"
    pin: SecretStr = SecretStr("the model's own")

def say(event, values):
    shown = {"event": event, "greeting": values.greeting, "pin": values.pin.get_secret_value()}
    print(json.dumps({**shown, "source": config.source}), flush=True)

state, service, mqtt_url, bake_s = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # before there are threads
where = {"state_dir": state, "mqtt_url": mqtt_url, "env_file": None}
with Config(Settings, service=service, bake_s=float(bake_s), **where) as config:
    config.on_change(lambda change: say("changed", change.new))
    say("opened", config.current)
    if mqtt_url != "none:":
        signal.sigwait([signal.SIGTERM])
"""
"""A service in Python. Arguments: state directory, service, brokers, bake time. It says what it runs with,
in lines of JSON, until SIGTERM; without brokers once."""


class Earlier:
    """The folder of one version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = folder.name

    @cached_property
    def expected(self) -> Any:
        """What this version itself answered, and what it was given."""
        return json.loads((self.folder / EXPECTED).read_text())

    @property
    def wheel(self) -> Path:
        (wheel,) = self.folder.glob("*.whl")
        return wheel

    def copy(self, name: str, to: Path) -> Path:
        """One of its directories or files, for its owner alone again: git keeps no such modes."""
        here = self.folder / name
        if here.is_dir():
            shutil.copytree(here, to)
        else:
            shutil.copyfile(here, to)
        for path in (to, *to.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        return to

    def fill(self, port: int) -> None:
        """Put into a broker what this version's broker had retained."""
        lines = (self.folder / RETAINED).read_text().splitlines()
        messages = [json.loads(line) for line in lines]
        with listening(port) as listener:
            for message in messages:
                listener.publish(message["topic"], base64.b64decode(message["payload"]))
            for message in messages:
                wanted = base64.b64decode(message["payload"])
                listener.message(message["topic"], partial(eq, wanted))


def answer(server: Server, path: str) -> Any:
    """What a server answers to GET, without what is another each time: ages, ids of requests, the last use
    of the token that asks, and the defaults of services that nobody wrote, which are the catalogue's."""
    told = server.get(path)
    body = told.json()
    if told.status_code >= 400:
        body = {"type": body["type"]}
    if path == "/api/v1/config":
        body["services"] = [one for one in body["services"] if one["revision"]]
    for token in body.get("tokens", ()):
        if token["name"] == "bootstrap":
            del token["last_used_at"]
    for one in (body, *body.get("secrets", ()), *body.get("versions", ())):
        one.pop("age_s", None)
    return {"status": told.status_code, "etag": told.headers.get("ETag"), "body": body}


VERSIONS = sorted(
    (Earlier(path.parent) for path in DATA.glob(f"*/{EXPECTED}")),
    key=lambda earlier: [int(number) for number in earlier.version.split(".")],
)
BOTH_ENDS = (VERSIONS[0], VERSIONS[-1])
"""The first and the newest one: where programs of each are started, those between run with the torture."""


def unpack(wheel: Path, to: Path) -> Path:
    """A wheel's code in a directory of its own. It is pure Python: nothing but files to take out."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to)
    return to.resolve()


def python(code: Path | None, script: str, *arguments: str) -> list[str]:
    """A process in which `config_manager` is what was unpacked there; None: the checkout's.

    -S, because the checkout is installed by a .pth file, and -I, against PYTHONPATH and the working
    directory. The packages that it needs are today's.
    """
    if code is None:
        return [sys.executable, "-c", script, *arguments]
    packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    theirs = _THEIRS.format(code=str(code), packages=packages)
    return [sys.executable, "-I", "-S", "-c", theirs + script, *arguments]


def command(code: Path) -> list[str]:
    """`config-manager` of the code that was unpacked there."""
    return python(code, _COMMAND)
