"""`vaco lm fetch` and its rule: a model of the hub's cache, one that is half there, one that is nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaco import cli
from vaco.lm import hub
from vaco.lm.model import load_model

SETTINGS = ["--task", "chain_sum", "--algorithm", "ppo"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache, laid out as its client does, that holds a model of some files; no network."""
    from huggingface_hub import constants

    place = tmp_path / "hub"
    snapshot = place / "models--someone--model" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (place / "models--someone--model" / "refs").mkdir()
    (place / "models--someone--model" / "refs" / "main").write_text("0123abcd")
    loaded = load_model("tiny", size={"hidden": 32, "layers": 1, "heads": 2, "intermediate": 32})
    loaded.model.save_pretrained(snapshot)  # type: ignore[operator]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_what_is_in_the_cache_is_noted_with_its_revision(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "notes" / "model.json"
    assert cli.run(["lm", "fetch", *SETTINGS, "--model", "someone/model", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == {"model": "someone/model", "task": "chain_sum", "revision": "0123abcd"}


def test_weights_that_are_not_whole_are_not_taken_for_a_model(cache: Path) -> None:
    assert hub.whole_snapshot("someone/model", ["*"]) == cache
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    (cache / "model.safetensors").rename(cache / "model-00001-of-00002.safetensors")
    with pytest.raises(OSError, match="lacks model-00002"):
        hub.whole_snapshot("someone/model", ["*"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nobody/nothing", "the model 'nobody/nothing' cannot be fetched from the hub"),
        ("/nowhere/model", "there is no model '/nowhere/model', local folder or hub id"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_no_note(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, said: str
) -> None:
    out = tmp_path / "note.json"
    assert cli.run(["lm", "fetch", *SETTINGS, "--model", model, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err and not out.exists()
