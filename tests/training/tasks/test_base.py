"""The training loop: optimizer, Lightning, gradients that are not finite, compiling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.utils.data import DataLoader

from fststyle.training.tasks import StyleTask, base
from steps import make, pictures, train

#: Lightning's advice on loaders, loggers and modules in evaluation mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


# --- optimizer and schedule -------------------------------------------------------------------------


def test_the_optimizer_holds_the_networks_weights_and_nothing_else() -> None:
    task = make(learning_rate=3e-4)
    optimizer = task.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.Adam)
    held = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in task.network.parameters())
    assert [group["lr"] for group in optimizer.param_groups] == [3e-4]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        # (1 + cos(k π / 4)) / 2, and nothing after the last step.
        ({"schedule": "cosine", "steps": 4}, [1, 0.8535534, 0.5, 0.1464466, 0, 0]),
        ({"schedule": "cosine", "steps": 4, "warmup": 2}, [0.5, 0.8535534, 0.5, 0.1464466, 0, 0]),
    ],
)
def test_the_learning_rate_follows_its_schedule(options: dict[str, Any], expected: list[float]) -> None:
    setup = make(learning_rate=0.1, **options).configure_optimizers()
    assert setup["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in expected:
        rates.append(setup["optimizer"].param_groups[0]["lr"])
        setup["optimizer"].step()
        setup["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.1 * value for value in expected], abs=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "schedule is 'linear'; expected none or cosine"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"warmup": -1}, "warmup -1"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


class Recorder(DummyLogger):
    """Keeps what is logged: (step, name) to value."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[tuple[int | None, str], float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.values |= {(step, name): float(value) for name, value in metrics.items()}

    def named(self, name: str) -> dict[int | None, float]:
        return {step: value for (step, key), value in self.values.items() if key == name}


def loader(photographs: Tensor, batches: int) -> DataLoader[Any]:
    return DataLoader([{"image": photographs, "unreadable": []}] * batches, batch_size=None)  # type: ignore[arg-type]


def fit(task: StyleTask, steps: int, folder: Path, **options: Any) -> tuple[pl.Trainer, Recorder]:
    recorder = Recorder()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=recorder,
        default_root_dir=str(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(task, loader(pictures(2, 0.0), steps), loader(pictures(3, 0.5), 1))
    return trainer, recorder


# --- under Lightning --------------------------------------------------------------------------------


def test_every_term_is_logged_at_the_step_it_was_met(tmp_path: Path) -> None:
    totals = train(make(learning_rate=1e-2, schedule="cosine", steps=6), pictures(2, 0.0), 6)
    task = make(learning_rate=1e-2, schedule="cosine", steps=6)
    _, recorder = fit(task, 6, tmp_path, log_every_n_steps=2, val_check_interval=3, check_val_every_n_epoch=None)
    logged = recorder.named("train/total")
    assert logged == {step: pytest.approx(totals[step], rel=1e-4) for step in (1, 3, 5)}
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    terms = ["total", "tv", "content/relu2_2", *(f"style/{layer}" for layer in layers)]
    for stage in ("train", "val"):
        assert {name for _, name in recorder.values if name.startswith(f"{stage}/")} - {
            "train/images_per_second",
            "train/learning_rate",
        } == {f"{stage}/{term}" for term in terms}
    # (1 + cos(k π / 6)) / 2 at k = 1, 3, 5
    rates = {1: 0.009330127, 3: 0.005, 5: 0.000669873}
    assert recorder.named("train/learning_rate") == {
        step: pytest.approx(rate, abs=1e-8) for step, rate in rates.items()
    }
    assert set(recorder.named("train/images_per_second")) >= {3, 5}
    assert min(recorder.named("train/images_per_second").values()) > 0
    assert len(recorder.named("val/total")) == 2
    last = list(recorder.named("val/total").values())[-1]
    assert last == pytest.approx(float(task.compute_loss(pictures(3, 0.5)).total.detach()), rel=1e-5)


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors_in(inner)


def test_a_saved_state_holds_the_network_and_its_optimizer_but_no_encoder(tmp_path: Path) -> None:
    task = make("balanced")
    trainer, _ = fit(task, 2, tmp_path)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)  # nothing in it needs unpickling
    assert set(state["state_dict"]) == {f"network.{name}" for name in task.network.state_dict()}
    found = list(tensors_in(state))
    assert len(found) > 3 * len(state["state_dict"])  # weights and Adam's two moments
    for weight in task.loss.encoder.weights().values():
        assert not any(tensor.shape == weight.shape and torch.equal(tensor, weight.float()) for tensor in found)
    weights = sum(tensor.numel() for tensor in state["state_dict"].values())
    grams = 4**2 + 6**2 + 8**2 + 10**2
    assert sum(tensor.numel() for tensor in found) < 3 * weights + grams + 100


def test_a_saved_state_brings_back_what_the_loss_measures_against(tmp_path: Path) -> None:
    task = make("balanced")
    trainer, _ = fit(task, 2, tmp_path)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    other = make("balanced")
    other.style_targets = {layer: torch.zeros_like(gram) for layer, gram in other.style_targets.items()}
    other.loss.normalizers = {}
    other.on_load_checkpoint(torch.load(tmp_path / "state.ckpt", weights_only=True))
    assert other.loss.normalizers == task.loss.normalizers
    for layer, gram in task.style_targets.items():
        torch.testing.assert_close(other.style_targets[layer], gram, rtol=0, atol=0)


class Spoiled(pl.Callback):
    """Makes the gradients of some steps infinite."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.weights = steps, {}  # type: ignore[var-annotated]

    def on_after_backward(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if trainer.global_step in self.steps:
            next(task.network.parameters()).grad[0, 0, 0, 0] = math.inf  # type: ignore[union-attr, operator]

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        weights = [weight.detach().clone() for weight in task.network.parameters()]  # type: ignore[union-attr, operator]
        self.weights[trainer.global_step] = weights


def spoil(*steps: int, length: int = 5, scaled: bool = False, **options: Any) -> tuple[StyleTask, Spoiled]:
    task, spoiled = make(**options), Spoiled(*steps)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    trainer = pl.Trainer(
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)] if scaled else None,
        max_steps=length,
        accelerator="cpu",
        logger=False,
        callbacks=[spoiled],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = [{"image": pictures(2, float(n)), "unreadable": []} for n in range(length)]
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return task, spoiled


# --- gradients that are not finite -------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("scaled", [False, True], ids=["32-true", "16-mixed"])
def test_a_step_whose_gradient_is_not_finite_is_left_out_and_counted(
    optimizer: str, scaled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With and without a gradient scaler, which CPUs have as well."""
    task, spoiled = spoil(2, optimizer=optimizer, scaled=scaled)
    same = [
        all(torch.equal(a, b) for a, b in zip(spoiled.weights[n], spoiled.weights[n + 1], strict=True))
        for n in range(1, 5)
    ]
    assert same == [False, True, False, False]
    assert task.skipped.tolist() == [1, 0]
    assert all(torch.isfinite(weight).all() for weight in task.network.parameters())
    assert "left out so far, because their gradients were not finite: 1" in caplog.text


def test_too_many_such_steps_in_a_row_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_SKIPPED", 3)
    spoil(0, 1, 3, 4, length=6)
    with pytest.raises(base.NonFiniteError, match="the gradients of the last 3 steps were not finite"):
        spoil(1, 2, 3, 4, length=6)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compiled; compiling itself changes nothing here."""
    seen: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda work: seen.append(work) or (lambda images: work(images)))
    monkeypatch.setattr("fststyle.training.tasks.base._has_compiler", lambda device: True)
    return seen


# --- compiling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "steps", "expected"), [("auto", 299, 0), ("auto", 300, 1), (True, 1, 1), (False, 40_000, 0)]
)
def test_a_run_is_compiled_where_it_is_long_enough(
    compiled: list[Any], choice: bool | str, steps: int, expected: int
) -> None:
    task = make(compile=choice, steps=steps)
    for _ in range(3):
        task.objective(pictures(1, 0.0))
    assert len(compiled) == expected


@pytest.mark.parametrize("command", ["g++", "clang++", "cl"])
def test_without_a_compiler_the_run_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    task = make(compile=True)
    torch.testing.assert_close(task.objective(pictures(1, 0.0)).total, task.compute_loss(pictures(1, 0.0)).total)
    assert "no C++ compiler was found" in caplog.text
    monkeypatch.setattr("shutil.which", lambda name: name if name == command else None)
    assert base._has_compiler("cpu")


def test_a_compiler_that_fails_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(work: Any) -> Any:
        def run(images: Tensor) -> Any:
            raise TorchDynamoException("g++: internal error\nlong story")

        return run

    monkeypatch.setattr(torch, "compile", failing)
    monkeypatch.setattr("fststyle.training.tasks.base._has_compiler", lambda device: True)
    task = make(compile=True)
    for _ in range(2):
        torch.testing.assert_close(task.objective(pictures(1, 0.0)).total, task.compute_loss(pictures(1, 0.0)).total)
    assert caplog.text.count("torch.compile failed, so the run goes on without: g++: internal error") == 1
