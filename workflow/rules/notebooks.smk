"""One notebook per figure: executed, its figures moved into place when all of them are there."""

for name, figure in CONFIG.figures.items():

    rule:
        name:
            name
        input:
            results=[result_file(experiment) for experiment in figure.experiments],
            notebook=NOTEBOOKS[name],
            code=[fingerprint_of(module) for module in fingerprints.imports_of_notebook(NOTEBOOKS[name])],
        output:
            report(FIGURES / f"{name}.png", category="Figures"),
            [FIGURES / f"{name}.{suffix}" for suffix in FORMATS if suffix != "png"],
            executed=RESULTS / CONFIG.scale / "notebooks" / f"{name}.ipynb",
        log:
            RESULTS / "logs" / CONFIG.scale / f"{name}.log",
        benchmark:
            RESULTS / "benchmarks" / CONFIG.scale / f"{name}.tsv"
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=MIRRORSYM,
            results=RESULTS / CONFIG.scale,
            figures=FIGURES,
            expect=" ".join(f"--expect {name}.{suffix}" for suffix in FORMATS),
        message:
            f"{name}: execute its notebook"
        shell:
            "{params.mirrorsym} job notebook {input.notebook:q} --results {params.results} --figures {params.figures} "
            "--executed {output.executed} {params.expect} > {log} 2>&1"
