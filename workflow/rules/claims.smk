"""The verdict on each claim of claims.yaml, from the experiments that are configured."""

if CLAIMS:

    rule claims:
        input:
            claims=PROJECT / "claims.yaml",
            results=[result_file(name) for name in CLAIMED_EXPERIMENTS],
            code=fingerprint_of("reproduction.analysis.claims"),
        output:
            CLAIMS_FILE,
        log:
            LAYOUT.log(CONFIG.scale, "claims"),
        benchmark:
            LAYOUT.benchmark(CONFIG.scale, "claims")
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=MIRRORSYM,
            scale=CONFIG.scale,
            results=LAYOUT.scale(CONFIG.scale),
            experiments=" ".join(f"--experiment {name}" for name in CLAIMED_EXPERIMENTS),
        message:
            f"claims: judge {len(CLAIMS)} claims"
        shell:
            "{params.mirrorsym} job claims {input.claims:q} --results {params.results} --scale {params.scale} "
            "{params.experiments} --out {output} > {log} 2>&1"
