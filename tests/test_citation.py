"""CITATION.cff is valid, and says of this package and of the paper what the rest of the repository says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomllib
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TEXT = {"type": "string", "minLength": 1, "pattern": r"^\S(.*\S)?$"}
DATE = {"type": "string", "pattern": r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"}
PERSON = {
    "type": "object",
    "properties": {"family-names": TEXT, "given-names": TEXT, "name-particle": TEXT, "orcid": TEXT},
    "required": ["family-names", "given-names"],
    "additionalProperties": False,
}
ENTITY = {"type": "object", "properties": {"name": TEXT}, "required": ["name"], "additionalProperties": False}
PEOPLE = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"anyOf": [PERSON, ENTITY]}}
IDENTIFIER = {
    "type": "object",
    "properties": {"type": {"enum": ["doi", "url", "swh", "other"]}, "value": TEXT, "description": TEXT},
    "required": ["type", "value"],
    "additionalProperties": False,
}
REFERENCE = {
    "type": "object",
    "properties": {
        "type": {"enum": ["article", "book", "conference-paper", "generic", "report", "software", "unpublished"]},
        "title": TEXT,
        "notes": TEXT,
        "authors": PEOPLE,
        "journal": TEXT,
        "date-published": DATE,
        "year": {"type": "integer"},
        "month": {"type": "integer", "minimum": 1, "maximum": 12},
        "identifiers": {"type": "array", "minItems": 1, "items": IDENTIFIER},
        "url": {"type": "string", "pattern": "^https://"},
    },
    "required": ["type", "title", "authors"],
    "additionalProperties": False,
}
# The part of version 1.2.0 of the format that this file uses, as strict as the format's own schema or stricter.
SCHEMA = {
    "type": "object",
    "properties": {
        "cff-version": {"const": "1.2.0"},
        "type": {"enum": ["software", "dataset"]},
        "title": TEXT,
        "message": TEXT,
        "abstract": TEXT,
        "authors": PEOPLE,
        "version": TEXT,
        "license": {"enum": ["MIT"]},
        "keywords": {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT},
        "references": {"type": "array", "minItems": 1, "items": REFERENCE},
    },
    "required": ["cff-version", "message", "title", "authors"],
    "additionalProperties": False,
}


def read(text: str) -> Any:
    """The file as JSON has it: dates are text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list):
            return [plain(part) for part in value]
        return value if isinstance(value, str | int | float | bool | None) else value.isoformat()

    return plain(yaml.safe_load(text))


CITATION = read((ROOT / "CITATION.cff").read_text())


def test_it_is_valid() -> None:
    jsonschema.validate(CITATION, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("cff-version: 1.2.0", "cff-version: 1.2"),
        ('title: "Align & Filter: a', 'titel: "Align & Filter: a'),
        ("version: 0.1.0", "version: 0.1"),
        ("family-names: Honari, ", ""),
        ("date-published: 2026-03-02", "date-published: March 2026"),
        ("type: other", "type: arxiv"),
        ("license: MIT", "license: the MIT licence"),
    ],
)
def test_the_schema_would_notice(right: str, wrong: str) -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert right in text
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read(text.replace(right, wrong)), SCHEMA, cls=jsonschema.Draft202012Validator)


def test_it_agrees_with_pyproject() -> None:
    assert (CITATION["version"], CITATION["license"]) == (PROJECT["version"], PROJECT["license"])
    assert CITATION["authors"][0]["name"] in (ROOT / "LICENSE").read_text()


def test_the_papers_are_those_that_the_book_cites() -> None:
    """Titles, authors and numbers, against the book's bibliography."""
    entries = (ROOT / "paper/book/references.bib").read_text().split("\n@")
    for reference in CITATION["references"]:
        number = reference["identifiers"][0]["value"].removeprefix("arXiv:")
        assert reference["url"].endswith(number)
        (entry,) = (entry for entry in entries if number in entry)
        field = dict(re.findall(r"^\s*(\w+)\s*=\s*[{\"](.*?)[}\"],?\s*$", entry, re.MULTILINE))
        bare = {name: re.sub(r"[{}]", "", value) for name, value in field.items()}
        assert bare["title"] == reference["title"] and bare["year"] == str(reference["year"])
        cited = {(one["family-names"], one["given-names"]) for one in reference["authors"]}
        assert {tuple(name.split(", ")) for name in bare["author"].split(" and ")} == cited
