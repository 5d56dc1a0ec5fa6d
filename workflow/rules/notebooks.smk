"""One notebook per figure: executed, its figures moved into place when all of them are there."""

config["captions"] = captions(CONFIG.figures)  # what the report's template reads: words are no rule's parameter

for name, figure in CONFIG.figures.items():

    rule:
        name:
            name
        input:
            results=[result_file(experiment) for experiment in figure.experiments],
            notebook=NOTEBOOKS[name],
            code=code_of_notebook(NOTEBOOKS[name], figure),
        output:
            report(LAYOUT.figure(CONFIG.scale, name, "png"), caption="../report/figure.rst", category="Figures"),
            [LAYOUT.figure(CONFIG.scale, name, suffix) for suffix in FORMATS if suffix != "png"],
            executed=LAYOUT.executed(CONFIG.scale, name),
        log:
            LAYOUT.log(CONFIG.scale, name),
        benchmark:
            LAYOUT.benchmark(CONFIG.scale, name)
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=MIRRORSYM,
            results=LAYOUT.scale(CONFIG.scale),
            figures=LAYOUT.figures(CONFIG.scale),
            expect=" ".join(f"--expect {name}.{suffix}" for suffix in FORMATS),
        message:
            f"{name}: execute its notebook"
        shell:
            "{params.mirrorsym} job notebook {input.notebook:q} --results {params.results} --figures {params.figures} "
            "--executed {output.executed} {params.expect} > {log} 2>&1"
