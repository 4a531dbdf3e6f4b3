"""Time and memory, settings and digests are those of the artefacts."""

from small_results import Page, make_page, make_run

from pri3d import config, store
from pri3d.config import Network3d


def test_costs_are_summed_by_stage(page):
    reader = Page(page)
    assert reader.row("clouds")[1][:6] == ["clouds", "2", "1.75", "0.88", "1.25", "322"]
    assert reader.row("pairs")[1][:3] == ["pairs", "1", "0.75"]
    assert reader.row("all", "7")[1][:3] == ["all", "7", "6.00"]
    assert "777" not in reader.sections["costs"]  # the measurement of an earlier report
    each = [cells for _, cells in reader.rows if cells[0] == "partly" and cells[1] == "0.50"]
    assert each == [["partly", "0.50", "–", "0.50", "–", "0.50", "–"]]


def test_settings_and_digests_are_those_of_the_artefacts(results, page):
    reader = Page(page)
    assert reader.row("pairs.min_overlap")[1][1] == "0.3"
    assert reader.row("overlap.radius_m")[1] == [
        "overlap.radius_m",
        "0.02",
        config.Overlap.model_fields["radius_m"].description,
    ]
    assert reader.row("pretrain.lr")[1][1] == "0.1"
    for path in [results / "pairs.h5", *results.glob("[oc]*/*.h5")]:
        name = path.relative_to(results).as_posix()
        assert reader.row(name)[1][2] == store.artefact_digest(path)
    weights = "runs/joint/model.safetensors"
    assert reader.row(weights)[1][2] == store.file_digest(results / weights)


def test_settings_of_a_run_have_their_names_in_config_yaml(page):
    reader = Page(page)
    assert reader.row("network2d")[1][:2] == ["network2d", "resnet18"]
    for name, field in Network3d.model_fields.items():
        assert reader.row(f"network3d.{name}")[1][2] == field.description
    # Inherited from `training`, and overridden by `pretrain`.
    for name in ("device", "keep_checkpoints"):
        meaning = config.Pretrain.model_fields[name].description
        assert reader.row(f"pretrain.{name}")[1][2] == meaning
    assert all(cells[2] for _, cells in reader.rows if cells[0].startswith("pretrain."))


def test_settings_that_differ_between_scans_are_counted(copy):
    make_run(copy / "runs/view", "", mode="view", lr=0.3)
    reader = Page(make_page(copy))
    assert [cells[1] for _, cells in reader.rows if cells[0] == "pretrain.lr"] == ["0.1", "0.3"]
