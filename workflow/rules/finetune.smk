"""Labeled data and initial weights -> finetuned networks -> their scores on the validation split.

A run is named <task>-<initial weights>-<percent of the labels>-<number of the seed>. Runs that
differ only in their initial weights see the same labels in the same order.
"""


rule finetune:
    input:
        # Snakemake does not watch a data set of the user.
        data=lambda w: (
            dataset_folder(w.task) if dataset_folder(w.task).startswith("results/") else []
        ),
        weights=lambda w: (
            expand(rules.pretrain.output, run=w.initial)
            if w.initial in PRETRAINED
            else FILES.get(w.initial, [])
        ),
    output:
        f"results/runs/{RUN}/model.safetensors",
    params:
        data=lambda w: dataset_folder(w.task),
        settings=finetune_settings,
        weights_name=lambda w: ["--weights-name", w.initial] if w.initial in FILES else [],
        execution=lambda w, threads: (
            f"{assignments(settings.of_task(w.task), only=RUNTIME)} {options(settings.sparse)}"
        ),
        code=lambda w: code_of_task(TASKS[w.task].kind),
    log:
        f"results/logs/finetune/{RUN}.log",
    benchmark:
        f"results/benchmarks/finetune/{RUN}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: lambda w: cores_of(settings.of_task(w.task))
    resources:
        mem_mb=16000,
        runtime=60 * 48,
    message:
        f"finetune: training results/runs/{NAME}"
    shell:
        "python -m pri3d finetune {wildcards.task} --data {params.data:q}"
        f" --out results/runs/{NAME}"
        " {params.settings} {params.weights_name} {params.execution} > {log}"


rule evaluate_finetuned:
    input:
        model=rules.finetune.output,
        data=rules.finetune.input.data,
    output:
        f"results/evaluation/{RUN}.json",
    params:
        data=rules.finetune.params.data,
        execution=lambda w, threads: (
            f"--device {settings.of_task(w.task).device} --threads {threads}"
            f" {options(settings.sparse)}"
        ),
        code=lambda w: code_of_task(TASKS[w.task].kind, "pri3d.finetune.evaluate"),
    log:
        f"results/logs/evaluate/{RUN}.log",
    benchmark:
        f"results/benchmarks/evaluate/{RUN}.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: lambda w: settings.of_task(w.task).threads or 64
    resources:
        mem_mb=8000,
        runtime=240,
    message:
        f"evaluate: measuring results/runs/{NAME}"
    shell:
        f"python -m pri3d evaluate results/runs/{NAME}"
        " --data {params.data:q} --out {output} {params.execution} > {log}"


FINETUNED = {
    task: runs_of(task, initial_weights_of(task), [settings.of_task(task).percent], 1)
    for task in TASKS
}
COMPARE_3D = runs_of_comparison(settings.compare_3d)
LOW_DATA = runs_of_comparison(settings.low_data)
TRAINED_RUN = "results/runs/{run}/model.safetensors"
MEASURED = "results/evaluation/{run}.json"
