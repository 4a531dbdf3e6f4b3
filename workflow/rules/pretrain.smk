"""Pairs, clouds and chunks -> pretrained networks."""


rule pretrain:
    input:
        pairs=rules.pairs.output,
        clouds=expand(rules.scan_clouds.output, scene=SCANS),
        chunks=lambda wildcards: (
            [] if wildcards.mode == "view" else expand(rules.scan_chunks.output, scene=SCANS)
        ),
    # Checkpoints lie beside it and are not declared: Snakemake deletes what a failed job declares.
    output:
        "results/runs/{mode}/model.safetensors",
    params:
        settings=assignments(settings.pretrain, leave_out=PRETRAIN_HOW),
        # Snakemake does not record what takes `threads`: a change of these retrains nothing.
        how=lambda wildcards, threads: assignments(settings.pretrain, only=PRETRAIN_HOW),
        code=code_digest("pri3d.training"),
    log:
        "results/logs/pretrain/{mode}.log",
    benchmark:
        "results/benchmarks/pretrain/{mode}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 64
    resources:
        mem_mb=16000,
        runtime=60 * 48,
    message:
        "pretrain: training results/runs/{wildcards.mode}"
    shell:
        "python -m pri3d pretrain --mode {wildcards.mode} --pairs {input.pairs} --clouds results/clouds"
        " --chunks results/chunks --out results/runs/{wildcards.mode}"
        " {params.settings} {params.how} 2>&1 | tee {log}"
