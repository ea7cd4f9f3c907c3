"""Damaged files of a workdir or a publication: refused in one line, or read with the numbers that were written."""

import collections
import inspect
import io
import json
import os
import random
import resource
import shutil
import signal
import zipfile

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxnorm import Config, UserError, files, read_study
from jaxnorm.study.data import load_dataset
from jaxnorm.study.report import accuracy_figures, feature_figures, figures
from jaxnorm.study.report.publish import publish
from jaxnorm.study.report.summary import summary_csv
from jaxnorm.study.report.write import write_report
from jaxnorm.study.runs import agreement
from jaxnorm.study.runs.manifest import entry, sealed
from jaxnorm.study.runs.study import outcome, steps_left, unfinished
from jaxnorm.study.runs.workdir import Workdir
from tests.study.report.workdirs import DIGITS, provenance_of, write_workdir

CONFIGS = [Config(norm=norm, num_epochs=2) for norm in ("bin", "gn")]
STATE = {"step": np.int32(1077 // 32), "weight": np.arange(3, dtype=np.float32)}
NUMBERS = [0, -1, True, 0.5, 9.97, 10**400, 2**63, -(2**70), 1e308, 1e-320]
TEXTS = ["", "0.5", "..", ".", "/", "a/b", "../../x", "n" * 300, "\0", "\x1b[2J", "é", "\u202e", "<b>", "[red]", "bn"]
VALUES = [*NUMBERS, *TEXTS, None, [], {}, [[]], {"a": {}}, [1, [2]], list(range(50)), ["bn"] * 2, [None]]
LITERALS = ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, "[" * 10**5, '{"a":' * 10**5, '"\\ud800"', "", "{}}"]
SHAPES = [(), (0,), (3,), (360, 10), (360, 11), (360, 1), (1, 360, 10), (2, 0), (10**6, 0)]
SUFFIXES = (".json", ".jsonl", ".npz", ".csv", ".txt")
DTYPES = ["<f8", "<f4", "<f2", "<i8", "|u1", "|b1", "<U3", "|S2", "<c8", "<M8[s]", "<f4,<i4"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A workdir with a finished and a stopped run, and its publication."""
    folder = tmp_path_factory.mktemp("sound")
    write_workdir(folder / "w", norms=("bin", "gn"), fates={("gn", 0): ("unfinished", 1)}, num_epochs=2)
    Workdir(folder / "w", "compare_norms").directory(CONFIGS[1]).save(STATE, 1.0)
    publish(folder / "w", folder / "p")
    return folder


# Ways to damage a file. Each is given the content of the file, and returns another one.


def flip(content, draw):
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 8])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def flip_end(content, draw):
    """There is the folder of a zip file."""
    start = len(content) - min(len(content), 300)
    return content[:start] + flip(content[start:], draw)


def cut(content, draw):
    return content[: draw.randrange(len(content))]


def grow(content, draw):
    return content + draw.choice([b"\0", b"\n", b"{}", content, draw.randbytes(50)])


def garbage(_, draw):
    return draw.randbytes(draw.randrange(60))


def exchange(content, draw):
    """Another JSON value in any place of an object, or of an object in a line."""
    lines = content.splitlines(keepends=True)
    try:
        place = slice(None) if draw.random() < 0.3 else (lambda n: slice(n, n + 1))(draw.randrange(len(lines)))
        found = json.loads(b"".join(lines[place]))
    except ValueError:
        place, found = slice(None), json.loads(lines[0] if b"}\n{" in content else content)
    literal = draw.choice(LITERALS) if draw.random() < 0.3 else None
    text = json.dumps(exchanged(found, "@@" if literal is not None else draw.choice(VALUES), draw))
    text = text if literal is None else text.replace('"@@"', literal)
    lines[place] = [text.encode("utf-8", "surrogatepass") + b"\n"]
    return b"".join(lines)


def exchanged(found, value, draw):
    if not found or not isinstance(found, dict | list) or draw.random() < 0.1:
        return value
    if draw.random() < 0.15:  # doubled, gone or added
        if isinstance(found, list):
            place = draw.randrange(len(found))
            return draw.choice([found[:place], found[place + 1 :], [*found, found[place]], [*found, value]])
        key = draw.choice(list(found))
        return {name: one for name, one in found.items() if name != key} | draw.choice([{}, {"x": value}])
    key = draw.choice(list(found) if isinstance(found, dict) else range(len(found)))
    found[key] = exchanged(found[key], value, draw)
    return found


def arrays(content, draw):
    """Arrays of other types and shapes, under other names, or claims of them."""
    with np.load(io.BytesIO(content)) as archive:
        found = dict(archive)
    name, packed = draw.choice(list(found)), io.BytesIO()
    change = draw.randrange(8)
    if change == 0:
        found[draw.choice(["x", "../x", "gate/", "n" * 300, "bin-seed0/gate/x"])] = found.pop(name)
    elif change == 1:
        found[name] = np.nan_to_num(found[name]).astype(draw.choice(["<f2", "<i8", "<U3"]) if name != "run" else "S2")
    elif change == 2:
        found[name] = np.full_like(found[name], draw.choice([np.nan, np.inf, 7]), dtype=float)
    elif change == 3:
        found[name] = found[name][..., :-1]
    else:
        found[name] = np.zeros(draw.choice(SHAPES), draw.choice(DTYPES))
    np.savez_compressed(packed, **found)
    if change < 7:
        return packed.getvalue()
    with zipfile.ZipFile(packed, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        shape = draw.choice([f"({10**12},)", f"({10**30},)", "(-1,)", "(1e9,)", f"({2**22},)", "(" * 5000, "()" * 9])
        head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(2**25))
    return packed.getvalue()


def place(path, draw):
    """Something that is no file where one is expected."""
    path.unlink()
    kind = draw.choice(["gone", "folder", "fifo", "/dev/zero", "/dev/full", "/dev/stdin", path.name, "nowhere"])
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "gone":
        path.symlink_to(kind)


def damage(path, draw):
    """Damages a file in a random way."""
    ways = [flip, cut, grow, garbage, place] + [exchange] * 6 * (path.suffix in (".json", ".jsonl"))
    ways += [flip_end, arrays, arrays, arrays] * (path.suffix == ".npz")
    way, content = draw.choice(ways), path.read_bytes()
    if way is place:
        place(path, draw)
    else:
        path.write_bytes(way(content, draw) if content else b"{}")


def reseal(path):
    """Makes the hashes beside a file, and above it, those of the file, as far as it can be read."""
    for folder in path.parents:
        manifest = next((folder / name for name in ("manifest.json", "study.json") if (folder / name).is_file()), None)
        if manifest is not None:
            break
    name = path.relative_to(folder).as_posix()
    try:
        content = files.read_json(manifest)
        del content["sha256"]
        if path != manifest and name in content["files"]:
            content["files"][name] = entry(files.read_bytes(path))
        files.write_json(manifest, sealed(content))
    except (UserError, ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError):
        return


# Ways to use a damaged folder.


def read(folder):
    study = read_study(folder)
    for run in study.finished.name:
        study.predictions(run)
    assert not study.layers.shape[0] and study.histograms.shape[0] >= 0
    return summary_csv(study) + study.gates.to_csv()


def report(folder):
    return summary_csv(write_report(folder))


def published(folder):
    publish(folder, folder.parent / "new")
    return summary_csv(read_study(folder.parent / "new"))


def resume(folder):
    """What a driver does before it trains, and the beginning of training."""
    workdir, digits = Workdir(folder, "compare_norms"), load_dataset("digits")
    workdir.check(CONFIGS)
    now = provenance_of(None, DIGITS, "x")
    workdir.check_surroundings(CONFIGS, now)
    todo = unfinished(CONFIGS, workdir)
    steps_left(todo, digits, workdir)
    workdir.describe(CONFIGS, preset="quick", command="python x.py")
    for config in todo:
        run = workdir.directory(config)
        run.begin(digits, {**now, "label": "x", "command": "x", "started": "x"})
        state, _ = run.restore(STATE)
        assert state["weight"].tolist() == [0, 1, 2]
    outcome(CONFIGS, workdir)
    return summary_csv(read_study(folder))


class Hung(BaseException):
    """No handler of errors takes it for damage."""


@pytest.fixture
def without_figures(monkeypatch):
    """Drawing takes longer than all the rest."""
    for module in (figures, accuracy_figures, feature_figures):
        for name, _ in inspect.getmembers(module, lambda one: hasattr(one, "__wrapped__")):
            monkeypatch.setattr(module, name, lambda *_, **__: Figure())
    monkeypatch.setattr("jaxnorm.study.report.style.png", lambda _: b"")


def hang(*_):
    raise Hung


@pytest.mark.parametrize("first, last", [(0, 150), pytest.param(150, 10_000, marks=pytest.mark.durability)])
def test_damage_is_refused_in_one_line_or_changes_nothing(sound, tmp_path, monkeypatch, without_figures, first, last):
    monkeypatch.setattr(agreement, "MOST_UNPACKED", 2**24)
    memory, outcomes, expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, collections.Counter(), {}
    before = signal.signal(signal.SIGALRM, hang)
    for case in range(first, last):
        draw = random.Random(case)
        source = draw.choice("wwp")
        use = draw.choices([read, resume, published, report], [10, 10 * (source == "w"), source == "w", 1])[0]
        if (source, use) not in expected:
            expected[source, use] = use(shutil.copytree(sound / source, tmp_path / use.__name__ / source))
        folder = shutil.copytree(sound / source, tmp_path / "case" / source)
        inputs = [path for path in folder.rglob("*") if path.is_file() and path.suffix in SUFFIXES]
        path, is_resealed = draw.choice(sorted(inputs)), draw.random() < 0.5
        damage(path, draw)
        if is_resealed:
            reseal(path)
        about = f"case {case}: {use.__name__} after damage to {path.relative_to(folder)}, resealed: {is_resealed}"
        signal.alarm(60)
        try:
            found = use(folder)
        except UserError as error:
            assert "\n" not in str(error), about
            assert len(str(error)) < 2000, about
            outcomes["refused"] += 1
        except BaseException as error:
            error.add_note(about)
            raise
        else:
            assert is_resealed or found == expected[source, use], about
            outcomes["read"] += 1
        finally:
            signal.alarm(0)
        shutil.rmtree(folder.parent)
    signal.signal(signal.SIGALRM, before)
    assert min(outcomes.values()) > (last - first) / 20, outcomes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**19, "512 MiB"
