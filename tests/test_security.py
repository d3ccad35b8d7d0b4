"""Input from others: a malicious file of every kind that is read, and names that would be commands elsewhere."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from vaco import cli
from vaco.campaign import cluster
from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables
from vaco.runs import checkpoint, tables
from vaco.runs.config import read_settings
from vaco.runs.lock import RunLock

ROOT = Path(__file__).parents[1]
QUICK = ("--env", "InvertedPendulum-v5", "--steps", "2048", "--eval-points", "1", "--eval-episodes", "1", "--quiet")
HOSTILE = (
    "$(touch hit)",
    "`touch hit`",
    "; touch hit",
    "| touch hit",
    "a\ntouch hit",
    "../../hit",
    "a b",
    "'\"",
    "-rf",
    "*",
)
EXECUTED = "hit"


class Bomb:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {EXECUTED}",)


PICKLED = pickle.dumps(Bomb())
YAML_BOMB = f'!!python/object/apply:os.system ["touch {EXECUTED}"]\n'


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, in which `hit` appears if anything was executed."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def zipped(path: Path) -> bytes:
    """What `torch.save` writes: a zip archive with a pickle, here also with a path that leads out of the folder."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLED)
        archive.writestr("../../escaped", "out")
    return path.read_bytes()


# --- Files


def test_the_bomb_would_go_off(watched: Path) -> None:
    """Or the tests below would prove nothing."""
    pickle.loads(PICKLED)
    assert (watched / EXECUTED).exists()


READERS: dict[str, Callable[[Path], object]] = {
    "policy": checkpoint.read,
    "parquet": tables.read_parquet,
    "json": tables.read_json,
    "settings": lambda path: read_settings(path),
    "profile": cluster.read_profile,
    "tier": lambda path: load_tier(path),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", ["pickle", "zip", "yaml", "nested"])
def test_a_malicious_file_is_refused_in_one_sentence(kind: str, content: str, watched: Path) -> None:
    path = watched / ("evil.yaml" if kind in ("settings", "profile", "tier") else "evil")
    contents = {"pickle": PICKLED, "zip": zipped(watched / "z.zip"), "yaml": YAML_BOMB.encode(), "nested": b"[" * 9999}
    path.write_bytes(contents[content])
    before = sorted(watched.parent.rglob("*"))
    with pytest.raises(UserError):
        READERS[kind](path)
    assert sorted(watched.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config", "deep.yaml"], "nested too deeply"),
        (["--set", "epochs=" + "[" * 9999], "nested too deeply"),
    ],
)
def test_settings_nested_by_the_thousand_end_the_command_with_one_sentence(
    words: list[str], sentence: str, watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (watched / "deep.yaml").write_bytes(b"[" * 9999)
    assert cli.run(["train", "--out", "run", *QUICK, *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and sentence in said and len(said) < 300
    assert [path.name for path in watched.iterdir()] == ["deep.yaml"]


def forged(header: str) -> bytes:
    """A file whose checksum is right, as far as there can be one, and whose header nobody honest wrote.

    In the header `%s` is the digest.
    """
    arrays = {"x": np.zeros(2)}
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        header = header.replace("%s", checkpoint.digest(arrays, json.loads(header)["content"]))
    return safetensors.numpy.save(arrays, {"vaco": header})


FORGERIES = {
    "nested": '{"sha256":"%s","format":2,"content":' + "[" * 99_999,
    "nested and whole": '{"sha256":"%s","format":2,"content":' + "[" * 99_999 + "]" * 99_999 + "}",
    "no JSON": '{"sha256":"%s","format":2,"content":',
    "a number too long": '{"sha256":"%s","format":2,"content":' + "9" * 9999 + "}",
    "no content": '{"sha256":"%s","format":2}',
    "no format": '{"sha256":"%s","content":1}',
    "another format": '{"sha256":"%s","format":[{}],"content":1}',
    "a list": '[{"sha256":"%s"}]',
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_header_with_a_right_checksum_is_refused(kind: str, watched: Path) -> None:
    data = forged(FORGERIES[kind])
    with pytest.raises(checkpoint.DamagedError):
        checkpoint.unpack(data)
    folder = watched / "checkpoints"
    folder.mkdir()
    (folder / "checkpoint-000000000001.safetensors").write_bytes(data)
    warnings: list[str] = []
    assert checkpoint.load_latest(folder, warn=warnings.append) is None and len(warnings) == 1


def test_a_forged_outer_header_is_refused() -> None:
    """What follows the length need not be a safetensors header at all."""
    for header in ("[" * 9999, "{", "[7]", '{"__metadata__":{"vaco":3}}', '{"__metadata__":[]}'):
        with pytest.raises(checkpoint.DamagedError, match="not a whole checkpoint"):
            checkpoint.unpack(len(header).to_bytes(8, "little") + header.encode())


@pytest.mark.parametrize("content", ["[]", "7", '{"progress":1}', '{"progress":1,"meta":[]}', '{"meta":{}}'])
def test_a_forged_content_is_passed_over(content: str, watched: Path) -> None:
    folder = watched / "checkpoints"
    folder.mkdir()
    data = forged(f'{{"sha256":"%s","format":2,"content":{content}}}')
    assert checkpoint.unpack(data)[1] == json.loads(content)
    (folder / "checkpoint-000000000001.safetensors").write_bytes(data)
    warnings: list[str] = []
    assert checkpoint.load_latest(folder, warn=warnings.append) is None and len(warnings) == 1


def test_numpy_objects_cannot_be_stored_or_read(watched: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.pack({"evil": np.array([Bomb()], dtype=object)}, {})
    np.save(watched / "evil.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError):
        checkpoint.read(watched / "evil.npy")
    assert not (watched / EXECUTED).exists()


def test_tables_that_hold_pickles_stay_bytes(watched: Path) -> None:
    """pandas may write objects into parquet as bytes, and metadata of its own; reading must rebuild neither."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"evil": pa.array([PICKLED])}).replace_schema_metadata({b"pandas": PICKLED, b"ARROW:schema": b"x"})
    pq.write_table(table, watched / "evil.parquet", store_schema=False)
    with suppress(UserError):
        assert tables.read_parquet(watched / "evil.parquet")["evil"][0] == PICKLED
    (watched / "summary.json").write_text("{}")
    assert Tables(watched).read("evil")["evil"][0] == PICKLED
    assert not (watched / EXECUTED).exists()


def test_a_plan_is_text(watched: Path) -> None:
    with pytest.raises((UserError, ValueError, KeyError)):
        read_plan(YAML_BOMB)
    assert not (watched / EXECUTED).exists()


def test_a_checkpoint_of_others_cannot_write_elsewhere(watched: Path) -> None:
    """Names of arrays are only names, however much they look like paths."""
    data = checkpoint.pack({"../../escaped": np.zeros(3), "/tmp/escaped": np.ones(2)}, {"progress": 1, "meta": {}})
    folder = watched / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "checkpoint-000000000001.safetensors").write_bytes(data)
    before = sorted(watched.parent.rglob("*"))
    found = checkpoint.load_latest(folder, warn=pytest.fail)
    assert found is not None and set(found[1]) == {"../../escaped", "/tmp/escaped"}
    assert sorted(watched.parent.rglob("*")) == before


def test_a_link_in_a_run_folder_is_replaced_rather_than_followed(watched: Path) -> None:
    precious = watched / "precious"
    precious.write_text("keep me")
    run = watched / "run"
    run.mkdir()
    (run / "phases.parquet").symlink_to(precious)
    (run / "policy.safetensors").symlink_to(precious)
    cli.run(["train", "--out", str(run), *QUICK])
    assert precious.read_text() == "keep me"


def test_a_lock_with_hostile_content_is_only_text(watched: Path) -> None:
    record = {"pid": 1, "host": "$(touch hit)\n\x1b[31m", "since": [1], "boot": None, "namespace": {}}
    for content in (json.dumps(record).encode(), PICKLED, b"[" * 100_000, b"\xff\xfe"):
        (watched / "run.lock").write_bytes(content)
        with pytest.raises(UserError):
            RunLock(watched / "run.lock").acquire()
    assert not (watched / EXECUTED).exists()


# --- Names


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("flag", ["--env", "--algorithm", "--backend", "--set=env", "--set=trigger"])
def test_a_hostile_name_is_no_name(name: str, flag: str, watched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{flag}={name}"]
    assert cli.run(["train", "--out", "run", *QUICK[2:], *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(watched.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "../../hit"])
def test_a_hostile_path_is_only_a_path(name: str, watched: Path) -> None:
    assert cli.run(["train", f"--out={watched / name / 'run'}", *QUICK]) == 0
    assert (watched / name / "run" / "manifest.json").is_file()
    assert [path.name for path in watched.iterdir()] == [name]
    assert cli.run(["verify", str(watched / name)]) == 0


TIER = """
tier: evil
description: x
environments: [{env}]
algorithms: [ppo, {algorithm}]
capacities: [1]
seeds: [0]
steps: 2048
evaluation: {{points: 1, episodes: 1}}
reference: {{episodes: 1, seed: 0}}
{more}
"""


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["environment", "algorithm", "variant", "study", "setting"])
def test_a_hostile_name_in_a_tier_reaches_no_command(name: str, place: str, watched: Path) -> None:
    """Refused at once, or quoted in the command that Snakemake would hand to a shell."""
    quoted = json.dumps(name)
    more = {
        "variant": f"variants: {{{quoted}: {{algorithm: ppo, training: {{clip: 0.1}}}}}}",
        "study": f"studies: {{{quoted}: {{seeds: [1]}}}}",
        "setting": f"training: {{minibatches: {quoted}}}",
    }.get(place, "")
    algorithm = quoted if place in ("algorithm", "variant") else "spo"
    path = watched / "evil.yaml"
    path.write_text(TIER.format(env=quoted if place == "environment" else "Hopper-v5", algorithm=algorithm, more=more))
    try:
        tier = load_tier(path)
    except UserError as refusal:
        assert len(str(refusal)) < 2000
        return
    for spec in tier.runs():
        place = Path(spec.config.place)
        assert ".." not in place.parts and not place.is_absolute()
        # As the workflow writes the command of a run.
        line = shlex.join([*spec.command, "--out", str(place)])
        shown = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
        assert shown.stdout.split("\0")[:-1] == [*spec.command, "--out", str(place)]
    assert not (watched / EXECUTED).exists()


def test_every_name_in_a_shell_command_of_the_workflow_is_quoted() -> None:
    """In a rule's `shell`, every placeholder is quoted by Snakemake, but for numbers and words that the rule writes."""
    unquoted = {"params.anew", "params.seed", "params.repetitions"}
    texts = [path.read_text() for path in sorted((ROOT / "workflow").rglob("*.smk"))]
    commands = [
        found for text in texts for found in re.findall(r"^    shell:\n((?:        .*\n)+)", text, re.MULTILINE)
    ]
    assert len(commands) >= 5
    for command in commands:
        for placeholder in re.findall(r"\{([^{}]+)\}", command):
            name, _, how = placeholder.partition(":")
            assert how == "q" or name in unquoted, f"{{{placeholder}}} is not quoted in {command}"


def test_nothing_in_the_tree_pickles_or_calls_a_shell() -> None:
    """All Python that is tracked, tests of it apart: what `tests/test_architecture.py` holds for the package."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py", "*.smk"], cwd=ROOT, capture_output=True, text=True
    )
    files = [ROOT / name for name in listed.stdout.split("\n") if name and not name.startswith("tests/")]
    if not files:
        pytest.skip("not a git checkout")
    pattern = re.compile(
        r"^\s*(?:import|from)\s+(?:c?pickle|cloudpickle|dill|joblib|shelve|marshal)\b|torch\.(?:load|save)\(", re.M
    )
    assert not [path for path in files if pattern.search(path.read_text())]
    for path in files:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                shell = [word for word in node.keywords if word.arg == "shell"]
                assert not shell, f"{path}:{node.lineno} hands a command to a shell"
                assert ast.unparse(node.func) not in ("os.system", "os.popen", "eval", "exec", "yaml.load"), path


def test_nothing_tracked_is_a_pickle() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    suspect = {".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib", ".bin"}
    assert not [name for name in listed if Path(name).suffix in suspect]


def test_a_malicious_policy_ends_the_command_with_one_sentence(watched: Path) -> None:
    run = watched / "run"
    assert cli.run(["train", "--out", str(run), *QUICK]) == 0
    (run / "policy.safetensors").write_bytes(PICKLED)
    command = [sys.executable, "-m", "vaco", "evaluate", "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=watched)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "damaged" in done.stderr
    assert not (watched / EXECUTED).exists()
