"""The wheel and the archive of the sources, each in an environment that holds nothing else (make package)."""

import email
import re
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

from tests.drivers import ROOT, environment

pytestmark = pytest.mark.package
TINY = ["--norms", "bn", "--num-epochs", "1", "--num-blocks", "1", "--num-filters", "8", "--batch-size", "256"]


@pytest.fixture(scope="module")
def wheel():
    (path,) = (ROOT / "dist").glob("jaxnorm-*.whl")
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    (path,) = (ROOT / "dist").glob("jaxnorm-*.tar.gz")
    folder = tmp_path_factory.mktemp("sources")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


def tracked(*folders):
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and not name.startswith(".")}


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == tracked("jaxnorm")


def test_the_sources_are_all_that_is_tracked(sources):
    made = {name for name in files_of(sources) if ".egg-info/" in name or name in ("PKG-INFO", "setup.cfg")}
    assert files_of(sources) - made == tracked()


def test_the_description_is_the_readme_without_links_to_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    described = metadata.get_payload()
    assert "## What the study shows" in described and metadata["Description-Content-Type"] == "text/markdown"
    assert re.findall(r'(?:\]\(|src=")(?!https://)', described) == []


def test_the_sources_tests_run(sources, tmp_path):
    tests = ["tests/norms/test_rms_norm.py", "tests/study/test_planned.py", "tests/test_docs.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "rms or planned or links", *tests]
    done = subprocess.run(command, cwd=sources, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """A function that makes an environment of a requirement alone, and returns one that runs its programs."""

    def made(requirement):
        folder, home = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("home")
        venv.create(folder, with_pip=True)

        def run(program, *arguments):
            command = [folder / "bin" / program, *arguments]
            return subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True)

        done = run("python", "-m", "pip", "install", "--quiet", requirement)
        assert done.returncode == 0, done.stderr
        return run

    return made


def test_the_wheel_alone_has_the_layers(wheel, install):
    run = install(str(wheel))
    example = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)[1]
    done = run("python", "-c", f"{example}\nprint(y.shape, sorted(variables))")
    assert (done.stdout, done.returncode) == ("(8, 32, 32, 3) ['batch_stats', 'params']\n", 0), done.stderr
    done = run("jaxnorm", "compare")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and 'pip install "jaxnorm[study]"' in done.stderr


def test_the_study_needs_the_wheel_and_its_extra(wheel, install):
    run = install(f"{wheel}[study]")
    assert run("python", "-c", "import tensorflow_datasets").returncode == 1
    for arguments in (
        ["compare", "--preset", "quick", "--dry-run"],
        ["doctor"],
        ["compare", *TINY],
        ["--list", "norms"],
    ):
        done = run("jaxnorm", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run("python", "-c", "import jaxnorm; print(jaxnorm.load_run('runs/compare_norms/bn-seed0').config.norm)")
    assert (done.stdout, done.returncode) == ("bn\n", 0), done.stderr
