"""Laws of `evaluate`: it adds up, it resumes, and it refuses what does not belong together."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from manifoldkit.attacks import FGSM, PGD, Attack, OnManifoldPGD, evaluate
from manifoldkit.geometry.exact import Plane

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


def test_numpy_batches(convnet, images):
    y = convnet(images).argmax(1)
    torch_result = evaluate(convnet, batches(images, y), suite(convnet), eps=EPS)
    arrays = [(x.numpy(), t.numpy()) for x, t in batches(images, y)]
    assert same(torch_result, evaluate(convnet, arrays, suite(convnet), eps=EPS))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attacks": {}}, ValueError, "one entry at the least"),
        ({"attacks": [1]}, ValueError, "dict of names"),
        ({"attacks": {"a": 1}}, TypeError, "must be an Attack"),
        ({"eps": []}, ValueError, "at least one budget"),
        ({"eps": [0.1, -1]}, ValueError, "every eps must be positive"),
        ({"loader": []}, ValueError, "loader is empty"),
    ],
)
def test_bad_input(convnet, images, arguments, error, message):
    given = {"loader": [(images, convnet(images).argmax(1))], "attacks": suite(convnet)} | arguments
    with pytest.raises(error, match=message):
        evaluate(convnet, **given)
