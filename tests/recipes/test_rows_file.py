"""Rows are data: what a YAML file of rows may say, and how a mistake in it is told."""

from __future__ import annotations

import pytest

from vireid.data.errors import BadInput
from vireid.recipes import agw, read_rows

GOOD = """
table1:
  where: a paper's table 1
  protocol: regdb/v2i
  metrics: [rank1, map]
  rows:
    full: {printed: [50.0, null], note: the mAP is not legible}
    small:
      set: ["schedule.milestones=[3]", exchange=ChannelExchange, exchange.cases=rgb]
      printed: [40.0, 30.0]
      protocol: regdb/i2v
    bare:
table2: {set: [epochs=3]}
"""


def rows(text, tmp_path):
    (tmp_path / "paper.yaml").write_text(text)
    return read_rows(agw.PAPER, str(tmp_path / "paper.py"))


def test_tables_share_what_their_rows_do_not_state(tmp_path):
    found = rows(GOOD, tmp_path)
    assert list(found) == ["table1/full", "table1/small", "table1/bare", "table2"]
    assert found["table1/full"].config == agw.PAPER and found["table1/full"].published == {"rank1": 50.0, "map": None}
    assert found["table1/full"].note == "the mAP is not legible" and found["table1/full"].on == "regdb/v2i"
    small = found["table1/small"]
    assert small.config.training.schedule.milestones == (3,) and small.config.exchange.cases == "rgb"
    assert (small.on, small.where) == ("regdb/i2v", "a paper's table 1")
    assert found["table1/bare"].published == {} and found["table2"].config.training.epochs == 3


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs=3", "epoch=3", "paper.yaml, table2: unknown field 'epoch'; did you mean 'epochs'"),
        ("epochs=3", "epochs=0", "paper.yaml, table2: field 'epochs' cannot be '0'"),
        ("[50.0, null]", "[50.0]", "paper.yaml, table1/full: 1 printed numbers for 2 metrics"),
        ("note: the", "nota: the", "paper.yaml, table1/full: unknown key 'nota'; did you mean 'note'"),
        ("regdb/i2v", "regdb/iv", "paper.yaml, table1/small: unknown protocol 'regdb/iv'"),
        ("  protocol: regdb/v2i\n", "", "paper.yaml, table1/full: printed numbers need 'protocol'"),
        ("[rank1, map]", "[rank1, mAP]", "paper.yaml, table1/full: unknown metric 'mAP'"),
    ],
)
def test_a_mistake_in_the_file_names_the_row(old, new, sentence, tmp_path):
    assert old in GOOD
    with pytest.raises(BadInput) as refusal:
        rows(GOOD.replace(old, new), tmp_path)
    assert sentence in str(refusal.value)
