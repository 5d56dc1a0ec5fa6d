"""CIFAR-10: fetched on the machine that submits, verified, unpacked into one file."""


rule cifar10:
    output:
        LAYOUT.cifar10,
    log:
        LAYOUT.log("", "cifar10"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        mirrorsym=AS_IT_IS,
        benchmark=LAYOUT.benchmark("", "cifar10"),
        source=keep_signature(lambda wildcards: CONFIG.cifar10.model_dump_json()),
    message:
        "CIFAR-10: fetch, verify, unpack"
    shell:
        "{params.mirrorsym} job --benchmark {params.benchmark} cifar10 {params.source:q} --out {output} --log {log}"
