"""VoteNet's voting, decoding, losses, boxes, suppression and average precision."""

import numpy as np
import pytest
from golden_vectors import Golden, cases

from pri3d.boxes import Boxes, corners
from pri3d.metrics import boxes3d
from pri3d.models import votenet, votenet_loss
from pri3d.models.votenet_loss import Truth

pytestmark = pytest.mark.golden
LOSSES, BOXES = "08_votenet_losses", "08_votenet_boxes_ap"
KINDS = [case for case in cases(LOSSES) if case.values[1] in ("oriented", "aligned")]
NAMES = {
    "vote": "vote_loss",
    "objectness": "objectness_loss",
    "center": "center_loss",
    "heading_bin": "heading_cls_loss",
    "heading": "heading_reg_loss",
    "size_cluster": "size_cls_loss",
    "size": "size_reg_loss",
    "class": "sem_cls_loss",
    "loss": "loss",
}


def truth_of(golden, case) -> Truth:
    def given(name):
        return golden.tensor(f"{case}.in.{name}")

    return Truth(
        center=given("center_label"),
        mask=given("box_label_mask"),
        heading_bin=given("heading_class_label"),
        heading_residual=given("heading_residual_label"),
        size_cluster=given("size_class_label"),
        size_residual=given("size_residual_label"),
        kind=given("sem_cls_label"),
        votes=given("vote_label"),
        in_object=given("vote_label_mask"),
    )


@pytest.mark.parametrize(("file", "case"), KINDS)
def test_losses_and_gradients(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    bins, clusters = about["num_heading_bin"], about["num_size_cluster"]
    net, vote, aggregated = (
        golden.tensor(f"{case}.in.{name}").requires_grad_()
        for name in ("net", "vote_xyz", "aggregated_vote_xyz")
    )
    mean = golden.tensor(f"{case}.in.mean_size_arr")
    proposals = votenet.decode(net, aggregated, bins, clusters)
    golden.check(f"{case}.decoded.objectness_scores", proposals.objectness)
    golden.check(f"{case}.decoded.center", proposals.center)
    golden.check(f"{case}.decoded.heading_scores", proposals.heading_scores)
    golden.check(f"{case}.decoded.heading_residuals_normalized", proposals.heading_residuals)
    golden.check(f"{case}.decoded.size_scores", proposals.size_scores)
    golden.check(f"{case}.decoded.size_residuals_normalized", proposals.size_residuals)
    golden.check(f"{case}.decoded.size_residuals", proposals.size_residuals * mean[:, :])
    golden.check(f"{case}.decoded.sem_cls_scores", proposals.classes)
    truth = truth_of(golden, case)
    rows, seeds = golden.tensor(f"{case}.in.seed_inds"), golden.tensor(f"{case}.in.seed_xyz")
    # The published code matches padding at the origin, where these files have it.
    terms = votenet_loss.losses(proposals, seeds, rows, vote, truth, mean)
    terms["loss"] = sum(weight * terms[name] for name, weight in votenet_loss.WEIGHTS.items())
    for name, published in NAMES.items():
        golden.check(f"{case}.{published}", terms[name])
    assignment = votenet_loss.assign(aggregated, truth)
    for name, value in (
        ("objectness_label", assignment.label),
        ("objectness_mask", assignment.counted),
        ("object_assignment", assignment.box),
    ):
        np.testing.assert_array_equal(value.numpy(), golden.arrays[f"{case}.{name}"])
    terms["loss"].backward()
    golden.check(f"{case}.grad.net", net.grad)
    golden.check(f"{case}.grad.vote_xyz", vote.grad)
    golden.check(f"{case}.grad.aggregated_vote_xyz", aggregated.grad)


@pytest.mark.parametrize(
    ("file", "case"), [c for c in cases(LOSSES) if c.values[1].startswith("voting.")]
)
def test_voting(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    voting = votenet.Voting(about["seed_feature_dim"]).double()
    state = voting.state_dict()
    for entry in golden.about["parameters"]["voting"]:
        state[entry["name"]].copy_(golden.weight(entry["name"], entry["shape"]))
    voting.train(case.endswith("train"))
    features = golden.tensor("voting.seed_features").requires_grad_()
    vote, out = voting(golden.tensor("voting.seed_xyz"), features)
    golden.check(f"{case}.vote_xyz", vote)
    golden.check(f"{case}.vote_features", out)
    (golden.projected(about["projection"], out) + vote.sum()).backward()
    golden.check(f"{case}.grad.seed_features", features.grad)
    golden.check(f"{case}.grad.conv3.weight", voting.conv3.weight.grad)


@pytest.mark.parametrize(("file", "case"), [c for c in cases(LOSSES) if c.values[1] == "proposal"])
def test_proposal_head(file, case):
    golden = Golden(file)
    shapes = {p["name"]: p["shape"] for p in golden.about["parameters"]["proposal"]}
    head = votenet.ProposalHead(12, 10, 10).double().eval()
    for name, value in head.state_dict().items():
        assert list(value.shape) == shapes[name]
        value.copy_(golden.weight(name, shapes[name]))
    found = head(golden.tensor("proposal.xyz"), golden.tensor("proposal.features"))
    golden.check("proposal.eval.objectness_scores", found.objectness)
    golden.check("proposal.eval.center", found.center)
    golden.check("proposal.eval.heading_scores", found.heading_scores)
    golden.check("proposal.eval.heading_residuals_normalized", found.heading_residuals)
    golden.check("proposal.eval.size_residuals_normalized", found.size_residuals)
    golden.check("proposal.eval.sem_cls_scores", found.classes)


def to_camera(points: np.ndarray) -> np.ndarray:
    """x right, y down, z forward."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1)


def to_upright(points: np.ndarray) -> np.ndarray:
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


FILES = sorted({case.values[0] for case in cases(BOXES)})


@pytest.mark.parametrize("file", FILES)
def test_overlap_of_boxes(file):
    arrays = Golden(file).arrays
    sides = []
    for i in (0, 1):
        center = to_upright(arrays["iou.center"][i])
        boxes = Boxes(center, arrays["iou.size"][i], arrays["iou.angle"][i])
        found = to_camera(corners(boxes))
        np.testing.assert_allclose(found, arrays["iou.corners"][i], atol=1e-12)
        sides.append(boxes)
    found = np.diagonal(boxes3d.iou(*sides))
    np.testing.assert_allclose(found, arrays["iou.iou3d_iou2d"][:, 0], atol=1e-9)


@pytest.mark.parametrize("file", FILES)
def test_suppression(file):
    arrays = Golden(file).arrays
    boxes = arrays["nms.boxes"]
    hulls, score, kind = boxes[:, :6], boxes[:, 6], boxes[:, 7]
    for name, given in [
        ("nms_3d_faster", {}),
        ("nms_3d_faster_old", {"of_smaller": True}),
        ("nms_3d_faster_samecls", {"kind_N": kind}),
    ]:
        found = boxes3d.suppress(hulls, score, 0.25, **given)
        np.testing.assert_array_equal(found, arrays[f"nms.{name}"])
    found = boxes3d.suppress(boxes[:, [0, 1, 3, 4]], score, 0.25)
    np.testing.assert_array_equal(found, arrays["nms.nms_2d_faster"])


RUNS = [
    (file, kind, name)
    for file in FILES
    for kind in ("oriented", "aligned")
    for name in Golden(file).about["cases"][kind]
]


@pytest.mark.parametrize(("file", "kind", "name"), RUNS)
def test_boxes_and_average_precision(file, kind, name):
    golden = Golden(file)
    arrays, about = golden.arrays, golden.about["cases"][kind][name]
    options = about["options"]
    mean = golden.tensor(f"{kind}.in.mean_size_arr")
    bins = 12 if kind == "oriented" else 1
    net, votes = golden.tensor(f"{kind}.in.net"), golden.tensor(f"{kind}.in.aggregated_vote_xyz")
    proposals = votenet.decode(net, votes, bins, len(mean))
    clouds = arrays[f"{kind}.in.point_clouds"].astype(float)
    found, masks = [], []
    for scene in range(len(net)):
        mask, some = boxes3d_of(proposals, mean, scene, clouds[scene], options)
        masks.append(mask)
        found += some
    np.testing.assert_array_equal(np.array(masks), arrays[f"{kind}.{name}.pred_mask"])
    if f"{kind}.{name}.pred_class" in arrays:
        np.testing.assert_array_equal([f.kind for f in found], arrays[f"{kind}.{name}.pred_class"])
        np.testing.assert_allclose([f.score for f in found], arrays[f"{kind}.{name}.pred_score"])
        eight = [corners(_as_boxes(f))[0] for f in found]
        expected = arrays[f"{kind}.{name}.pred_corners"]
        np.testing.assert_allclose(to_camera(np.array(eight)), expected, atol=1e-9)
    truths = truths_of(golden, kind, mean.numpy(), bins)
    for threshold, metrics in about["metrics"].items():
        ours = boxes3d.average_precision(truths, found, float(threshold))
        for cls, (ap, recall) in ours.items():
            # Where nothing of a class is predicted, the published code has no entry.
            assert ap == pytest.approx(metrics.get(f"{cls} Average Precision", 0), abs=1e-9)
            assert recall == pytest.approx(metrics.get(f"{cls} Recall", 0), abs=1e-9)
        mean_ap = np.mean([ap for ap, _ in ours.values()])
        assert mean_ap == pytest.approx(metrics["mAP over classes with ground truth"])


def _as_boxes(found):
    return Boxes(found.center[None], found.size[None], np.array([found.heading]))


def boxes3d_of(proposals, mean, scene, cloud, options):
    from pri3d.finetune.box_predictions import Suppression, predict_boxes

    rule = Suppression(
        by_class=options["cls_nms"],
        all_classes=options["per_class_proposal"],
        in_plane=not options["use_3d_nms"],
        of_smaller=options["use_old_type_nms"],
        iou_threshold=options["nms_iou"],
        min_score=options["conf_thresh"],
    )
    points = cloud if options["remove_empty_box"] else None
    return predict_boxes(proposals, mean, scene, points, rule)


def truths_of(golden, kind, mean, bins):
    def given(name):
        return golden.arrays[f"{kind}.in.{name}"].astype(float)

    truths = {}
    for scene, mask in enumerate(given("box_label_mask")):
        rows = np.flatnonzero(mask)
        cluster = given("size_class_label")[scene][rows].astype(int)
        size = mean[cluster] + given("size_residual_label")[scene][rows]
        heading = given("heading_class_label")[scene][rows] * (2 * np.pi / bins)
        heading = heading + given("heading_residual_label")[scene][rows]
        if bins == 1:
            heading = np.zeros(len(rows))
        boxes = Boxes(given("center_label")[scene][rows], size, heading)
        truths[scene] = given("sem_cls_label")[scene][rows].astype(int), boxes
    return truths
