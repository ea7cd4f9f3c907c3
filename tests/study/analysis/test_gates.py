import numpy as np

from jaxnorm.study.analysis.gates import about_gates, gate_table, groups
from jaxnorm.study.analysis.layers import gate_paths
from jaxnorm.study.analysis.runs import read_study


def test_the_words_say_what_the_arrays_hold(make_workdir):
    workdir = make_workdir(norms=("bin", "bn"), num_epochs=2)
    path = workdir / "bin-seed0/arrays/epoch_0002.npz"
    gates = {
        "stem_norm": [1.0, 1.0],
        "stage1_block1/norm1": [0.0, 0.2, 0.4, 0.4],
        "stage2_block1/norm1": [0.95, 1.0, 0.8, 0.9],
    }
    np.savez(path, **{f"gate/{layer}": np.float32(values) for layer, values in gates.items()})
    np.savez(path.with_name("epoch_0001.npz"), **{f"gate/{layer}": np.ones(len(v), "f4") for layer, v in gates.items()})
    study = read_study(workdir)
    (words,) = about_gates(study)
    assert "did train: after epoch 2, 70 % of the 10 lie below their start at 1" in words
    assert "30 % are at 1, 10 % at 0" in words
    assert "in stage 1, where the median is 0.30, against 1.00 in the stem and 0.92 in stage 2" in words
    assert groups(study) == {
        "stem": ["stem_norm"], "stage 1": ["stage1_block1/norm1"], "stage 2": ["stage2_block1/norm1"],
    }  # fmt: skip
    rows = {row.cells[1]: row.cells for row in gate_table(study).rows}
    assert rows["stage1_block1/norm1"][3] == "0.30" and rows["stage1_block1/norm1"][5:] == ("25", "0")


def test_frozen_gates_are_called_batch_norm(make_workdir):
    study = read_study(make_workdir(norms=("bin_frozen",), num_epochs=2))
    (words,) = about_gates(study)
    assert "are all at 1 after epoch 2" in words and "computes batch norm" in words
    (row,) = gate_table(study).rows
    assert row.cells[1] == "all layers" and row.cells[-1] == "100"


def test_the_channels_of_all_seeds_count(make_workdir):
    study = read_study(make_workdir(norms=("bin",), seeds=(0, 1), num_epochs=2))
    epochs, table = gate_paths(study)["bin"]["stem_norm"]
    assert epochs == [1, 2] and table.shape == (2, 32)


def test_no_gates_no_words(make_workdir):
    study = read_study(make_workdir(norms=("bn",), num_epochs=2))
    assert about_gates(study) == [] and gate_table(study) is None
