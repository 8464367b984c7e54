"""Which people of a data set a run was trained on."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.small import SECOND
from tests.training.facts import some_facts
from vireid import datasets
from vireid.data.records import Records, content_fingerprint
from vireid.experiments.train import TrainOptions, plan, train
from vireid.experiments.trained import trained_people
from vireid.training.run import DataFacts, Run, WeightsFacts, open_run


def facts_of(records: Records, **changes) -> DataFacts:
    """What a run that is trained on these records says of them."""
    people = np.unique(records.labelled().identity)
    facts = DataFacts(
        layout=records.layout,
        root=str(Path(records.root).resolve()),
        fingerprint=records.fingerprint(),
        fold=records.fold,
        identities=len(people),
        visible=0,
        infrared=0,
        generated=datasets.generated(records.root),
        content=content_fingerprint(records),
        people=tuple(people.tolist()),
    )
    return replace(facts, **changes)


def run_of(*data: DataFacts) -> Run:
    """A run that was trained on the last of these, and started from runs on those before."""
    weights = WeightsFacts("/w/last.pt", "0", "agw", data[:-1]) if data[:-1] else None
    return Run(Path("/run"), some_facts(data=data[-1], weights=weights))


def people_of(records: Records, *splits: str) -> list[int]:
    return np.unique(records.where(split=splits).labelled().identity).tolist()


def known(records: Records, *data: DataFacts) -> list[int]:
    found = trained_people(records, run_of(*data))
    assert found.unknown == ()
    return found.people.tolist()


def table(root: Path, name: str, splits: dict[str, str], pictures: dict[str, int] | None = None) -> Records:
    """A table of people with a few picture files each, in the folder of others."""
    lines = [["path", "identity", "camera", "modality", "split"]]
    for person, split in splits.items():
        for number in range((pictures or {}).get(person, 2)):
            file = root / f"{person}_{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{person} {number}".encode())
            lines.append([file.name, person, str(1 + number), ("visible", "infrared")[number % 2], split])
    with (root / name).open("w", newline="") as opened:
        csv.writer(opened).writerows(lines)
    return datasets.read("folder", root / name)


# --- what run.json records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_a_run_records_its_people_and_an_older_one_finds_them_in_the_data(layout, runs, worlds, tmp_path):
    records = datasets.read(layout, worlds[layout])
    trained = people_of(records, "train", *(["val"] if layout == "sysu-mm01" else []))
    run = open_run(runs[layout])
    assert list(run.facts.data.people) == trained and run.facts.data.identities == len(trained)
    older = shutil.copytree(runs[layout], tmp_path / "older")
    values = json.loads((older / "run.json").read_text())
    del values["data"]["people"]
    (older / "run.json").write_text(json.dumps(values))
    assert open_run(older).facts.data.people == ()
    for one in (run, open_run(older)):
        found = trained_people(records, one)
        assert found.people.tolist() == trained and found.unknown == ()
        assert not set(found.people) & set(people_of(records, "test"))


def test_people_who_are_held_out_are_not_trained_on(worlds, tmp_path):
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    records = datasets.read("sysu-mm01", worlds["sysu-mm01"])
    for every, splits in ((None, ("train", "val")), (1, ("train",))):
        asked = TrainOptions("agw", data, tmp_path / "new", set=SECOND, workers=0, validate_every=every)
        facts = plan(asked).facts
        assert list(facts.data.people) == people_of(records, *splits)
        for data_facts in (facts.data, replace(facts.data, people=())):
            assert known(records, data_facts) == people_of(records, *splits)


def test_unlabelled_pictures_are_nobody(tmp_path):
    records = table(tmp_path, "records.csv", {"1": "train", "2": "train", "-1": "train", "3": "test"})
    asked = TrainOptions("agw", f"folder:{tmp_path}", tmp_path / "run", set=SECOND, workers=0)
    facts = plan(asked).facts.data
    assert facts.people == (1, 2) and known(records, facts) == [1, 2]


def test_a_resumed_run_keeps_the_people_that_it_recorded(worlds, tmp_path):
    run = tmp_path / "run"
    began = train(
        TrainOptions("agw", f"llcm:{worlds['llcm']}", run, set=(*SECOND, "epochs=1", "epoch_length=1"), workers=0)
    )
    longer = train(TrainOptions(None, None, run, resume=True, extend=("epochs=2",), workers=0))
    assert longer.facts.data.people == began.facts.data.people != ()


# --- generated worlds -------------------------------------------------------------------------------------------------


def test_a_copy_of_a_world_has_the_same_people_and_another_world_has_others(runs, worlds, tmp_path):
    run = open_run(runs["llcm"])
    copy = datasets.read("llcm", shutil.copytree(worlds["llcm"], tmp_path / "copy"))
    assert trained_people(copy, run).people.tolist() == list(run.facts.data.people)
    other = shutil.copytree(worlds["llcm"], tmp_path / "other")
    records = datasets.read("llcm", other)
    for file in (records.file(n) for n in range(len(records))):  # the numbers are the same, and the pictures are not
        file.write_bytes(file.read_bytes() + b"x")
    found = trained_people(datasets.read("llcm", other), run)
    assert found.people.tolist() == [] and found.unknown == ()


def test_a_world_that_is_gone_may_have_had_these_people(runs, worlds):
    facts = replace(open_run(runs["llcm"]).facts.data, root="/gone", source="/gone", fingerprint="0")
    found = trained_people(datasets.read("llcm", worlds["llcm"]), run_of(facts))
    assert found.people.tolist() == []
    (sentence,) = found.unknown
    assert "trained on llcm (/gone), which is not there any more or was changed" in sentence


def test_a_generated_person_is_no_real_one(worlds, tmp_path):
    records = datasets.read("llcm", worlds["llcm"])
    gone = facts_of(records.where(split="train"), root="/gone", generated=False, fingerprint="0")
    assert known(records, gone) == []


# --- published data sets ----------------------------------------------------------------------------------------------


@pytest.fixture
def published(worlds, tmp_path):
    """Copies of the worlds that look like the published data sets."""

    def copy(layout: str, name: str = "real") -> Path:
        root = shutil.copytree(worlds[layout], tmp_path / name / layout)
        (root / datasets.GENERATED).unlink()
        return root

    return copy


def test_a_fold_knows_its_people_in_every_other_fold_wherever_they_are(published):
    root = published("regdb")
    folds = [datasets.read("regdb", root, fold=fold) for fold in (1, 2)]
    trained = people_of(folds[0], "train")
    there = facts_of(folds[0].where(split="train"))
    gone = replace(there, root="/gone", source="/gone")
    for facts in (there, gone, replace(gone, people=()), replace(gone, fingerprint="changed")):
        for records in folds:
            assert known(records, facts) == trained, facts
    tested = people_of(folds[1], "test")
    assert 0 < len(set(trained) & set(tested)) < len(tested)


def test_an_older_run_on_a_copy_that_was_changed_knows_all_training_people(published):
    records = datasets.read("sysu-mm01", published("sysu-mm01"))
    facts = facts_of(records.where(split="train"), root="/gone", fingerprint="0", people=())
    assert known(records, facts) == people_of(records, "train", "val")


def test_two_published_data_sets_share_nobody(published):
    facts = facts_of(datasets.read("llcm", published("llcm")).where(split="train"), root="/gone", fingerprint="0")
    assert known(datasets.read("sysu-mm01", published("sysu-mm01")), facts) == []


def test_the_runs_that_a_run_started_from_count_too(published):
    root = published("regdb")
    folds = [datasets.read("regdb", root, fold=fold) for fold in (1, 2)]
    data = [facts_of(one.where(split="train")) for one in folds]
    assert known(folds[1], *data) == sorted({*people_of(folds[0], "train"), *people_of(folds[1], "train")})


def test_weights_of_an_unknown_source_are_named(published):
    records = datasets.read("regdb", published("regdb"))
    facts = some_facts(data=facts_of(records.where(split="train")), weights=WeightsFacts("/w/agw.pth", "0", None, ()))
    found = trained_people(records, Run(Path("/run"), facts))
    assert found.people.tolist() == people_of(records, "train")
    assert found.unknown == ("started from the weights /w/agw.pth: whom they were trained on is not known",)


# --- own pictures -----------------------------------------------------------------------------------------------------


def test_a_person_in_two_splits_was_trained_on_with_names_too(tmp_path):
    root = tmp_path / "yard"
    records = table(root, "records.csv", {"anna": "train", "ben": "test", "cleo": "test"})
    lines = (root / "records.csv").read_text().replace("anna_1.png,anna,2,infrared,train", "anna_1.png,anna,2,ir,test")
    (root / "records.csv").write_text(lines)
    records = datasets.read("folder", root)
    assert known(records, facts_of(records.where(split="train"))) == people_of(records, "train") == [0]


def test_two_tables_of_one_folder_share_numbers_but_not_names(tmp_path):
    root = tmp_path / "yard"
    one = table(root, "one.csv", {"5": "train", "6": "train", "7": "test"})
    facts = facts_of(one.where(split="train"), source=str(root / "one.csv"))
    two = table(root, "two.csv", {"6": "test", "7": "test", "8": "test"}, {"6": 3})
    assert known(two, facts) == [6]
    # Other pictures of a training person: only the number tells.
    lines = [line for line in (root / "two.csv").read_text().splitlines() if not line.startswith(("6_0", "6_1"))]
    (root / "two.csv").write_text("\n".join(lines) + "\n")
    assert known(datasets.read("folder", root / "two.csv"), facts) == [6]
    (root / "one.csv").unlink()
    assert known(datasets.read("folder", root / "two.csv"), facts) == [6]
    named = table(root, "named.csv", {"anna": "train", "ben": "test"})
    other = table(root, "other.csv", {"ben": "test", "cleo": "test"})  # ben is 0 here, and anna was
    assert known(other, facts_of(named.where(split="train"), source=str(root / "named.csv"))) == []
    (root / "named.csv").unlink()
    gone = trained_people(other, run_of(facts_of(named.where(split="train"), source=str(root / "named.csv"))))
    assert gone.people.tolist() == [] and len(gone.unknown) == 1


def test_pictures_of_a_data_set_that_a_table_names_are_found(published, tmp_path):
    root = published("llcm")
    records = datasets.read("llcm", root)
    person = people_of(records, "train")[0]
    chosen = records.take(np.flatnonzero(records.identity == person)[:2])
    lines = ["path,identity,camera,modality", *(f"{chosen.file(n)},maria,1,visible" for n in range(2))]
    (tmp_path / "mine.csv").write_text("\n".join([*lines, f"{records.file(len(records) - 1)},otto,1,ir"]) + "\n")
    mine = datasets.read("folder", tmp_path / "mine.csv")
    assert known(mine, facts_of(records.where(split="train"))) == [0]


def test_a_table_that_got_new_test_people_is_still_the_same(tmp_path):
    root = tmp_path / "yard"
    before = table(root, "records.csv", {"1": "train", "2": "train", "3": "test"})
    facts = facts_of(before.where(split="train"))
    after = table(root, "records.csv", {"1": "train", "2": "train", "3": "test", "4": "test"})
    assert known(after, facts) == [1, 2]
    changed = table(root, "records.csv", {"1": "train", "9": "train", "2": "test", "4": "test"})
    assert known(changed, facts) == [1, 2]  # the training pictures are others now; the recorded numbers tell
    found = trained_people(changed, run_of(replace(facts, people=())))
    assert found.people.tolist() == [] and len(found.unknown) == 1
