"""Several processes train as one does: the same weights, however a batch is divided."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import small_runs
import torch
import yaml
from make_artefacts import make_artefacts, read_metrics
from ranks import assert_close, free_port, weights_of
from ranks import start as start_processes

from pri3d.models.minkunet import minkunet
from pri3d.models.resunet import resunet
from pri3d.models.sync_batch_norm import SyncBatchNorm, synchronize_batch_norm
from pri3d.run import processes
from pri3d.run.folder import read_run
from pri3d.run.processes import sum_over_processes

TINY = small_runs.TINY | {"batch": 4, "steps": 2, "log_every": 1, "lr": 0.02, "moco_queue": 16}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_artefacts(tmp_path_factory.mktemp("room"))


def start(room, out: Path, mode: str, size: int, **settings) -> list[subprocess.Popen]:
    out.parent.mkdir(parents=True, exist_ok=True)
    config = out.parent / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump({"pretrain": TINY | settings}))
    words = [
        *("pretrain", "--mode", mode, "--config", str(config), "--out", str(out)),
        *("--pairs", str(room["pairs"]), "--clouds", str(room["clouds_dir"])),
        *("--chunks", str(room["chunks_dir"])),
    ]
    return start_processes(words, size)


def train(room, out: Path, mode: str, size: int = 1, **settings) -> dict[str, torch.Tensor]:
    return weights_of(start(room, out, mode, size, **settings), out)


@pytest.mark.parametrize("mode", ["joint", "moco", "ppkt", "pointcontrast"])
def test_two_processes_give_the_weights_of_one_with_the_same_batch(room, tmp_path, mode):
    one = train(room, tmp_path / "one", mode, micro_batch=2)
    two = train(room, tmp_path / "two", mode, size=2, micro_batch=2)
    assert_close(one, two)
    for alone, together in zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert together["pairs"] == alone["pairs"] == 4 * alone["step"]
        terms = {"joint": ("view_recall", "geo_loss", "view_candidates"), "moco": ("moco_loss",)}
        terms |= {"ppkt": ("ppkt_recall",), "pointcontrast": ("pointcontrast_recall",)}
        for key in terms[mode]:
            assert together[key] == pytest.approx(alone[key], rel=1e-5)


def test_batch_norm_over_all_processes_is_that_of_one_with_all_samples(room, tmp_path):
    one = train(room, tmp_path / "one", "joint", micro_batch=4, steps=1)
    two = train(room, tmp_path / "two", "joint", size=2, micro_batch=2, sync_bn=True, steps=1)
    apart = train(room, tmp_path / "apart", "joint", size=2, micro_batch=2, steps=1)
    (alone,), (together,), (otherwise,) = (
        read_metrics(tmp_path / name) for name in ("one", "two", "apart")
    )
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)  # float32
    assert otherwise["loss"] != pytest.approx(alone["loss"], rel=1e-4)
    for name, value in one.items():
        if "running" in name:
            assert torch.allclose(value, two[name], rtol=1e-4, atol=1e-6), name
    name = "backbone.encoder.layer1.0.bn1.running_var"
    assert not torch.allclose(one[name], apart[name], rtol=1e-4)


def gradients_and_statistics(network, x, weights) -> dict[str, torch.Tensor]:
    (network(x) * weights).sum().backward()
    sum_over_processes([parameter.grad for parameter in network.parameters()])
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return gradients | {name: buffer.clone() for name, buffer in network.named_buffers()}


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 4, 3), torch.nn.BatchNorm2d(4)).double()


def one_of_two(rank, port, x, weights, out):
    os.environ.update(
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    )
    processes.start("cpu")
    network = small_network()
    synchronize_batch_norm(network)
    rows = [slice(0, 3), slice(3, 5)][rank]  # not the same number in both
    values = gradients_and_statistics(network, x[rows], weights[rows])
    if rank == 0:
        torch.save(values, out)
    processes.stop()


@pytest.mark.slow
def test_in_float64_synchronized_batch_norm_is_exact(tmp_path):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 3, 9, 9, generator=generator, dtype=torch.float64)
    weights = torch.randn(5, 4, 5, 5, generator=generator, dtype=torch.float64)
    spawn = torch.multiprocessing.spawn
    spawn(one_of_two, (free_port(), x, weights, tmp_path / "values.pt"), nprocs=2)
    together = torch.load(tmp_path / "values.pt")
    for name, value in gradients_and_statistics(small_network(), x, weights).items():
        assert torch.allclose(together[name].double(), value.double(), rtol=1e-10, atol=1e-11), name


def test_a_signal_to_one_process_stops_all_and_they_resume_exactly(room, tmp_path):
    settings = {"micro_batch": 2, "steps": 6, "checkpoint_every": 100}
    whole = train(room, tmp_path / "whole", "view", size=2, **settings)
    broken = tmp_path / "broken"
    both = start(room, broken, "view", 2, **settings)
    end = time.monotonic() + 120
    while not (broken / "metrics.jsonl").exists() or not read_metrics(broken):
        assert time.monotonic() < end
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "stopped by" in errors
        assert "Traceback" not in errors
    assert list((broken / "checkpoints").glob("step_*.pt"))
    again = train(room, broken, "view", size=2, **settings)
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name


def test_processes_are_started_by_the_setting(room, tmp_path):
    weights = train(room, tmp_path / "run", "view", processes=2, steps=1, micro_batch=2)
    assert_close(weights, train(room, tmp_path / "one", "view", steps=1, micro_batch=2))
    assert read_run(tmp_path / "run").settings.processes == 2


def test_an_error_of_processes_that_were_started_is_one_sentence(room, tmp_path):
    nowhere = room | {"pairs": tmp_path / "none.h5"}
    (process,) = start(nowhere, tmp_path / "run", "view", 1, processes=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.count("none.h5: no such file") == 1
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_signal_to_what_started_them_reaches_all_processes(room, tmp_path):
    settings = {"micro_batch": 2, "steps": 500, "processes": 2}
    (process,) = start(room, tmp_path / "run", "view", 1, **settings)
    end = time.monotonic() + 120
    while not (tmp_path / "run/metrics.jsonl").exists() or not read_metrics(tmp_path / "run"):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "stopped by SIGTERM after step" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "run/checkpoints").glob("step_*.pt"))


@pytest.mark.slow
def test_samples_that_one_process_cannot_use_do_not_hold_up_the_others(tmp_path):
    """With batch norm over all processes each must call it equally often."""

    def blank(scene, frames, chunks):
        frames["jpeg"][0] = b""

    room = make_artefacts(tmp_path / "room", frames=8, edit=blank)
    for mode, micro_batch in (("joint", 1), ("moco", 2)):
        settings = {"micro_batch": micro_batch, "sync_bn": True, "steps": 4}
        train(room, tmp_path / mode, mode, size=2, **settings)
        skipped = read_metrics(tmp_path / mode)[-1]["skipped"]
        assert skipped["no color image"] > 0
        assert skipped["sync_bn: another sample of the micro-batch cannot be used"] > 0


def test_a_batch_that_cannot_be_shared_is_one_sentence(room, tmp_path):
    for process in start(room, tmp_path / "run", "view", 2, batch=3):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "pretrain.batch: 3 samples cannot be divided evenly among 2 processes" in errors


def test_alone_it_is_batch_norm_and_keeps_its_names():
    torch.manual_seed(0)
    for network in (resunet("resnet18"), minkunet(widths=[8] * 8, blocks=[1] * 8)):
        before = network.state_dict()
        synchronize_batch_norm(network)
        assert network.state_dict().keys() == before.keys()
        assert sum(isinstance(m, SyncBatchNorm) for m in network.modules()) > 20
    x = torch.randn(6, 5, 4, 4)
    own, torchs = SyncBatchNorm(5), torch.nn.BatchNorm2d(5)
    assert torch.equal(own(x), torchs(x))
    assert torch.equal(own.running_var, torchs.running_var)
