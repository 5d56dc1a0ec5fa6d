"""The report: a PDF and a page of HTML, from the figures, the result files and the verdicts on the claims."""

REPORT_SOURCES = ("text.yaml", "findings.yaml", "references.bib", "main.typ", "index.html.j2")


rule paper:
    input:
        words=source_files(*(PROJECT / "paper" / name for name in REPORT_SOURCES)),
        figures=[figure_files(figure) for figure in CONFIG.figures],
        results=[result_file(experiment) for experiment in CONFIG.experiments],
        claims=CLAIMS_FILE,
        plan=small_file(LAYOUT.plans(CONFIG.scale), "paper", plan_of_the_report()),
        code=fingerprint_of("reproduction.report.render"),
    output:
        pdf=LAYOUT.pdf(CONFIG.scale),
        page=LAYOUT.page(CONFIG.scale),
        numbers=LAYOUT.numbers(CONFIG.scale),
    log:
        LAYOUT.log(CONFIG.scale, "paper"),
    localrule: True
    conda:
        ENVIRONMENT.replace("pipeline.yaml", "paper.yaml")
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        mirrorsym=AS_IT_IS,
        benchmark=LAYOUT.benchmark(CONFIG.scale, "paper"),
    message:
        f"paper: write the report of the scale {CONFIG.scale}"
    shell:
        "{params.mirrorsym} job --benchmark {params.benchmark} paper {input.plan} --words {input.words[0]:q} > {log} 2>&1"
