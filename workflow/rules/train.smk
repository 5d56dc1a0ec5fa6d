"""One rule per experiment; one job of it is a training, or a block of a kernel."""

from snakemake.utils import Paramspace

import pandas

OPTIONS = f"--device {CONFIG.device} --checkpoint-seconds {60 * CONFIG.checkpoint_minutes}"
if not workflow.is_main_process:
    OPTIONS += " --cluster"


def training_rule(name, plan, points):
    entry = CONFIG.experiments[name]
    first = next(iter(points.values()))
    space = Paramspace(
        pandas.DataFrame([point.labels for point in points.values()], dtype=str),
        filename_params="*",
        param_sep="~",
        filename_sep=",",
    )
    folder = f"{name}/{first.config_hash}/{space.wildcard_pattern}"

    rule:
        name:
            f"train_{name}"
        input:
            data=[ancient(LAYOUT.cifar10)] if plan.data else [],  # the point's name says which data it wants, not a time
            code=fingerprint_of(module_path(plan.module)),
        output:
            LAYOUT.point(f"{folder}.nc"),
        log:
            LAYOUT.point_log(f"{folder}.nc"),
        group:
            default_group(name) if runs_elsewhere() else None  # a profile that names the rule has its own
        conda:
            ENVIRONMENT
        resources:
            **CONFIG.cluster.resources(entry.resources.gpu),
            mem_mb=keep_signature(lambda wildcards, attempt: attempt * entry.resources.mem_mb),
            runtime=keep_signature(
                lambda wildcards, attempt: min(attempt * entry.resources.runtime, longest_share(name))
            ),
            gpu=entry.resources.gpu,
            lane=1,  # a cluster's profile says how many jobs of a group run at once
        params:
            mirrorsym=forked(module_path(plan.module)),
            benchmark=str(LAYOUT.point_benchmark(f"{folder}.nc")),
            options=OPTIONS,
            point=keep_signature(lambda wildcards, output: points[output[0]].to_json()),
        shell:
            "{params.mirrorsym} job --benchmark {params.benchmark} point {params.options} {params.point:q} "
            "--out {output} --minutes {resources.runtime} > {log} 2>&1"


for name, plan in PLANS.items():
    training_rule(name, plan, POINTS[name])

if workflow.is_main_process:
    for line in imported_of_other_code(LAYOUT, CONFIG, PLANS):
        print(f"mirrorsym: {line}", file=sys.stderr)
