"""The report: a PDF and a page of HTML, from the figures, the result files and the verdicts on the claims."""


rule paper:
    input:
        words=["paper/text.yaml", "paper/references.bib"],
        layout=["paper/main.typ", "paper/index.html.j2"],
        figures=[figure_files(figure) for figure in CONFIG.figures],
        results=[result_file(experiment) for experiment in CONFIG.experiments],
        claims=CLAIMS_FILE,
        plan=small_file(RESULTS / "plans" / CONFIG.scale, "paper", plan_of_the_report()),
        code=fingerprint_of("mirrorsym.rendering"),
    output:
        pdf=Path("paper") / CONFIG.scale / "paper.pdf",
        page=Path("paper") / CONFIG.scale / "index.html",
        numbers=RESULTS / CONFIG.scale / "report.json",
    log:
        RESULTS / "logs" / CONFIG.scale / "paper.log",
    benchmark:
        RESULTS / "benchmarks" / CONFIG.scale / "paper.tsv"
    localrule: True
    conda:
        "../../envs/paper.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        mirrorsym=MIRRORSYM,
    message:
        f"paper: write the report of the scale {CONFIG.scale}"
    shell:
        "{params.mirrorsym} job paper {input.plan} > {log} 2>&1"
