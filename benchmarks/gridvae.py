"""GridVAE: two-digit MNIST with and without labels, drawn faces, cost of the prior and of a step.

    python benchmarks/gridvae.py --out benchmarks/gridvae.md

Every trained network is one line in a file of results (``--work``), and is not trained again; ``--seconds`` ends a call
early, so that the whole can be done piece by piece. Pairs of scikit-learn's digits have the settings of a published
trial on them, none of which was chosen here. Other pairs are of MNIST's training digits for training and of its test
digits for the scores. The settings without labels were chosen with seeds 100 to 103 on pairs of training digits; those
with labels are those of the first run that was scored on test digits, kept after trials of others on training digits;
the noise of the faces was raised from 0.15 to 0.7 when seed 0 did not follow its guidance.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm, spearmanr
from sklearn.datasets import load_digits

from manifoldkit.datasets import FACE_ATTRIBUTES, draw_faces, face_is_possible, load_digit_pairs, make_faces
from manifoldkit.isometry import MLP
from manifoldkit.isometry.networks import ShapedDecoder
from manifoldkit.priors import GridPrior, GridVAE, axis_accuracy, cell_accuracy, topographic_similarity
from manifoldkit.priors.objective import EvidenceLoss, GaussianEncoder

LEVELS = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
RUNS = 4  # a group, of which the loss chooses one
GROUPS = 10
HIDDEN = ("male", "smiling")  # attributes that partially guided training does not see
STYLE = 5  # axes without symbols, for what the attributes of the faces do not say

#: Of a published trial on scikit-learn's digits, as they stand there.
TRIAL = {"obs_sigma": 0.25, "max_steps": 3000, "learning_rate": 1e-3, "batch_size": 256}
TRIALS = 3  # a group of these

GUIDED = {"obs_sigma": 1.0, "max_steps": 2500, "learning_rate": 2e-3, "kl": "nearest"}
ALONE = {
    "obs_sigma": 0.14, "max_steps": 1500, "learning_rate": 3e-3, "batch_size": 128, "hidden": (128, 128),
}  # fmt: skip
HALF = {**ALONE, "obs_sigma": 0.3, "kl": "nearest"}
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
    settings, attributes = dict(ALONE), None
    prior = GridPrior(2, LEVELS, 1 / 3)
    if arm in ("guided", "half guided"):
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
    return scores(model, *small_pairs("test", 3000, 2), levels) | {"seconds": seconds}


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


def cost(arm: str, seed: int) -> Result:
    """CPU seconds of the prior against n, and of a training run against that of a plain VAE."""
    if arm == "cost of the prior":
        seconds = {}
        for n in (10, 100, 1000):
            prior, z = GridPrior(n, LEVELS, 1 / 3), torch.randn(256, n, generator=torch.Generator().manual_seed(seed))
            prior.log_prob(z)
            spent = []
            for _ in range(20):
                start = time.process_time()
                for _ in range(max(1, 1000 // n)):
                    prior.log_prob(z)
                spent.append((time.process_time() - start) / max(1, 1000 // n))
            seconds[str(n)] = float(np.median(spent))
        return {"seconds": seconds}
    images, labels = digits("train", 2560, 0, 2)
    x, known = torch.from_numpy(images).flatten(1), torch.from_numpy(labels - 2.0).float()
    spent_by: dict[str, list[float]] = {name: [] for name in ("plain", "conditional", "aggregate", "nearest", "guided")}
    for _ in range(5):  # alternating, so that a crowded machine slows all alike
        for name, spent in spent_by.items():
            spent.append(seconds_of_steps(name, x, known, 40))
    return {"seconds": {name: float(np.median(times)) for name, times in spent_by.items()}}


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


#: Arms with the number of their seeds, in the order of their importance.
ARMS: dict[str, tuple[Callable[[str, int], Result], int]] = {
    "guided": (on_digits, 5),
    "cost of the prior": (cost, 3),
    "cost of a step": (cost, 3),
    "conditional": (on_digits, RUNS * GROUPS),
    "VAE": (on_digits, GROUPS),
    "8 x 8, conditional": (on_small_digits, 3 * TRIALS),
    "8 x 8, VAE": (on_small_digits, TRIALS),
    "8 x 8, guided": (on_small_digits, TRIALS),
    "8 x 8, guided on one axis": (on_small_digits, TRIALS),
    "8 x 8, aggregate": (on_small_digits, TRIALS),
    "8 x 8, nearest": (on_small_digits, TRIALS),
    "faces": (on_faces, 3),
    "faces, two hidden": (on_faces, 3),
    "half guided": (on_digits, 3),
    "aggregate": (on_digits, GROUPS),
    "nearest": (on_digits, GROUPS),
}


def spread(values: list[float], digits: int = 2) -> str:
    """Mean, least and largest."""
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table_of_digits(results: dict[str, list[Result]]) -> list[str]:
    lines = [
        "## Two digits", "",
        "| training | runs | axis accuracy | cell accuracy | topographic similarity | training loss | CPU s a run |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    rows: list[tuple[str, list[Result]]] = []
    for arm in ("guided", "conditional", "aggregate", "nearest", "VAE"):
        runs = results.get(arm, [])
        rows.append((arm, runs))
        if arm == "conditional" and len(runs) >= 2 * RUNS:
            groups = [runs[k : k + RUNS] for k in range(0, len(runs) - RUNS + 1, RUNS)]
            chosen = [min(group, key=lambda run: run["loss"]) for group in groups]
            rows.append((f"conditional, best loss of {RUNS}", chosen))
    for name, runs in rows:
        if runs:
            columns = [spread([run[key] for run in runs]) for key in ("axis", "cell", "topographic", "loss", "seconds")]
            lines.append(f"| {name} | {len(runs)} | " + " | ".join(columns) + " |")
    lines += ["", "Mean (least to largest). Losses of different trainings cannot be compared.", ""]
    alone = results.get("conditional", [])
    if alone:
        accuracies = ", ".join(f"{run['axis']:.2f}" for run in sorted(alone, key=lambda run: run["axis"]))
        rank = spearmanr([run["loss"] for run in alone], [run["axis"] for run in alone]).statistic
        lines += [f"All axis accuracies of conditional training: {accuracies}. Rank correlation of the loss with the "
                  f"axis accuracy: {rank:.2f}.", ""]  # fmt: skip
    half = results.get("half guided", [])
    if half:
        first, second = (spread([run[key] for run in half]) for key in ("first", "second"))
        lines += [f"Guided on the first axis only ({len(half)} seeds): axis 1 {first}, axis 2 {second}.", ""]
    return lines


def table_of_small_digits(results: dict[str, list[Result]]) -> list[str]:
    rows = [(arm.removeprefix("8 x 8, "), runs) for arm, runs in results.items() if arm.startswith("8 x 8") and runs]
    if not rows:
        return []
    lines = [
        "## Two digits of 8 x 8", "",
        f"Pairs of scikit-learn's digits 0 to 5, {TRIAL}, sigma 1/4, perceptrons of 256, 256.", "",
        "| training | runs | axis accuracy, seed by seed | cell accuracy | training loss | CPU s a run |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, runs in rows:
        each = ", ".join(f"{run['axis']:.2f}" for run in runs)
        cells = ", ".join(f"{run['cell']:.2f}" for run in runs)
        losses = ", ".join(f"{run['loss']:.2f}" for run in runs)
        lines.append(f"| {name} | {len(runs)} | {each} | {cells} | {losses} | {spread([r['seconds'] for r in runs])} |")
    lines.append("")
    alone = results["8 x 8, conditional"]
    if len(alone) >= TRIALS:
        groups = [alone[k : k + TRIALS] for k in range(0, len(alone) - TRIALS + 1, TRIALS)]
        chosen = [min(group, key=lambda run: run["loss"])["axis"] for group in groups]
        rank = spearmanr([run["loss"] for run in alone], [run["axis"] for run in alone]).statistic
        best = ", ".join(f"{axis:.2f}" for axis in chosen)
        lines += [f"Conditional, best loss of {TRIALS}: {best}. Rank correlation of the loss with the axis "
                  f"accuracy: {rank:.2f}.", ""]  # fmt: skip
    half = results["8 x 8, guided on one axis"]
    if half:
        first, second = (spread([run[key] for run in half]) for key in ("first", "second"))
        lines += [f"Guided on one axis: that axis {first}, the other {second}.", ""]
    return lines


def table_of_faces(results: dict[str, list[Result]]) -> list[str]:
    arms = [arm for arm in ("faces", "faces, two hidden") if results.get(arm)]
    if not arms:
        return []
    lines = [
        "## Drawn faces", "",
        "| training | attribute | read correctly | share of the edit | cosine | cosine, impossible face |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for arm in arms:
        for name in FACE_ATTRIBUTES:
            runs = results[arm]
            edit = [run["edit"][name] for run in runs]
            hidden = arm != "faces" and name in HIDDEN
            away = [entry["cosine impossible"] for entry in edit]
            cells = [spread([run["read"][name] for run in runs])]
            cells += [spread([entry[key] for entry in edit]) for key in ("share", "cosine")]
            cells.append("-" if np.isnan(away).any() else spread(away))
            lines.append(f"| {arm} | {name}{' (hidden)' if hidden else ''} | " + " | ".join(cells) + " |")
    lines += [""]
    for arm in arms:
        parts = [spread([run[key] for run in results[arm]], 3) for key in ("possible", "impossible")]
        lines += [f"{arm}: root mean square error of decoded cells against the drawn face, possible combinations "
                  f"{parts[0]}, impossible ones {parts[1]}.", ""]  # fmt: skip
    return lines


def table_of_costs(results: dict[str, list[Result]]) -> list[str]:
    lines: list[str] = []
    if results.get("cost of the prior"):
        lines += [
            "## Cost",
            "",
            "`GridPrior.log_prob` of 256 codes, 6 levels, one thread: CPU microseconds an axis",
            "",
        ]
        lines += ["| n = 10 | 100 | 1000 |", "|---|---|---|"]
        columns = [
            [1e6 * run["seconds"][n] / int(n) for run in results["cost of the prior"]] for n in ("10", "100", "1000")
        ]
        lines += ["| " + " | ".join(spread(column, 1) for column in columns) + " |", ""]
    runs = results.get("cost of a step", [])
    if runs:
        names = [name for name in runs[0]["seconds"] if name != "plain"]
        lines += [
            "CPU time of a step against that of a plain VAE written down by hand (392-256-256-4, batches of 256):",
            "",
        ]
        lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        ratios = [[run["seconds"][name] / run["seconds"]["plain"] for run in runs] for name in names]
        lines += ["| " + " | ".join(spread(ratio) for ratio in ratios) + " |", ""]
    return lines


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
        function, count = ARMS[arm]
        for seed in range(min(count, options.runs)):
            if (arm, seed) in done or time.monotonic() - start > options.seconds:
                continue
            done[arm, seed] = function(arm, seed)
            with options.work.open("a") as stream:
                stream.write(json.dumps({"arm": arm, "seed": seed, "result": done[arm, seed]}) + "\n")
    results: dict[str, list[Result]] = {}
    for arm, (_, count) in ARMS.items():
        results[arm] = [done[arm, seed] for seed in range(count) if (arm, seed) in done]
    text = [
        "# GridVAE", "",
        "`python benchmarks/gridvae.py --out benchmarks/gridvae.md`; seeds 0, 1, ..., all that were run; one thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}.", "",
        f"Settings: guided {GUIDED}, 14 x 28 pixels; without labels {ALONE}, 7 x 14 pixels; guided on one axis {HALF}, "
        f"7 x 14 pixels; faces {FACES}, 20 x 20 pixels (obs_sigma raised from 0.15, with which guidance was not "
        "followed).", "",
        *table_of_digits(results), *table_of_small_digits(results), *table_of_faces(results), *table_of_costs(results),
    ]  # fmt: skip
    options.out.write_text("\n".join(text).rstrip() + "\n")


if __name__ == "__main__":
    main()
