"""`config-manager trust`: the trust root shown, changed, and signed where its keys are kept."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from config_manager.api.commands.options import (
    AS_JSON,
    AUDIT_REASON,
    FILE,
    file_of,
    shows_an_answer,
)
from config_manager.api.commands.output import Shown, clean, table
from config_manager.api.commands.remote import Server
from config_manager.config.errors import InvalidValues, RootRefused, SettingsInvalid

_PATH = ("api", "v1", "trust")
_HEADER = ("ROLE", "KEY", "UNTIL", "THRESHOLD")
_SEED_BYTES = 32
_CHANGE = "version adopted"
_KEYS_MADE_HERE = re.compile(r"root(-[0-9a-f]{16})?\.key")
_CLIENTS = (
    "clients take the new root from the broker (each walks from the one it pinned); nothing has to be "
    "done there"
)


@click.group()
def trust() -> None:
    """The trust root: which keys sign what. Everything that services believe begins there.

    \b
      config-manager trust show
      config-manager trust rotate config          # a new key; the old one is good for another day
      config-manager trust revoke 3fa9c01b        # a key that leaked: refused from now on
    Take the root key offline (see docs/security.md):
      config-manager trust export-root --data-dir DATA --to /media/stick
    """


@trust.command()
@shows_an_answer
def show(server: Server) -> Shown:
    """Show the current root: its version, and which keys sign for each role."""
    envelope = server.get(*_PATH, "root", holds="payload")
    root = json.loads(base64.b64decode(envelope["payload"]))
    return Shown(root, _root_lines(root))


def _root_lines(root: dict[str, Any]) -> Iterator[str]:
    yield f"root version {root['version']}, issued {clean(root['issued_at'])}\n"
    rows = (
        (
            name,
            key[:16],
            root["keys"].get(key, {}).get("not_after") or "no end",
            f"{role['threshold']} of {len(role['keyids'])}",
        )
        for name, role in root["roles"].items()
        for key in role["keyids"]
    )
    yield from table(_HEADER, rows)


@trust.command()
@shows_an_answer
@click.argument("role", type=click.Choice(["root", "config", "beacon"]))
@click.option(
    "--overlap", metavar="TIME", default="24h", show_default=True,
    help="How long the old key stays good; 0 drops it at once.",
)  # fmt: skip
@AUDIT_REASON
def rotate(server: Server, role: str, overlap: str, reason: str | None) -> Shown:
    """Sign with a new key from now on."""
    body = {"role": role, "overlap": overlap}
    change = server.post(*_PATH, "rotate", holds=_CHANGE, body=body, reason=reason)
    what = f"{role} is signed by the new key {change['roles'][role]['keyids'][0][:16]}"
    if role != "root":
        what += f"; the old one is good for {overlap}" if overlap != "0" else "; the old one is not"
    return _changed(change, what)


@trust.command("add-signer")
@shows_an_answer
@click.option("--public", required=True, type=FILE, help="The file that make-key wrote: KEY.pub.")
@click.option(
    "--threshold", type=int, help="How many root keys have to sign then. [as many as now]"
)
@AUDIT_REASON
def add_signer(server: Server, public: Path, threshold: int | None, reason: str | None) -> Shown:
    """Let one more key sign for the root."""
    body = {"public": _read(public).strip(), "threshold": threshold}
    change = server.post(*_PATH, "signers", holds=_CHANGE, body=body, reason=reason)
    role = change["roles"]["root"]
    return _changed(change, f"{role['threshold']} of {len(role['keyids'])} root keys have to sign")


@trust.command()
@shows_an_answer
@click.argument("keyid")
@AUDIT_REASON
def revoke(server: Server, keyid: str, reason: str | None) -> Shown:
    """Drop a key at once. KEYID: as `trust show` prints it, at least its first 8 digits."""
    change = server.post(*_PATH, "revoke", holds=_CHANGE, body={"keyid": keyid}, reason=reason)
    what = (
        f"{clean(keyid)} is refused by every client that has seen a beacon since; what it signed was "
        "signed again"
    )
    return _changed(change, what)


@trust.command()
@shows_an_answer
@click.option("--out", type=FILE, help="Write what is to be signed to this file.")
def pending(server: Server, out: Path | None) -> Shown:
    """Show the root version that waits for signatures, and whose."""
    waits = server.get(*_PATH, "pending", holds="pending")["pending"]
    if out is not None and waits is not None:
        out.write_text(json.dumps(waits["envelope"]) + "\n")
    nothing = ["nothing waits for signatures"]
    return Shown({"pending": waits}, nothing if waits is None else _pending_lines(waits, out))


@trust.command()
@shows_an_answer
@click.argument("file", type=FILE)
@AUDIT_REASON
def apply(server: Server, file: Path, reason: str | None) -> Shown:
    """Bring FILE, a root version that was signed elsewhere (`trust sign`)."""
    body = _envelope(file).to_object()
    change = server.post(*_PATH, "roots", holds=_CHANGE, body=body, reason=reason)
    return _changed(change, "it is the root now")


# ── without a server ───────────────────────────────────────────────────────────────────────────


@trust.command("make-key")
@click.option(
    "--out", required=True, type=FILE, help="The private key; KEY.pub gets the public one."
)
@AS_JSON
def make_key(out: Path, as_json: bool) -> None:
    """Make a root key where it will be kept. Needs no server and no network."""
    from nacl.signing import SigningKey

    from config_manager.config.wire import keyid

    seed = os.urandom(_SEED_BYTES)
    public = SigningKey(seed).verify_key.encode()
    _write_new(out, seed.hex() + "\n", 0o600)
    beside = out.with_name(out.name + ".pub")
    _write_new(beside, base64.b64encode(public).decode() + "\n", 0o644)
    key_id = keyid(public)
    lines = [
        f"made {out} (keep it) and {beside} (hand it out); its id is {key_id}",
        f"next: config-manager trust add-signer --public {beside}",
    ]
    told = {"keyid": key_id, "private": str(out), "public": str(beside)}
    Shown(told, lines).show(as_json=as_json)


@trust.command("sign")
@click.option("--key", required=True, type=FILE, help="The root key, 64 hex digits.")
@click.option("--in", "given", required=True, type=FILE, help="What is to be signed.")
@click.option("--out", required=True, type=FILE, help="Where the signed one goes.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@AS_JSON
def sign_root(key: Path, given: Path, out: Path, yes: bool, as_json: bool) -> None:
    """Sign a root version where the root key is kept. Needs no server and no network.

    Shows what the version says before it asks: read it, for this is what every client will believe.
    """
    from dataclasses import replace

    from nacl.signing import SigningKey

    from config_manager.config import wire
    from config_manager.config.documents.fields import NotADocument, UnknownCritical
    from config_manager.config.documents.root import Root
    from config_manager.config.wire import Signature
    from config_manager.config.world import World
    from config_manager.storage.keys.key_file import read_key

    envelope = _envelope(given)
    try:
        root = Root.parse(envelope.payload)
    except (NotADocument, UnknownCritical) as error:
        raise RootRefused(f"{given} is no trust root: {error}") from None
    signing_key = SigningKey(read_key(key, World()))
    key_id = wire.keyid(signing_key.verify_key.encode())
    click.echo(f"root version {root.version}, issued {clean(root.issued_at)}", err=as_json)
    for name, role in root.roles.items():
        keys = ", ".join(one[:16] for one in role.keyids)
        click.echo(f"  {name}: {role.threshold} of {keys}", err=as_json)
    if not yes:
        click.confirm(f"sign this with {key_id[:16]}?", abort=True, err=as_json)
    message = wire.signed_bytes(wire.ROOT, envelope.payload)
    signature = Signature(key_id, signing_key.sign(message).signature)
    others = tuple(one for one in envelope.signatures if one.keyid != key_id)
    signed = replace(envelope, signatures=(*others, signature))
    out.write_bytes(signed.to_bytes() + b"\n")
    next_step = f"next, where the server is: config-manager trust apply {out}"
    told = {"version": root.version, "keyid": key_id, "out": str(out)}
    Shown(told, [f"signed by {key_id[:16]}; {next_step}"]).show(as_json=as_json)


@trust.command("export-root")
@click.option(
    "--data-dir", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The server's data directory; the server may run.",
)  # fmt: skip
@click.option(
    "--to", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Where the root key goes: a medium that is taken away afterwards.",
)  # fmt: skip
@AS_JSON
def export_root(data_dir: Path, to: Path, as_json: bool) -> None:
    """Take the root key offline: moves it out of the data directory.

    From then on `trust rotate`, `add-signer` and `revoke` answer what has to be signed where the key
    is. Everything else, and every client, goes on as before.
    """
    from config_manager.config.files import make_directory, replacing
    from config_manager.storage.keys.key_file import check_private

    keys = data_dir / "keys"
    if not keys.is_dir():
        raise SettingsInvalid(f"{data_dir} has no keys/: it is no data directory of ours")
    check_private(keys)
    found = sorted(one for one in keys.iterdir() if _KEYS_MADE_HERE.fullmatch(one.name))
    if not found:
        raise SettingsInvalid(f"no root key lies in {keys}: it was exported before")
    make_directory(to)
    for one in found:  # every copy is durable before the first original goes
        _write_new(to / one.name, one.read_text("ascii"), 0o600)
    for one in found:
        one.unlink()
    _sync(keys)
    with replacing(to / "root.json", mode=0o644) as file:
        file.write((data_dir / "trust" / "root.json").read_bytes())
    names = [one.name for one in found]
    lines = [
        f"moved {', '.join(names)} to {to}; the server can't change the root by itself any more",
        "make a second copy, and keep both apart from the server. To change the root later:",
        "  config-manager trust rotate config       # answers what has to be signed",
        "  config-manager trust pending --out next.json",
        f"  config-manager trust sign --key {to / names[0]} --in next.json --out signed.json",
        "  config-manager trust apply signed.json",
    ]
    told = {"to": str(to), "moved": names, "root": str(to / "root.json")}
    Shown(told, lines).show(as_json=as_json)


# ── what they have in common ───────────────────────────────────────────────────────────────────


def _changed(change: dict[str, Any], what: str) -> Shown:
    version = change["version"]
    if change["adopted"]:
        return Shown(change, [f"root version {version}: {what}", _CLIENTS])
    return Shown(change, _waiting_lines(change))


def _waiting_lines(change: dict[str, Any]) -> Iterator[str]:
    yield f"root version {change['version']} is made, and counts once it is signed:"
    yield from _pending_lines(change["pending"], None)


def _pending_lines(waits: dict[str, Any], out: Path | None) -> Iterator[str]:
    for one in waits["needs"]:
        keys = ", ".join(key[:16] for key in one["keyids"])
        yield f"  version {one['version']} wants {one['missing']} more signature(s) by: {keys}"
    file = out or "next.json"
    if out is None:
        yield "  config-manager trust pending --out next.json"
    yield f"  config-manager trust sign --key ROOT.key --in {file} --out signed.json   # where the key is"
    yield "  config-manager trust apply signed.json"


def _envelope(file: Path) -> Any:
    from config_manager.config.wire import NotAnEnvelope, parse_envelope

    try:
        return parse_envelope(_read(file).encode(), least_signatures=0)
    except NotAnEnvelope as error:
        raise InvalidValues(f"{file} is no envelope: {error}") from None


def _read(file: Path) -> str:
    try:
        with file_of("", file):
            return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{file} is not text") from None


def _write_new(path: Path, text: str, mode: int) -> None:
    """Durable on return. A file that is there is left alone. Raises SettingsInvalid."""
    with file_of("", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
