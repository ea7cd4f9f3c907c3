"""A program starts anew once, as it was, and only where that helps."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnorm.study import allocator

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

PROGRAM = """
import json, os, pathlib, sys
from jaxnorm.study import allocator
print(json.dumps([os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), sys.flags.utf8_mode, sys._xoptions]))
allocator._KERNEL = pathlib.Path(os.environ["KERNEL"])
{before}
allocator.restart_with_large_pages()
print("read", sys.stdin.read())
"""
LARGE = allocator.LARGE_PAGES
ARGUMENTS = ["--seeds", "a b", "", "*'\"\\\N{GREEK SMALL LETTER ALPHA}"]


@pytest.fixture
def start(tmp_path):
    """Runs a program; what each of its starts says, and what it reads from standard input at last."""

    def run(
        form=("program.py",),
        before="",
        tunables=None,
        pages="always [madvise] never",
        arguments=ARGUMENTS,
        program=None,
    ):
        (tmp_path / "program.py").write_text(PROGRAM.format(before=before))
        kernel = tmp_path / "enabled"
        if pages is not None:
            kernel.write_text(f"{pages}\n")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERNEL": str(kernel)}
        environment.pop("GLIBC_TUNABLES", None)
        if tunables is not None:
            environment["GLIBC_TUNABLES"] = tunables
        process = subprocess.Popen(
            [sys.executable, *form, *arguments],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        *starts, last = process.communicate(program or "what comes in", timeout=60)[0].splitlines()
        assert process.returncode == 0
        starts = [json.loads(line) for line in starts]
        assert all(number == process.pid for number, *_ in starts)
        return starts, last

    return run


@pytest.mark.parametrize(
    "form",
    [
        ("program.py",),
        ("-m", "program"),
        ("-X", "utf8", "-W", "error", "-u", "program.py"),
        ("-X", "importtime=0", "-Xutf8", "-m", "program"),
        ("-c", PROGRAM.format(before="")),
    ],
    ids=["script", "module", "options", "options and module", "command"],
)
def test_it_starts_once_more_as_it_was(form, start):
    (first, second), last = start(form)
    number, arguments, tunables, *options = first
    assert (arguments, tunables) == (ARGUMENTS, None)
    assert second == [number, arguments, LARGE, *options]
    assert any("utf8" in each for each in form if len(each) < 9) == (options[0] == 1)
    assert last == "read what comes in"


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.arena_max=2", LARGE])
def test_the_user_s_settings_are_kept(tunables, start):
    starts, last = start(tunables=tunables)
    assert [each[2] for each in starts] == [tunables]
    assert last == "read what comes in"


@pytest.mark.parametrize("pages", ["[always] madvise never", "always madvise [never]", None])
def test_where_the_kernel_decides_nothing_happens(pages, start):
    assert len(start(pages=pages)[0]) == 1


DEBUGGERS = {
    "trace": "sys.settrace(lambda *_: None)",
    "monitoring": "sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, 'debugger')",
    "thread": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "no interpreter": "sys.executable = ''",
    "another C library": "import platform; platform.libc_ver = lambda: ('musl', '1.2')",
}


@pytest.mark.parametrize("before", DEBUGGERS)
def test_under_a_debugger_and_beside_threads_nothing_happens(before, start):
    if before == "monitoring" and sys.version_info < (3, 12):
        pytest.skip("Python has sys.monitoring from 3.12 on")
    assert len(start(before=DEBUGGERS[before])[0]) == 1


@pytest.mark.parametrize("form", [(), ("-",)], ids=["piped", "dash"])
def test_a_program_from_standard_input_could_not_be_read_twice(form, start):
    starts, last = start(form, arguments=[], program=PROGRAM.format(before=""))
    assert len(starts) == 1
    assert last == "read "


@pytest.mark.parametrize("place", ["/dev/stdin", "/dev/fd/0", "-"])
def test_nor_could_one_from_a_pipe_whatever_it_calls_itself(place, start):
    program = PROGRAM.format(before="sys.argv = ['compare_norms.py', '--seeds', '1']")
    starts, last = start((place,), arguments=[], program=program)
    assert len(starts) == 1
    assert last == "read "


def test_where_the_tunables_get_lost_it_starts_once_more_and_not_for_ever(start):
    lost = "import os; os.environ.pop('GLIBC_TUNABLES', None)"
    assert len(start(before=lost)[0]) == 2


def test_without_standard_output_it_starts_all_the_same(start):
    (first,), second = start(before="sys.stdout.flush(); sys.stdout = None")
    assert json.loads(second) == [first[0], ARGUMENTS, LARGE, *first[3:]]


def test_within_pytest_nothing_happens(start):
    assert len(start(before="import pytest")[0]) == 1


def test_what_was_said_before_is_said_once(start):
    starts, _ = start(before="sys.stdout.write(json.dumps([os.getpid()]) + '\\n')")
    assert [len(each) for each in starts] == [5, 1, 5, 1]


KEEPING = """
import ctypes, resource, sys
sys.path.insert(0, {root!r})
from jaxnorm.study.allocator import keep_freed_memory, release_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, libc.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p], [
    ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 64 * 2**20  # more than glibc keeps by itself

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = libc.malloc(SIZE)
        libc.memset(block, 1, SIZE)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

returned = faults()
keep_freed_memory()
faults()
kept, held = faults(), resident()
release_freed_memory()
print(returned, kept, held - resident())
"""


@pytest.mark.parametrize("tunables", [LARGE, ""])
def test_memory_is_kept_from_step_to_step_and_given_back(tunables):
    program = KEEPING.format(root=str(ROOT))
    environment = {**os.environ, allocator.TUNABLES: tunables}
    finished = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    returned, kept, given_back = map(int, finished.stdout.split())
    if tunables:
        assert returned > 10 * max(1, kept)
        assert given_back > 60 * 2**20
    else:  # not restarted: the user's own settings stay
        assert kept > returned / 2
