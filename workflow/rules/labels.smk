"""Labelled data sets: where they are, and look-alikes of them where they are `demo`."""


rule labelled_scannet:
    input:
        expand(rules.demo.output.sens, scene=DEMO_SCENES),
    output:
        directory("results/labelled/scannet"),
    params:
        scenes=[word for scene in DEMO_SCENES for word in ("--scene", scene)]
        + [word for scene in DEMO_VAL for word in ("--held-out", scene)],
        code=code_digest("pri3d.demo.scannet"),
    log:
        "results/logs/labelled/scannet.log",
    benchmark:
        "results/benchmarks/labelled/scannet.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "labelled: writing the demo scans' labels as scannet_frames_25k"
    shell:
        "python -m pri3d data demo scannet {output} --scans results/demo {params.scenes} > {log} 2>&1"


rule labelled_rendered:
    output:
        directory("results/labelled/{frame_set}"),
    params:
        seed=settings.demo.seed,
        code=lambda w: code_digest(f"pri3d.demo.{w.frame_set}"),
    log:
        "results/logs/labelled/{frame_set}.log",
    benchmark:
        "results/benchmarks/labelled/{frame_set}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "labelled: rendering images as {wildcards.frame_set}"
    shell:
        "python -m pri3d data demo {wildcards.frame_set} {output} --seed {params.seed} > {log} 2>&1"


rule labelled_clouds:
    input:
        expand(rules.demo.output, scene=DEMO_SCENES),
    output:
        directory("results/labelled/{cloud_set}"),
    params:
        scenes=rules.labelled_scannet.params.scenes,
        code=lambda w: code_digest(f"pri3d.demo.{w.cloud_set}"),
    log:
        "results/logs/labelled/{cloud_set}.log",
    benchmark:
        "results/benchmarks/labelled/{cloud_set}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "labelled: writing the demo scans' surfaces as {wildcards.cloud_set}"
    shell:
        "python -m pri3d data demo {wildcards.cloud_set} {output} --scans results/demo"
        " {params.scenes} > {log} 2>&1"
