"""The wake word."""

from __future__ import annotations

from typing import ClassVar

from config_manager.config.catalogue import ServiceSettings, setting
from config_manager.config.services.kinds import AbsolutePath


class WakeSettings(ServiceSettings):
    SERVICE: ClassVar[str] = "wake-activation"

    wake_detection_threshold: float = setting(
        0.35,
        "How sure the detector must be. Raise it if the robot wakes by itself, lower it if it "
        "does not hear you.",
        level="simple",
        ge=0,
        le=1,
    )
    wake_model_path: AbsolutePath = setting(
        "/models/openwakeword/hey_tars.tflite",
        "The model of the wake word.",
        allowed="an absolute path",
    )
    wake_min_retrigger_sec: float = setting(
        0.8, "The shortest time between two wake-ups.", unit="s", ge=0.1, le=5
    )
    wake_speex_noise_suppression: bool = setting(True, "Take steady noise out before listening.")
    wake_vad_threshold: float = setting(
        0.3, "How sure it must be that somebody speaks at all.", ge=0, le=1
    )
    wake_energy_boost_factor: float = setting(
        1.2, "How much quiet sound is amplified.", ge=0.5, le=3
    )
