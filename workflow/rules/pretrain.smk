"""Pairs, clouds and chunks -> pretrained networks.

Checkpoints lie beside the weights and are not declared: Snakemake deletes what a failed job
declares. It does not record `how`, which takes `threads`, so that a change of it retrains nothing.
Messages and the progress bar go to the terminal, the last figures into the log.
"""


rule pretrain:
    input:
        # A mode with a teacher takes single frames.
        pairs=branch(lambda w: w.mode not in WITH_TEACHER, rules.pairs.output),
        clouds=expand(rules.scan_clouds.output, scene=TRAINED),
        chunks=branch(
            lambda w: w.mode in ("geo", "joint"), expand(rules.scan_chunks.output, scene=TRAINED)
        ),
        # Files of weights to start from.
        starts=lambda w: [
            start
            for name in ("init2d", "init3d", "teacher_init")
            if name not in PRETRAIN_UNUSED[w.mode]
            and (start := getattr(settings.of_mode(w.mode), name)) not in INIT
        ],
    output:
        "results/runs/{mode}/model.safetensors",
    params:
        settings=lambda w: assignments(
            settings.of_mode(w.mode), leave_out=PRETRAIN_HOW + PRETRAIN_UNUSED[w.mode]
        ),
        scenes=lambda w: scenes_of(w.mode),
        how=lambda w, threads: (
            f"{assignments(settings.of_mode(w.mode), only=PRETRAIN_HOW)} {options(settings.sparse)}"
        ),
        code=code_digest("pri3d.training"),
    log:
        "results/logs/pretrain/{mode}.log",
    benchmark:
        "results/benchmarks/pretrain/{mode}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: lambda w: cores_of(settings.of_mode(w.mode), settings.pretrain.processes)
    resources:
        mem_mb=16000,
        runtime=60 * 48,
    message:
        "pretrain: training results/runs/{wildcards.mode}"
    shell:
        "python -m pri3d pretrain --mode {wildcards.mode} --pairs results/pairs.h5"
        " --clouds results/clouds --chunks results/chunks --out results/runs/{wildcards.mode}"
        " {params.settings} {params.scenes:q} {params.how} > {log}"
