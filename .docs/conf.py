"""The site's settings; the pages are gathered by scripts/docs.py. Nothing is loaded from elsewhere when it is read."""

project = "generalist"
author = "the generalist contributors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "generalist"
html_copy_source = False
html_show_sphinx = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# code blocks of a shell are not checked word by word, and plain blocks are no language
highlight_language = "none"
exclude_patterns: list[str] = []
html_static_path = ["static"]
html_css_files = ["style.css"]
