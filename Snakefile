"""Raw scans -> clouds -> overlap -> pairs; clouds + surface -> chunks; all of them -> runs.

    snakemake --cores 2                                                 the whole demo
    snakemake --cores 8 results/pairs.h5 --config scans=/data/scannet   real scans
    pri3d run pretrain_joint pretrain.lr=0.05                           settings as dotted keys

Settings: config.yaml, over it the preset, over that --configfile and --config.
"""


include: "workflow/rules/common.smk"
include: "workflow/rules/scans.smk"
include: "workflow/rules/pairs.smk"
include: "workflow/rules/chunks.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/report.smk"


rule clouds:
    input:
        expand(rules.scan_clouds.output, scene=SCANS),


rule overlap:
    input:
        expand(rules.scan_overlap.output, scene=SCANS),


rule chunks:
    input:
        expand(rules.scan_chunks.output, scene=SCANS),


for name in RUNS_OF:

    rule:
        name:
            f"pretrain_{name}"
        input:
            expand(rules.pretrain.output, run=RUNS_OF[name]),


# Empty if no scan is held out.
rule evaluate:
    input:
        expand(rules.evaluate_run.output, run=MEASURED_RUNS),


for task in TASKS:

    rule:
        name:
            f"finetune_{task}"
        input:
            expand(MEASURED, run=FINETUNED[task]),


rule compare_3d:
    input:
        expand(MEASURED, run=COMPARE_3D),


rule low_data:
    input:
        expand(MEASURED, run=LOW_DATA),


rule all:
    default_target: True
    input:
        rules.clouds.input,
        rules.overlap.input,
        rules.chunks.input,
        rules.report.input,
        rules.report.output,
