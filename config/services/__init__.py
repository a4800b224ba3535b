"""The sample catalogue: a voice robot's services."""

from __future__ import annotations

from config_manager.config.catalogue import Catalogue
from config_manager.config.services.llm_worker import LlmSettings
from config_manager.config.services.memory_worker import MemorySettings
from config_manager.config.services.router import RouterSettings
from config_manager.config.services.stt_worker import SttSettings
from config_manager.config.services.tts_worker import TtsSettings
from config_manager.config.services.wake_activation import WakeSettings

SAMPLE_CATALOGUE = Catalogue(
    [LlmSettings, MemorySettings, RouterSettings, SttSettings, TtsSettings, WakeSettings]
)
