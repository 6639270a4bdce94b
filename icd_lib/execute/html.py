"""An executed notebook as one HTML page that opens offline: nothing is loaded from anywhere, images carry alt text."""

from functools import cache

import nbformat

_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
nav.icd-home { padding: .8em var(--jp-cell-padding, 5px); font-family: var(--jp-content-font-family, sans-serif); }
body.jp-Notebook { max-width: 72rem; margin: 0 auto; }
.jp-RenderedImage img { max-width: min(100%, 40rem); height: auto; }
.jp-OutputArea-output { overflow-x: auto; }
@media (max-width: 48rem) {
  .jp-InputPrompt, .jp-OutputPrompt { display: none; }
  body.jp-Notebook { padding: 0 .3rem; }
}
</style>
{%- endblock -%}
{%- block body_header -%}
{{ super() }}
<nav class="icd-home"><a href="{{ resources.icd_home | escape_html }}">&larr; all results of this run</a></nav>
{%- endblock -%}
{%- macro picture(output, cell, mime) -%}
{%- set alt = output.metadata.get(mime, {}).get('alt') or output.metadata.get('alt') or cell.metadata.get('alt') -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:{{ mime }};base64,{{ output.data[mime] | escape_html }}"
{%- if alt %} alt="{{ alt | escape_html }}"{% endif %}>
</div>
{%- endmacro -%}
{%- block data_png scoped -%}{{ picture(output, cell, 'image/png') }}{%- endblock -%}
{%- block data_jpg scoped -%}{{ picture(output, cell, 'image/jpeg') }}{%- endblock -%}
"""
_REMOTE = (
    "require_js_url",
    "mathjax_url",
    "mermaid_js_url",
    "mermaid_layout_elk_js_url",
    "jquery_url",
    "jupyter_widgets_base_url",
)


def to_html(notebook: nbformat.NotebookNode, title: str, home: str = "index.html") -> str:
    """The page of an executed notebook; `home` is the link back to the index, relative to the page.

    Alt text of a figure comes from its output metadata (`{"image/png": {"alt": …}}` or `{"alt": …}`), else from the
    metadata of its cell.
    """
    resources = {"metadata": {"name": title}, "icd_home": home}
    page, _ = _exporter().from_notebook_node(notebook, resources=resources)
    return page


@cache
def _exporter():
    """One for all pages: its templates are compiled once."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    return HTMLExporter(
        extra_loaders=[DictLoader({"icd.html.j2": _TEMPLATE})],
        template_file="icd.html.j2",
        **dict.fromkeys(_REMOTE, ""),
    )
