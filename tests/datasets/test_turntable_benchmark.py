"""The code of `benchmarks/turntable.py`, on a window of small drawn pictures instead of rendered ones."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demos"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import turntable as benchmark
import turntable_report as tables
import turntable_walks as walks
from turntable_window import Window, classify, lead, two_layer_cnn

from manifoldkit.attacks import adversarial_training
from manifoldkit.risk import OnManifoldTest

SIZE = 8
MIDDLE = np.array([100.0, 24.0])


def draw(angles):
    """A soft dot whose place tells the angles, (n, 3, 8, 8)."""
    at = 3.5 + (angles - MIDDLE) / 5
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    dot = np.exp(-((x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2) / 8)
    return torch.from_numpy(np.stack([dot, 0.8 * dot, 0.5 * dot], axis=1)).float()


class Drawn(Window):
    def views(self, angles):
        return draw(np.asarray(angles))


@pytest.fixture(scope="module")
def net():
    """The small network, taught that dots to the right of 103 degrees are another vehicle."""
    angles = np.random.default_rng(0).uniform(MIDDLE - 9, MIDDLE + 9, (600, 2))
    net = two_layer_cnn(SIZE)
    labels = (angles[:, 0] > 103).astype(np.int64)
    generator = torch.Generator().manual_seed(0)
    history = adversarial_training(net, draw(angles).numpy(), labels, epochs=25, generator=generator)
    assert history.clean_accuracy[-1] > 0.95
    return net.eval()


@pytest.fixture(scope="module")
def searched(net):
    """A window, its starts, and what all methods find from them."""
    axes = [np.arange(middle - 7, middle + 8) for middle in MIDDLE]
    angles = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    window = Drawn(0, draw(angles), angles, "flat").look(net).learn()
    rng = np.random.default_rng(1)
    held = draw(rng.uniform(MIDDLE - 6, MIDDLE + 6, (50, 2)))
    starts = MIDDLE + rng.uniform((-3, -3), (1, 3), (5, 2))
    assert (classify(net, draw(starts)) == 0).all()
    allowance = window.allowance(net, held)
    test = OnManifoldTest(window.manifold).fit(held)
    found, paths = walks.attack(net, window, draw(starts), starts, test, allowance, 20, np.random.default_rng(2))
    return SimpleNamespace(window=window, starts=starts, allowance=allowance, found=found, paths=paths)


def args(work, **given):
    plain = {"work": work, "size": 32, "step": 3, "walk": 40, "copies": 10, "minutes": 1e9}
    return argparse.Namespace(**plain | given)


class TestAttack:
    def test_every_method_has_a_row_in_the_table(self, searched):
        assert set(searched.found) == set(tables.METHODS)

    def test_walks_cross_the_boundary_and_settle_behind_it(self, searched):
        crossed, settled = searched.found["smoothed"], searched.found["smoothed, settled"]
        assert all(crossed["success"])
        assert all(settled["success"])
        assert all(settled["confirmed"])
        assert np.all(np.array(settled["pose"])[:, 0] >= np.array(crossed["pose"])[:, 0] - 0.3)

    def test_confirmed_is_what_the_network_misreads_when_drawn_again(self, searched, net):
        for name, rows in searched.found.items():
            told = classify(net, draw(np.array(rows["pose"])))
            assert rows["confirmed"] == (np.array(rows["success"]) & (told != 0)).tolist(), name

    def test_the_paths_lead_from_the_start_to_the_settled_pose(self, searched):
        for start, path, end in zip(searched.starts, searched.paths, searched.found["smoothed, settled"]["pose"], strict=True):  # fmt: skip  # noqa: E501
            assert np.abs(np.array(path[0][1:3]) - start).max() < 0.7
            assert np.abs(np.array(path[-1][1:3]) - end).max() < 0.7
            assert path[0][0] == 0
            assert path[-1][0] != 0
            assert path[-1][3] > searched.allowance

    def test_the_look_up_takes_the_nearest_pose_that_leads_by_enough(self, searched, net):
        """Of all on its grid: one a quarter of a degree nearer leads by less, in views drawn there."""
        for start, pose in zip(searched.starts, np.array(searched.found["look-up"]["pose"]), strict=True):
            there = lead(net, draw(pose[None]), 0)[0]
            assert there > searched.allowance - 0.1
            towards = pose - 0.5 * (pose - start) / np.linalg.norm(pose - start)
            assert lead(net, draw(towards[None]), 0)[0] < there
        assert "p" not in searched.found["look-up"]

    def test_where_no_view_leads_by_enough_the_look_up_finds_nothing(self, searched):
        found = walks.look_up(searched.window, searched.starts, float(searched.window.leads.max()) + 0.1)
        assert not found.good.any()

    def test_random_poses_are_as_far_away_as_the_walk_led_and_within_the_window(self, searched):
        rows, walked = searched.found["random pose"], searched.found["smoothed, settled"]
        assert sum(rows["success"]) >= 4
        for start, pose, end, good in zip(searched.starts, rows["pose"], walked["pose"], rows["success"], strict=True):
            assert np.abs(np.array(pose) - MIDDLE).max() <= 7
            if good:
                assert np.linalg.norm(pose - start) == pytest.approx(np.linalg.norm(end - start))

    def test_pixel_attacks_succeed_if_they_are_misread_after_projection(self, searched):
        for name in ("pixels, projected", "strong pixels, projected"):
            rows = searched.found[name]
            assert rows["success"] == [seen != 0 for seen in rows["seen"]]

    def test_both_p_values_are_kept(self, searched):
        for name in ("smoothed", "pixels, nearest view"):
            rows = searched.found[name]
            assert all(p <= min(1, 2 * d) + 1e-12 for p, d in zip(rows["p"], rows["distance_p"], strict=True))

    def test_the_table_has_a_row_for_each_method(self, searched):
        starts = [
            {
                "pose": pose.tolist(),
                "path": [[i // 4]],
                "methods": {n: {k: v[i] for k, v in r.items()} for n, r in searched.found.items()},
            }
            for i, pose in enumerate(searched.starts)
        ]
        at = {"network": 0, "label": 0, "azimuth": 100}
        record = {"right": 0.5, "starts": starts, "readout": [[0.1, 0.2]], "detail": [0.3], **at}
        without = [{"right": right, "starts": [], **at} for right in (1.0, 1.0, 0.05, 0.9)]
        lines = tables.first_table([record, *without])
        assert "5 windows drawn. Left out: 2 without an error" in lines[0]
        assert "1 read rightly at a tenth of it at most, 1 without starts" in lines[0]
        assert "The other 1 have 5 starts. 1 of these are misread as soon as" in lines[0]
        rows = [line for line in lines if line.startswith("| ")]
        assert len(rows) == 1 + len(tables.METHODS)
        assert len({row.count("|") for row in rows}) == 1
        assert "5/5 = 100.0 %" in next(row for row in rows if "filtered tangents, **settled**" in row)


class TestFigures:
    @pytest.mark.parametrize(("hits", "total"), [(0, 5), (5, 5), (1, 7), (126, 138), (3, 1000)])
    def test_wilson_is_that_of_scipy(self, hits, total):
        theirs = binomtest(hits, total).proportion_ci(method="wilson")
        assert tables.wilson(hits, total) == pytest.approx((theirs.low, theirs.high), abs=1e-6)

    def test_nothing_observed_says_nothing(self):
        assert tables.wilson(0, 0) == (0.0, 1.0)
        assert tables.share(0, 0) == "-"
        assert tables.by_windows([{"network": 0, "label": 0, "azimuth": 0, "values": []}], lambda r: r["values"]) == "-"

    @staticmethod
    def windows(azimuths, networks=None, label=0):
        networks = len(azimuths) * [0] if networks is None else networks
        return [
            {"network": network, "label": label, "azimuth": azimuth, "values": [float(i % 2)] * 3}
            for i, (azimuth, network) in enumerate(zip(azimuths, networks, strict=True))
        ]

    def test_windows_of_other_networks_or_vehicles_are_others(self):
        same = self.windows([100] * 6, networks=range(6))
        assert tables.by_windows(same, lambda r: r["values"], np.mean) == "0.50 (0.17 to 0.83)"
        assert len(tables.apart(self.windows([100, 100]) + self.windows([100], label=1))) == 2

    def test_windows_that_overlap_are_drawn_together(self):
        """A chain across the seam is one group, and of fewer than five groups there is no interval."""
        groups = tables.apart(self.windows([340, 200, 50, 12, 89]))
        assert sorted(len(group) for group in groups) == [1, 4]
        assert len(tables.apart(self.windows([0, 40, 80, 120, 160]))) == 5
        pairs = self.windows([0, 1, 60, 61, 120, 121, 180, 181, 240, 241])
        assert tables.by_windows(pairs, lambda r: r["values"], np.mean) == "0.50 (0.50 to 0.50)"
        assert tables.by_windows(pairs[:8], lambda r: r["values"], np.mean) == "0.50"

    def test_no_window_with_starts_is_said(self):
        assert tables.first_table([{"starts": []}]) == ["None of 1 windows had starts near a boundary."]

    def test_the_second_table_counts_windows_and_keeps_old_and_new_apart(self):
        kept = {"clean": [True, True], "robust": [True, False], "confirmed robust": [True, True]}
        lost = {kind: [False, False] for kind in kept}
        at = {"network": 0, "label": 0, "azimuth": 0}
        lines = tables.second_table([{"seed": 3, "base": kept, **at}, {"seed": 1000, "base": lost, **at}])
        assert "searched windows (1): clean" in lines[0]
        cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
        assert cells == ["before", "2/2 = 100", "1/2 = 50", "2/2 = 100", "0/2 = 0", "0/2 = 0", "0/2 = 0"]

    def test_gains_are_of_the_same_starts_and_the_windows_asked_for(self):
        def window(seed, after, before):
            at = {"network": 0, "label": 0, "azimuth": 50 * seed}
            return {"seed": seed, "failures": {"robust": after}, "base": {"robust": before}, **at}

        records = [window(seed, [True, True], [True, False]) for seed in range(6)]
        records.append(window(1000, [False, True], [True, True]))
        assert tables.gain(records, "base", new=False) == "50 (50 to 50)"
        assert tables.gain(records, "base", new=True) == "-50"


class TestStudy:
    def test_settings_of_another_run_are_refused_by_name(self, tmp_path):
        benchmark.Study("A:cnn", args(tmp_path, epochs=1))
        benchmark.Study("A:cnn", args(tmp_path, epochs=1))
        with pytest.raises(SystemExit, match=r"A_cnn_32_3_0 was made with epochs 1, not 6: give the same flags"):
            benchmark.Study("A:cnn", args(tmp_path))
        with pytest.raises(SystemExit, match=r"epochs 1, not 2; walk 40, not 8"):
            benchmark.Study("A:cnn", args(tmp_path, epochs=2, walk=8))

    def test_a_folder_of_unknown_settings_is_refused(self, tmp_path):
        (tmp_path / "A_cnn_32_3_0").mkdir()
        (tmp_path / "A_cnn_32_3_0" / "first.jsonl").write_text("")
        with pytest.raises(SystemExit, match=r"no settings.json"):
            benchmark.Study("A:cnn", args(tmp_path))

    def test_records_are_those_of_the_windows_asked_for_and_made_once(self, tmp_path):
        study, made = benchmark.Study("A:cnn", args(tmp_path)), []

        def work(number):
            made.append(number)
            return {"seed": number, "starts": []}

        study.each("first", range(3), work, np.inf)
        assert [r["seed"] for r in study.each("first", [1, 4], work, np.inf)] == [1, 4]
        assert made == [0, 1, 2, 4]
        assert [r["seed"] for r in study.records["first"]] == [1, 4]
        lines = (study.folder / "first.jsonl").read_text().splitlines()
        assert [json.loads(line)["seed"] for line in lines] == [0, 1, 2, 4]
        assert study.each("first", [9], work, -np.inf) == []

    def test_a_network_without_errors_ends_the_study(self, tmp_path, monkeypatch):
        study = benchmark.Study("A:cnn", args(tmp_path))
        monkeypatch.setattr(study, "net", lambda name, extra=None: torch.nn.Identity())
        monkeypatch.setattr(study, "first_stage", lambda net, number: {"seed": number, "starts": []})
        assert study.run(np.inf)
        assert study.records["second"] == []

    @pytest.mark.parametrize("name", ["A:cnn", "B:cnn"])
    @pytest.mark.parametrize("step", [1, 3, 7])
    def test_training_views_reach_both_ends_of_the_elevations(self, name, step, tmp_path):
        study = benchmark.Study(name, args(tmp_path, step=step))
        azimuth, elevation = study.lattice()
        assert (elevation[0], elevation[-1]) == study.elevations
        assert np.ptp(np.diff(elevation)) < 1e-9
        assert np.ptp(np.diff([*azimuth, 360])) < 1e-9
        assert abs(np.diff(elevation)[0] - step) < step / 2

    def test_studies_of_other_seeds_have_other_windows_poses_and_backgrounds(self, tmp_path):
        studies = [benchmark.Study(f"B:cnn:{seed}", args(tmp_path)) for seed in range(3)]
        places = [study.place(number) for study in studies for number in range(40)]
        seen = [{place[:2] for place in places[40 * seed : 40 * seed + 40]} for seed in range(3)]
        assert [len(seen[i] & seen[j]) for i, j in ((0, 1), (0, 2), (1, 2))] == [0, 0, 0]
        assert not np.array_equal(places[0][2], places[40][2])
        window = SimpleNamespace(angles=np.array([[0.0, 4.0], [40.0, 44.0]]))
        poses = [study.poses(window, 5, 0) for study in studies]
        assert not np.array_equal(poses[0], poses[1])

    @pytest.mark.parametrize("seed", range(3))
    def test_new_windows_hold_no_view_of_the_searched_ones(self, seed, tmp_path):
        study = benchmark.Study(f"A:cnn:{seed}", args(tmp_path))
        searched, new = [study.where(number) for number in range(17)], [study.where(n) for n in study.unseen()]
        assert len(new) == 8
        for i, (label, azimuth) in enumerate(new):
            ring = np.arange(azimuth - benchmark.HALF, azimuth + benchmark.HALF + 1) % 360
            for other, middle in searched + new[:i]:
                near = np.arange(middle - benchmark.HALF - 5, middle + benchmark.HALF + 6) % 360
                assert label != other or not np.isin(ring, near).any()

    def test_no_room_for_new_windows_is_said(self, tmp_path):
        with pytest.raises(SystemExit, match=r"200 searched windows leave room for \d+ new ones 50 degrees"):
            benchmark.Study("A:cnn", args(tmp_path, windows=200)).unseen()

    def test_extra_views_are_as_many_and_where_they_are_said_to_be(self, tmp_path):
        study = benchmark.Study("A:cnn", args(tmp_path, copies=50))
        row = {"smoothed, settled": {"confirmed": True, "pose": [95.0, 40.0]}}
        missed = {"smoothed, settled": {"confirmed": False, "pose": [0.0, 0.0]}}
        records = [{"label": 3, "azimuth": 90, "starts": [{"methods": row}, {"methods": missed}]}]
        extra = {name: np.array(poses) for name, poses in study.extra(records).items()}
        assert set(extra) == {"failures", *benchmark.CONTROLS}
        assert all(poses.shape == (50, 3) and (poses[:, 0] == 3).all() for poses in extra.values())
        assert np.abs(extra["failures"][:, 1:] - [95, 40]).max() < 10
        inside = extra["in the windows"]
        assert 30 < np.ptp(inside[:, 1]) <= 40
        assert np.abs(inside[:, 1] - 90).max() <= 20
        assert inside[:, 2].min() >= 4
        assert inside[:, 2].max() <= 44
        assert extra["as before"][:, 2].min() >= 10
        assert extra["as before"][:, 2].max() <= 30

    def test_the_command_names_every_flag_that_decides_figures(self):
        parser = argparse.ArgumentParser()
        for flag, default in (("--work", "out"), ("--size", None), ("--walk", 40), ("--studies", ["A:cnn"])):
            parser.add_argument(flag, default=default)
        parser.add_argument("--full", action="store_true")
        given = argparse.Namespace(
            work="elsewhere", pictures=None, size=64, walk=40, studies=["B:cnn", "A:cnn"], full=True
        )
        command = benchmark.command_line(given, parser)
        assert command.startswith("python benchmarks/turntable.py --size 64 --studies B:cnn A:cnn --full --work")
        assert "elsewhere" not in command
