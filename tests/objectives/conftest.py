"""The library may stand alone, without the extras that commands and tiers need."""

from __future__ import annotations

from importlib.util import find_spec

# Its rules are asked for by every command and tier.
collect_ignore = [] if find_spec("pydantic") else ["test_plugins.py"]
