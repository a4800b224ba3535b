"""Programs that know nothing of us: `client run … -- COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kit.processes import COMMAND, Process, Processes, Server, eventually

CHILD = """
import json, os, signal, sys, time
def say(event): print(json.dumps({"event": event, "pad": os.environ.get("STT_WORKER_VAD_SPEECH_PAD_MS"),
    "token": os.environ.get("CONFIG_MANAGER_TOKEN")}), flush=True)
signal.signal(signal.SIGHUP, lambda *_: say("hup"))
signal.signal(signal.SIGTERM, lambda *_: (say("term"), sys.exit(0)))
say("up")
while True: time.sleep(0.05)
"""


def ready(processes: Processes, directory: Path) -> tuple[Server, str]:
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put("stt-worker", {"vad_speech_pad_ms": 100}, params={"wait": "confirmed"})
    processes.pin(directory / "state", server.data_dir / "trust" / "root.json")
    return server, broker.url


def wrap(processes: Processes, directory: Path, url: str, *more: str) -> Process:
    return processes.start(
        [
            *(COMMAND, "client", "run", "--state", str(directory / "state")),
            *("--service", "stt-worker", "--mqtt-url", url, *more),
        ],
        env={"CONFIG_MANAGER_TOKEN": "an operator's"},
    )


def test_it_is_restarted_with_its_new_settings_and_ends_with_us(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server, url = ready(processes, directory)
    wrapped = wrap(processes, directory, url, "--", sys.executable, "-c", CHILD)
    assert wrapped.event("up", pad="100")["token"] is None
    server.put("stt-worker", {"vad_speech_pad_ms": 200})
    wrapped.event("term", pad="100")
    wrapped.event("up", pad="200")
    assert wrapped.terminate() == 0
    wrapped.event("term", pad="200")


def test_it_gets_a_signal_once_its_file_is_written_anew(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server, url = ready(processes, directory)
    template, target = directory / "template", directory / "service.conf"
    template.write_text("pad = ${vad_speech_pad_ms}\n")
    options = ("--render", f"{template}:{target}", "--on-change", "HUP")
    wrapped = wrap(processes, directory, url, *options, "--", sys.executable, "-c", CHILD)
    wrapped.event("up")
    assert target.read_text() == "pad = 100\n"
    server.put("stt-worker", {"vad_speech_pad_ms": 200})
    wrapped.event("hup", pad="100")  # its environment is the one it was started with
    assert target.read_text() == "pad = 200\n"
    assert not [line for line in wrapped.lines if line.get("event") == "term"]


@pytest.mark.parametrize("on_change", ["HUP", "restart"])
def test_what_a_template_has_no_value_for_any_more_leaves_it_running_as_it_was(
    shop: tuple[Processes, Path], on_change: str
) -> None:
    processes, directory = shop
    server, url = ready(processes, directory)
    first, second = directory / "first", directory / "second"
    first.write_text("pad = ${vad_speech_pad_ms}\n")
    second.write_text("voice = ${voice}\n")
    server.put("voice", {"voice": "amy", "vad_speech_pad_ms": 1})
    options = ["--on-change", on_change, "--prefix", "STT_WORKER_", "--service", "voice"]
    for template in (first, second):
        options += ["--render", f"{template}:{template}.conf"]
    wrapped = wrap(processes, directory, url, *options, "--", sys.executable, "-c", CHILD)
    wrapped.event("up", pad="1")
    server.put("voice", {"vad_speech_pad_ms": 2})  # somebody forgot a key
    assert eventually(
        lambda: any("asks for 'voice'" in line for line in wrapped.text), within=10, what="why"
    )
    assert Path(f"{first}.conf").read_text() == "pad = 1\n"  # not half of the new one
    server.put("voice", {"voice": "joe", "vad_speech_pad_ms": 3})
    wrapped.event("hup" if on_change == "HUP" else "up", pad="1" if on_change == "HUP" else "3")
    assert Path(f"{second}.conf").read_text() == "voice = joe\n"


def test_its_exit_code_is_ours_and_it_starts_with_nothing_in_reach(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    _, url = ready(processes, directory)
    follower = processes.follow(directory / "state", "stt-worker", url)
    follower.event("applied")
    assert follower.terminate() == 0
    for command, code in (("exit $STT_WORKER_VAD_SPEECH_PAD_MS", 100), ("kill -9 $$", 137)):
        offline = wrap(processes, directory, "mqtt://127.0.0.1:1", "--", "sh", "-c", command)
        assert offline.wait() == code


def test_what_can_not_be_started_says_so(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    _, url = ready(processes, directory)
    missing = wrap(processes, directory, url, "--", "/nowhere/to-be-found")
    assert missing.wait() == 2
    assert eventually(
        lambda: any("can't be started" in line for line in missing.text), within=2, what="why"
    )
