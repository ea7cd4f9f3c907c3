"""The harness of the benchmarks, with contenders whose times are made up."""

import json
import sys

import pytest

from benchmarks import archive, devices, side_by_side, timing
from jaxnorm.errors import UserError


def counting(log, name, seconds):
    def run(count):
        log.append((name, count))
        return seconds * count

    return run


def test_contenders_take_turns_and_every_other_round_is_reversed():
    log = []
    clocks = {"slow": counting(log, "slow", 0.5), "fast": counting(log, "fast", 0.1)}
    taken = timing.in_turn(clocks, rounds=3, seconds=1.0)
    assert log[-6:] == [("fast", 10), ("slow", 2), ("slow", 2), ("fast", 10), ("fast", 10), ("slow", 2)]
    assert {name: len(times) for name, times in taken.items()} == {"slow": 3, "fast": 3}
    assert taken["slow"] == pytest.approx([0.5] * 3) and taken["fast"] == pytest.approx([0.1] * 3)


def test_a_measurement_has_at_least_one_call():
    log = []
    timing.in_turn({"one": counting(log, "one", 5.0)}, rounds=1, seconds=1.0)
    assert log[-1] == ("one", 1)


def test_a_ratio_compares_times_of_the_same_round():
    assert timing.over([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])[1] == 2.0
    assert timing.over([3.0], [2.0]) == [1.5, 1.5, 1.5]


def test_raw_results_name_the_command_and_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/growth.py", "--norm", "gn"])
    timing.keep(tmp_path / "new" / "growth.json", results=[1.5])
    found = json.loads((tmp_path / "new" / "growth.json").read_text())
    assert found["results"] == [1.5] and found["command"] == "benchmarks/growth.py --norm gn"
    assert {"processor", "cores", "devices", "python", "jax", "flax"} <= set(found["machine"])


def test_the_json_flag_without_a_file_has_a_place_in_the_repository(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/growth.py"])
    parser = timing.parser("", rounds=3)
    assert parser.parse_args([]).json is None
    assert parser.parse_args(["--json"]).json == timing.RESULTS / "growth.json"
    assert parser.parse_args(["--json", "x.json"]).json.name == "x.json"


def test_a_worker_answers_until_it_is_closed_and_a_failure_is_an_answer(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(timing.RESULTS.parents[1])!r})\n"
        "from benchmarks import timing\n"
        "timing.serve(lambda request: {'seconds': 1 / request})\n"
    )
    monkeypatch.setattr(sys, "argv", [str(script)])
    worker = timing.Worker()
    assert worker.ask(4) == {"seconds": 0.25}
    assert "ZeroDivisionError" in worker.ask(0)["error"]
    assert worker.ask(1) == {"seconds": 1.0}
    worker.close()


def test_a_worker_that_has_died_answers_with_an_error(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text("import os\nos._exit(1)\n")
    monkeypatch.setattr(sys, "argv", [str(script)])
    worker = timing.Worker()
    assert [worker.ask(1), worker.ask(2)] == [{"error": "the process ended"}] * 2
    worker.close()


def test_exchanged_bytes_are_read_off_the_program():
    program = """
      %a = f32[16,3]{1,0} all-reduce(%x), replica_groups={}
      %b = (f32[4]{0}, bf16[2,2]{1,0}) all-reduce-start(%y, %z)
      %c = f32[8]{0} collective-permute(%w)
      %d = f32[100]{0} add(%w, %w)
    """
    assert devices.exchanged(program) == {"all-reduce": 16 * 3 * 4 + 16 + 8, "collective-permute": 32}


def finished_run(out, name, size=1000):
    folder = out / "runs" / name
    folder.mkdir(parents=True)
    for file in ("manifest.json", "config.json", "provenance.json", "metrics.jsonl", "result.json"):
        (folder / file).write_text('{"status": "complete"}')
    for file in ("predictions.npz", "model.safetensors"):
        (folder / file).write_bytes(b"x" * (size // 2))
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_archives_hold_all_that_is_needed_to_go_on_elsewhere(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    finished_run(here, "bn-seed0")
    unfinished = finished_run(here, "gn-seed0")
    (unfinished / "result.json").write_text('{"status": "crashed"}')
    for step in ("step_00000001", "step_00000002"):
        (unfinished / "checkpoints" / step / "arrays").mkdir(parents=True)
        (unfinished / "checkpoints" / step / "arrays" / "a").write_text(step)
    (here / "speed.json").write_text("{}")
    (here / "runs" / "study.json").write_text("{}")
    expected = {k: v for k, v in contents(here).items() if "step_00000001" not in str(k)}
    (archived,) = archive.pack(here)
    there.mkdir()
    (there / "result.tar").write_bytes(archived.read_bytes())
    assert archive.unpack(there)
    (there / "result.tar").unlink()
    assert contents(there) == expected
    assert not archive.unpack(there)


def test_a_damaged_archive_leaves_everything_as_it_was(tmp_path):
    finished_run(tmp_path / "here", "bn-seed0", size=100_000)
    (whole,) = archive.pack(tmp_path / "here")
    (tmp_path / "result.tar").write_bytes(whole.read_bytes()[:50_000])
    with pytest.raises(UserError, match="result.tar is damaged"):
        archive.unpack(tmp_path)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "result.tar").write_bytes(whole.read_bytes())
    assert archive.unpack(tmp_path) and (tmp_path / "runs" / "bn-seed0" / "predictions.npz").exists()


def test_archives_of_an_earlier_time_do_not_remain(tmp_path):
    (tmp_path / "result-2.tar").write_bytes(b"old")
    (tmp_path / "result-of-mine.tar").write_bytes(b"not ours")
    finished_run(tmp_path, "bn-seed0")
    assert archive.pack(tmp_path) == [tmp_path / "result.tar"]
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["result-of-mine.tar", "result.tar"]


def test_runs_that_do_not_fit_into_one_archive_are_in_the_next(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for seed in range(5):
        finished_run(here, f"bn-seed{seed}", size=6_000_000)
    expected = contents(here)
    archives = archive.pack(here)
    assert [path.name for path in archives] == ["result.tar", "result-2.tar", "result-3.tar"]
    assert all(path.stat().st_size < 16_000_000 for path in archives)
    there.mkdir()
    for path in archives:
        path.rename(there / path.name)
    archive.unpack(there)
    assert {k: v for k, v in contents(there).items() if k.suffix != ".tar"} == expected


def program(contender, rate):
    return dict(contender=contender, norm="bn", batch_size=128, steps_per_call=312, images_per_second=rate, error=None)


def way(jobs, rate, *, mps=False, graphs=True):
    return dict(jobs=jobs, images_per_second=rate, mps=mps, graphs=graphs, error=None)


@pytest.mark.parametrize(
    "jobs, expected",
    [
        ([], dict(jobs=1, mps=False)),
        ([way(1, 70.0), way(2, 72.0), way(4, 73.0)], dict(jobs=1, mps=False)),
        ([way(1, 70.0), way(2, 99.0), way(4, 100.0)], dict(jobs=2, mps=False)),
        ([way(1, 70.0), way(2, 80.0), way(1, 69.0, mps=True), way(4, 150.0, mps=True)], dict(jobs=4, mps=True)),
    ],
)
def test_more_runs_at_a_time_only_where_that_is_faster(jobs, expected):
    best = side_by_side.best_way({"programs": [program("jaxnorm", 60.0), program("graphs", 70.0)], "jobs": jobs})
    assert {name: best[name] for name in expected} == expected
    assert best["xla_flags"] == side_by_side.GRAPHS
