"""One netCDF file per experiment and scale, from its points."""

for name, plan in PLANS.items():

    rule:
        name:
            f"collect_{name}"
        input:
            points=list(POINTS[name]),
            plan=small_file(LAYOUT.plans(CONFIG.scale), name, plan.to_json()),
            code=fingerprint_of("reproduction.pipeline.collect"),
        output:
            result_file(name),
        log:
            LAYOUT.log(CONFIG.scale, f"collect_{name}"),
        localrule: True
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            mirrorsym=forked("reproduction.pipeline.collect"),
            benchmark=LAYOUT.benchmark(CONFIG.scale, f"collect_{name}"),
        message:
            f"{name}: collect {len(POINTS[name])} points"
        shell:
            "{params.mirrorsym} job --benchmark {params.benchmark} collect {input.plan} --out {output} > {log} 2>&1"
