"""Laws of `evaluate`: it adds up, it resumes, and it refuses what does not belong together."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from manifoldkit import DiffusionManifold
from manifoldkit.attacks import (
    FGSM,
    PGD,
    Attack,
    LatentPGD,
    OnManifoldPGD,
    ProjectionAttack,
    SubspacePGD,
    evaluate,
)
from manifoldkit.attacks._record import fingerprint_of
from manifoldkit.attacks.losses import margin
from manifoldkit.datasets import make_circle
from manifoldkit.geometry.exact import Plane
from manifoldkit.plotting import plot_robustness
from manifoldkit.risk import OnManifoldTest

EPS = [0.02, 0.05, 0.1]


def batches(images: torch.Tensor, y: torch.Tensor) -> list:
    return list(zip(images.split(15), y.split(15), strict=True))


def suite(model: torch.nn.Module) -> dict[str, Attack]:
    plane = Plane(torch.eye(36)[:, :12])
    return {
        "FGSM": FGSM(model, 1.0),
        "PGD": PGD(model, 1.0, steps=8, random_start=True, manifold=plane),
        "walk": OnManifoldPGD(model, plane, 0.05, 8, residual="carry"),
    }


def same(a, b) -> bool:
    return a.samples.keys() == b.samples.keys() and all(
        np.array_equal(a.samples[k][n], b.samples[k][n], equal_nan=True) for k in a.samples for n in a.samples[k]
    )


def test_table_and_curves_add_up(convnet, images):
    y = convnet(images).argmax(1)
    y[:4] = (y[:4] + 1) % 4
    result = evaluate(convnet, batches(images, y), suite(convnet), eps=EPS)
    rows = {(row["attack"], row["eps"]): row for row in result.table()}
    assert list(rows) == [("FGSM", e) for e in EPS] + [("PGD", e) for e in EPS] + [("walk", None)]
    assert {row["clean_accuracy"] for row in rows.values()} == {0.9}
    for e in EPS:  # one step is deterministic, and a broken sample stays broken at larger budgets
        broken = torch.zeros(40, dtype=torch.bool)
        for smaller in (s for s in EPS if s <= e):
            broken |= FGSM(convnet, smaller).run(images, y).success
        assert rows["FGSM", e]["robust_accuracy"] == pytest.approx(1 - broken.double().mean().item())
        assert rows["FGSM", e]["distance"] is None
        assert 0 <= rows["PGD", e]["tangent_share"] <= 1
        assert rows["PGD", e]["linf"] <= e + 1e-9
    eps, accuracy = result.curves()["PGD"]
    assert eps.tolist() == [0, *EPS]
    assert accuracy[0] == 0.9
    assert (np.diff(accuracy) <= 0).all()
    assert accuracy[-1] < accuracy[0]
    assert set(result.curves()) == {"FGSM", "PGD"}
    assert result.to_markdown().count("\n") == len(rows) + 1


def test_each_attack_may_have_budgets_of_its_own(convnet, images):
    y = convnet(images).argmax(1)
    loader, attacks = batches(images, y), suite(convnet)
    mixed = evaluate(convnet, loader, attacks, eps={"FGSM": [0.1, 0.02]})
    assert list(mixed.samples) == [("FGSM", 0.02), ("FGSM", 0.1), ("PGD", None), ("walk", None)]
    both = evaluate(convnet, loader, attacks, eps=[0.02, 0.1])
    for e in (0.02, 0.1):
        assert np.array_equal(mixed.samples["FGSM", e]["success"], both.samples["FGSM", e]["success"])
    assert set(mixed.curves()) == {"FGSM"}


def test_an_evaluation_is_drawn(convnet, images):
    y = convnet(images).argmax(1)
    found = evaluate(convnet, batches(images, y), suite(convnet), eps=EPS)
    assert [line.get_label() for line in plot_robustness(found).lines] == ["FGSM", "PGD"]
    with pytest.raises(ValueError, match="an evaluation with lists of budgets"):
        plot_robustness(evaluate(convnet, batches(images, y), suite(convnet)))


def test_attacks_are_not_changed_and_may_have_been_made_with_another_model(convnet, images):
    y = convnet(images).argmax(1)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 4)).double()
    attacks = suite(other)
    result = evaluate(convnet, batches(images, y), attacks, eps=EPS)
    assert attacks["PGD"].model is other
    assert attacks["PGD"].eps == 1
    assert attacks["PGD"].generator is None
    assert same(result, evaluate(convnet, batches(images, y), suite(convnet), eps=EPS))


@pytest.mark.parametrize("torn", [False, True])
def test_interrupted_run_goes_on(convnet, images, tmp_path, torn):
    y = convnet(images).argmax(1)
    whole = evaluate(convnet, batches(images, y), suite(convnet), eps=EPS)
    path = tmp_path / "run.jsonl"

    class StopHereError(Exception):
        pass

    def loader():
        yield from batches(images, y)[:2]
        raise StopHereError

    with pytest.raises(StopHereError):
        evaluate(convnet, loader(), suite(convnet), eps=EPS, path=path)
    assert len(path.read_text().splitlines()) == 3
    if torn:
        path.write_text(path.read_text()[:-40])
    calls = []
    handle = convnet.register_forward_hook(lambda *_: calls.append(1))
    resumed = evaluate(convnet, batches(images, y), suite(convnet), eps=EPS, path=path)
    handle.remove()
    assert same(whole, resumed)
    count = len(calls)
    assert same(whole, evaluate(convnet, batches(images, y), suite(convnet), eps=EPS, path=path))
    assert len(calls) == count  # the third call attacked nothing
    assert np.array_equal(whole.labels, resumed.labels)


def test_record_of_another_run_is_refused(convnet, images, tmp_path):
    y = convnet(images).argmax(1)
    data, path = batches(images, y), tmp_path / "run.jsonl"
    evaluate(convnet, data, suite(convnet), eps=EPS, path=path)
    with pytest.raises(ValueError, match="belongs to a run with another"):
        evaluate(convnet, data, suite(convnet), eps=[0.1], path=path)
    with pytest.raises(ValueError, match="belongs to a run with another"):
        evaluate(convnet, data, {"FGSM": FGSM(convnet, 1.0, norm=2)}, eps=EPS, path=path)
    with pytest.raises(ValueError, match="holds other images for batch 0"):
        evaluate(convnet, [(x.flip(0), t) for x, t in data], suite(convnet), eps=EPS, path=path)
    convnet[0].weight.data[0] += 1
    with pytest.raises(ValueError, match="belongs to a run with another"):
        evaluate(convnet, data, suite(convnet), eps=EPS, path=path)
    for content in ("hello\n", json.dumps([1]) + "\n", json.dumps({"run": 1}) + "\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match="not the record of an evaluation"):
            evaluate(convnet, data, suite(convnet), eps=EPS, path=path)


def runs(net: torch.nn.Module, other: torch.nn.Module) -> list[dict]:
    """Pairs of neighbours differ in one thing only, and each of them gives other figures."""
    first, second = Plane(torch.eye(4)[:, :2]), Plane(torch.eye(4)[:, 2:])
    rng = np.random.default_rng(0)
    tests = [OnManifoldTest(first).fit(scale * rng.normal(size=(40, 4))) for scale in (1, 0.01)]
    eps = torch.linspace(0.1, 0.2, 2000)
    finer = eps.clone()
    finer[1000] += 1e-6
    code = torch.nn.Identity()
    decoders = [torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)]
    return [
        {"attacks": PGD(net, 8 / 255)},
        {"attacks": PGD(net, 0.0314)},
        {"attacks": PGD(net, eps)},
        {"attacks": PGD(net, finer)},
        {"attacks": PGD(net, 0.1, alpha=eps)},
        {"attacks": PGD(net, 0.1, alpha=finer)},
        {"attacks": PGD(net, 0.1, loss="margin")},
        {"attacks": PGD(net, 0.1), "model": other},
        {"attacks": SubspacePGD(net, first, 0.1)},
        {"attacks": SubspacePGD(net, second, 0.1)},
        {"attacks": LatentPGD(net, decoders[0], code, 0.1)},
        {"attacks": LatentPGD(net, decoders[1], code, 0.1)},
        {"attacks": LatentPGD(net, decoders[0], decoders[1], 0.1)},
        {"attacks": PGD(net, 0.1), "calibration": tests[0]},
        {"attacks": PGD(net, 0.1), "calibration": tests[1]},
    ]


def test_fingerprint_names_everything_that_a_run_depends_on():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    other = torch.nn.Sequential(net[0], torch.nn.ReLU(), net[2])  # the same weights

    def prints() -> list[str]:
        return [fingerprint_of(r.get("model", net), {"a": r["attacks"]}, [], r.get("calibration"), 0) for r in variants]

    variants = runs(net, other)
    found = prints()
    assert len(set(found)) == len(variants)
    variants = copy.deepcopy(variants)  # other objects of the same content, as in another process
    net, other = copy.deepcopy(net), copy.deepcopy(other)
    assert prints() == found


def test_use_of_a_manifold_does_not_change_thefingerprint_of():
    net = torch.nn.Linear(2, 2).double()
    manifold = DiffusionManifold(n_components=9).fit(make_circle(60, grid=True).points)
    attack = ProjectionAttack(net, manifold, 0.1, bounds=None, steps=2)
    before = fingerprint_of(net, {"a": attack}, [], None, 0)
    attack(torch.rand(3, 2, dtype=torch.float64), [0, 1, 0])
    assert fingerprint_of(net, {"a": attack}, [], None, 0) == before


@pytest.mark.parametrize("length", [0, 1, 20, 38, 60, 103])
def test_a_torn_head_is_written_again(convnet, images, tmp_path, length):
    y = convnet(images).argmax(1)
    data, path, attacks = batches(images, y), tmp_path / "run.jsonl", {"FGSM": FGSM(convnet, 0.05)}
    whole = evaluate(convnet, data, attacks, path=path)
    text = path.read_text()
    head = text.split("\n")[0]
    assert len(head) > 103
    path.write_text(head[:length])
    assert same(whole, evaluate(convnet, data, attacks, path=path))
    assert path.read_text() == text


def test_numbers_for_each_sample_follow_the_loader(convnet, images):
    y = convnet(images).argmax(1)
    alpha = torch.linspace(0.002, 0.02, 40, dtype=torch.float64)
    radii = torch.linspace(0.01, 0.1, 40, dtype=torch.float64)
    attacks = {"steps": PGD(convnet, 0.05, alpha, 6), "radii": PGD(convnet, radii, alpha, 6)}
    data = batches(images, y)
    assert len(data) > 1
    found = evaluate(convnet, data, attacks, eps=EPS)
    for attack in attacks.values():
        broken = torch.zeros(40, dtype=torch.bool)
        for e in EPS:
            broken |= attack.replaced(eps=e).run(images, y).success
            for name in attacks:
                assert np.array_equal(found.samples[name, e]["success"], broken.numpy())
    assert 0 < broken.sum() < 40
    once = evaluate(convnet, data, attacks).samples
    for name, attack in attacks.items():
        result = attack.run(images, y)
        assert np.array_equal(once[name, None]["success"], result.success.numpy())
        assert np.allclose(once[name, None]["linf"], result.linf.numpy())
    for wrong in (alpha[:39], torch.cat([alpha, alpha[:1]])):
        for attack in (PGD(convnet, 0.05, wrong, 2), PGD(convnet, wrong, 0.01, 2)):
            with pytest.raises(ValueError, match=f"of the attack 'a' holds {len(wrong)} numbers and the loader"):
                evaluate(convnet, data, {"a": attack})


def test_damaged_lines_are_done_again(convnet, images, tmp_path):
    y = convnet(images).argmax(1)
    data, path, attacks = batches(images, y), tmp_path / "run.jsonl", {"PGD": PGD(convnet, 0.05, steps=3)}
    whole = evaluate(convnet, data, attacks, path=path)
    text = path.read_text()
    head, first, *rest = text.splitlines()
    kept = json.loads(first)
    kept["figures"][0][0][0] = 7.0
    for damaged in (json.dumps(kept), "{}", '{"batch": 0}', json.dumps({"batch": 0, "checksum": "0"}), "[]"):
        path.write_text("\n".join([head, damaged, *rest]) + "\n")
        assert same(whole, evaluate(convnet, data, attacks, path=path))
        assert path.read_text().splitlines()[-1] == first


def test_what_cannot_be_told_apart_is_not_recorded(convnet, images, tmp_path):
    class Local(Plane):
        pass

    data = batches(images, convnet(images).argmax(1))
    plane = Local(torch.eye(36)[:, :12])
    for attack, message in (
        (PGD(convnet, 0.1, loss=lambda z, y: margin(z, y)), "loss of the attack 'a' has no name"),
        (PGD(convnet, 0.1, steps=1, manifold=plane), "manifold of the attack 'a' cannot be hashed"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(convnet, data, {"a": attack}, path=tmp_path / "run.jsonl")


def test_empty_batches_are_skipped(convnet, images):
    y = convnet(images).argmax(1)
    attacks = {"FGSM": FGSM(convnet, 0.05)}
    result = evaluate(convnet, [(images, y), (images[:0], y[:0])], attacks)
    assert same(result, evaluate(convnet, [(images, y)], attacks))


def test_targeted_attacks_are_refused(convnet, images):
    with pytest.raises(ValueError, match="is targeted"):
        evaluate(convnet, [(images, [0] * 40)], {"a": PGD(convnet, 0.1, targeted=True)})


def test_numpy_batches(convnet, images):
    y = convnet(images).argmax(1)
    torch_result = evaluate(convnet, batches(images, y), suite(convnet), eps=EPS)
    arrays = [(x.numpy(), t.numpy()) for x, t in batches(images, y)]
    assert same(torch_result, evaluate(convnet, arrays, suite(convnet), eps=EPS))


def test_batches_in_two_bytes(tmp_path):
    """numpy has no bfloat16."""
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Linear(6, 3)
    net.weight.data = torch.randn(3, 6, generator=generator)
    net, x = net.bfloat16(), torch.rand(20, 6, generator=generator).bfloat16()
    y = net(x).argmax(1)
    attacks = {"PGD": PGD(net, 0.2, steps=5, manifold=Plane(torch.eye(6)[:, :2]))}
    path = tmp_path / "run.jsonl"
    found = evaluate(net, [(x, y)], attacks, path=path)
    assert found.table()[0]["robust_accuracy"] < 1
    assert same(found, evaluate(net, [(x, y)], attacks, path=path))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attacks": {}}, ValueError, "one entry at the least"),
        ({"attacks": [1]}, ValueError, "dict of names"),
        ({"attacks": {"a": 1}}, TypeError, "must be an Attack"),
        ({"eps": []}, ValueError, "at least one budget"),
        ({"eps": [0.1, -1]}, ValueError, "every eps must be positive"),
        ({"eps": 0.1}, TypeError, r"sequence of budgets, or a dict of such, got 0.1: take \[0.1\]"),
        ({"eps": {"PGD": 0.1}}, TypeError, r"got 0.1: take \[0.1\]"),
        ({"eps": {"pgd": [0.1]}}, ValueError, r"budgets for \['pgd'\], which are not among the attacks \['FGSM', "),
        ({"eps": {"walk": [0.1]}}, ValueError, "the attack 'walk' has no budget"),
        ({"eps": [0.1, 1.5]}, ValueError, "the attack 'FGSM' refuses a budget: eps=1.5 is more than the whole range"),
        ({"eps": [0.0, 0.1]}, ValueError, "every eps must be positive"),
        ({"loader": []}, ValueError, "loader is empty"),
        ({"loader": [torch.rand(3, 1, 6, 6)]}, TypeError, r"pairs \(images, labels\), got Tensor"),
        ({"calibration": 3}, TypeError, "fitted OnManifoldTest or None, got int"),
    ],
)
def test_bad_input(convnet, images, arguments, error, message):
    given = {"loader": [(images, convnet(images).argmax(1))], "attacks": suite(convnet)} | arguments
    with pytest.raises(error, match=message):
        evaluate(convnet, **given)
