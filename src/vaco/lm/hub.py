"""Fetching from the hub without a minute of retries where there is no network, and never for local names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from vaco.errors import UserError

_SECONDS = 10.0

Fetched = TypeVar("Fetched")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's clients off the network for a while, as their environment variable would for good."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cached_revision(name: str) -> str | dict[str, Any]:
    """The commit of a model in the hub's cache that loading takes; empty if there is none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent.name if isinstance(found, str) else {}


def whole_snapshot(name: str, forms: list[str]) -> Path:
    """The folder of a model in the hub's cache, fetched as far as it is not there.

    Args:
        name: hub id.
        forms: patterns of the files that are wanted.

    Raises:
        OSError: weights are missing, as they are where fetching broke off and there is no network now.
    """
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(name, allow_patterns=forms))
    indices = [json.loads(index.read_bytes()) for index in folder.glob("*.safetensors.index.json")]
    wanted = {file for index in indices for file in index["weight_map"].values()} or {"model.safetensors"}
    missing = sorted(file for file in wanted if not (folder / file).is_file())
    if missing:
        raise OSError(f"{folder} lacks {missing[0]}")
    return folder


def fetch(name: str, kind: Literal["model", "data set"], load: Callable[[], Fetched], instead: str) -> Fetched:
    """Load from the hub's cache, or else from the hub.

    Args:
        name: hub id.
        kind: what it names.
        load: does it, through one of the hub's clients.
        instead: what to do without a network, the end of the message's sentence.

    Raises:
        UserError: it is not in the cache, and the hub cannot be reached or does not have it.
    """
    from huggingface_hub import HfApi

    try:
        with offline():
            return load()
    except UserError:
        raise
    except Exception:  # of as many classes as below; what is wrong with the cache, the hub will mend or repeat
        hub = HfApi()
    try:
        # Asked first because it gives up at once; the loaders below would retry for a minute and print each failure.
        (hub.model_info if kind == "model" else hub.dataset_info)(name, timeout=_SECONDS)
        return load()
    except UserError:
        raise
    except Exception as error:  # of a dozen classes, from three packages, by the kind of failure
        reason = type(error).__name__
        raise UserError(f"the {kind} '{name}' cannot be fetched from the hub ({reason}): {instead}") from None
