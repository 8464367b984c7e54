"""The diagrams are text: the rooms and their order are those of the import contract, and every name in them exists."""

from __future__ import annotations

import itertools
import re
import tomllib

import pytest

from tests.documents.pages import NAMES, ROOT, blocks, resolves


def diagrams(name: str) -> list[str]:
    return [code for _, code in blocks(ROOT / name, {"mermaid"})]


def layers_of(diagram: str) -> list[set[str]]:
    """The rooms of a flow chart in the order of its arrows; the members of a box are one layer.

    Raises:
        ValueError: the arrows are not one chain through all rooms.
    """
    boxes: dict[str, set[str]] = {}
    after: dict[str, str] = {}
    box = None
    for line in (line.strip() for line in diagram.splitlines()[1:]):
        if line.startswith("subgraph"):
            box = line.split()[1]
            boxes[box] = set()
        elif line == "end":
            box = None
        elif box is not None:
            boxes[box].add(line)
        elif line:
            chain = line.split(" --> ")
            for one, other in itertools.pairwise(chain):
                if after.setdefault(one, other) != other:
                    raise ValueError(f"two arrows leave {one}")
    starts = set(after) - set(after.values())
    if len(starts) != 1 or not set(boxes) <= set(after) | set(after.values()):
        raise ValueError(f"the arrows are not one chain; it could start at {', '.join(sorted(starts))}")
    place, order = starts.pop(), []
    while place:
        order.append(boxes.get(place, {place}))
        place = after.get(place, "")
    return order


def test_the_rooms_and_their_order_are_those_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (wanted,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (diagram,) = diagrams("docs/architecture.md")
    shown = [{f"vireid.{room}" for room in layer} for layer in layers_of(diagram)]
    assert shown[::-1] == [{room.strip() for room in layer.split("|")} for layer in wanted]


def test_a_room_in_the_wrong_place_is_seen():
    (diagram,) = diagrams("docs/architecture.md")
    swapped = diagram.replace("recipes --> plugins", "plugins --> recipes")
    assert layers_of(swapped) != layers_of(diagram)
    assert layers_of("flowchart LR\n  a --> b\n  subgraph b [x]\n    c\n    d\n  end\n  b --> e") == [
        {"a"},
        {"c", "d"},
        {"e"},
    ]
    with pytest.raises(ValueError, match="not one chain"):
        layers_of("flowchart LR\n  a --> b\n  c --> d")


@pytest.mark.parametrize("name", [name for name in NAMES if diagrams(name)])
def test_every_function_in_a_diagram_exists(name):
    words = [word for diagram in diagrams(name) for word in re.findall(r"\bvireid(?:\.\w+)+", diagram)]
    assert not [word for word in words if not resolves(word)]


def test_the_two_pages_have_their_diagrams():
    """So that the tests above cannot become empty unnoticed."""
    assert len(diagrams("docs/architecture.md")) == 1
    training, test = diagrams("docs/path_of_an_image.md")
    assert training.count("vireid.") >= 8
    assert test.count("vireid.") >= 6
