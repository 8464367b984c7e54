"""The page about the Python interface has every public name, and no other."""

from __future__ import annotations

import re

import vireid
from tests.documents.pages import ROOT, resolves

TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"^\.\. auto(?:function|class|exception):: ([\w.]+)$", TEXT, re.MULTILINE)

# Losses and blocks that other people import into their own training loops.
BLOCKS = {
    "vireid.losses.triplet.batch_hard_triplet",
    "vireid.losses.triplet.weighted_regularised_triplet",
    "vireid.recipes.wrim_net.MIIM",
    "vireid.recipes.wrim_net.key_instance_contrast",
    "vireid.recipes.peca.aggregate_channels",
    "vireid.recipes.peca.similarity_loss",
    "vireid.recipes.peca.mixing_loss",
    "vireid.recipes.peca.instance_contrast",
    "vireid.recipes.peca.CentroidMemory",
    "vireid.recipes.fusion_dml.random_channel_combination",
    "vireid.recipes.fusion_dml.mutual_loss",
    "vireid.recipes.fusion_dml.AdaptiveFusion",
}


def test_every_public_name_is_on_the_page():
    rooms = {"vireid.recipes", "vireid.figures"}
    own = {f"vireid.{name}" for name in vireid.__all__} - rooms | {"vireid.recipes.recipes", "vireid.figures.draw"}
    assert own <= set(DOCUMENTED)
    assert set(DOCUMENTED) >= BLOCKS
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def test_every_name_on_the_page_exists():
    assert not [name for name in DOCUMENTED if not resolves(name)]


def test_every_member_on_the_page_exists():
    """`:members: update, loss` below a class; Sphinx says nothing if one is missing."""
    wanted = re.findall(r"^\.\. autoclass:: ([\w.]+)\n +:members: (\w[\w, ]*)$", TEXT, re.MULTILINE)
    assert wanted
    assert not [f"{kind}.{one}" for kind, many in wanted for one in many.split(", ") if not resolves(f"{kind}.{one}")]
