"""One signal ends it, whenever it comes; more of them change nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from itertools import cycle, product
from pathlib import Path

import pytest

from tests.kit.long import LONG, few_in_the_suite
from tests.kit.processes import COMMAND, Processes, descendants, eventually, retained

TERM, INT = signal.SIGTERM, signal.SIGINT


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("gap", "first", "second"),
    few_in_the_suite(
        product((0.0, 0.005, 0.02, 0.3), (TERM, INT), (TERM, INT)),
        [(0.0, TERM, INT), (0.005, INT, TERM), (0.02, TERM, TERM), (0.3, INT, INT)],
    ),
)
def test_a_second_signal_while_it_ends_changes_nothing(
    shop: tuple[Processes, Path], gap: float, first: int, second: int
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.wait_outbox_empty()
    server.process.popen.send_signal(first)
    time.sleep(gap)  # the gap itself, not a wait for anything
    server.process.popen.send_signal(second)
    assert server.process.wait(12) == 0
    said = json.loads(retained(broker.port, "system/health/config-manager"))
    assert said["data"]["event"] == "shutdown"
    assert "stopping" in [line["event"] for line in server.process.lines]
    server.start()  # nobody holds the data directory
    assert server.stop() == 0


def test_ctrl_c_does_not_take_the_broker_away_before_we_have_said_goodbye(
    shop: tuple[Processes, Path],
) -> None:
    """A terminal sends it to the whole process group."""
    processes, directory = shop
    server = processes.server(directory / "data", "auto:")
    below = descendants(server.process.pid)
    assert below
    server.wait_outbox_empty()
    os.killpg(server.process.pid, INT)
    assert server.process.wait(12) == 0
    assert not [line for line in server.process.lines if line["event"].startswith("broker died")]
    for pid in below:
        eventually(partial(is_gone, pid), within=5, what="no orphan")


def test_a_broker_in_its_own_session_dies_with_a_server_that_is_killed(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "auto:")
    below = descendants(server.process.pid)
    assert below
    assert all(os.getsid(pid) != os.getsid(server.process.pid) for pid in below)
    server.kill()
    for pid in below:
        eventually(partial(is_gone, pid), within=5, what="no orphan")


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own, as the kernel sees it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def ended(directory: Path, argv: list[str], number: int, after: float) -> tuple[int, bytes]:
    """Its exit code and what it said on stderr, where the signal comes so long after the first
    moment in which it heeds one. Before that Python itself is still beginning."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
    with subprocess.Popen(
        argv, env=environment, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            eventually(partial(handles, process.pid, TERM), within=10, what="it heeds", every=0.001)
            time.sleep(after)  # the moment itself, not a wait for anything
            process.send_signal(number)
            _, said = process.communicate(timeout=15)
            return process.returncode, said
        finally:
            process.kill()


def sweep(directory: Path, moments: Iterable[tuple[float, int]]) -> None:
    serve = [COMMAND, "serve", "--mqtt-url", "none:", "--bind", "127.0.0.1:0"]
    for after, number in moments:
        data = directory / f"data-{after}-{number}"
        found = ended(directory, [*serve, "--data-dir", str(data)], number, after)
        assert found == (0, b""), f"{signal.Signals(number).name} after {after} s"
        shutil.rmtree(data, ignore_errors=True)


def test_a_signal_at_any_moment_of_a_start_ends_it(tmp_path: Path) -> None:
    sweep(tmp_path, zip((0.0, 0.1, 0.3, 0.6, 0.9, 1.2), cycle((TERM, INT)), strict=False))


@LONG
@pytest.mark.timeout(600)
def test_a_signal_at_many_moments_of_a_start_ends_it(tmp_path: Path) -> None:
    sweep(tmp_path, product((number * 0.05 for number in range(41)), (TERM, INT)))


@pytest.mark.parametrize(
    "moments",
    [
        [(0.0, TERM), (0.1, INT), (0.3, TERM), (0.6, INT)],
        pytest.param([(0.05 * n, number) for n in range(21) for number in (TERM, INT)], marks=LONG),
    ],
    ids=["some", "many"],
)
def test_a_signal_at_any_moment_of_a_clients_start_ends_it(
    shop: tuple[Processes, Path], moments: list[tuple[float, int]]
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    state = directory / "state"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    client = [COMMAND, "client", "run", "--state", str(state), "--service", "one"]
    for after, number in moments:
        found = ended(directory, [*client, "--mqtt-url", "none:"], number, after)
        code, said = found
        assert code == 0, f"{signal.Signals(number).name} after {after} s: {said.decode()}"
        assert b"Traceback" not in said


def test_the_first_process_of_a_container_heeds_sigterm_before_it_has_begun(
    tmp_path: Path,
) -> None:
    """The kernel gives pid 1 no signal that it has no handler for."""
    unshare = ["unshare", "--fork", "--pid", "--kill-child"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no pid namespaces here")
    serve = ["serve", "--mqtt-url", "none:", "--bind", "127.0.0.1:0", "--data-dir", str(tmp_path)]
    with Processes() as processes:
        container = processes.start([*unshare, COMMAND, *serve])

        def first() -> int | None:
            return next((pid for pid in descendants(container.pid) if handles(pid, TERM)), None)

        os.kill(eventually(first, within=10, what="it heeds", every=0.001), TERM)
        assert container.wait(10) == 0
        assert not container.lines  # it was not ready yet


INTERRUPTED = """
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
sys.argv[1:] = ["get", "stt-worker"]
from config_manager.api.start import main
main()
"""


def test_ctrl_c_while_an_operators_command_still_loads_is_130_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
