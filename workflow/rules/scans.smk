"""The synthetic scans of `scans: demo`, in the formats of real scans."""


rule demo:
    output:
        sens="results/demo/{scene}/{scene}.sens",
        surface="results/demo/{scene}/{scene}_vh_clean_2.ply",
    params:
        # Without the number of scans: one more does not change the others.
        settings=options(settings.demo, leave_out=["scans"]),
        code=code_digest("pri3d.demo"),
    log:
        "results/logs/demo/{scene}.log",
    benchmark:
        "results/benchmarks/demo/{scene}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "demo: making {wildcards.scene}"
    shell:
        "python -m pri3d demo results/demo --scene {wildcards.scene:q} {params.settings} > {log:q} 2>&1"
