import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from jaxnorm.errors import UserError
from jaxnorm.study.analysis import publication, report
from jaxnorm.study.analysis.arrays import find_arrays
from jaxnorm.study.analysis.publication import publish
from jaxnorm.study.analysis.report import write_report
from jaxnorm.study.analysis.runs import read_study
from jaxnorm.study.config import Config
from jaxnorm.study.runs.workdir import Workdir

FATES = {
    ("in", 0): ("unfinished", 7),
    ("bin", 0): ("missing", 0),
    ("none", 0): ("diverged", 3),
    ("ln", 0): ("crashed", 2),
}


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda study: ())


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_leftovers(workdir):
    """What a workdir holds besides: checkpoints, a damaged one, the lock, unfinished files, the words of a crash."""
    for run in workdir.glob("*-seed*"):
        for step in ("step_00000012", "damaged_step_00000024"):
            (run / "checkpoints" / step).mkdir(parents=True)
            (run / "checkpoints" / step / "manifest.json").write_text("{}")
        (run / "checkpoints.json").write_text('{"newest": 12}')
        (run / ".result.json.x.part").write_text("")
        (run / "crash.txt").write_text("Traceback")
    for name in (".lock", ".lock.holder"):
        (workdir / name).write_text("")
    return workdir


def test_a_publication_has_the_workdirs_report_and_nothing_of_how_it_was_made(make_workdir, tmp_path):
    workdir = with_leftovers(make_workdir(norms=("bn", "bin"), fates={("bn", 0): ("crashed", 3)}))
    before = content(workdir)
    folder = tmp_path / "results" / "quick"
    made = publish(workdir, folder)
    assert content(workdir) == before, "a workdir is only read"
    assert made.published == ("bn-seed0", "bin-seed0") and made.left_out == ()
    published = content(folder)
    assert made.num_bytes == sum(map(len, published.values()))
    assert not [name for name in published if "checkpoints" in name or "crash" in name or "/." in f"/{name}"]
    assert [path.name for path in folder.parent.iterdir()] == ["quick"]
    assert (folder.stat().st_mode, folder.parent.stat().st_mode) == (workdir.stat().st_mode, workdir.stat().st_mode)
    write_report(workdir)
    reported = content(workdir)
    predictions = "bin-seed0/predictions.npz"  # of the logits what the tables need: the same tables below
    assert len(published[predictions]) < len(reported[predictions]) / 2
    reported[predictions] = published[predictions]
    plan = published.pop("study.json")
    assert json.loads(plan) == {**json.loads(reported["study.json"]), "published": True}
    arrays = [find_arrays(folder / "bin-seed0"), find_arrays(workdir / "bin-seed0")]
    assert len(arrays[0]) > 1
    for packed, written in zip(*arrays, strict=True):
        assert (packed.epoch, packed.names) == (written.epoch, written.names)
        for name in written.names:
            kind, _, layer = name.partition("/")
            found, expected = packed.read(kind, layer)[layer], written.read(kind, layer)[layer]
            assert found.dtype == expected.dtype and np.array_equal(found, expected)
    reported["bin-seed0/arrays.npz"] = published["bin-seed0/arrays.npz"]
    assert {name: reported[name] for name in published} == published, "the same tables and figures"
    assert {"report.html", "figures/gate_paths.png", "bin-seed0/arrays.npz"} <= set(published)
    write_report(folder)
    again = {name: found for name, found in content(folder).items() if not name.endswith(".svg")}
    assert again == {**published, "study.json": plan}


def test_of_histograms_only_those_that_are_drawn_are_published(make_workdir, tmp_path):
    workdir = make_workdir(norms=("none", "bin"), num_epochs=5, record_features="all")
    publish(workdir, tmp_path / "published")
    write_report(workdir)
    for name in ("report.md", "report.html", "figures/layers.png", "figures/convolution_histograms.png"):
        assert (tmp_path / "published" / name).read_bytes() == (workdir / name).read_bytes()
    found, expected = (find_arrays(folder / "none-seed0") for folder in (tmp_path / "published", workdir))
    assert [len(one.layers("histogram")) for one in found] == [2, 0, 2, 0, 2]
    assert set(found[0].layers("histogram")) == {"stage3_block2/conv2", "pooled"}
    assert [one.layers("quantiles") for one in found] == [one.layers("quantiles") for one in expected]


def test_damage_to_published_arrays_is_one_line_that_names_the_file(make_workdir, tmp_path, without_figures):
    publish(make_workdir(norms=("bin",)), tmp_path / "published")
    path = tmp_path / "published" / "bin-seed0" / "arrays.npz"
    whole = dict(np.load(path))
    for damaged in (whole | {"epochs/gate": whole["epochs/gate"][:-1] + 90}, whole | {"gate/stem_norm": np.zeros(())}):
        np.savez(path, **damaged)
        with pytest.raises(UserError, match=r"arrays\.npz"):
            [one.read("gate") for one in find_arrays(path.parent)]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"arrays\.npz"):
        find_arrays(path.parent)


@pytest.mark.usefixtures("without_figures")
def test_only_finished_runs_are_published_and_the_others_are_told(make_workdir, tmp_path):
    workdir = make_workdir(fates=FATES)
    made = publish(workdir, tmp_path / "published")
    assert set(made.left_out) == {"in-seed0", "bin-seed0"}
    assert not (tmp_path / "published" / "in-seed0").exists()
    page = (tmp_path / "published" / "report.html").read_text()
    assert "unfinished, epoch 7 of 12 reached" in page, "as it was, though its files are not there"
    status = {run.norm: (run.status, run.epoch) for run in read_study(tmp_path / "published").runs}
    assert (status["in"], status["bin"]) == (("unfinished", 7), ("missing", None))
    assert (status["none"], status["ln"]) == (("diverged", 3), ("crashed", 2))


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_is_taken_up_again_meanwhile_is_left_out(make_workdir, tmp_path, monkeypatch):
    workdir = make_workdir(norms=("bn", "gn", "ln"))
    copy = publication._copy

    def meanwhile(source, target):
        copy(source, target)
        if source == workdir / "gn-seed0" / "metrics.jsonl":
            (workdir / "gn-seed0" / "result.json").unlink()
        if source == workdir / "ln-seed0" / "result.json":
            source.write_text(source.read_text().replace('"epoch": 12', '"epoch": 11'))

    monkeypatch.setattr(publication, "_copy", meanwhile)
    made = publish(workdir, tmp_path / "published")
    assert (made.published, made.left_out) == (("bn-seed0",), ("gn-seed0", "ln-seed0"))
    assert not (tmp_path / "published" / "ln-seed0").exists()


@pytest.mark.usefixtures("without_figures")
def test_an_earlier_publication_is_replaced_and_what_else_lies_there_stays(make_workdir, tmp_path):
    folder = tmp_path / "published"
    unfinished = make_workdir("early", norms=("bin", "gn"), fates={("gn", 0): ("unfinished", 2)})
    publish(unfinished, folder)
    (folder / "bin-seed0/arrays").mkdir()
    (folder / "bin-seed0/arrays/epoch_0099.npz").write_bytes(b"as an earlier version published them")
    (folder / "figures").mkdir()
    for name in ("accuracy.png", "mine.png"):
        (folder / "figures" / name).write_bytes(b"")
    (folder / "README.md").write_text("mine")
    publish(make_workdir("later", norms=("bin", "gn", "ln")), folder)
    assert [run.status for run in read_study(folder).runs] == ["complete"] * 3
    assert "left_out" not in json.loads((folder / "study.json").read_text())
    assert not (folder / "bin-seed0/arrays/epoch_0099.npz").exists()
    assert [path.name for path in (folder / "figures").iterdir()] == ["mine.png"]
    assert (folder / "README.md").read_text() == "mine"
    before = content(folder)
    with pytest.raises(UserError, match="lacks finished runs of ln-seed0; choose another folder"):
        publish(make_workdir("less", norms=("bin", "gn")), folder)
    with pytest.raises(UserError, match="holds the publication of another study .num_epochs: 12 -> 10"):
        publish(make_workdir("other", norms=("bin", "gn", "ln"), num_epochs=10), folder)
    assert content(folder) == before


@pytest.mark.usefixtures("without_figures")
def test_where_a_publication_may_not_go(make_workdir, tmp_path):
    workdir = make_workdir(norms=("bn",))
    other = with_leftovers(make_workdir("other", norms=("bn",)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for folder, words in [
        (workdir, "within each other"),
        (workdir / "published", "within each other"),
        (tmp_path, "within each other"),
        (workdir / "study.json", "within each other"),
        (other / "study.json", "study.json is a file"),
        (other / "study.json" / "x", "study.json is a file"),
        (tmp_path / "full", "holds other files .'thesis.tex'"),
        (other, "is a workdir with checkpoints"),
    ]:
        with pytest.raises(UserError, match=words):
            publish(workdir, folder)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder, words in [
        (tmp_path / "dangling", "dangling is a link to nothing"),
        (tmp_path / ("x" * 300), "must have a usable name, but .*File name too long"),
        (Path("/proc/x"), "/proc/x cannot be written"),
    ]:
        with pytest.raises(UserError, match=words):
            publish(workdir, folder)
    with pytest.raises(UserError, match="needs a finished run"):
        publish(make_workdir("none", norms=("bn",), fates={("bn", 0): ("unfinished", 3)}), tmp_path / "published")
    assert not (tmp_path / "published").exists()


@pytest.mark.usefixtures("without_figures")
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="a second file system is needed")
def test_a_folder_on_another_disk_is_filled_there(make_workdir, tmp_path):
    workdir = make_workdir(norms=("bn",))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "link").symlink_to(elsewhere)
        for _ in range(2):
            publish(workdir, tmp_path / "link")
            assert not list(Path(elsewhere).glob(".*"))
        assert read_study(Path(elsewhere)).runs[0].complete


@pytest.mark.usefixtures("without_figures")
def test_a_publication_is_no_place_to_train(make_workdir, tmp_path):
    publish(make_workdir(norms=("bn", "gn"), fates={("gn", 0): ("crashed", 3)}), tmp_path / "published")
    workdir = Workdir(tmp_path / "published", study="compare_norms")
    runs = {run.norm: run for run in read_study(workdir.path).runs}
    finished, crashed = (Config(norm=norm, num_epochs=runs[norm].num_epochs or 12) for norm in ("bn", "gn"))
    with pytest.raises(UserError, match="a publication has no checkpoints to go on from"):
        workdir.check([finished, crashed])


@pytest.mark.usefixtures("without_figures")
def test_a_workdir_from_before_paths_were_shortened_is_published_without_them(make_workdir, tmp_path, monkeypatch):
    workdir = make_workdir(norms=("bn",), command="python /home/someone/x.py '--data-dir=/home/someone/my data'")
    path = workdir / "bn-seed0" / "provenance.json"
    recorded = json.loads(path.read_text())
    recorded["data"]["source"] = "the binary files in /home/someone/data"
    path.write_text(json.dumps(recorded))
    monkeypatch.setenv("HOME", "/home/someone")
    publish(workdir, tmp_path / "published")
    assert not [name for name, found in content(tmp_path / "published").items() if b"/home/someone" in found]
    assert read_study(tmp_path / "published").command == "python ~/x.py --data-dir ~/'my data'"


def test_the_command_says_what_it_did_and_loads_no_jax(make_workdir, tmp_path):
    make_workdir("w", norms=("bn", "gn"), fates={("gn", 0): ("unfinished", 7)})
    program = (
        "import sys, jaxnorm.__main__ as main\n"
        "sys.argv = ['jaxnorm', 'publish', 'w', 'results/w']\n"
        "code = main.main()\n"
        "sys.exit(code or 'jax' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    options = dict(cwd=tmp_path, env={"PYTHONPATH": str(root), "COLUMNS": "100"}, capture_output=True, text=True)
    done = subprocess.run([sys.executable, "-c", program], **options)
    assert done.returncode == 0, done.stderr
    assert "Not finished, left out: gn-seed0\nPublished: 1 run, " in done.stdout
    assert done.stdout.endswith(" MB in all, results/w\n")


def test_what_the_project_publishes_may_be_published_again(tmp_path):
    results = Path(__file__).parents[3] / "results"
    for folder in results.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
        assert publication._earlier(tmp_path / folder.name, read_study(folder))
        assert not list(folder.rglob("checkpoints"))
    assert sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) < 20e6
