"""Hook of mkdocs: links from a page to a file of the checkout, such as `../configs/train.yaml`, become its name.

The site holds the pages only. A link to a file that does not exist stays, and so is an error.
"""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]*)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Returns the page without links out of docs/."""
    folder = (DOCS / page.file.src_uri).parent

    def unlinked(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        return found[0] if target.is_relative_to(DOCS) or not target.exists() else found[1]

    return _LINK.sub(unlinked, markdown)
