"""What encoders are trained by, against closed forms and torch's own distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from memspace.encoders.method import method_named, methods
from memspace.encoders.methods.beta_tcvae import total_correlation
from memspace.encoders.methods.dip_vae import latent_covariance
from memspace.encoders.methods.factor_vae import FactorVae
from memspace.encoders.model import Posterior
from memspace.encoders.training import begun_encoder
from memspace.errors import SettingsError
from tests.encoders.made import batch, small_images, spec


def _posterior(count: int = 30, width: int = 4, seed: int = 0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return Posterior(mean, log_variance)


def test_a_posterior_is_a_normal_law() -> None:
    laws = _posterior()
    normal = Normal(laws.mean, laws.variance.sqrt())
    assert torch.allclose(laws.from_prior(), kl_divergence(normal, Normal(0.0, 1.0)))
    z = _posterior(seed=1).mean[:7]
    assert torch.allclose(laws.log_density(z), normal.log_prob(z[:, None]))
    draws = torch.stack([laws.sample(torch.Generator().manual_seed(s)) for s in range(4000)])
    error = laws.variance.sqrt() / 4000**0.5
    assert bool(((draws.mean(0) - laws.mean).abs() < 5 * error).all())


def test_equal_posteriors_have_no_total_correlation() -> None:
    laws = Posterior(torch.zeros(20, 3, dtype=torch.float64), torch.zeros(20, 3, dtype=torch.float64))
    z = torch.randn(20, 3, dtype=torch.float64)
    assert float(total_correlation(laws, z)) == pytest.approx(0.0, abs=1e-12)


def test_latents_that_repeat_each_other_have_the_information_of_one() -> None:
    """B posteriors far apart with two equal units: q(z) and each unit have log B nats, so TC = log B."""
    place = 100 * torch.arange(16, dtype=torch.float64)[:, None].expand(16, 2)
    laws = Posterior(place, torch.zeros(16, 2, dtype=torch.float64))
    assert float(total_correlation(laws, laws.mean)) == pytest.approx(torch.tensor(16.0).log().item())


def test_the_covariance_is_that_of_draws() -> None:
    laws = _posterior(count=50, width=3)
    draws = torch.cat([laws.sample(torch.Generator().manual_seed(s)) for s in range(2000)])
    centred = draws - draws.mean(0)
    measured = centred.T @ centred / len(draws)
    spread = float(measured.diagonal().max())
    assert torch.allclose(latent_covariance(laws), measured, atol=5 * spread * (2 / 2000 / 50) ** 0.5)


@pytest.mark.parametrize("name", ["beta_vae", "beta_tcvae"])
def test_at_strength_one_it_is_a_plain_vae(name: str) -> None:
    images = small_images()
    model, plain = begun_encoder(spec("vae"), images)
    losses = [m.loss(model, batch()).item() for m in (plain, method_named(name)(spec(name), images))]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_the_judge_of_a_factor_vae_learns_and_the_encoder_does_not() -> None:
    images = small_images()
    model, made = begun_encoder(spec("factor_vae", strength=5.0), images)
    assert isinstance(made, FactorVae)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    judged = [p.clone() for p in made.parameters()]
    made.loss(model, batch()).backward()
    made.after()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(not torch.equal(a, b) for a, b in zip(judged, made.parameters(), strict=True))
    assert made.own() == []


@pytest.mark.parametrize("name", methods())
def test_a_method_costs_images_as_it_says(name: str) -> None:
    """The loss of a constant encoder is near that of constants; nothing that is told makes it less than nothing."""
    images = small_images()
    model, made = begun_encoder(spec(name), images)
    losses = made.losses(model, batch(200)).detach()
    assert losses.shape == (200,)
    assert bool(torch.isfinite(losses).all())
    assert float(losses.mean()) > 0.9 * made.constant(images)  # an untrained encoder knows nothing
    coordinates = made.coordinates(model)
    if coordinates is not None:
        assert coordinates(torch.zeros(3, 6)).shape[0] == 3


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"there is no method 'vea'.*beta_vae"):
        method_named("vea")


def test_a_supervised_encoder_needs_a_latent_a_factor() -> None:
    with pytest.raises(SettingsError, match="4 latents for 5 factors"):
        begun_encoder(spec("supervised", latents=4), small_images())
