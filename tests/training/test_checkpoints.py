"""What a run leaves to go on from, and how signals end it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fststyle.model_file import load_model_file
from fststyle.training.callbacks import AverageWeights, Export
from fststyle.training.checkpoints import SaveCheckpoints, is_whole, newest_checkpoint, step_of, training_checkpoints
from fststyle.training.data import Photographs
from fststyle.training.signals import Stop, StopOnSignal, leave_signals, stopped_by
from fststyle.training.sources import folder
from runs import At, During, fit, make_task, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


def stop(trainer: pl.Trainer) -> None:
    trainer.should_stop = True


# --- checkpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["at its last step", "by an interrupt", "by its time"])
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(
    photographs: Path, straight: tuple[Tensor, Tensor], tmp_path: Path, end: str
) -> None:
    callbacks: list[Callback] = [AverageWeights(0.3), SaveCheckpoints(tmp_path)]
    if end == "by an interrupt":  # arrives within a step, before the state is due
        callbacks.insert(0, At(3, stop))
    elif end == "by its time":  # found out once all others had their turn
        callbacks.append(At(3, stop))
    _, trainer = fit(photographs, callbacks, 3 if end == "at its last step" else 6)
    assert trainer.global_step == 3

    average = AverageWeights(0.3)
    task, trainer = fit(photographs, [average, SaveCheckpoints(tmp_path)], 6, resume=newest_checkpoint(tmp_path))
    assert trainer.global_step == 6
    assert average.average is not None
    torch.testing.assert_close(weights(task.network), straight[0], rtol=0, atol=0)
    torch.testing.assert_close(weights(average.average.module), straight[1], rtol=0, atol=0)


def test_the_state_is_kept_every_so_many_steps_and_at_the_last_one(photographs: Path, tmp_path: Path) -> None:
    kept: list[tuple[int, list[int]]] = []

    def look(trainer: pl.Trainer) -> None:
        kept.append((trainer.global_step, [step_of(state) for state in training_checkpoints(tmp_path)]))

    saving = [SaveCheckpoints(tmp_path, every=2, keep=2), *(During(step, look) for step in range(1, 8))]
    fit(photographs, saving, 7)
    assert kept == [(0, []), (1, []), (2, [2]), (3, [2]), (4, [4, 2]), (5, [4, 2]), (6, [6, 4])]
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [7, 6]
    for state in training_checkpoints(tmp_path):
        assert torch.load(state, weights_only=True)["global_step"] == step_of(state)
        assert is_whole(state)
    assert sorted((tmp_path / "checkpoints").iterdir()) == sorted(training_checkpoints(tmp_path))


def test_the_state_is_kept_every_so_many_minutes(photographs: Path, tmp_path: Path) -> None:
    fit(photographs, [SaveCheckpoints(tmp_path, every=1000, minutes=1e-9, keep=9)], 3)
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [3, 2, 1]


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty"])
def test_a_damaged_state_is_passed_over(
    damage: str, photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(photographs, [SaveCheckpoints(tmp_path, every=1)], 3)
    newest, before = training_checkpoints(tmp_path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut short": content[:-100], "one bit": content, "empty": b""}[damage])
    assert newest_checkpoint(tmp_path) == before
    assert f"{newest} is damaged" in caplog.text
    before.write_bytes(b"")
    assert newest_checkpoint(tmp_path) is None


def test_a_run_that_goes_on_from_an_earlier_state_drops_the_later_ones(photographs: Path, tmp_path: Path) -> None:
    fit(photographs, [SaveCheckpoints(tmp_path, every=2, keep=9)], 6)
    fit(photographs, [SaveCheckpoints(tmp_path, every=100, keep=9)], 5, resume=training_checkpoints(tmp_path)[-1])
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [5, 2]


def test_a_save_that_fails_leaves_the_run_and_the_states_before(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on the size of files stands for a full disk: what was written until then must go."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> Callable[[pl.Trainer], None]:
        return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    try:
        _, trainer = fit(
            photographs, [At(3, limit(1000)), At(5, limit(before[0])), SaveCheckpoints(tmp_path, every=2)], 7
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert trainer.global_step == 7
    assert caplog.text.count("could not be saved") == 1
    assert "the checkpoint of step 4 could not be saved: [Errno 27] File too large" in caplog.text
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [7, 6]
    assert sorted((tmp_path / "checkpoints").iterdir()) == sorted(training_checkpoints(tmp_path))


def test_random_states_are_part_of_it(photographs: Path, tmp_path: Path) -> None:
    """Nothing of ours draws in a step, but a task may."""
    drawn: list[list[float]] = []

    def draw(_: pl.Trainer) -> None:
        drawn[-1] += [random.random(), float(np.random.rand()), float(torch.rand(()))]

    every = [At(step, draw) for step in range(1, 7)]
    drawn.append([])
    fit(photographs, [*every, SaveCheckpoints(tmp_path, every=3, keep=9)], 6)
    drawn.append([])
    fit(photographs, [*every, SaveCheckpoints(tmp_path)], 6, resume=training_checkpoints(tmp_path)[-1])
    assert drawn[1] == drawn[0][9:]


def test_a_run_goes_on_at_its_photograph_with_batches_of_another_size(photographs: Path, tmp_path: Path) -> None:
    fit(photographs, [SaveCheckpoints(tmp_path)], 3)  # of two
    seen: list[Tensor] = []

    class See(Callback):
        def on_train_batch_start(self, _: pl.Trainer, __: Any, batch: Any, *___: Any) -> None:
            seen.append(batch["image"])

    fit(photographs, [SaveCheckpoints(tmp_path), See()], 5, resume=newest_checkpoint(tmp_path), batch_size=3)
    data = Photographs(folder(photographs), size=32, batch_size=1, workers=0, scale=(0.6, 1.0), held_out=2)
    assert torch.equal(torch.cat(seen), torch.cat(list(itertools.islice(data.batches_from(6), 6))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every 0 steps; expected at least 1"),
        ({"minutes": 0}, "every 0 minutes; expected a number above 0, or null"),
        ({"keep": 0}, "0 checkpoints are to be kept; expected at least 1"),
    ],
)
def test_states_that_make_no_sense_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        SaveCheckpoints(tmp_path, **options)


# --- signals ----------------------------------------------------------------------------------------


def interrupt(_: pl.Trainer) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_the_run_after_the_step_with_everything_kept(photographs: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    task = make_task()
    export = Export(tmp_path / "a.safetensors", {"kind": "style", "name": "a"})
    _, trainer = fit(photographs, [StopOnSignal(), During(2, interrupt), SaveCheckpoints(tmp_path), export], 100, task)
    assert trainer.global_step == 2
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [2]
    assert load_model_file(tmp_path / "a.safetensors").metadata["steps"] == 2
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_interrupt_ends_the_run_at_once(photographs: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    twice: list[Callback] = [During(2, interrupt), During(2, interrupt)]
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(photographs, [StopOnSignal(), *twice, SaveCheckpoints(tmp_path)], 100)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning puts back what it found
    assert not training_checkpoints(tmp_path)


def test_an_interrupt_sent_to_a_decoding_worker_too_is_left_to_the_main_process(photographs: Path) -> None:
    """The terminal sends Ctrl-C to the whole group; a worker has inherited the handler."""
    heard: list[int] = []

    def fork(trainer: pl.Trainer) -> None:
        child = os.fork()
        if not child:
            try:
                interrupt(trainer)
                interrupt(trainer)
                os._exit(int(trainer.should_stop))
            except BaseException:
                os._exit(3)
        heard.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    fit(photographs, [StopOnSignal(), At(1, fork)], 1)
    assert heard == [0]


@pytest.mark.parametrize(("number", "what"), [(signal.SIGTERM, Stop.SAVE), (signal.SIGUSR1, Stop.REQUEUE)])
def test_other_signals_end_the_run_after_the_step_without_export(
    number: int, what: Stop, photographs: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    export = Export(tmp_path / "a.safetensors", {"kind": "style", "name": "a"})
    tell = During(2, lambda _: os.kill(os.getpid(), number))
    stopper = StopOnSignal()
    _, trainer = fit(photographs, [stopper, tell, SaveCheckpoints(tmp_path), export], 100)
    assert (trainer.global_step, stopper.agreed, stopped_by(trainer)) == (2, what, what)
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [2]
    assert not (tmp_path / "a.safetensors").exists()
    assert signal.getsignal(number) == before


def work_until_told(ready: Any) -> None:
    leave_signals()
    ready.set()
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers end by SIGTERM's default action here")
# (A worker under forkserver imports torch anew.)
@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_worker_ends_when_its_parent_says_so_and_no_other(method: str) -> None:
    """Under forkserver the system takes the server for its parent."""
    context = multiprocessing.get_context(method)
    ready = context.Event()
    worker = context.Process(target=work_until_told, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(60)
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # as a job's end reaches every process of it
    worker.join(0.5)
    assert worker.exitcode is None
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
