"""
Undoing a patch attack by climbing the evidence lower bound
============================================================

A variational autoencoder and a classifier share an encoder; both learn MNIST. An attack paints the margins of test
images, where no digit ever is, until the classifier errs. The purifier knows neither the attack nor its place: it
moves all pixels to where the model thinks the image more usual, and only then the classifier is asked. The demo shows

1. images before, attacked, and purified, with what the classifier sees, and
2. accuracies: of the attack that does not know the purifier, and of one that does: from the patch of the first it
   climbs the mean margin of several purifications, whose derivative is taken for the identity.

Look at the last two bars first: a defence is worth what it holds against those who know it.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from tqdm.auto import tqdm

from manifoldkit.attacks import PatchPGD, rectangle_mask
from manifoldkit.datasets import load_mnist
from manifoldkit.defenses import ELBOScore, PurifiedClassifier, VAEClassifier, purify, train_vae_classifier
from manifoldkit.exceptions import UnsteadyModelWarning
from manifoldkit.isometry.networks import MLP
from manifoldkit.plotting import plot_images

RIGHT, WRONG = "#009E73", "#D55E00"


def train(seed: int, steps: int) -> VAEClassifier:
    g = torch.Generator().manual_seed(seed)
    encoder = MLP([784, 400, 256, 64], nn.ReLU, generator=g)
    decoder = nn.Sequential(MLP([32, 256, 400, 784], nn.ReLU, generator=g), nn.Sigmoid())
    vae = VAEClassifier(encoder, decoder, MLP([32, 10], generator=g), obs_sigma=(1 / 20) ** 0.5)
    data = load_mnist("train", n_per_class=2000, random_state=seed)
    images = torch.as_tensor(data.images).reshape(-1, 1, 28, 28)
    train_vae_classifier(vae, images, data.labels, lam=25.0, steps=steps, generator=g, progress=True)
    return vae.eval()


def draw_images(vae: VAEClassifier, stages: dict[str, Tensor], labels: Tensor, axes: np.ndarray) -> None:
    n = axes.shape[1]
    with torch.no_grad():
        seen = torch.cat([vae(images[:n]).argmax(1) for images in stages.values()])
    colors = [RIGHT if right else WRONG for right in seen == labels[:n].repeat(len(stages))]
    plot_images(
        torch.cat([images[:n] for images in stages.values()]), rows=len(stages), axes=axes,
        titles=[f"sees {int(s)}" for s in seen], title_colors=colors, row_labels=list(stages),
    )  # fmt: skip


def draw_bars(bars: dict[str, float], ax: Axes) -> None:
    colors = ["0.6", "#56B4E9", WRONG, "#0072B2", WRONG, "#0072B2"]
    ax.barh(list(bars), list(bars.values()), color=colors[: len(bars)], height=0.65)
    for row, value in enumerate(bars.values()):
        ax.text(value + 1.5, row, f"{value:.0f}", va="center")
    ax.invert_yaxis()
    ax.set_xlim(0, 112)
    ax.set_xlabel("accuracy in per cent")
    ax.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000, help="updates of the networks")
    parser.add_argument("--images", type=int, default=50, help="test images that are attacked")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    vae = train(args.seed, args.steps)
    test = load_mnist("test")
    x = torch.as_tensor(test.images[: args.images]).reshape(-1, 1, 28, 28)
    y = torch.as_tensor(test.labels[: args.images])
    mask = rectangle_mask((1, 28, 28), 0, 0, 28, 3) + rectangle_mask((1, 28, 28), 0, 25, 28, 3)

    def defend(images: Tensor) -> Tensor:
        return purify(ELBOScore(vae, 1, torch.Generator().manual_seed(1)), images)

    bar = tqdm(total=3, desc="attacks and purifications")
    oblivious = PatchPGD(vae, mask, early_stop=False)(x, y)
    bar.update()
    score = ELBOScore(vae, 1, torch.Generator().manual_seed(2))
    known = PurifiedClassifier(vae, score, n_draws=3, step=8 / 255, n_steps=32)
    options = {"step_control": "apgd", "loss": "margin", "early_stop": False}
    with warnings.catch_warnings():  # the purifier draws codes, as it should
        warnings.simplefilter("ignore", UnsteadyModelWarning)
        adaptive = PatchPGD(known, mask, 40 / 255, 30, **options)(x, y, start=oblivious)
    bar.update()
    stages = {"before": x, "attacked": oblivious, "purified": defend(oblivious)}
    others = {"clean, purified": defend(x), "adaptive, purified": defend(adaptive)}
    bar.update()
    bar.close()

    def accuracy(images: Tensor) -> float:
        with torch.no_grad():
            return 100 * float((vae(images).argmax(1) == y).double().mean())

    bars = {
        "clean": accuracy(x), "clean,\npurified": accuracy(others["clean, purified"]),
        "attacked": accuracy(oblivious), "attacked,\npurified": accuracy(stages["purified"]),
        "adaptive\nattack": accuracy(adaptive), "adaptive,\npurified": accuracy(others["adaptive, purified"]),
    }  # fmt: skip
    figure = plt.figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2.4, 1])
    draw_images(vae, stages, y, left.subplots(3, 8))
    draw_bars(bars, right.subplots())
    right.suptitle(f"{args.images} test images", fontsize=10)
    figure.savefig(args.out / "purification.png", dpi=120)
    plt.close(figure)
    print(f"wrote {args.out / 'purification.png'}")
    for name, value in bars.items():
        print(f"{name.replace(chr(10), ' '):22s} {value:5.1f}")


if __name__ == "__main__":
    main()
