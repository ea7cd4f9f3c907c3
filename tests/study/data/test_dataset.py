import jax
import numpy as np
import pytest

from jaxnorm.study.data.cifar import load_cifar
from jaxnorm.study.data.dataset import take


def owner(array):
    """The array whose memory it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (9, 5, 3), (4, 0, 2)])
@pytest.mark.parametrize("rows", [[0], [3, 0, 3, 1], [2, 1], []], ids=str)
def test_rows_are_taken_to_where_jax_can_use_them(rows, shape, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    rows = np.array(rows, np.int64)
    taken = take(array, rows)
    np.testing.assert_array_equal(taken, array[rows], strict=True)
    assert taken.size == 0 or taken.ctypes.data % 64 == 0
    assert taken.flags.c_contiguous and taken.flags.writeable
    assert not np.shares_memory(taken, array)


def test_rows_of_an_array_in_another_order_of_memory():
    array = np.arange(24).reshape(4, 6)[:, ::2]
    rows = np.array([3, 1])
    np.testing.assert_array_equal(take(array, rows), array[rows])
    np.testing.assert_array_equal(take(array.T, rows - 1), array.T[rows - 1])


@pytest.mark.parametrize("rows", [[4], [-1, 2], [0, 99], [True, False, True, False], [1.0]], ids=str)
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(IndexError, match="from 0 to 3"):
        take(np.arange(4), np.array(rows))


def test_jax_uses_it_as_it_lies():
    array = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    cpu = jax.devices("cpu")[0]
    for count in (1, 7, 33):
        taken = take(array, np.arange(count))
        assert jax.device_put(taken, cpu).unsafe_buffer_pointer() == taken.ctypes.data


def test_a_split_keeps_only_its_own_images(tmp_path, release, records, write_folder):
    write_folder(tmp_path / "data", records)
    dataset = load_cifar(tmp_path / "data", progress=False, release=release)
    owners = []
    for split in (dataset.train, dataset.validation, dataset.test):
        for array in (split.image, split.label):
            assert array.ctypes.data % 64 == 0
            assert owner(array).nbytes <= array.nbytes + 64
            owners.append(owner(array))
    assert not any(np.shares_memory(a, b) for i, a in enumerate(owners) for b in owners[:i])
