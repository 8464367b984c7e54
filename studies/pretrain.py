"""Train the small trunk that the package contains (`weights=world`) on visible pictures of generated people.

    python studies/pretrain.py --out pretrain

The papers start from ImageNet weights. No such file exists for the trunk `tiny`, and this package contains no weights
that others trained. So the trunk learns from people of a world whose seed is reserved: `vireid data synthesise` refuses
it, so no generated data set contains one of these people. Only visible pictures are rendered. A recipe wants two
modalities, so the pictures of every second camera take the place of the infrared ones.

A second call goes on where the first one stopped. The last step writes `tiny.safetensors`: one stem and the stages in
half precision, with the facts about the training in its metadata.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save

from vireid.data.size import Size
from vireid.data.stored import write_text, writing
from vireid.experiments.train import TrainOptions, train
from vireid.model import load
from vireid.synthesis.world import PRETRAINING_SEEDS, World, render_person
from vireid.training.progress import Progress, Terminal
from vireid.training.run import Run

PEOPLE, CAMERAS, MOMENTS = 800, 8, 2
PICTURE = Size(192, 96)
VISIBLE = 0  # the modality that every picture is rendered in
SETTINGS = (
    "trunk=tiny",
    "weights=none",
    "size=128x64",
    "crop.padding=6",
    # One channel of a visible picture, copied into all three: colour alone does not name a person then.
    "exchange=ChannelExchange",
    "exchange.cases=rgb_unchanged_grey",
    "exchange_infrared=ChannelExchange",
    "exchange_infrared.cases=rgb_unchanged_grey",
    "erasing=RandomErasing",
    "non_local=null",
    "optimiser=Adam",
    "optimiser.lr=0.001",
    "epochs=60",
    "epoch_length=100",
    "schedule.warm_up_epochs=3",
    "schedule.milestones=[40,54]",
)


def main() -> None:
    """Render, train, and write the file."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, default=Path("pretrain"), help="folder for pictures, run and the file")
    asked.add_argument("--seed", type=int, default=PRETRAINING_SEEDS.start, help="a reserved seed of the world")
    asked.add_argument("--threads", type=int, help="threads of the training (default: torch's)")
    options = asked.parse_args()
    if options.seed not in PRETRAINING_SEEDS:
        asked.error(f"--seed is {options.seed}; reserved are {PRETRAINING_SEEDS.start} to {PRETRAINING_SEEDS.stop - 1}")
    if options.threads:
        torch.set_num_threads(options.threads)
    progress = Terminal()
    people = World(PEOPLE, seed=options.seed)
    table = write_pictures(options.out / "pictures", people, progress)
    run = train(
        TrainOptions(
            recipe="agw",
            data=f"folder:{table}",
            run=options.out / "run",
            set=SETTINGS,
            resume=True,
            cache=options.out / "cache",
            checkpoint_steps=100,
            command=f"python studies/pretrain.py --seed {options.seed}",
        ),
        progress,
    )
    file = write_trunk(options.out / "tiny.safetensors", run, people)
    print(f"{file}: {file.stat().st_size:,} bytes, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}")


def write_pictures(folder: Path, world: World, progress: Progress) -> Path:
    """Render each person with every camera, and write the table that the layout `folder` reads. It is written last."""
    table = folder / "records.csv"
    if table.exists():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool, progress.bar("rendering") as advance:
        work = [(folder, world, identity) for identity in range(world.identities)]
        for done, _ in enumerate(pool.imap_unordered(_write_person, work, chunksize=8), 1):
            advance(done, len(work))
    lines = []
    for identity in range(world.identities):
        for camera in range(1, CAMERAS + 1):
            modality = "visible" if camera % 2 else "infrared"  # in name only: see above
            lines += [
                (_name(identity, camera, moment), identity, camera, modality, "train") for moment in range(MOMENTS)
            ]
    with writing(table) as stream:
        stream.write(_as_csv([("path", "identity", "camera", "modality", "split"), *lines]).encode())
    return table


def _write_person(work: tuple[Path, World, int]) -> None:
    folder, world, identity = work
    for camera in range(1, CAMERAS + 1):
        for moment in range(MOMENTS):
            pixels = render_person(world, identity, camera=camera, modality=VISIBLE, moment=moment, size=PICTURE)
            Image.fromarray(pixels).save(folder / _name(identity, camera, moment), quality=90)


def _name(identity: int, camera: int, moment: int) -> str:
    return f"{identity:04d}_c{camera}_{moment}.jpg"


def _as_csv(lines: list[tuple]) -> str:
    import io

    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


def write_trunk(file: Path, run: Run, world: World) -> Path:
    """Write the stem of the visible modality and the stages, by torchvision's names, in half precision."""
    stems, stages = load(run).network.pretrained_parts()  # type: ignore[operator]
    state = {**stems[0].state_dict(), **stages.state_dict()}
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    facts = {
        "what": "trunk 'tiny' of vireid, trained on visible pictures of generated people only",
        "people": str(world.identities),
        "pictures": str(world.identities * CAMERAS * MOMENTS),
        "world_seed": str(world.seed),
        "steps": str(run.facts.config["epochs"] * run.facts.config["epoch_length"]),
        "settings": " ".join(SETTINGS),
        "git_commit": str(run.facts.git_commit),
        "licence": "as vireid",
    }
    content = save({key: value.half().contiguous() for key, value in state.items()}, facts)
    with writing(file) as stream:
        stream.write(content)
    write_text(file.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    return file


if __name__ == "__main__":
    main()
