"""Random crops and flips."""

import pytest
import torch

from model.vision.augmentation import crop_and_flip

B, H, W = 40, 6, 9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    """Images whose red rises from 0 to 1 from left to right, and green from top to bottom; blue is 0.5."""
    columns = ((torch.arange(W) + 0.5) / W).expand(H, W)
    rows = ((torch.arange(H) + 0.5) / H).unsqueeze(1).expand(H, W)
    return torch.stack([columns, rows, torch.full((H, W), 0.5)]).expand(B, 3, H, W).contiguous()


def test_whole_windows_are_the_images_or_their_mirrors(images: torch.Tensor) -> None:
    cropped = crop_and_flip(images, min_scale=1.0, generator=generator())
    same = torch.isclose(cropped, images, atol=1e-5).flatten(1).all(1)
    mirrored = torch.isclose(cropped, images.flip(3), atol=1e-5).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 8 <= int(mirrored.sum()) <= 32


def test_a_window_lies_in_the_image_and_has_its_size(images: torch.Tensor) -> None:
    cropped = crop_and_flip(images, min_scale=0.5, generator=generator())
    for channel, axis, size in ((0, 2, W), (1, 1, H)):
        plane = cropped[:, channel]
        first, last = plane.select(axis, 0).mean(1), plane.select(axis, -1).mean(1)
        window = (last - first).abs() * size / (size - 1)  # from centre to centre of the outer pixels
        assert float(window.max()) <= 1.0 + 1e-4
        assert float(window.min()) >= 0.45  # the outermost half pixel is reflected
        assert float(window.std()) > 0.05
        if channel:  # rows are never turned upside down
            assert (last > first).all()
    assert float(cropped.min()) >= 0.0
    assert float(cropped.max()) <= 1.0
    assert torch.allclose(cropped[:, 2], torch.tensor(0.5))


def test_each_image_has_a_window_of_its_own(images: torch.Tensor) -> None:
    cropped = crop_and_flip(images, min_scale=0.5, generator=generator())
    assert len({tuple(image.flatten().tolist()) for image in cropped}) == B


def test_the_generator_decides_everything(images: torch.Tensor) -> None:
    one = crop_and_flip(images, min_scale=0.5, generator=generator(1))
    assert torch.equal(one, crop_and_flip(images, min_scale=0.5, generator=generator(1)))
    assert not torch.equal(one, crop_and_flip(images, min_scale=0.5, generator=generator(2)))
