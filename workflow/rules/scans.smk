"""Which scans there are: those of a folder, or procedural ones that are made here."""

from pri3d.scans import demo
from pri3d.scans.find import Scan, find_scans


rule demo:
    output:
        sens="results/demo/{scene}/{scene}.sens",
        surface="results/demo/{scene}/{scene}_vh_clean_2.ply",
    params:
        # Not the number of scans: one more leaves the others as they are.
        settings=options(settings.demo, leave_out=["scans"]),
        code=code_digest("pri3d.scans.demo"),
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
        "{pri3d} demo results/demo --scene {wildcards.scene} {params.settings} > {log} 2>&1"


def list_scans():
    """Scene -> Scan of the scenes that are asked for, and the names of those without a scan."""
    if settings.scans == "demo":
        outputs = rules.demo.output
        found = {
            scene: Scan(outputs.sens.format(scene=scene), outputs.surface.format(scene=scene))
            for scene in demo.scene_ids(settings.demo)
        }
    else:
        found = find_scans(settings.scans)
    wanted = settings.scenes
    if isinstance(wanted, str):
        try:
            wanted = Path(wanted).read_text().split()
        except OSError as error:
            raise Pri3DError(f"{wanted}: no list of scenes ({error.strerror}); give a text file")
    wanted = list(dict.fromkeys(wanted)) if wanted is not None else list(found)
    present = {scene: found[scene] for scene in wanted if scene in found}
    if not present:
        raise Pri3DError(f"{settings.scans}: no scans (of those asked for); set `scans`, `scenes`")
    return present, [scene for scene in wanted if scene not in found]


try:
    SCANS, MISSING = list_scans()
except Pri3DError as error:
    raise WorkflowError(str(error))
if MISSING:
    logger.warning(f"{len(MISSING)} scenes have no .sens: {', '.join(MISSING[:5])} ...")


wildcard_constraints:
    scene="|".join(map(re.escape, SCANS)),
    mode="|".join(MODES),
