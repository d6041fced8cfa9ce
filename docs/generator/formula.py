"""Equations and prose of docstrings as HTML.

The equations are plain Unicode in aligned columns.  A line becomes a row of a table: what is defined, its formula,
and the note that three spaces or more set apart.  `ρ_it` and `e^{−2u}` get a real index and exponent; the signs that
spelled them stay in the text, of size zero, so that a copied equation reads as in the file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from html import escape

from posttrain.cli.equation import CONTINUES, LEGEND, RELATION, Line

SCRIPTS = r"(?:[_^](?:\{[^{}]*\}|[^\W_]+|\*))*"
ATOM = re.compile(r"(?P<space>\s+)|(?P<base>[^\W\d_][^\W_]*[\u0300-\u036f]*|\d+(?:\.\d+)?(?:e[-−]?\d+)?|.)"
                  rf"(?P<primes>'s\b|'*)(?P<scripts>{SCRIPTS})")
SCRIPT = re.compile(r"([_^])(\{[^{}]*\}|[^\W_]+|\*)")
IN_PROSE = re.compile(r"(?<![\w`])[^\W\d_][\u0300-\u036f]*'*(?=[_^])(?:[_^](?:\{[^{}]*\}|[^\W_]+))+(?!\w)")
INDEX = re.compile(r"[abgijklmnst]{1,2}")
LONGEST_UNBROKEN = 72  # a formula up to this length stays on one line, and the note beside it gives way
LONGEST_SYMBOL = 18  # a line whose first relation comes later is a sentence


def equation(lines: Sequence[Line]) -> str:
    """The lines as one table, without blank lines, so that Markdown lets it be."""
    base = min((_indent(line.text) for line in lines), default=0)
    goes_on = False
    rows: list[str] = []
    for line in lines:
        symbol = _symbol(line.text)
        continued = goes_on and not symbol and (_indent(line.text) > base or bool(CONTINUES.match(line.text.lstrip())))
        rows.append(_row(line, symbol, continued))
        goes_on = bool(symbol) or continued
    marked = " marked" if any(line.mark for line in lines) else ""
    return f'<table class="equation{marked}">\n' + "\n".join(rows) + "\n</table>"


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _symbol(text: str) -> re.Match[str] | None:
    """The relation sign after a defined symbol."""
    sign = RELATION.search(text)
    return sign if sign and len(text[:sign.start()].strip()) <= LONGEST_SYMBOL else None


def _row(line: Line, sign: re.Match[str] | None, continued: bool) -> str:
    text, start = line.text, sign.end() if sign else _indent(line.text)
    gap = re.compile(r"(?<=\S)\s{3,}").search(text, start)
    end = gap.start() if gap else len(text)
    formula = _set(text, start, end, line.changed)
    note = f'<td class="note">{_set(text, gap.end(), len(text), line.changed)} </td>' if gap else ""
    wide = "" if note else ' colspan="2"'
    whole = " whole" if end - start <= LONGEST_UNBROKEN else ""
    if sign:
        left = _set(text, _indent(text), sign.start(), line.changed)
        cells = f'<td class="symbol">{left} </td><td class="relation">{escape(sign.group().strip())} </td>'
        cells += f'<td class="formula{whole}"{wide}>{formula} </td>{note}'
    elif continued:
        cells = f'<td></td><td></td><td class="formula more{whole}"{wide}>{formula} </td>{note}'
    else:
        cells = f'<td class="formula" colspan="{3 if note else 4}">{formula} </td>{note}'
    word = LEGEND.get(line.mark, "")
    sign_shown = {"-": "−"}.get(line.mark, line.mark)
    return (f'<tr class="{word}"><td class="mark" title="{word}">{sign_shown} </td>{cells}</tr>' if word
            else f"<tr><td class=\"mark\"></td>{cells}</tr>")


def _set(text: str, start: int, end: int, changed: Sequence[tuple[int, int]]) -> str:
    """A stretch of a line; what touches a changed part is marked, with the spaces between."""
    parts: list[tuple[str, bool]] = []
    for atom in ATOM.finditer(text, start, end):
        touched = any(atom.start() < b and a < atom.end() for a, b in changed)
        parts.append((_atom(atom, text), touched))
    out, inside = "", False
    for html, touched in parts:
        if touched != inside:
            out += "<mark>" if touched else "</mark>"
            inside = touched
        out += html
    return out + ("</mark>" if inside else "")


def _atom(atom: re.Match[str], text: str) -> str:
    if space := atom["space"]:
        return " " if len(space) == 1 else '<span class="gap"> </span>'
    word = escape(atom["base"], quote=False)
    article = atom["base"] == "a" and re.match(r' ["a-z][a-z]', text[atom.end():])
    if _is_variable(atom["base"]) and not article:
        word = f"<i>{word}</i>"
    elif "-" in word[1:]:  # 1e-4 is not to be broken at its hyphen
        word = f'<span class="number">{word}</span>'
    elif atom["base"] in "ΣΠ∇":
        word = f'<span class="operator">{word}</span>'
    return word + escape(atom["primes"], quote=False) + _scripts(atom["scripts"])


def _is_variable(word: str) -> bool:
    """One letter, with or without accents and digits; capital Greek stands upright."""
    letters = [c for c in unicodedata.normalize("NFD", word) if c.isalpha()]
    return len(letters) == 1 and word[0].isalpha() and not ("Α" <= letters[0] <= "Ω")


def _scripts(text: str) -> str:
    return "".join(_script(sign, body) for sign, body in SCRIPT.findall(text))


def _script(sign: str, body: str) -> str:
    tag = "sub" if sign == "_" else "sup"
    if body.startswith("{"):
        return (f'<span class="typed">{sign}{{</span><{tag}>{_index(body[1:-1])}</{tag}><span class="typed">}}</span>')
    return f'<span class="typed">{sign}</span><{tag}>{_index(body)}</{tag}>'


def _index(text: str) -> str:
    """Letters that count are italic, as in ρ_it; words are not, as in π_old."""
    out = ""
    for atom in ATOM.finditer(text):
        word = escape(atom.group("base") or " ", quote=False)
        italic = INDEX.fullmatch(word) or (len(word) == 1 and _is_variable(word))
        out += (f"<i>{word}</i>" if italic else word) + escape(atom["primes"] or "", quote=False)
        out += _scripts(atom["scripts"] or "")
    return out


def symbol(text: str) -> str:
    """One symbol, as in a table of hyperparameters."""
    return f'<span class="maths">{_set(text, 0, len(text), ())}</span>' if text else ""


def line(text: str) -> str:
    """A line of prose: code between backticks, symbols with their indices."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a backtick without its partner
        pieces = ["'".join(pieces)]
    return "".join(f"<code>{escape(piece, quote=False)}</code>" if i % 2 else _prose(piece)
                   for i, piece in enumerate(pieces))


def _prose(text: str) -> str:
    out, at = "", 0
    for found in IN_PROSE.finditer(text):
        out += escape(text[at:found.start()], quote=False) + symbol(found.group())
        at = found.end()
    return out + escape(text[at:], quote=False)


def paragraphs(text: str) -> str:
    return "\n".join(f"<p>{line(' '.join(p.split()))}</p>" for p in re.split(r"\n\s*\n", text) if p.strip())
