"""CIFAR-10 from every source: found in the stated order, with one fingerprint, or one line about what is wrong."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from jaxnorm.study.data import binary, cifar, load_dataset, tfds_directory
from jaxnorm.study.data.cifar import load_cifar
from jaxnorm.study.data.tfds_directory import write_directory

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def load(tmp_path, release):
    """Loads from a folder `data` that the test has filled."""

    def run(data_dir=tmp_path / "data", release=release, progress=False):
        return load_cifar(data_dir, progress=progress, release=release)

    return run


def check(dataset, records, expected):
    """The dataset is these records, in the documented split."""
    image, label, fingerprint = expected(records)
    num_train = len(records) * 5 // 6
    order = np.random.default_rng(0).permutation(num_train)
    cut = num_train * 4 // 5
    for split, rows in [
        (dataset.train, order[:cut]),
        (dataset.validation, order[cut:]),
        (dataset.test, np.arange(num_train, len(records))),
    ]:
        np.testing.assert_array_equal(split.image, image[rows])
        np.testing.assert_array_equal(split.label, label[rows])
        assert split.image.dtype == np.uint8 and split.label.dtype == np.int32
    assert dataset.fingerprint == fingerprint


def test_constants(tmp_path, load, records, write_folder):
    write_folder(tmp_path / "data", records)
    dataset = load()
    assert (dataset.name, dataset.description) == ("cifar10", "CIFAR-10")
    assert (dataset.pad, dataset.flip, dataset.mean) == (4, True, (0.4914, 0.4822, 0.4465))
    assert dataset.class_names[3] == "cat" and dataset.num_classes == 10
    assert dataset.to_json() == {
        "name": "cifar10",
        "description": "CIFAR-10",
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "num_train": 80,
        "num_validation": 20,
        "num_test": 20,
        "class_names": list(dataset.class_names),
        "image_shape": [32, 32, 3],
    }


@pytest.mark.parametrize("source", ["tfds", "folder", "itself", "archive"])
def test_every_source_gives_the_same_data_and_then_its_copy(
    tmp_path, load, release, records, expected, write_folder, write_archive, source, monkeypatch, capsys
):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    if source == "tfds":
        path = write_directory(records, data_dir, release, progress=False)
    elif source == "archive":
        path = write_archive(data_dir, records)
    else:
        path = write_folder(data_dir, records)
        data_dir = path if source == "itself" else data_dir
    dataset = load(data_dir)
    check(dataset, records, expected)
    assert str(path) in dataset.source and "\n" not in dataset.source

    def never(*_, **__):
        raise AssertionError("the source was read again")

    for module, name in [(binary, "read_folder"), (binary, "read_archive"), (tfds_directory, "read_directory")]:
        monkeypatch.setattr(module, name, never)
    again = load(data_dir)
    check(again, records, expected)
    assert str(path) in again.source and "decoded copy" in again.source
    assert capsys.readouterr() == ("", "")


def test_sources_are_tried_in_order(tmp_path, load, release, records, write_folder, write_archive):
    archive = write_archive(tmp_path / "data", records)
    assert str(archive) in load().source
    folder = write_folder(tmp_path / "data", records)
    assert str(folder) in load().source
    prepared = write_directory(records, tmp_path / "data", release, progress=False)
    assert str(prepared) in load().source


def test_archive_says_whether_it_is_the_official_one(tmp_path, load, release, records, write_archive):
    archive = write_archive(tmp_path / "data", records)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert "not the official" in load().source
    shutil.rmtree(tmp_path / "cache-home")
    assert "the official archive" in load(release=dataclasses.replace(release, archive_sha256=digest)).source


def test_reencoded_images_are_called_so(tmp_path, load, records, write_folder, monkeypatch):
    write_folder(tmp_path / "data", records)
    labels = hashlib.sha256(records[:, 0].tobytes()).hexdigest()
    monkeypatch.setattr(cifar, "REENCODED_LABELS_SHA256", labels)
    assert load().description == "CIFAR-10 (JPEG q75 re-encoding)"


def test_folder_from_the_environment_or_the_cache(tmp_path, load, records, write_folder, monkeypatch, fails):
    with fails(tmp_path / "cache-home" / "jaxnorm" / "data", "cannot be reached"):
        load(None)
    folder = write_folder(tmp_path / "elsewhere", records)
    monkeypatch.setenv("JAXNORM_DATA_DIR", str(tmp_path / "elsewhere"))
    assert str(folder) in load(None).source
    with fails(tmp_path / "data"):  # a folder given by hand is not quietly replaced by the environment's
        load()


def test_offline_says_what_was_looked_for_and_what_to_do(tmp_path, load, fails):
    with fails(
        tmp_path / "data", "cifar10/3.0.2", "cifar-10-batches-bin", "cifar-10-binary.tar.gz", "127.0.0.1:9",
        "cannot be reached", "refused", "--data-dir", "--dataset digits",
    ):  # fmt: skip
        load()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_pickles_are_never_loaded(tmp_path, load, fails, name):
    trap = tmp_path / "data" / name
    if name.endswith("py"):
        trap.mkdir(parents=True)
        trap = trap / "data_batch_1"
    trap.parent.mkdir(exist_ok=True)
    trap.write_bytes(b"cos\nmkdir\n(S'" + str(tmp_path / "sprung").encode() + b"'\ntR.")
    with fails(name, "cannot be used", "pickles can run code"):
        load()
    assert not (tmp_path / "sprung").exists()


def test_damage_is_named_and_leaves_no_copy(tmp_path, load, records, write_folder, fails):
    folder = write_folder(tmp_path / "data", records)
    (folder / "data_batch_5.bin").write_bytes(b"short")
    with fails(folder / "data_batch_5.bin", "61,460", "has 5"):
        load()
    assert not (tmp_path / "cache-home").exists()


def test_damage_after_a_good_start_is_seen_in_spite_of_the_copy(tmp_path, load, records, write_folder, fails):
    folder = write_folder(tmp_path / "data", records)
    load()
    (folder / "data_batch_5.bin").unlink()
    with fails("data_batch_5.bin is missing"):
        load()


def test_data_dir_that_is_a_file(tmp_path, load, fails):
    (tmp_path / "data").touch()
    with fails("must be a folder", tmp_path / "data"):
        load()


def test_tfrecord_directory(tmp_path, load, records, expected, write_folder, fails):
    """It needs TensorFlow: named if nothing else is there, passed over if something is."""
    prepared = tmp_path / "data" / "cifar10" / "3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text('{"fileFormat": "tfrecord", "splits": []}')
    with fails(prepared, "array_record", "tfrecord", "remove it"):
        load()
    write_folder(tmp_path / "data", records)
    check(load(), records, expected)


@pytest.fixture
def published(tmp_path, serve, release, records, write_archive):
    """A server with the archive, and the release that describes it."""
    archive = write_archive(tmp_path / "published", records)
    body = archive.read_bytes()
    server = serve("well", body)
    digest = hashlib.sha256(body).hexdigest()
    return server, dataclasses.replace(release, url=server.url, archive_bytes=len(body), archive_sha256=digest)


def test_download_is_prepared_once(tmp_path, load, records, expected, published, capsys):
    server, release = published
    dataset = load(release=release, progress=True)
    check(dataset, records, expected)
    assert server.requests == 1
    assert str(tmp_path / "data" / "cifar10" / "3.0.2") in dataset.source
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cifar-10-binary.tar.gz", "cifar10"]
    out, err = capsys.readouterr()
    assert out == ""
    for title in ("Downloading", "Preparing", "Reading"):
        assert title in err
    check(load(release=release, progress=True), records, expected)
    assert server.requests == 1
    assert capsys.readouterr() == ("", "")


def killed(folder, release, moment="", *, until=lambda: True):
    """Loads in a process that is killed at a moment of its own, or when something is true."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from jaxnorm.study.data import binary, cifar, tfds_directory\n"
        "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{moment}\n"
        f"cifar.load_cifar(Path({str(folder)!r}), progress=False, release=binary.{release!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) as process:
        while not moment and not until() and process.poll() is None:
            time.sleep(0.01)
        if not moment:
            process.kill()
        errors = process.communicate()[1]
    assert process.returncode == -9, errors
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("next_source", ["download", "folder"])
def test_a_download_that_was_killed_leaves_nothing_to_the_next_start(
    tmp_path, load, records, expected, published, serve, write_archive, write_folder, next_source
):
    _, release = published
    body, data = write_archive(tmp_path / "again", records).read_bytes(), tmp_path / "data"
    stalling = dataclasses.replace(release, url=serve("stalling", body).url)
    (left,) = killed(data, stalling, until=lambda: any(data.glob(".*.part")))
    assert left.endswith(".part")
    if next_source == "folder":
        write_folder(data, records)
    check(load(release=release), records, expected)
    here = ["cifar-10-batches-bin"] if next_source == "folder" else ["cifar-10-binary.tar.gz", "cifar10"]
    assert sorted(path.name for path in data.iterdir()) == here


@pytest.mark.parametrize("moment", ["binary.read_archive = kill", "tfds_directory.examples = kill"])
def test_a_preparation_that_was_killed_is_done_by_the_next_start(tmp_path, load, records, expected, published, moment):
    server, release = published
    left = killed(tmp_path / "data", release, moment)
    assert "cifar-10-binary.tar.gz" in left and "cifar10" not in left
    for _ in range(2):
        dataset = load(release=release)
        check(dataset, records, expected)
        assert str(tmp_path / "data" / "cifar10" / "3.0.2") in dataset.source
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cifar-10-binary.tar.gz", "cifar10"]
    assert server.requests == 1


def test_download_that_cannot_be_prepared_is_read_as_it_is(load, records, expected, published, capsys, monkeypatch):
    _, release = published

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tfds_directory, "write_directory", full)
    dataset = load(release=release)
    check(dataset, records, expected)
    assert "the official archive" in dataset.source
    err = capsys.readouterr().err
    assert err.startswith("warning: ") and err.count("\n") == 1 and "cannot be prepared" in err


def test_without_the_packages_of_tfds_the_archive_is_read(load, records, expected, published, capsys, monkeypatch):
    _, release = published
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    dataset = load(release=release)
    check(dataset, records, expected)
    assert "the official archive" in dataset.source and capsys.readouterr().err == ""


def test_wrong_download_leaves_nothing(tmp_path, load, published, fails):
    _, release = published
    with fails("SHA-256 " + "0" * 64, "nothing was kept"):
        load(release=dataclasses.replace(release, archive_sha256="0" * 64))
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "cache-home").exists()


def test_unknown_dataset(fails):
    with fails("'cifar'", "did you mean 'cifar10'", "digits"):
        load_dataset("cifar")


def test_the_package_loads_nothing_heavy():
    program = (
        "import sys, jaxnorm.study.data\n"
        "print(*({'jax', 'sklearn', 'tensorflow_datasets', 'PIL', 'rich'} & {*sys.modules}))"
    )
    heavy = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert heavy.split() == []


def test_full_size(tmp_path, expected, write_folder, write_archive):
    """All 60,000 images at their true size, from the folder and from the archive, with nothing made smaller."""
    records = np.random.default_rng(0).integers(0, 256, (60_000, 3073), np.uint8)
    records[:, 0] %= 10
    try:
        folder = write_folder(tmp_path / "data", records)
        dataset = load_dataset("cifar10", data_dir=tmp_path / "data")
        check(dataset, records, expected)
        assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (40_000, 10_000, 10_000)
        shutil.rmtree(folder)
        write_archive(tmp_path / "data", records, level=0)
        assert load_dataset("cifar10", data_dir=tmp_path / "data").fingerprint == dataset.fingerprint
    finally:
        shutil.rmtree(tmp_path / "data")  # hundreds of megabytes, which pytest would keep
        shutil.rmtree(tmp_path / "cache-home", ignore_errors=True)


@pytest.fixture
def release100():
    return dataclasses.replace(binary.CIFAR100, num_test=20, url="http://127.0.0.1:9/cifar-100-binary.tar.gz")


def write_cifar100(data_dir, records, coarse):
    folder = data_dir / "cifar-100-binary"
    folder.mkdir(parents=True)
    both = np.concatenate([coarse[:, None], records], axis=1)
    (folder / "train.bin").write_bytes(both[:100].tobytes())
    (folder / "test.bin").write_bytes(both[100:].tobytes())
    return folder


@pytest.mark.parametrize("form", ["folder", "archive", "tfds"])
def test_cifar100_has_fine_classes_in_every_form(tmp_path, records, release100, expected, form):
    rng = np.random.default_rng(2)
    records[:, 0] = rng.permutation(120) % 100
    coarse = rng.integers(0, 20, 120).astype(np.uint8)
    if form == "tfds":
        write_tfds_cifar100(tmp_path, records, coarse)
    else:
        folder = write_cifar100(tmp_path, records, coarse)
    if form == "archive":
        with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
            tar.add(folder, folder.name)
        shutil.rmtree(folder)
    dataset = load_cifar(tmp_path, progress=False, release=release100)
    image, label, _ = expected(records)
    order = np.random.default_rng(0).permutation(100)
    assert (dataset.name, dataset.description, dataset.num_classes) == ("cifar100", "CIFAR-100", 100)
    assert dataset.class_names[:2] + dataset.class_names[-2:] == ("apple", "aquarium_fish", "woman", "worm")
    assert (dataset.train.image == image[order[:80]]).all() and (dataset.validation.label == label[order[80:]]).all()
    assert (dataset.test.image == image[100:]).all() and (dataset.test.label == label[100:]).all()
    assert dataset.fingerprint == hashlib.sha256(records.tobytes()).hexdigest()


def write_tfds_cifar100(data_dir, records, coarse):
    """As tensorflow-datasets prepares it, coarse classes included."""
    import tensorflow_datasets as tfds

    def examples(split, some, coarse):
        for (index, example), label in zip(tfds_directory.examples(split, some, lambda _: None), coarse, strict=True):
            yield index, example | {"coarse_label": int(label)}

    class Cifar100(tfds.image_classification.Cifar100, skip_registration=True):
        name = "cifar100"

        def _split_generators(self, dl_manager):
            for key, count in (("label", 100), ("coarse_label", 20)):
                self.info.features[key].names = [str(number) for number in range(count)]
            return {
                "train": examples("train", records[:100], coarse[:100]),
                "test": examples("test", records[100:], coarse[100:]),
            }

    Cifar100.__module__ = tfds.image_classification.Cifar100.__module__
    Cifar100(data_dir=str(data_dir), file_format="array_record").download_and_prepare(file_format="array_record")


def test_a_class_that_cifar100_has_not_is_refused(tmp_path, records, release100, fails):
    records[:, 0] = 99
    records[37, 0] = 100
    folder = write_cifar100(tmp_path, records, np.zeros(120, np.uint8))
    with fails("labels must be 0 to 99, but record 37 of", folder / "train.bin", "has 100", "CIFAR-100"):
        load_cifar(tmp_path, progress=False, release=release100)


def test_an_absent_cifar100_says_what_is_looked_for(tmp_path, release100, fails):
    words = ("CIFAR-100 is not in", "cifar100/3.0.2", "cifar-100-binary,", "cifar-100-binary.tar.gz", "127.0.0.1:9")
    with fails(*words):
        load_cifar(tmp_path, progress=False, release=release100)
