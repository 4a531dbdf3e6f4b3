"""Clouds + surface -> chunks."""


rule scan_chunks:
    input:
        clouds=rules.scan_clouds.output,
        surface=lambda wildcards: SCANS[wildcards.scene][1] or [],
    output:
        "results/chunks/{scene}.h5",
    params:
        settings=options(settings.chunks),
        surface=lambda wildcards, input: ["--surface", input.surface] if input.surface else [],
        code=code_digest("pri3d.stages.chunks"),
    log:
        "results/logs/chunks/{scene}.log",
    benchmark:
        "results/benchmarks/chunks/{scene}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    message:
        "chunks: voxelizing the surface of {wildcards.scene}"
    shell:
        "python -m pri3d chunks {input.clouds:q} {output:q} {params.surface:q} {params.settings} --keep-going > {log:q} 2>&1"
