# The paper, made from nothing: data -> points -> one result file per experiment -> figures and verdicts -> report.
from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"


if workflow.is_main_process:  # a cluster's job runs points alone, and starts faster without the other rules

    include: "workflow/rules/data.smk"
    include: "workflow/rules/collect.smk"
    include: "workflow/rules/notebooks.smk"
    include: "workflow/rules/claims.smk"
    include: "workflow/rules/paper.smk"

    rule all:
        default_target: True
        input:
            [figure_files(figure) for figure in CONFIG.figures],
            [result_file(experiment) for experiment in CONFIG.experiments],
            [CLAIMS_FILE] if CLAIMS else [],
