"""Published figures of locally isometric networks and isometric autoencoders; minutes each, run by `make reproduce`."""

from __future__ import annotations

import math

import pytest
import torch

from manifoldkit.attacks import FGSM
from manifoldkit.datasets import (
    load_mnist,
    make_linked_rings,
    make_open_sphere,
    make_ring_torus,
    make_s_curve,
    make_swiss_roll,
)
from manifoldkit.isometry import (
    FullLossView,
    IsometricAutoencoder,
    IsometricTrainer,
    IsometryReport,
    LocallyIsometricNet,
    baseline,
    edge_ratio_std,
)

pytestmark = pytest.mark.slow


def accuracy(scores, labels):
    return float((scores.argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("seed", range(3))
def test_linked_rings(seed):
    rings, labels = make_linked_rings(600, random_state=seed)
    x, y = torch.from_numpy(rings.points).float(), torch.from_numpy(labels)
    reports = {}
    for beta in (0.0, 1.0):
        generator = torch.Generator().manual_seed(seed)
        net = LocallyIsometricNet.mlp(3, 2, width=20, generator=generator)
        IsometricTrainer(net, beta=beta, generator=generator).fit(x, y, epochs=2000)
        assert accuracy(net(x), y) == 1.0
        reports[beta] = IsometryReport.of_network(net, x, y)[0]
    assert reports[1.0].distance_correlation >= 0.99
    assert reports[1.0].stress <= 0.05
    assert reports[0.0].stress > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_torus_hierarchy(seed):
    torus = make_ring_torus(1600, noise=0.001, random_state=seed)
    sector = torch.from_numpy(torus.parameters[:, 0] * 8 / (2 * math.pi)).long()
    labels = [sector // 4, sector // 2, sector]
    x, generator = torch.from_numpy(torus.points).float(), torch.Generator().manual_seed(seed)
    net = LocallyIsometricNet.mlp(3, [2, 4, 8], width=20, generator=generator)
    trainer = IsometricTrainer(
        net,
        beta=100.0,
        generator=generator,
        optimizer=lambda p: torch.optim.Adam(p, lr=5e-3),
        callbacks=[lambda trainer, record: schedule.step()],
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, 4000)
    trainer.fit(x, labels, epochs=4000)
    scores = net.logits(net.representations(x))
    assert min(accuracy(score, y) for score, y in zip(scores, labels, strict=True)) > 0.99


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "largest", "factor"),
    [
        (make_s_curve, 0.03, 5),
        (make_swiss_roll, 0.02, 5),
        (lambda n, random_state: make_open_sphere(n, opening=math.radians(110), random_state=random_state), 0.065, 1),
    ],
)
def test_surfaces_are_flattened(make, largest, factor, seed):
    """Against the plain autoencoder here, against all others in benchmarks/isometry.md.

    No map flattens a sphere: 0.061 is the least of all symmetric maps, where plain autoencoders have 0.075 to 0.108, so
    that no factor of 2 or 5 is to be had. There the bound is that of the paper, 0.07, brought nearer to the least.
    """
    x = make(1000, random_state=seed).points
    model = IsometricAutoencoder(2, random_state=seed).fit(x)
    std = edge_ratio_std(model.inverse_transform, model.transform(x))
    assert std <= largest
    plain = IsometricAutoencoder(2, init=None, max_iter=500, random_state=seed, **baseline("AE")).fit(x)
    assert edge_ratio_std(plain.inverse_transform, plain.transform(x)) > factor * std


@pytest.mark.parametrize("seed", range(3))
def test_mnist_accuracies_and_the_attack_of_the_source(seed):
    """Table 1 for beta <= 1, and that accuracy rises with beta when the attacker climbs the isometric term as well."""
    x, y = map(torch.from_numpy, load_mnist("train"))
    test_x, test_y = map(torch.from_numpy, load_mnist("test"))
    under_attack = {}
    for beta, published in ((0.0, 0.9701), (0.01, 0.9686), (1.0, 0.9588)):
        generator = torch.Generator().manual_seed(seed)
        net = LocallyIsometricNet.mlp(784, 10, generator=generator)
        IsometricTrainer(net, beta=beta, generator=generator).fit(x, y, epochs=5, batch_size=100)
        assert accuracy(net(test_x), test_y) == pytest.approx(published, abs=0.01)
        view = FullLossView(net, beta=beta)
        attack = FGSM(view, eps=0.1, loss=view.objective)
        batches = zip(test_x[:2000].split(100), test_y[:2000].split(100), strict=True)
        broken = [attack.run(a, b).success for a, b in batches]
        under_attack[beta] = 1 - float(torch.cat(broken).float().mean())
    assert under_attack[0.0] < under_attack[0.01]
    assert under_attack[0.0] < under_attack[1.0]
