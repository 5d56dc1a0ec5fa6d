"""One notebook per figure: executed, its figures moved into place when all of them are there."""

config["captions"] = captions(CONFIG.figures)  # what the report's template reads: words are no rule's parameter


def folder_of(notebook):
    return keep_signature(lambda wildcards: str(notebook.parent))


for name, figure in CONFIG.figures.items():

    rule:
        name:
            name
        input:
            results=[result_file(experiment) for experiment in figure.experiments],
            notebook=source_files(NOTEBOOKS[name], read=sources.code_of),
            code=code_of_notebook(NOTEBOOKS[name], figure),
        output:
            report(LAYOUT.figure(CONFIG.scale, name, "png"), caption="../report/figure.rst", category="Figures"),
            [path for path in figure_files(name) if path.suffix != ".png"],
            executed=LAYOUT.executed(CONFIG.scale, name),
        log:
            LAYOUT.log(CONFIG.scale, name),
        localrule: True
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=forked("reproduction.pipeline.execute,reproduction.report.plotting"),
            benchmark=LAYOUT.benchmark(CONFIG.scale, name),
            results=LAYOUT.scale(CONFIG.scale),
            figures=LAYOUT.figures(CONFIG.scale),
            folder=folder_of(NOTEBOOKS[name]),
            expect=" ".join(f"--expect {path.name}" for path in figure_files(name)),
        message:
            f"{name}: execute its notebook"
        shell:
            "{params.mirrorsym} job --benchmark {params.benchmark} notebook {input.notebook:q} "
            "--results {params.results} --figures {params.figures} --executed {output.executed} "
            "--folder {params.folder:q} {params.expect} > {log} 2>&1"
