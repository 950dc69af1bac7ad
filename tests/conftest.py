"""What holds for every test: a property test is judged by what it finds, not by how busy the machine is."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("dspark-ops", deadline=None)
settings.load_profile("dspark-ops")
