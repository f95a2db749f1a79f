"""Nothing but wrong input: each is refused with a message that says what to do."""

from __future__ import annotations

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from manifoldkit.isometry import (
    MLP,
    ClassBalancedBatchSampler,
    DiffusionDistance,
    FullLossView,
    IsometricAutoencoder,
    IsometricLoss,
    IsometricTrainer,
    IsometryReport,
    LocallyIsometricNet,
    baseline,
    edge_ratio_std,
)

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 0, 0, 1, 1, 1])
NAN = X.clone()
NAN[2, 1] = float("nan")
FITTED = IsometricAutoencoder(2, hidden=(4,), max_iter=1, init=None).fit(X)


FROZEN = {"encoder": nn.Linear(3, 2).requires_grad_(False), "decoder": nn.Linear(2, 3).requires_grad_(False)}


def warm(**changed):
    model = IsometricAutoencoder(2, hidden=(4,), max_iter=1, init=None, warm_start=True).fit(X)
    return model.set_params(**changed).fit(X)


THIN = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-4])


def OF_SAMPLES(x):  # noqa: N802 - a constant of these cases
    return torch.cdist(x, x)


OF_SAMPLES.of_samples = True


def seen(network, labels):
    view = FullLossView(network)
    return view.objective(view(X), labels)


def net(levels=1):
    return LocallyIsometricNet.mlp(3, [2] * levels, width=4, depth=1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: IsometricLoss("klass"), ValueError, "partition must be"),
        (lambda: IsometricLoss(torch.rand(6)), TypeError, "partition must hold integers"),
        (lambda: IsometricLoss(3), ValueError, r"integers of shape \(N,\), got 3"),
        (lambda: IsometricLoss(None), ValueError, "got None"),
        (lambda: IsometricLoss(["a", "b"]), TypeError, "partition must hold integers, got dtype <U1"),
        (lambda: IsometricLoss()(X, X, ["a"] * 6), TypeError, "return_inverse"),
        (lambda: IsometricLoss(reduction="sum"), ValueError, "reduction must be"),
        (lambda: IsometricLoss(metric="cosine"), ValueError, "metric must be"),
        (lambda: IsometricLoss(scale=0.0), ValueError, "scale must be positive"),
        (lambda: IsometricLoss()(X, X), ValueError, "y is missing"),
        (lambda: IsometricLoss()(X, X, Y[:5]), ValueError, r"shape \(6,\)"),
        (lambda: IsometricLoss()(X, X, Y.float()), TypeError, "y must hold integers"),
        (lambda: IsometricLoss()(X, X[:5], Y), ValueError, "same samples, got 6 and 5"),
        (lambda: IsometricLoss()(X[:0], X[:0], Y[:0]), ValueError, "holds no sample"),
        (lambda: IsometricLoss("global")(X[:0], X[:0]), ValueError, "holds no sample"),
        (lambda: IsometricLoss()(X.numpy(), X, Y), TypeError, "x must be a torch.Tensor"),
        (lambda: IsometricLoss()(X.long(), X, Y), TypeError, "floating"),
        (lambda: IsometricLoss()(NAN, X, Y), ValueError, "the inputs x hold NaN"),
        (lambda: IsometricLoss()(X, NAN, Y), ValueError, "the representations z hold NaN"),
        (lambda: IsometricLoss(Y)(X[:5], X[:5]), ValueError, "partition has 6 samples and the batch 5"),
        (lambda: IsometricLoss(metric=lambda x: x)(X, X, Y), ValueError, r"shape \(6, 6\), got \(6, 3\)"),
        (lambda: IsometricLoss(metric=lambda x: 1.0)(X, X, Y), ValueError, "got float"),
        (lambda: DiffusionDistance(object()), TypeError, "fitted DiffusionManifold"),
        (lambda: ClassBalancedBatchSampler(Y, 3, 2), ValueError, "2 of 2 classes"),
        (lambda: ClassBalancedBatchSampler(Y, 2, 4), ValueError, "0 of 2 classes have 4 samples"),
        (lambda: ClassBalancedBatchSampler(Y, 2, 1), ValueError, "at least 2"),
        (lambda: ClassBalancedBatchSampler(Y.float(), 2, 2), TypeError, "integers"),
        (lambda: ClassBalancedBatchSampler(None, 2, 2), ValueError, r"shape \(n,\).* got None"),
        (lambda: ClassBalancedBatchSampler(Y[:, None], 2, 2), ValueError, r"shape \(n,\).* got shape \(6, 1\)"),
        (lambda: LocallyIsometricNet(3, 4, 2), TypeError, "int"),
        (lambda: LocallyIsometricNet([3], 4, 2), TypeError, "blocks must be"),
        (lambda: LocallyIsometricNet([nn.Tanh()], [4, 4], 2), ValueError, "each of the 1 blocks, got 2"),
        (lambda: LocallyIsometricNet([nn.Tanh()], 0, 2), ValueError, "n_features must be at least 1"),
        (lambda: LocallyIsometricNet([nn.Tanh()], 4, 2.0), TypeError, "float"),
        (lambda: LocallyIsometricNet([nn.Tanh()], 4, 2, gradient="none"), ValueError, "gradient must be one of"),
        (lambda: LocallyIsometricNet([nn.Tanh()], 4, 2)(X), ValueError, r"must return \(B, 4\), got \(6, 3\)"),
        (lambda: net()(torch.rand(5, 1, 2, 2)), ValueError, "samples of 3 entries"),
        (lambda: net()(X[0]), ValueError, r"x\[None\]"),
        (lambda: MLP([3]), ValueError, "inputs and of outputs"),
        (lambda: IsometricTrainer(nn.Linear(3, 2)), TypeError, "LocallyIsometricNet"),
        (lambda: IsometricTrainer(net(), beta=-1.0), ValueError, "beta must be"),
        (lambda: IsometricTrainer(net(), alpha=[1.0, 1.0]), ValueError, "each of the 1 levels"),
        (lambda: IsometricTrainer(net(), alpha=0.0, beta=0.0), ValueError, "nothing to minimise"),
        (lambda: IsometricTrainer(net(), isometry="global"), TypeError, "IsometricLoss or one for each level, got str"),
        (lambda: IsometricTrainer(net(), isometry=[torch.cdist]), TypeError, "hold an IsometricLoss for each level"),
        (lambda: IsometricTrainer(net(2), isometry=[IsometricLoss()]), ValueError, "each of the 2 levels, got 1"),
        (lambda: IsometricTrainer(net(), isometry=IsometricLoss(metric="precomputed")), ValueError, "no matrix"),
        (lambda: IsometricTrainer(net(), optimizer=torch.optim.SGD(net().parameters())), TypeError, "use lambda p"),
        (lambda: IsometricTrainer(net(), optimizer="adam"), TypeError, "optimizer must be a function"),
        (lambda: IsometricTrainer(net()).fit(X, ["a"] * 6), TypeError, "y must hold integers, got dtype <U1"),
        (lambda: IsometricTrainer(net()).fit(X, Y, cells=Y[:3]), ValueError, r"cells must have shape \(6,\)"),
        (lambda: IsometricTrainer(net(2)).fit(X, [Y, Y], cells=[Y]), ValueError, "each of the 2 levels, got 1"),
        (lambda: IsometricTrainer(net(2)).fit(X, [Y, Y], coordinates=[X]), ValueError, "each of the 2 levels, got 1"),
        (
            lambda: IsometricTrainer(net(), isometry=IsometricLoss("global")).fit(X, Y, cells=Y),
            ValueError,
            "level 0, whose loss has partition='global'",
        ),
        (
            lambda: IsometricTrainer(net(), isometry=IsometricLoss(metric=OF_SAMPLES)).fit(X, Y, coordinates=X),
            ValueError,
            "metric is one of samples",
        ),
        (lambda: IsometricTrainer(net(), generator=3), TypeError, "manual_seed"),
        (lambda: IsometricTrainer(net()).fit(NAN, Y), ValueError, "NaN or infinity in 1 of 6"),
        (lambda: IsometricTrainer(net()).fit(X, Y[:4]), ValueError, r"shape \(6,\)"),
        (lambda: IsometricTrainer(net()).fit(X, None), ValueError, "y is missing"),
        (lambda: IsometricTrainer(net()).fit(X, Y + 1), ValueError, r"0..1, got values from 1 to 2"),
        (lambda: IsometricTrainer(net()).fit(X[:0], Y[:0]), ValueError, "at least one sample"),
        (lambda: IsometricTrainer(net()).fit(X, Y, batch_size=2, sampler=[[0]]), ValueError, "not both"),
        (lambda: IsometricTrainer(net()).fit(X, Y, batch_size=0), ValueError, "batch_size must be at least 1"),
        (lambda: IsometricTrainer(net()).fit(X, Y, epochs=1.5), TypeError, "epochs must be an integer"),
        (lambda: IsometricTrainer(net()).fit(X, Y, coordinates=X[:3]), ValueError, "row for each of the 6"),
        (lambda: IsometricTrainer(net()).fit(X, Y, sampler=iter([[0, 1]]), epochs=2), ValueError, "no batch"),
        (lambda: IsometricTrainer(net()).fit(X, Y, sampler=[]), ValueError, "epoch 0 has no batch"),
        (lambda: IsometricTrainer(net(2)).fit(X, Y), ValueError, "sequence of 2 label vectors"),
        (lambda: IsometricTrainer(net(2)).fit(X, [Y]), ValueError, "2 label vectors, one for each level, got 1"),
        (lambda: FullLossView(nn.Linear(3, 2)), TypeError, "LocallyIsometricNet"),
        (lambda: FullLossView(net()).objective(torch.zeros(6, 2), Y), ValueError, "of 0 samples, got 6 logits"),
        (lambda: seen(net(2), Y), ValueError, "2 levels and the labels are those of one: .*classes="),
        (lambda: seen(net(2), [Y]), ValueError, "2 label vectors, one for each level, got 1"),
        (lambda: FullLossView(net(2), classes=[[0, 1]]), ValueError, "each of the 2 levels, got 1"),
        (lambda: FullLossView(net(2), classes=[[0, 1], [0, 2]]), ValueError, r"classes\[1\] must lie in 0..1"),
        (lambda: FullLossView(net(2), classes=[[0], [0, 1]]), ValueError, r"classes\[0\] must have shape \(2,\)"),
        (lambda: FullLossView(net(), beta=[1.0, 1.0]), ValueError, "each of the 1 levels"),
        (lambda: IsometricAutoencoder(4).fit(X), ValueError, "n_components=4 exceeds the 3 entries"),
        (lambda: IsometricAutoencoder(0).fit(X), ValueError, "n_components must be at least 1"),
        (lambda: IsometricAutoencoder(2).fit(NAN), ValueError, "NaN"),
        (lambda: IsometricAutoencoder(2).fit(X[:1]), ValueError, "minimum of 2"),
        (lambda: IsometricAutoencoder(2, encoder=3).fit(X), TypeError, "encoder must be a torch.nn.Module"),
        (lambda: IsometricAutoencoder(2, decoder="tight").fit(X), TypeError, "decoder must be a torch.nn.Module"),
        (lambda: IsometricAutoencoder(2, encoder=nn.Linear(3, 1)).fit(X), ValueError, r"codes \(B, 2\), got \(2, 1\)"),
        (lambda: IsometricAutoencoder(2, decoder=nn.Linear(2, 4)).fit(X), ValueError, r"shape \(3,\), got \(4,\)"),
        (lambda: IsometricAutoencoder(2, encoder=nn.Linear(3, 2), decoder="tied").fit(X), TypeError, "needs an MLP"),
        (lambda: IsometricAutoencoder(2, activation="relu").fit(X), ValueError, "activation must be"),
        (lambda: IsometricAutoencoder(2, solver="sgd").fit(X), ValueError, "solver must be"),
        (lambda: IsometricAutoencoder(2, init="umap").fit(X), ValueError, "init must be"),
        (lambda: IsometricAutoencoder(2, init=X[:, :1]).fit(X), ValueError, r"init must have shape \(6, 2\)"),
        (lambda: IsometricAutoencoder(3, init="pca").fit(X[:2]), ValueError, "at most 2 codes of 2 samples"),
        (lambda: IsometricAutoencoder(2, init="isomap").fit(X[:2]), ValueError, "at most 1 codes of 2 samples"),
        (lambda: IsometricAutoencoder(2, init=NAN[:, :2]).fit(X), ValueError, "init contains NaN"),
        (lambda: IsometricAutoencoder(2, **FROZEN).fit(X), ValueError, "no weight to train"),
        (lambda: warm(n_components=1), ValueError, "goes on with n_components 2, got 1"),
        (lambda: warm(dtype="float32"), ValueError, "goes on with dtype torch.float64, got torch.float32"),
        (lambda: IsometricAutoencoder(2, dtype="float16").fit(X), ValueError, "dtype must be"),
        (lambda: IsometricAutoencoder(2, corruption=-1.0).fit(X), ValueError, "corruption must be"),
        (lambda: IsometricAutoencoder(2, codes="uniform", init=None).fit(X), ValueError, "codes must be"),
        (lambda: IsometricAutoencoder(2, codes="uniform", penalties=()).fit(X), ValueError, "codes must be"),
        (lambda: IsometricAutoencoder(2, hidden=16).fit(X), TypeError, "hidden must be a sequence .* got 16"),
        (lambda: IsometricAutoencoder(2, isometry_weight=-1.0, init=None).fit(X), ValueError, "weight must be"),
        (lambda: IsometricAutoencoder(2, max_iter=1.5).fit(X), TypeError, "max_iter must be an integer"),
        (lambda: FITTED.transform(X[:, :2]), ValueError, "3"),
        (lambda: FITTED.transform(torch.rand(4, 1, 2, 2)), ValueError, r"shape \(B, 3\)"),
        (lambda: FITTED.inverse_transform(X), ValueError, r"shape \(B, 2\)"),
        (lambda: FITTED.project(NAN), ValueError, "NaN"),
        (lambda: IsometricAutoencoder(2).manifold, NotFittedError, "not fitted"),
        (lambda: baseline("VAE"), ValueError, "name must be one of"),
        (lambda: baseline("AE", 0.1), ValueError, "no weight"),
        (lambda: edge_ratio_std(lambda z: z, torch.rand(50, 4)), ValueError, "1 to 3 dimensions"),
        (lambda: edge_ratio_std(lambda z: z, torch.zeros(50, 2)), ValueError, "do not span 2 dimensions"),
        (lambda: edge_ratio_std(lambda z: z, THIN), ValueError, "nearly collapsed: they fill a box of 0.9.* x 9.*e-05"),
        (lambda: edge_ratio_std(lambda z: 0 * z, torch.rand(300, 2)), ValueError, "has collapsed"),
        (lambda: edge_ratio_std(lambda z: z, NAN), ValueError, "codes holds NaN"),
        (lambda: IsometryReport.measure(X, [["a"] * 3] * 6), TypeError, "z must hold floating numbers, got dtype <U1"),
        (lambda: IsometricTrainer(net()).fit([[1, 2, 3]] * 6, Y), TypeError, "floating numbers, got dtype torch.int64"),
        (lambda: IsometryReport.measure(X, X[:3]), ValueError, "same samples"),
        (lambda: IsometryReport.measure(NAN, X), ValueError, "x holds NaN"),
        (lambda: IsometryReport.measure(X, X, Y.float()), TypeError, "integers"),
        (lambda: IsometryReport.of_network(net(2), X, [Y]), ValueError, "2 label vectors"),
    ],
)
def test_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_diverging_training_stops_before_the_step_that_breaks_the_weights():
    model = LocallyIsometricNet(MLP([3, 4], generator=torch.Generator().manual_seed(0)), 4, 2)
    trainer = IsometricTrainer(model, optimizer=lambda p: torch.optim.SGD(p, lr=1e30))
    with pytest.raises(ValueError, match=r"lower the learning rate|hold NaN, infinity or overflow"):
        trainer.fit(X, Y, epochs=50)
    assert all(torch.isfinite(p).all() for p in model.parameters())
