"""Look-alikes of the labeled data sets that are `demo`."""


rule dataset_scannet:
    input:
        expand(rules.demo.output.sens, scene=DEMO_SCENES),
    output:
        directory("results/datasets/scannet"),
    params:
        scenes=[word for scene in DEMO_SCENES for word in ("--scene", scene)]
        + [word for scene in DEMO_VAL for word in ("--held-out", scene)],
        code=code_digest("pri3d.demo.scannet"),
    log:
        "results/logs/datasets/scannet.log",
    benchmark:
        "results/benchmarks/datasets/scannet.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "datasets: writing labels of the demo scans as scannet_frames_25k"
    shell:
        "python -m pri3d data demo scannet {output} --scans results/demo {params.scenes} > {log} 2>&1"


rule dataset_rendered:
    output:
        directory("results/datasets/{rendered_set}"),
    params:
        seed=settings.demo.seed,
        code=lambda w: code_digest(f"pri3d.demo.{w.rendered_set}"),
    log:
        "results/logs/datasets/{rendered_set}.log",
    benchmark:
        "results/benchmarks/datasets/{rendered_set}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "datasets: rendering images as {wildcards.rendered_set}"
    shell:
        "python -m pri3d data demo {wildcards.rendered_set} {output} --seed {params.seed} > {log} 2>&1"


rule dataset_clouds:
    input:
        expand(rules.demo.output, scene=DEMO_SCENES),
    output:
        directory("results/datasets/{cloud_set}"),
    params:
        scenes=rules.dataset_scannet.params.scenes,
        code=lambda w: code_digest(f"pri3d.demo.{w.cloud_set}"),
    log:
        "results/logs/datasets/{cloud_set}.log",
    benchmark:
        "results/benchmarks/datasets/{cloud_set}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "datasets: writing surfaces of the demo scans as {wildcards.cloud_set}"
    shell:
        "python -m pri3d data demo {wildcards.cloud_set} {output} --scans results/demo"
        " {params.scenes} > {log} 2>&1"
