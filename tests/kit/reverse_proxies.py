"""nginx, Caddy and HAProxy as docs/proxies.md sets them up: its very text, with our ports, paths and name in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.kit.pages import Page
from tests.kit.processes import Process, Processes, answers, eventually, free_port

NAME = "localhost"
"""in place of config.example.org: a name that leads here"""
PREFIX = "/config"
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
_PAGE = Page("proxies.md")


@dataclass(frozen=True)
class Setting:
    """directory: for its files, with the certificate. port: it listens there. upstream: config-manager's. at_path:
    serve it under a path."""

    directory: Path
    port: int
    upstream: int
    at_path: bool

    def fitted(self, text: str) -> str:
        """The page's text with what differs here."""
        for theirs, ours in (
            ("/etc/ssl/config.example.org", str(self.directory / "site")),
            ("127.0.0.1:8081", f"127.0.0.1:{self.upstream}"),
            ("listen 443", f"listen 127.0.0.1:{self.port}"),
            ("bind :443", f"bind 127.0.0.1:{self.port}"),
            ("config.example.org {", f"{NAME}:{self.port} {{"),
            ("config.example.org", NAME),
        ):
            text = text.replace(theirs, ours)
        return text


def _nginx(setting: Setting) -> list[str]:
    whole = _PAGE.block("upstream config-manager {")
    if setting.at_path:
        head, location, _ = whole.partition("    location / {")
        assert location
        whole = head + _PAGE.block("location /config/ {") + "}\n"
    return ["nginx", "-e", "stderr", "-c", _write(setting, "nginx.conf", in_nginx(setting, whole))]


def in_nginx(setting: Setting, servers: str) -> str:
    """What a distribution's nginx.conf has around the servers."""
    at = setting.directory
    user = "user root;\n" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {at}/{kind};\n" for kind in kinds)
    return (
        f"{user}daemon off;\npid {at}/nginx.pid;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{setting.fitted(servers)}}}\n"
    )


def _caddy(setting: Setting) -> list[str]:
    site = _PAGE.block("config.example.org {")
    if setting.at_path:
        head, body, _ = site.partition("\treverse_proxy ")
        assert body
        site = head + _PAGE.block("handle_path /config/*") + "}\n"
    own = "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n}\n"
    file = _write(setting, "Caddyfile", own + setting.fitted(site))
    return ["caddy", "run", "--config", file, "--adapter", "caddyfile"]


def _haproxy(setting: Setting) -> list[str]:
    text = _PAGE.block("frontend https")
    if setting.at_path:
        use, _, backend = _PAGE.block("use_backend").partition("\n\n")
        text = text.replace("\nbackend config-manager\n", f"{use}\n\nbackend config-manager\n")
        text += "\n" + backend
    return ["haproxy", "-db", "-f", _write(setting, "haproxy.cfg", setting.fitted(text))]


def _write(setting: Setting, name: str, text: str) -> str:
    file = setting.directory / name
    file.write_text(text)
    return str(file)


KINDS: dict[str, Callable[[Setting], list[str]]] = {
    "nginx": _nginx,
    "caddy": _caddy,
    "haproxy": _haproxy,
}


def is_installed(kind: str) -> bool:
    return shutil.which(kind, path=_PATH) is not None


def certify(authority: trustme.CA, directory: Path) -> None:
    """A certificate where the snippets look for one."""
    directory.mkdir(parents=True, exist_ok=True)
    made = authority.issue_cert(NAME)
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    (directory / "site.pem").write_bytes(chain + made.private_key_pem.bytes())
    made.private_key_pem.write_to_path(directory / "site.key")


def start(processes: Processes, argv: list[str], setting: Setting) -> Process:
    program = shutil.which(argv[0], path=_PATH)
    assert program is not None
    home = {"HOME": str(setting.directory), "XDG_DATA_HOME": str(setting.directory)}
    process = processes.start([program, *argv[1:]], env=home, cwd=setting.directory)

    def listens() -> bool:
        if not process.alive:
            raise RuntimeError("\n".join(process.text))
        return answers(setting.port)

    eventually(listens, within=10, what=f"{argv[0]} listens")
    return process


def started(
    processes: Processes,
    kind: str,
    authority: trustme.CA,
    directory: Path,
    upstream: int,
    *,
    at_path: bool = False,
) -> str:
    """Start it; the URL at which config-manager is found."""
    certify(authority, directory)
    setting = Setting(directory, free_port(), upstream, at_path)
    start(processes, KINDS[kind](setting), setting)
    return f"https://{NAME}:{setting.port}" + (PREFIX if at_path else "")
