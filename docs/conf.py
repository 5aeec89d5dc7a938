"""How Sphinx builds the documentation: python -m sphinx -W -b html docs build/site."""

import sys
from pathlib import Path

import instep

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "instep"
version = release = instep.__version__
project_copyright = "the authors of instep"
html_show_copyright = html_show_sphinx = html_copy_source = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "pages",
]
exclude_patterns = ["_*"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "py:obj"  # what docstrings have in single quotes: names, linked where they are known
autodoc_mock_imports = ["flwr", "keras", "torch"]  # large, and of no use to the rest
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # docstrings tell types, in words
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"instep {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
