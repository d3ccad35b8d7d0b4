"""The book's own extension is found in its sources; what it needs beyond the lock is asked for, test by test."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "paper" / "book"
sys.path.insert(0, str(BOOK / "_ext"))
