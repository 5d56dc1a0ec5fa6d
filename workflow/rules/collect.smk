"""One netCDF file per experiment and scale, from its points."""

for name, plan in PLANS.items():

    rule:
        name:
            f"collect_{name}"
        input:
            points=list(POINTS[name]),
            plan=small_file(RESULTS / "plans" / CONFIG.scale, name, plan.to_json()),
            code=fingerprint_of("mirrorsym.store"),
        output:
            result_file(name),
        log:
            RESULTS / "logs" / CONFIG.scale / f"collect_{name}.log",
        benchmark:
            RESULTS / "benchmarks" / CONFIG.scale / f"collect_{name}.tsv"
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=MIRRORSYM,
        message:
            f"{name}: collect {len(POINTS[name])} points"
        shell:
            "{params.mirrorsym} job collect {input.plan} --out {output} > {log} 2>&1"
