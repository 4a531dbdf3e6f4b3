"""All results -> one page."""


rule report:
    input:
        pairs=rules.pairs.output,
        overlaps=expand(rules.scan_overlap.output, scene=SCANS),
        chunks=expand(rules.scan_chunks.output, scene=SCANS),
        runs=expand(rules.pretrain.output, run=REPORTED),
        evaluation=expand(rules.evaluate_run.output, run=MEASURED_RUNS),
        tasks=[
            expand([TRAINED_RUN, MEASURED], run=FINETUNED[task]) for task in settings.report.tasks
        ],
        low_data=expand([TRAINED_RUN, MEASURED], run=LOW_DATA if settings.report.low_data else []),
        compare_3d=expand(
            [TRAINED_RUN, MEASURED], run=COMPARE_3D if settings.report.compare_3d else []
        ),
    output:
        "results/report/index.html",
    params:
        code=code_digest("pri3d.report"),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/pri3d.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    message:
        "report: drawing {output}"
    shell:
        "python -m pri3d report results --out {output} > {log:q} 2>&1"
