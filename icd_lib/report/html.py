"""The frame of a page that opens offline: no script, no remote address, one inline style."""

from html import escape

from icd_lib.report.picture import Picture
from icd_lib.report.table import STYLE, Badges

PAGE_STYLE = """
:root{color-scheme:light dark;--ink:#1c2227;--soft:#55616b;--line:#d9dee2;--back:#fff;--card:#f6f8f9;--link:#005a9c}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecef;--soft:#a5b0b8;--line:#3a4248;--back:#14181b;--card:#1e2428;
 --link:#7cc0ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem clamp(.8rem,3vw,2rem) 4rem;background:var(--back);color:var(--ink);
 overflow-wrap:break-word;font:16px/1.55 system-ui,"Segoe UI",Roboto,Arial,sans-serif}
a{color:var(--link)}
h1{font-size:1.7rem;line-height:1.2;margin:.6rem 0 .2rem}
h2{font-size:1.25rem;margin:2.2rem 0 .6rem}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
p.lead{font-size:1.15rem;margin:.7rem 0}.soft{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:1rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem}
.card b{display:block;font-size:1.5rem;line-height:1.3}.card b.none{font-size:1.1rem}
.card span{display:block;font-size:.85rem;color:var(--soft)}
.scroll{overflow-x:auto;margin:.6rem 0}
.icd table{min-width:100%}
.icd td{min-width:6rem;max-width:26rem;overflow-wrap:anywhere}
figure{margin:1rem 0}figure img{max-width:min(100%,40rem);height:auto;border-radius:.4rem;background:#fff}
figcaption{color:var(--soft);font-size:.9rem}
ul.links{columns:18rem;padding-left:1.2rem}ul.links li{break-inside:avoid}
pre{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.7rem;overflow-x:auto}
"""


def page(title: str, body: str, badges: Badges) -> str:
    """A whole document; `body` is trusted HTML, `title` is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{PAGE_STYLE}</style>\n</head>\n"
        f'<body class="page icd">\n<div role="note">{badges.to_html()}</div>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def picture_html(picture: Picture) -> str:
    """A figure by relative address, with alt text and caption."""
    source = escape(f"figures/{picture.name}.png")
    return (
        f'<figure><a href="{source}"><img src="{source}" alt="{escape(picture.alt)}" loading="lazy"></a>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def show(thing) -> str:
    """HTML of a `Picture`, `Table` or `Missing`."""
    return picture_html(thing) if isinstance(thing, Picture) else thing.to_html()


def link(rel: str, text: str | None = None) -> str:
    """A relative link; the address and the text are escaped."""
    from urllib.parse import quote

    return f'<a href="{escape(quote(rel, errors="surrogateescape"))}">{escape(text or rel)}</a>'


def links(entries: list[tuple[str, str]]) -> str:
    """A list of (address, text) links."""
    return '<ul class="links">' + "".join(f"<li>{link(rel, text)}</li>" for rel, text in entries) + "</ul>"
