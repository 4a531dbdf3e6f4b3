"""Good artefacts pass; each kind of wrong one is named, with its data set and row.

Artefacts are made wrong after the fact and given a fitting digest again, so that only the check in
question can notice.
"""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from small_results import write_run
from small_scenes import make_clouds, poses

from pri3d import config, store
from pri3d.errors import Pri3DError
from pri3d.run.folder import RANDOM, InitialWeights, Provenance
from pri3d.stages import chunks, overlap, pairs
from pri3d.verify import verify

RADIUS = 0.06


def make_results(folder, rule="paper"):
    """Two scans through all stages, and a third that is missing."""
    for scene, cameras in (("attic", poses(4)), ("cellar", poses(6)[2:])):
        clouds = make_clouds(folder / f"clouds/{scene}.h5", cameras, shape=(36, 48), scene=scene)
        settings = config.Overlap(radius_m=RADIUS, rule=rule)
        overlap.run(clouds, folder / f"overlap/{scene}.h5", settings)
    files = sorted((folder / "overlap").glob("*.h5"))
    pairs.run(files, folder / "pairs.h5", config.Pairs(min_overlap=0.1), missing=["bunker"])
    chunks.run(folder / "clouds/attic.h5", folder / "chunks/attic.h5", config.Chunks(voxel_m=0.05))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture
def results(made, tmp_path):
    return shutil.copytree(made, tmp_path / "results")


def sign(path):
    """Give a changed artefact the digest of its content."""
    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = store.content_digest(file)


def change(path, name, at, value):
    with h5py.File(path, "r+") as file:
        if at is None:
            file.attrs[name] = value
        else:
            data = file[name][()]
            data[at] = value(data[at]) if callable(value) else value
            file[name][...] = data
    sign(path)


def alone(path, folder):
    """The same artefact where nothing lies beside it."""
    target = folder / "elsewhere" / "alone" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(path, target)


def test_good_artefacts_pass_and_say_what_was_checked(results):
    passed = {
        name: " | ".join(verify(results / name))
        for name in ("clouds/attic.h5", "overlap/cellar.h5", "pairs.h5", "chunks/attic.h5")
    }
    assert "6 frames in = 4 kept + 2 dropped" in passed["clouds/attic.h5"]
    assert "4 color images decode" in passed["clouds/attic.h5"]
    assert "5 sampled counts recompute with a KD-tree" in passed["overlap/cellar.h5"]
    assert "ledger of 3 scans adds up" in passed["pairs.h5"]
    assert "2 of 2 overlap files" in passed["pairs.h5"]
    assert f"correspondences are less than {RADIUS} m apart" in passed["pairs.h5"]
    assert " 0 sampled correspondences" not in passed["pairs.h5"]
    assert "the boxes of 4 frames hold all their depth points" in passed["chunks/attic.h5"]


def test_deep_recomputes_everything(results):
    with h5py.File(results / "pairs.h5") as file:
        count = len(file["pairs/a"])
    assert count > 5
    assert f"{count} pairs recount" in verify(results / "pairs.h5", deep=True)[-1]
    assert "all 16 counts recompute" in verify(results / "overlap/attic.h5", deep=True)[-1]
    assert "4 frames" in verify(results / "chunks/attic.h5", deep=True)[-2]


def test_official_overlaps_are_recounted_by_their_own_rule(tmp_path):
    results = make_results(tmp_path, rule="official")
    for deep in (False, True):
        assert "recompute" in verify(results / "overlap/attic.h5", deep=deep)[-1]
        assert "recount" in verify(results / "pairs.h5", deep=deep)[-1]
    change(results / "pairs.h5", "rule", None, "paper")
    with pytest.raises(Pri3DError, match="pairs/overlap row 0"):
        verify(results / "pairs.h5")


def test_artefacts_pass_on_their_own_and_say_what_could_not_be_compared(results, tmp_path):
    for name in ("overlap/attic.h5", "chunks/attic.h5"):
        assert "does not exist" in verify(alone(results / name, tmp_path))[-1]
    passed = verify(alone(results / "pairs.h5", tmp_path))
    assert "0 of 2 overlap files" in passed[-2]
    assert "0 sampled pairs" in passed[-1]
    assert "recount" in verify(alone(results / "pairs.h5", tmp_path), beside=results)[-1]
    assert "5 sampled pairs" in verify(alone(results / "pairs.h5", tmp_path), beside=results)[-1]


def more(value):
    return value + 1


WRONG = [
    # artefact, data set or attribute, where, new value, what the message names
    ("clouds/attic.h5", "frames/index", 1, 10, "frames/index row 1"),
    ("clouds/attic.h5", "frames/points", 2, more, "frames/points row 2"),
    ("clouds/attic.h5", "frames/depth", (3, 5, 5), 0, "frames/points row 3"),
    ("clouds/attic.h5", "frames/world_from_camera", (1, 0, 0), 3.0, "world_from_camera row 1"),
    ("clouds/attic.h5", "frames/world_from_camera", (2, 0, 3), np.nan, "world_from_camera row 2"),
    ("clouds/attic.h5", "frames/color_offset", 1, 10**9, "frames/color_offset row 1"),
    ("clouds/attic.h5", "frames/color", slice(0, 40), 0, "frames/color row 0"),
    ("clouds/attic.h5", "dropped/index", 0, 12, "dropped/index row 0"),
    ("clouds/attic.h5", "dropped/index", 0, 5, "dropped/index"),
    ("clouds/attic.h5", "frames_in", None, 9, "9 frames in = 4 kept"),
    ("clouds/attic.h5", "depth_shift", None, 0.0, "depth_shift"),
    ("overlap/attic.h5", "matches", (1, 1), 1, "matches row 1"),
    ("overlap/attic.h5", "matches", (0, 1), 10**6, "matches row 0, 1"),
    ("overlap/attic.h5", "matches", (0, 1), 0, "matches row 1, 0"),
    ("overlap/attic.h5", "points", 0, more, "points row 0"),
    ("overlap/attic.h5", "frames/index", 3, 17, "frames/index"),
    ("overlap/attic.h5", "frames_in", None, 4, "4 frames in = 4 kept"),
    ("pairs.h5", "pairs/overlap", 2, 0.0999, "pairs/overlap row 2"),
    ("pairs.h5", "pairs/overlap", 2, lambda f: f + 1e-5, "pairs/overlap row 2"),
    ("pairs.h5", "pairs/a", 1, 3, "pairs/a row 1"),
    ("pairs.h5", "pairs/b", 0, 99, "pairs/a row 0"),
    ("pairs.h5", "pairs/matches_ab", 3, 10**6, "pairs/matches_ab row 3"),
    ("pairs.h5", "frames/scene", 0, 9, "frames/scene row 0"),
    ("pairs.h5", "frames/index", 1, 10, "frames/index row 1"),
    ("pairs.h5", "scenes/name", 0, b"zoo", "scenes/name"),
    ("pairs.h5", "ledger/frames_in", 2, more, "ledger/frames_in row 2"),
    ("pairs.h5", "ledger/dropped", (0, 1), more, "ledger/frames_in row 0"),
    ("pairs.h5", "ledger/pairs_tested", 0, more, "ledger/pairs_tested row 0"),
    ("pairs.h5", "ledger/pairs_kept", 0, 10**6, "ledger/pairs_kept row 0"),
    ("pairs.h5", "ledger/pairs_drawn", 2, more, "ledger/pairs_drawn row 2"),
    ("chunks/attic.h5", "surface/voxel", (7, 0), 10**5, "surface/voxel row 7"),
    ("chunks/attic.h5", "frames/rows", 5, more, "frame row 0"),
    ("chunks/attic.h5", "frames/box", (2, 1, 0), lambda n: n - 15, "frame row 2"),
    ("chunks/attic.h5", "frames/offset", 1, more, "frame row 0"),
    ("chunks/attic.h5", "frames/offset", 4, more, "frames/offset row 4"),
    ("chunks/attic.h5", "frames/index", 0, 2, "frames/index"),
]


@pytest.mark.parametrize(("name", "item", "at", "value", "named"), WRONG)
def test_what_is_wrong_is_named(results, name, item, at, value, named):
    change(results / name, item, at, value)
    with pytest.raises(Pri3DError) as caught:
        verify(results / name)
    assert str(caught.value).startswith(f"{results / name}: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_across_two_scans_is_named(results):
    with h5py.File(results / "pairs.h5") as file:
        last_of_attic = int((file["pairs/a"][()] < 4).sum()) - 1
    change(results / "pairs.h5", "pairs/b", last_of_attic, 5)
    with pytest.raises(Pri3DError, match=f"pairs/b row {last_of_attic}: is of another scan"):
        verify(results / "pairs.h5")


def test_a_count_that_is_possible_but_wrong_is_found_by_recounting(results):
    path = results / "overlap/attic.h5"
    with h5py.File(path) as file:
        matches = file["matches"][()]
    smaller = np.where(matches > 20, matches - 10, matches)
    change(path, "matches", ..., smaller)
    with pytest.raises(Pri3DError, match=r"matches row \d, \d: is \d+, a KD-tree counts"):
        verify(path)
    with pytest.raises(Pri3DError, match="matches row"):
        verify(path, deep=True)


def test_a_pair_whose_counts_are_consistently_wrong_is_found(results):
    """Counts and overlap fit each other, and only the overlap file or the depth know better."""
    path = results / "pairs.h5"
    with h5py.File(path, "r+") as file:
        points, a, b = (file[n][()] for n in ("frames/points", "pairs/a", "pairs/b"))
        ab, ba = (
            np.minimum(points[r], file[n][()] + 50)
            for r, n in ((a, "pairs/matches_ab"), (b, "pairs/matches_ba"))
        )
        file["pairs/matches_ab"][...], file["pairs/matches_ba"][...] = ab, ba
        total = points[a].astype(np.float64) + points[b]
        file["pairs/overlap"][...] = (ab.astype(np.float64) + ba) / total
    sign(path)
    with pytest.raises(Pri3DError, match=r"pairs/matches_ab row 0: differs from"):
        verify(path)
    shutil.rmtree(results / "overlap")
    for deep in (False, True):
        with pytest.raises(Pri3DError, match=r"matches_.. row \d+: is \d+, the depth images give"):
            verify(path, deep=deep)


def test_boxes_that_are_too_small_are_found(results):
    """The chunk fits its box, but the box is not that of the frame."""
    path = results / "chunks/attic.h5"
    with h5py.File(path, "r+") as file:
        voxel, box = file["surface/voxel"][()], file["frames/box"][()]
        box[:, 1] -= 8
        rows = [np.flatnonzero(((voxel >= lo) & (voxel <= hi)).all(1)) for lo, hi in box]
        for name in ("frames/rows", "frames/box", "frames/offset"):
            del file[name]
        writer = store.ArtefactWriter(file)
        writer.dataset("frames/box", box)
        writer.dataset("frames/rows", np.concatenate(rows).astype(np.uint32))
        offset = np.cumsum([0, *map(len, rows)]).astype(np.uint64)
        writer.dataset("frames/offset", offset)
    sign(path)
    with pytest.raises(Pri3DError, match="frames/box row 0: does not hold"):
        verify(path)


def test_what_lies_beside_must_be_what_it_was_made_from(results):
    make_clouds(results / "clouds/attic.h5", poses(5)[1:], shape=(36, 48), scene="attic")
    for name in ("overlap/attic.h5", "chunks/attic.h5"):
        with pytest.raises(Pri3DError, match=r"made from another .*clouds/attic\.h5"):
            verify(results / name)
    overlap.run(results / "clouds/attic.h5", results / "overlap/attic.h5", config.Overlap())
    with pytest.raises(Pri3DError, match=r"made from another .*overlap/attic\.h5"):
        verify(results / "pairs.h5")


@pytest.mark.parametrize("name", ["clouds/attic.h5", "overlap/attic.h5", "pairs.h5"])
def test_schema_is_exact(results, name):
    path = results / name

    def after(edit):
        copy = alone(path, results)
        with h5py.File(copy, "r+") as file:
            edit(file)
        sign(copy)
        with pytest.raises(Pri3DError) as caught:
            verify(copy)
        return str(caught.value)

    with h5py.File(path) as file:
        index = file["frames/index"][()]
        attribute = "rule" if name == "pairs.h5" else "scene"

    def replace(file, data, **options):
        del file["frames/index"]
        file.create_dataset("frames/index", data=data, **options)

    checked = {"fletcher32": True, "chunks": True}
    assert "frames/index: has no checksum" in after(lambda f: replace(f, index))
    assert "frames/index: has type <i8" in after(lambda f: replace(f, index.astype(int), **checked))
    assert "has shape" in after(lambda f: replace(f, index[:-1], **checked))
    assert "has shape" in after(lambda f: replace(f, index[:, None], **checked))
    assert "frames/index: is missing" in after(lambda f: f.__delitem__("frames/index"))
    assert "more: is not part" in after(lambda f: f.create_dataset("more", data=index, **checked))
    assert f"attribute {attribute}: is missing" in after(lambda f: f.attrs.__delitem__(attribute))


def test_damage_and_other_files(results, tmp_path):
    path = results / "clouds/attic.h5"
    with h5py.File(path, "r+") as file:
        file["frames/points"][0] = 3
    with pytest.raises(Pri3DError, match="does not match its digest"):
        verify(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Pri3DError, match="not a readable HDF5 file"):
        verify(path)
    with pytest.raises(Pri3DError, match="no such file"):
        verify(tmp_path / "nothing.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(Pri3DError, match="something else"):
        verify(tmp_path / "other.h5")


def test_artefacts_of_a_scan_without_frames_pass(tmp_path):
    failed = "failed: cannot be read"
    clouds = make_clouds(tmp_path / "clouds/room.h5", [], dropped=(), status=failed)
    overlap.run(clouds, tmp_path / "overlap/room.h5", config.Overlap())
    pairs.run([tmp_path / "overlap/room.h5"], tmp_path / "pairs.h5", config.Pairs())
    chunks.run(clouds, tmp_path / "chunks/room.h5", config.Chunks())
    for name in ("clouds/room.h5", "overlap/room.h5", "pairs.h5", "chunks/room.h5"):
        for deep in (False, True):
            assert verify(tmp_path / name, deep=deep)


def origin(path):
    return {"digest": store.artefact_digest(path), "inputs": {}}


def write_weights_and_metrics(folder):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    weights = {f"layer{n}.weight": rng.normal(size=(3, 4)).astype(np.float32) for n in range(3)}
    save_file({**weights, "steps": np.array(5)}, folder / "model.safetensors")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0}\n')


def inputs_of(results):
    return {
        "pairs": origin(results / "pairs.h5"),
        "clouds": {
            "attic": origin(results / "clouds/attic.h5"),
            "elsewhere": {"digest": "0" * 64, "inputs": {}},
        },
        "chunks": {"attic": origin(results / "chunks/attic.h5")},
    }


def provenance_of(inputs, initial_weights):
    return Provenance(
        inputs=inputs,
        initial_weights=initial_weights,
        code="0" * 64,
        versions={"torch": "2"},
        engine=None,
    )


@pytest.fixture
def run_folder(results):
    folder = results / "runs" / "joint"
    write_weights_and_metrics(folder)
    weights = {"backbone": RANDOM, "backbone3d": RANDOM}
    provenance = provenance_of(inputs_of(results), weights)
    write_run(folder, "pretrain", "joint", config.Pretrain(), provenance)
    return folder


@pytest.fixture
def finetuned_folder(run_folder):
    """A run that started from the weights of `run_folder`, whose path was another one."""
    folder = run_folder.parent / "semseg_scannet-joint-100-0"
    write_weights_and_metrics(folder)
    started_from = InitialWeights(
        kind="run",
        name="joint",
        description="run joint",
        file="model.safetensors",
        sha256=store.file_digest(run_folder / "model.safetensors"),
    )
    dataset = {"scannet": {"digest": "0" * 64, "inputs": {}, "path": "/data/frames"}}
    provenance = provenance_of({"dataset": dataset}, {"backbone": started_from})
    settings = config.Semseg(initial_weights="elsewhere/runs/joint/model.safetensors")
    write_run(folder, "finetune", "semseg_scannet", settings, provenance)
    return folder


def test_a_good_run_passes(run_folder):
    passed = " | ".join(verify(run_folder))
    assert "37 weights in 4 arrays are finite" in passed
    assert "2 lines of metrics parse" in passed
    assert "3 of 4 inputs exist" in passed


def test_a_run_of_version_01_passes(results):
    folder = results / "runs" / "joint"
    write_weights_and_metrics(folder)
    (folder / "settings.json").write_text('{"mode": "joint", "net2d": "resnet50"}')
    old = inputs_of(results) | {"starts": {"init2d": "random"}, "versions": {"torch": "2"}}
    (folder / "provenance.json").write_text(json.dumps(old))
    assert "3 of 4 inputs exist" in " | ".join(verify(folder))


def test_a_finetuning_run_is_compared_with_its_initial_weights(finetuned_folder, run_folder):
    passed = " | ".join(verify(finetuned_folder))
    assert "1 of 1 inputs exist" in passed
    assert "labels of scannet are not compared" in passed
    save_file({"a": np.ones(3)}, run_folder / "model.safetensors")
    with pytest.raises(
        Pri3DError, match=r"joint/model\.safetensors.*not what the run started from"
    ):
        verify(finetuned_folder)
    shutil.rmtree(run_folder)
    assert "0 of 1 inputs exist" in " | ".join(verify(finetuned_folder))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, "does not exist"),
        ("model.safetensors", b"abc", "cannot be read"),
        ("metrics.jsonl", b'{"step": 1}\n{"step": \n', "line 2"),
        ("metrics.jsonl", b'{"step": 1}\n{"step": ', "line 2"),
        ("metrics.jsonl", b"\xff\xfe", "cannot be read"),
        ("settings.json", b"[]", "no JSON object"),
        ("provenance.json", None, "does not exist; the run is not finished"),
    ],
)
def test_an_error_of_a_run_names_the_file(run_folder, file, content, message):
    (run_folder / file).unlink() if content is None else (run_folder / file).write_bytes(content)
    with pytest.raises(Pri3DError, match=message) as caught:
        verify(run_folder)
    assert file in str(caught.value)


def test_weights_that_are_not_finite_are_named(run_folder):
    values = np.ones((2, 3), np.float32)
    values[1, 2] = np.nan
    save_file({"a": np.ones(3), "up1.weight": values}, run_folder / "model.safetensors")
    with pytest.raises(Pri3DError, match=r"up1\.weight row 1, 2"):
        verify(run_folder)


def test_a_run_on_other_inputs_than_those_there_is_named(run_folder, results):
    change(results / "clouds/attic.h5", "status", None, "partial: changed since")
    with pytest.raises(Pri3DError, match=r"clouds/attic\.h5.*trained on"):
        verify(run_folder)


def test_no_torch_is_needed():
    code = "import sys, pri3d.verify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
