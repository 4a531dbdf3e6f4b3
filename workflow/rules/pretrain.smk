"""Pairs, clouds and chunks -> pretrained networks.

Checkpoints lie beside the weights and are not declared as outputs: Snakemake deletes the outputs of
a failed job. It does not record the parameter `execution`, which takes `threads`, so a change of it
retrains nothing. Messages and the progress bar go to the terminal, the last metrics into the log.
"""


rule pretrain:
    input:
        pairs=branch(lambda w: "pairs" in mode_of(w.run).reads, rules.pairs.output),
        clouds=expand(rules.scan_clouds.output, scene=TRAINED),
        chunks=branch(
            lambda w: "chunks" in mode_of(w.run).reads,
            expand(rules.scan_chunks.output, scene=TRAINED),
        ),
        weights=lambda w: [
            file
            for name in ("initial_weights_2d", "initial_weights_3d", "teacher_weights")
            if name in used_settings(PRETRAINED[w.run].mode)
            and (file := getattr(PRETRAINED[w.run].settings, name)) not in NAMED_WEIGHTS
        ],
    output:
        "results/runs/{run}/model.safetensors",
    params:
        settings=lambda w: assignments(
            PRETRAINED[w.run].settings, only=used_settings(PRETRAINED[w.run].mode)
        ),
        mode=lambda w: f"--mode {PRETRAINED[w.run].mode} --variant {PRETRAINED[w.run].variant}",
        scenes=lambda w: scenes_of(w.run),
        execution=lambda w, threads: (
            f"{assignments(PRETRAINED[w.run].settings, only=RUNTIME)} {options(settings.sparse)}"
        ),
        code=lambda w: code_of_mode(PRETRAINED[w.run].mode),
    log:
        "results/logs/pretrain/{run}.log",
    benchmark:
        "results/benchmarks/pretrain/{run}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: lambda w: cores_of(PRETRAINED[w.run].settings)
    resources:
        mem_mb=16000,
        runtime=60 * 48,
    message:
        "pretrain: training results/runs/{wildcards.run}"
    shell:
        "python -m pri3d pretrain {params.mode} --pairs results/pairs.h5"
        " --clouds results/clouds --chunks results/chunks --out results/runs/{wildcards.run}"
        " {params.settings} {params.scenes:q} {params.execution} > {log}"
