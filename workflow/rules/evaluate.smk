"""A pretrained network on scans that it has not seen -> how well it finds matches there."""


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
        how=lambda wildcards, threads: (
            f"{options(settings.sparse)} --device {settings.pretrain.device} --threads {threads}"
        ),
        code=lambda w: code_of_mode(
            settings.mode_of(PRETRAINED[w.run]), "pri3d.pretrain.evaluate"
        ),
    log:
        "results/logs/evaluate/{run}.log",
    benchmark:
        "results/benchmarks/evaluate/{run}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: settings.pretrain.threads or 64
    resources:
        mem_mb=8000,
        runtime=120,
    message:
        "evaluate: seeking matches in held-out scans with results/runs/{wildcards.run}"
    shell:
        "python -m pri3d evaluate results/runs/{wildcards.run} --pairs {input.pairs}"
        " --clouds results/clouds --chunks results/chunks --out {output}"
        " {params.settings} {params.held_out:q} {params.how} > {log}"
