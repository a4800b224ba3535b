"""Text to speech."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from config_manager.config.catalogue import ServiceSettings, setting
from config_manager.config.services.kinds import url_of


class TtsSettings(ServiceSettings):
    SERVICE: ClassVar[str] = "tts-worker"

    tts_provider: Literal["piper", "elevenlabs"] = setting(
        "piper",
        "Who speaks: piper on this machine, elevenlabs in the cloud (needs eleven_api_key).",
        level="simple",
    )
    piper_voice: str = setting(
        "en_US-lessac-medium",
        "Piper's voice, as its file is called without .onnx.",
        level="simple",
        min_length=1,
        max_length=200,
    )
    volume_percent: int = setting(
        100, "Loudness; over 100 may distort.", level="simple", unit="%", ge=0, le=200
    )
    tts_streaming: bool = setting(False, "Start to play before the whole sentence is made.")
    tts_pipeline: bool = setting(True, "Make the next sentence while this one plays.")
    tts_concurrency: int = setting(1, "Sentences made at the same time.", ge=1, le=10)
    tts_aggregate: bool = setting(True, "Join short pieces of text into one utterance.")
    tts_aggregate_timeout_sec: float = setting(
        2.0, "The longest that a piece waits to be joined.", unit="s", ge=0.1, le=10
    )
    tts_aggregate_debounce_ms: int = setting(
        150, "Quiet after a piece that ends the joining.", unit="ms", ge=0, le=5000
    )
    tts_wake_cache_enable: bool = setting(
        True, "Keep the answers to the wake word as sound files, so that they come at once.",
        level="simple",
    )  # fmt: skip
    tts_wake_cache_dir: str = setting(
        "data/tts-cache", "Where those files are kept.", min_length=1, max_length=500
    )
    tts_wake_cache_max: int = setting(
        16, "How many are kept; the oldest goes first.", unit="files", ge=0, le=1000
    )
    eleven_api_base: Annotated[str, url_of("http", "https")] = setting(
        "https://api.elevenlabs.io/v1",
        "Where ElevenLabs is asked; change it for a proxy of yours.",
        allowed="an http:// or https:// URL",
    )
    eleven_api_key: str = setting(
        "", "The key of your ElevenLabs account.", level="simple", secret=True, max_length=500
    )
    eleven_voice_id: str = setting(
        "", "ElevenLabs' id of the voice that speaks.", level="simple", max_length=200
    )
    eleven_model_id: str = setting(
        "eleven_multilingual_v2", "ElevenLabs' model.", min_length=1, max_length=100
    )
    eleven_optimize_streaming: int = setting(
        0, "How much quality may be given for an earlier start: 0 none, 3 most.", ge=0, le=3
    )
