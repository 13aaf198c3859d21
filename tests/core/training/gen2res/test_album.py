from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketprior.core.errors import UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.gen2res import Denoiser, build
from pocketprior.core.sampling.schedule import ddpm
from pocketprior.core.training.gen2res.album import Album, album_images, draw, guided_steps, nudge

BARS = ddpm()
SHAPE = (1, 3, 16, 24)
SHORT = Album(count=3, start=300, steps=6, skip=2, last=1)


@pytest.fixture(scope="module")
def denoiser(base: Path) -> Denoiser:
    return build(checkpoints.load(base, "gen2res"))


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(5))


def noise_of(seed: int, count: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *SHAPE[1:], generator=generator) for _ in range(8)]


class Spy(nn.Module):
    """A denoiser of a world whose pictures are all grey: x0 is 0. Notes the states it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append((round(float(t[0]), 3), x.detach()))
        bar = BARS[round(float(t[0]) * 1000) - 1]
        return torch.cat([x / (1 - bar) ** 0.5, -torch.ones_like(x)], dim=1)


def test_guidance_is_every_tenth_step_and_all_of_the_first_200() -> None:
    """G5, with the paper's 1000 steps from pure noise."""
    chosen = guided_steps(Album(start=0))
    assert {i for i in range(1000) if i in chosen} == {*range(200), *range(200, 1000, 10)}


def test_zero_zero_is_no_guidance(photo: Tensor) -> None:
    """G1: skip 0 and last 0 never touch the gradient."""
    assert guided_steps(Album(skip=0, last=0)) == set()
    spy = Spy()
    draw(spy, photo, replace(SHORT, skip=0, last=0), noise_of(0).__getitem__)
    assert [time for time, _ in spy.seen] == [0.3, 0.25, 0.2, 0.15, 0.1, 0.05]


def test_guided_steps_look_twice(photo: Tensor) -> None:
    spy = Spy()
    draw(spy, photo, SHORT, noise_of(0).__getitem__)
    assert [time for time, _ in spy.seen] == [0.3, 0.3, 0.25, 0.2, 0.2, 0.15, 0.1, 0.1, 0.05]


def test_a_picture_starts_from_the_noised_photo(photo: Tensor) -> None:
    """G3: at level K; pure noise is an option."""
    spy, noise = Spy(), noise_of(0)
    draw(spy, photo, replace(SHORT, skip=0, last=0), noise.__getitem__)
    bar = BARS[299]
    torch.testing.assert_close(spy.seen[0][1], bar**0.5 * (2 * photo - 1) + (1 - bar) ** 0.5 * noise[0])
    spy = Spy()
    draw(spy, photo, replace(SHORT, start=0, skip=0, last=0), noise.__getitem__)
    assert spy.seen[0][0] == 1.0
    torch.testing.assert_close(spy.seen[0][1], noise[0])


def test_nudge_goes_along_the_gradient_of_the_distance_itself() -> None:
    """G2, G5: the norm over all values of a picture, not squared; through the network, picture by picture."""
    torch.manual_seed(0)
    mixing = nn.Conv2d(3, 6, 3, padding=1)

    class Network(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            del t
            return mixing(x)

    x, target, bar = torch.randn(2, 3, 5, 5), torch.randn(1, 3, 5, 5), 0.5
    moved = nudge(Network(), x, target, bar, 0.2, 0.3)
    for i in range(2):
        point = x[i : i + 1].double().requires_grad_(True)
        eps = mixing.double()(point)[:, :3]
        distance = ((point - 0.5**0.5 * eps) / 0.5**0.5 - target.double()).square().sum().sqrt()
        (gradient,) = torch.autograd.grad(distance, point)
        torch.testing.assert_close(moved[i : i + 1], (point - 0.3 * gradient).detach().float(), rtol=1e-4, atol=1e-5)
        mixing.float()


def test_nudge_brings_the_estimate_nearer_to_the_photo(denoiser: Denoiser, photo: Tensor) -> None:
    x, bar = noise_of(2)[0], BARS[299]

    def distance(x: Tensor) -> float:
        with torch.no_grad():
            eps = denoiser(x, torch.tensor([0.3]))[:, :3]
        return float(((x - (1 - bar) ** 0.5 * eps) / bar**0.5 - (2 * photo - 1)).norm())

    assert distance(nudge(denoiser, x, 2 * photo - 1, bar, 0.3, 1.0)) < distance(x) - 0.5


def test_guidance_brings_pictures_nearer_to_the_photo(denoiser: Denoiser, photo: Tensor) -> None:
    noise = noise_of(3, 2)
    album = replace(SHORT, skip=1, scale=2.0)

    def distance(album: Album) -> float:
        return float((draw(denoiser, photo, album, noise.__getitem__) - photo).flatten(1).norm(dim=1).max())

    assert distance(album) < 0.9 * distance(replace(album, skip=0, last=0))


def test_no_gradient_is_left_behind(denoiser: Denoiser, photo: Tensor) -> None:
    assert not draw(denoiser, photo, SHORT, noise_of(0).__getitem__).requires_grad
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_a_picture_does_not_depend_on_those_beside_it(denoiser: Denoiser, photo: Tensor) -> None:
    together = dict(album_images(denoiser, photo, SHORT, [0, 1, 2], batch=3))
    alone = dict(album_images(denoiser, photo, SHORT, [1], batch=1))
    assert set(together) == {0, 1, 2}
    assert together[1].shape == (16, 24, 3)
    assert int(np.abs(together[1].astype(int) - alone[1]).max()) <= 1
    assert not np.array_equal(together[0], together[1])
    np.testing.assert_array_equal(dict(album_images(denoiser, photo, SHORT, [1], batch=1))[1], alone[1])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"start": 1001}, r"1\.\.1000"),
        ({"start": 200, "steps": 201}, r"1\.\.200"),
        ({"count": 0}, "at least 1"),
        ({"skip": -1}, "at least 0"),
        ({"seed": 2**64 - 1}, "seed"),
    ],
)
def test_albums_that_cannot_be_made_are_refused(changes: dict[str, int], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Album(**changes)
