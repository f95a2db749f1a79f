"""Stacks of locally isometric blocks: which gradient goes where, and what training does."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import FGSM, PGD
from manifoldkit.datasets import make_circle, make_linked_rings, make_ring_torus
from manifoldkit.isometry import (
    MLP,
    ClassBalancedBatchSampler,
    DiffusionDistance,
    FullLossView,
    IsometricLoss,
    IsometricTrainer,
    IsometryReport,
    LocallyIsometricNet,
)
from manifoldkit.isometry.training import batches


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def three_levels(**options):
    net = LocallyIsometricNet.mlp(3, [2, 4, 8], width=6, depth=1, generator=seeded(), **options)
    sample = make_ring_torus(40, random_state=0)
    sector = torch.from_numpy(sample.parameters[:, 0] * 8 / (2 * torch.pi)).long()
    return net, torch.from_numpy(sample.points).float(), [sector // 4, sector // 2, sector]


REACH = {"own": {2: {2}}, "previous": {2: {1, 2}}, "full": {2: {0, 1, 2}}}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("policy", ["own", "previous", "full"])
def test_losses_reach_the_blocks_that_the_policy_names(policy, shared):
    net, x, y = three_levels(gradient=policy, shared_head=shared)
    trainer = IsometricTrainer(net, alpha=[0, 0, 1], beta=[0, 0, 1], optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    before = [[p.detach().clone() for p in block.parameters()] for block in net.blocks]
    trainer.fit(x, y)
    moved = {
        level
        for level, (block, old) in enumerate(zip(net.blocks, before, strict=True))
        if any(not torch.equal(p, q) for p, q in zip(block.parameters(), old, strict=True))
    }
    assert moved == REACH[policy][2]


@pytest.mark.parametrize("policy", ["own", "previous", "full"])
def test_gradients_are_those_of_detached_graphs(policy):
    """The policies equal explicit detach() calls on a freshly built graph, with weights of each level."""
    net, x, y = three_levels(gradient=policy)
    alpha, beta = (0.5, 2.0, 0.3), (3.0, 0.2, 7.0)
    trainer = IsometricTrainer(net, alpha=alpha, beta=beta, optimizer=lambda p: torch.optim.SGD(p, lr=0.0)).fit(x, y)
    record, total = trainer.history[0], 0.0
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    for level in range(3):
        z = x
        for block in range(level + 1):
            first = {"own": level, "previous": level - 1, "full": 0}[policy]
            z_in = z.detach() if block == first else z
            z = net.blocks[block](z_in)
        terms = nn.functional.cross_entropy(net.heads[level](z), y[level]), IsometricLoss()(z_in, z, y[level])
        assert (record[f"ce_{level}"], record[f"isometry_{level}"]) == pytest.approx([term.item() for term in terms])
        loss = alpha[level] * terms[0] + beta[level] * terms[1]
        loss.backward()
        total += loss.item()
    assert record["loss"] == pytest.approx(total)
    for got, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad)


def test_any_backbone_may_be_wrapped_and_attacked():
    cnn = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10), nn.Tanh())
    net = LocallyIsometricNet(cnn, 10, 3, generator=seeded())
    x, y = torch.rand(30, 1, 8, 8, generator=seeded()), torch.arange(30) % 3
    IsometricTrainer(net, generator=seeded()).fit(x, y, epochs=2, batch_size=10)
    net.eval()
    adversarial = FGSM(net, eps=0.1)(x, y)
    assert adversarial.shape == x.shape
    assert (adversarial - x).abs().max() <= 0.1 + 1e-6
    assert len(IsometryReport.of_network(net, x, y)) == 1


@pytest.mark.parametrize("policy", ["own", "previous", "full"])
def test_frozen_levels_stay_and_others_learn(policy):
    net, x, y = three_levels(gradient=policy)
    net.blocks[0].requires_grad_(False)
    net.heads[0].requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    IsometricTrainer(net, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)).fit(x, y)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(("blocks.0", "heads.0")), name


@pytest.mark.parametrize(("n", "size"), [(21, 10), (11, 10), (10, 10), (9, 4), (3, 2), (3, 1)])
def test_no_batch_of_several_is_a_single_sample(n, size):
    rows = list(batches(n, size, seeded()))
    assert sorted(torch.cat(rows).tolist()) == list(range(n))
    assert all(len(part) <= size + 1 for part in rows)
    assert size == 1 or all(len(part) > 1 for part in rows)


def test_batch_norm_takes_any_number_of_samples():
    block = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh())
    net = LocallyIsometricNet(block, 4, 2, generator=seeded())
    trainer = IsometricTrainer(net, generator=seeded())
    trainer.fit(torch.randn(21, 3, generator=seeded()), torch.arange(21) % 2, batch_size=10)
    assert block[1].num_batches_tracked.item() == 2


def test_a_shared_head_is_one_classifier_for_all_levels():
    net, x, _ = three_levels(shared_head=True)
    found = net.representations(x)
    logits = net.logits(found)
    assert [score.shape[1] for score in logits] == [2, 4, 8]
    torch.testing.assert_close(logits[0], net.classifier(net.heads[0](found[0]))[:, :2])
    torch.testing.assert_close(net(x), logits[2])


@pytest.mark.parametrize("seed", [0, 1])
def test_isometry_on_rings_keeps_distances_where_cross_entropy_does_not(seed):
    rings, labels = make_linked_rings(80, random_state=seed)
    x = torch.from_numpy(rings.points).float()
    reports = {}
    for beta in (0.0, 1.0):
        net = LocallyIsometricNet.mlp(3, 2, width=20, depth=2, generator=seeded(seed))
        trainer = IsometricTrainer(net, beta=beta, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
        trainer.fit(x, labels, epochs=400)
        assert (net(x).argmax(1).numpy() == labels).all()
        reports[beta] = IsometryReport.of_network(net, x, labels)[0]
    assert reports[1.0].stress < 0.05 < 0.3 < reports[0.0].stress
    assert reports[1.0].distance_correlation > 0.99 > reports[0.0].distance_correlation


def test_training_is_reproducible_and_goes_on_after_an_interruption():
    """KeyboardInterrupt in epoch 3 leaves the state of three epochs; five more give what eight give at once."""
    x, y = torch.randn(40, 3, generator=seeded()), torch.arange(40) % 2

    def interrupt(trainer, record):
        if len(trainer.history) == 3:
            raise KeyboardInterrupt

    def trained(callbacks):
        net = LocallyIsometricNet.mlp(3, 2, width=5, depth=1, generator=seeded())
        return IsometricTrainer(net, generator=seeded(1), callbacks=callbacks)

    whole = trained([]).fit(x, y, epochs=8, batch_size=16)
    broken = trained([interrupt])
    broken.net.eval()
    with pytest.raises(KeyboardInterrupt):
        broken.fit(x, y, epochs=8, batch_size=16)
    assert len(broken.history) == 3
    assert not broken.net.training
    broken.fit(x, y, epochs=5, batch_size=16)
    assert broken.history == whole.history
    for a, b in zip(broken.net.parameters(), whole.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_callback_may_end_the_training_and_the_global_seed_is_left_alone():
    state = torch.random.get_rng_state()
    net = LocallyIsometricNet.mlp(3, 2, width=5, depth=1)
    trainer = IsometricTrainer(net, callbacks=[lambda trainer, record: len(trainer.history) == 2])
    trainer.fit(torch.randn(10, 3, generator=seeded()), torch.arange(10) % 2, epochs=9, batch_size=5)
    assert len(trainer.history) == 2
    assert torch.equal(torch.random.get_rng_state(), state)


def test_scalars_of_numpy_and_labels_of_one_level_in_a_list_are_what_they_stand_for():
    x, y = torch.randn(6, 3, generator=seeded()), [0, 0, 0, 1, 1, 1]
    plain = LocallyIsometricNet.mlp(3, 2, width=4, depth=1, generator=seeded())
    other = LocallyIsometricNet.mlp(np.int64(3), np.int64(2), width=np.int64(4), depth=np.int64(1), generator=seeded())
    wrapped = LocallyIsometricNet(other.blocks[0], np.int32(4), np.int64(2))
    assert (wrapped.n_features, wrapped.n_classes) == ((4,), (2,))
    histories = [IsometricTrainer(plain, beta=0.5).fit(x, y, epochs=2).history]
    for labels in (list(np.array(y)), [torch.tensor(y)]):
        net = copy.deepcopy(other)
        histories.append(IsometricTrainer(net, beta=np.float32(0.5)).fit(x, labels, epochs=2).history)
        assert IsometryReport.of_network(net, x, labels) == IsometryReport.of_network(net, x, y)
    assert histories[0] == histories[1] == histories[2]


def test_samplers_and_coordinates():
    """Coordinates stand for the samples in the isometric loss of the first level, sampler batches for shuffled ones."""
    x, y = torch.randn(60, 3, generator=seeded()), torch.arange(60) % 3
    seen = []

    class Watched(IsometricLoss):
        def forward(self, x, z, y=None):
            seen.append((x, torch.bincount(y).tolist()))
            return super().forward(x, z, y)

    net = LocallyIsometricNet.mlp(3, 3, width=5, depth=1, generator=seeded())
    sampler = ClassBalancedBatchSampler(y, 3, 4, generator=seeded())
    IsometricTrainer(net, isometry=Watched()).fit(x, y, sampler=sampler, coordinates=2 * x)
    assert len(seen) == len(sampler) == 5
    assert all(counts == [4, 4, 4] for _, counts in seen)
    doubled = {tuple(row) for row in (2 * x).tolist()}
    assert all(tuple(row) in doubled for batch, _ in seen for row in batch.tolist())


def test_perturb_makes_it_adversarial_training():
    x, y = torch.rand(32, 4, generator=seeded()), torch.arange(32) % 2
    net = LocallyIsometricNet.mlp(4, 2, width=5, depth=1, generator=seeded())
    seen = []
    attack = PGD(net, eps=0.1, steps=2)

    def perturb(images, labels):
        adversarial = attack(images, labels)
        seen.append((adversarial - images).abs().max().item())
        return adversarial

    IsometricTrainer(net, perturb=perturb).fit(x, y, epochs=3)
    assert len(seen) == 3
    assert all(0 < size <= 0.1 + 1e-6 for size in seen)


def test_what_perturb_returns_is_what_is_learned_from():
    x, y = torch.rand(32, 4, generator=seeded()), torch.arange(32) % 2
    histories = []
    for samples, perturb in ((x, lambda images, labels: 1 - 2 * images), (1 - 2 * x, None)):
        net = LocallyIsometricNet.mlp(4, 2, width=5, depth=1, generator=seeded())
        histories.append(IsometricTrainer(net, perturb=perturb).fit(samples, y, epochs=2).history)
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def circle():
    """Points of a circle, and the diffusion distance along it."""
    points = torch.from_numpy(make_circle(60, grid=True).points).float()
    return points, DiffusionDistance(DiffusionManifold(n_components=7).fit(points.numpy()))


def two_levels(n_inputs=2, **options):
    return LocallyIsometricNet.mlp(n_inputs, [2, 4], width=6, depth=1, generator=seeded(), **options)


def test_a_metric_of_samples_is_asked_for_samples_on_every_level(circle):
    """In minibatches; given as coordinates computed once, it is the same."""
    x, distance = circle
    y = [torch.arange(60) // 30, torch.arange(60) // 15]
    histories = []
    coordinates = distance.coordinates(x)
    for isometry, given in (
        (IsometricLoss(metric=distance), None),
        ([IsometricLoss(metric=distance), IsometricLoss(metric=distance)], None),
        (None, [coordinates, coordinates]),
        ([IsometricLoss(), IsometricLoss(metric=distance)], [coordinates, None]),
        (None, [coordinates, None]),
        (None, coordinates),
    ):
        trainer = IsometricTrainer(two_levels(), isometry=isometry, generator=seeded(1))
        histories.append(trainer.fit(x, y, epochs=2, batch_size=20, coordinates=given).history)
    for one in histories[1:4]:
        for record, expected in zip(one, histories[0], strict=True):
            assert record == pytest.approx(expected, rel=1e-4)
    assert histories[4] == histories[5]  # one array is that of the first level
    assert histories[4][0]["isometry_1"] > 2 * histories[0][0]["isometry_1"]
    net = two_levels()
    found = net.representations(x)
    trainer = IsometricTrainer(net, isometry=IsometricLoss(metric=distance)).fit(x, y)
    for level in range(2):
        expected = IsometricLoss(metric=distance)(x, found[level], y[level]).item()
        assert trainer.history[0][f"isometry_{level}"] == pytest.approx(expected)


def test_each_level_may_have_a_loss_and_a_partition_of_its_own():
    x, y = torch.randn(40, 3, generator=seeded(3)), torch.arange(40) % 2
    mine = torch.arange(40) // 8
    losses = [IsometricLoss("global", "pairs"), IsometricLoss(scale=0.5)]
    net = two_levels(3)
    found = net.representations(x)
    record = IsometricTrainer(net, isometry=losses).fit(x, [y, y], cells=[None, mine]).history[0]
    assert record["isometry_0"] == pytest.approx(losses[0](x, found[0]).item())
    assert record["isometry_1"] == pytest.approx(losses[1](found[0], found[1], mine).item())
    shared = [
        IsometricTrainer(two_levels(3)).fit(x, [y, y], cells=cells).history
        for cells in (mine, [mine, mine], torch.stack([mine, mine]))
    ]
    assert shared[0] == shared[1] == shared[2]
    own = IsometricTrainer(two_levels(3)).fit(x, [y, y], cells=[None, None]).history
    assert own == IsometricTrainer(two_levels(3)).fit(x, [y, y]).history != shared[0]
    seen = []

    class Watched(IsometricLoss):
        def forward(self, x, z, y=None):
            seen.append((x.clone(), y))
            return super().forward(x, z, y)

    IsometricTrainer(two_levels(3), isometry=Watched(), beta=[1, 0], generator=seeded()).fit(
        x, [y, y], cells=mine, batch_size=10
    )
    rows = {tuple(row): cell for row, cell in zip(x.tolist(), mine.tolist(), strict=True)}
    assert len(seen) == 4
    for batch, ids in seen:
        assert [rows[tuple(row)] for row in batch.tolist()] == ids.tolist()


def batch_norms(frozen):
    blocks = [nn.Sequential(nn.Linear(d, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for d in (3, 4)]
    blocks[0].requires_grad_(not frozen)
    return LocallyIsometricNet(blocks, 4, 2, generator=seeded())


@pytest.mark.parametrize("mode", [True, False])
def test_every_part_is_put_back_into_its_mode_and_frozen_ones_are_evaluated(mode):
    x, y = torch.randn(20, 3, generator=seeded()), torch.arange(20) % 2
    net = batch_norms(frozen=True).train(mode)
    net.blocks[1][2].train(not mode)
    modes = [part.training for part in net.modules()]
    watched = []
    net.blocks[0][2].register_forward_hook(lambda part, *_: watched.append(part.training))
    before = copy.deepcopy(net.blocks[0].state_dict())
    IsometricTrainer(net).fit(x, [y, y], epochs=2)
    assert [part.training for part in net.modules()] == modes
    assert watched == [False, False]
    assert all(torch.equal(value, before[name]) for name, value in net.blocks[0].state_dict().items())
    assert net.blocks[1][1].num_batches_tracked.item() == 2


def test_parts_set_to_evaluation_in_a_network_in_training_mode_stay_so():
    x, y = torch.randn(20, 3, generator=seeded()), torch.arange(20) % 2
    net = batch_norms(frozen=False).train()
    net.blocks[0][1].eval()
    IsometricTrainer(net).fit(x, [y, y])
    assert [block[1].num_batches_tracked.item() for block in net.blocks] == [0, 1]
    net.eval()
    IsometricTrainer(net).fit(x, [y, y])
    assert [block[1].num_batches_tracked.item() for block in net.blocks] == [1, 2]


class Root(nn.Module):
    """Finite, with a gradient that is NaN: the root of the square of a feature that is 0."""

    def __init__(self, d):
        super().__init__()
        self.layer = nn.Linear(3, d)

    def forward(self, x):
        return (self.layer(x) * torch.arange(self.layer.out_features)).square().sqrt()


def test_a_gradient_that_is_not_finite_breaks_no_weights():
    net = LocallyIsometricNet(Root(4), 4, 2, generator=seeded())
    before = copy.deepcopy(net.state_dict())
    trainer = IsometricTrainer(net)
    with pytest.raises(ValueError, match="gradient is NaN or infinite in epoch 0"):
        trainer.fit(torch.randn(20, 3, generator=seeded()), torch.arange(20) % 2)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert trainer.history == []


def test_report_of_known_maps():
    x = torch.randn(50, 3, generator=seeded(), dtype=torch.float64)
    y = torch.arange(50) % 2
    stretch = torch.where(y[:, None] == 0, x, 3 * x)
    report = IsometryReport.measure(x.numpy(), stretch, y.numpy())
    assert report.n_pairs == 2 * 25 * 24 / 2
    assert report.per_class[0].stress < 1e-12
    assert report.per_class[1].stress == pytest.approx(2.0)
    assert report.per_class[1].distance_correlation == pytest.approx(1.0)
    assert (report.lipschitz, report.lower_lipschitz) == (pytest.approx(3.0), pytest.approx(1.0))
    pairs = torch.pdist(x[y == 0]).square().sum(), torch.pdist(x[y == 1]).square().sum()
    assert report.stress == pytest.approx(float((4 * pairs[1] / sum(pairs)).sqrt()))
    separated = IsometryReport.measure(torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [5.0], [1.0]]))
    assert (separated.lipschitz, separated.lower_lipschitz) == (float("inf"), 1.0)
    torn = IsometryReport.measure(torch.zeros(2, 1), torch.tensor([[0.0], [5.0]]))
    assert (torn.lipschitz, torn.lower_lipschitz) == (float("inf"), float("inf"))
    glued = IsometryReport.measure(torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [0.0], [3.0]]))
    assert (glued.lipschitz, glued.lower_lipschitz) == (3.0, 3.0)
    alone = IsometryReport.measure(x[:2], x[:2], [0, 1])
    assert alone.n_pairs == 0
    assert "nan" in str(alone)


def test_arrays_that_are_read_only_are_samples():
    x = np.random.default_rng(0).standard_normal((10, 3))
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert IsometryReport.measure(x, x).stress == 0.0


def test_report_of_a_network_compares_each_block_with_its_own_input():
    class Double(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.factor * x

    net = LocallyIsometricNet([Double(), nn.Dropout(), Double()], 3, 2).train()
    x, y = torch.randn(20, 3, generator=seeded()), torch.arange(20) % 2
    found = IsometryReport.of_network(net, x, [y, y, y])
    assert [round(report.stress, 6) for report in found] == [1.0, 0.0, 1.0]  # dropout is off
    assert net.training


def test_reports_and_training_take_the_same_labels():
    x, y = torch.randn(20, 3, generator=seeded()), torch.arange(20) % 2
    for labels in (np.stack([y, y]), torch.stack([y, y]), (y, y), [y.numpy(), y.tolist()]):
        net = two_levels(3)
        assert len(IsometryReport.of_network(net, x, labels)) == 2
        assert len(IsometricTrainer(net).fit(x, labels).history) == 1
    for labels in (y, [y], None, [y, None]):
        messages = []
        for call in (partial(IsometryReport.of_network, net), IsometricTrainer(net).fit):
            with pytest.raises(ValueError, match="y") as refused:
                call(x, labels)
            messages.append(str(refused.value))
        assert messages[0] == messages[1]


def test_mlp_flattens_images_and_has_the_spread_of_pytorch():
    net = MLP([784, 50, 10], generator=seeded())
    x = torch.rand(3, 1, 28, 28, generator=seeded())
    torch.testing.assert_close(net(x), net(x.flatten(1)))
    assert net[0].weight.std().item() == pytest.approx(1 / (3 * 784) ** 0.5, rel=0.02)
    again = MLP([784, 50, 10], generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_the_view_of_the_full_loss_climbs_the_training_loss(beta):
    net = LocallyIsometricNet.mlp(6, 3, width=8, depth=2, generator=seeded()).double()
    x = torch.rand(20, 6, generator=seeded(1), dtype=torch.float64)
    y = torch.arange(20) % 3
    leaf = x.clone().requires_grad_(True)
    (z,) = net.representations(leaf)
    loss = nn.functional.cross_entropy(net.logits([z])[0], y) + beta * IsometricLoss()(leaf, z, y)
    (gradient,) = torch.autograd.grad(loss, leaf)
    view = FullLossView(net, beta=beta)
    torch.testing.assert_close(view(x), net(x))
    seen = x.clone().requires_grad_(True)
    objective = view.objective(view(seen), y)
    assert objective.shape == (20,)
    torch.testing.assert_close(torch.autograd.grad(objective.sum(), seen)[0], 20 * gradient)
    right = net(x).argmax(1)  # nobody leaves before the step
    adversarial = FGSM(view, eps=0.01, loss=view.objective, bounds=None)(x, right)
    leaf = x.clone().requires_grad_(True)
    total = view.objective(view(leaf), right).sum()
    expected = x + 0.01 * torch.autograd.grad(total, leaf)[0].sign()
    torch.testing.assert_close(adversarial, expected)


def trained_on(net, x, y, **options):
    """The loss that one step of training minimises, with its graph."""
    losses = []

    class Kept(IsometricTrainer):
        def _backward(self, parts, total):
            losses.append(total)
            super()._backward(parts, total)

    Kept(net, optimizer=lambda p: torch.optim.SGD(p, lr=0.0), **options)._step(x, y, y, [None] * len(y))
    return losses[0]


@pytest.mark.parametrize("of_samples", [False, True])
def test_the_view_of_a_hierarchy_climbs_the_loss_of_its_training(of_samples, circle):
    net, fine = two_levels(gradient="full").double(), torch.arange(60) // 15
    x, y = circle[0].double(), [fine // 2, fine]
    weights = {"alpha": [0.5, 2.0], "beta": [3.0, 0.7]}
    if of_samples:
        weights["isometry"] = [IsometricLoss("global"), IsometricLoss(metric=circle[1])]
    values, gradients = [], []
    leaf = x.clone().requires_grad_(True)
    values.append(trained_on(net, leaf, y, **weights))
    gradients.append(leaf.grad)
    for view, labels in (
        (FullLossView(net, **weights), y),
        (FullLossView(net, classes=[[0, 0, 1, 1], [0, 1, 2, 3]], **weights), fine),
    ):
        leaf = x.clone().requires_grad_(True)
        objective = view.objective(view(leaf), labels)
        assert objective.shape == (60,)
        values.append(objective.mean())
        gradients.append(torch.autograd.grad(objective.sum(), leaf)[0] / 60)
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0])
        torch.testing.assert_close(gradient, gradients[0])
    assert FGSM(view, eps=0.1, loss=view.objective, bounds=None)(x, fine).shape == x.shape


def test_a_view_that_has_been_attacked_can_be_copied_and_pickled():
    net = LocallyIsometricNet.mlp(6, 3, width=8, depth=1, generator=seeded())
    x, y = torch.rand(12, 6, generator=seeded(1)), torch.arange(12) % 3
    view = FullLossView(net, beta=2.0)
    expected = FGSM(view, eps=0.1, loss=view.objective)(x, y)
    view(x)  # it now holds what it has seen, a part of a graph
    for other in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert other.net is not net
        torch.testing.assert_close(FGSM(other, eps=0.1, loss=other.objective)(x, y), expected, atol=0, rtol=0)
