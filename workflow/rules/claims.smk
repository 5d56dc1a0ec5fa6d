"""The verdict on each claim of the folder claims and of own files, from the experiments that are configured."""

if CLAIMS:

    rule claims:
        input:
            claims=source_files(*PAPER_CLAIMS),
            own=source_files(*OWN_CLAIMS),
            results=[result_file(name) for name in CLAIMED_EXPERIMENTS],
            code=fingerprint_of("reproduction.analysis.verdicts"),
        output:
            CLAIMS_FILE,
        log:
            LAYOUT.log(CONFIG.scale, "claims"),
        localrule: True
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=AS_IT_IS,
            benchmark=LAYOUT.benchmark(CONFIG.scale, "claims"),
            scale=CONFIG.scale,
            results=LAYOUT.scale(CONFIG.scale),
            experiments=" ".join(f"--experiment {name}" for name in CLAIMED_EXPERIMENTS),
            own=keep_signature(lambda wildcards, input: " ".join(f"--own {shlex.quote(path)}" for path in input.own)),
        message:
            f"claims: judge {len(CLAIMS)} claims"
        shell:
            "{params.mirrorsym} job --benchmark {params.benchmark} claims {input.claims:q} --results {params.results} "
            "--scale {params.scale} {params.experiments} {params.own} --out {output} > {log} 2>&1"
