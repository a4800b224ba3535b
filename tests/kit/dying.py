"""A process that dies by SIGKILL at one line of its work, at each in turn.

`python -m tests.kit.dying WORK TEMPLATE DIRECTORY EVERY`: copies TEMPLATE to DIRECTORY/1, /2, … and in each
does the work, dying at the 1st, 2nd, … line that runs in what does it, or only at one of EVERY so many. Ends when
the work got through; prints how many copies died. WORK is `rekey` (the database's key), `rotate-secrets-key`
or `accept` (`restore --accept`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import trio
from pydantic import SecretStr

from config_manager.actors import caching, restoring, secrets_rotating
from config_manager.actors.actor import Context
from config_manager.actors.messages import RotateSecretsKey
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.restoring import accept_what_is_here
from config_manager.actors.storing import writer
from config_manager.actors.system import running_system
from config_manager.config import files, world
from config_manager.config.logging import configure
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage import witness
from config_manager.storage.decisions import secret_rotation
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.keys import key_file, key_ring, recovery
from config_manager.storage.sql import rekeying, rows, sql_store


class Work(NamedTuple):
    """on: whether a line of this code counts."""

    do: Callable[[Path], None]
    on: Callable[[CodeType], bool]


def dies_at(line: int, work: Work, data_dir: Path) -> bool:
    """Work in a process of its own that is killed before this line (from 1); whether it was."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not work.on(frame.f_code):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        threading.settrace(trace)
        sys.settrace(trace)
        try:
            work.do(data_dir)
        finally:
            sys.settrace(None)
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def rekey(data_dir: Path) -> None:
    """As `config-manager rotate-db-key` does it."""
    ring = key_ring.KeyRing.open(data_dir, World())
    sealed = recovery.Recovery(ring, World())
    rekeying.rekey(data_dir / "config.db", ring.db, new_key_is_there=sealed.refresh)
    sealed.refresh()


def rotate_secrets_key(data_dir: Path) -> None:
    """As a server does it, a secret at a time."""
    secrets_rotating._PAGE = 1
    settings = Settings(
        data_dir=data_dir, mqtt_url="none:", bootstrap_token=SecretStr("a-token-of-this-test")
    )

    async def begin_and_wait() -> None:
        async with running_system(
            settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
        ) as system:
            await system.rotating.ask(RotateSecretsKey(terms=Terms("a test")), Context("a-test"))
            while system.rotation().state != "idle":
                await trio.sleep(0.005)

    trio.run(begin_and_wait)


def accept(data_dir: Path) -> None:
    """As `config-manager restore --accept` does it, with no broker to ask."""
    settings = Settings(data_dir=data_dir, mqtt_url="none:")

    async def work() -> None:
        await accept_what_is_here(
            settings,
            catalogue=SAMPLE_CATALOGUE,
            transport=AiomqttTransport(),
            world=World(),
            reason=None,
            dry_run=False,
        )

    trio.run(work)


def _in(*modules: Any, functions: tuple[str, ...] = ()) -> Callable[[CodeType], bool]:
    """Code of these modules, and of functions with these names in any of ours that stores."""
    files = {module.__file__ for module in modules}
    stores = {module.__file__ for module in (writer, sql_store, rows, restoring, witness, caching)}
    return lambda code: (
        code.co_filename in files or (code.co_name in functions and code.co_filename in stores)
    )


WORKS = {
    "rekey": Work(rekey, _in(rekeying, files, world)),
    "rotate-secrets-key": Work(
        rotate_secrets_key,
        _in(
            secrets_rotating,
            secret_rotation,
            key_file,
            functions=(
                "reseal",
                "_reseal",
                "overwritten",
                "_transaction",
                "_stage",
                "_commit_staged",
            ),
        ),
    ),
    "accept": Work(
        accept,
        _in(
            functions=(
                "_keep",
                *(
                    "repair",
                    "_transaction",
                    "_stage",
                    "insert_change",
                    "_commit_staged",
                    "note_boot",
                ),
                *("begin_anew", "_save", "save", "close", "_close"),
            )
        ),
    ),
}


def dies(work: str, template: Path, directory: Path, every: int = 1) -> int:
    """This module as a process; how many copies died."""
    where = (str(template), str(directory), str(every))
    done = subprocess.run(
        [sys.executable, "-m", "tests.kit.dying", work, *where],
        capture_output=True,
        text=True,
        timeout=1200,
        check=True,
    )
    return int(done.stdout)


def main(work: Work, template: Path, directory: Path, every: int) -> int:
    died = 0
    while True:
        data_dir = directory / str(died + 1)
        shutil.copytree(template, data_dir)
        if not dies_at(1 + died * every, work, data_dir):
            return died
        died += 1


if __name__ == "__main__":
    configure("json", "error", sys.stderr)
    print(main(WORKS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))  # noqa: T201
