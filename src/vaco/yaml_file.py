"""Read YAML as people write it: a mistake in it is one sentence that names the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vaco.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"
_UNFIT = (ValueError, KeyError, AttributeError)  # what PyYAML lets through of impossible dates and wrong tags


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which of a key given twice would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                # By what it means: 1 and 0x1 are one key. '<<' alone means nothing.
                name = key.value if key.tag == _MERGE else self.construct_object(key)
                line = key.start_mark.line + 1
                if name in lines:
                    twice = f"the key '{key.value}' is given twice, in lines {lines[name]} and {line}"
                    raise UserError(f"{self.name}: {twice}: keep one of them")
                lines[name] = line
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=True)  # which refuses what holds itself
        except _UNFIT:
            raise yaml.constructor.ConstructorError(problem_mark=node.start_mark) from None


def read_yaml(path: Path) -> Any:
    """Read a file of YAML in UTF-8.

    Raises:
        UserError: it cannot be read, is no valid YAML, gives a key twice, or is nested too deeply or in itself.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: byte {error.start} is no UTF-8, save the text as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Read YAML; `name` is what messages call it.

    Raises:
        UserError: as `read_yaml`.
    """
    try:
        loader = _Loader(text)
        loader.name = name
        return loader.get_single_data()
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        if isinstance(problem, yaml.constructor.ConstructorError):
            reason = "there is a value YAML cannot read, write a number, true, false or a word"
        else:
            reason = "mend the syntax there"
        raise UserError(f"{name} is not valid YAML{where}: {reason}") from None
    except RecursionError:
        raise UserError(f"{name} is not valid YAML: it is nested too deeply, write plain names and values") from None
