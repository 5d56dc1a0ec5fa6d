"""Sphinx's settings of the page; `make site` copies what it is made of into a folder of its own and runs it there."""

import mirrorsym

project = "mirrorsym"
author = "The mirrorsym developers"
copyright = author  # noqa: A001
version = release = mirrorsym.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
exclude_patterns = ["docs/site/*"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
html_theme = "pydata_sphinx_theme"
html_title = "mirrorsym"
html_static_path = ["docs/site/static"]
templates_path = ["docs/site/templates"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}
html_sidebars = {"**": []}
html_theme_options = {
    "navbar_center": ["links.html", "navbar-nav"],
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
suppress_warnings = ["myst.header"]  # pages made for a forge may begin below the first level
linkcheck_anchors = False
linkcheck_timeout = 20
