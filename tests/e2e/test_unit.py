"""deploy/config-manager.service: what systemd says of it, and the service behind what it takes away."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import call_filter
from tests.kit.image import IS_ROOT, SETPRIV
from tests.kit.installed import ROOT
from tests.kit.processes import COMMAND, MOSQUITTO, Processes

FILE = ROOT / "deploy" / "config-manager.service"
TEXT = FILE.read_text()
README = (ROOT / "deploy" / "README.md").read_text()

of_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze"
)


def every(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", TEXT, re.MULTILINE)


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@of_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    installed = tmp_path / FILE.name
    installed.write_text(TEXT.replace("/opt/config-manager/bin/config-manager", COMMAND))
    done = analyzed("verify", installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@of_systemd
def test_it_is_exposed_to_the_network_and_to_little_else() -> None:
    done = analyzed("security", "--offline=yes", "--threshold=13", FILE)
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout


def test_the_readme_makes_every_key_that_the_unit_hands_over() -> None:
    handed_over = [line.partition(":") for line in every("LoadCredential")]
    [made] = re.findall(r"for key in (.+); do", README)
    assert {name.removesuffix(".key") for name, _, _ in handed_over} == set(made.split())
    assert {str(Path(path).parent) for _, _, path in handed_over} == {"/etc/config-manager/keys"}
    assert "/etc/config-manager/keys/$key.key" in README


BEHIND = """
set -e
mount --make-rprivate /
mount -t proc -o hidepid=invisible,subset=pid proc /proc
mount --bind "$1" "$1"
mount -o remount,bind,ro /
shift
exec "$@"
"""


@pytest.mark.torture
@of_systemd
@pytest.mark.skipif(not IS_ROOT or SETPRIV is None, reason="only root, with setpriv")
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("own_broker", [False, True], ids=["a broker beside it", "auto:"])
def test_it_serves_behind_what_the_unit_takes_away(
    shop: tuple[Processes, Path], own_broker: bool
) -> None:
    """Not done here: PrivateUsers=, PrivateDevices=, PrivateTmp= and what systemd does with control groups."""
    processes, directory = shop
    directory.chmod(0o755)
    mqtt_url = "auto:" if own_broker else processes.broker(directory / "broker").url
    uid = 61184  # the first that DynamicUser= gives
    data, credentials = directory / "data", directory / "credentials"
    for folder in (data, credentials):
        folder.mkdir(mode=0o700)
    for line in every("LoadCredential"):
        key = credentials / line.partition(":")[0]
        key.write_text(os.urandom(32).hex())
        key.chmod(0o400)
    for path in (data, credentials, *credentials.iterdir()):
        os.chown(path, uid, uid)
    calls = call_filter.calls_of(every("SystemCallFilter"))
    [families] = every("RestrictAddressFamilies")
    server = processes.start(
        [
            *("unshare", "--mount", "sh", "-c", BEHIND, "sh", str(data)),
            *(str(SETPRIV), f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
            *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
            *("--bounding-set=-all,+dac_read_search", "--no-new-privs"),
            *(sys.executable, call_filter.__file__),
            *(",".join(sorted(calls)), ",".join(families.split())),
            *(COMMAND, "serve", "--bind", "127.0.0.1:0", "--mqtt-url", mqtt_url),
        ],
        env={
            "CONFIG_MANAGER_DATA_DIR": str(data),
            "CREDENTIALS_DIRECTORY": str(credentials),
            "CONFIG_MANAGER_BOOTSTRAP_TOKEN": "e2e-" + "t0ken" * 8,
        },
        cwd=Path("/"),
    )
    ready = server.event("ready", within=20)
    http = processes.client(ready["url"])
    put = http.put("/api/v1/config/stt-worker?wait=confirmed", json={"whisper_model": "tiny"})
    assert (put.status_code, put.json()["propagation"]) == (201, "confirmed")
    assert http.get("/health").json()["ok"] is True
    assert {path.name for path in (data / "keys").iterdir()} <= {"admin.token"}
    assert server.terminate() == 0
    assert not [line for line in server.lines if line["level"] in ("warning", "error", "critical")]


REFUSED = """
import mmap, os, socket
tried = {
    "written and executed": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "a packet socket": lambda: socket.socket(socket.AF_PACKET),
    "another root": lambda: os.chroot("/"),
    "another user": lambda: os.setuid(1),
    "a namespace": lambda: os.unshare(os.CLONE_NEWUTS) if hasattr(os, "unshare") else os.chroot("/"),
}
for name, do in tried.items():
    try:
        do()
    except OSError:
        continue
    print(name)
"""


@pytest.mark.torture
@of_systemd
def test_the_filter_that_it_was_tried_behind_filters() -> None:
    calls = ",".join(call_filter.calls_of(every("SystemCallFilter")))
    command = [sys.executable, call_filter.__file__, calls, "AF_INET,AF_UNIX"]
    done = subprocess.run(
        [*command, sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
