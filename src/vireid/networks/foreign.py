"""Checkpoints of other public code: which code wrote one, and the names that its tensors have here.

Three kinds are known. Their names were read in the public repositories:

* AGW and CAJ (`mangye16/Cross-Modal-Re-ID-baseline`, `model.py`): two stems, a shared trunk with non-local blocks, a
  neck and a classifier. These are all parts of the recipe `agw`.
* fast-reid (`JDAI-CV/fast-reid`): a residual network under `backbone.`, everything else under other names.
* torchvision's names, which torchreid (`KaiyangZhou/deep-person-reid`) also uses: a residual network and classifiers.

Nothing is computed here: tensors only get other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from vireid.data.errors import BadInput

State = Mapping[str, torch.Tensor]

CONTAINERS = ("state_dict", "net", "model")
"""Keys under which a checkpoint holds its tensors: torchreid and many others, AGW and CAJ, fast-reid."""

STEMS = {"visible_module.visible": "visible", "thermal_module.thermal": "infrared"}
NON_LOCAL = re.compile(r"NL_(\d+)\.(\d+)\.(.+)")
IN_NON_LOCAL = {"g.0": "g", "g": "g", "theta": "theta", "phi": "phi", "W.0": "w", "W.1": "bn"}
UNUSED = "never used by its network"
CLASSIFIER = "classifier"


@dataclass(frozen=True)
class Named:
    """The tensors of a checkpoint under our names.

    Attributes:
        code: whose checkpoint it is, in words.
        tensors: by the names of `vireid.networks.encoder.Encoder` if `encoder` is true, otherwise by torchvision's.
        encoder: whether they are the stems, trunk and neck of AGW.
        left_out: for each name in the checkpoint that has no place here, why.
    """

    code: str
    tensors: dict[str, torch.Tensor]
    encoder: bool = False
    left_out: dict[str, str] = field(default_factory=dict)


def unpacked(content: object) -> object:
    """The tensors of a checkpoint: those under one of `CONTAINERS`, if there are any, without the prefix `module.`.

    >>> sorted(unpacked({"net": {"module.a": torch.ones(1), "module.b": torch.ones(1)}, "epoch": 3}))
    ['a', 'b']
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return content
    # `nn.DataParallel` writes this prefix.
    whole = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if whole else name: tensor for name, tensor in content.items()}


def named(state: State) -> Named:
    """Recognise whose checkpoint this is, and give its tensors our names.

    Args:
        state: tensors by the names of the code that wrote them.

    Raises:
        BadInput: the checkpoint is AGW's but has tensors that AGW's code does not have, or it is fast-reid's with
            blocks that the trunks here do not have (IBN or squeeze-and-excitation).
    """
    if any(name.startswith("base_resnet.") for name in state):
        return _agw(state)
    if any(name.startswith("backbone.") for name in state):
        return _fast_reid(state)
    heads = {name: CLASSIFIER for name in state if name.startswith(("fc.", "classifier."))}
    code = "torchreid" if any(name.startswith("classifier.") for name in heads) else "torchvision"
    return Named(f"{code}'s names", {name: value for name, value in state.items() if name not in heads}, False, heads)


def _agw(state: State) -> Named:
    """AGW's and CAJ's names. Each of the three modules holds a whole ResNet, of which only a part is used."""
    blocks = _blocks(state)
    non_locals = {number: _count(state, rf"NL_{number}\.(\d+)\.") for number in (1, 2, 3, 4)}
    tensors: dict[str, torch.Tensor] = {}
    left_out: dict[str, str] = {}
    for name, value in state.items():
        module, _, rest = name.partition(".")
        prefix, inner = ".".join(name.split(".")[:2]), ".".join(name.split(".")[2:])
        stem = inner.startswith(("conv1.", "bn1."))
        if prefix in STEMS and stem:
            tensors[f"stems.copies.{STEMS[prefix]}.{inner}"] = value
        elif prefix == "base_resnet.base" and inner.startswith("layer"):
            tensors[f"stages.{inner}"] = value
        elif prefix in STEMS or (prefix == "base_resnet.base" and (stem or inner.startswith("fc."))):
            left_out[name] = UNUSED
        elif module == "bottleneck":
            tensors[f"neck.bn.{rest}"] = value
        elif module == "classifier":
            left_out[name] = CLASSIFIER
        elif found := NON_LOCAL.fullmatch(name):
            stage, index = int(found[1]), int(found[2])
            part, _, leaf = found[3].rpartition(".")
            if stage not in blocks or part not in IN_NON_LOCAL:
                raise BadInput(f"the checkpoint looks like AGW's, but its tensor '{name}' is unknown")
            # The non-local blocks of a stage follow its last residual blocks.
            block = blocks[stage] - non_locals[stage] + index
            tensors[f"stages.inserted.stage{stage}_block{block}.{IN_NON_LOCAL[part]}.{leaf}"] = value
        else:
            raise BadInput(f"the checkpoint looks like AGW's, but its tensor '{name}' is unknown")
    return Named("AGW's public code", tensors, True, left_out)


def _blocks(state: State) -> dict[int, int]:
    """The number of residual blocks of each stage of AGW's shared trunk."""
    counts = {number: _count(state, rf"base_resnet\.base\.layer{number}\.(\d+)\.") for number in (1, 2, 3, 4)}
    return {number: count for number, count in counts.items() if count}


def _count(state: State, pattern: str) -> int:
    """How many different numbers stand in the names that begin with a pattern."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _fast_reid(state: State) -> Named:
    """fast-reid's names: the trunk is under `backbone.`. Its non-local blocks have normalisations of their own."""
    tensors: dict[str, torch.Tensor] = {}
    left_out: dict[str, str] = {}
    for name, value in state.items():
        inner = name.removeprefix("backbone.")
        if inner == name:
            left_out[name] = "head" if name.startswith("heads.") else "not part of the trunk"
        elif inner.startswith("NL_"):
            left_out[name] = "non-local block"
        elif re.search(r"\.(IN|BN|se)\.", inner):
            raise BadInput(f"the checkpoint is fast-reid's with IBN or squeeze-and-excitation blocks ({name}), "
                           "which no trunk here has; train fast-reid with WITH_IBN and WITH_SE off")  # fmt: skip
        else:
            tensors[inner] = value
    return Named("fast-reid", tensors, False, left_out)
