"""The explorer's page: Vega, its views and its own few lines in one file."""

from __future__ import annotations

import json
from pathlib import Path

from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.report.render import render_template
from reproduction.site.explorer.views import views


def page(config: Config, layout: Layout, sources: Path) -> str:
    """Return the page of a scale.

    Args:
        config: the configuration at that scale.
        layout: the project's paths; its result files are there.
        sources: the folder of ``explorer.html.j2``, ``dynamics.js``, ``explorer.js`` and ``explorer.css``.

    Raises:
        FileError: if a result file is missing.
        StoreError: if one cannot be read.
        ReportError: if the template is wrong.
    """
    import vl_convert

    made = views(config, layout)
    names = ("dynamics.js", "explorer.js", "explorer.css")
    texts = {name.replace(".", "_"): (sources / name).read_text(encoding="utf-8") for name in names}
    content = {
        "scale": config.scale,
        "views": [{"id": view["id"], "title": view["title"]} for view in made],
        # No tag of the data ends the script that it stands in.
        "data": json.dumps(made, ensure_ascii=False, allow_nan=False).replace("</", "<\\/"),
        "vega": vl_convert.javascript_bundle().replace("</script", "<\\/script"),  # type: ignore[call-arg]
        **texts,
    }
    return render_template(content, sources / "explorer.html.j2")
