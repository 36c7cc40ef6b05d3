"""Several ranks train what one does, step as one and stop as one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fststyle.images import find_pictures
from fststyle.training.callbacks import CountUnreadable
from fststyle.training.checkpoints import SaveCheckpoints, newest_checkpoint, step_of, training_checkpoints
from fststyle.training.data import Photographs
from fststyle.training.ranks import ddp
from fststyle.training.signals import Stop, StopOnSignal
from fststyle.training.sources import DataError, folder
from runs import During, fit, make_task, weights

#: No case takes a tenth of it.
PATIENCE = 300


class Pictures(Callback):
    """The photographs of each step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_start(self, _: pl.Trainer, __: Any, batch: Any, ___: int) -> None:
        self.seen.append(batch["image"].clone())


class Which(Pictures):
    """The styles of each step's photographs."""

    def on_train_batch_start(self, _: pl.Trainer, __: Any, batch: Any, ___: int) -> None:
        self.seen.append(batch["which"].clone())


def as_rank(rank: int, ranks: int, port: int, work: Callable[..., Any], arguments: tuple[Any, ...], to: Path) -> None:
    """One rank's process, set up as torchrun does it; keeps what the work returns, or raises."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "ROLE_RANK": rank}
    sizes = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": 1}
    torchrun = {**places, **sizes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    os.environ.update({key: str(value) for key, value in torchrun.items()})
    torch.set_num_threads(1)
    try:
        found = work(rank, *arguments)
    except Exception as error:
        found = error
    torch.save(found, to / f"{rank}.pt")


def on_ranks(ranks: int, work: Callable[..., Any], *arguments: Any, to: Path) -> list[Any]:
    """What a function of the rank returns, or raises, on each of several ranks; None where a rank was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        multiprocessing.get_context("spawn").Process(target=as_rank, args=(rank, ranks, port, work, arguments, to))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    try:
        for process in started:
            process.join(PATIENCE)
        assert not any(process.is_alive() for process in started), "a rank hangs"
    finally:
        for process in started:
            process.kill()
    files = [to / f"{rank}.pt" for rank in range(ranks)]
    return [torch.load(file, weights_only=False) if file.is_file() else None for file in files]


def parallel(ranks: int) -> dict[str, Any]:
    return {"strategy": ddp(timeout=2), "devices": ranks} if ranks > 1 else {}


# --- the same training ------------------------------------------------------------------------------


def train_several(_: int, photographs: Path, batch_size: int, ranks: int) -> tuple[Tensor, Tensor, dict[str, float]]:
    """The styles of each step, the weights after 6, and what is logged of each style."""
    which = Which()
    task = make_task(styles=3, steps=6, learning_rate=1e-3)
    options = {"precision": "64-true", "log_every_n_steps": 1, **parallel(ranks)}
    _, trainer = fit(photographs, [which], 6, task, None, batch_size, **options)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "styles/" in name}
    return torch.stack(which.seen), weights(task.network), logged


def train(_: int, photographs: Path, precision: str, batch_size: int, ranks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs of each step, the weights after 20, and what they make of one photograph."""
    pictures = Pictures()
    task = make_task(steps=20, learning_rate=1e-3)
    fit(photographs, [pictures], 20, task, None, batch_size, precision=precision, **parallel(ranks))
    seen = torch.stack(pictures.seen)
    with torch.no_grad():
        made = task.network.eval()(seen[-1, :1])
    return seen, weights(task.network), made


def one_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """As in the ranks: with another number the loss, calibrated in float32, would round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(*arguments)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["64-true", pytest.param("32-true", marks=pytest.mark.slow)])
def test_two_ranks_train_what_one_does_with_their_batches_together(
    precision: str, photographs: Path, tmp_path: Path
) -> None:
    alone, expected, picture = one_thread(train, 0, photographs, precision, 4, 1)
    ranks = on_ranks(2, train, photographs, precision, 2, 2, to=tmp_path)
    for found in ranks:
        assert not isinstance(found, Exception), found
    assert torch.equal(torch.cat([seen for seen, _, _ in ranks], 1), alone)  # same pictures in every step
    assert torch.equal(ranks[0][1], ranks[1][1])
    # A norm takes away again what is added to a channel before it: the gradient of such a bias is rounding alone,
    # of which Adam makes steps of the usual length.
    named = make_task().network.named_parameters()
    counts = torch.cat(
        [
            torch.full((weight.numel(),), not name.endswith(("conv.conv.bias", "transform.0.norm.bias")))
            for name, weight in named
        ]
    )
    far = {"64-true": 1e-8, "32-true": 5e-3}[precision]
    torch.testing.assert_close(ranks[0][1][counts], expected[counts], rtol=0, atol=far)
    with torch.no_grad():  # of the same photograph
        rank = make_task().network.to(picture.dtype)
        torch.nn.utils.vector_to_parameters(ranks[0][1], rank.parameters())
        found = rank.eval()(alone[-1, :1])
    torch.testing.assert_close(found, picture, rtol=0, atol={"64-true": 1e-7, "32-true": 0.05}[precision])


@pytest.mark.slow
def test_two_ranks_train_several_styles_as_one_does(photographs: Path, tmp_path: Path) -> None:
    alone, expected, logged = one_thread(train_several, 0, photographs, 4, 1)
    ranks = on_ranks(2, train_several, photographs, 2, 2, to=tmp_path)
    for found in ranks:
        assert not isinstance(found, Exception), found
    assert torch.equal(torch.cat([seen for seen, _, _ in ranks], 1), alone)
    assert torch.equal(ranks[0][1], ranks[1][1])
    named = make_task(styles=3).network.named_parameters()
    counts = torch.cat(
        [
            torch.full((weight.numel(),), not name.endswith(("conv.conv.bias", "transform.0.norm.bias")))
            for name, weight in named
        ]
    )  # as above
    torch.testing.assert_close(ranks[0][1][counts], expected[counts], rtol=0, atol=1e-8)
    assert ranks[0][2] == pytest.approx(logged)
    assert {name.rpartition("/")[2] for name in logged} == {"a", "b", "c"}


@pytest.mark.parametrize("count", [10, 11])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_over_two_epochs_every_picture_comes_exactly_twice(
    ranks: int, workers: int, count: int, photographs: Path, tmp_path: Path
) -> None:
    """Whatever divides what. Pictures are told apart by their numbers, which no crop changes."""
    for index, path in enumerate(find_pictures(photographs)[:count]):
        (tmp_path / f"{index}.jpg").symlink_to(path)
    met: Counter[int] = Counter()
    batches = []
    for rank in range(ranks):
        data = Photographs(folder(tmp_path), size=32, batch_size=2, workers=workers, held_out=1)
        data.trainer = type(  # type: ignore[assignment]
            "T", (), {"global_step": 0, "accumulate_grad_batches": 1, "global_rank": rank, "world_size": ranks}
        )
        batches.append(iter(data.train_dataloader()))
    reference = Photographs(folder(tmp_path), size=32, batch_size=1, workers=0, held_out=1)
    pictures = len(reference.indices)
    in_order = reference.batches_from(0)
    position = 0
    while position < 2 * pictures:
        for batch in batches:
            for image in next(batch)["image"]:
                assert torch.equal(image, next(in_order)[0])
                if position < 2 * pictures:
                    epoch, place = divmod(position, pictures)
                    met[picture_at(reference, epoch, place)] += 1
                position += 1
    assert sorted(met) == reference.indices
    assert set(met.values()) == {2}


def picture_at(data: Photographs, epoch: int, place: int) -> int:
    """The row of the source that the sequence holds there."""
    from fststyle.training.data import _permutation

    return data.indices[int(_permutation(data.seed, epoch, len(data.indices))[place])]


# --- stopping as one --------------------------------------------------------------------------------


def told_to_stop(rank: int, photographs: Path, folder: Path) -> tuple[int, int]:
    """Only the second rank hears the signal."""
    stopper = StopOnSignal()
    tell = During(3, lambda _: os.kill(os.getpid(), signal.SIGTERM) if rank == 1 else None)
    _, trainer = fit(photographs, [stopper, tell, SaveCheckpoints(folder)], 1000, **parallel(2))
    return trainer.global_step, int(stopper.agreed)


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_in_the_same_step(photographs: Path, tmp_path: Path) -> None:
    assert on_ranks(2, told_to_stop, photographs, tmp_path, to=tmp_path) == [(3, Stop.SAVE)] * 2
    assert [step_of(state) for state in training_checkpoints(tmp_path)] == [3]


class Poison(Callback):
    """One rank's pictures are not finite from a step on."""

    def __init__(self, rank: int, steps: range) -> None:
        self.rank, self.steps = rank, steps

    def on_train_batch_start(self, trainer: pl.Trainer, _: Any, batch: Any, __: int) -> None:
        if trainer.global_rank == self.rank and trainer.global_step in self.steps:
            batch["image"].fill_(float("nan"))


def poisoned(_: int, photographs: Path, folder: Path, steps: range) -> tuple[int, Tensor]:
    callbacks = [Poison(1, steps), SaveCheckpoints(folder, every=5)]
    task, trainer = fit(photographs, callbacks, 200, log_every_n_steps=10, **parallel(2))
    return trainer.global_step, weights(task.network)


@pytest.mark.slow
def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_all(photographs: Path, tmp_path: Path) -> None:
    first, second = on_ranks(2, poisoned, photographs, tmp_path, range(3, 6), to=tmp_path)
    assert first[0] == second[0] == 200
    assert torch.isfinite(first[1]).all()
    assert torch.equal(first[1], second[1])


@pytest.mark.slow
def test_one_rank_that_stays_not_finite_stops_all_with_one_message(photographs: Path, tmp_path: Path) -> None:
    for error in on_ranks(2, poisoned, photographs, tmp_path, range(3, 10**6), to=tmp_path):
        assert "the gradients of the last" in str(error)
    state = newest_checkpoint(tmp_path)
    assert state is not None
    network = torch.load(state, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in network.values())


def unreadable(rank: int, photographs: Path, bad: Path) -> None:
    fit(bad if rank else photographs, [CountUnreadable(0.05)], 1000, **parallel(2))


@pytest.mark.slow
def test_too_many_unreadable_pictures_on_one_rank_stop_all(photographs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for index, path in enumerate(find_pictures(photographs)):
        content = path.read_bytes()
        (bad / path.name).write_bytes(content if index % 3 else content[:200])
    for error in on_ranks(2, unreadable, photographs, bad, to=tmp_path):
        assert isinstance(error, DataError)
        assert "cannot be read, more than data.max_unreadable=0.05 allows" in str(error)


def dying(rank: int, photographs: Path, folder: Path) -> None:
    die = During(6, lambda _: os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else None)
    fit(photographs, [die, SaveCheckpoints(folder, every=2)], 1000, **parallel(2))


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_with_a_good_state_behind(photographs: Path, tmp_path: Path) -> None:
    left, killed = on_ranks(2, dying, photographs, tmp_path, to=tmp_path)
    assert killed is None
    assert isinstance(left, Exception)
    state = newest_checkpoint(tmp_path)
    assert state is not None
    assert step_of(state) == 4


@pytest.mark.parametrize("minutes", [0, -1])
def test_a_timeout_of_nothing_is_refused(minutes: float) -> None:
    with pytest.raises(ValueError, match="expected a number above 0"):
        ddp(minutes)
