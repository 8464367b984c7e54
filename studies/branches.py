"""Score each branch of trained networks alone, and what is compared without each of them.

    python studies/branches.py --data sysu-mm01:study/worlds/tables study/runs/parts/wrim_net-seed-0 …

A branch is a feature with a neck and a classifier of its own. The numbers are Rank-1 / mAP in percent by
`sysu-mm01/all/single`. For networks with several branches, the last columns join all branches but one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

import vireid
from vireid import datasets
from vireid.data.records import Records
from vireid.model import load

sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import PROTOCOL, batches


def features(run: Path, records: Records) -> dict[str, np.ndarray]:
    """N×D features after the neck of each branch, by name, and of the embedding."""
    model = load(run)
    found: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        for _, *inputs in batches(model, records):
            branches = {name: feature for name, (feature, _) in model.network.by_branch(*inputs).items()}
            for name, feature in {**branches, "embedding": model.network.embed(*inputs)}.items():
                found.setdefault(name, []).append(feature.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def scored(found: np.ndarray, records: Records) -> str:
    """Rank-1 / mAP."""
    report = vireid.score(found, records.identity, records.camera, records.modality, protocol=PROTOCOL)
    return f"{report.rank1:.1f} / {report.map:.1f}"


def main() -> None:
    """Print a line for each run."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("runs", nargs="+", type=Path)
    asked.add_argument("--data", required=True, metavar="LAYOUT:PATH")
    options = asked.parse_args()
    records = datasets.read(*datasets.parse_source(options.data)).where(split="test")
    for run in options.runs:
        found = features(run, records)
        own = [name for name in found if name not in ("embedding", "joint")]  # `joint` is made of the other two
        told = {name: scored(feature, records) for name, feature in found.items()}
        for left in own if len(own) > 2 else ():
            rest = np.concatenate([found[name] for name in own if name != left], 1)
            told[f"all but {left}"] = scored(rest, records)
        print(run.name, *(f"{name} {numbers}" for name, numbers in told.items()), sep="; ", flush=True)


if __name__ == "__main__":
    main()
