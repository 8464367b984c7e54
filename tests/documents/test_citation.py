"""CITATION.cff, pyproject.toml and the papers' pages say the same."""

from __future__ import annotations

import re
import tomllib

import yaml

from docs.tables import of_a_paper
from tests.documents.pages import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_is_about_this_software():
    assert CITATION["title"] == PROJECT["name"]
    assert str(CITATION["version"]) == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]


def test_every_recipes_paper_is_cited_as_on_its_page():
    cited = {reference["notes"].removeprefix("the recipe "): reference for reference in CITATION["references"]}
    assert set(cited) == set(of_a_paper())
    for name, reference in cited.items():
        page = (ROOT / "docs" / "papers" / f"{name}.md").read_text(encoding="utf-8")
        (entry,) = re.findall(r"```bibtex\n(.*?)```", page, re.DOTALL)
        entry = entry.replace("{", "").replace("}", "")
        assert reference["title"].lower() in entry.lower(), name
        assert str(reference["year"]) in entry, name
        assert all(author["family-names"] in entry for author in reference["authors"]), name
        assert all(author["given-names"] in entry for author in reference["authors"]), name
        assert reference.get("doi", "") in entry, name
