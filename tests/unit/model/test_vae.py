from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from medddpm.model.blocks import NormedConv, space_to_depth
from medddpm.model.codec import LatentCodec
from medddpm.model.fidelity import FidelityDecoder
from medddpm.model.monai_vae import StemmedAutoencoderKL
from medddpm.model.shrinkage import Evidence, Shrinkage
from medddpm.model.vae import CompactVae, kl_divergence


def small_vae() -> CompactVae:
    torch.manual_seed(0)
    return CompactVae(6, 4, 8, 8, 1, 1)


@pytest.mark.parametrize("make", [small_vae, lambda: StemmedAutoencoderKL(6, 4, (16, 16))])
def test_both_autoencoders_have_one_interface(make: object) -> None:
    assert callable(make)
    vae = make()
    x = torch.rand(2, 1, 16, 8, 8)
    mean, std = vae.encode(x)
    assert mean.shape == std.shape == (2, 6, 4, 2, 2)
    assert (std > 0).all()
    assert vae.decode(mean).shape == x.shape
    recon, mean, std = vae(x)
    assert recon.shape == x.shape


def test_pca_start_is_the_best_linear_codec() -> None:
    """With the convolutions silenced, the round trip is the projection on the principal axes."""
    torch.manual_seed(1)
    vae = small_vae()
    basis = torch.linalg.qr(torch.randn(64, 6))[0]
    blocks = torch.randn(4000, 6) @ basis.T + 0.5
    kept = vae.start_from_pca(blocks)
    assert float(kept) == pytest.approx(1, abs=1e-5)
    for head in (vae.encoder[-1], vae.decoder[-1]):
        torch.nn.init.zeros_(head.weight)
    x = torch.randn(1, 6, 2, 2, 2)
    image_blocks = torch.einsum("cl,blxyz->bcxyz", basis, x) + 0.5
    z = vae.analysis(image_blocks)
    torch.testing.assert_close(vae.synthesis(z), image_blocks, atol=1e-4, rtol=0)
    latents = vae.analysis(blocks[:, :, None, None, None])
    torch.testing.assert_close(latents.std(dim=0).flatten(), torch.ones(6), atol=0.05, rtol=0)


def test_kl_of_the_prior_is_zero_and_grows_with_the_mean() -> None:
    zero, one = torch.zeros(10), torch.ones(10)
    assert float(kl_divergence(zero, one)) == pytest.approx(0, abs=1e-6)
    assert float(kl_divergence(one, one)) == pytest.approx(0.5, abs=1e-6)


def test_the_codec_standardises_and_undoes_it() -> None:
    vae = small_vae()
    codec = LatentCodec(vae, 6, 4)
    x = torch.rand(8, 1, 16, 16, 16)
    raw = vae.encode(x)[0].double()
    codec.set_statistics(
        raw.sum(dim=(0, 2, 3, 4)), raw.square().sum(dim=(0, 2, 3, 4)), raw[:, 0].numel()
    )
    z = codec.encode(x)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3, 4)), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        z.std(dim=(0, 2, 3, 4), correction=0), torch.ones(6), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(codec.decode(z), vae.decode(vae.encode(x)[0]), atol=1e-4, rtol=0)


def test_the_noise_gain_is_that_of_the_encoder() -> None:
    codec = LatentCodec(small_vae(), 6, 4)
    x = torch.rand(2, 1, 32, 32, 32)
    codec.measure_noise_gain(x, 0.05, torch.Generator().manual_seed(0))
    first = float(codec.latent_noise_gain)
    codec.latent_std.fill_(0.5)
    codec.measure_noise_gain(x, 0.05, torch.Generator().manual_seed(0))
    assert float(codec.latent_noise_gain) == pytest.approx(2 * first, rel=1e-3)


def fidelity_inputs(sigma: float) -> tuple[Evidence, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    y = torch.rand(1, 1, 16, 16, 16)
    level = torch.full((1, 1, 1, 1, 1), sigma)
    evidence: Evidence = Shrinkage()(y, level, torch.ones(1, 3), torch.tensor([1]))
    rest = {
        "z0": torch.randn(1, 6, 4, 4, 4),
        "prior": torch.rand(1, 1, 16, 16, 16),
        "angle": torch.full((1,), math.pi / 2),
    }
    return evidence, rest


def small_decoder() -> FidelityDecoder:
    decoder = FidelityDecoder(6, 4, (8, 8, 8), 1, 16)
    with torch.no_grad():  # a fresh one does not use its conditions yet
        for name, parameter in decoder.named_parameters():
            if name.endswith("film_gain"):
                parameter.fill_(0.5)
    return decoder.eval()


def test_without_noise_the_fidelity_decoder_returns_the_scan() -> None:
    evidence, rest = fidelity_inputs(1e-6)
    restored = small_decoder()(evidence, **rest)
    torch.testing.assert_close(restored, evidence.y, atol=1e-4, rtol=0)


def test_a_constant_map_is_the_same_as_its_number() -> None:
    decoder = small_decoder()
    evidence, rest = fidelity_inputs(0.1)
    number = decoder.error(evidence, **rest)
    as_map = replace(evidence, sigma=evidence.sigma.expand_as(evidence.y))
    torch.testing.assert_close(decoder.error(as_map, **rest), number)


@pytest.mark.parametrize(
    "changed",
    ["y", "base", "sigma", "spacing", "coefficients", "power", "z0", "prior", "angle"],
)
def test_all_that_is_known_matters(changed: str) -> None:
    decoder = small_decoder()
    evidence, rest = fidelity_inputs(0.1)
    before = decoder.error(evidence, **rest)
    if changed in rest:
        rest[changed] = rest[changed] * 0.5
    else:
        evidence = replace(evidence, **{changed: getattr(evidence, changed) * 0.5})
    assert (decoder.error(evidence, **rest) - before).abs().max() > 1e-5


def test_a_supervised_denoiser_does_not_see_the_latent() -> None:
    torch.manual_seed(2)
    decoder = FidelityDecoder(6, 4, (8, 8, 8), 1, 16, prior=False).eval()
    evidence, rest = fidelity_inputs(0.1)
    before = decoder.error(evidence, **rest)
    assert before.abs().max() > 1e-3
    for name in rest:
        changed = rest | {name: rest[name] * 0.5}
        assert torch.equal(decoder.error(evidence, **changed), before)


def test_filters_keep_unit_norm_in_training_and_out_of_it() -> None:
    torch.manual_seed(1)
    conv = NormedConv(4, 6)
    with torch.no_grad():
        conv.weight.mul_(7)
    x = torch.randn(1, 4, 12, 12, 12)
    calm = conv.eval()(x)
    trained = conv.train()(x)
    torch.testing.assert_close(calm, trained)
    assert float(trained.detach()[..., 1:-1, 1:-1, 1:-1].std()) == pytest.approx(1, rel=0.2)
    assert float(conv.weight.detach().square().mean()) == pytest.approx(1, rel=1e-4)


def test_the_stem_order_is_that_of_the_pca() -> None:
    """`start_from_pca` takes blocks in the order in which `encode` sees them."""
    x = torch.rand(1, 1, 8, 8, 8)
    assert space_to_depth(x, 4)[0, :, 1, 0, 0].tolist() == x[0, 0, 4:8, :4, :4].flatten().tolist()
