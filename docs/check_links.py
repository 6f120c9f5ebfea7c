"""Check the links to other sites in the documentation, docstrings, examples and metadata.

``python docs/check_links.py`` checks their form and spelling without network, as the tests do; ``--request``
(``make links``) also requests each of them. Links within the site: the strict build, and tests/test_docs.py.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/*.py", "src/**/*.py", "CITATION.cff", "*.toml")

_LINK = re.compile(r"https?://[^\s<>\"'`\]]+")
_HOST = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")
_REFUSED = (401, 403, 405, 429)
"""Answers of sites that turn programs away; a person has to look."""


def find_links(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return where each link stands: ``FILE:LINE``."""
    found = defaultdict(list)
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for link in _LINK.findall(line):
                found[trim(link)].append(f"{path.name}:{number}")
    return dict(found)


def trim(link: str) -> str:
    """Return a link without the punctuation of its sentence, and without a bracket that closes around it."""
    link = link.rstrip(".,;:!?*")
    while link.endswith(")") and link.count(")") > link.count("("):
        link = link[:-1].rstrip(".,;:!?*")
    return link


def find_problems(links: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each link that is not well formed, or spelled in more than one way, with what is wrong."""
    spellings = defaultdict(set)
    for link in links:
        parts = urlsplit(link)
        host = parts.hostname or ""
        spellings[host.removeprefix("www."), parts.path.rstrip("/"), parts.query, parts.fragment].add(link)
        if parts.scheme != "https":
            yield link, "must begin with https://"
        if not _HOST.fullmatch(parts.netloc):
            yield link, "must have the name of a public host in small letters, without port and user"
        if "//" in parts.path or "{" in link or "…" in link:
            yield link, "must be complete, without // in its path and without placeholders"
    for several in spellings.values():
        for link in sorted(several)[1:]:
            yield link, f"must be spelled as {min(several)}"


def request(link: str, *, timeout_s: float = 20.0) -> str | None:
    """Return what is wrong with the answer to a request; ``None`` if there is something at the address."""
    for method in ("HEAD", "GET"):  # some servers know no HEAD
        headers = {"User-Agent": "Mozilla/5.0 (check of links)"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(link, method=method, headers=headers), timeout=timeout_s
            ):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            answer = f"answers {error.code}" + (", look yourself" if error.code in _REFUSED else "")
        except OSError as error:
            return f"cannot be reached: {error}"
    return answer


def main(arguments: list[str]) -> int:
    """Print each problem with the places of its link; return the exit status."""
    links = find_links(sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)}))
    problems = list(find_problems(links))
    if "--request" in arguments:
        problems += [(link, problem) for link in links if (problem := request(link)) is not None]
    for link, problem in problems:
        sys.stdout.write(f"{', '.join(links[link])}: {link} {problem}\n")
    sys.stdout.write(f"{len(links)} links, {len(problems)} problems\n")
    return bool(problems)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
