"""The verdict on each claim of the folder claims and of own files, from the experiments that are configured."""

if CLAIMS:

    rule claims:
        input:
            claims=PAPER_CLAIMS,
            own=OWN_CLAIMS,
            results=[result_file(name) for name in CLAIMED_EXPERIMENTS],
            code=fingerprint_of("reproduction.analysis.verdicts"),
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
            own=" ".join(f"--own {shlex.quote(str(path))}" for path in OWN_CLAIMS),
        message:
            f"claims: judge {len(CLAIMS)} claims"
        shell:
            "{params.mirrorsym} job claims {input.claims:q} --results {params.results} --scale {params.scale} "
            "{params.experiments} {params.own} --out {output} > {log} 2>&1"
