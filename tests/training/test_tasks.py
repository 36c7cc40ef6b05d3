"""A training step: what it computes, what it changes, what it saves."""

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
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils.data import DataLoader

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import LossTerms, PerceptualLoss, checkerboard_loss, measure_normalizers, stability_loss
from fststyle.networks.styleswap import InverseNet, swap
from fststyle.networks.superres import SuperResNet, reduce
from fststyle.networks.transform import TransformNet
from fststyle.training.tasks import InverseTask, StyleTask, SuperResTask, Task, base, random_rotation_map, rotated

#: Lightning's advice on loaders, loggers and modules in evaluation mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")

LOSSES: dict[str, dict[str, Any]] = {
    "johnson": {"tv_weight": 1e-3},
    "balanced": {"balanced": True, "style_form": "mean", "content_layers": {"relu2_2": 1.0, "relu3_3": 3.0}},
}


def pictures(count: int, phase: float) -> Tensor:
    """Smooth pictures (count, 3, 32, 32) that no random generator and no file decides."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 32), indexing="ij")
    waves = [torch.sin((1 + i) * x + (2 + c) * y * math.cos(i) + c + phase) for i in range(count) for c in range(3)]
    return (0.5 + 0.4 * torch.stack(waves)).view(count, 3, 32, 32)


def make(loss: str = "johnson", **options: Any) -> StyleTask:
    torch.manual_seed(0)
    network = TransformNet(width=4, residual_blocks=1, upsampling="nearest")  # as when GOLDEN was taken
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
    compute_loss = PerceptualLoss(encoder, **LOSSES[loss])
    targets = compute_loss.style_targets(pictures(1, 2.0))
    compute_loss.normalizers = measure_normalizers(compute_loss, [pictures(3, 1.0)], targets)
    paper = {"learning_rate": 1e-3, "schedule": "none", "warmup": 0, "checkerboard_weight": 0.0, "optimizer": "adam"}
    return StyleTask(network, compute_loss, targets, **{"compile": False, "margin": 0, **paper, **options})


def train(task: Task, photographs: Any, steps: int, precision: torch.dtype | None = None) -> list[float]:
    """What each step finds, by hand: no trainer."""
    setup = task.configure_optimizers()
    optimizer, scheduler = setup["optimizer"], setup["lr_scheduler"]["scheduler"]
    totals = []
    for _ in range(steps):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            total = task.objective(photographs).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        scheduler.step()
        totals.append(float(total.detach()))
    return totals


# --- what a step computes ---------------------------------------------------------------------------

#: Totals of three steps, and the terms before them, recorded when the first styles were trained.
GOLDEN: dict[str, Any] = {
    "johnson": {
        "terms": {
            "total": 357.656,
            "content/relu2_2": 5.659235,
            "style/relu1_2": 1.988974,
            "style/relu2_2": 43.58181,
            "style/relu3_3": 23.87485,
            "style/relu4_3": 0.948559,
            "tv": 25.79422,
        },
        "totals": [357.656, 403.4397, 25.94667],
    },
    "balanced": {
        "terms": {
            "total": 18.08179,
            "content/relu2_2": 1.107802,
            "content/relu3_3": 1.472133,
            "style/relu1_2": 1.409748,
            "style/relu2_2": 4.655685,
            "style/relu3_3": 3.917012,
            "style/relu4_3": 3.37815,
        },
        "totals": [18.08179, 42.60839, 3.652471],
    },
}


@pytest.mark.parametrize("loss", LOSSES)
def test_three_steps_give_the_recorded_losses(loss: str) -> None:
    """Nothing says that these values are right; but should they change, the arithmetic of training did."""
    task = make(loss, learning_rate=1e-2)
    photographs = pictures(2, 0.0)
    terms = {name: float(value.detach()) for name, value in task.compute_loss(photographs).scalars().items()}
    assert terms == pytest.approx(GOLDEN[loss]["terms"], rel=1e-4)
    assert train(task, photographs, 3) == pytest.approx(GOLDEN[loss]["totals"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not base._has_compiler("cpu"), reason="no C++ compiler")
def test_compiled_steps_give_the_recorded_losses() -> None:
    task = make("balanced", learning_rate=1e-2, compile=True)
    found = train(task, pictures(2, 0.0), 3)
    assert hasattr(task._compiled, "_torchdynamo_orig_callable")
    assert found == pytest.approx(GOLDEN["balanced"]["totals"], rel=1e-3)


def test_steps_in_low_precision_stay_close() -> None:
    kinds = (None, torch.bfloat16)
    full, low = (train(make("balanced", learning_rate=1e-3), pictures(2, 0.0), 3, kind) for kind in kinds)
    assert low != full
    assert low == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_twenty_steps_on_one_batch_lower_its_loss(loss: str) -> None:
    totals = train(make(loss, learning_rate=1e-2), pictures(2, 0.0), 20)
    assert totals[-1] < 0.7 * totals[0]


def test_a_batch_costs_the_mean_of_its_photographs() -> None:
    task = make()
    photographs = pictures(4, 0.0)
    alone = [float(task.compute_loss(photograph[None]).total.detach()) for photograph in photographs]
    assert float(task.compute_loss(photographs).total.detach()) == pytest.approx(sum(alone) / 4, rel=1e-5)


def test_gradients_reach_every_weight_of_the_network_and_nothing_else() -> None:
    task = make()
    task.compute_loss(pictures(2, 0.0)).total.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights_of(task.network))
    assert [name for name, _ in task.named_parameters() if not name.startswith("network.")] == []
    assert not any(value.requires_grad for value in task.loss.encoder.weights().values())


def weights_of(network: nn.Module) -> Iterator[Tensor]:
    """But for biases in front of an instance norm, which takes any constant away again."""
    for name, weight in network.named_parameters():
        if not name.endswith("conv.bias") or name == "decode.2.conv.bias":
            yield weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_samples": 0}, "style_samples is 0; expected at least 1, or null"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; expected adam or muon"),
    ],
)
def test_what_a_style_task_cannot_use_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_training_samples_positions_and_validation_takes_all() -> None:
    task = make(style_samples=7)
    asked: list[int | None] = []

    def compute_loss(*_: Any, samples: int | None = None, **__: Any) -> LossTerms:
        asked.append(samples)
        return LossTerms(total=torch.zeros(()))

    task.loss.forward = compute_loss  # type: ignore[method-assign]
    task.compute_loss(pictures(2, 1.0), regularized=True)
    task.compute_loss(pictures(2, 1.0))
    assert asked == [7, None]


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


# --- under Lightning --------------------------------------------------------------------------------


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


# --- gradients that are not finite -------------------------------------------------------------------


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


# --- compiling --------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compiled; compiling itself changes nothing here."""
    seen: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda work: seen.append(work) or (lambda images: work(images)))
    monkeypatch.setattr("fststyle.training.tasks.base._has_compiler", lambda device: True)
    return seen


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


# --- super-resolution -------------------------------------------------------------------------------


def enlarging(loss: str, **options: Any) -> SuperResTask:
    torch.manual_seed(0)
    network = SuperResNet(4, width=6, residual_blocks=1)
    if loss == "pixel":
        compute_loss = PerceptualLoss(None, [], [], content_weight=0, style_weight=0, pixel_weight=1)
    else:
        encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
        compute_loss = PerceptualLoss(encoder, ["relu2_2"], [], style_weight=0)
    return SuperResTask(network, compute_loss, **{"compile": False, "checkerboard_weight": 0.0, **options})


@pytest.mark.parametrize("loss", ["pixel", "feature"])
def test_super_resolution_judges_the_enlarged_against_the_photograph(loss: str) -> None:
    task, photographs = enlarging(loss, blur=0.5), pictures(2, 0.0).repeat(1, 1, 2, 2)
    with torch.no_grad():
        output = task.network(reduce(photographs, 4, 0.5))
        if loss == "pixel":
            expected = (output - photographs).square().mean()
        else:
            assert task.loss.encoder is not None
            found, wanted = (task.loss.encoder(x, ["relu2_2"])["relu2_2"] for x in (output, photographs))
            expected = (found - wanted).square().mean()
        torch.testing.assert_close(task.compute_loss(task.inputs({"image": photographs})).total, expected)


@pytest.mark.parametrize("loss", ["pixel", "feature"])
def test_super_resolution_is_learned(loss: str) -> None:
    task = enlarging(loss, learning_rate=3e-3)
    totals = train(task, task.inputs({"image": pictures(4, 0.3).repeat(1, 1, 2, 2)}), 40)
    assert totals[-1] < 0.7 * totals[0]


def test_super_resolution_is_kept_from_weaving_by_what_repeats_in_its_errors() -> None:
    task, photographs = enlarging("pixel", checkerboard_weight=7.0), pictures(2, 0.0).repeat(1, 1, 2, 2)
    with torch.no_grad():
        error = task.network(reduce(photographs, 4, 1.0)) - photographs
        expected = error.square().mean() + 7 * checkerboard_loss(error)
        torch.testing.assert_close(task.objective(task.inputs({"image": photographs})).total, expected)
        torch.testing.assert_close(task.compute_loss(task.inputs({"image": photographs})).total, error.square().mean())


def test_super_resolution_may_be_judged_turned() -> None:
    task, photographs = enlarging("pixel", random_rotation=True), pictures(2, 0.0).repeat(1, 1, 2, 2)
    with torch.no_grad():
        inputs = task.inputs({"image": photographs})
        error = task.network(reduce(photographs, 4, 1.0)) - photographs
        torch.testing.assert_close(task.compute_loss(inputs).total, error.square().mean())
        torch.testing.assert_close(task.objective(inputs).total, rotated(error, inputs[1]).square().mean())
    assert torch.equal(inputs[1], random_rotation_map(0))
    assert not torch.equal(inputs[1], random_rotation_map(1))


def test_a_turn_stays_within_the_picture_and_keeps_angles() -> None:
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    for step in range(50):
        turn = random_rotation_map(step)
        assert (corners @ turn.T).abs().max() <= 1 + 1e-6
        square = turn[:, :2] @ turn[:, :2].T
        torch.testing.assert_close(square, square[0, 0] * torch.eye(2))
        assert square[0, 0] > 1 / 3.4
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(rotated(image, quarter), image.rot90(1, (2, 3)), rtol=0, atol=1e-6)


def test_a_preview_of_super_resolution_is_of_the_photographs_size() -> None:
    task = enlarging("pixel")
    assert task.show(torch.rand(1, 3, 64, 64), task.network).shape == (1, 3, 64, 64)


def test_networks_that_do_not_fit_the_task_are_refused() -> None:
    compute_loss = PerceptualLoss(None, [], [], content_weight=0, style_weight=0, pixel_weight=1)
    with pytest.raises(ValueError, match="superres_x4"):
        SuperResTask(TransformNet(width=2, residual_blocks=0), compute_loss)
    with pytest.raises(ValueError, match="keeps the size"):
        StyleTask(SuperResNet(4, width=2), compute_loss, {})
    with pytest.raises(ValueError, match="blur is -1"):
        SuperResTask(SuperResNet(4, width=2), compute_loss, blur=-1)


# --- style swap -------------------------------------------------------------------------------------


def inverting(**options: Any) -> InverseTask:
    torch.manual_seed(0)
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16", name="small")
    compute_loss = PerceptualLoss(encoder, ["relu3_1"], [], style_weight=0)
    return InverseTask(InverseNet(8), compute_loss, **{"compile": False, "pixel_weight": 0.0, **options})


def both(count: int) -> dict[str, Tensor]:
    return {"image": pictures(count, 0.0), "style": pictures(count, 2.0)}


def test_style_swap_decodes_photographs_styles_and_every_swap_of_them() -> None:
    task = inverting()
    found, known = task.inputs(both(2))
    assert torch.equal(known, torch.cat([*both(2).values()]))
    assert task.loss.encoder is not None
    content, style = (task.loss.encoder(x, ["relu3_1"])["relu3_1"] for x in both(2).values())
    assert found.shape == (8, 8, 8, 8)
    assert torch.equal(found[:4], torch.cat([content, style]))
    for place, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(found[4 + place], swap(content[i : i + 1], style[j : j + 1])[0])


def test_style_swap_judges_a_picture_by_the_features_it_was_made_of() -> None:
    task = inverting()
    features, known = task.inputs(both(1))
    with torch.no_grad():
        picture = task.network(features)
        assert task.loss.encoder is not None
        expected = (task.loss.encoder(picture, ["relu3_1"])["relu3_1"] - features).square().mean()
        torch.testing.assert_close(task.compute_loss((features, known)).total, expected)
    assert not features.requires_grad


def test_style_swap_is_learned() -> None:
    task = inverting(learning_rate=3e-3)
    totals = train(task, task.inputs(both(2)), 30)
    assert totals[-1] < 0.8 * totals[0]


def test_style_swap_learns_colours_of_pictures_that_are_known() -> None:
    task = inverting(pixel_weight=3.0)
    features, known = task.inputs(both(1))
    with torch.no_grad():
        expected = task.compute_loss((features, known)).total + 3 * (task.network(features)[:2] - known).square().mean()
        torch.testing.assert_close(task.objective((features, known)).total, expected)


def test_the_encoder_goes_along_as_deep_as_it_is_needed() -> None:
    weights, told = inverting().exported()
    assert weights is not None
    assert {key.split(".")[0] for key in weights} == {
        *("preprocess", "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"),
    }
    assert (told["encoder"]["name"], told["encoder"]["layer"]) == ("small", "relu3_1")


def test_a_preview_of_style_swap_is_in_the_style_of_the_last_batch() -> None:
    task = inverting()
    photograph = pictures(1, 1.0)
    plain = task.show(photograph, task.network)
    task.inputs(both(1))
    assert plain.shape == photograph.shape
    assert not torch.equal(task.show(photograph, task.network), plain)


def test_what_does_not_fit_style_swap_is_refused() -> None:
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
    one = PerceptualLoss(encoder, ["relu3_1"], [], style_weight=0)
    with pytest.raises(ValueError, match="has 8 channels"):
        InverseTask(InverseNet(64), one)
    with pytest.raises(ValueError, match="one content layer"):
        InverseTask(InverseNet(8), PerceptualLoss(encoder, ["relu3_1", "relu2_2"], [], style_weight=0))
    with pytest.raises(ValueError, match="network=inverse"):
        InverseTask(TransformNet(width=2, residual_blocks=0), one)
    with pytest.raises(ValueError, match="stride is 4"):
        InverseTask(InverseNet(8), one, stride=4)


def test_a_stability_weight_adds_the_stability_loss_of_the_steps_warp() -> None:
    task = make(stability_weight=3.0)
    photographs = task.inputs({"image": pictures(2, 0.0)})
    assert float(task.warp.abs().max()) > 0
    with torch.no_grad():
        torch.manual_seed(0)
        more = task.compute_loss(photographs, regularized=True).total - task.compute_loss(photographs).total
        torch.manual_seed(0)
        expected = 3 * stability_loss(
            task.network, photographs, task.network(photographs), task.warp, task.gain, 2 / 255
        )
    assert float(more) == pytest.approx(float(expected), rel=1e-3)
