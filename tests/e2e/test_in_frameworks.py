"""The programs of docs/services, as a reader copies them, on a real server and a real broker."""

from __future__ import annotations

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from config_manager.client.state.cache import Cache
from config_manager.client.state.identity import load_identity
from config_manager.config.world import World
from tests.kit.pages import Page
from tests.kit.processes import (
    COMMAND,
    TOKEN,
    Late,
    Process,
    Processes,
    Server,
    answers,
    eventually,
    free_port,
)

PATH = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
MQTT_URL = "mqtt://localhost:1883"
NOBODY = "mqtt://127.0.0.1:1"
WORKERS = 2

IMPATIENT = """
from config_manager.client.rules import freshness
from config_manager.client.drivers import opening
opening.FIRST_WAIT_S = 0.1
freshness.MIN_BEACON_VALID_S = freshness.FLOOR_WAIT_S = 0.5
"""
"""Stale within a second, in every process that has it as its sitecustomize."""

FIELD = "    page_size: int = Field(20, ge=1, le=100)\n"
FAULTY = """
    @pydantic.field_validator("banner")
    @classmethod
    def _in_words(cls, banner: str) -> str:
        return {"nowhere": {}}.get(banner, {banner: banner})[banner]
"""
"""A validator with a bug: a KeyError for "nowhere"."""


class Program(ABC):
    """A page's program in a directory of its own, under the addresses of the test, and with a name of its
    own for the service, because the tests share a server."""

    page: ClassVar[Page]
    start: ClassVar[str]
    """what stands in the block that starts it"""

    def __init__(self, processes: Processes, server: Server, directory: Path) -> None:
        self.processes = processes
        self.server = server
        self.service = directory.name
        self.directory = directory
        self.port = free_port()
        self.here = {
            "http://localhost:8081": server.url,
            MQTT_URL: server.mqtt_url,
            "localhost:8000": f"127.0.0.1:{self.port}",
            "--port 8000": f"--port {self.port}",
            '"shop"': f'"{self.service}"',
            "/config/shop": f"/config/{self.service}",
        }
        """a page's words → those of this test"""
        directory.mkdir()
        for name, text in self.page.files.items():
            faulty = text.replace(FIELD, FIELD + FAULTY)
            self.write(name, f"import pydantic\n{faulty}" if faulty != text else text)
        self.run("/api/v1/trust/root")

    def in_words_of_here(self, text: str) -> str:
        for theirs, ours in self.here.items():
            text = text.replace(theirs, ours)
        return text

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(self.in_words_of_here(text))

    def run(self, text: str) -> None:
        """The page's block with this text, which ends by itself."""
        process = self._shell(self.page.block(text))
        assert process.wait() == 0, process.text

    def begin(self, **environment: str) -> Process:
        block = self.page.block(self.start).replace(self.start, f"exec {self.start}")
        return self._shell(block, **environment)

    def _shell(self, block: str, **environment: str) -> Process:
        environment |= {"PATH": PATH, "HOME": str(self.directory), "CONFIG_MANAGER_TOKEN": TOKEN}
        return self.processes.start(
            ["bash", "-euc", self.in_words_of_here(block)], env=environment, cwd=self.directory
        )

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @abstractmethod
    def serves(self, process: Process, banner: str, *, workers: int = WORKERS) -> None:
        """Wait until this many of its workers run with this banner."""

    def put(self, **values: Any) -> int:
        answer = self.server.put(self.service, values)
        assert answer.is_success, answer.text
        return int(answer.json()["revision"])

    def status(self) -> dict[str, Any]:
        shown = self.server.get("/api/v1/status").json()["instances"]
        (ours,) = (one for one in shown if one["service"] == self.service)
        return dict(ours)

    def is_seen(self, what: str, how: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the operator sees this of it."""
        seen: list[dict[str, Any]] = []

        def is_it() -> bool:
            seen[:] = [self.status()]
            return how(seen[0])

        try:
            eventually(is_it, within=5, what=f"status says that it {what}")
        except Late as late:
            raise Late(f"{late}; it says {seen}") from None

    def runs(self, revision: int) -> None:
        self.is_seen(
            f"runs {revision}",
            lambda shown: shown["running"] is not None and shown["running"]["revision"] == revision,
        )

    def refuses(self, revision: int, why: str) -> None:
        self.is_seen(
            f"refused {revision} because of {why}",
            lambda shown: (
                shown["last_attempt"]["revision"] == revision
                and shown["last_attempt"]["stage"] == "refused"
                and why in shown["last_attempt"]["reason"]
            ),
        )

    def ends(self, process: Process, within: float = 10) -> None:
        """On SIGTERM, cleanly and in time; and nothing is held against what it ran."""
        code = process.terminate(within)
        assert code == 0, process.text
        assert not [line for line in process.text if "Traceback" in line], process.text
        identity = load_identity(self.state, World())
        kept = Cache(
            self.state, self.service, identity.file_key, identity.roots, World(), None
        ).load()
        assert kept is not None
        assert (kept.died, kept.poison) == (None, None)


class Web(Program):
    def ask(self) -> httpx.Response:
        """On a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}/", trust_env=False)

    def serves(self, process: Process, banner: str, *, workers: int = WORKERS) -> None:
        """Asks several times at once, so that every worker has its turn."""
        newest: dict[int, str] = {}

        def is_served(pool: ThreadPoolExecutor) -> bool:
            for answer in pool.map(lambda _: self.ask(), range(4)) if answers(self.port) else ():
                assert answer.status_code == 200, answer.text
                said = answer.json()
                newest[said["worker"]] = said["banner"]
            return list(newest.values()).count(banner) >= workers

        with ThreadPoolExecutor(4) as pool:
            try:
                eventually(lambda: is_served(pool), within=15, what=f"{workers} serve {banner!r}")
            except Late as late:
                raise Late(f"{late}; newest: {newest}; {process.text[-25:]}") from None


class FastApi(Web):
    page = Page("services/fastapi.md")
    start = "uvicorn app:app"


class Flask(Web):
    page = Page("services/flask.md")
    start = "gunicorn"


class Preloaded(Web):
    page = Page("services/gunicorn-uwsgi.md")
    start = "gunicorn --preload"


CELERYCONFIG = """
broker_url = 'filesystem://'
result_backend = 'file://{queue}'
broker_transport_options = {{
    'data_folder_in': '{queue}', 'data_folder_out': '{queue}', 'polling_interval': 0.1
}}
"""

CALLER = """
import json, time
from celery import group
from tasks import greet
while True:
    for said in group(greet.s() for _ in range(6)).delay().get(timeout=20, interval=0.05):
        print(json.dumps(said), flush=True)
    time.sleep(0.1)  # so that others may work too
"""


class Celery(Program):
    page = Page("services/celery.md")
    start = "celery --app tasks worker"

    def __init__(self, processes: Processes, server: Server, directory: Path) -> None:
        super().__init__(processes, server, directory)
        queue = directory / "queue"
        queue.mkdir()
        self.write("celeryconfig.py", CELERYCONFIG.format(queue=queue))
        self.caller = processes.start([sys.executable, "-c", CALLER], cwd=directory)

    def serves(self, process: Process, banner: str, *, workers: int = WORKERS) -> None:
        at = len(self.caller.lines)

        def is_served() -> bool:
            newest = {said["worker"]: said["banner"] for said in self.caller.lines[at:]}
            return list(newest.values()).count(banner) >= workers

        try:
            eventually(is_served, within=20, what=f"{workers} serve {banner!r}")
        except Late as late:
            raise Late(f"{late}; {self.caller.text[-8:]}; {process.text[-25:]}") from None


class Script(Program):
    page = Page("services/systemd.md")

    @property
    def state(self) -> Path:
        (name,) = self._unit("StateDirectory")
        return self.directory / name

    def _unit(self, key: str) -> list[str]:
        lines = self.in_words_of_here(self.page.files["shop.service"]).splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]

    def begin(self, **environment: str) -> Process:
        """As systemd would, by the unit."""
        environment |= dict(one.split("=", 1) for one in self._unit("Environment"))
        environment["CONFIG_MANAGER_ROOT"] = str(self.directory / "root.json")
        environment["STATE_DIRECTORY"] = str(self.state)
        return self.processes.start(
            [sys.executable, "shop.py"], env=environment, cwd=self.directory
        )

    def serves(self, process: Process, banner: str, *, workers: int = WORKERS) -> None:
        eventually(
            lambda: {f"began with {banner}", f"now {banner}"} & set(process.text),
            within=10,
            what=f"it runs with {banner!r}: {process.text}",
        )


@pytest.mark.parametrize(
    "kind",
    [
        FastApi,
        pytest.param(Flask, marks=pytest.mark.torture),
        Preloaded,
        pytest.param(Celery, marks=pytest.mark.torture),
        Script,
    ],
)
def test_a_pages_program_lives_through_what_comes(
    module_shop: tuple[Processes, Path], server: Server, kind: type[Program]
) -> None:
    processes, directory = module_shop
    program = kind(processes, server, directory / kind.__name__.lower())
    process = program.begin()
    program.serves(process, "welcome")

    # the change that the page makes, and the lines that it promises
    program.run("-X PUT")
    program.serves(process, "sale")
    sale = program.status()["wanted"]["revision"]
    program.runs(sale)
    for line in ("connected broker=", f"applied service={program.service}"):
        assert [said for said in process.text if line in said], process.text

    # two that it can't run with
    program.refuses(program.put(banner="sale", page_size=0), "page_size")
    program.refuses(program.put(banner="nowhere"), "KeyError")
    program.serves(process, "sale")
    program.runs(sale)

    # a change, and at once a redeploy
    last = program.put(banner="night")
    program.runs(last)
    program.ends(process)

    # a start with nothing in reach: it reaches the server by the broker only, so they are one to it. The
    # change is still on trial: one worker tries it, the others begin with what was proved before
    program.here[MQTT_URL] = NOBODY
    again = program.begin()
    program.serves(again, "night", workers=1)
    program.ends(again, within=20)  # what began with nothing waits 5 s for a first delivery


def test_workers_of_a_master_that_opened_it_serve_no_frozen_values(
    module_shop: tuple[Processes, Path], server: Server
) -> None:
    processes, directory = module_shop
    program = Preloaded(processes, server, directory / "frozen")
    (program.directory / "gunicorn.conf.py").unlink()
    right = program.page.files["shop.py"]
    wrong = right.replace('service="shop")', 'service="shop").open()')
    assert wrong != right
    program.write("shop.py", wrong)
    process = program.begin()

    def is_refused() -> bool:
        return answers(program.port) and program.ask().status_code == 500

    eventually(is_refused, within=15, what="the workers answer 500")
    eventually(
        lambda: "ForkedAway" in (said := "\n".join(process.text)) and "in post_worker_init" in said,
        within=5,
        what=f"the log says what to do: {process.text}",
    )
    assert process.terminate(10) == 0


def test_a_fastapi_program_that_is_too_stale_ends_or_answers_503(
    module_shop: tuple[Processes, Path], server: Server
) -> None:
    processes, directory = module_shop
    programs = [FastApi(processes, server, directory / name) for name in ("ends", "answers")]
    page = FastApi.page
    app = page.files["app.py"]
    ends = app.replace(
        "app = FastAPI(", page.block("in place of its lifespan") + "\n\napp = FastAPI("
    )
    programs[0].write("app.py", ends.replace("max_stale_s=300", "max_stale_s=0.5"))
    policy = 'service="shop", max_stale_s=0.5, on_stale="stop"'
    programs[1].write(
        "app.py", app.replace('service="shop"', policy) + "\n\n" + page.block("after its app")
    )
    for program in programs:
        program.here |= {MQTT_URL: NOBODY, "--workers 2 ": ""}
        program.write("sitecustomize.py", IMPATIENT)
    ending, answering = (program.begin(PYTHONPATH=str(program.directory)) for program in programs)
    assert ending.wait(15) == -signal.SIGTERM, ending.text
    assert "Traceback" not in "\n".join(ending.text)
    eventually(
        lambda: answers(programs[1].port) and programs[1].ask().status_code == 503,
        within=15,
        what=f"it answers 503: {answering.text}",
    )


def test_a_callback_may_have_the_program_started_again(
    module_shop: tuple[Processes, Path], server: Server
) -> None:
    processes, directory = module_shop
    program = Script(processes, server, directory / "restarted")
    text = program.page.files["shop.py"]
    before, _, after = text.partition("def changed(")
    instead = program.page.block("in place of its callback")
    program.write("shop.py", before + instead + "\n\n" + after[after.index("signal.signal(") :])
    process = program.begin()
    program.serves(process, "welcome")
    program.put(banner="sale")
    program.put(banner="sale", page_size=50)
    assert process.wait(10) == 0
    program.serves(again := program.begin(), "sale")
    program.ends(again)
