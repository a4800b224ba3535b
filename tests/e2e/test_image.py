"""The image, as far as it can be tried without a container engine: by the very lines of deploy/Dockerfile."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import trustme
import yaml

from tests.kit.image import IS_ROOT, SETPRIV, BuildContext, Container, Image
from tests.kit.installed import ROOT
from tests.kit.processes import BEHIND_A_PROXY, Processes, eventually

IMAGE = Image()
README = (ROOT / "deploy" / "README.md").read_text()

root_only = pytest.mark.skipif(not IS_ROOT, reason="only root becomes the image's user")


@pytest.fixture
def container(shop: tuple[Processes, Path]) -> Container:
    """With what the image has in its file system."""
    if IS_ROOT and SETPRIV is None:
        pytest.skip("root, and no setpriv")
    processes, directory = shop
    made = Container(processes, directory, IMAGE)
    made.make_directories()
    return made


# ── the steps ──────────────────────────────────────────────────────────────────────────────────


def test_the_volumes_directory_is_made_and_the_users_before_it_is_a_volume() -> None:
    [(made, words)] = [one for one in IMAGE.commands("install") if one[1][-1] == IMAGE.volume]
    uid, gid = map(str, IMAGE.user)
    assert made < IMAGE.at("VOLUME")
    assert made < IMAGE.at("USER")
    assert words == ["install", "-d", "-m", "0700", "-o", uid, "-g", gid, IMAGE.volume]
    assert IMAGE.environment["CONFIG_MANAGER_DATA_DIR"] == IMAGE.volume


def test_the_user_is_made_first_with_the_numbers_that_the_readme_says() -> None:
    uid, gid = map(str, IMAGE.user)
    [(_, group)] = IMAGE.commands("groupadd")
    [(made, user)] = IMAGE.commands("useradd")
    assert group[group.index("--gid") + 1] == gid
    assert user[user.index("--uid") + 1] == uid
    assert user[user.index("--gid") + 1] == gid
    assert user[user.index("--home-dir") + 1] == IMAGE.home
    # a package's user takes the first number that is free
    assert all(made < place for place, _ in IMAGE.commands("apt-get"))
    told = re.findall(r"uid (\d+)|uid: \"(\d+)\"|-o (\d+)|runAsUser: (\d+)|chown (\d+)", README)
    assert {number for found in told for number in found if number} == {uid}


def test_the_build_gets_the_code_and_nothing_else_that_lies_in_a_checkout() -> None:
    # api/conformance/vectors.json is a link to the one in docs
    tops = {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "docs/vectors.json"}
    rooms = ("actors", "api", "client", "config", "storage")
    shipped = {".py", ".sql", ".html", ".css", ".js", ".json", ".typed"}
    taken = BuildContext().files()
    code = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.suffix in shipped
    }
    assert taken >= code | tops
    assert [name for name in taken - tops if Path(name).suffix not in shipped] == []


@pytest.mark.parametrize("folder", ["", "data/keys/", "api/", "config/services/", "tests/e2e/"])
@pytest.mark.parametrize("name", [".env", ".env.local", "db.key", "admin.token"])
def test_no_secret_gets_into_the_build_wherever_it_lies(folder: str, name: str) -> None:
    assert BuildContext().leaves_out(folder + name)


def test_compose_mounts_the_volume_that_the_image_has_ready() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    service = compose["services"]["config-manager"]
    [(name, _, target)] = [volume.partition(":") for volume in service["volumes"]]
    assert target == IMAGE.volume
    assert name in compose["volumes"]
    folder = ROOT / "deploy" / service["build"]["context"]
    assert (folder / service["build"]["dockerfile"]).samefile(ROOT / "deploy" / "Dockerfile")


# ── the server, as the image starts it, and its health check ───────────────────────────────────


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def certificate(container: Container) -> dict[str, str]:
    """Whose authority nobody here knows, and whose name is none that loopback has."""
    file = container.root / "server.pem"
    issued = trustme.CA().issue_cert("config-manager.example")
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return {"CONFIG_MANAGER_TLS_CERT_FILE": str(container.give(file))}


def goes_up_and_down(container: Container, *, scheme: str, **more: str) -> None:
    """Started and checked with a proxy in the environment that is not there."""
    given = {**BEHIND_A_PROXY, **more}
    server = container.serve(**given)
    assert server.event("ready", within=15)["url"].startswith(f"{scheme}://")
    code, said = container.check_health(**given)
    assert code == 0, said
    assert json.loads(said)["ok"] is True
    assert server.terminate() == 0
    code, said = container.check_health(**given)
    assert (code, said) == (1, "no answer: ConnectionRefusedError(111, 'Connection refused')")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_it_serves_as_the_images_user_and_is_healthy_until_it_stops(
    container: Container, tls: bool
) -> None:
    more = certificate(container) if tls else {}
    goes_up_and_down(container, scheme="https" if tls else "http", **more)
    if IS_ROOT:
        every = [container.data, *container.data.rglob("*")]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in every} == {IMAGE.user}
        assert container.data.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::]", "[::1]"])
def test_the_health_check_asks_where_the_server_listens(container: Container, host: str) -> None:
    if host.startswith("[") and not has_ipv6():
        pytest.skip("no IPv6 here")
    container.bind(host)
    goes_up_and_down(container, scheme="http")


def test_settings_in_the_working_directorys_env_file_count(container: Container) -> None:
    del container.environment["CONFIG_MANAGER_BIND"]
    file = container.path(IMAGE.home) / ".env"
    file.write_text(f"CONFIG_MANAGER_BIND=0.0.0.0:{container.port}\n")
    container.give(file)
    goes_up_and_down(container, scheme="http")


def test_a_server_that_says_that_it_is_not_well_is_unhealthy_and_docker_keeps_why(
    container: Container,
) -> None:
    first = container.serve()
    first.event("ready", within=15)
    assert first.terminate() == 0
    (container.data / "config.db").chmod(0o400)
    container.serve().event("ready", within=15)
    code, said = container.check_health()
    assert code == 1, said
    assert "config.db can't be written" in " ".join(json.loads(said)["reasons"])


def test_what_answers_with_something_else_and_what_says_nothing_is_unhealthy(
    container: Container,
) -> None:
    container.bind("127.0.0.1")
    with socket.create_server(("127.0.0.1", container.port)) as another:
        check = container.start(IMAGE.health_check)
        asked, _ = another.accept()
        with asked:
            asked.sendall(b"SSH-2.0-another\r\n")
        assert check.wait() == 1
        assert check.text == ["no answer: BadStatusLine('SSH-2.0-another\\r\\n')"]
        assert container.check_health() == (1, "no answer: TimeoutError('timed out')")


def test_settings_that_serve_would_not_take_are_unhealthy_with_its_words(
    container: Container,
) -> None:
    code, said = container.check_health(CONFIG_MANAGER_BIND="nowhere")
    assert code == 1
    assert said.startswith("CONFIG_MANAGER_BIND: expected HOST:PORT")


def test_the_admin_token_is_where_the_readme_reads_it(container: Container) -> None:
    server = container.serve()
    url = server.event("ready", within=15)["url"]
    token = "data/keys/admin.token"
    assert f"exec config-manager cat {token}" in README
    shown = container.start(["cat", token])
    assert (shown.wait(), shown.text[0][:7]) == (0, "cfgmgr_")
    made = container.start(
        ["config-manager", "token", "list", "--token-file", token, "--url", url], **BEHIND_A_PROXY
    )
    assert made.wait() == 0, made.text
    assert server.terminate() == 0


# ── what the volume may be ─────────────────────────────────────────────────────────────────────


@root_only
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_in_a_directory_that_docker_made_for_root_it_ends_with_a_line_that_helps(
    container: Container, mode: int
) -> None:
    container.data.rmdir()
    container.data.mkdir(mode=mode)
    server = container.serve()
    assert server.wait() == 2
    [said] = server.text
    assert f"{container.data}, with everything in it, must belong to uid {IMAGE.user[0]}" in said


@root_only
def test_in_a_volume_of_kubernetes_it_starts_until_the_group_may_read_the_keys(
    container: Container,
) -> None:
    """`fsGroup`: root's, and the group's to write; again at each mount, all of it, unless told otherwise."""
    uid, gid = IMAGE.user
    shutil.chown(container.data, 0, gid)
    container.data.chmod(0o2775)
    (container.data / "lost+found").mkdir(mode=0o700)
    for _ in range(2):
        server = container.serve()
        server.event("ready", within=15)
        assert server.terminate() == 0
    for path in container.data.rglob("*"):
        shutil.chown(path, group=gid)
        path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))
    server = container.serve()
    assert (server.wait(), "others can reach keys" in server.text[0]) == (3, True), server.text
    assert "fsGroupChangePolicy: OnRootMismatch" in README


READ_ONLY = """
mount --make-rprivate / && mount --bind "$1" "$1" || exit 77
for place in / /tmp /dev/shm; do
  if mountpoint -q $place; then mount -o remount,bind,ro $place || exit 77; fi
done
touch "$1/../x" 2>/dev/null && exit 77
shift
exec "$@"
"""


@root_only
def test_it_writes_nowhere_but_in_its_volume_and_needs_no_capability(container: Container) -> None:
    """As compose.yaml runs it: `read_only`, `cap_drop: [ALL]`, `no-new-privileges`."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    private = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(container.data)]
    if subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    server = container.start(IMAGE.command, before=private, CONFIG_MANAGER_MQTT_URL="auto:")
    server.event("ready", within=15)
    eventually(lambda: container.check_health()[0] == 0, within=10, what="healthy, with a broker")
    assert server.terminate() == 0
