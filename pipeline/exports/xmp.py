"""Encodes a caption as an XMP sidecar (ISO 16684-1), which photo managers read beside an image."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

_NOT_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Shardtalk">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">
   <dc:description>
    <rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>
   </dc:description>
   <Iptc4xmpCore:AltTextAccessibility>
    <rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>
   </Iptc4xmpCore:AltTextAccessibility>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def encode_xmp(caption: str) -> bytes:
    """Returns a sidecar with the caption as description (Dublin Core) and as alternative text (IPTC), in UTF-8.

    Characters that XML cannot hold become U+FFFD.
    """
    text = escape(_NOT_XML.sub("\ufffd", caption), {"\r": "&#13;"})
    return _PACKET.format(text=text).encode()
