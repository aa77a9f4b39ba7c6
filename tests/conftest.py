"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no-clock", deadline=None)  # a test never depends on how fast the machine is
settings.load_profile("no-clock")
