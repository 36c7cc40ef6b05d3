"""From coarse to fine: the same of pixels, images, strips and masks; as the style was trained, or as asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.images import resize_pixels, to_image, to_pixels
from fststyle.inference import StylizeOptions, Stylizer, in_regions
from fststyle.model_file import load_model_file, save_model_file
from fststyle.networks.octaves import in_octaves, resized
from fststyle.networks.transform import TransformNet
from fststyle.octaves import guided, halved, room_for


@pytest.fixture
def network() -> TransformNet:
    torch.manual_seed(0)
    return TransformNet(width=4, residual_blocks=1).eval()


def test_each_octave_sees_the_photograph_and_the_result_before() -> None:
    seen: list[Tensor] = []

    def inverted(image: Tensor) -> Tensor:
        seen.append(image)
        return 1 - image

    image = torch.rand(1, 3, 66, 130)
    output = in_octaves(inverted, image, 3)
    assert [tuple(each.shape[-2:]) for each in seen] == [(17, 33), (33, 65), (66, 130)]
    assert torch.equal(seen[0], resized(resized(image, 33, 65), 17, 33))
    assert torch.equal(seen[2], (image + resized(1 - seen[1], 66, 130)) / 2)
    assert torch.equal(output, 1 - seen[2])


def test_a_picture_gets_the_octaves_it_has_room_for() -> None:
    assert [room_for(side, 999) for side in (16, 31, 32, 63, 64, 512)] == [1, 1, 2, 2, 3, 6]
    count = 0

    def counted(image: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return image

    in_octaves(counted, torch.rand(1, 3, 40, 90), 6)
    assert count == 2
    assert halved(31, 40) == (16, 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_mean_is_rounded_and_does_not_overflow(dtype: type) -> None:
    top = np.iinfo(dtype).max
    photo, guide = np.array([0, top, top, 1], dtype), np.array([1, top, 0, 1], dtype)
    assert guided(photo, guide).tolist() == [1, top, (top + 1) // 2, 1]
    assert guided(photo, guide).dtype == dtype


@pytest.mark.parametrize("size", [(32, 41), (128, 162), (63, 50)])
def test_images_are_resized_as_pixels_are(size: tuple[int, int], astronaut: np.ndarray) -> None:
    pixels = np.ascontiguousarray(astronaut[:64, 100:181])
    away = np.abs(to_pixels(resized(to_image(pixels), *size)).astype(int) - resize_pixels(pixels, *size))
    assert away.max() <= 2
    assert away.mean() < 0.3


def test_an_image_gives_what_its_pixels_give(network: TransformNet, astronaut: np.ndarray) -> None:
    stylizer = Stylizer(network, {"octaves": 2}, device="cpu", precision="float32")
    pixels = np.ascontiguousarray(astronaut[:90, 100:181])
    fine = pixels.astype(np.uint16) * 257  # whose rounding a network that is not trained does not make visible
    away = np.abs(to_pixels(stylizer(to_image(fine)), np.uint16).astype(int) - stylizer.pixels(fine))
    assert away.max() <= 257
    assert np.abs(stylizer.pixels(pixels, StylizeOptions(octaves=1)) - stylizer.pixels(pixels).astype(int)).max() > 5


def test_a_style_is_applied_as_it_was_trained_unless_asked(
    network: TransformNet, astronaut: np.ndarray, tmp_path: Path
) -> None:
    pixels = np.ascontiguousarray(astronaut[:80, :80])
    made = {}
    for octaves in (None, 1, 3):
        about = {"kind": "style", "name": "a"} | ({} if octaves is None else {"octaves": octaves})
        save_model_file(tmp_path / "a.safetensors", network, about)
        for backend in ("torch", "openvino"):
            stylizer = Stylizer.from_checkpoint(tmp_path / "a.safetensors", "cpu", backend, "float32")
            made[octaves, backend] = stylizer.pixels(pixels)
        away = np.abs(made[octaves, "torch"].astype(int) - made[octaves, "openvino"])
        assert away.max() <= 2
        asked = stylizer.pixels(pixels, StylizeOptions(octaves=3))
        assert np.array_equal(asked, stylizer.pixels(pixels)) == (octaves == 3)
    assert np.array_equal(made[None, "torch"], made[1, "torch"])
    assert not np.array_equal(made[3, "torch"], made[1, "torch"])
    single = to_pixels(load_model_file(tmp_path / "a.safetensors").network(to_image(pixels)))
    assert np.abs(single.astype(int) - made[1, "torch"]).max() <= 1


def test_strips_give_what_the_whole_picture_gives(network: TransformNet, astronaut: np.ndarray) -> None:
    stylizer = Stylizer(network, {"octaves": 2}, device="cpu", precision="float32")
    pixels = np.ascontiguousarray(astronaut[:200, :130])
    away = np.abs(stylizer.pixels(pixels, memory=0, always=True).astype(int) - stylizer.pixels(pixels))
    assert away.max() <= 2


def test_a_mask_is_followed_in_every_octave(network: TransformNet, astronaut: np.ndarray) -> None:
    """Two styles of one network in a pass: where the mask is white, or black, throughout, each alone."""
    other = TransformNet(width=4, residual_blocks=1).eval()
    other.load_state_dict({**network.state_dict()})
    with torch.no_grad():
        for value in other.style_parameters().values():
            value.add_(torch.randn_like(value) / 4)
    styles = [Stylizer(each, {"octaves": 2}, device="cpu", precision="float32") for each in (network, other)]
    pixels = np.ascontiguousarray(astronaut[:96, :90])
    for level, alone in ((255, styles[0]), (0, styles[1])):
        joined = in_regions(styles[0], np.full((96, 90), level, np.uint8), styles[1])
        assert np.abs(joined.pixels(pixels).astype(int) - alone.pixels(pixels)).max() <= 2


@pytest.mark.parametrize("octaves", [0, 7, -1])
def test_other_numbers_are_refused(octaves: int) -> None:
    with pytest.raises(ValueError, match=rf"octaves is {octaves}; expected a whole number from 1"):
        StylizeOptions(octaves=octaves)
