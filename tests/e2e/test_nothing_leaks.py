"""A process that holds keys leaves none behind: no core file, nothing in a child's environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.processes import COMMAND, TOKEN, Processes, descendants, eventually, free_port

CORES_ALLOWED = ["bash", "-c", 'ulimit -c unlimited && exec "$@"', "bash"]
ABORTING = "import os; os.abort()"


def ended_how(popen: subprocess.Popen[bytes]) -> int:
    """CLD_DUMPED where a core file was written, or a crash handler fed; else CLD_KILLED."""
    result = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    assert result is not None
    return result.si_code


@pytest.fixture
def cores(tmp_path: Path) -> Path:
    """A directory where a process that aborts leaves its core file: shown by one that does."""
    try:
        control = subprocess.Popen(
            [*CORES_ALLOWED, sys.executable, "-c", ABORTING], cwd=tmp_path, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        pytest.skip("no bash to raise the limit with")
    with control:
        how = ended_how(control)
    if how != os.CLD_DUMPED:
        pytest.skip("no process can dump core here")
    for core in tmp_path.glob("core*"):
        core.unlink()
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV])
def test_a_server_that_is_made_to_dump_core_leaves_none(
    shop: tuple[Processes, Path], cores: Path, number: signal.Signals
) -> None:
    processes, directory = shop
    server = processes.start(
        [*CORES_ALLOWED, COMMAND, "serve", "--data-dir", str(directory / "data"),
         "--bind", "127.0.0.1:0", "--mqtt-url", "none:"],
        cwd=cores,
    )  # fmt: skip
    server.event("ready", within=15)
    server.popen.send_signal(number)
    assert ended_how(server.popen) == os.CLD_KILLED
    assert server.wait() == -number
    assert list(cores.iterdir()) == []


def test_a_client_that_is_made_to_dump_core_leaves_none(
    shop: tuple[Processes, Path], cores: Path
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    processes.pin(directory / "state", server.data_dir / "trust" / "root.json")
    client = processes.start(
        [*CORES_ALLOWED, COMMAND, "client", "run", "--state", str(directory / "state"),
         "--service", "door", "--mqtt-url", "mqtt://127.0.0.1:1"],
        cwd=cores,
    )  # fmt: skip
    eventually(
        lambda: [line for line in client.text if "broker unavailable" in line],
        within=15,
        what="the client runs, and misses its broker",
    )
    client.popen.send_signal(signal.SIGABRT)
    assert ended_how(client.popen) == os.CLD_KILLED
    assert list(cores.iterdir()) == []


def test_a_child_of_the_server_gets_no_token_no_key_and_no_core_file(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", f"auto:{free_port()}")
    children = eventually(
        lambda: descendants(server.process.pid), within=5, what="a broker of its own"
    )
    keys = [path.read_text().strip() for path in (server.data_dir / "keys").iterdir()]
    for pid in children:
        seen = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
        assert b"PATH=" in seen
        assert TOKEN.encode() not in seen
        assert b"CONFIG_MANAGER" not in seen
        assert not [key for key in keys if key.encode() in seen]
        limits = Path(f"/proc/{pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"]


def test_no_key_and_no_token_stands_on_a_command_line(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    shown = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert b"serve" in shown
    keys = [path.read_bytes().strip() for path in (server.data_dir / "keys").iterdir()]
    assert not [key for key in (*keys, TOKEN.encode()) if key in shown]
