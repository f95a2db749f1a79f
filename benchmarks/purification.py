"""Does climbing the evidence lower bound undo patch attacks, and does it hold against attacks that know of it?

    python benchmarks/purification.py --out benchmarks/purification.md

Digits of 8 x 8 pixels from scikit-learn, 1,400 for training and 397 for the test; a patch is the first and the last
column, where digits are nearly blank. Every seed draws its own split and trains its own networks; each part of each
seed is written to a file of its own in the folder of `--parts`, so that an interrupted run goes on where it was. A
smaller part does the same on MNIST, with perceptrons and settings of the demo, not tuned.
Networks, weights and step lengths are those of a published pilot on the same data, not chosen on these figures; the
attacks that know the purifier, and the steps and neighbours of the other scores, were tried out on seed 100, which is
not reported. (Extra: flows.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import zuko
from sklearn.datasets import load_digits
from torch import Tensor, nn

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import PGD, PatchPGD, PatchSearch, rectangle_mask
from manifoldkit.datasets import load_mnist
from manifoldkit.defenses import (
    DiffusionScore,
    ELBOScore,
    ManifoldScore,
    PurifiedClassifier,
    UsualLooking,
    VAEClassifier,
    purify,
    train_vae_classifier,
)
from manifoldkit.exceptions import UnsteadyModelWarning
from manifoldkit.isometry.networks import MLP
from manifoldkit.priors import NoiseMLP, NoiseSchedule, train_eps

CODES, LAM, STEPS = 16, 25.0, 1500
ATTACK = {"alpha": 4 / 255, "steps": 256}
#: Squared error weighs 10, or 1, where the divergence outweighs it.
SIGMA, PLAIN_SIGMA = (1 / 20) ** 0.5, (1 / 2) ** 0.5
#: Images for the attacks that know the purifier, for those of many queries, and queries of a search.
ADAPTIVE, SEARCHED, QUERIES = 100, 50, 150
WEIGHTS = (0.01, 0.03, 0.1)
#: Steps for scores of every kind.
GENTLE = {"step": 2 / 255, "n_steps": 128}
#: Draws of the purifier that an attack averages, and the steps of that attack.
DRAWS = 4
THROUGH = {"alpha": 40 / 255, "steps": 60, "step_control": "apgd", "loss": "margin"}
#: Of MNIST: test images, those for the attack that knows the purifier, columns of the patch on either side, updates.
MNIST_IMAGES, MNIST_SEARCHED, MARGIN, MNIST_STEPS = 200, 50, 3, 1000


class Autoencoder(VAEClassifier):
    """The ablation: nothing is drawn, and the score is the likelihood of the reconstruction alone."""

    def elbo(self, x: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        return -0.5 * (self.reconstruct(x) - x).flatten(1).square().sum(1) / self.obs_sigma**2

    def loss(self, x: Tensor, y: Tensor, lam: float = 8.0, generator: torch.Generator | None = None) -> Tensor:
        return lam * nn.functional.cross_entropy(self(x), y) - self.elbo(x).mean()


class Scaled(nn.Module):
    """A score of images in [-1, 1] for images in [0, 1]."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        return self.score(2 * x - 1)


def build(kind: type[VAEClassifier], seed: int, sigma: float = SIGMA) -> VAEClassifier:
    g = torch.Generator().manual_seed(seed)
    encoder = MLP([64, 256, 256, 2 * CODES], nn.ReLU, generator=g)
    decoder = nn.Sequential(MLP([CODES, 256, 256, 64], nn.ReLU, generator=g), nn.Sigmoid())
    return kind(encoder, decoder, MLP([CODES, 10], generator=g), obs_sigma=sigma)


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    x, y = torch.tensor(data.images[order] / 16, dtype=torch.float32)[:, None], torch.tensor(data.target[order])
    return x[:1400], y[:1400], x[1400:], y[1400:]


def border() -> Tensor:
    return rectangle_mask((1, 8, 8), 0, 0, 8, 1) + rectangle_mask((1, 8, 8), 0, 7, 8, 1)


def attacked(net: nn.Module, x: Tensor, y: Tensor, mask: Tensor, **options: float) -> Tensor:
    return PatchPGD(net, mask, **ATTACK, early_stop=False, **options)(x, y)


class Seed:
    """Data and networks of a seed, and what was found; networks are kept in a folder."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.x, self.y, self.tx, self.ty = digits(seed)
        self.found: dict[str, float] = {}
        self.right: dict[str, Tensor] = {}
        self.clock = time.process_time()

    def train(self, kind: type[VAEClassifier], sigma: float = SIGMA) -> VAEClassifier:
        net, path = build(kind, self.seed, sigma), self.folder / f"{self.seed}-{kind.__name__}-{sigma:.3f}.pt"
        if path.exists():
            net.load_state_dict(torch.load(path))
        else:
            g = torch.Generator().manual_seed(self.seed)
            train_vae_classifier(net, self.x, self.y, lam=LAM, steps=STEPS, generator=g)
            torch.save(net.state_dict(), path)
        return net.eval()

    def defend(self, net: VAEClassifier, images: Tensor, draw: int = 1, **options: object) -> Tensor:
        score = ELBOScore(net, 1, torch.Generator().manual_seed(1000 * self.seed + draw))
        return purify(score, images, generator=torch.Generator().manual_seed(self.seed), **options)

    def note(self, name: str, net: nn.Module, images: Tensor) -> None:
        """Accuracy in per cent on the first images of the test set."""
        with torch.no_grad():
            self.right[name] = net(images).argmax(1) == self.ty[: len(images)]
        self.found[name] = 100 * float(self.right[name].double().mean())
        print(f"{self.seed} {name}: {self.found[name]:.1f} ({time.process_time() - self.clock:.0f} CPU s)", flush=True)


def oblivious(s: Seed) -> None:
    patch, vae = border(), s.train(VAEClassifier)
    s.note("clean", vae, s.tx)
    s.note("clean, purified", vae, s.defend(vae, s.tx))
    for name, options in {"PGD": {}, "NAG": {"nesterov": 1.0}}.items():
        adversary = attacked(vae, s.tx, s.ty, patch, **options)
        s.note(name, vae, adversary)
        s.note(f"{name}, purified", vae, s.defend(vae, adversary))
        if name == "PGD":
            s.note("PGD, purified inside the known patch", vae, s.defend(vae, adversary, mask=patch))
            best = s.defend(vae, adversary, n_restarts=4, final_score=ELBOScore(vae, 0))
            s.note("PGD, purified, best of 4 restarts by the score", vae, best)
    ball = PGD(vae, 0.1, 0.01, 40)(s.tx, s.ty)
    s.note("L_inf 0.1", vae, ball)
    s.note("L_inf 0.1, purified within 0.2", vae, s.defend(vae, ball, eps=0.2))
    middle = rectangle_mask((1, 8, 8), 3, 3, 2, 2)
    over = attacked(vae, s.tx, s.ty, middle)
    s.note("patch of 2 x 2 over the digit", vae, over)
    s.note("patch of 2 x 2 over the digit, purified", vae, s.defend(vae, over))
    s.note("patch of 2 x 2 over the digit, purified inside it", vae, s.defend(vae, over, mask=middle))


def adaptive(s: Seed) -> None:
    """Every adversary is judged by the true purifier."""
    patch, vae, x, y = border(), s.train(VAEClassifier), s.tx[:ADAPTIVE], s.ty[:ADAPTIVE]
    mean_score = ELBOScore(vae, 0)
    drawn = ELBOScore(vae, 1, torch.Generator().manual_seed(s.seed + 3))
    short = {"step": 8 / 255, "n_steps": 32}
    options = {"alpha": 8 / 255, "steps": 60, "loss": "margin", "early_stop": False}
    known = attacked(vae, x, y, patch)

    def judge(name: str, images: Tensor) -> None:
        s.note(f"{name}: before", vae, images)
        s.note(f"{name}: purified", vae, s.defend(vae, images))

    judge("not adaptive, PGD", known)
    judge("not adaptive, NAG", attacked(vae, x, y, patch, nesterov=1.0))
    judge("straight through", PatchPGD(PurifiedClassifier(vae, mean_score, **short), patch, **options)(x, y))
    unrolled = PurifiedClassifier(vae, mean_score, backward="unrolled", **short)
    judge("unrolled", PatchPGD(unrolled, patch, **options)(x, y))
    for weight in WEIGHTS:
        net = UsualLooking(vae, mean_score, weight)
        judge(f"usual looking, w = {weight}", PatchPGD(net, patch, **ATTACK, loss=net.loss, early_stop=False)(x, y))
    g = torch.Generator().manual_seed(s.seed + 4)
    search = PatchSearch(PurifiedClassifier(vae, drawn, **short), patch, QUERIES, generator=g, early_stop=False)
    judge("random search from the PGD patch", search(x, y, start=known))
    every = [right for name, right in s.right.items() if name.endswith("purified")]
    s.found["the best of these attacks for each image: purified"] = 100 * float(
        torch.stack(every).all(0).double().mean()
    )
    with torch.no_grad():  # as many tries of one attack: what is gained by chance alone
        again = [vae(s.defend(vae, known, draw)).argmax(1) == y for draw in range(2, 2 + len(every))]
    s.found["PGD, purified as many times: right every time"] = 100 * float(torch.stack(again).all(0).double().mean())


def searches(s: Seed) -> None:
    """A purifier without chance under a search that asks it itself, and one with chance under a more patient search."""
    patch, vae, x, y = border(), s.train(VAEClassifier), s.tx[:SEARCHED], s.ty[:SEARCHED]
    known = attacked(vae, x, y, patch)
    fixed = PurifiedClassifier(vae, ELBOScore(vae, 0), step=8 / 255, n_steps=32)
    s.note("mean codes: clean, purified", fixed, x)
    s.note("mean codes: PGD, purified", fixed, known)
    g = torch.Generator().manual_seed(s.seed + 4)
    found = PatchSearch(fixed, patch, QUERIES, generator=g)(x, y, start=known)
    s.note("mean codes: random search, purified", fixed, found)
    s.note("mean codes: random search, purified with codes drawn", vae, s.defend(vae, found))
    s.note("codes drawn: PGD, purified", vae, s.defend(vae, known))
    drawn = ELBOScore(vae, 1, torch.Generator().manual_seed(s.seed + 3))
    patient = PurifiedClassifier(vae, drawn, n_draws=4, step=8 / 255, n_steps=32)
    found = PatchSearch(patient, patch, QUERIES // 2, generator=g, early_stop=False)(x, y, start=known)
    s.note("codes drawn: random search, mean of 4 draws, purified", vae, s.defend(vae, found))


def averaged(s: Seed) -> None:
    """The gradient attack on the purifier's own kind: codes drawn, four draws a step, from the patch that is known."""
    patch, vae, x, y = border(), s.train(VAEClassifier), s.tx[:SEARCHED], s.ty[:SEARCHED]
    known = attacked(vae, x, y, patch)
    drawn = ELBOScore(vae, 1, torch.Generator().manual_seed(s.seed + 3))
    net = PurifiedClassifier(vae, drawn, n_draws=DRAWS, step=8 / 255, n_steps=32)
    found = PatchPGD(net, patch, **THROUGH, early_stop=False)(x, y, start=known)
    for name, images in {"PGD": known, "straight through, mean of draws": found}.items():
        for draw in (1, 2, 3):
            s.note(f"{name}: purified, draw {draw}", vae, s.defend(vae, images, draw))


def ablations(s: Seed) -> None:
    patch, plain, ae = border(), s.train(VAEClassifier, PLAIN_SIGMA), s.train(Autoencoder)
    s.note("VAE, squared error of weight 1: clean", plain, s.tx)
    s.note("VAE, squared error of weight 1: clean, purified by 256 x 4/255", plain, s.defend(plain, s.tx, step=4 / 255))
    broken = attacked(ae, s.tx, s.ty, patch)
    s.note("autoencoder: clean", ae, s.tx)
    s.note("autoencoder: PGD", ae, broken)
    s.note("autoencoder: PGD, purified", ae, s.defend(ae, broken))


def other_scores(s: Seed) -> None:
    """Patches against the VAE-classifier, purified by 128 steps of 2/255 in other scores."""
    vae, x, y = s.train(VAEClassifier), s.tx[:ADAPTIVE], s.ty[:ADAPTIVE]
    adversary = attacked(vae, x, y, border())
    g = torch.Generator().manual_seed(s.seed)
    schedule = NoiseSchedule.linear(100, 1e-4, 0.1)
    eps = NoiseMLP(64, 100, width=256, frequencies=(), generator=g)
    train_eps(eps, 2 * s.x - 1, schedule, steps=2000, batch_size=256, lr=1e-3, generator=g)
    eps.requires_grad_(False)
    scores: dict[str, nn.Module] = {
        "ELBO": ELBOScore(vae, 1, g),
        "flow": Flow(s.x, s.seed),
        "diffusion bound": Scaled(DiffusionScore(eps, schedule, stride=10, generator=g)),
        "distance to a CIDM": Flat(ManifoldScore(diffusion_manifold(s))),
    }
    for name, score in scores.items():
        for what, images in (("clean", x), ("PGD", adversary)):
            s.note(f"{name}: {what}, purified", vae, purify(score, images, **GENTLE))


def diffusion_manifold(s: Seed) -> DiffusionManifold:
    """The training digits as a manifold."""
    return DiffusionManifold(n_components=200, n_kernel_neighbors=24).fit(s.x.flatten(1).numpy())


def projection(s: Seed) -> None:
    """The purified image is the projection onto the manifold itself, which attacks may differentiate."""
    patch, vae, x, y = border(), s.train(VAEClassifier), s.tx[:ADAPTIVE], s.ty[:ADAPTIVE]
    adversary = attacked(vae, x, y, patch)
    net = nn.Sequential(nn.Flatten(), diffusion_manifold(s).to_module(), nn.Unflatten(1, (1, 8, 8)), vae)
    g = torch.Generator().manual_seed(s.seed + 4)
    s.note("clean", net, x)
    s.note("PGD", net, adversary)
    s.note("PGD through the projection", net, PatchPGD(net, patch, **THROUGH)(x, y, start=adversary))
    s.note("random search through the projection", net, PatchSearch(net, patch, 1000, generator=g)(x, y))


def over_the_digit(s: Seed) -> None:
    """A patch where digits differ, so that the projection may go to another digit."""
    patch, vae, x, y = rectangle_mask((1, 8, 8), 3, 3, 2, 2), s.train(VAEClassifier), s.tx[:ADAPTIVE], s.ty[:ADAPTIVE]
    adversary = attacked(vae, x, y, patch)
    net = nn.Sequential(nn.Flatten(), diffusion_manifold(s).to_module(), nn.Unflatten(1, (1, 8, 8)), vae)
    s.note("PGD: not projected", vae, adversary)
    s.note("PGD", net, adversary)
    s.note("PGD through the projection", net, PatchPGD(net, patch, **THROUGH)(x, y, start=adversary))


def known_distance(s: Seed) -> None:
    """Attacks that know the score: the squared distance to the manifold, climbed in 32 steps of 8/255."""
    patch, vae, x, y = border(), s.train(VAEClassifier), s.tx[:SEARCHED], s.ty[:SEARCHED]
    adversary, distance = attacked(vae, x, y, patch), Flat(ManifoldScore(diffusion_manifold(s)))
    g = torch.Generator().manual_seed(s.seed)
    known = PurifiedClassifier(vae, distance, step=8 / 255, n_steps=32)
    through = PatchPGD(known, patch, **THROUGH, early_stop=False)(x, y, start=adversary)
    search = PatchSearch(known, patch, QUERIES, generator=g, early_stop=False)(x, y, start=adversary)
    for name, images in (("PGD", adversary), ("straight through", through), ("random search", search)):
        s.note(f"{name}, purified", vae, purify(distance, images, **GENTLE))


def mnist(s: Seed) -> None:
    """Patches on the margins of MNIST digits, attacks that know the purifier included."""
    train, test = load_mnist("train", n_per_class=2000, random_state=s.seed), load_mnist("test")
    rows = np.random.default_rng(s.seed).permutation(len(test.labels))[:MNIST_IMAGES]
    s.tx, s.ty = torch.as_tensor(test.images[rows]).reshape(-1, 1, 28, 28), torch.as_tensor(test.labels[rows])
    g = torch.Generator().manual_seed(s.seed)
    encoder = MLP([784, 400, 256, 64], nn.ReLU, generator=g)
    decoder = nn.Sequential(MLP([32, 256, 400, 784], nn.ReLU, generator=g), nn.Sigmoid())
    vae = VAEClassifier(encoder, decoder, MLP([32, 10], generator=g), obs_sigma=SIGMA)
    images = torch.as_tensor(train.images).reshape(-1, 1, 28, 28)
    train_vae_classifier(vae, images, train.labels, lam=LAM, steps=MNIST_STEPS, generator=g)
    vae.eval()
    patch = rectangle_mask((1, 28, 28), 0, 0, 28, MARGIN) + rectangle_mask((1, 28, 28), 0, 28 - MARGIN, 28, MARGIN)
    s.note("clean", vae, s.tx)
    s.note("clean, purified", vae, s.defend(vae, s.tx))
    adversaries = {name: attacked(vae, s.tx, s.ty, patch, nesterov=n) for name, n in (("PGD", 0.0), ("NAG", 1.0))}
    for name, adversary in adversaries.items():
        s.note(name, vae, adversary)
        s.note(f"{name}, purified", vae, s.defend(vae, adversary))
    s.note("PGD, purified inside the known patch", vae, s.defend(vae, adversaries["PGD"], mask=patch))
    x, y, known = s.tx[:MNIST_SEARCHED], s.ty[:MNIST_SEARCHED], adversaries["PGD"][:MNIST_SEARCHED]
    drawn = ELBOScore(vae, 1, torch.Generator().manual_seed(s.seed + 3))
    net = PurifiedClassifier(vae, drawn, n_draws=DRAWS, step=8 / 255, n_steps=32)
    through = PatchPGD(net, patch, **{**THROUGH, "steps": 30}, early_stop=False)(x, y, start=known)
    s.note(f"PGD, purified, first {MNIST_SEARCHED} images", vae, s.defend(vae, known))
    s.note(f"straight through, purified, first {MNIST_SEARCHED} images", vae, s.defend(vae, through))


class Flat(nn.Module):
    """A score of vectors, for images."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x.flatten(1))


class Flow(nn.Module):
    """Log-density of pixels under a masked autoregressive flow, trained on digits with noise of 0.05."""

    def __init__(self, x: Tensor, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # zuko draws its weights from the global generator
            self.flow = zuko.flows.MAF(64, transforms=3, hidden_features=(128, 128))
        data, g = x.flatten(1), torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.flow.parameters(), 1e-3)
        for _ in range(1000):
            batch = data[torch.randint(len(data), (128,), generator=g)]
            optimizer.zero_grad()
            (-self(batch + 0.05 * torch.randn(batch.shape, generator=g)).mean()).backward()
            optimizer.step()
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x.flatten(1))


PARTS = {
    "Attacks that do not know the purifier (397 images)": oblivious,
    f"Attacks that know the purifier ({ADAPTIVE} images)": adaptive,
    f"Random search, mean codes by 32 steps of 8/255, codes drawn by 256 of 1/255 ({SEARCHED} images)": searches,
    f"Straight through {DRAWS} draws of the purifier, best of 60 steps ({SEARCHED} images)": averaged,
    "Ablations (397 images)": ablations,
    f"Other scores, 128 steps of 2/255 ({ADAPTIVE} images)": other_scores,
    f"Purified by the projection onto a CIDM ({ADAPTIVE} images)": projection,
    f"The same, patch of 2 x 2 over the digit ({ADAPTIVE} images)": over_the_digit,
    f"Purified in the distance to a CIDM by 128 steps of 2/255 ({SEARCHED} images)": known_distance,
    f"MNIST, {MARGIN} columns on either side, {MNIST_STEPS} updates ({MNIST_IMAGES} images)": mnist,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", type=Path, default=Path("out/purification"), help="folder of finished parts")
    names = [part.__name__ for part in PARTS.values()]
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="parts of the table")
    parser.add_argument(
        "--finished", action="store_true", help="compute nothing: the table of the files that are there"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore", UnsteadyModelWarning)  # purifiers draw codes; adversaries are judged by new draws
    args.parts.mkdir(parents=True, exist_ok=True)
    tables = []
    for title, part in PARTS.items():
        if part.__name__ not in args.only:
            continue
        results = []
        for number in range(args.seeds):
            path = args.parts / f"{number}-{part.__name__}.json"
            if args.finished and not path.exists():
                continue
            if not path.exists():
                seed = Seed(number, args.parts)
                part(seed)
                path.write_text(json.dumps(seed.found, indent=1))
            results.append(json.loads(path.read_text()))
        if not results:
            continue
        tables += ["", f"## {title}", "", "| | mean ± SD | seed by seed |", "|---|---|---|"]
        for name in results[0]:
            values = np.array([result[name] for result in results])
            each = ", ".join(f"{value:.1f}" for value in values)
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            tables.append(f"| {name} | {values.mean():.1f}{spread} | {each} |")
    lines = [
        "# Purification of patch attacks by the evidence lower bound", "",
        f"    python benchmarks/purification.py --seeds {args.seeds} --out benchmarks/purification.md", "",
        f"Accuracy in per cent on sklearn's digits, seeds 0 to {args.seeds - 1} (fewer where a row has fewer numbers), "
        f"{platform.machine()}, {os.cpu_count()} cores. Attacks: 256 steps of 4/255 on the first and the last column. "
        "Purifier: 256 steps of 1/255 over the whole image, one code drawn a step, no bound but [0, 1]. Attacks that "
        'know the purifier work on one of 32 steps of 8/255 and are judged by the true one: "straight through" takes '
        'its derivative for the identity, "unrolled" differentiates soft steps (both 60 steps of 8/255, mean codes), '
        f'"random search" repaints the PGD patch ({QUERIES} queries, codes drawn); "usual looking" adds w times the '
        "ELBO to the margin.",
        *tables,
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
