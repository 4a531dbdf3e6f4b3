"""Scans -> clouds -> overlap -> pairs."""


rule scan_clouds:
    input:
        lambda wildcards: SCANS[wildcards.scene].sens,
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
        "{pri3d} clouds {input:q} {output} {params.settings} --keep-going > {log} 2>&1"


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
        "{pri3d} overlap {input} {output} {params.settings} --threads {threads} > {log} 2>&1"


rule pairs:
    input:
        expand(rules.scan_overlap.output, scene=SCANS),
    output:
        "results/pairs.h5",
    params:
        settings=options(settings.pairs),
        missing=[f"--missing {shlex.quote(scene)}" for scene in MISSING],
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
        "pairs: choosing pairs of frames"
    shell:
        "{pri3d} pairs {input} {output} {params.settings} {params.missing} > {log} 2>&1"
