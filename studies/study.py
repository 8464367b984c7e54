"""Train and test what `study.yaml` names, and keep each result as one JSON file in docs/results/study.

    python studies/study.py list
    python studies/study.py run [STUDY …] [--jobs 2] [--minutes 8]

A second call goes on where the first one stopped: a result that is there is not made again, and a training goes on from
its last checkpoint. Each training is one process with one thread, so `--jobs` is the number of cores to use. Where a
machine is lent for short times, `--minutes` stops in time, and the next call goes on. Nothing here is a measurement of
speed.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "docs" / "results" / "study"
PROTOCOL = "sysu-mm01/all/single"  # of which each query's result is kept, for paired comparisons


@dataclass(frozen=True)
class Entry:
    """One configuration of a study.

    Attributes:
        study: name of the study.
        name: name of the entry in it.
        recipe: `RECIPE` or `RECIPE:ROW`.
        world: name of the world that it is trained and tested on.
        set: assignments on top of the row: those of the regime, of the study and of the entry.
        seeds: seeds of the trainings.
        against: name of the entry that it is compared with, `STUDY/NAME` if it is of another study, or None.
        plugin: file in this folder that holds the recipe, or None for a recipe of the package.
        by_name: whether it is run only if its study is named, because it needs a GPU.
        changed: whether it changes the row, apart from the regime.
    """

    study: str
    name: str
    recipe: str
    world: str
    set: tuple[str, ...]
    seeds: tuple[int, ...]
    against: str | None = None
    plugin: str | None = None
    by_name: bool = False
    changed: bool = False

    def file(self, seed: int) -> Path:
        """Where the result of one seed is kept."""
        return RESULTS / self.study / f"{self.name.replace('/', '-')}-seed-{seed}.json"


@functools.cache
def said() -> dict[str, Any]:
    """What `study.yaml` says."""
    return yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))


def entries() -> list[Entry]:
    """Every configuration that `study.yaml` names, in its order."""
    found = []
    for study, about in said()["studies"].items():
        regime = [text for part in about["regime"] for text in said()["regimes"][part]]
        for name, own in about["entries"].items():
            whole = {"recipe": own} if isinstance(own, str) else dict(own)
            assignments = (*regime, *about.get("set", ()), *whole.get("set", ()))
            world, seeds = whole.get("world", about["world"]), whole.get("seeds", about["seeds"])
            if world not in said()["worlds"]:
                raise SystemExit(f"study {study}, {name}: there is no world '{world}'")
            against = whole.get("against")
            where, _, other = (against or "").rpartition("/")
            if against is not None and other not in said()["studies"].get(where or study, {}).get("entries", ()):
                raise SystemExit(f"study {study}, {name}: there is no entry '{against}'")
            more = whole.get("plugin", about.get("plugin")), about.get("by_name", False), bool(whole.get("set"))
            found.append(Entry(study, name, whole["recipe"], world, tuple(assignments), tuple(seeds), against, *more))
    return found


def world_command(name: str) -> str:
    """The arguments of `vireid` that write a world, without its folder."""
    words = {f"--{key.replace('_', '-')}": value for key, value in said()["worlds"][name].items()}
    return " ".join(option if value is True else f"{option} {value}" for option, value in words.items())


def prepare(name: str, out: Path) -> Path:
    """Write a world, if it is not there."""
    folder = out / "worlds" / name
    if not folder.is_dir() or (folder / "UNFINISHED").exists():
        command = ["data", "synthesise", str(folder), *world_command(name).split()]
        subprocess.run([sys.executable, "-m", "vireid.cli.main", *command], check=True)
    return folder


def carry_out(entry: Entry, seed: int, out: Path) -> dict[str, Any]:
    """Train and test one configuration with one seed.

    Returns:
        What the file holds: recipe, assignments, world, commands, commit, hardware, epochs, seconds, processor seconds
        of the training (None if it was resumed), parameters, terms of the first and the last epoch, how well the
        training pictures are told apart, every protocol's report, and each query's result by `PROTOCOL`.
    """
    import torch

    if not (gpu := torch.cuda.is_available()):
        torch.set_num_threads(1)
    from vireid.data.stored import as_json
    from vireid.experiments.test import TestOptions, test
    from vireid.experiments.train import TrainOptions, train
    from vireid.model import load

    if entry.plugin:
        from vireid.plugins import plugin

        plugin(HERE / entry.plugin)
    more = f" --plugin studies/{entry.plugin}" if entry.plugin else ""
    data = f"sysu-mm01:{prepare(entry.world, out)}"
    directory = out / "runs" / entry.study / f"{entry.name.replace('/', '-')}-seed-{seed}"
    assignments = (*entry.set, f"seed={seed}")
    shown = f"--data sysu-mm01:worlds/{entry.world}"
    commands = [
        f"vireid data synthesise worlds/{entry.world} {world_command(entry.world)}",
        f"vireid train {entry.recipe} {shown} --run run --set {shlex.join(assignments)}{more}",
        f"vireid test run {shown}{more}",
    ]
    how: dict[str, Any] = {"workers": (os.cpu_count() or 2) - 1 if gpu else 0, "cache": out / "cache"}
    new, began = not directory.exists(), time.process_time()
    run = train(TrainOptions(entry.recipe, data, directory, set=assignments, resume=True, command=commands[1], **how))
    processor_seconds = round(time.process_time() - began) if new else None
    measured = test(TestOptions(directory, data, features=directory / "features.npz", command=commands[2], **how))
    epochs = run.epochs()
    model = load(run)
    facts = as_json(run.facts)
    return {
        "study": entry.study,
        "name": entry.name,
        "recipe": entry.recipe,
        "set": list(assignments),
        "seed": seed,
        "world": entry.world,
        "commands": commands,
        "git_commit": facts["git_commit"],
        "hardware": facts["hardware"],
        "versions": facts["versions"],
        "started": facts["started"],
        "epochs": len(epochs),
        "seconds": round(sum(line["seconds"] for line in epochs)),
        "processor_seconds": processor_seconds,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "terms": {"first": epochs[0]["terms"], "last": epochs[-1]["terms"]},
        "fitted": _fitted(model, data),
        "reports": [_short(one.report) for one in measured],
        "queries": _queries(directory / "features.npz", data),
    }


def _fitted(model: Any, data: str) -> dict[str, Any]:
    """How well a network knows its training people: on all their pictures, without augmentation, in evaluation mode.

    Returns:
        The number of people, and for each branch with logits the mean cross-entropy (nats; the logarithm of the number
        of people for a guess) and the share of pictures whose person has the largest logit.
    """
    import torch

    from vireid import datasets

    records = datasets.training_records(datasets.read(*datasets.parse_source(data)))
    labels, identities = records.labels()
    seen: dict[str, list[torch.Tensor]] = {}
    with torch.inference_mode():
        for samples, *inputs in batches(model, records):
            for name, (_, logits) in model.network.by_branch(*inputs).items():
                target = torch.from_numpy(labels[samples]).to(logits.device)
                loss = torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")
                seen.setdefault(name, []).append(torch.stack([loss, (logits.argmax(1) == target).float()]).cpu())
    means = {name: torch.cat(parts, 1).mean(1).tolist() for name, parts in seen.items()}
    branches = {
        name: {"identity": round(loss, 4), "accuracy": round(right, 4)} for name, (loss, right) in means.items()
    }
    return {"people": len(identities), "branches": branches}


def batches(model: Any, records: Any) -> Iterator[tuple[Any, Any, Any]]:
    """All pictures as a network takes them: (positions in the records, normalised images, modalities), on its device.

    The network is set to evaluation mode.
    """
    from vireid.augment.normalise import normalise
    from vireid.data.loading import inference_batches

    device = next(model.network.eval().parameters()).device
    for samples, images, modality in inference_batches(records.with_scaling(model.scaling), size=model.size):
        yield samples, normalise(images).to(device), modality.to(device)


def _short(report: Any) -> dict[str, Any]:
    """A report without its single draws."""
    values = report.to_json()
    return {key: values[key] for key in ("protocol", "rank1", "rank10", "rank20", "map", "minp", "std", "chance_rank1")}


def _queries(features: Path, data: str) -> dict[str, Any]:
    """Each query's identity, Rank-1 and average precision in percent, the mean over the draws of the protocol."""
    import numpy as np

    from vireid import datasets
    from vireid.data.protocol import draw_trials, parse_protocol
    from vireid.evaluation.scoring import Measured, evaluate

    records = datasets.read(*datasets.parse_source(data)).where(split="test")
    rules = parse_protocol(PROTOCOL)
    trials = draw_trials(rules, records.identity, records.camera, records.modality)
    with np.load(features) as stored:
        scores = evaluate(stored["features"], records.identity, rules, trials, Measured()).scores
    query = trials[0].query
    if any(not np.array_equal(trial.query, query) for trial in trials):
        raise ValueError(f"the draws of {PROTOCOL} have different queries")
    rank1 = np.mean([one.first == 1 for one in scores], axis=0) * 100
    precision = np.mean([one.precision for one in scores], axis=0) * 100
    return {
        "protocol": PROTOCOL,
        "identity": records.identity[query].tolist(),
        "rank1": [round(value, 1) for value in rank1.tolist()],
        "ap": [round(value, 2) for value in precision.tolist()],
    }


def run(asked: list[Entry], out: Path, jobs: int, minutes: float | None = None) -> int:
    """Make what is missing, each result in a process of its own. Returns how many failed.

    Args:
        asked: the entries.
        out: folder for worlds, runs and logs.
        jobs: processes at once.
        minutes: after these, what runs is interrupted; its last checkpoint is kept. None: no limit.
    """
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    missing = [(entry, seed) for entry in asked for seed in entry.seeds if not entry.file(seed).exists()]
    # The first seed of everything comes first: a table is there early, and becomes more exact later.
    missing.sort(key=lambda one: one[0].seeds.index(one[1]))
    for world in sorted({entry.world for entry, _ in missing}):
        prepare(world, out)
    print(f"{len(missing)} results are missing", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(lambda one: _in_a_process(*one, out, ends), missing))


def _in_a_process(entry: Entry, seed: int, out: Path, ends: float | None) -> int:
    """One result. Returns 1 if it failed; a result for which the time was too short has not failed."""
    began = time.monotonic()
    if ends is not None and began >= ends:
        return 0
    log = out / "logs" / f"{entry.study}-{entry.name.replace('/', '-')}-{seed}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "one", entry.study, entry.name, str(seed), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            failed = process.wait(None if ends is None else ends - began) != 0
            told = f"failed, see {log}" if failed else "done"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            failed, told = False, "stopped in time; the next call goes on"
    minutes = (time.monotonic() - began) / 60
    print(f"{entry.study}/{entry.name} seed {seed}: {told} ({minutes:.1f} min)", flush=True)
    return int(failed)


def main() -> int:
    """Read the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("verb", choices=("list", "run", "one"))
    asked.add_argument("which", nargs="*", metavar="STUDY", help="default: all; for `one`: STUDY ENTRY SEED")
    asked.add_argument("--out", type=Path, default=Path("study"), help="folder for worlds, runs and logs")
    asked.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time")
    asked.add_argument("--minutes", type=float, metavar="M", help="stop after so many minutes; default: no limit")
    options = asked.parse_args()
    options.out = options.out.resolve()
    os.chdir(HERE.parent)  # files of weights in study.yaml are relative to the repository
    everything = entries()
    if options.verb == "one":
        from vireid.data.stored import write_json

        study, name, seed = options.which
        (entry,) = [one for one in everything if (one.study, one.name) == (study, name)]
        found = carry_out(entry, int(seed), options.out)
        entry.file(int(seed)).parent.mkdir(parents=True, exist_ok=True)
        write_json(entry.file(int(seed)), found)
        return 0
    known = dict.fromkeys(one.study for one in everything)
    if strange := [study for study in options.which if study not in known]:
        asked.error(f"there is no study '{strange[0]}'; choices: {', '.join(known)}")
    named = options.which
    chosen = [one for one in everything if (one.study in named if named else not one.by_name)]
    if options.verb == "list":
        for one in chosen:
            done = sum(one.file(seed).exists() for seed in one.seeds)
            print(f"{one.study}/{one.name}: {done} of {len(one.seeds)} seeds")
        return 0
    return 2 if run(chosen, options.out, options.jobs, options.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
