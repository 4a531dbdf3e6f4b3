"""The losses reproduce the published ones: Pri3D's, SLidR's and PointContrast's."""

import pytest
import torch
from golden_vectors import Golden, cases

from pri3d.pretrain.depth_loss import depth_loss
from pri3d.pretrain.losses import hardest_contrastive, point_info_nce

pytestmark = pytest.mark.golden


@pytest.mark.parametrize(("file", "case"), cases("04_loss_contrastive_pri3d"))
def test_pri3d(file, case):
    golden = Golden(file)
    q = golden.tensor(f"{case}.q").requires_grad_()
    k = golden.tensor(f"{case}.k").requires_grad_()
    ignore = golden.tensor(f"{case}.mask") if f"{case}.mask" in golden else None
    tau = golden.about["cases"][case]["tau"]
    loss = point_info_nce(q, k, tau, normalize=True, symmetric=True, ignore_NN=ignore)
    loss.backward()
    golden.check(f"{case}.loss", loss)
    golden.check(f"{case}.grad.q", q.grad)
    golden.check(f"{case}.grad.k", k.grad)


@pytest.mark.parametrize(("file", "case"), cases("04_loss_nce_slidr"))
def test_slidr(file, case):
    golden = Golden(file)
    points = golden.tensor(f"{case}.k_points").requires_grad_()
    pixels = golden.tensor(f"{case}.q_pixels").requires_grad_()
    tau = golden.about["cases"][case]["tau"]
    loss = point_info_nce(points, pixels, tau, normalize=False)
    loss.backward()
    golden.check(f"{case}.loss", loss)
    golden.check(f"{case}.grad.k_points", points.grad)
    golden.check(f"{case}.grad.q_pixels", pixels.grad)


@pytest.mark.parametrize(
    ("file", "case"),
    [case for case in cases("04_loss_pointcontrast") if case.values[1].startswith("infonce")],
)
def test_pointcontrast(file, case):
    golden = Golden(file)
    f0 = golden.tensor(f"{case}.F0").requires_grad_()
    f1 = golden.tensor(f"{case}.F1").requires_grad_()
    pairs, uniform = golden.tensor(f"{case}.pairs"), golden.tensor(f"{case}.uniform")
    anchors = torch.unique(pairs[:, 0])
    candidates = []
    for anchor, draw in zip(anchors, uniform):
        partners = pairs[pairs[:, 0] == anchor, 1]
        candidates.append(partners[int(draw * len(partners))])
    candidates = torch.stack(candidates)
    if f"{case}.sampled" in golden:
        sampled = golden.tensor(f"{case}.sampled")
        anchors, candidates = anchors[sampled], candidates[sampled]
    tau = golden.about["cases"][case]["tau"]
    loss = point_info_nce(f0[anchors], f1[candidates], tau, normalize=False)
    loss.backward()
    golden.check(f"{case}.loss", loss)
    golden.check(f"{case}.grad.F0", f0.grad)
    golden.check(f"{case}.grad.F1", f1.grad)


@pytest.mark.parametrize(
    ("file", "case"),
    [case for case in cases("04_loss_pointcontrast") if case.values[1].startswith("hardest")],
)
def test_hardest_contrastive(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    pairs = golden.tensor(f"{case}.pairs")
    chosen = pairs[golden.tensor(f"{case}.pos_sel")] if f"{case}.pos_sel" in golden else pairs
    candidates = golden.tensor(f"{case}.sel0"), golden.tensor(f"{case}.sel1")
    for term, name in enumerate(("pos", "neg")):
        f0 = golden.tensor(f"{case}.F0").requires_grad_()
        f1 = golden.tensor(f"{case}.F1").requires_grad_()
        margins = about["pos_thresh"], about["neg_thresh"]
        loss = hardest_contrastive(f0, f1, chosen, *candidates, *margins, known_L2=pairs)[term]
        loss.backward()
        golden.check(f"{case}.{name}_loss", loss)
        golden.check(f"{case}.grad.{name}.F0", f0.grad)
        golden.check(f"{case}.grad.{name}.F1", f1.grad)


@pytest.mark.parametrize(("file", "case"), cases("04_loss_depth_pri3d"))
def test_depth(file, case):
    golden = Golden(file)
    predicted = golden.tensor(f"{case}.pred").requires_grad_()
    loss = depth_loss(predicted[:, 0], golden.tensor(f"{case}.target"))
    loss.backward()
    golden.check(f"{case}.loss", loss)
    golden.check(f"{case}.grad.pred", predicted.grad)
