"""Reading and writing the small JSON tables of this room, and the hash of the source that they depend on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vaco.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_USED = ("lag.py", "objectives/align.py", "objectives/divergence.py", "objectives/filters.py")


def write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; floats with six significant digits, which is more than a figure shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_rounded(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path, made_by: str) -> Any:
    """Read JSON.

    Raises:
        UserError: there is no such file; the sentence says that `made_by` makes it.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}: make it with {made_by}")
    return json.loads(path.read_text(encoding="utf-8"))


def source_hash() -> str:
    """Sixteen hexadecimal digits of the sha256 over this room and over what it uses of the rooms below."""
    digest = hashlib.sha256()
    for path in [*sorted((_PACKAGE / "demonstrations").glob("*.py")), *(_PACKAGE / name for name in _USED)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return float(f"{content:.6g}") if isinstance(content, float) else content
