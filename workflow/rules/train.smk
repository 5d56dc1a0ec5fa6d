"""One rule per experiment; one job of it is a training, or a block of a kernel."""

from snakemake.utils import Paramspace

import pandas


def training_rule(name, plan, points):
    entry = CONFIG.experiments[name]
    by_name = {str(point.name): point for point in points}
    space = Paramspace(
        pandas.DataFrame([point.labels for point in points], dtype=str),
        filename_params="*",
        param_sep="~",
        filename_sep=",",
    )
    folder = f"{name}/{points[0].config_hash}/{space.wildcard_pattern}"

    rule:
        name:
            f"train_{name}"
        input:
            data=[ancient(CIFAR10)] if plan.data else [],  # the point's name says which data it wants, not a time
            code=fingerprint_of(f"mirrorsym.experiments.{plan.module}"),
        output:
            RESULTS / "points" / f"{folder}.nc",
        log:
            RESULTS / "logs" / f"points/{folder}.log",
        benchmark:
            RESULTS / "benchmarks" / f"points/{folder}.tsv"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **CONFIG.cluster.resources(entry.resources.gpu),
            mem_mb=lambda wildcards, attempt: attempt * entry.resources.mem_mb,
            runtime=lambda wildcards, attempt: min(attempt * entry.resources.runtime, CONFIG.cluster.max_runtime),
            gpu=entry.resources.gpu,
            lane=1,  # a cluster's profile says how many jobs of a group run at once
        params:
            mirrorsym=MIRRORSYM,
            point=lambda wildcards, output, by_name=by_name: by_name[
                str(Path(output[0]).relative_to(RESULTS / "points"))
            ].to_json(),
            device=CONFIG.device,
            seconds=60 * CONFIG.checkpoint_minutes,
            where="" if workflow.is_main_process else "--cluster",
        message:
            f"{name}: {{wildcards}}"
        shell:
            "{params.mirrorsym} job point {params.point:q} --out {output} --device {params.device} --checkpoint-seconds {params.seconds} --minutes {resources.runtime} {params.where} > {log} 2>&1"


for name, plan in PLANS.items():
    training_rule(name, plan, POINTS[name])
