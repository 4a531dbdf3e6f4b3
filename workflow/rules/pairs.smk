"""Scans -> clouds -> overlap -> pairs."""


rule scan_clouds:
    input:
        lambda wildcards: SCANS[wildcards.scene][0],
    output:
        "results/clouds/{scene}.h5",
    params:
        settings=options(settings.frames),
        code=code_digest("pri3d.stages.clouds"),
    log:
        "results/logs/clouds/{scene}.log",
    benchmark:
        "results/benchmarks/clouds/{scene}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "clouds: reading {wildcards.scene}"
    shell:
        "python -m pri3d clouds {input:q} {output:q} {params.settings} --keep-going > {log:q} 2>&1"


rule scan_overlap:
    input:
        rules.scan_clouds.output,
    output:
        "results/overlap/{scene}.h5",
    params:
        settings=options(settings.overlap),
        code=code_digest("pri3d.stages.overlap"),
    log:
        "results/logs/overlap/{scene}.log",
    benchmark:
        "results/benchmarks/overlap/{scene}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=60,
    message:
        "overlap: counting shared points in {wildcards.scene}"
    shell:
        "python -m pri3d overlap {input:q} {output:q} {params.settings} --threads {threads} > {log:q} 2>&1"


rule pairs:
    input:
        expand(rules.scan_overlap.output, scene=SCANS),
    output:
        "results/pairs.h5",
    params:
        settings=options(settings.pairs),
        missing=[word for scene in MISSING for word in ("--missing", scene)],
        code=code_digest("pri3d.stages.pairs"),
    log:
        "results/logs/pairs.log",
    benchmark:
        "results/benchmarks/pairs.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "pairs: selecting pairs of frames"
    shell:
        "python -m pri3d pairs {input:q} {output} {params.settings} {params.missing:q} > {log:q} 2>&1"
