"""Does on-manifold adversarial training raise clean accuracy? The claim of Stutz, Hein and Schiele (CVPR 2019).

    python benchmarks/on_manifold_training.py --out benchmarks/on_manifold_training.md

Small networks are trained on few MNIST images: plainly, with L_inf adversaries, with on-manifold adversaries, and, as
their control, with images decoded from random codes of the same ball, which no attack has seen. The manifold is that of
an autoencoder with 16 codes, made uncorrelated with unit variance, trained on 20,000 training images that no classifier
sees (the source trains its decoders on all training images). All arms of a seed begin with the same weights and see the
same batches. The source has larger networks, class-specific VAE-GANs, 40 steps and eps = 0.3 in L_inf; so this tests
the claim, not the figures.

Autoencoder and rows are kept in the folder `--work`: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from stored import stored
from torch import Tensor, nn

from manifoldkit.attacks import PGD, Attack, LatentPGD, adversarial_training
from manifoldkit.datasets import load_mnist
from manifoldkit.geometry import DecoderManifold
from manifoldkit.risk import OnManifoldTest

EPS, LATENT_EPS = 0.1, 0.3
ARMS = ("plain", "L_inf", "random codes", "on-manifold")
HELD_OUT, TESTED = 200, 100  # last test images, to which so many adversaries are compared


class CNN(nn.Sequential):
    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU(), nn.Flatten(),
                nn.Linear(512, 10),
            )  # fmt: skip


def coders(seed: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Untrained encoder and decoder, each with a linear map of the codes that makes them uncorrelated later."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 100), nn.ReLU(), nn.Linear(100, 16))  # fmt: skip  # noqa: E501
        decoder = nn.Sequential(nn.Linear(16, 100), nn.ReLU(), nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))  # fmt: skip  # noqa: E501
    return nn.Sequential(encoder, nn.Linear(16, 16)), nn.Sequential(nn.Linear(16, 16), decoder)


def autoencoder(images: Tensor, epochs: int, work: Path, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder with codes of mean 0 and unit covariance, trained or from the file."""
    both = nn.ModuleList(coders(seed)).eval()
    file = work / f"autoencoder-{epochs}-{seed}.safetensors"
    if file.exists():
        load_model(both, file)
        return both[0], both[1]
    (encoder, whiten), (colour, decoder) = both
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    batches = torch.Generator().manual_seed(seed)
    total = epochs * -(-len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=total)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=batches).split(128):
            optimizer.zero_grad()
            loss = (decoder(encoder(images[rows])) - images[rows]).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        codes = encoder(images)
        root = torch.linalg.cholesky(torch.cov(codes.T))
        inverse = torch.linalg.inv(root)
        whiten.weight.copy_(inverse)
        whiten.bias.copy_(-inverse @ codes.mean(0))
        colour.weight.copy_(root)
        colour.bias.copy_(codes.mean(0))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_model(both, str(file))
    return both[0], both[1]


def attack_for(arm: str, net: nn.Module, encoder: nn.Module, decoder: nn.Module, steps: int) -> Attack | None:
    """The attack of an arm; full walks for training."""
    options = {"steps": steps, "random_start": True, "generator": torch.Generator().manual_seed(0)}
    if arm == "L_inf":
        return PGD(net, EPS, 2.5 * EPS / steps, early_stop=False, **options)
    if arm == "random codes":  # the random start of the walk, which a step of this length does not leave
        options["steps"] = 1
        return LatentPGD(net, decoder, encoder, LATENT_EPS, alpha=1e-9, early_stop=False, **options)
    if arm == "on-manifold":
        return LatentPGD(net, decoder, encoder, LATENT_EPS, alpha=2.5 * LATENT_EPS / steps, early_stop=False, **options)
    return None


def figures(net: nn.Module, encoder: nn.Module, decoder: nn.Module, x: Tensor, y: Tensor, n: int) -> list[float]:
    """Per cent: accuracy clean, of reconstructions, under PGD and latent PGD; their adversaries that pass for real."""
    with torch.no_grad():
        clean = float((net(x).argmax(1) == y).double().mean())
        rebuilt = float((net(decoder(encoder(x[:n]))).argmax(1) == y[:n]).double().mean())
    walk = {"steps": 40, "random_start": True, "generator": torch.Generator().manual_seed(1)}
    test = on_manifold_test(encoder, decoder)
    robust, real = [], []
    for attack in (
        PGD(net, EPS, EPS / 10, **walk),
        LatentPGD(net, decoder, encoder, LATENT_EPS, alpha=LATENT_EPS / 10, **walk),
    ):
        result = attack.run(x[:n], y[:n])
        robust.append(result.summary()["robust_accuracy"])
        broken = result.success & (result.prediction_before == y[:n])
        p_value = test.test(result.adversarial[broken][:TESTED], x[:n][broken][:TESTED]).p_value
        real.append(float((p_value > 0.05).mean()))
    return [100 * value for value in (clean, rebuilt, *robust, *real)]


@lru_cache
def on_manifold_test(encoder: nn.Module, decoder: nn.Module) -> OnManifoldTest:
    return OnManifoldTest(DecoderManifold(encoder, decoder)).fit(mnist()[2][-HELD_OUT:])


def row(
    arm: str, seed: int, size: int, updates: int, steps: int, attacked: int, coder: tuple[nn.Module, nn.Module]
) -> list[float]:
    """Train a network and measure it."""
    images, labels, test_images, test_labels = mnist()
    chosen = torch.randperm(40_000, generator=torch.Generator().manual_seed(seed))[:size]
    net = CNN(seed)
    adversarial_training(
        net, images[chosen], labels[chosen], attack_for(arm, net, *coder, steps),
        epochs=max(1, updates * 100 // size), generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return figures(net, *coder, test_images, test_labels, attacked)


@lru_cache
def mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = []
    for split in ("train", "test"):
        data = load_mnist(split, download=False)
        parts.append(torch.as_tensor(data.images).float().reshape(-1, 1, 28, 28))
        parts.append(torch.as_tensor(np.asarray(data.labels)).long())
    return tuple(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 5000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=500, help="steps of each training, in batches of 100")
    parser.add_argument("--steps", type=int, default=7, help="steps of the attacks in training")
    parser.add_argument("--attacked", type=int, default=500, help="test images that are attacked")
    parser.add_argument("--work", type=Path, default=Path("out/on_manifold_training"), help="folder of the rows")
    args = parser.parse_args()
    start = time.process_time()
    images = mnist()[0][40_000:]
    coder = autoencoder(images, 15, args.work)
    with torch.no_grad():
        error = float((coder[1](coder[0](images)) - images).square().mean().sqrt())
    print(f"autoencoder: error {error:.4f} a pixel, {time.process_time() - start:.0f} CPU s", flush=True)
    rows = []
    for size in args.sizes:
        options = (size, args.updates, args.steps, args.attacked)
        results = {
            arm: np.array([
                stored(
                    args.work / "-".join(map(str, (arm.replace(" ", "_"), seed, *options, "row.json"))),
                    lambda arm=arm, seed=seed, options=options: row(arm, seed, *options, coder),
                )
                for seed in range(args.seeds)
            ])
            for arm in ARMS
        }  # fmt: skip
        for arm, values in results.items():
            cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(0), values.std(0, ddof=1), strict=True)]
            gain = values[:, 0] - results["plain"][:, 0]
            cells.append("" if arm == "plain" else f"{gain.mean():+.2f} ({', '.join(f'{g:+.2f}' for g in gain)})")
            rows.append(f"| {size:,} | {arm} | " + " | ".join(cells) + " |")
    lines = [
        "# On-manifold adversarial training of small networks on MNIST", "",
        "    python benchmarks/on_manifold_training.py --out benchmarks/on_manifold_training.md", "",
        "Stutz et al. (CVPR 2019) claim that on-manifold adversarial training raises clean accuracy. "
        f"{args.seeds} seeds, {args.updates} updates of 100 images, half the loss on adversaries of {args.steps} "
        f"steps; L_inf eps {EPS}, codes eps {LATENT_EPS} in L_inf (codes have unit variance; error of the autoencoder "
        f"{error:.3f} a pixel). "
        f"Clean accuracy on 10,000 test images, the others on the first {args.attacked} of them, under 40 steps with a "
        "random start; a sample that was wrong before is not robust. Per cent, mean ± standard deviation over seeds; "
        "the last column is the gain in clean accuracy over plain training, seed by seed. The autoencoder has seen "
        "20,000 further images, from which the arms with codes profit, and all arms but the plain one see twice as "
        "many images an update. The arm of random codes tells these data from the attack: its images are decoded from "
        "random codes of the ball in which the attack walks. *Pass for real*: share of the adversaries (the first "
        f"{TESTED}) that `OnManifoldTest`, fitted on the last {HELD_OUT} test images, does not tell from real images "
        "at level 0.05 (manifold of the autoencoder, codes refined).", "",
        "| images | training | clean | reconstructed | L_inf PGD | on-manifold | L_inf pass for real | on-manifold "
        "pass for real | clean - plain |",
        "|---|---|---|---|---|---|---|---|---|", *rows,
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
