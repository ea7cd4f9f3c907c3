"""Nothing damaged is believed: by the report, by a publication, and by a driver that looks what is finished."""

import json
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxnorm import Config, UserError, files, read_study
from jaxnorm.study.report.publish import publish
from jaxnorm.study.runs import agreement
from jaxnorm.study.runs.agreement import answers, unpacked
from jaxnorm.study.runs.workdir import Workdir
from tests.study.report.workdirs import edit, reseal, write_workdir

FILES = ("config.json", "provenance.json", "metrics.jsonl", "result.json", "predictions.npz", "manifest.json")
CONFIGS = [Config(norm=norm, seed=seed, num_epochs=3) for norm in ("bn", "gn") for seed in (0, 1)]
RUN = "bn-seed0"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("sound") / "w", norms=("bn", "gn"), seeds=(0, 1), num_epochs=3)


@pytest.fixture(scope="module")
def published(sound, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "p"
    publish(sound, folder)
    return folder


@pytest.fixture
def workdir(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "w")


def refusals(workdir, tmp_path):
    """What reading, publishing and training in a workdir say."""
    looks = (
        lambda: read_study(workdir),
        lambda: publish(workdir, tmp_path / "publication"),
        lambda: Workdir(workdir, "compare_norms").check(CONFIGS),
    )
    found = []
    for look in looks:
        with pytest.raises(UserError) as caught:
            look()
        found.append(str(caught.value))
    assert not [words for words in found if "\n" in words]
    assert not (tmp_path / "publication").exists()
    return found


def test_a_sound_workdir_is_believed(workdir, tmp_path):
    Workdir(workdir, "compare_norms").check(CONFIGS)
    assert set(publish(workdir, tmp_path / "publication").runs.status) == {"complete"}


@pytest.mark.parametrize("how", ["gone", "cut", "of another seed", "of another norm", "a folder"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_one_that_was_written_is_named(workdir, tmp_path, name, how):
    path = workdir / RUN / name
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes((workdir / ("bn-seed1" if "seed" in how else "gn-seed0") / name).read_bytes())
    for words in refusals(workdir, tmp_path):
        assert name in words


@pytest.mark.parametrize("other", ["bn-seed1", "gn-seed0"])
def test_folders_of_runs_that_were_exchanged_are_noticed(workdir, tmp_path, other):
    (workdir / RUN).rename(workdir / "x")
    (workdir / other).rename(workdir / RUN)
    (workdir / "x").rename(workdir / other)
    for words in refusals(workdir, tmp_path):
        assert f"{RUN}/manifest.json is damaged (it is of the run {other})" in words


def test_a_flipped_bit_anywhere_is_noticed(workdir):
    draw = random.Random(0)
    for path in (workdir / "study.json", *(workdir / RUN / name for name in FILES)):
        whole = path.read_bytes()
        for _ in range(20):
            content = bytearray(whole)
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
            with pytest.raises(UserError, match=path.name):
                read_study(workdir)
            with pytest.raises(UserError, match=path.name):
                Workdir(workdir, "compare_norms").check(CONFIGS)
        path.write_bytes(whole)


def test_metrics_that_lost_lines_are_noticed(workdir, tmp_path):
    path = workdir / RUN / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    for words in refusals(workdir, tmp_path):
        assert "metrics.jsonl" in words


@pytest.mark.parametrize("quantiles", [[], [0.1], [0.1] * 5, [0.1, 0.2, 0.3, "x"], [0.1, 0.2, 0.3, None], "abcd", 3])
def test_epochs_with_other_quantiles_are_refused_whatever_their_hash(workdir, tmp_path, quantiles):
    path = workdir / RUN / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["feature_quantiles"] = quantiles
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(workdir, RUN, "metrics.jsonl")
    for words in refusals(workdir, tmp_path):
        assert RUN in words


RESULT = [
    *(("accuracy", value) for value in (9.97, -1, True, "0.5", None, 10**400, [], {}, 0.5)),
    *(("loss", value) for value in (-1.0, True, "1", None, 10**400, 0.5)),
    *(("micro_f1", 0.5), ("macro_f1", 0.5), ("macro_f1", "x"), ("num_images", 361), ("num_images", True)),
    *(
        ("confusion_matrix", value)
        for value in ([[360]], [[1, 2], [3]], "x", None, [[-1] * 10] * 10, [[36.0] * 10] * 10)
    ),
]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("field", "value"), RESULT)
def test_an_evaluation_that_cannot_be_is_refused_whatever_its_hash(workdir, split, field, value):
    found = json.loads((workdir / RUN / "result.json").read_text())[split]
    if (split, field, value) == ("validation", "loss", 0.5):
        pytest.skip("it can be")
    edit(workdir, RUN, "result.json", **{split: found | {field: value}})
    with pytest.raises(UserError, match=RUN):
        read_study(workdir)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *(("result.json", {"seed": seed}) for seed in (1, False, "0", 0.5)),
        *(("result.json", {"status": status}) for status in ("diverged", "crashed", "odd", None)),
        *(("result.json", {"epoch": epoch}) for epoch in (2, 4, True, "3", None)),
        *(
            ("result.json", {name: 1})
            for name in ("norm", "num_epochs", "step", "seconds", "best_val_accuracy", "train")
        ),
        *(("result.json", {name: None}) for name in ("num_params", "best_val_epoch", "validation", "seconds")),
        *(("result.json", {"statistics": value}) for value in (3, {"precise": {"test": {"accuracy": 2, "loss": 1}}})),
        *(("config.json", {name: 64}) for name in ("batch_size", "num_epochs", "norm", "seed", "init", "tags")),
        ("provenance.json", {"data": {}}),
        ("provenance.json", {"data": 3}),
    ],
)
def test_files_that_do_not_agree_are_refused_whatever_their_hashes(workdir, name, changes):
    edit(workdir, RUN, name, **changes)
    with pytest.raises(UserError, match=RUN) as caught:
        read_study(workdir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["study.json", "runs.json", "epochs.csv", "predictions.npz"])
def test_a_flipped_bit_in_a_publication_is_noticed(published, tmp_path, name):
    folder, draw = shutil.copytree(published, tmp_path / "p"), random.Random(0)
    path = folder / name
    whole = path.read_bytes()
    for _ in range(20):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_study(folder)


@pytest.mark.parametrize(
    ("before", "after"),
    [('"seed":1', '"seed":0'), ('"status":"complete"', '"status":"diverged"'), ('"epoch":3', '"epoch":2')],
)
def test_runs_that_do_not_agree_are_refused_in_a_publication_whatever_their_hashes(published, tmp_path, before, after):
    folder = shutil.copytree(published, tmp_path / "p")
    text = (folder / "runs.json").read_text()
    assert before in text
    (folder / "runs.json").write_text(text.replace(before, after))
    reseal(folder)
    with pytest.raises(UserError, match=r"runs\.json"):
        read_study(folder)


def test_answers_are_those_of_the_logits():
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]], np.float32))
    label, predicted, confidence, likelihood = answers({"logits": logits, "label": np.array([0, 1, 0])})
    assert (label.tolist(), predicted.tolist()) == ([0, 1, 0], [0, 0, 0])
    assert confidence.tolist() == pytest.approx([0.8, 0.8, 0.6])
    assert likelihood.tolist() == pytest.approx(np.log([0.8, 0.2, 0.6]))


LOGITS = np.zeros((3, 10), np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"logits": LOGITS},
        *({"logits": LOGITS, "label": np.array(label)} for label in ([0, 1], [0, 1, 10], [0, 1, -1], [0.0, 1.0, 2.0])),
        {"logits": LOGITS[0], "label": np.array([0, 1, 2])},
        {"logits": LOGITS[:0], "label": np.array([], int)},
    ],
)
def test_arrays_that_are_no_answers_are_refused(arrays):
    with pytest.raises(UserError, match="predictions"), files.reading(Path("predictions.npz")):
        answers(arrays)


def packed(path, *, claims, content):
    """An archive of one array that claims to have so many numbers."""
    shape = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({claims},), }}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", b"\x93NUMPY\x01\x00v\x00" + shape.encode().ljust(117) + b"\n" + content)
    return path


def test_arrays_that_would_fill_the_memory_are_not_unpacked(tmp_path, monkeypatch):
    path = packed(tmp_path / "bomb.npz", claims=4, content=bytes(32))
    assert unpacked(path.read_bytes())["logits"].tolist() == [0, 0, 0, 0]
    for claims in (10**12, 10**30, -1):
        with pytest.raises(UserError, match="bomb"), files.reading(path):
            unpacked(packed(path, claims=claims, content=bytes(32)).read_bytes())
    monkeypatch.setattr(agreement, "MOST_UNPACKED", 2**20)
    with pytest.raises(UserError, match="bomb.npz is damaged .it unpacks to 1,048,704 bytes"), files.reading(path):
        unpacked(packed(path, claims=2**17, content=bytes(2**20)).read_bytes())
