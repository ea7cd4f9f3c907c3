"""How the kernels are compiled and kept, with compilers of a few shell commands."""

import concurrent.futures
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jaxlib.version
import numpy as np
import pytest

from jaxnorm import files
from jaxnorm.conv import kernels, library
from jaxnorm.conv.library import Unavailable

ROOT = Path(__file__).parents[2]
NAMES = [f"jaxnorm_conv_{name}" for name, *_ in kernels.PRODUCTS.values()]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A copy of the compiled kernels."""
    compiler = library.find_compiler()
    if kernels.is_off() or compiler is None:
        pytest.skip("there is no C++ compiler, or the kernels are off")
    folder = files.cache_folder() / "kernels"
    library.load(NAMES, compiler, folder)
    kept = next(folder.glob(f"{library.fingerprint(compiler)}-*.so"))
    return shutil.copy(kept, tmp_path_factory.mktemp("library") / "library.so")


class World:
    """A compiler of shell commands and an empty cache folder."""

    def __init__(self, folder):
        self.path, self.cache, self.log = folder / "compiler", folder / "cache" / "kernels", folder / "log"

    def compiler(self, commands, version="pretended 1.0"):
        head = f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version}"; exit; }}\nfor target; do :; done\n'
        self.path.write_text(f"{head}echo x >> {self.log}\n{commands}\n")
        self.path.chmod(0o755)
        return str(self.path)

    def load(self, **options):
        return library.load(NAMES, str(self.path), self.cache, **options)

    def compilations(self):
        return len(self.log.read_text().split()) if self.log.exists() else 0

    def kept(self):
        return sorted(path.name for path in self.cache.iterdir())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def working(world, compiled):
    """A world whose compiler works."""
    world.compiler(f"cp {compiled} $target")
    return world


def test_without_a_compiler_xla_is_used(tmp_path):
    program = """
import jax, numpy as np
from jaxnorm.conv import kernels
from jaxnorm.conv.convolution import convolve
print(kernels.missing(), kernels.description(), sep="; ")
x, kernel = np.ones((2, 4, 4, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
f = jax.jit(jax.grad(lambda *a: convolve(*a, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")).sum()))
assert "jaxnorm_conv" not in f.lower(x, kernel).as_text()
print(f(x, kernel)[0, :, :, 0].astype(int).tolist())
"""
    changed = dict(PATH=str(tmp_path), CXX="", XDG_CACHE_HOME=str(tmp_path), XLA_FLAGS="", PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, env={**os.environ, **changed}, capture_output=True, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr
    windows = np.array([1, 2, 2, 1])  # over each row and column
    expected = ["there is no C++ compiler; XLA", str((16 * np.outer(windows, windows)).tolist())]
    assert finished.stdout.splitlines() == expected


@pytest.mark.parametrize(
    "commands, reason",
    [
        ("echo In file included >&2; echo 'a.h:1: error:  no  such thing' >&2; exit 1", "a.h:1: error: no such thing"),
        ("printf 'killed\\nby hand\\n' >&2; exit 1", "killed"),
        ("exit 3", "it ends with code 3"),
        ("exec sleep 20", "it takes more than 0.3 seconds"),
        ("echo waiting >&2; exec sleep 20", "waiting"),
        ("printf 'error \\377\\n' >&2; exit 1", "error \N{REPLACEMENT CHARACTER}"),
        ("exit 0", "No such file"),
        ("ln -s /proc/self/exe $target", "only this user can change"),
        ("echo nonsense > $target", "file too short"),
        (f"cp {np.random.mtrand.__file__} $target", "undefined symbol"),
    ],
)
def test_the_failure_of_a_compiler_is_one_line(commands, reason, world):
    path = world.compiler(commands)
    with pytest.raises(Unavailable) as raised:
        world.load(**({"timeout": 0.3} if "sleep" in commands else {}))
    message = str(raised.value)
    assert message.startswith(f"{path} does not compile them: ")
    assert reason in message and "\n" not in message
    assert not list(world.cache.glob("tmp*"))


def test_a_compiler_that_does_not_start_is_one_line(world):
    world.compiler("")
    world.path.write_text("#!/no/such/shell\n")
    with pytest.raises(Unavailable, match="No such file"):
        world.load()


def test_the_library_is_compiled_once(working):
    for _ in range(3):
        assert len(working.load()) == 3
    assert working.compilations() == len(working.kept()) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "a folder", "unreadable", "another name"])
def test_a_damaged_library_is_compiled_again(damage, working):
    working.load()
    (name,) = working.kept()
    path = working.cache / name
    whole = path.read_bytes()
    path.unlink()  # not overwritten, because this process has mapped the file
    if damage == "a folder":
        (path / "x").mkdir(parents=True)
        working.load()
        assert working.compilations() == 2
        return
    if damage == "unreadable":
        path.symlink_to(path)
    else:
        damaged = path.with_name(f"{path.stem[:-1]}-.so") if damage == "another name" else path
        content = {"cut": whole[: len(whole) // 2], "empty": b"", "garbage": b"x" * len(whole)}
        damaged.write_bytes(content.get(damage, whole))
    for _ in range(2):
        working.load()
        assert working.compilations() == 2
        assert path.read_bytes() == whole


@pytest.mark.parametrize("depth", [0, 1])
def test_a_cache_folder_that_cannot_be_made_is_not_needed(depth, working):
    blocked = [working.cache, *working.cache.parents][depth]
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("")
    assert len(working.load()) == 3
    assert working.compilations() == 1


def test_a_disk_that_runs_no_programs_keeps_a_library_that_is_copied(working, monkeypatch):
    plain = ctypes.CDLL

    def refusing(name):
        if str(working.cache) in name:
            raise OSError(f"{name}: failed to map segment from shared object")
        return plain(name)

    monkeypatch.setattr(ctypes, "CDLL", refusing)
    for _ in range(2):
        assert len(working.load()) == 3
    assert working.compilations() == len(working.kept()) == 1


def test_a_library_that_cannot_be_loaded_anywhere_is_compiled_once(working, monkeypatch):
    def refusing(name):
        raise OSError(f"{name}: version 'GLIBCXX_3.4.99' not found")

    monkeypatch.setattr(ctypes, "CDLL", refusing)
    with pytest.raises(Unavailable, match="GLIBCXX_3.4.99"):
        working.load()
    assert working.compilations() == 1 and working.kept() == []


OTHER = 12345
OF_OTHERS = {
    "a file": lambda cache, file: os.chown(file, OTHER, -1),
    "a folder": lambda cache, file: os.chown(cache, OTHER, -1),
    "a folder above": lambda cache, file: os.chown(cache.parent, OTHER, -1),
    "a writable file": lambda cache, file: file.chmod(0o777),
    "a writable folder": lambda cache, file: cache.chmod(0o777),
    "a sticky folder": lambda cache, file: cache.chmod(0o1777),
    "a writable folder above": lambda cache, file: cache.parent.chmod(0o777),
    "a folder of a group": lambda cache, file: (os.chown(cache, -1, OTHER), cache.chmod(0o770)),
}


@pytest.mark.parametrize("whose", OF_OTHERS)
def test_what_another_user_could_have_made_is_neither_loaded_nor_compiled_there(whose, working, tmp_path_factory):
    working.load()
    (kept,) = working.kept()
    try:
        OF_OTHERS[whose](working.cache, working.cache / kept)
    except PermissionError:
        pytest.skip("only root gives files away")
    for _ in range(2):
        assert len(working.load()) == 3
    if whose in ("a file", "a writable file"):  # is replaced
        assert working.compilations() == 2
    else:
        assert working.compilations() == 3 and working.kept() == [kept]


def test_a_folder_that_another_user_made_in_advance_is_left_alone(working):
    working.cache.parent.mkdir()
    try:
        os.chown(working.cache.parent, OTHER, -1)
    except PermissionError:
        pytest.skip("only root gives files away")
    assert len(working.load()) == 3
    assert [*working.cache.parent.rglob("*.so")] == []


def test_without_any_folder_of_ones_own_there_are_no_kernels(working, monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    working.cache.mkdir(parents=True)
    working.cache.chmod(0o777)
    with pytest.raises(Unavailable, match="set TMPDIR"):
        working.load()
    assert working.compilations() == 0


def test_several_processes_may_compile_at_the_same_time(world, compiled):
    world.compiler(f"head -c 9999 {compiled} > $target; sleep 0.3; cp {compiled} $target")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # like processes, they share nothing but the folder
        list(pool.map(lambda _: world.load(), range(3)))
    assert world.compilations() == 3
    assert len(world.kept()) == 1


def test_the_name_depends_on_all_that_decides_the_content(world, monkeypatch, tmp_path):
    compiler = world.compiler("")
    names = [library.fingerprint(compiler), library.fingerprint(compiler, flags=(*library.FLAGS, "-g"))]
    for source in sorted(path.name for path in library.SOURCES.iterdir()):
        folder = tmp_path / source
        shutil.copytree(library.SOURCES, folder)
        assert library.fingerprint(compiler, sources=folder) == names[0]
        with (folder / source).open("a") as file:
            file.write("//\n")
        names.append(library.fingerprint(compiler, sources=folder))
    names.append(library.fingerprint(world.compiler("", version="pretended 1.1")))
    monkeypatch.setattr(jaxlib.version, "__version__", "0.99")
    names.append(library.fingerprint(compiler))
    monkeypatch.setattr(library, "processor", lambda: {"flags": "none"})
    names.append(library.fingerprint(compiler))
    assert len(set(names)) == len(names)
