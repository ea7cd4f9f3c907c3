"""A tensorflow-datasets directory, written without TensorFlow and read by anyone."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxnorm.study.data import tfds_directory
from jaxnorm.study.data.binary import Release
from jaxnorm.study.data.tfds_directory import examples, file_format, read_directory, write_directory


@pytest.fixture
def prepared(tmp_path, release, records):
    return write_directory(records, tmp_path, release, progress=False)


def test_round_trip(tmp_path, prepared, release, records):
    assert prepared == tmp_path / "cifar10" / "3.0.2"
    assert file_format(prepared) == "array_record"
    np.testing.assert_array_equal(read_directory(prepared, release, progress=False), records)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]  # no temporary folder stays


def test_anyone_reads_it_with_plain_tfds(tmp_path, prepared, records):
    """Another process, without this package and without TensorFlow, sees tfds's own features, ids and names."""
    program = f"""
import sys
import numpy as np
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory({str(prepared)!r})
source = builder.as_data_source()
assert builder.info.full_name == "cifar10/3.0.2"
assert builder.info.features["label"].names[:2] == ["airplane", "automobile"]
assert builder.info.supervised_keys == ("image", "label")
examples = {{e["id"].decode(): e for split in ("train", "test") for e in source[split]}}
ids = [f"train_{{i:05d}}" for i in range(100)] + [f"test_{{i:05d}}" for i in range(20)]
assert sorted(examples) == sorted(ids)
assert "tensorflow" not in sys.modules and "jaxnorm" not in sys.modules
image, label = ([examples[i][key] for i in ids] for key in ("image", "label"))
np.savez({str(tmp_path / "seen.npz")!r}, image=image, label=label)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    seen = np.load(tmp_path / "seen.npz")
    np.testing.assert_array_equal(seen["image"].transpose(0, 3, 1, 2).reshape(120, 3072), records[:, 1:])
    np.testing.assert_array_equal(seen["label"], records[:, 0])


def test_writing_prints_nothing_to_standard_output(tmp_path, release, records, capsys):
    write_directory(records, tmp_path, release, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Preparing {tmp_path / 'cifar10' / '3.0.2'} (120 images)" in err


def test_failed_preparation_leaves_nothing(tmp_path, release, records, monkeypatch):
    def lose_one(*_, **__):
        return records[::-1]

    monkeypatch.setattr(tfds_directory, "read_directory", lose_one)
    with pytest.raises(OSError, match="does not read back"):
        write_directory(records, tmp_path, release, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_preparation_leaves_nothing(tmp_path, release, records, monkeypatch):
    def interrupted(*args):
        yield from examples(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(tfds_directory, "examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_directory(records, tmp_path, release, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_writers_changes_nothing(tmp_path, prepared, release, records):
    before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
    assert write_directory(records, tmp_path, release, progress=False) == prepared
    assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


def test_damaged_shards_are_one_line(prepared, release, fails):
    shard = prepared / "cifar10-train.array_record-00000-of-00001"
    content = shard.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 4] ^= 1
    for bad in (content[: len(content) // 2], bytes(flipped), b"", b"garbage" * 20_000):
        shard.write_bytes(bad)
        with fails(prepared, "damaged"):
            read_directory(prepared, release, progress=False)
    shard.unlink()
    with fails(prepared, "damaged", "No such file"):
        read_directory(prepared, release, progress=False)


def test_another_number_of_images(prepared, fails):
    with fails(prepared, "105 train images and 21 test images", "100 train images and 20 test images"):
        read_directory(prepared, Release(num_test=21), progress=False)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"splits": 3}', '{"splits": [{"name": "train"}]}'])
def test_damaged_description(prepared, release, fails, content):
    (prepared / "dataset_info.json").write_text(content)
    with fails(prepared):
        read_directory(prepared, release, progress=False)


def test_unfinished_directory(prepared, fails):
    (prepared / "dataset_info.json").unlink()
    with fails(prepared, "never finished"):
        file_format(prepared)


def test_format_of_old_directories_is_tfrecord(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"splits": []}))
    assert file_format(tmp_path) == "tfrecord"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(id="train_00001"), ["train_00001", "each once"]),
        (dict(id="train_00100"), ["train_00100", "out of range"]),
        (dict(id="test_00000"), ["test_00000", "out of range"]),
        (dict(id="train_x"), ["train_x"]),
        (dict(label=3, image=b"no image"), ["damaged"]),
    ],
)
def test_wrong_examples(tmp_path, release, records, fails, monkeypatch, change, words):
    """What a builder of somebody's own might write is not taken for CIFAR-10."""

    def wrong(split, records, advance):
        for index, example in examples(split, records, advance):
            yield index, example | change if (split, index) == ("train", 0) else example

    monkeypatch.setattr(tfds_directory, "examples", wrong)
    with fails(*words):
        write_directory(records, tmp_path, release, progress=False)
