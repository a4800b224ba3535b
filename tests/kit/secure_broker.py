"""A Mosquitto as the templates of deploy/ make it, for others than ourselves: TLS, users, an ACL."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import trustme

from tests.kit.processes import MOSQUITTO, Processes, answers, eventually, free_port

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def issue(authority: trustme.CA, path: Path, *names: str) -> Path:
    """A certificate for these names and its key in one file, as it would be renewed: in place."""
    made = authority.issue_cert(*names, common_name=names[0])
    text = made.private_key_pem.bytes() + b"".join(p.bytes() for p in made.cert_chain_pems)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(text)
    new.replace(path)
    return path


def ca_file(authority: trustme.CA, directory: Path) -> Path:
    path = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


class SecureBroker:
    """A Mosquitto as deploy/mosquitto-secure.conf says, with paths and port of the test."""

    def __init__(self, processes: Processes, directory: Path, authority: trustme.CA) -> None:
        self.port = free_port()
        self.ca = ca_file(authority, directory)
        cert = issue(authority, directory / "broker.pem", "127.0.0.1")
        passwords = directory / "passwords"
        for user in ("config-manager", "door", "stt-worker", "tts-worker"):
            subprocess.run(
                ["mosquitto_passwd", "-b", *(() if passwords.exists() else ("-c",)),
                 str(passwords), user, f"{user}-password"],
                check=True,
            )  # fmt: skip
        passwords.chmod(0o600)
        acl = directory / "acl"
        acl.write_text((DEPLOY / "mosquitto-acl").read_text())
        acl.chmod(0o600)
        text = (DEPLOY / "mosquitto-secure.conf").read_text()
        for said, here in (
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("/mosquitto/config/ca.pem", self.ca),
            ("/mosquitto/config/server.pem", cert),
            ("/mosquitto/config/server.key", cert),
            ("/mosquitto/config/passwords", passwords),
            ("/mosquitto/config/acl", acl),
            ("/mosquitto/data/", f"{directory}/"),
        ):
            assert said in text
            text = text.replace(said, str(here))
        self.conf = directory / "mosquitto.conf"
        self.conf.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
        self._processes = processes
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = self._processes.start([MOSQUITTO, "-c", str(self.conf)])
        eventually(lambda: answers(self.port), within=5, what="mosquitto listens")

    def kill(self) -> None:
        self._process.kill()

    def url(self, user: str) -> str:
        return f"mqtts://{user}:{user}-password@127.0.0.1:{self.port}?ca={self.ca}"
