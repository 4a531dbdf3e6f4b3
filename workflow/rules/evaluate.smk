"""Pretrained networks and held-out scans -> the share of correspondences that they find."""


rule evaluate_run:
    input:
        model=rules.pretrain.output,
        pairs=rules.pairs.output,
        clouds=expand(rules.scan_clouds.output, scene=HELD_OUT),
        chunks=branch(
            lambda w: "chunks" in mode_of(w.run).reads,
            expand(rules.scan_chunks.output, scene=HELD_OUT),
        ),
    output:
        "results/evaluation/{run}.json",
    params:
        settings=options(settings.evaluate),
        held_out=[word for scene in HELD_OUT for word in ("--held-out", scene)],
        execution=lambda w, threads: (
            f"{options(settings.sparse)} --device {PRETRAINED[w.run].settings.device}"
            f" --threads {threads}"
        ),
        code=lambda w: code_of_mode(PRETRAINED[w.run].mode, "pri3d.pretrain.evaluate"),
    log:
        "results/logs/evaluate/{run}.log",
    benchmark:
        "results/benchmarks/evaluate/{run}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: lambda w: PRETRAINED[w.run].settings.threads or 64
    resources:
        mem_mb=8000,
        runtime=120,
    message:
        "evaluate: finding correspondences in held-out scans with results/runs/{wildcards.run}"
    shell:
        "python -m pri3d evaluate results/runs/{wildcards.run} --pairs {input.pairs}"
        " --clouds results/clouds --chunks results/chunks --out {output}"
        " {params.settings} {params.held_out:q} {params.execution} > {log}"
