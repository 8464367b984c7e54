"""The user's mistakes: one sentence that names the thing and the choices, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.small import SECOND
from vireid.cli.main import SECTIONS, main, parser

WORLD, RUN, EMPTY, TEXT, BROKEN, NAN = "<world>", "<run>", "<empty>", "<text>", "<broken>", "<nan>"
TRAIN = ["train", "agw", "--data", f"sysu-mm01:{WORLD}", "--run", "new", "--workers", "0"]

MATRIX = {
    "no verb of that name": (["trian"], ["'trian'", "did you mean 'train'"]),
    "an unknown option": (["train", "agw", "--dat", "x"], ["--data"]),
    "a missing option": (["train", "agw"], ["--data", "--run"]),
    "an unknown recipe": (["train", "awg", *TRAIN[2:]], ["unknown recipe 'awg'", "agw"]),
    "an unknown row": (["train", "agw:table9", *TRAIN[2:]], ["unknown row of agw 'table9'", "channel-augmentation"]),
    "an unknown field": ([*TRAIN, "--set", "epoch=3"], ["unknown field 'epoch'", "did you mean 'epochs'"]),
    "a value of the wrong type": ([*TRAIN, "--set", "epochs=many"], ["'epochs'", "'many'", "whole number"]),
    "a value out of range": ([*TRAIN, "--set", "epochs=0"], ["'epochs' cannot be '0'", "1 or more"]),
    "an unknown trunk": ([*TRAIN, "--set", "trunk=vgg"], ["'trunk'", "resnet50"]),
    "half precision without a GPU": ([*TRAIN, "--set", *SECOND, "precision=fp16"], ["fp16", "GPU"]),
    "weights that are not there": ([*TRAIN, "--set", *SECOND, "weights=no.pth"], ["no.pth", "imagenet"]),
    "weights of a directory without a run": ([*TRAIN, "--set", *SECOND, f"weights={EMPTY}"], [EMPTY, "run.json"]),
    "weights of a run that is broken": ([*TRAIN, "--set", *SECOND, f"weights={BROKEN}"], ["last.pt", "not a vireid"]),
    "weights of a best epoch that there is not": ([*TRAIN, "--set", *SECOND, f"weights={RUN}/best.pt"], ["best.pt"]),
    "weights of a run with other parts": (
        [*TRAIN, "--set", *SECOND, f"weights={RUN}", "non_local=null"], ["non_local=half instead of null"],
    ),
    "weights that are text": ([*TRAIN, "--set", *SECOND, f"weights={TEXT}"], ["not a"]),
    "ImageNet weights for the tiny trunk": ([*TRAIN, "--set", *SECOND, "weights=imagenet"], ["'tiny'", "none"]),
    "a file of settings that is not there": ([*TRAIN, "--config", "no.yaml"], ["no.yaml", "No such file"]),
    "a file of settings that is none": ([*TRAIN, "--config", TEXT], [TEXT, "FIELD: VALUE", "--yaml"]),
    "a value that is empty": ([*TRAIN, "--set", "gradient_clip="], ["'gradient_clip='", "no value", "null"]),
    "nothing to go on with": (["train", "--resume", "--run", EMPTY], ["RECIPE", EMPTY, "no run"]),
    "an extension without a run": ([*TRAIN, "--extend", "epochs=9"], ["--extend", "--resume"]),
    "an extension of something else": (
        ["train", "--resume", "--run", RUN, "--extend", "seed=3"], ["'seed=3'", "only epochs=N"],
    ),
    "an extension to fewer epochs": (
        ["train", "--resume", "--run", RUN, "--extend", "epochs=1"], ["2 epochs already", "larger"],
    ),
    "the plan of a training as a file": ([*TRAIN, "--json", "plan.json"], ["--json needs --dry-run"]),
    "help on an unknown recipe": (["train", "--help", "awg"], ["unknown recipe 'awg'", "agw"]),
    "a shift out of the picture": (
        [*TRAIN, "--set", *SECOND, "crop.padding=99"], ["crop.padding is 99", "64x32", "0 to 31"],
    ),
    "more identities than there are": (
        [*TRAIN, "--set", *SECOND, "identities_per_batch=99"], ["99", "identities"],
    ),
    "a source without a layout": (["train", "agw", "--data", "x", "--run", "new"], ["LAYOUT:PATH", "regdb"]),
    "an unknown layout": (["data", "check", "sysu:x"], ["unknown layout 'sysu'", "sysu-mm01"]),
    "a directory that is not there": (["data", "check", "regdb:nowhere"], ["nowhere"]),
    "an empty directory": (["data", "check", f"llcm:{EMPTY}"], [EMPTY]),
    "another layout than that": (["data", "check", f"regdb:{WORLD}"], ["sysu-mm01"]),
    "a fold out of range": (["data", "check", f"regdb:{WORLD}", "--fold", "11"], ["11", "1 to 10"]),
    "a run that is there already": (
        ["train", "agw", "--data", f"sysu-mm01:{WORLD}", "--run", RUN, "--set", *SECOND], ["--resume"],
    ),
    "resuming with other fields": (
        ["train", "agw", "--data", f"sysu-mm01:{WORLD}", "--run", RUN, "--resume", "--set", *SECOND, "seed=5"],
        ["seed", "--resume"],
    ),
    "no run": (["test", EMPTY, "--data", f"sysu-mm01:{WORLD}"], ["run.json"]),
    "a checkpoint that is none": (["test", BROKEN, "--data", f"sysu-mm01:{WORLD}"], ["last.pt", "not a vireid"]),
    "an unknown protocol": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--protocol", "sysu-mm01/all/singel"], ["sysu-mm01/all/single"],
    ),
    "a protocol of another layout": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--protocol", "regdb/v2i"], ["regdb", "sysu-mm01"],
    ),
    "a plug-in that is not there": (["rows", "--plugin", "no_recipe.py"], ["plug-in no_recipe.py", "No such file"]),
    "a plug-in that is no Python file": (["rows", "--plugin", TEXT], ["text.pth", "my_recipe.py"]),
    "a plug-in without a name": (["rows", "--plugin"], ["--plugin", "expected one argument"]),
    "an augmentation that there is not": (["train", "agw+fog", *TRAIN[2:]], ["unknown augmentation 'fog'", "(none)"]),
    "lists that are not there": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--protocol", "lists:no.yaml"], ["no.yaml cannot be read"],
    ),
    "lists that are text": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--protocol", f"lists:{TEXT}"], ["text.pth", "query and gallery"],
    ),
    "the official draw without its file": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--protocol", "sysu-mm01/all/single@official"], ["rand_perm_cam"],
    ),
    "features that are not there": (["score", "no.npz", "--protocol", "regdb/v2i"], ["no.npz"]),
    "features that are text": (["score", TEXT, "--protocol", "regdb/v2i"], ["features"]),
    "NaN in features": (["score", NAN, "--protocol", "regdb/v2i"], ["sample 1", "NaN"]),
    "rows of a folder that is not there": (["rows", "agw", "--runs", f"{EMPTY}/none"], ["--runs", "none", "folder"]),
    "a JSON file in no folder": (["rows", "--json", f"{EMPTY}/no/rows.json"], ["--json", "rows.json", "no folder"]),
    "a JSON file that is a folder": (["fields", "agw", "--json", EMPTY], ["--json", "it is a folder"]),
    "features in no folder": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--features", "no/f.npz"], ["--features", "no folder"],
    ),
    "a breakdown in no folder": (
        ["test", RUN, "--data", f"sysu-mm01:{WORLD}", "--breakdown", "no/b.json"], ["--breakdown", "no folder"],
    ),
    "pictures of no modality": (["embed", RUN, WORLD, "--out", "f.npz"], [WORLD, "modality", "infrared"]),
    "pictures of an unknown modality": (
        ["embed", RUN, WORLD, "--out", "f.npz", "--modality", "infrarot"], ["'infrarot'", "did you mean 'infrared'"],
    ),
    "pictures that are text": (
        ["embed", RUN, TEXT, "--out", "f.npz", "--modality", "ir"], [TEXT, "columns path"],
    ),
    "pictures in an empty folder": (["embed", RUN, EMPTY, "--out", "f.npz", "--modality", "ir"], [EMPTY, "empty"]),
    "features of no kind": (["embed", RUN, WORLD, "--out", "f.csv", "--modality", "ir"], ["'.csv'", ".npz, .parquet"]),
    "features of pictures in no folder": (
        ["embed", RUN, WORLD, "--out", "no/f.npz", "--modality", "ir"], ["--out", "no folder"],
    ),
    "a best checkpoint that was not kept": (
        ["embed", RUN, WORLD, "--out", "f.npz", "--modality", "ir", "--checkpoint", "best"], ["best.pt", "last"],
    ),
    "no pictures at once": (
        ["embed", RUN, WORLD, "--out", "f.npz", "--modality", "ir", "--batch", "0"], ["batch", "1 or more"],
    ),
    "a page in no folder": (["report", RUN, "--out", "no/page.html"], ["--out", "no folder"]),
    "an unknown table": (
        ["reproduce", "agw", "table77", "--data", f"sysu-mm01:{WORLD}"], ["table77", "sysu-mm01"],
    ),
    "a table in no folder": (["rows", "agw", "--out", "no/t.csv"], ["--out", "no folder"]),
    "a table of an unknown ending": (["rows", "agw", "--out", "t.xlsx"], ["t.xlsx", "--format", ".csv"]),
    "a format that is none": (["rows", "agw", "--format", "latx"], ["'latx'", "did you mean 'latex'"]),
    "a sweep over nothing": (
        ["sweep", "agw", "--data", f"sysu-mm01:{WORLD}", "--runs", "new", "--over", "epochs"], ["FIELD=VALUE"],
    ),
    "a sweep over an unknown field": (
        ["sweep", "agw", "--data", f"sysu-mm01:{WORLD}", "--runs", "new", "--over", "epoch=1,2"],
        ["unknown field 'epoch'", "did you mean 'epochs'"],
    ),
    "a sweep by a protocol of another layout": (
        ["sweep", "agw", "--data", f"sysu-mm01:{WORLD}", "--runs", "new", "--over", "seed=0", "--protocol", "regdb"],
        ["regdb/v2i", "sysu-mm01"],
    ),
    "a sweep of no jobs": (
        ["sweep", "agw", "--data", f"sysu-mm01:{WORLD}", "--runs", "new", "--over", "seed=0", "--jobs", "0"], ["jobs"],
    ),
    "a size that is none": (["cost", "agw", "--size", "big"], ["'big'", "HEIGHTxWIDTH"]),
    "a split of pictures that are not there": (["data", "split", "no.csv", "--out", "new.csv"], ["no.csv", "exist"]),
    "a split without its table": (["data", "split", EMPTY], ["--out"]),
    "a share out of range": (
        ["data", "split", EMPTY, "--out", "new.csv", "--val", "7"], ["val cannot be 7.0", "from 0 to 1"],
    ),
    "a split into a folder": (["data", "split", EMPTY, "--out", EMPTY], ["--out", "it is a folder"]),
    "a world of nobody": (["data", "synthesise", "w", "--layout", "regdb", "--identities", "0"], ["identities", "0"]),
    "a difficulty out of range": (
        ["data", "synthesise", "w", "--layout", "regdb", "--difficulty", "7"], ["difficulty", "0 to 1"],
    ),
    "a report of an untested run": (["report", BROKEN], ["vireid test"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(worlds, runs, tmp_path_factory):
    """What the placeholders of the matrix stand for."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "empty").mkdir()
    (folder / "text.pth").write_text("not a checkpoint, not features")
    broken = folder / "broken"
    broken.mkdir()
    (broken / "run.json").write_text((runs["sysu-mm01"] / "run.json").read_text())
    (broken / "last.pt").write_bytes((runs["sysu-mm01"] / "last.pt").read_bytes()[:5000])
    features = np.ones((4, 3), dtype=np.float32)
    features[1, 2] = np.nan
    np.savez(folder / "nan.npz", features=features, identity=[1, 2, 1, 2], camera=[1, 1, 2, 2], modality=[0, 0, 1, 1])
    return {
        WORLD: worlds["sysu-mm01"],
        RUN: runs["sysu-mm01"],
        EMPTY: folder / "empty",
        TEXT: folder / "text.pth",
        BROKEN: broken,
        NAN: folder / "nan.npz",
    }


@pytest.mark.parametrize("mistake", MATRIX)
def test_a_mistake_is_one_sentence_and_exit_code_2(mistake, places, tmp_path, monkeypatch, capsys):
    arguments, words = MATRIX[mistake]
    monkeypatch.chdir(tmp_path)

    def filled(text: str) -> str:
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text

    before = (places[RUN] / "last.pt").read_bytes()
    assert main([filled(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    sentences = [line for line in error.splitlines() if line.startswith("vireid: ")]
    assert len(sentences) == 1 and error.rstrip().endswith(sentences[0]), error
    assert "Traceback" not in error
    assert all(filled(word) in sentences[0] for word in words), sentences[0]
    assert (places[RUN] / "last.pt").read_bytes() == before


def test_testing_on_another_regdb_fold_is_refused_with_the_reason(runs, worlds, capsys):
    assert main(["test", str(runs["regdb"]), "--data", f"regdb:{worlds['regdb']}", "--fold", "2"]) == 2
    error = capsys.readouterr().err
    assert "trained on fold 1" in error and "inflate" in error and "--fold 2" in error


def test_an_unreadable_picture_stops_training_by_name_and_is_skipped_only_when_asked(worlds, tmp_path, capsys):
    import shutil

    world = tmp_path / "world"
    shutil.copytree(worlds["sysu-mm01"], world)
    first = (world / "exp" / "train_id.txt").read_text().split(",")[0].strip()
    victims = sorted((world / "cam1" / f"{int(first):04d}").iterdir())
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:200])
    arguments = ["train", "agw", "--data", f"sysu-mm01:{world}", "--workers", "0", "--set", *SECOND, "epoch_length=30"]
    assert main([*arguments, "--run", str(tmp_path / "stops")]) == 2
    error = capsys.readouterr().err
    assert any(str(victim) in error for victim in victims)
    assert main([*arguments, "--run", str(tmp_path / "skips"), "--skip-unreadable"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped, cannot be read: ")]
    assert said and all(any(line.endswith(victim.name) for victim in victims) for line in said)


@pytest.mark.process
def test_the_installed_program_exits_with_2_and_starts_quickly_enough_to_help():
    done = subprocess.run([sys.executable, "-m", "vireid.cli.main", "train", "agw"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
    code = (
        "import sys; from vireid.cli.main import main; main([]); sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def leaves(top, path=()):
    """(words of the command, its parser) of every verb, the verbs below `data` included."""
    below = [action for action in top._actions if isinstance(action.choices, dict)]
    if not below:
        yield path, top
    for name, inner in (below[0].choices if below else {}).items():
        yield from leaves(inner, (*path, name))


def test_the_help_of_every_verb_explains_every_option(capsys):
    commands = dict(leaves(parser()))
    told = {verb for verbs in SECTIONS.values() for verb in verbs}
    assert {path[0] for path in commands} == told | {"trials"}  # the old name of `folds`
    for path, own in commands.items():
        unexplained = [action.dest for action in own._actions if not action.help]
        assert not unexplained, f"{' '.join(path)}: say what these do: {unexplained}"
        with pytest.raises(SystemExit) as end:
            main([*path, "--help"])
        printed = " ".join(capsys.readouterr().out.split())
        assert end.value.code == 0 and printed.startswith(f"usage: {own.prog} ")
        for action in own._actions:
            assert " ".join((action.help % vars(action)).split())[:20] in printed, (path, action.dest)


JSON_VERBS = {
    "data check": [f"sysu-mm01:{WORLD}"],
    "test": [RUN, "--data", f"sysu-mm01:{WORLD}"],
    "score": [NAN, "--protocol", "regdb/v2i"],
    "embed": [RUN, WORLD, "--out", "f.npz", "--modality", "ir"],
    "fields": ["agw"],
    "rows": ["agw"],
    "cost": ["agw"],
    "folds": ["agw", "--data", f"regdb:{WORLD}", "--runs", "new"],
    "reproduce": ["agw", "--data", f"regdb:{WORLD}", "--runs", "new"],
    "sweep": ["agw", "--data", f"sysu-mm01:{WORLD}", "--runs", "new", "--over", "seed=0"],
}


@pytest.mark.parametrize("verb", JSON_VERBS)
def test_a_file_in_a_folder_that_is_not_there_is_refused_before_the_work(verb, places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reports = sorted(places[RUN].glob("reports/*"))
    arguments = list(JSON_VERBS[verb])
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    assert main([*verb.split(), *arguments, "--json", "no/x.json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "--json: cannot write no/x.json: there is no folder" in printed.err
    assert sorted(places[RUN].glob("reports/*")) == reports and not list(tmp_path.iterdir())


# Without a buffer, Python loses what a short write leaves over, and argparse passes over a closed pipe.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
PRINTING = [["--help"], ["--version"], ["rows", "--cited"]]


@pytest.mark.process
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_closes_the_pipe_ends_the_program_quietly(arguments, tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vireid.cli.main", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=BUFFERED)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.process
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_below_the_output_is_one_sentence(arguments, tmp_path):
    """No file may grow beyond ten bytes, which stops writing as a full disk does."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    command = [sys.executable, "-B", "-m", "vireid.cli.main", *arguments]
    with open(tmp_path / "out", "w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=limit, env=BUFFERED
        )
    assert done.returncode == 2
    assert done.stderr == "vireid: cannot write the output: File too large\n"


@pytest.mark.process
def test_a_broken_pipe_that_is_not_the_output_is_our_mistake(tmp_path):
    program = (
        "import sys; from vireid.cli import main, settings\n"
        "def fail(options): raise BrokenPipeError(32, 'Broken pipe')\n"
        "settings.run_fields = fail\n"
        "sys.exit(main.main(['fields', 'agw']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr
