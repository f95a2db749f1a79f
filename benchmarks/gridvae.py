"""GridVAE: two-digit MNIST with and without labels, drawn faces, cost of the prior and of a step.

    python benchmarks/gridvae.py --out benchmarks/gridvae.md

Every trained network is one line in a file of results (``--work``), and is not trained again; ``--seconds`` ends a call
early, so that the whole can be done piece by piece. Pairs of scikit-learn's digits have the settings of a published
trial on them, none of which was chosen here. Other pairs are of MNIST's training digits for training and of its test
digits for the scores. The settings without labels were chosen on pairs of training digits, the short ones with seeds
100 to 103, the long ones, after annealing had not helped, with seeds 100 to 102; those with labels are those of the
first run that was scored on test digits, kept after trials of others on training digits; the noise of the faces was
raised from 0.15 to 0.7 when seed 0 did not follow its guidance.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gridvae_report import HIDDEN, TRIALS, report
from scipy.stats import norm
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from manifoldkit.datasets import FACE_ATTRIBUTES, draw_faces, face_is_possible, load_digit_pairs, make_faces
from manifoldkit.isometry import MLP, annealed
from manifoldkit.isometry.networks import ShapedDecoder
from manifoldkit.priors import GridPrior, GridVAE, axis_accuracy, cell_accuracy, topographic_similarity
from manifoldkit.priors.objective import EvidenceLoss, GaussianEncoder

LEVELS = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
STYLE = 5  # axes without symbols, for what the attributes of the faces do not say

#: Of a published trial on scikit-learn's digits, as they stand there.
TRIAL = {"obs_sigma": 0.25, "max_steps": 3000, "learning_rate": 1e-3, "batch_size": 256}

GUIDED = {"obs_sigma": 1.0, "max_steps": 2500, "learning_rate": 2e-3, "kl": "nearest"}
ALONE = {"obs_sigma": 0.25, "max_steps": 3000, "learning_rate": 2e-3, "batch_size": 256}
SHORT = {
    "obs_sigma": 0.14, "max_steps": 1500, "learning_rate": 3e-3, "batch_size": 128, "hidden": (128, 128),
}  # fmt: skip
HALF = {**SHORT, "obs_sigma": 0.3, "kl": "nearest"}
#: Short starts, of which that of the least loss is trained as one of `ALONE`; the only numbers that were tried.
STARTS = {"n_init": 8, "init_steps": 300}
ONE_START = "after one short start"
#: Settings from which those were found: the mode, changes of the little ones, number of seeds from 100 on.
LITTLE = {"obs_sigma": 0.25, "max_steps": 1500, "learning_rate": 3e-3, "batch_size": 128, "hidden": (128, 128)}
RISING, FALLING = annealed(0.1, 1.0, hold=0.0, end=0.7), annealed(5.0, 1.0, hold=0.0, end=0.7)
LONGER = {**ALONE, "hidden": (256, 256)}
TRIED: dict[str, tuple[str, dict[str, Any], int]] = {
    "VAE": ("VAE", {}, 2),
    "conditional": ("conditional", {}, 2),
    "conditional, obs_sigma 0.4": ("conditional", {"obs_sigma": 0.4}, 1),
    "conditional, beta rising from 0.1": ("conditional", {"beta": RISING}, 2),
    "conditional, beta falling from 5": ("conditional", {"beta": FALLING}, 1),
    "conditional, sigma narrowing from 0.6": ("conditional", {"width": 0.6}, 2),
    "conditional, beta rising and sigma narrowing": ("conditional", {"beta": RISING, "width": 0.6}, 1),
    "8 x 8, conditional, beta rising from 0.1": ("conditional", {"beta": RISING}, 3),
    "aggregate": ("aggregate", {"batch_size": 256}, 2),
    "aggregate, obs_sigma 0.14": ("aggregate", {"batch_size": 256, "obs_sigma": 0.14}, 1),
    "aggregate, obs_sigma 0.4": ("aggregate", {"batch_size": 256, "obs_sigma": 0.4}, 1),
    "aggregate, beta rising from 0.1": ("aggregate", {"batch_size": 256, "beta": RISING}, 1),
    "aggregate, sigma narrowing from 0.6": ("aggregate", {"batch_size": 256, "width": 0.6}, 1),
    "aggregate, longer and wider": ("aggregate", LONGER, 3),
    "conditional, longer and wider": ("conditional", LONGER, 1),
    "VAE, longer and wider": ("VAE", LONGER, 2),
}
#: Axes and levels of priors, and pairs of runs, whose cost is measured.
SIZES, COUNTS, PAIRS = (10, 100, 300, 1000), (2, 6, 20, 60), 48
FACES = {"obs_sigma": 0.7, "max_steps": 1200, "learning_rate": 2e-3, "kl": "nearest", "hidden": (128, 128)}

Result = dict[str, Any]


@lru_cache
def digits(split: str, n: int, seed: int, pool: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = load_digit_pairs(split, n, pool=pool, random_state=seed)
    return pairs.images, pairs.labels


def on_digits(arm: str, seed: int) -> Result:
    """Train on pairs of digits and read the test pairs."""
    pool = 2 if arm == "guided" else 4
    X, labels = digits("train", 30_000, 0, pool)
    levels: Any = None
    settings, attributes = dict(SHORT if arm.startswith("short") else ALONE), None
    prior = GridPrior(2, LEVELS, 1 / 3 if arm.startswith("short") else 1 / 4)
    arm = arm.removeprefix("short, ")
    if arm in ("guided", "half guided"):
        prior = GridPrior(2, LEVELS, 1 / 3)
        settings, attributes = dict(GUIDED if arm == "guided" else HALF), labels - 2.0
        if arm == "half guided":
            attributes[:, 1] = np.nan
    elif arm == "VAE":
        prior, settings["kl"] = GridPrior(2, [0.0], 1.0), "nearest"
        levels = norm.ppf((np.arange(6) + 0.5) / 6)  # cells that the prior fills about equally
    else:
        settings["kl"] = arm
    start = time.process_time()
    model = GridVAE(prior, random_state=seed, **settings).fit(X, attributes=attributes)
    seconds = time.process_time() - start
    return scores(model, *digits("test", 4000, 1, pool), levels) | {"seconds": seconds}


def after_short_starts(arm: str, seed: int) -> Result:
    """Short trainings on pairs of digits, of which the weights of that of the least loss go on to a whole one."""
    X, _ = digits("train", 30_000, 0, 4)
    mode, starts = arm.split(", ")
    settings = {**ALONE, **STARTS, "kl": mode, "n_init": 1 if starts == ONE_START else STARTS["n_init"]}
    start = time.process_time()
    model = GridVAE(GridPrior(2, LEVELS, 1 / 4), random_state=seed, **settings).fit(X)
    seconds = time.process_time() - start
    return scores(model, *digits("test", 4000, 1, 4)) | {"seconds": seconds, "starts": model.losses_}


def again(arm: str, seed: int) -> Result:
    """A run that was made before, with what the library computes now."""
    name = arm.removeprefix("again: ")
    return ARMS[name][0](name, seed)


def k_means(arm: str, seed: int) -> Result:
    """What clusters say that are found by k-means in each half, by one who is told where the halves are."""
    if arm.startswith("8 x 8"):
        (X, _), (test, truth) = small_pairs("train", 6000, 1), small_pairs("test", 3000, 2)
    else:
        (X, _), (test, truth) = digits("train", 6000, 0, 4), digits("test", 4000, 1, 4)
    half, columns = X.shape[2] // 2, []
    start = time.process_time()
    for side in (slice(half), slice(half, None)):
        clusters = KMeans(6, n_init=3, random_state=seed).fit(X[:, :, side].reshape(len(X), -1))
        columns.append(clusters.predict(test[:, :, side].reshape(len(test), -1)))
    messages = np.stack(columns, axis=1)
    return {"axis": axis_accuracy(messages, truth).mean, "cell": cell_accuracy(messages, truth),
            "topographic": topographic_similarity(messages, truth, random_state=0), "loss": float("nan"),
            "seconds": time.process_time() - start}  # fmt: skip


def small_pairs(split: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (n, 8, 16) of scikit-learn's digits 0 to 5; no digit is in both splits, four fifths are for training."""
    data = load_digits()
    known = np.flatnonzero(data.target < 6)
    known = np.random.default_rng(0).permutation(known)
    cut = 4 * len(known) // 5
    rows = known[:cut] if split == "train" else known[cut:]
    chosen = np.random.default_rng(seed).choice(rows, size=(n, 2))
    return np.concatenate([data.images[chosen[:, 0]], data.images[chosen[:, 1]]], axis=2) / 16, data.target[chosen]


def on_small_digits(arm: str, seed: int) -> Result:
    """The published trial: pairs of 8 x 8 digits, its settings, also with labels."""
    X, labels = small_pairs("train", 20_000, 1)
    mode = arm.removeprefix("8 x 8, ")
    prior, levels, attributes = GridPrior(2, LEVELS, 1 / 4), None, None
    kl = mode
    if mode.startswith("guided"):
        kl, attributes = "nearest", labels - 2.0
        if mode == "guided on one axis":
            attributes[:, 1] = np.nan
    elif mode == "VAE":
        prior, kl, levels = GridPrior(2, [0.0], 1.0), "nearest", norm.ppf((np.arange(6) + 0.5) / 6)
    start = time.process_time()
    model = GridVAE(prior, kl=kl, random_state=seed, **TRIAL).fit(X, attributes=attributes)
    seconds = time.process_time() - start
    test = small_pairs("test", 3000, 2)
    result = scores(model, *test, levels) | {"seconds": seconds}
    if mode == "VAE":  # as the trial read it, in the cells of the grid
        result["axis, cells of the grid"] = scores(model, *test, LEVELS)["axis"]
    return result


def tried(arm: str, seed: int) -> Result:
    """A run with other settings, scored on pairs of training digits."""
    mode, changes, _ = TRIED[arm.removeprefix("tried: ")]
    if "8 x 8" in arm:
        (X, _), (test, truth), settings = small_pairs("train", 20_000, 1), small_pairs("train", 3000, 5), dict(TRIAL)
    else:
        (X, _), (test, truth), settings = digits("train", 30_000, 0, 4), digits("train", 4000, 77, 4), dict(LITTLE)
    settings |= changes
    prior, levels, width = GridPrior(2, LEVELS, 1 / 4), None, settings.pop("width", None)
    if mode == "VAE":
        prior, levels = GridPrior(2, [0.0], 1.0), norm.ppf((np.arange(6) + 0.5) / 6)
    if width is not None:
        settings["beta"] = narrowing(prior, width, settings.get("beta", lambda progress: 1.0))
    start = time.process_time()
    model = GridVAE(prior, kl="nearest" if mode == "VAE" else mode, random_state=seed, **settings).fit(X)
    seconds = time.process_time() - start
    return scores(model, test, truth, levels) | {"seconds": seconds}


def narrowing(prior: GridPrior, first: float, beta: Callable[[float], float]) -> Callable[[float], float]:
    """A schedule of beta that also narrows the components of the prior, from a width down to their own."""
    width = annealed(first, float(prior.sigma[0]), hold=0.0, end=0.7)

    def weight(progress: float) -> float:
        prior._sigma.fill_(width(progress))
        return beta(progress)

    return weight


def scores(model: GridVAE, test: np.ndarray, truth: np.ndarray, levels: Any = None) -> Result:
    """Messages against labels; `levels` are those by which the codes of a plain autoencoder are read."""
    if levels is None:
        messages = model.message(test)
    else:
        reader = GridPrior(2, levels, 1.0)
        messages = reader.nearest(torch.from_numpy(model.transform(test)), return_index=True)[1].numpy()
    found = axis_accuracy(messages, truth)
    return {
        "axis": found.mean,
        "first": float(found.matrix[0].max()),
        "second": float(found.matrix[1].max()),
        "cell": cell_accuracy(messages, truth),
        "topographic": topographic_similarity(messages, truth, random_state=0),
        "loss": model.loss_,
    }


def on_faces(arm: str, seed: int) -> Result:
    """Train on drawn faces and edit those of a test set."""
    train, test = make_faces(10_000, size=20, random_state=0), make_faces(1000, size=20, random_state=1)
    a = len(FACE_ATTRIBUTES)
    attributes = np.full((len(train.images), a + STYLE), np.nan)
    attributes[:, :a] = train.attributes
    if arm == "faces, two hidden":
        attributes[:, [FACE_ATTRIBUTES.index(name) for name in HIDDEN]] = np.nan
    prior = GridPrior(a + STYLE, [[0.0, 1.0]] * a + [[0.0]] * STYLE, [0.25] * a + [1.0] * STYLE)
    start = time.process_time()
    model = GridVAE(prior, random_state=seed, **FACES).fit(train.images, attributes=attributes)
    seconds = time.process_time() - start
    messages = model.message(test.images)[:, :a]
    own = (messages == test.attributes).mean(axis=0)
    result: Result = {"seconds": seconds, "read": dict(zip(FACE_ATTRIBUTES, own.tolist(), strict=True))}
    result["edit"] = {name: edits(model, test.attributes, d) for d, name in enumerate(FACE_ATTRIBUTES)}
    cells = np.array(np.meshgrid(*[[0, 1]] * a, indexing="ij")).reshape(a, -1).T
    codes = np.concatenate([cells, np.zeros((len(cells), STYLE))], axis=1).astype(np.float64)
    error = np.sqrt(((model.inverse_transform(codes) - draw_faces(cells, size=20)) ** 2).mean(axis=(1, 2, 3)))
    possible = face_is_possible(cells)
    result["possible"], result["impossible"] = float(error[possible].mean()), float(error[~possible].mean())
    return result


def edits(model: GridVAE, attributes: np.ndarray, axis: int) -> dict[str, float]:
    """How far setting one symbol moves a decoded face along the true change, 1 being all the way.

    Faces are drawn with and without the attribute, all else equal; the first is encoded, and its symbol is flipped.
    The movement is projected on the true difference. Flips to possible and to impossible faces are told apart.
    """
    rng = np.random.default_rng(axis)
    variation = rng.random((len(attributes), 5))
    flipped = attributes.copy()
    flipped[:, axis] = 1 - flipped[:, axis]
    plain, edited = (draw_faces(rows, variation, size=20) for rows in (attributes, flipped))
    codes = model.transform(plain).astype(np.float64)
    moved = codes.copy()
    moved[:, axis] += flipped[:, axis] - attributes[:, axis]
    change = (model.inverse_transform(moved) - model.inverse_transform(codes)).reshape(len(codes), -1)
    true = (edited - plain).reshape(len(codes), -1).astype(np.float64)
    share = (change * true).sum(axis=1) / (true**2).sum(axis=1)
    likeness = (change * true).sum(axis=1) / np.sqrt((true**2).sum(axis=1) * (change**2).sum(axis=1))
    possible = face_is_possible(flipped)
    return {
        "share": float(share[possible].mean()),
        "cosine": float(likeness[possible].mean()),
        "cosine impossible": float(likeness[~possible].mean()) if (~possible).any() else float("nan"),
    }


def cost_of_prior(arm: str, seed: int) -> Result:
    """CPU seconds of `log_prob` against the numbers of axes and of levels; medians, all cells in turn."""
    spent: dict[str, list[float]] = {f"{n} x {levels}": [] for n in SIZES for levels in COUNTS}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(9):
        for name, times in spent.items():
            n, levels = map(int, name.split(" x "))
            prior, z = GridPrior(n, np.arange(levels), 1 / 3), torch.randn(256, n, generator=generator)
            calls = max(1, 3000 // (n * levels))
            prior.log_prob(z)
            start = time.process_time()
            for _ in range(calls):
                prior.log_prob(z)
            times.append((time.process_time() - start) / calls)
    return {"seconds": {name: float(np.median(times)) for name, times in spent.items()}}


def cost_of_step(arm: str, seed: int) -> Result:
    """CPU time of steps over that of a plain VAE just before, by themselves and within `fit`; every pair."""
    images, labels = digits("train", 2560, 0, 2)
    x, known = torch.from_numpy(images).flatten(1), torch.from_numpy(labels - 2.0).float()
    ratios: dict[str, list[float]] = {}
    names = ("conditional", "aggregate", "nearest", "guided")
    for pair in range(-1, PAIRS):  # the first warms up
        for name in names:
            for where, run in (("step", seconds_of_steps), ("fit", seconds_of_fit)):
                plain = seconds_of_steps("plain", x, known, 10)
                ratio = run(name, x, known, 10) / plain
                if pair >= 0:
                    ratios.setdefault(f"{where}, {name}", []).append(ratio)
    return {"ratios": ratios}


def seconds_of_fit(name: str, x: torch.Tensor, known: torch.Tensor, steps: int) -> float:
    """CPU seconds of the steps of one epoch of `GridVAE.fit`, from the first to the end of the last."""
    stamps: list[float] = []

    def weight(progress: float) -> float:
        stamps.append(time.process_time())  # asked for by every step, and after the last
        return 1.0

    kl, attributes = ("nearest", known) if name == "guided" else (name, None)
    GridVAE(GridPrior(2, LEVELS, 1 / 3), kl=kl, beta=weight, max_steps=steps).fit(x, attributes=attributes)
    return stamps[steps] - stamps[0]


def seconds_of_steps(name: str, x: torch.Tensor, known: torch.Tensor, steps: int) -> float:
    """CPU seconds of steps of Adam; the loss "plain" is that of the usual VAE, written down without this library."""
    generator = torch.Generator().manual_seed(0)
    encoder = MLP([x.shape[1], 256, 256, 4], torch.nn.ReLU, generator=generator)
    decoder = MLP([2, 256, 256, x.shape[1]], torch.nn.ReLU, generator=generator)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    mode = "nearest" if name in ("plain", "guided") else name
    ours = EvidenceLoss(
        GaussianEncoder(encoder, 2), ShapedDecoder(decoder, (x.shape[1],)), GridPrior(2, LEVELS, 1 / 3), mode,
        lambda _: 1.0, 0.25, x, known if name == "guided" else None, generator,
    )  # fmt: skip

    def plain(rows: torch.Tensor) -> torch.Tensor:
        batch = x[rows]
        mu, logvar = encoder(batch).chunk(2, dim=1)
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
        error = (decoder(z) - batch).square().sum(dim=1).mean() / (2 * 0.25**2)
        return error + 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()

    start = time.process_time()
    for _ in range(steps):
        rows = torch.randint(len(x), (256,), generator=generator)
        loss = plain(rows) if name == "plain" else ours(rows)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - start


#: Arms with the numbers of their seeds, in the order of their importance.
ARMS: dict[str, tuple[Callable[[str, int], Result], range]] = {
    "guided": (on_digits, range(5)),
    "cost of the prior": (cost_of_prior, range(3)),
    "cost of a step": (cost_of_step, range(1)),
    "aggregate": (on_digits, range(10)),
    "VAE": (on_digits, range(10)),
    "conditional": (on_digits, range(10)),
    "nearest": (on_digits, range(10)),
    "aggregate, best of 8 short starts": (after_short_starts, range(10)),
    f"aggregate, {ONE_START}": (after_short_starts, range(10)),
    "k-means of each half": (k_means, range(3)),
    "8 x 8, k-means of each half": (k_means, range(3)),
    "8 x 8, VAE": (on_small_digits, range(TRIALS)),
    "8 x 8, aggregate": (on_small_digits, range(TRIALS)),
    "8 x 8, conditional": (on_small_digits, range(3 * TRIALS)),
    "8 x 8, nearest": (on_small_digits, range(TRIALS)),
    "8 x 8, guided": (on_small_digits, range(TRIALS)),
    "8 x 8, guided on one axis": (on_small_digits, range(TRIALS)),
    "faces": (on_faces, range(3)),
    "faces, two hidden": (on_faces, range(3)),
    "half guided": (on_digits, range(3)),
    "short, conditional": (on_digits, range(40)),
    "short, aggregate": (on_digits, range(10)),
    "short, nearest": (on_digits, range(10)),
    "short, VAE": (on_digits, range(10)),
    "again: aggregate": (again, range(1)),
    "again: conditional": (again, range(1)),
    "again: 8 x 8, aggregate": (again, range(TRIALS)),
    "again: 8 x 8, conditional": (again, range(TRIALS)),
    **{f"tried: {name}": (tried, range(100, 100 + count)) for name, (_, _, count) in TRIED.items()},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="GridVAE: accuracy of symbols, faces, cost.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gridvae.md"), help="where the tables go")
    parser.add_argument("--work", type=Path, default=Path("out/gridvae.jsonl"), help="results, one line a run")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--runs", type=int, default=10**6, help="at most so many runs of an arm")
    parser.add_argument("--only", nargs="*", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.parent.mkdir(parents=True, exist_ok=True)
    lines = options.work.read_text().splitlines() if options.work.exists() else []
    done = {(entry["arm"], entry["seed"]): entry["result"] for entry in map(json.loads, lines)}
    start = time.monotonic()
    for arm in options.only:
        function, seeds = ARMS[arm]
        for seed in seeds[: options.runs]:
            if (arm, seed) in done or time.monotonic() - start > options.seconds:
                continue
            done[arm, seed] = function(arm, seed)
            with options.work.open("a") as stream:
                stream.write(json.dumps({"arm": arm, "seed": seed, "result": done[arm, seed]}) + "\n")
    results: dict[str, list[Result]] = {}
    for arm, (_, seeds) in ARMS.items():
        results[arm] = [done[arm, seed] for seed in seeds if (arm, seed) in done]
    settings = {
        "guided": GUIDED, "alone": ALONE, "short": SHORT, "half": HALF, "faces": FACES, "trial": TRIAL,
        "little": LITTLE, "longer": LONGER, "starts": STARTS,
    }  # fmt: skip
    options.out.write_text(report(results, settings))


if __name__ == "__main__":
    main()
