import io

from rich.console import Console

from jaxnorm.study.config import Config
from jaxnorm.study.runs import progress
from jaxnorm.study.runs.progress import Display

TEAM = [Config(norm="bn", seed=seed, batch_size=8, num_epochs=10) for seed in (0, 1)]
ROW = dict(epoch=3, train_loss=0.5, train_accuracy=0.5, val_loss=0.5, val_accuracy=0.5, seconds=3.0)


def test_the_time_left_counts_the_images_of_all_runs_that_train_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    console = Console(file=io.StringIO(), width=200)
    with Display(console, total_images=2 * 10 * 8, num_runs=2) as display:
        display.begin(TEAM, 1)
        for step in (1, 2, 3):
            now[0] += 1
            for config in TEAM:
                display.stepped(config, step)
        display.epoch(TEAM[1], ROW)
    assert console.file.getvalue().splitlines() == [
        "bn-seed0 and 1 more seed: compiling",
        "bn-seed1: epoch 3/10  train loss 0.5000  train 50.0 %  val loss 0.5000  val 50.0 %  3.0 s  7 s left",
    ]


def test_a_run_alone_is_told_of_by_its_name(monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    with Display(console, total_images=80, num_runs=1) as display:
        display.begin(TEAM[:1], 1)
        display.resume(TEAM[0], 4)
        display.note(TEAM[0], "something")
        display.end(TEAM[0], "over")
    names = ["compiling", "going on after step 4", "something", "over"]
    assert console.file.getvalue().splitlines() == [f"bn-seed0: {words}" for words in names]
