"""Running Snakemake on this project's workflow, for tests."""

import atexit
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Importing Snakemake takes most of the time of a dry run: this process has done it, and forks.
FORK = """
import json, os, sys
import numpy, pydantic, typer, yaml
import snakemake.api, snakemake.cli, snakemake.dag, snakemake.workflow

for line in sys.stdin:
    words, log = json.loads(line)
    child = os.fork()
    if child == 0:
        with open(log, "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        snakemake.cli.main(words)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, flush=True)
"""


def words_for(tree, folder, *words):
    """Run the Snakefile of a tree in a folder; `words` are targets and flags."""
    where = ["--snakefile", tree / "Snakefile", "--directory", folder, "--cores", "1"]
    return [str(word) for word in (*where, *words)]


def snakemake(tree, folder, *words, **options):
    command = [sys.executable, "-m", "snakemake", *words_for(tree, folder, *words)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


@functools.cache
def _forker():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", FORK], **pipes)
    atexit.register(process.kill)
    return process


def dry_run(tree, folder, *words):
    """(exit status, all output) of a dry run."""
    log, forker = Path(folder) / "dry-run.log", _forker()
    print(json.dumps([words_for(tree, folder, "--dry-run", *words), str(log)]), file=forker.stdin)
    forker.stdin.flush()
    return int(forker.stdout.readline()), log.read_text()


def planned(tree, folder, *words):
    """The jobs of a dry run: a set of "rule scene", "pretrain run", "pairs", "report"."""
    status, output = dry_run(tree, folder, *words)
    assert status == 0, output
    assert "missing provenance" not in output, output
    names = {"pairs": "^$", "report": "^$"}
    jobs = set()
    for rule, message in re.findall(r"^Job \d+: (\w+): (.*)$", output, re.MULTILINE):
        name = re.search(names.get(rule, r"[\w.-]+$"), message)
        jobs.add(f"{rule} {name[0]}" if name else rule)
    totals = re.findall(r"^total +(\d+)$", output, re.MULTILINE)
    targets = "all|clouds|overlap|chunks|pretrain_\\w+|finetune_\\w+|low_data|compare_3d|evaluate"
    targets = re.findall(f"^(?:{targets}) +1$", output, re.MULTILINE)
    assert len(jobs) == (int(totals[-1]) if totals else 0) - len(set(targets)), output
    return jobs
